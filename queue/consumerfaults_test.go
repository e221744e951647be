package queue_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

// wire is the way of one connection to the server, which can be cut.
type wire struct {
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

// Dial makes a wire a dialer of nats.go.
func (w *wire) Dial(network, address string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return nil, errors.New("the wire is cut")
	}
	conn, err := new(net.Dialer).DialContext(context.Background(), network, address)
	if err == nil {
		w.conns = append(w.conns, conn)
	}
	return conn, err
}

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	if cut {
		for _, conn := range w.conns {
			_ = conn.Close()
		}
		w.conns = nil
	}
}

// wired connects over a wire.
func wired(t *testing.T, srv queuetest.Endpoint) (*nats.Conn, *wire) {
	t.Helper()
	w := new(wire)
	return queuetest.Conn(t, srv, nats.SetCustomDialer(w)), w
}

// away cuts the wire and returns when the connection knows.
func (w *wire) away(t *testing.T, nc *nats.Conn) {
	t.Helper()
	lost := nc.StatusChanged(nats.RECONNECTING)
	defer nc.RemoveStatusListener(lost)
	w.set(true)
	select {
	case <-lost:
	case <-bounded(t).Done():
		t.Fatal("the connection does not notice")
	}
}

// soon fails where something takes as long as an outage or a lost event would.
func (r *running) soon(do func() error) {
	r.t.Helper()
	began := time.Now()
	if err := do(); err != nil {
		r.t.Error(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		r.t.Errorf("it took %v", took)
	}
}

// A durable consumer that is deleted while its reader has no connection is gone, too.
func TestConsumerGoneWhileAway(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(ctx context.Context, a *account) error{
		"the consumer": func(ctx context.Context, a *account) error {
			return a.js.DeleteConsumer(ctx, a.topology.Records(), "shop")
		},
		"the stream, which is made anew": func(ctx context.Context, a *account) error {
			if err := a.js.DeleteStream(ctx, a.topology.Records()); err != nil {
				return err
			}
			_, err := queue.Ensure(ctx, a.js, "main", small())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := queuetest.Server(t)
			a := newAccount(t, srv)
			nc, w := wired(t, srv)
			r := consume(t, nc, queue.ConsumerConfig{Name: "shop", AckWait: time.Second}, nil)
			store(t, a.js, 0, 1)
			r.dealt(1)
			w.away(t, nc)
			if err := remove(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			w.set(false)
			if err := r.ended(); !errors.Is(err, queue.ErrConsumerGone) {
				t.Errorf("got %v, want ErrConsumerGone", err)
			}
		})
	}
}

// A handler that is told to end before it is done has not failed: its event is not
// given up.
func TestConsumerStopIsNoAttempt(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	cfg := queue.ConsumerConfig{Name: "shop", AckWait: time.Hour, Grace: time.Millisecond, MaxAttempts: 1}
	inside := make(chan struct{})
	one := consume(t, a.nc, cfg, func(ctx context.Context, _ *queue.Received) error {
		close(inside)
		<-ctx.Done()
		return ctx.Err()
	})
	store(t, a.js, 0, 1)
	<-inside
	if err := one.end(); err != nil {
		t.Error(err)
	}
	if len(one.errs) != 1 || errors.Is(one.errs[0], queue.ErrGaveUp) {
		t.Errorf("heard %v", one.errs)
	}
	if got := consume(t, a.nc, cfg, nil).dealt(1); !slices.Equal(got, []string{"e-0"}) {
		t.Errorf("got %q", got)
	}
}

// A consumer that is told to stop while NATS is away ends, whatever it was at.
func TestConsumerStopsWhileAway(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	a := newAccount(t, srv)
	for _, dealing := range []bool{false, true} {
		nc, w := wired(t, srv)
		cfg := queue.ConsumerConfig{Name: "shop", AckWait: time.Hour, Grace: 100 * time.Millisecond}
		inside, release := make(chan struct{}, 1), make(chan struct{})
		r := consume(t, nc, cfg, func(context.Context, *queue.Received) error {
			inside <- struct{}{}
			<-release
			return nil
		})
		if dealing {
			store(t, a.js, 0, 1)
			<-inside
		}
		w.away(t, nc)
		close(release)
		r.soon(r.end)
		if dealing && (len(r.errs) != 1 || !errors.Is(r.errs[0], queue.ErrNotAcknowledged)) {
			t.Errorf("heard %v, want ErrNotAcknowledged", r.errs)
		}
	}
}

// A connection that its owner closes ends the consumer, whatever it was at.
func TestConsumerConnectionClosed(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	for _, dealing := range []bool{false, true} {
		nc := queuetest.Conn(t, a.srv)
		inside, release := make(chan struct{}, 1), make(chan struct{})
		r := consume(t, nc, queue.ConsumerConfig{Name: "shop", AckWait: time.Hour}, func(context.Context, *queue.Received) error {
			inside <- struct{}{}
			<-release
			return nil
		})
		if dealing {
			store(t, a.js, 0, 1)
			<-inside
		}
		nc.Close()
		close(release)
		r.soon(func() error {
			if err := r.ended(); !errors.Is(err, nats.ErrConnectionClosed) {
				t.Errorf("got %v, want that the connection is closed", err)
			}
			return nil
		})
	}
}

// A handler that ends its goroutine has failed; the event comes again.
func TestConsumerHandlerExits(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	r := consume(t, a.nc, queue.ConsumerConfig{Name: "shop", AckWait: 300 * time.Millisecond}, func(_ context.Context, e *queue.Received) error {
		if e.Attempt == 1 {
			runtime.Goexit()
		}
		return nil
	})
	want := store(t, a.js, 0, 2)
	if got := r.dealt(2); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

// The beginning of time is a time: everything that is kept.
func TestConsumerSinceEver(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	want := store(t, a.js, 0, 2)
	if got := consume(t, a.nc, queue.ConsumerConfig{Name: "shop", Start: queue.StartSince(time.Time{})}, nil).dealt(2); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// Processes that start together, each with its own idea of "an hour ago", have one
// consumer.
func TestConsumerStartsTogether(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	newAccount(t, srv)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range 8 {
		c, err := queue.NewConsumer(queuetest.Conn(t, srv), "main", queue.ConsumerConfig{
			Name: "shop", Start: queue.StartSince(time.Now().Add(-time.Hour - time.Duration(i)*time.Second)),
		})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			<-start
			if err := c.Ensure(bounded(t)); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
}

// A consumer that is deleted while its handler is at work is gone when that ends.
func TestConsumerGoneAtWork(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	inside, release := make(chan struct{}), make(chan struct{})
	r := consume(t, a.nc, queue.ConsumerConfig{Name: "shop", AckWait: time.Hour}, func(context.Context, *queue.Received) error {
		close(inside)
		<-release
		return nil
	})
	store(t, a.js, 0, 1)
	<-inside
	if err := a.js.DeleteConsumer(t.Context(), a.topology.Records(), "shop"); err != nil {
		t.Fatal(err)
	}
	close(release)
	r.soon(func() error {
		if err := r.ended(); !errors.Is(err, queue.ErrConsumerGone) {
			t.Errorf("got %v, want ErrConsumerGone", err)
		}
		return nil
	})
	if len(r.errs) != 1 || !errors.Is(r.errs[0], queue.ErrNotAcknowledged) || !errors.Is(r.errs[0], queue.ErrConsumerGone) {
		t.Errorf("heard %v", r.errs)
	}
}
