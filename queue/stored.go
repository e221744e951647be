package queue

import (
	"context"
	"fmt"
	"time"

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
