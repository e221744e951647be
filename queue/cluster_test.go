//go:build system

package queue_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

// With three replicas too, of many that reach for a lease at once one gets it,
// and the others hear that it is held.
func TestLeasesOfACluster(t *testing.T) {
	t.Parallel()
	cluster := queuetest.Cluster(t, 3)
	const workers, accounts = 4, 30
	won := make(chan string, workers*accounts)
	var all sync.WaitGroup
	for w := range workers {
		js, err := jetstream.New(queuetest.Conn(t, cluster))
		if err != nil {
			t.Fatal(err)
		}
		leases, err := queue.OpenLeases(t.Context(), js, fmt.Sprint("worker-", w), 3)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for i := range accounts {
				account := fmt.Sprint("account-", i)
				lease, err := leases.Acquire(t.Context(), account)
				switch {
				case errors.Is(err, queue.ErrLeaseHeld):
					continue
				case err != nil:
					t.Errorf("acquire %s: %v", account, err)
					continue
				}
				won <- account
				if err := lease.Renew(t.Context()); err != nil {
					t.Errorf("renew %s: %v", account, err)
				}
				if i%2 == 0 {
					continue
				}
				if err := lease.Release(t.Context()); err != nil {
					t.Errorf("release %s: %v", account, err)
				}
			}
		})
	}
	all.Wait()
	close(won)
	owners := make(map[string]int)
	for account := range won {
		owners[account]++
	}
	for i := range accounts {
		account := fmt.Sprint("account-", i)
		if n := owners[account]; n == 0 || n > 1 && i%2 == 0 {
			t.Errorf("%s was taken %d times, want once", account, n)
		}
	}
}

// A server of a cluster that goes takes no lease with it: it is renewed, or over
// and free for the next.
func TestLeaseWhenAServerOfAClusterGoes(t *testing.T) {
	t.Parallel()
	cluster := queuetest.Cluster(t, 3)
	js, err := jetstream.New(queuetest.Conn(t, cluster, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond)))
	if err != nil {
		t.Fatal(err)
	}
	leases, err := queue.OpenLeases(t.Context(), js, "worker-1", 3)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := leases.Acquire(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	cluster.Stop(cluster.StreamLeader("KV_wazzup-owners"))
	tick := time.NewTicker(queue.LeaseRenew / 4)
	defer tick.Stop()
	for renewed := false; !renewed; {
		ctx, cancel := context.WithTimeout(t.Context(), queue.LeaseRenew)
		err := lease.Renew(ctx)
		cancel()
		switch {
		case err == nil:
			renewed = true
		case errors.Is(err, queue.ErrLeaseLost):
			if lease, err = leases.Acquire(t.Context(), "main"); err != nil {
				t.Fatalf("a lease that is over cannot be taken: %v", err)
			}
		default:
			t.Logf("renew: %v", err)
			<-tick.C
		}
	}
	if _, err := leases.Acquire(t.Context(), "main"); !errors.Is(err, queue.ErrLeaseHeld) {
		t.Errorf("acquire of a held lease: %v, want %v", err, queue.ErrLeaseHeld)
	}
	for holder := ""; holder != "worker-1"; <-tick.C { // a replica may answer that lags behind
		holders, err := leases.Holders(t.Context(), []string{"main"})
		if err != nil {
			t.Fatal(err)
		}
		holder = holders["main"]
	}
}
