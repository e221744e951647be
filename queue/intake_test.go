package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

func newIntake(t *testing.T, a *account, epoch string) (*queue.Intake, chan *queue.Delivery) {
	t.Helper()
	return newIntakeOwned(t, a, epoch, func(context.Context) (bool, error) { return true, nil })
}

// newIntakeOwned is newIntake with what is asked before a consumer is made anew.
func newIntakeOwned(t *testing.T, a *account, epoch string, owned func(context.Context) (bool, error)) (*queue.Intake, chan *queue.Delivery) {
	t.Helper()
	got := make(chan *queue.Delivery, 1000)
	in, err := queue.NewIntake(queue.IntakeConfig{
		NATS: a.nc, JetStream: a.js, Epoch: epoch, Log: zerolog.Nop(),
		Handle: func(d *queue.Delivery) { got <- d },
		Owned:  owned,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	return in, got
}

func publish(t *testing.T, a *account, from, to int) {
	t.Helper()
	p, err := queue.NewPublisher(a.nc, "main")
	if err != nil {
		t.Fatal(err)
	}
	for i := from; i < to; i++ {
		_, err := p.Send(t.Context(), schema.KindSend, channel, fmt.Appendf(nil, `{"n":%d}`, i))
		for errors.Is(err, nats.ErrReconnectBufExceeded) { // the client is on its way back; nothing was published
			_, err = p.Send(t.Context(), schema.KindSend, channel, fmt.Appendf(nil, `{"n":%d}`, i))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func receive(t *testing.T, got chan *queue.Delivery, n int) []*queue.Delivery {
	t.Helper()
	var all []*queue.Delivery
	for range n {
		select {
		case d := <-got:
			all = append(all, d)
		case <-t.Context().Done():
			t.Fatalf("got %d deliveries, want %d", len(all), n)
		}
	}
	return all
}

func sequences(all []*queue.Delivery) (seqs []uint64) {
	for _, d := range all {
		seqs = append(seqs, d.Seq)
	}
	return seqs
}

func openSend(t *testing.T, in *queue.Intake, a *account) *queue.Source {
	t.Helper()
	s, err := in.Open(t.Context(), a.topology.Commands(), schema.SendSubject("main", schema.KindSend, channel))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestIntakeDeliversWhatIsWantedInOrder(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	in, got := newIntake(t, a, "e1")
	s := openSend(t, in, a)
	publish(t, a, 0, 10)
	s.Want(3)
	first := receive(t, got, 3)
	if want := []uint64{1, 2, 3}; !slices.Equal(sequences(first), want) {
		t.Errorf("got %v, want %v", sequences(first), want)
	}
	if n := s.Wanted(); n != 0 {
		t.Errorf("wanted %d after all came, want 0", n)
	}
	s.Want(20)
	rest := receive(t, got, 7)
	if n := s.Wanted(); n != 13 {
		t.Errorf("wanted %d, want 13 still asked for", n)
	}
	publish(t, a, 10, 12) // the waiting pull brings what comes later
	rest = append(rest, receive(t, got, 2)...)
	if want := []uint64{4, 5, 6, 7, 8, 9, 10, 11, 12}; !slices.Equal(sequences(rest), want) {
		t.Errorf("got %v, want %v", sequences(rest), want)
	}
}

// A new owner gets everything unfinished, at once and in stream order, and the
// former owner's lanes are dead.
func TestClearHandsUnfinishedMessagesToTheNewOwner(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	a, b := newAccount(t, srv), newAccount(t, srv)
	formerIn, former := newIntake(t, a, "e1")
	s := openSend(t, formerIn, a)
	publish(t, a, 0, 10)
	s.Want(100)
	held := receive(t, former, 10)
	for _, i := range []int{1, 4} {
		if err := held[i].Ack(); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.nc.Flush(); err != nil {
		t.Fatal(err)
	}

	in, got := newIntake(t, b, "e2")
	if err := in.Clear(t.Context(), b.topology.Commands()); err != nil {
		t.Fatal(err)
	}
	formerIn.Close()
	openSend(t, in, b).Want(100)
	all := receive(t, got, 8)
	if want := []uint64{1, 3, 4, 6, 7, 8, 9, 10}; !slices.Equal(sequences(all), want) {
		t.Errorf("new owner got %v, want %v", sequences(all), want)
	}
	if err := held[0].Ack(); err != nil { // nobody is there to take it
		t.Fatal(err)
	}
	if err := a.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	waiting, err := in.Waiting(t.Context(), b.topology.Commands(), ">")
	if err != nil {
		t.Fatal(err)
	}
	if n := waiting[schema.SendSubject("main", schema.KindSend, channel)]; n != 8 {
		t.Errorf("%d messages stored, want 8: the former owner's ack must not count", n)
	}
}

// Lane consumers live in the server's memory. After a restart of the server the
// lane comes back by itself, with what was unfinished first.
func TestIntakeSurvivesServerRestart(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	a := newAccount(t, srv)
	in, got := newIntake(t, a, "e1")
	s := openSend(t, in, a)
	publish(t, a, 0, 3)
	s.Want(10)
	receive(t, got, 3)
	srv.Restart()
	in.Reset()
	if seqs := sequences(receive(t, got, 3)); !slices.Equal(seqs, []uint64{1, 2, 3}) {
		t.Errorf("after the restart got %v, want 1 2 3 again", seqs)
	}
	publish(t, a, 3, 4)
	// The consumer may be made anew once more, and bring the first ones again.
	for last := uint64(3); last != 4; {
		seq := receive(t, got, 1)[0].Seq
		if seq != last+1 && seq != 1 {
			t.Fatalf("got %d after %d", seq, last)
		}
		last = seq
	}
}

// An owner that is idle learns that it was fenced off when its consumer is gone.
func TestIntakeTellsThatItsEpochIsOver(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	lost := make(chan struct{}, 1)
	in, err := queue.NewIntake(queue.IntakeConfig{
		NATS: a.nc, JetStream: a.js, Epoch: "e1", Log: zerolog.Nop(),
		Handle: func(*queue.Delivery) { t.Error("a delivery to the former owner") },
		Owned:  func(context.Context) (bool, error) { return false, nil },
		Lost:   func() { lost <- struct{}{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	openSend(t, in, a).Want(1)
	next, got := newIntake(t, a, "e2")
	if err := next.Clear(t.Context(), a.topology.Commands()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lost:
	case <-t.Context().Done():
		t.Fatal("nobody was told")
	}
	openSend(t, next, a).Want(1)
	publish(t, a, 0, 1)
	receive(t, got, 1)
}

// A consumer of this very epoch and filter, left by a try whose answer was lost,
// does not stand in the way.
func TestIntakeClearsWhatItsOwnTriesLeft(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	in, _ := newIntake(t, a, "e1")
	s := openSend(t, in, a)
	left := consumers(t, a)
	if len(left) != 1 {
		t.Fatalf("consumers: %v, want one", left)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.js.CreateConsumer(t.Context(), a.topology.Commands(), jetstream.ConsumerConfig{
		Durable: left[0] + "7", FilterSubject: schema.SendSubject("main", schema.KindSend, channel),
		AckPolicy: jetstream.AckExplicitPolicy, MemoryStorage: true,
	}); err != nil {
		t.Fatal(err)
	}
	openSend(t, in, a)
	if got := consumers(t, a); len(got) != 1 || got[0] == left[0]+"7" {
		t.Errorf("consumers: %v, want one, and not the one that stood in the way", got)
	}
}

func consumers(t *testing.T, a *account) (names []string) {
	t.Helper()
	s, err := a.js.Stream(t.Context(), a.topology.Commands())
	if err != nil {
		t.Fatal(err)
	}
	list := s.ConsumerNames(t.Context())
	for name := range list.Name() {
		names = append(names, name)
	}
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

func TestPending(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	publish(t, a, 0, 5)
	in, got := newIntake(t, a, "e1")
	s, err := in.Open(t.Context(), a.topology.Commands(), schema.SendSubject("main", schema.KindSend, channel))
	if err != nil {
		t.Fatal(err)
	}
	s.Want(2)
	s.Want(3)
	for i, d := range receive(t, got, 5) {
		if want := uint64(4 - i); d.Pending() != want { //nolint:gosec // small
			t.Errorf("delivery %d: %d are pending, want %d", i, d.Pending(), want)
		}
	}
	if n := new(queue.Delivery).Pending(); n != 0 {
		t.Errorf("of what no consumer brought %d are pending, want 0", n)
	}
}
