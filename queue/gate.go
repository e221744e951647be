package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// GateRecord is what an owner knows of a channel, or of the account as a whole,
// that must outlive it: whether it may be called, and why not.
type GateRecord struct {
	ChannelID string `json:"ch,omitempty"` // "": the account

	State   string `json:"s,omitempty"` // of a channel, the vendor's last word
	Learned int64  `json:"l,omitempty"` // when, Unix milliseconds

	Closed   *Closed `json:"c,omitempty"` // nil: open
	Refusals int     `json:"r,omitempty"` // in a row

	Paused map[string]*Paused `json:"p,omitempty"`  // by class
	Spam   []SpamMark         `json:"sm,omitempty"` // messages that were rated as spam
	// What was rated as spam until then is forgiven, Unix milliseconds.
	Forgiven int64 `json:"fg,omitempty"`
	// The status "too many sent" was taken in that was stored last, and when, Unix milliseconds.
	Flooded int64 `json:"fl,omitempty"`

	// Of the account.
	Until  int64    `json:"u,omitempty"`  // a 429 holds it until then, Unix milliseconds
	High   []string `json:"hi,omitempty"` // streams that were told to be nearly full, by what they hold
	Broken []Broken `json:"b,omitempty"`  // breakers that are not closed
	// Strangers: since when it is told that lanes of unlisted channels wait, Unix
	// milliseconds; 0: it is not.
	Strangers int64 `json:"st,omitempty"`

	// Tell holds the operator events of what led to this record, until they are known
	// to be stored: whoever reads it after a crash publishes them.
	Tell []Tale `json:"tell,omitempty"`

	At int64 `json:"at"` // when the record was written, Unix milliseconds

	Sequence uint64    `json:"-"` // of the record
	Stored   time.Time `json:"-"` // when
}

// Tale is an operator event, and the id under which it is published however often
// that is tried.
type Tale struct {
	ID    string          `json:"id"`
	Event schema.OpsEvent `json:"e"`
}

// Closed says that the vendor's word, or an answer of its, closed something.
type Closed struct {
	Code    string `json:"code"`
	Since   int64  `json:"since"` // Unix milliseconds
	OpensOn string `json:"opensOn,omitempty"`
	Probe   bool   `json:"probe,omitempty"` // it is also tried after a while
}

// Paused says that a class of a channel is paused, by whom, and until when.
type Paused struct {
	By    string `json:"by"`
	Since int64  `json:"since"`           // Unix milliseconds
	Until int64  `json:"until,omitempty"` // Unix milliseconds; 0: until somebody resumes it
}

// Broken says that a breaker is open, or lets only probes through.
type Broken struct {
	Family  string `json:"f"`
	Channel string `json:"ch,omitempty"` // "": the family's own
	Since   int64  `json:"since"`        // Unix milliseconds
	Times   int    `json:"n"`            // that it opened in a row, each doubling its wait
}

// SpamMark says that a message was rated as spam: by a status if it has an id, by the
// answer to its call if not.
type SpamMark struct {
	At        int64  `json:"at"` // Unix milliseconds
	MessageID string `json:"m,omitempty"`
}

// gateKey is the token of a channel's record; "=" is no channel's key.
func gateKey(channelID string) string {
	if channelID == "" {
		return "="
	}
	return schema.Key(channelID)
}

// PutGate stores a gate's record in place of the one before. On success it is
// durable; done gets ErrFenced when the epoch is over. Two calls about one channel
// may be stored in either order: make the second when the first is done.
func (l *Ledger) PutGate(r *GateRecord, done func(err error)) error {
	r.At = time.Now().UnixMilli()
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode gate: %w", err)
	}
	l.w.publish(&write{
		records: true,
		msg:     nats.Msg{Subject: l.GateWrite(l.Epoch, gateKey(r.ChannelID)), Data: body},
		done:    func(_ uint64, _ bool, err error) { done(err) },
	})
	return nil
}

// Gates reads the last record of every gate, through the stream's leader.
func (l *Ledger) Gates(ctx context.Context) ([]*GateRecord, error) {
	subjects, err := listSubjects(ctx, l.nc, l.Records(), l.GateFilter())
	if err != nil {
		return nil, fmt.Errorf("read gates: %w", err)
	}
	names := make([]string, 0, len(subjects))
	for subject := range subjects {
		names = append(names, subject)
	}
	all := make([]*GateRecord, len(names))
	index := make([]int, len(names))
	for i := range index {
		index[i] = i
	}
	err = together(index, func(i int) error {
		m, err := leaderLast(ctx, l.nc, l.Records(), names[i])
		if err != nil || m == nil {
			return err
		}
		all[i] = &GateRecord{Sequence: m.Sequence, Stored: m.Time}
		return json.Unmarshal(m.Data, all[i])
	})
	if err != nil {
		return nil, fmt.Errorf("read gates: %w", err)
	}
	kept := all[:0]
	for _, r := range all {
		if r != nil {
			kept = append(kept, r)
		}
	}
	return kept, nil
}
