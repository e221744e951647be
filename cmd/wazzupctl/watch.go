package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

type watchCmd struct {
	connection
	Kind    []string      `sep:"," placeholder:"KIND" help:"Only these: command, message, status, channel, channels, counter, quarantine, ops, or a command's kind such as send or contacts-upsert."`
	State   []string      `sep:"," placeholder:"STATE" help:"Only commands, statuses or channels in these states, or messages in or out."`
	Channel string        `name:"channel-id" aliases:"channel" placeholder:"UUID" help:"Only this channel."`
	ID      string        `name:"id" help:"Only what belongs to the command, or the message, with this id."`
	Since   string        `placeholder:"WHEN" help:"Begin with what was stored then: a time with zone, or a span back from now (10m). Default: only what is new."`
	Count   int           `placeholder:"N" help:"End after so many events."`
	For     time.Duration `placeholder:"SPAN" help:"End after this time."`
	JSON    bool          `help:"Print JSON, an event a line."`
}

// Help is the detailed help.
func (*watchCmd) Help() string {
	return `Prints events as they are stored, until it is interrupted.

Examples:
  wazzupctl watch
  wazzupctl watch --kind send,bulk --state rejected,dead --since 24h
  wazzupctl watch --kind message --state in --json`
}

// Run prints events.
func (c *watchCmd) Run(ctx context.Context, e *env) error {
	start, startErr := c.start(time.Now())
	settings, settingsErr := c.settings(e)
	if err := joinFaults(settingsErr, startErr, c.check()); err != nil {
		return err
	}
	cl, err := c.connectWith(ctx, e, settings)
	if err != nil {
		return err
	}
	defer cl.Close()
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	shown := 0
	cl.Progress("waiting for events")
	err = follow(ctx, cl, start, c.filter(cl.account), func(ev *event) (bool, error) {
		if !c.wants(ev) {
			return false, nil
		}
		shown++
		return shown == c.Count, c.print(cl, ev)
	})
	cl.Done()
	if ctx.Err() != nil {
		return nil // interrupted, or the time is over
	}
	return err
}

// start is where to begin; the zero time means only what is new.
func (c *watchCmd) start(now time.Time) (time.Time, error) { return pastTime("--since", c.Since, now) }

// pastTime reads a flag that names a time, or a span back from now; zero when it
// is not given.
func pastTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
	}
	return time.Time{}, errors.New(flag + ": must be a time with zone such as 2026-11-22T10:00:00Z, or a span back from now such as 10m")
}

func families() []string {
	return []string{"command", "message", "status", "channel", "channels", "counter", "quarantine", "ops"}
}

func (c *watchCmd) check() error {
	var errs []error
	for _, kind := range c.Kind {
		if !slices.Contains(families(), kind) && !slices.Contains(schema.Kinds(), schema.Kind(kind)) {
			errs = append(errs, fmt.Errorf("--kind: %q is none of %s, %s", kind, strings.Join(families(), ", "), joinKinds()))
		}
	}
	if c.Channel != "" && !schema.ValidUUID(c.Channel) {
		errs = append(errs, errors.New("--channel-id: is no uuid in lower case"))
	}
	if c.Count < 0 || c.For < 0 {
		errs = append(errs, errors.New("--count, --for: must not be negative"))
	}
	return errors.Join(errs...)
}

func joinKinds() string {
	var all []string
	for _, k := range schema.Kinds() {
		all = append(all, string(k))
	}
	return strings.Join(all, ", ")
}

// filter is what the server is asked for: one family, or all of them; the rest is
// chosen here.
func (c *watchCmd) filter(account string) string {
	wanted := make(map[string]bool)
	for _, kind := range c.Kind {
		if !slices.Contains(families(), kind) {
			kind = "command"
		}
		wanted[kind] = true
	}
	all := schema.EventSubjects(account)
	if len(wanted) != 1 {
		return all
	}
	if wanted["channels"] { // the one that ends there
		return schema.ChannelsEventSubject(account)
	}
	for family := range wanted {
		all = strings.TrimSuffix(all, ">") + family + ".>"
	}
	return all
}

// wants chooses by what the flags say.
func (c *watchCmd) wants(e *event) bool {
	if len(c.Kind) > 0 && !slices.Contains(c.Kind, e.family()) && (e.family() != "command" || !slices.Contains(c.Kind, e.token(2))) {
		return false
	}
	state := e.token(1)
	if e.family() == "channel" {
		state = e.token(2)
	}
	if len(c.State) > 0 && !slices.Contains(c.State, state) {
		return false
	}
	if c.Channel != "" && e.fields.ChannelID != c.Channel {
		return false
	}
	f := &e.fields
	return c.ID == "" || e.family() == "command" && f.ID == c.ID || f.CommandID == c.ID || f.MessageID == c.ID
}

func (c *watchCmd) print(cl *client, e *event) error {
	if c.JSON {
		return cl.JSON(e)
	}
	cl.Printf("%s  %s\n", cl.tint(faint, e.Time.Local().Format(timeOnly)), cl.eventLine(e))
	return nil
}

// follow hands over the account's events, from a time on (zero: only new ones),
// until each returns true or an error, or ctx ends.
func follow(ctx context.Context, cl *client, start time.Time, filter string, each func(*event) (done bool, err error)) error {
	events, err := openFeed(ctx, cl, start, filter)
	if err != nil {
		return err
	}
	defer events.close()
	for {
		ev, err := events.event(ctx)
		if err != nil {
			return err
		}
		if done, err := each(ev); done || err != nil {
			return err
		}
	}
}
