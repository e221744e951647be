package queue

import (
	"encoding/json"

	"github.com/nats-io/nats.go"
)

// DeadLetter is a command that ended `dead`, kept whole so that it can be
// redriven under the same id.
type DeadLetter struct {
	ID         string          `json:"id"`
	Origin     Origin          `json:"o"`
	Generation int             `json:"g,omitempty"`
	Subject    string          `json:"subject"` // of the command
	Header     nats.Header     `json:"header,omitempty"`
	Body       []byte          `json:"body"`
	Event      json.RawMessage `json:"event"` // the `dead` event
}

// PutDead keeps a dead letter; an earlier one of the same id is replaced.
func (l *Ledger) PutDead(d *DeadLetter, done func(err error)) error {
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	l.w.publish(&write{
		msg:  &nats.Msg{Subject: l.DeadSubject(d.ID), Data: data},
		done: func(_ uint64, _ bool, err error) { done(err) },
	})
	return nil
}
