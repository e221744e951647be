package queue

import (
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// ParsePubAck opens the reading of PubAcks to tests.
func ParsePubAck(data []byte) (seq uint64, duplicate bool, err error) {
	ack, err := parsePubAck(data)
	return ack.seq, ack.duplicate, err
}

// SetQuiet shortens how long a publisher hears nothing before it asks.
func (p *Publisher) SetQuiet(d time.Duration) { p.quiet = d }

// NotStored tells of writes that are not stored: some at once, and as many again
// after a while.
func NotStored(log zerolog.Logger, subject string, n int, later time.Duration) {
	w := &writer{log: log}
	p := &write{msg: nats.Msg{Subject: subject}}
	for range 2 {
		for range n {
			w.notStored(p, ErrConflict)
		}
		time.Sleep(later)
	}
	w.notStored(p, ErrConflict)
}

// Recreating tells of consumers that are recreated, at once and slowly, and of some
// that cannot be yet, for as long.
func Recreating(log zerolog.Logger, lanes int, later time.Duration) {
	in := &Intake{log: log}
	s := &Source{stream: "commands", filter: "wazzup.main.cmd.send.c"}
	for range lanes {
		in.recreated(s, "reconnect", 20*time.Millisecond)
		in.notRecreated(s, "reconnect", ErrConflict)
	}
	time.Sleep(later)
	in.recreated(s, "reconnect", 5*time.Second)
	in.notRecreated(s, "reconnect", ErrConflict)
}
