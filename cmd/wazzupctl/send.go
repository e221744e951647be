package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

type sendCmd struct {
	connection
	Source       string        `arg:"" optional:"" placeholder:"-" help:"- reads the command's JSON from standard input, in place of the flags below."`
	ID           string        `name:"id" group:"Message" help:"The command's id; one is made up if it is left out."`
	ChannelID    string        `name:"channel-id" aliases:"channel" group:"Message" placeholder:"UUID" help:"The channel to send from (wazzupctl channels lists them)."`
	ChatType     string        `name:"chat-type" group:"Message" help:"whatsapp (the default), telegram, vk, instagram or whatsgroup."`
	ChatID       string        `name:"chat-id" aliases:"chat" group:"Message" help:"The recipient; of whatsapp the number's 9 to 16 digits."`
	Text         string        `group:"Message" help:"The text."`
	Content      string        `group:"Message" placeholder:"URL" help:"Link to a file to send."`
	RefMessageID string        `name:"ref-message-id" group:"Message" placeholder:"ID" help:"The message to quote."`
	SendAt       string        `name:"send-at" group:"Message" placeholder:"WHEN" help:"Not before: a time with zone (2026-11-22T10:00:00Z) or from now (+10m)."`
	ExpireAt     string        `name:"expire-at" group:"Message" placeholder:"WHEN" help:"Not later than; written like --send-at."`
	OnUnknown    string        `name:"on-unknown" group:"Message" help:"If the call's fate is unknown: reconcile (the default) or resend."`
	Group        string        `group:"Message" help:"A campaign or batch, echoed in every event."`
	Meta         string        `group:"Message" placeholder:"JSON" help:"Your own JSON, echoed in every event."`
	Bulk         bool          `help:"Send in the bulk class, which never delays the other one."`
	Unchecked    bool          `help:"Publish even what breaks a rule, to see its invalid event."`
	Wait         bool          `help:"Print the command's events until it has ended; exit code 0 only if it was sent."`
	Timeout      time.Duration `default:"1m" help:"How long --wait waits (default ${default})."`
	JSON         bool          `help:"Print JSON: the receipt, then each event, a line each."`
}

// Help is the detailed help.
func (*sendCmd) Help() string {
	return `Without --wait the exit code is 0 as soon as the command is stored. Arguments show in the list of processes: read the command from standard input where that matters.

Examples:
  wazzupctl send --channel-id a0000000-0000-4000-8000-000000000001 --chat-id 79998887766 --text 'It has arrived' --wait
  wazzupctl send - --bulk < command.json`
}

// Run publishes one message.
func (c *sendCmd) Run(ctx context.Context, e *env) error {
	settings, settingsErr := c.settings(e)
	account := relay.DefaultAccount
	if settingsErr == nil {
		account = settings.Account
	}
	m, err := c.message(e, account)
	if err := joinFaults(settingsErr, err); err != nil {
		return err
	}
	cl, err := c.connectWith(ctx, e, settings)
	if err != nil {
		return err
	}
	defer cl.Close()
	return c.publish(ctx, cl, m)
}

// joinFaults keeps the faults of all parts of the usage together.
func joinFaults(errs ...error) error {
	if err := errors.Join(errs...); err != nil {
		return &relay.UsageError{Err: err}
	}
	return nil
}

// outgoing is a command that is ready to be published.
type outgoing struct {
	id, channelID string
	header        bool // the id travels in the header
	body          []byte
}

func (c *sendCmd) kind() schema.Kind {
	if c.Bulk {
		return schema.KindBulk
	}
	return schema.KindSend
}

// message builds and checks the command; the error names every fault.
func (c *sendCmd) message(e *env, account string) (*outgoing, error) {
	var m *outgoing
	var err error
	switch c.Source {
	case "":
		m, err = c.fromFlags(time.Now())
	case "-":
		m, err = c.fromInput(e.stdin)
	default:
		return nil, errors.New("the only argument is -, which reads the command from standard input; everything else is a flag")
	}
	if m == nil {
		return nil, err
	}
	decoded, faults := schema.Decode(account, c.kind(), m.channelID, m.body)
	if m.id = decoded.ID; m.id == "" {
		m.id, m.header = "ctl-"+nuid.Next(), true
	}
	switch {
	case m.channelID == "":
		err = errors.Join(err, errors.New("channelId: is missing: --channel-id, or the field of the command; `wazzupctl channels` lists them"))
		faults = slices.DeleteFunc(faults, func(f schema.Fault) bool { return f.Field == "channelId" })
	case strings.ContainsAny(m.channelID, ".*> \t\r\n"): // even unchecked: it would be another subject
		err = errors.Join(err, errors.New("channelId: cannot be part of a subject; it is a uuid in lower case"))
	}
	if !c.Unchecked {
		err = errors.Join(err, faultsError(faults))
	}
	return m, err
}

// faultsError lists the faults of a command, one a line.
func faultsError(faults []schema.Fault) error {
	var errs []error
	for _, f := range faults {
		field := f.Field
		if field == "" {
			field = "the body"
		}
		errs = append(errs, fmt.Errorf("%s: %s (%s)", field, f.Description, f.Code))
	}
	return errors.Join(errs...)
}

