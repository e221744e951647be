package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// ErrNotEnded: the command is stored and goes on, but had not ended when the
// caller's context or connection did.
var ErrNotEnded = errors.New("the command has not ended yet")

const (
	// outcomeQuiet: where no event has come for so long, one may have been lost, and
	// the account's owner is asked.
	outcomeQuiet = 10 * time.Second
	// outcomeEvents is room for events that come while the caller looks at one.
	outcomeEvents = 64
)

// WithEvents hears each event of a command that [Publisher.PublishAndWait] waits
// for, the final one too. It must return soon.
func WithEvents(each func(*schema.CommandEvent)) PublishOption {
	return func(o *publishing) { o.onEvent = each }
}

// Outcome is how a command ended.
type Outcome struct {
	Receipt
	// Event is the final event; its State tells how. Nil with an error.
	Event *schema.CommandEvent
}

// PublishAndWait stores a command and waits for its final event. Without error the
// command has ended, well or not: the event's state says how. It publishes as a
// batch does: until the command is stored or ctx ends.
//
// It listens on an inbox (the header Wazzup-Reply-To). Since such copies of events
// can get lost with a connection, it also asks the account's owner when it has
// heard nothing for a while, if the NATS user may.
//
// When ctx ends before the command has, or the connection is closed, the error is
// [ErrNotEnded], and the outcome's receipt says where it is stored; the command goes
// on. [WithReplyTo] has no effect here.
func (p *Publisher) PublishAndWait(ctx context.Context, c Command, opts ...PublishOption) (Outcome, error) {
	o := options(opts)
	o.replyTo = p.ownInbox()
	prepared, err := p.prepare(ctx, c, o)
	if err != nil {
		return Outcome{}, fmt.Errorf("publish command: %w", err)
	}
	events := make(chan *nats.Msg, outcomeEvents)
	sub, err := p.nc.ChanSubscribe(o.replyTo, events)
	if err != nil {
		return Outcome{}, fmt.Errorf("listen for the outcome: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // an error: the connection is closed, and the subscription with it
	t := &tries{p: p, ctx: ctx}
	receipt, err := t.publish(prepared)
	t.close()
	if err != nil {
		return Outcome{}, err
	}
	w := &waiting{p: p, receipt: receipt, events: events, onEvent: o.onEvent}
	event, err := w.end(ctx)
	return Outcome{receipt, event}, err
}

// ownInbox is a subject that a command may name for its events: an inbox, unless
// the connection has inboxes of another form.
func (p *Publisher) ownInbox() string {
	if inbox := p.nc.NewInbox(); strings.HasPrefix(inbox, nats.InboxPrefix) {
		return inbox
	}
	return schema.ReplySubjectPrefix(p.account) + nuid.Next()
}

// waiting is for the end of one command.
type waiting struct {
	p       *Publisher
	receipt Receipt
	events  <-chan *nats.Msg
	onEvent func(*schema.CommandEvent)
}

func (w *waiting) end(ctx context.Context) (*schema.CommandEvent, error) {
	quiet := time.NewTicker(w.p.quiet)
	defer quiet.Stop()
	// Nobody may answer: events are heard in the meantime.
	asking, cancel := context.WithCancel(ctx)
	var asker sync.WaitGroup
	defer func() {
		cancel()
		asker.Wait()
	}()
	answers := make(chan *schema.CommandEvent, 1)
	asked := false
	for {
		select {
		case m := <-w.events:
			quiet.Reset(w.p.quiet)
			e := new(schema.CommandEvent)
			if json.Unmarshal(m.Data, e) != nil {
				continue // not from a worker; the end is still to come
			}
			if w.onEvent != nil {
				w.onEvent(e)
			}
			if w.isOurs(e) {
				return e, nil
			}
		case <-quiet.C:
			if w.p.nc.IsClosed() {
				return nil, w.notEnded(nats.ErrConnectionClosed)
			}
			if !asked {
				asked = true
				asker.Go(func() { answers <- w.lookUp(asking) })
			}
		case e := <-answers:
			if e != nil {
				return e, nil
			}
			asked = false
		case <-ctx.Done():
			return nil, w.notEnded(context.Cause(ctx))
		}
	}
}

func (w *waiting) notEnded(why error) error {
	return fmt.Errorf("number %d of %s: %w: %w", w.receipt.Seq, w.receipt.Stream, ErrNotEnded, why)
}

// isOurs reports whether an event is the end of what the caller wanted. Where the
// command was published more than once, one of its copies ends as a duplicate of
// the other, which may not have ended yet.
func (w *waiting) isOurs(e *schema.CommandEvent) bool {
	if e.State == schema.StateDuplicate && w.receipt.Tries > 1 && e.Original != nil {
		return e.Original.State.Final()
	}
	return e.State.Final()
}

// lookUp asks the account's owner how the command ended; nil if it has not, or if
// nobody tells.
func (w *waiting) lookUp(ctx context.Context) *schema.CommandEvent {
	const request = "command.get"
	if forbidden(w.p.nc, nil, schema.APISubject(w.p.account, request)) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.p.quiet)
	defer cancel()
	var timeline struct {
		Seq   uint64 `json:"seq"`
		Steps []struct {
			Event *schema.CommandEvent `json:"event"`
		} `json:"timeline"`
	}
	requests := &Requests{nc: w.p.nc, account: w.p.account}
	if requests.Do(ctx, request, map[string]string{"id": w.receipt.ID}, &timeline) != nil {
		return nil
	}
	if timeline.Seq != w.receipt.Seq && w.receipt.Tries == 1 {
		return nil // of another command, which had the id first
	}
	var end *schema.CommandEvent
	for _, step := range timeline.Steps {
		if step.Event != nil && step.Event.State.Final() {
			end = step.Event
		}
	}
	return end
}
