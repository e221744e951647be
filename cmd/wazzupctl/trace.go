package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

type traceCmd struct {
	connection
	ID   string `arg:"" help:"The command's id."`
	JSON bool   `help:"Print JSON."`
}

// Help is the detailed help.
func (*traceCmd) Help() string {
	return `Shows what the ledger knows of a command: every claim, what it waited for, every retry, and how it ended.

Example:
  wazzupctl trace order-1042-shipped`
}

// Run prints one command's timeline.
func (c *traceCmd) Run(ctx context.Context, e *env) error {
	cl, err := c.connect(ctx, e)
	if err != nil {
		return err
	}
	defer cl.Close()
	var raw json.RawMessage
	if err := cl.request(ctx, "command.get", map[string]string{"id": c.ID}, &raw); err != nil {
		if refused, ok := errors.AsType[*apiError](err); ok && refused.Status == 404 {
			return fmt.Errorf("no command %q in account %s: it was never published, is older than the ledger's memory, or stands unseen behind others of its channel", c.ID, cl.account)
		}
		return err
	}
	if c.JSON {
		return cl.JSON(raw)
	}
	var t sender.Timeline
	if err := json.Unmarshal(raw, &t); err != nil {
		return fmt.Errorf("read timeline: %w", err)
	}
	e.Printf("%s %s %s\n", e.tint(bold, plain(t.ID)), t.Kind, e.tint(stateTint(t.State), string(t.State)))
	e.timeline(stepMoments(&t, e.printer))
	return nil
}

// moment is a line of a timeline.
type moment struct {
	at   time.Time
	what string
	text string
}

// stepMoments are the ledger's records as lines.
func stepMoments(t *sender.Timeline, p *printer) []moment {
	var all []moment
	for _, s := range t.Steps {
		var parts []string
		if s.State != "" {
			parts = append(parts, p.tint(stateTint(s.State), string(s.State)))
		}
		if s.Attempt > 0 {
			parts = append(parts, fmt.Sprintf("attempt %d", s.Attempt))
		}
		parts = append(parts, stepEvent(s, p)...)
		if s.RetryAt != nil {
			parts = append(parts, "again "+s.RetryAt.Local().Format(timeOnly))
		}
		if len(s.Waits) > 0 {
			parts = append(parts, "waited: "+waits(s.Waits))
		}
		all = append(all, moment{s.At, s.Step, strings.Join(parts, "  ")})
	}
	return all
}

// stepEvent is what the step's public event adds.
func stepEvent(s sender.Step, p *printer) []string {
	var f eventFields
	if len(s.Event) == 0 || json.Unmarshal(s.Event, &f) != nil {
		return nil
	}
	parts := p.errorText(f.Error)
	if f.MessageID != "" {
		parts = append(parts, "message "+plain(f.MessageID))
	}
	return parts
}

func waits(all []queue.Wait) string {
	var parts []string
	for _, w := range all {
		parts = append(parts, fmt.Sprintf("%s %v", w.Gate, time.Duration(w.Millis)*time.Millisecond))
	}
	return strings.Join(parts, ", ")
}

// eventMoments are stored events as lines: the command's own, and those of the
// vendor's webhooks about its message.
func eventMoments(events []*event, p *printer) []moment {
	var all []moment
	for _, e := range events {
		what, text := "event", p.tint(stateTint(e.state()), e.token(1))
		if e.family() != "command" {
			what, text = "webhook", e.family()+" "+text
		}
		if e.fields.CommandID != "" {
			text += "  of this command"
		}
		all = append(all, moment{e.Time, what, text})
	}
	return all
}

// timeline prints lines with their distance from the first.
func (p *printer) timeline(all []moment) {
	for _, m := range all {
		p.Printf("  %s  %s  %s %s\n", p.tint(faint, m.at.Local().Format(timeOnly)),
			p.tint(faint, fmt.Sprintf("%+8.1f ms", float64(m.at.Sub(all[0].at).Microseconds())/1000)), pad(m.what, 9), m.text)
	}
}
