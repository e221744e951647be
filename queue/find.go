package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Bounds of one request of a search.
const (
	findBatch = 1000
	findBytes = 8 << 20
)

// LastCommand is the sequence of the command that was stored last, by the
// stream's leader.
func (l *Ledger) LastCommand(ctx context.Context) (uint64, error) {
	s, err := l.js.Stream(ctx, l.Commands())
	if err != nil {
		return 0, fmt.Errorf("read last command: %w", err)
	}
	return s.CachedInfo().State.LastSeq, nil
}

// Find looks through the commands that nobody has claimed yet, those that wait in
// their lanes and those that are parked, for the first one that is wanted; nil
// when there is none. It reads them all, some 100,000 a second, so it is for
// people who ask, not for the path of a message. Every command that was stored
// when the call began is looked at, unless it ends meanwhile.
func (l *Ledger) Find(ctx context.Context, wanted func(*Delivery) bool) (*Delivery, error) {
	for _, place := range []struct{ stream, filter string }{
		// In this order: one that is parked meanwhile is met there.
		{l.Commands(), ">"}, {l.Deferred(), l.ParkFilter()},
	} {
		d, err := l.findIn(ctx, place.stream, place.filter, wanted)
		if err != nil || d != nil {
			return d, err
		}
	}
	return nil, nil //nolint:nilnil // "there is none" is an answer
}

// FindAt looks through the commands for those stored on a subject that a consumer
// cannot be asked for, since it looks like a wildcard, and returns up to most of
// them, oldest first. It reads all that the wildcard would match.
func (l *Ledger) FindAt(ctx context.Context, subject string, most int) ([]*Delivery, error) {
	var found []*Delivery
	_, err := l.findIn(ctx, l.Commands(), subject, func(d *Delivery) bool {
		if d.Subject == subject {
			found = append(found, d)
		}
		return len(found) == most
	})
	return found, err
}

// Sweep hands over the commands that are stored with a sequence or later, up to 1,000
// of them or 8 MiB, and returns the sequence of the last; 0: there are none. Any
// replica may answer, so the newest may be missing.
func (l *Ledger) Sweep(ctx context.Context, from uint64, each func(*Delivery)) (last uint64, err error) {
	return l.batch(ctx, l.Commands(), ">", from, each)
}

// findIn reads in batches from whichever replica answers, and what that one may
// not have yet from the leader.
func (l *Ledger) findIn(ctx context.Context, stream, filter string, wanted func(*Delivery) bool) (*Delivery, error) {
	next := uint64(1)
	for {
		var found *Delivery
		last, err := l.batch(ctx, stream, filter, next, func(d *Delivery) {
			if found == nil && wanted(d) {
				found = d
			}
		})
		if err != nil || found != nil {
			return found, err
		}
		if last == 0 {
			break
		}
		next = last + 1
	}
	for {
		m, err := leaderGet(ctx, l.nc, stream, msgGet{NextFor: filter, Seq: next})
		if err != nil {
			return nil, fmt.Errorf("search %s: %w", stream, err)
		}
		if m == nil {
			return nil, nil //nolint:nilnil // "there is none" is an answer
		}
		if d := (&Delivery{Subject: m.Subject, Header: m.Header, Data: m.Data, Seq: m.Sequence, Stored: m.Time, stream: stream}); wanted(d) {
			return d, nil
		}
		next = m.Sequence + 1
	}
}

// batch hands over up to findBatch messages from a sequence on, and returns the
// sequence of the last; 0: there are none (NATS ADR-31, batched direct get).
func (l *Ledger) batch(ctx context.Context, stream, filter string, from uint64, each func(*Delivery)) (last uint64, err error) {
	request, err := json.Marshal(map[string]any{"seq": from, "next_by_subj": filter, "batch": findBatch, "max_bytes": findBytes})
	if err != nil {
		return 0, fmt.Errorf("search %s: %w", stream, err)
	}
	inbox := l.nc.NewInbox()
	answers := make(chan *nats.Msg, findBatch+1) // and the end; SubscribeSync would make room for 65,536
	sub, err := l.nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return 0, fmt.Errorf("search %s: %w", stream, err)
	}
	closed := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(closed) })
	defer func() { _ = sub.Unsubscribe() }() // an error means that the connection is closed
	if err := l.nc.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, request); err != nil {
		return 0, fmt.Errorf("search %s: %w", stream, err)
	}
	for {
		m, err := nextAnswer(ctx, answers, closed)
		if err != nil {
			return 0, fmt.Errorf("search %s: %w", stream, err)
		}
		// A producer may give its message any header, but none without the
		// sequence that the server adds.
		if m.Header.Get("Nats-Sequence") == "" || m.Header.Get("Nats-Stream") == "" {
			switch status := m.Header.Get("Status"); status {
			case "204", "404": // the end of the batch, or nothing there
				return last, nil
			default:
				return 0, fmt.Errorf("search %s: %w %s", stream, errBatch, status)
			}
		}
		d, err := directDelivery(m, stream)
		if err != nil {
			return 0, fmt.Errorf("search %s: %w", stream, err)
		}
		last = d.Seq
		each(d)
	}
}

func nextAnswer(ctx context.Context, answers <-chan *nats.Msg, closed <-chan struct{}) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	select {
	case m := <-answers:
		return m, nil
	case <-closed:
		return nil, nats.ErrConnectionClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var errBatch = errors.New("server refuses a batch with status")

// directDelivery reads a message as a direct get brings it. The server's headers
// replace those of the same name that a producer may have set.
func directDelivery(m *nats.Msg, stream string) (*Delivery, error) {
	final := func(name string) string {
		values := m.Header[name]
		if len(values) == 0 {
			return ""
		}
		return values[len(values)-1]
	}
	seq, err := strconv.ParseUint(final("Nats-Sequence"), 10, 64)
	if err != nil {
		return nil, err
	}
	stored, err := time.Parse(time.RFC3339Nano, final("Nats-Time-Stamp"))
	if err != nil {
		return nil, err
	}
	return &Delivery{
		Subject: final("Nats-Subject"), Header: m.Header, Data: m.Data, Seq: seq, Stored: stored, stream: stream,
	}, nil
}
