package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// StoredEvent is where and when an event was stored; the zero value: none is.
type StoredEvent struct {
	Sequence uint64
	Stored   time.Time // NATS's clock
	ID       string    // its Nats-Msg-Id
	Body     []byte
}

// LastEvent reads, through the stream's leader, the last event on a subject, which
// may have wildcards.
func (l *Ledger) LastEvent(ctx context.Context, subject string) (StoredEvent, error) {
	return l.storedEvent(ctx, msgGet{LastFor: subject})
}

// FirstEventSince reads, through the stream's leader, the first event on a subject,
// which may have wildcards, that was stored at a time or later; the zero time: ever.
func (l *Ledger) FirstEventSince(ctx context.Context, subject string, since time.Time) (StoredEvent, error) {
	which := msgGet{NextFor: subject}
	if !since.IsZero() {
		which.Start = &since
	}
	return l.storedEvent(ctx, which)
}

// PublishNext stores an event as the next of its subject, provided that the last one
// there has the sequence expect (0: there is none). done gets the new sequence, or
// ErrConflict, ErrFenced or ErrStopped. A lost PubAck is no error: the event is
// published again, and recognised by its id when it was stored before.
func (l *Ledger) PublishNext(e Event, expect uint64, done func(seq uint64, err error)) {
	h := e.header()
	setExpectedSubjectSequence(h, expect)
	l.w.publish(&write{
		records: true,
		msg:     nats.Msg{Subject: e.Subject, Header: h, Data: e.Body},
		done:    func(seq uint64, _ bool, err error) { done(seq, err) },
		check: func(ctx context.Context) (stored, error) {
			last, err := l.LastEvent(ctx, e.Subject)
			if err != nil {
				return stored{}, err
			}
			return stored{seq: last.Sequence, ours: last.ID == e.ID, unchanged: last.Sequence == expect}, nil
		},
	})
}

func (l *Ledger) storedEvent(ctx context.Context, which msgGet) (StoredEvent, error) {
	m, err := leaderGet(ctx, l.nc, l.Records(), which)
	if err != nil {
		return StoredEvent{}, fmt.Errorf("read stored event: %w", err)
	}
	if m == nil {
		return StoredEvent{}, nil
	}
	return StoredEvent{m.Sequence, m.Time, m.Header.Get(schema.HeaderMsgID), m.Data}, nil
}
