package relay

import "github.com/wazzup-relay/wazzup-relay/internal/config"

// ClientSettings are what a command line tool needs to reach an account.
type ClientSettings struct {
	NATS    NATSSettings
	Account string

	source
	table *config.Set
}

// NewClientSettings declares the settings of a program that talks to NATS only.
func NewClientSettings(program string) *ClientSettings {
	c := &ClientSettings{table: config.New(program, "")}
	c.NATS.Declare(c.table)
	c.table.String(&c.Account, "WAZZUP_ACCOUNT", DefaultAccount, "The account's name.")
	return c
}

// Table implements [Settings].
func (c *ClientSettings) Table() *config.Set { return c.table }

func (c *ClientSettings) check() []finding {
	r := &rules{table: c.table}
	r.account(c.Account)
	c.NATS.check(r)
	return r.found
}

func (c *ClientSettings) prepare() {}
