package queue_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// A former owner parks nothing behind its successor, who would not know of it.
func TestFormerOwnerParksNothing(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	lease, former := a.own(t)
	subject := a.topology.ParkSubject(schema.KindSend, channel, "chat")
	park := func(l *queue.Ledger, body string) written {
		done := make(chan written, 1)
		l.Park(subject, nats.Header{}, []byte(body), func(seq uint64, err error) { done <- written{seq, err} })
		return <-done
	}
	if got := park(former, "first"); got.err != nil {
		t.Fatalf("Park: %v", got.err)
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, present := a.own(t)
	if got := park(former, "stray"); !errors.Is(got.err, queue.ErrFenced) {
		t.Errorf("Park of the former owner: got %v, want ErrFenced", got.err)
	}
	second := park(present, "second")
	if second.err != nil {
		t.Fatalf("Park of the present owner: %v", second.err)
	}
	from := uint64(0)
	for _, want := range []string{"first", "second"} {
		d, err := present.NextParked(t.Context(), subject, from)
		if err != nil || d == nil || string(d.Data) != want {
			t.Fatalf("NextParked from %d: got %+v, %v; want %s", from, d, err, want)
		}
		from = d.Seq + 1
	}
	if last, err := present.LastParked(t.Context(), subject); err != nil || last != second.seq {
		t.Errorf("LastParked: got %d, %v; want %d", last, err, second.seq)
	}
}
