package queue_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

const channel = "3376e1c3-26a6-478b-b964-72bf01cc22cb"

// small limits, so that a test never depends on the machine's disk.
func small() queue.Limits {
	return queue.Limits{CommandBytes: 32 << 20, RecordBytes: 32 << 20, DeferredBytes: 8 << 20, DeadBytes: 8 << 20}
}

type account struct {
	srv      queuetest.Endpoint
	nc       *nats.Conn
	js       jetstream.JetStream
	topology *queue.Topology
	leases   *queue.Leases
}

func newAccount(t *testing.T, srv queuetest.Endpoint) *account {
	t.Helper()
	nc := queuetest.Conn(t, srv)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	topology, err := queue.Ensure(t.Context(), js, "main", small())
	if err != nil {
		t.Fatal(err)
	}
	leases, err := queue.OpenLeases(t.Context(), js, "worker-1", 1)
	if err != nil {
		t.Fatal(err)
	}
	return &account{srv, nc, js, topology, leases}
}

// own takes the lease, raises the epoch and opens the ledger.
func (a *account) own(t *testing.T) (*queue.Lease, *queue.Ledger) {
	t.Helper()
	lease, err := a.leases.Acquire(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lease.Raise(t.Context(), a.topology); err != nil {
		t.Fatal(err)
	}
	l, err := queue.NewLedger(a.nc, a.topology, lease.Epoch, nil, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return lease, l
}

type written struct {
	seq uint64
	err error
}

// appendRecord writes a record and waits for its outcome.
func appendRecord(ctx context.Context, t *testing.T, l *queue.Ledger, r *queue.Record, expect uint64) written {
	t.Helper()
	done := make(chan written, 1)
	l.Append(r, expect, func(seq uint64, err error) { done <- written{seq, err} })
	select {
	case w := <-done:
		return w
	case <-ctx.Done():
		t.Fatal("the write has no outcome")
		return written{}
	}
}
