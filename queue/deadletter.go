package queue

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/nats-io/nats.go"
)

// DeadLetter is a command that ended `dead`, kept whole so that it can be
// redriven under the same id. Why it died is in its ledger.
type DeadLetter struct {
	ID         string `json:"id"`
	Origin     Origin `json:"o"`
	Generation int    `json:"g,omitempty"`
	Subject    string `json:"subject"` // of the command

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
	maps.Copy(h, d.Header)
	delete(h, nats.MsgIdHdr) // it must not be taken for a repeat of an earlier letter
	h[headerDead] = []string{string(about)}
	l.w.publish(&write{
		msg:  &nats.Msg{Subject: l.DeadSubject(d.ID), Header: h, Data: d.Body},
		done: func(_ uint64, _ bool, err error) { done(err) },
	})
	return nil
}