func (c *sendCmd) fromFlags(now time.Time) (*outgoing, error) {
	sendAt, sendErr := when("--send-at", c.SendAt, now)
	expireAt, expireErr := when("--expire-at", c.ExpireAt, now)
	var metaErr error
	if c.Meta != "" && !json.Valid([]byte(c.Meta)) {
		metaErr = errors.New("--meta: is no JSON")
	}
	if metaErr != nil {
		c.Meta = ""
	}
	if c.ChatType == "" {
		c.ChatType = schema.ChatWhatsApp
	}
	cmd := schema.SendCommand{
		ID: c.ID, ChannelID: c.ChannelID, ChatType: c.ChatType, ChatID: c.ChatID, Text: c.Text, Content: c.Content,
		RefMessageID: c.RefMessageID, SendAt: sendAt, ExpireAt: expireAt, OnUnknown: schema.OnUnknown(c.OnUnknown), Group: c.Group,
	}
	if c.Meta != "" {
		cmd.Meta = json.RawMessage(c.Meta)
	}
	body, err := cmd.AppendJSON(nil)
	if err != nil {
		return nil, fmt.Errorf("write command: %w", err)
	}
	return &outgoing{channelID: c.ChannelID, body: body}, errors.Join(sendErr, expireErr, metaErr)
}

// when reads a time, or a span from now.
func when(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if span, ok := strings.CutPrefix(text, "+"); ok {
		if d, err := time.ParseDuration(span); err == nil && d > 0 {
			return now.Add(d).UTC(), nil
		}
	} else if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
	}
	return time.Time{}, fmt.Errorf("%s: must be a time with zone such as 2026-11-22T10:00:00Z, or a span from now such as +10m", flag)
}

func (c *sendCmd) fromInput(stdin io.Reader) (*outgoing, error) {
	for _, flag := range []struct{ name, value string }{
		{"--id", c.ID},
		{"--chat-type", c.ChatType},
		{"--chat-id", c.ChatID},
		{"--text", c.Text},
		{"--content", c.Content},
		{"--ref-message-id", c.RefMessageID},
		{"--send-at", c.SendAt},
		{"--expire-at", c.ExpireAt},
		{"--on-unknown", c.OnUnknown},
		{"--group", c.Group},
		{"--meta", c.Meta},
	} {
		if flag.value != "" {
			return nil, errors.New(flag.name + ": belongs into the command that - reads")
		}
	}
	body, err := io.ReadAll(io.LimitReader(stdin, schema.MaxBodySize+1))
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	var named struct {
		ChannelID string `json:"channelId"`
	}
	_ = json.Unmarshal(body, &named) // the strict check names what is wrong
	m := &outgoing{channelID: c.ChannelID, body: body}
	if m.channelID == "" {
		m.channelID = named.ChannelID
	}
	return m, nil
}

// publish stores the command and, if asked to, follows it to its end.
func (c *sendCmd) publish(ctx context.Context, cl *client, m *outgoing) error {
	publisher, err := queue.NewPublisher(cl.nc, cl.account)
	if err != nil {
		return err
	}
	var opts []queue.PublishOption
	if m.header {
		opts = append(opts, queue.WithID(m.id))
	}
	var events *nats.Subscription
	if c.Wait {
		inbox := cl.nc.NewInbox()
		if events, err = cl.nc.SubscribeSync(inbox); err != nil {
			return fmt.Errorf("listen for events: %w", err)
		}
		opts = append(opts, queue.WithReplyTo(inbox))
	}
	receipt, err := publisher.Send(ctx, c.kind(), m.channelID, m.body, opts...)
	switch {
	case errors.Is(err, queue.ErrNoStream):
		return noCommands(cl.account)
	case errors.Is(err, queue.ErrFull):
		return fmt.Errorf("nothing was stored: %w; try again when the worker has caught up, or raise WAZZUP_COMMAND_BYTES", err)
	case err != nil:
		return err
	}
	if err := c.printReceipt(cl, m, receipt); err != nil || !c.Wait {
		return err
	}
	return c.follow(ctx, cl, m.id, events)
}

func (c *sendCmd) printReceipt(cl *client, m *outgoing, r queue.Receipt) error {
	if c.JSON {
		return cl.JSON(map[string]any{"id": m.id, "stream": r.Stream, "seq": r.Seq})
	}
	cl.Printf("%s stored as number %d of %s\n", cl.tint(bold, plain(m.id)), r.Seq, r.Stream)
	return nil
}

// follow prints the command's events until a final one.
func (c *sendCmd) follow(ctx context.Context, cl *client, id string, events *nats.Subscription) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	for {
		cl.Progress("waiting for the worker")
		m, err := events.NextMsgWithContext(ctx)
		cl.Done()
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the command has not ended within %v; it is stored and goes on: `wazzupctl trace %s` tells where it stands", c.Timeout, id)
		}
		if err != nil {
			return fmt.Errorf("wait for events: %w", err)
		}
		var body schema.CommandEvent
		if err := json.Unmarshal(m.Data, &body); err != nil {
			return fmt.Errorf("read event: %w", err)
		}
		if c.JSON {
			err = cl.JSON(json.RawMessage(m.Data))
		} else {
			shown := &event{Subject: schema.CommandEventSubject(cl.account, body.State, body.Kind, body.ChannelID), Body: m.Data}
			shown.parse()
			cl.Printf("%s  %s\n", cl.tint(faint, body.At.Local().Format(timeOnly)), cl.eventLine(shown))
		}
		switch {
		case err != nil:
			return err
		case body.State == schema.StateSent:
			return nil
		case body.State.Final():
			return fmt.Errorf("the command ended %s%s", body.State, because(&body))
		}
	}
}

// because is the reason of an end, without anything that the producer wrote.
func because(e *schema.CommandEvent) string {
	switch {
	case e.Error != nil:
		return ": " + e.Error.Code
	case e.Original != nil:
		return fmt.Sprintf(": its id was used before, by number %d, which is %s", e.Original.Seq, e.Original.State)
	}
	return ""
}
