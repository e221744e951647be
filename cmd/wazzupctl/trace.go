package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

type traceCmd struct {
	connection
	ID   string `arg:"" help:"The command's id."`
	JSON bool   `help:"Print JSON."`
}

// Help is the detailed help.
func (*traceCmd) Help() string {
	return `Shows what the ledger knows of a command: when it was stored, every claim and the worker that made it, the gates it waited at and why, Wazzup's answers, what proved its fate, how it ended, and the delivery statuses that followed. Of one that has not ended, also what it waits for now.

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
	if w := t.Waiting; w != nil {
		e.Printf("  now waiting at %s\n", waitingText(w, time.Now()))
	}
	return nil
}

// waitingText is what a command waits for now.
func waitingText(w *sender.Waiting, now time.Time) string {
	text := w.Gate
	if w.Why != "" {
		text += " (" + plainText(w.Why) + ")"
	}
	if w.Since != nil {
		text += fmt.Sprintf(", for %v", now.Sub(*w.Since).Round(time.Millisecond))
	}
	if w.Position > 0 {
		text += fmt.Sprintf(", number %d of its chat", w.Position)
	}
	return text
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
		if s.Generation > 0 {
			parts = append(parts, fmt.Sprintf("redrive %d", s.Generation))
		}
		if s.Attempt > 0 {
			parts = append(parts, fmt.Sprintf("attempt %d", s.Attempt))
		}
		if s.Worker != "" && s.Step == string(queue.StepClaim) {
			parts = append(parts, p.tint(faint, "worker=")+plain(s.Worker))
		}
		parts = append(parts, answerParts(&s, p)...)
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

// answerParts are what the vendor, or a proof instead, said.
func answerParts(s *sender.Step, p *printer) (parts []string) {
	if s.Code != "" {
		parts = append(parts, p.tint(bad, plain(s.Code)))
	}
	if s.HTTPStatus != 0 {
		parts = append(parts, fmt.Sprintf("%s%d", p.tint(faint, "http="), s.HTTPStatus))
	}
	if s.Phase != "" && s.Phase != schema.PhaseAnswered {
		parts = append(parts, p.tint(faint, "phase=")+string(s.Phase))
	}
	if s.Evidence != "" {
		parts = append(parts, p.tint(faint, "proven_by=")+string(s.Evidence))
	}
	if s.MessageID != "" {
		parts = append(parts, "message "+plain(s.MessageID))
	}
	var f eventFields
	if len(s.Event) > 0 && json.Unmarshal(s.Event, &f) == nil && f.Error != nil {
		parts = append(parts, p.errorDetails(f.Error)...)
	}
	return parts
}

// waits are the gates that a command waited at.
func waits(all []queue.Wait) string {
	var parts []string
	for _, w := range all {
		text := fmt.Sprintf("%s %v", w.Gate, time.Duration(w.Millis)*time.Millisecond)
		if w.Why != "" {
			text += " (" + plainText(w.Why) + ")"
		}
		parts = append(parts, text)
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
