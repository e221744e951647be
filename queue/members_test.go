package queue_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

func TestWorkerIDsDiffer(t *testing.T) {
	t.Parallel()
	first, second := queue.WorkerID("host.example.org-17"), queue.WorkerID("host.example.org-17")
	if first == second {
		t.Errorf("two starts of one name have the same id %s", first)
	}
	if want := "host-example-org-17-"; first[:len(want)] != want {
		t.Errorf("got %s, want it to begin with %s", first, want)
	}
}

// A worker is listed with its accounts from its announcement on, until it leaves
// or has not announced itself for its time to live.
func TestMembers(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	members, err := queue.OpenMembers(t.Context(), a.js, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got := listed(t, members); len(got) != 0 {
		t.Errorf("before anyone came: got %v", got)
	}
	for id, accounts := range map[string][]string{"stays": {"a", "b"}, "leaves": {"b"}, "dies": nil} {
		if err := members.Announce(t.Context(), queue.Member{ID: id, Accounts: accounts}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := listed(t, members), []string{"dies []", "leaves [b]", "stays [a b]"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := members.Leave(t.Context(), "leaves"); err != nil {
		t.Fatal(err)
	}
	if got, want := listed(t, members), []string{"dies []", "stays [a b]"}; !slices.Equal(got, want) {
		t.Errorf("after one left: got %v, want %v", got, want)
	}
	start := time.Now()
	renew, look := time.NewTicker(queue.MemberRenew), time.NewTicker(20*time.Millisecond)
	defer renew.Stop()
	defer look.Stop()
	for len(listed(t, members)) > 1 {
		select {
		case <-renew.C:
			if err := members.Announce(t.Context(), queue.Member{ID: "stays", Accounts: []string{"a"}}); err != nil {
				t.Fatal(err)
			}
		case <-look.C:
		}
	}
	if took := time.Since(start); took > 3*queue.MemberTTL {
		t.Errorf("one that died was listed for %v, want about %v", took, queue.MemberTTL)
	}
	if got, want := listed(t, members), []string{"stays [a]"}; !slices.Equal(got, want) {
		t.Errorf("after one died: got %v, want %v", got, want)
	}
}

func listed(t *testing.T, members *queue.Members) []string {
	t.Helper()
	list, err := members.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make([]string, len(list))
	for i, m := range list {
		got[i] = fmt.Sprint(m.ID, " ", m.Accounts)
	}
	slices.Sort(got)
	return got
}

// More leases than the server gives for one request are all read.
func TestHoldersOfManyAccounts(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	bucket, err := a.js.Stream(t.Context(), "KV_wazzup-owners")
	if err != nil {
		t.Fatal(err)
	}
	lasting := bucket.CachedInfo().Config
	lasting.MaxAge = time.Hour // or the first runs out before the last is taken
	if _, err := a.js.UpdateStream(t.Context(), lasting); err != nil {
		t.Fatal(err)
	}
	const n = 1200
	accounts := make([]string, n)
	acquired := make([]*queue.Lease, n)
	for i := range accounts {
		accounts[i] = fmt.Sprint("account-", i)
		if acquired[i], err = a.leases.Acquire(t.Context(), accounts[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := acquired[7].Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	holders, err := a.leases.Holders(t.Context(), slices.Concat(accounts, []string{"nobodys"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, held := holders[accounts[7]]; len(holders) != n-1 || held {
		t.Errorf("got %d holders, account 7 held: %v; want %d without it", len(holders), held, n-1)
	}
	for account, worker := range holders {
		if worker != "worker-1" {
			t.Fatalf("%s is held by %q, want worker-1", account, worker)
		}
	}
}

// A renewal that was stored although its answer was lost neither ends the lease
// nor keeps it from being given up.
func TestLeaseAfterALostAnswer(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	lease, err := a.leases.Acquire(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	kv, err := a.js.KeyValue(t.Context(), "wazzup-owners")
	if err != nil {
		t.Fatal(err)
	}
	again := func(value []byte) {
		t.Helper()
		e, err := kv.Get(t.Context(), "main")
		if err != nil {
			t.Fatal(err)
		}
		if value == nil {
			value = e.Value()
		}
		if _, err := kv.Update(t.Context(), "main", value, e.Revision()); err != nil {
			t.Fatal(err)
		}
	}
	again(nil)
	if err := lease.Renew(t.Context()); err != nil {
		t.Errorf("renew after a lost answer: %v", err)
	}
	again(nil)
	if err := lease.Release(t.Context()); err != nil {
		t.Errorf("release after a lost answer: %v", err)
	}
	if _, err := kv.Get(t.Context(), "main"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("after its release: %v, want no key", err)
	}
	other, err := a.leases.Acquire(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	again([]byte(`{"worker":"another"}`))
	if err := other.Renew(t.Context()); !errors.Is(err, queue.ErrLeaseLost) {
		t.Errorf("renew of a lease that another has: %v, want %v", err, queue.ErrLeaseLost)
	}
	if err := other.Release(t.Context()); !errors.Is(err, queue.ErrLeaseLost) {
		t.Errorf("release of a lease that another has: %v, want %v", err, queue.ErrLeaseLost)
	}
}
