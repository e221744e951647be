package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Bounds of one request for stored events, and the pauses before the next one
// while nothing came.
const (
	followBatch    = 500
	followBytes    = 4 << 20
	followPauseMin = 10 * time.Millisecond
	followPauseMax = time.Second
)

// feed reads the account's events in the order in which they were stored. It
// makes no consumer, since whoever may make one can have the server publish what
// is stored wherever he likes; it asks for stored events by their place, and
// listens for new ones only to know when to ask again.
type feed struct {
	nc     *nats.Conn
	stream string
	filter string
	since  time.Time // where to begin, until the first event; zero = at next
	next   uint64    // the first sequence that was not read yet
	ready  []*event  // read and not handed over

	live *nats.Subscription
	wake chan struct{} // holds one token when something was published
}

// openFeed begins at a time; zero = with what is stored from now on. The caller
// closes the feed.
func openFeed(ctx context.Context, cl *client, start time.Time, filter string) (*feed, error) {
	f := &feed{
		nc: cl.nc, stream: queue.Names{Account: cl.account}.Records(), filter: filter, since: start,
		wake: make(chan struct{}, 1),
	}
	stream, err := cl.js.Stream(ctx, f.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("account %s has no events on this NATS server: start a worker for it (cmd/worker, or `wazzupctl dev`), or name another account with --wazzup-account", cl.account)
	}
	if err != nil {
		return nil, fmt.Errorf("follow events: %w", err)
	}
	if start.IsZero() {
		f.next = stream.CachedInfo().State.LastSeq + 1
	}
	f.live, err = cl.nc.Subscribe(filter, func(*nats.Msg) {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, fmt.Errorf("follow events: %w", err)
	}
	return f, nil
}

func (f *feed) close() { _ = f.live.Unsubscribe() } // fails only when the connection is closed

// event returns the next event, when there is one. The error is the context's, or
// says why events cannot be read.
func (f *feed) event(ctx context.Context) (*event, error) {
	for pause := followPauseMin; len(f.ready) == 0; pause = min(2*pause, followPauseMax) {
		if err := queue.Ask(ctx, f.read); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, fmt.Errorf("follow events: %w", err)
		}
		if len(f.ready) > 0 {
			break
		}
		// What was heard may not be stored for a moment yet, and what was not
		// heard, over a reconnect, is looked for all the same.
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-f.wake:
			timer.Stop()
			pause = followPauseMin / 2
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
	e := f.ready[0]
	f.ready = f.ready[1:]
	return e, nil
}

// read asks for the next events (NATS ADR-31, batched direct get). What came before
// an error is kept.
func (f *feed) read(ctx context.Context) error {
	ask := map[string]any{"next_by_subj": f.filter, "batch": followBatch, "max_bytes": followBytes}
	if f.next > 0 {
		ask["seq"] = f.next
	} else {
		ask["start_time"] = f.since.UTC()
	}
	request, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	inbox := f.nc.NewInbox()
	answers, err := f.nc.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer func() { _ = answers.Unsubscribe() }() // an error means that the connection is closed
	if err := f.nc.PublishRequest("$JS.API.DIRECT.GET."+f.stream, inbox, request); err != nil {
		return err
	}
	for {
		m, err := answers.NextMsgWithContext(ctx)
		if err != nil {
			return err
		}
		if m.Header.Get(jetstream.SequenceHeader) == "" {
			switch status := m.Header.Get("Status"); status {
			case "204", "404": // the end of the batch, or nothing there
				return nil
			case "503":
				return nats.ErrNoResponders
			default:
				return errors.New("the server refuses a direct get with status " + status)
			}
		}
		e, err := storedEvent(m)
		if err != nil {
			return err
		}
		f.ready, f.next = append(f.ready, e), e.Seq+1
	}
}

// storedEvent takes a message of the records stream as a direct get brings it.
func storedEvent(m *nats.Msg) (*event, error) {
	seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	stored, err := time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	e := &event{
		Subject: m.Header.Get(jetstream.SubjectHeader), ID: m.Header.Get(schema.HeaderCEID), Time: stored.UTC(),
		Seq: seq, Body: m.Data, header: m.Header,
	}
	e.parse()
	return e, nil
}
