package queue_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// state waits until the command stream has so many consumers and messages.
func (a *account) state(t *testing.T, consumers int, messages uint64) {
	t.Helper()
	s, err := a.js.Stream(t.Context(), a.topology.Commands())
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Consumers == consumers && info.State.Msgs == messages {
			return
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("%d consumers and %d messages, want %d and %d", info.State.Consumers, info.State.Msgs, consumers, messages)
		}
	}
}

func ack(t *testing.T, deliveries ...*queue.Delivery) {
	t.Helper()
	for _, d := range deliveries {
		if err := d.Ack(); err != nil {
			t.Fatal(err)
		}
	}
}

// A source that sleeps has no consumer and gets nothing; what is in hand can be
// acknowledged all the same. It wakes when something is wanted, with what was
// unfinished first.
func TestSleepingSource(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	in, got := newIntake(t, a, "e1")
	s := openSend(t, in, a)
	publish(t, a, 0, 3)
	s.Want(10)
	held := receive(t, got, 3)
	ack(t, held[0])
	a.state(t, 1, 2)

	s.Sleep()
	s.Sleep() // again: nothing new
	a.state(t, 0, 2)
	if n := s.Wanted(); n != 0 {
		t.Errorf("%d wanted of a source that sleeps", n)
	}
	ack(t, held[1])
	a.state(t, 0, 1)
	publish(t, a, 3, 5)
	in.Reset() // a reconnect wakes nobody
	s.Check(3)
	a.state(t, 0, 3)

	s.Want(10)
	again := receive(t, got, 3)
	if seqs := sequences(again); !slices.Equal(seqs, []uint64{3, 4, 5}) {
		t.Errorf("awake it got %v, want 3 4 5", seqs)
	}
	held[2].Replace(again[0])
	ack(t, held[2], again[1], again[2])
	a.state(t, 1, 0)
	select {
	case d := <-got:
		t.Errorf("%d was delivered as well", d.Seq)
	default:
	}
}

// What ends while its source's consumer is made anew is not handed over again: nobody
// was there to be told, so it comes once more, and is acknowledged unseen.
func TestEndedBetweenConsumers(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*queue.Intake, *queue.Source){
		"asleep": func(_ *queue.Intake, s *queue.Source) {
			s.Sleep()
			s.Want(3)
		},
		"reset": func(in *queue.Intake, s *queue.Source) {
			s.Want(3)
			in.Reset()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAccount(t, queuetest.Server(t))
			asked, answer := make(chan struct{}), make(chan struct{})
			in, got := newIntakeOwned(t, a, "e1", func(context.Context) (bool, error) {
				close(asked) // the consumer is made anew once
				<-answer
				return true, nil
			})
			s := openSend(t, in, a)
			publish(t, a, 0, 3)
			s.Want(3)
			held := receive(t, got, 3)
			begin(in, s)
			<-asked
			ack(t, held[0], held[1])
			publish(t, a, 3, 5)
			close(answer)
			again := receive(t, got, 3)
			if seqs := sequences(again); !slices.Equal(seqs, []uint64{3, 4, 5}) {
				t.Fatalf("got %v, want 3 4 5: the first two had ended", seqs)
			}
			ack(t, again...)
			a.state(t, 1, 0)
		})
	}
}

// A lane that is closed when it is found has no consumer before it opens.
func TestOpenAsleep(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	in, got := newIntake(t, a, "e1")
	publish(t, a, 0, 2)
	filter := schema.SendSubject("main", schema.KindSend, channel)
	never, err := in.OpenAsleep(a.topology.Commands(), filter)
	if err != nil {
		t.Fatal(err)
	}
	if err := never.Close(t.Context()); err != nil {
		t.Errorf("close a source that never woke: %v", err)
	}
	s, err := in.OpenAsleep(a.topology.Commands(), filter)
	if err != nil {
		t.Fatal(err)
	}
	a.state(t, 0, 2)
	s.Want(5)
	ack(t, receive(t, got, 2)...)
	a.state(t, 1, 0)
	s.Sleep()
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("close a source that sleeps: %v", err)
	}
	a.state(t, 0, 0)
}

// Whoever puts a source to sleep and wakes it in quick turns loses nothing, and
// gets everything in order: whatever else comes again, nothing is skipped.
func TestSleepAndWakeInTurns(t *testing.T) {
	t.Parallel()
	const total = 200
	a := newAccount(t, queuetest.Server(t))
	in, got := newIntake(t, a, "e1")
	s := openSend(t, in, a)
	publish(t, a, 0, total)
	highest, next := uint64(0), uint64(1)
	held := make(map[uint64]*queue.Delivery)
	take := func(d *queue.Delivery) {
		if d.Seq > highest+1 {
			t.Fatalf("got %d, want %d first", d.Seq, highest+1)
		}
		highest = max(highest, d.Seq)
		held[d.Seq] = d
		if d.Seq < next { // the consumer that was told went with it
			ack(t, d)
		}
	}
	for turn := 0; next <= total; turn++ {
		s.Want(4)
		if turn%3 > 0 {
			for held[next] == nil {
				take(receive(t, got, 1)[0])
				s.Want(1)
			}
			ack(t, held[next])
			next++
		}
		s.Sleep() // or not, if it is just being woken
		for len(got) > 0 {
			take(<-got)
		}
	}
	s.Want(total)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for { // what was acknowledged to a consumer that was gone
		select {
		case d := <-got:
			ack(t, d)
		case <-tick.C:
			left, err := in.Waiting(t.Context(), a.topology.Commands(), ">")
			if err != nil {
				t.Fatal(err)
			}
			if len(left) == 0 {
				return
			}
		}
	}
}

// An acknowledgement while its source sleeps deletes the very message that was
// delivered: not another one that has its sequence in a stream that was made anew.
func TestSleepingSourceDeletesItsOwn(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	in, got := newIntake(t, a, "e1")
	s := openSend(t, in, a)
	publish(t, a, 0, 2)
	s.Want(2)
	held := receive(t, got, 2)
	s.Sleep()
	a.state(t, 0, 2)
	st, err := a.js.Stream(t.Context(), a.topology.Commands())
	if err != nil {
		t.Fatal(err)
	}
	cfg := st.CachedInfo().Config
	if err := a.js.DeleteStream(t.Context(), cfg.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := a.js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	publish(t, a, 2, 4)
	ack(t, held...)
	in.Close() // waits for what it began
	info, err := a.js.Stream(t.Context(), cfg.Name)
	if err != nil {
		t.Fatal(err)
	}
	if n := info.CachedInfo().State.Msgs; n != 2 {
		t.Errorf("%d messages are left, want both that came later", n)
	}
}
