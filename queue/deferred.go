package queue

import (
	"context"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Deferred is a command that waits for its time on the server.
type Deferred struct {
	Schedule string // subject that holds it: one for each command and generation
	Target   string // subject on which it appears
	At       time.Time
	Header   nats.Header
	Body     []byte
}

// Defer hands a command to the server's scheduler. On success it is durable and
// appears on its target no earlier than At, through any restart; the same
// schedule subject replaces what it held before.
//
// The header is written here and not by nats.go's option, which cuts the time to
// whole seconds and so fires early. The server's timer has a grain of 250 ms.
func (l *Ledger) Defer(d *Deferred, done func(err error)) {
	h := make(nats.Header, len(d.Header)+2)
	maps.Copy(h, d.Header)
	h["Nats-Schedule"] = []string{"@at " + d.At.UTC().Format(time.RFC3339Nano)}
	h["Nats-Schedule-Target"] = []string{d.Target}
	l.w.publish(&write{
		msg:  nats.Msg{Subject: d.Schedule, Header: h, Data: d.Body},
		done: func(_ uint64, _ bool, err error) { done(err) },
	})
}

// Hasten has a deferred command come due now. One that is not there has come due
// already, which is no error.
func (l *Ledger) Hasten(ctx context.Context, id string, generation int) error {
	subject := l.ScheduleSubject(id, strconv.Itoa(generation))
	m, err := leaderLast(ctx, l.nc, l.Deferred(), subject)
	if err != nil || m == nil {
		return err
	}
	header := maps.Clone(m.Header)
	delete(header, nats.MsgRollup) // the server adds it to a schedule, and takes it from nobody
	done := make(chan error, 1)
	l.Defer(&Deferred{
		Schedule: subject, Target: m.Header.Get("Nats-Schedule-Target"), At: time.Now(), Header: header, Body: m.Data,
	}, func(err error) { done <- err })
	return <-done
}

// PutDue stores a copy of a command at once where deferred ones appear when their
// time has come. On success it is durable there.
func (l *Ledger) PutDue(target string, header nats.Header, body []byte, done func(err error)) {
	l.w.publish(&write{
		msg:  nats.Msg{Subject: target, Header: header, Data: body},
		done: func(_ uint64, _ bool, err error) { done(err) },
	})
}
