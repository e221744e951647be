package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

// handOver is how long a request is repeated that meets nobody: an account changes
// hands within this time when its owner leaves in order.
const handOver = 3 * time.Second

// connection are the flags that say where NATS is and which account is meant.
// nil = not given: the environment, then the default.
type connection struct {
	NATSURL          *string       `name:"nats-url" group:"Connection" placeholder:"URL" help:"Where NATS listens (NATS_URL; default nats://127.0.0.1:4222)."`
	NATSCreds        *string       `name:"nats-creds" group:"Connection" placeholder:"FILE" help:"A .creds file to log in with (NATS_CREDS)."`
	NATSUser         *string       `name:"nats-user" group:"Connection" placeholder:"NAME" help:"User to log in as (NATS_USER)."`
	NATSPasswordFile *string       `name:"nats-password-file" group:"Connection" placeholder:"FILE" help:"File of the user's password (NATS_PASSWORD, NATS_PASSWORD_FILE)."`
	NATSCA           *string       `name:"nats-ca" group:"Connection" placeholder:"FILE" help:"PEM file of authorities to trust (NATS_CA)."`
	NATSCert         *string       `name:"nats-cert" group:"Connection" placeholder:"FILE" help:"PEM file of the client certificate (NATS_CERT)."`
	NATSKey          *string       `name:"nats-key" group:"Connection" placeholder:"FILE" help:"PEM file of its key (NATS_KEY)."`
	NATSInboxPrefix  *string       `name:"nats-inbox-prefix" group:"Connection" placeholder:"SUBJECT" help:"Beginning of the subjects on which answers are awaited (NATS_INBOX_PREFIX; default _INBOX)."`
	Account          *string       `name:"wazzup-account" aliases:"account" group:"Connection" placeholder:"NAME" help:"The account (WAZZUP_ACCOUNT; default main)."`
	ConnectTimeout   time.Duration `name:"connect-timeout" group:"Connection" default:"5s" help:"How long to wait for NATS (default ${default})."`
}

// settings reads flags and environment by the rules of all programs.
func (c *connection) settings(e *env) (*relay.ClientSettings, error) {
	var args []string
	for _, flag := range []struct {
		name  string
		value *string
	}{
		{"nats-url", c.NATSURL},
		{"nats-creds", c.NATSCreds},
		{"nats-user", c.NATSUser},
		{"nats-password-file", c.NATSPasswordFile},
		{"nats-ca", c.NATSCA},
		{"nats-cert", c.NATSCert},
		{"nats-key", c.NATSKey},
		{"nats-inbox-prefix", c.NATSInboxPrefix},
		{"wazzup-account", c.Account},
	} {
		if flag.value != nil {
			args = append(args, "--"+flag.name+"="+*flag.value)
		}
	}
	s := relay.NewClientSettings("wazzupctl")
	if err := relay.Parse(s, args, e.getenv, io.Discard); err != nil {
		return nil, err
	}
	return s, nil
}

// client talks to one account.
type client struct {
	account string
	conn    *daemon.NATS
	nc      *nats.Conn
	js      jetstream.JetStream
	*printer
}

// connect waits for NATS and says what to do when it does not come. The caller
// closes the client.
func (c *connection) connect(ctx context.Context, e *env) (*client, error) {
	settings, err := c.settings(e)
	if err != nil {
		return nil, err
	}
	return c.connectWith(ctx, e, settings)
}

func (c *connection) connectWith(ctx context.Context, e *env, settings *relay.ClientSettings) (*client, error) {
	conn, err := daemon.ConnectNATS(settings.NATS.Config("wazzupctl", zerolog.Nop()))
	if err != nil {
		return nil, &relay.UsageError{Err: err}
	}
	e.Progress("waiting for NATS")
	defer e.Done()
	wait, cancel := context.WithTimeout(ctx, c.ConnectTimeout)
	defer cancel()
	if err := conn.Wait(wait); err != nil {
		reason := conn.Trouble()
		conn.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &noNATS{daemon.RedactedURLs(settings.NATS.URL), reason}
	}
	js, err := jetstream.New(conn.Conn())
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	return &client{account: settings.Account, conn: conn, nc: conn.Conn(), js: js, printer: e.printer}, nil
}

// noNATS: the connection did not come about in time.
type noNATS struct {
	url    string
	reason string // "" = not known
}

func (e *noNATS) Error() string {
	return e.short() + ": is it running there? --nats-url or NATS_URL says where it is; `wazzupctl dev` starts one"
}

func (e *noNATS) short() string {
	if e.reason == "" {
		return "NATS does not answer at " + e.url
	}
	return "NATS does not answer at " + e.url + " (" + e.reason + ")"
}

func (c *client) Close() { c.conn.Close() }

// apiError is a refusal of a request, by the worker or by Wazzup through it.
type apiError = queue.RequestError

// errNoWorker: nobody serves the account's requests.
var errNoWorker = errors.New("no worker serves this account: start one (cmd/worker, or `wazzupctl dev`), or name another account with --wazzup-account")

// request asks the account's owner and decodes the answer into out, which may be
// a *json.RawMessage.
func (c *client) request(ctx context.Context, name string, in, out any) error {
	requests, err := queue.NewRequests(c.nc, c.account)
	if err != nil {
		return err
	}
	requests.HandOver = handOver
	requests.Waiting = func() { c.Progress("waiting for a worker of account " + c.account) }
	err = requests.Do(ctx, name, in, out)
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, queue.ErrNoOwner):
		return fmt.Errorf("request %s of account %s: %w", name, c.account, errNoWorker)
	}
	return err
}
