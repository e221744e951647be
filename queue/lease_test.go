package queue_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

// runOut has the lease end, as it does when NATS cannot renew it for too long.
func runOut(t *testing.T, a *account) {
	t.Helper()
	kv, err := a.js.KeyValue(t.Context(), "wazzup-owners")
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.js.Stream(t.Context(), "KV_wazzup-owners")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context()); err != nil { // no trace is left, as with an expiry
		t.Fatal(err)
	}
	if _, err := kv.Get(t.Context(), "main"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Fatalf("the lease is still there: %v", err)
	}
}

// A lease that ran out while nobody could take it goes on with its owner.
func TestLeaseThatRanOutIsTakenAnew(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	lease, _ := a.own(t)
	runOut(t, a)
	asked := time.Now()
	if err := lease.Renew(t.Context()); err != nil {
		t.Fatalf("Renew: %v", err)
	}
	if until := asked.Add(queue.LeaseTTL); lease.Expires().Before(until) {
		t.Errorf("the lease expires at %v, want %v or later", lease.Expires(), until)
	}
	if _, err := a.leases.Acquire(t.Context(), "main"); !errors.Is(err, queue.ErrLeaseHeld) {
		t.Errorf("Acquire by another: got %v, want ErrLeaseHeld", err)
	}
	if err := lease.Renew(t.Context()); err != nil {
		t.Errorf("the next Renew: %v", err)
	}
}

// One that another worker took meanwhile is lost.
func TestLeaseThatAnotherTookIsLost(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	a := newAccount(t, srv)
	lease, _ := a.own(t)
	runOut(t, a)
	leases, err := queue.OpenLeases(t.Context(), a.js, "worker-2", 1)
	if err != nil {
		t.Fatal(err)
	}
	other, err := leases.Acquire(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Renew(t.Context()); !errors.Is(err, queue.ErrLeaseLost) {
		t.Errorf("Renew: got %v, want ErrLeaseLost", err)
	}
	if err := other.Renew(t.Context()); err != nil {
		t.Errorf("Renew of the one who has it: %v", err)
	}
}
