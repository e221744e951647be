package queue

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// DeadLetter is a command that ended `dead`, kept whole so that it can be
// redriven under the same id. Why it died is in its ledger.
type DeadLetter struct {
	ID         string `json:"id"`
	Origin     Origin `json:"o"`
	Generation int    `json:"g,omitempty"`
	Subject    string `json:"subject"` // of the command

	// Why it died, so that letters can be chosen and judged without the ledger,
	// which forgets sooner.
	Code    string        `json:"code,omitempty"`
	Class   schema.Class  `json:"class,omitempty"`
	Reason  schema.Reason `json:"reason,omitempty"`
	Attempt int           `json:"attempt,omitempty"` // claims so far, over all generations
	Group   string        `json:"group,omitempty"`
	// Doubted: one of its attempts may have been carried out.
	Doubted bool `json:"doubted,omitempty"`
	// ClaimSeq and ClaimAt (Unix milliseconds) are of the earliest attempt in
	// doubt: what would prove it was stored after that.
	ClaimSeq uint64 `json:"claimSeq,omitempty"`
	ClaimAt  int64  `json:"claimAt,omitempty"`

	Header nats.Header `json:"-"` // of the command
	Body   []byte      `json:"-"` // of the command
}

// headerDead holds all of a dead letter but the command's own header and body,
// which are those of the stored message.
const headerDead = "Wazzup-Dead"

// PutDead keeps a dead letter; an earlier one of the same id is replaced. A
// command so near NATS's payload limit that a letter of it does not fit ends
// with ErrTooLarge.
func (l *Ledger) PutDead(d *DeadLetter, done func(err error)) error {
	about, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode dead letter: %w", err)
	}
	h := make(nats.Header, len(d.Header)+1)
	for name, values := range d.Header {
		// What the server acts upon is not the letter's: it must not be taken for a
		// repeat of an earlier one, and a schedule's headers would have it refused.
		if !strings.HasPrefix(name, "Nats-") {
			h[name] = values
		}
	}
	h[headerDead] = []string{string(about)}
	l.w.publish(&write{
		msg:  &nats.Msg{Subject: l.DeadSubject(d.ID), Header: h, Data: d.Body},
		done: func(_ uint64, _ bool, err error) { done(err) },
	})
	return nil
}
