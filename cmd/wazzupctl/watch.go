package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
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
	err = follow(ctx, cl, start, c.subjects(cl.account), func(ev *event) (bool, error) {
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

// subjects are what the server is asked for: whole families; the rest is chosen
// here.
func (c *watchCmd) subjects(account string) []string {
	wanted := make(map[string]bool)
	for _, kind := range c.Kind {
		if slices.Contains(families(), kind) {
			wanted[kind] = true
		} else {
			wanted["command"] = true
		}
	}
	if len(wanted) == 0 {
		return []string{schema.EventSubjects(account)}
	}
	var subjects []string
	for _, family := range families() {
		switch {
		case !wanted[family]:
		case family == "channels": // the one that ends there
			subjects = append(subjects, schema.ChannelsEventSubject(account))
		default:
			subjects = append(subjects, strings.TrimSuffix(schema.EventSubjects(account), ">")+family+".>")
		}
	}
	return subjects
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
func follow(ctx context.Context, cl *client, start time.Time, subjects []string, each func(*event) (done bool, err error)) error {
	messages, err := subscribe(ctx, cl, start, subjects)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, messages.Stop)
	defer func() {
		stop()
		messages.Stop()
	}()
	for {
		m, err := messages.Next()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("follow events: %w", err)
		}
		ev, err := readEvent(m)
		if err != nil {
			return err
		}
		if done, err := each(ev); done || err != nil {
			return err
		}
	}
}

func subscribe(ctx context.Context, cl *client, start time.Time, subjects []string) (jetstream.MessagesContext, error) {
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: subjects, DeliverPolicy: jetstream.DeliverNewPolicy}
	if !start.IsZero() {
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &start
	}
	consumer, err := cl.js.OrderedConsumer(ctx, queue.Names{Account: cl.account}.Records(), cfg)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("account %s has no events on this NATS server: start a worker for it (cmd/worker, or `wazzupctl dev`), or name another account with --account", cl.account)
	}
	if err != nil {
		return nil, fmt.Errorf("follow events: %w", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return nil, fmt.Errorf("follow events: %w", err)
	}
	return messages, nil
}
