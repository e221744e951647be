package sender_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// spreadRig is a rig with many accounts, all served by one simulated vendor.
type spreadRig struct {
	*rig
	accounts   []string
	publishers map[string]*queue.Publisher
	leases     *queue.Leases
	members    *queue.Members
}

func newSpreadRig(t *testing.T, names ...string) *spreadRig {
	t.Helper()
	r := &spreadRig{rig: newRig(t), accounts: names, publishers: make(map[string]*queue.Publisher)}
	for _, account := range names {
		if _, err := queue.Ensure(t.Context(), r.js, account, limits()); err != nil {
			t.Fatal(err)
		}
		publisher, err := queue.NewPublisher(r.nc, account)
		if err != nil {
			t.Fatal(err)
		}
		r.publishers[account] = publisher
		r.collect(account)
	}
	var err error
	if r.leases, err = queue.OpenLeases(t.Context(), r.js, "observer", 1); err != nil {
		t.Fatal(err)
	}
	if r.members, err = queue.OpenMembers(t.Context(), r.js, 1); err != nil {
		t.Fatal(err)
	}
	return r
}

// configs are those of a worker that serves these accounts.
func (r *spreadRig) configs(names ...string) []sender.Config {
	cfgs := make([]sender.Config, len(names))
	for i, account := range names {
		cfgs[i] = r.config()
		cfgs[i].Account = account
	}
	return cfgs
}

// owned waits until as many workers as these own the accounts, with this many
// accounts each, and returns how long that took. The counts are in ascending order.
func (r *spreadRig) owned(counts ...int) time.Duration {
	r.t.Helper()
	start := time.Now()
	return r.until(start, fmt.Sprintf("workers with %v accounts", counts), func(byWorker map[string][]string) bool {
		got := make([]int, 0, len(byWorker))
		for _, owns := range byWorker {
			got = append(got, len(owns))
		}
		slices.Sort(got)
		return slices.Equal(got, counts)
	})
}

// shared is that so many workers own all accounts, and none more than its share.
func (r *spreadRig) shared(workers int) func(map[string][]string) bool {
	share := (len(r.accounts) + workers - 1) / workers
	return func(byWorker map[string][]string) bool {
		all := 0
		for _, owns := range byWorker {
			if len(owns) > share {
				return false
			}
			all += len(owns)
		}
		return all == len(r.accounts) && len(byWorker) == workers
	}
}

// until waits until what the living workers own satisfies the condition.
func (r *spreadRig) until(start time.Time, what string, cond func(map[string][]string) bool) time.Duration {
	r.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		members, err := r.members.List(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		holders, err := r.leases.Holders(r.t.Context(), r.accounts)
		if err != nil {
			r.t.Fatal(err)
		}
		byWorker := make(map[string][]string)
		for _, m := range members {
			byWorker[m.ID] = nil
		}
		for account, worker := range holders {
			byWorker[worker] = append(byWorker[worker], account)
		}
		if cond(byWorker) {
			return time.Since(start)
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("waited in vain for %s: %v", what, byWorker)
		}
	}
}

// expiries follows the leases from now on. The returned function counts those that ran
// out, since a worker that has gone did not give them up.
func (r *spreadRig) expiries() (count func() int) {
	r.t.Helper()
	changes, err := r.nc.SubscribeSync("$KV.wazzup-owners.>")
	if err != nil {
		r.t.Fatal(err)
	}
	holders, err := r.leases.Holders(r.t.Context(), r.accounts)
	if err != nil {
		r.t.Fatal(err)
	}
	return func() (n int) {
		r.t.Helper()
		members, err := r.members.List(r.t.Context())
		if err == nil {
			err = r.nc.Flush()
		}
		if err != nil {
			r.t.Fatal(err)
		}
		for {
			left, _, err := changes.Pending()
			if err != nil {
				r.t.Fatal(err)
			}
			if left == 0 {
				return n
			}
			m, err := changes.NextMsg(patience)
			if err != nil {
				r.t.Fatal(err)
			}
			var lease struct{ Worker string } // "" = it is given up
			if len(m.Data) > 0 && json.Unmarshal(m.Data, &lease) != nil {
				r.t.Fatalf("lease: %s", m.Data)
			}
			account := m.Subject[strings.LastIndex(m.Subject, ".")+1:]
			former := holders[account]
			gone := !slices.ContainsFunc(members, func(m queue.Member) bool { return m.ID == former })
			if former != "" && lease.Worker != "" && lease.Worker != former && gone {
				n++
			}
			holders[account] = lease.Worker
		}
	}
}

// traffic publishes to all accounts in turn, to a few chats each, until the
// returned function is called, which tells how many commands there were.
func (r *spreadRig) traffic() (end func() int) {
	ctx, cancel := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	n := 0
	wg.Go(func() {
		tick := time.NewTicker(3 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			account := r.accounts[n%len(r.accounts)]
			body := fmt.Sprintf(`{"chatType":"whatsapp","chatId":"7900000000%d","text":"%s %06d"}`, n/len(r.accounts)%5, account, n)
			if _, err := r.publishers[account].Send(r.t.Context(), schema.KindSend, simulator.ChannelWhatsApp, []byte(body)); err != nil {
				r.t.Error(err)
				return
			}
			n++
		}
	})
	end = func() int {
		cancel()
		wg.Wait()
		return n
	}
	r.t.Cleanup(func() { end() })
	return end
}

// sentOnce waits for the end of n commands and checks that each was sent, with
// one request, in the order of its chat, and that none was ever in doubt.
func (r *spreadRig) sentOnce(n int) {
	r.t.Helper()
	for _, e := range r.finals(n) {
		if e.State != schema.StateSent {
			r.t.Errorf("command %d of %s ended %s %+v", e.Seq, e.Account, e.State, e.Error)
		}
	}
	r.mu.Lock()
	for _, e := range r.events {
		if e.State == schema.StateUnknown {
			r.t.Errorf("command %d of %s was in doubt: %+v", e.Seq, e.Account, e.Error)
		}
	}
	r.mu.Unlock()
	last := make(map[string]string)
	sends := r.sim.Sends()
	for _, s := range sends {
		account, _, _ := strings.Cut(s.Text, " ")
		chat := account + " " + s.ChatID
		if s.Text <= last[chat] {
			r.t.Errorf("chat %s got %q after %q", chat, s.Text, last[chat])
		}
		last[chat] = s.Text
	}
	if len(sends) != n {
		r.t.Errorf("%d requests for %d commands", len(sends), n)
	}
}

// Workers come and go under traffic: each owns its share, all accounts are
// owned, and no command notices.
func TestAccountsSpreadOverWorkers(t *testing.T) {
	t.Parallel()
	r := newSpreadRig(t, accounts(7)...)
	if err := r.sim.AddRule(simulator.Rule{Delay: simulator.Duration(30 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	end := r.traffic()
	_, stopFirst := r.worker(r.configs(r.accounts...)...)
	t.Logf("one worker owns all after %v", r.owned(7))
	r.start(r.configs(r.accounts...)...)
	t.Logf("a second one has its share after %v", r.owned(3, 4))
	third, _ := r.worker(r.configs(r.accounts...)...)
	t.Logf("a third one has its share after %v", r.until(time.Now(), "at most three accounts each", r.shared(3)))
	r.until(time.Now(), "a worker that has its share and stands by for the rest to be ready", func(map[string][]string) bool {
		return third.Ready() == nil
	})
	expired := r.expiries()
	stopFirst()
	t.Logf("without the first one the others own all after %v", r.owned(3, 4))
	if n := expired(); n != 0 {
		t.Errorf("%d leases of a worker that stopped ran out: it gave them not up", n)
	}
	r.sentOnce(end())
}

// Workers that start together share the accounts at once, without one of them
// taking all first.
func TestWorkersThatStartTogether(t *testing.T) {
	t.Parallel()
	r := newSpreadRig(t, accounts(7)...)
	start := time.Now()
	for range 3 {
		r.start(r.configs(r.accounts...)...)
	}
	t.Logf("shared after %v", r.until(start, "at most three accounts each", r.shared(3)))
	end := r.traffic()
	r.finals(50)
	r.sentOnce(end())
}

// Where workers serve different accounts, none stays unowned as long as somebody
// serves it.
func TestWorkersOfDifferentAccounts(t *testing.T) {
	t.Parallel()
	r := newSpreadRig(t, accounts(5)...)
	end := r.traffic()
	stop := r.start(r.configs(r.accounts[:4]...)...)
	r.start(r.configs(r.accounts[:2]...)...)
	r.start(r.configs(r.accounts[3:]...)...)
	all := func(byWorker map[string][]string) bool {
		n := 0
		for _, owns := range byWorker {
			n += len(owns)
		}
		return n == 5 && len(byWorker) == 3
	}
	t.Logf("all are owned after %v", r.until(time.Now(), "all accounts to be owned", all))
	stop()
	took := r.until(time.Now(), "all but the third to be owned", func(byWorker map[string][]string) bool {
		var owned []string
		for _, owns := range byWorker {
			owned = append(owned, owns...)
		}
		slices.Sort(owned)
		return slices.Equal(owned, []string{r.accounts[0], r.accounts[1], r.accounts[3], r.accounts[4]})
	})
	t.Logf("without the first worker after %v", took)
	r.start(r.configs(r.accounts...)...)
	r.sentOnce(end())
}

// An account that a worker could take but not open goes back to the one that
// gave it up, and is not given up to that worker again.
func TestAccountThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	r := newSpreadRig(t, accounts(2)...)
	end := r.traffic()
	r.start(r.configs(r.accounts...)...)
	r.owned(2)
	broken := r.configs(r.accounts...)
	for i := range broken {
		broken[i].Limits.RecordBytes = 1 << 50 // more than the server can store
	}
	r.start(broken...)
	r.until(time.Now(), "an account to be given up", func(byWorker map[string][]string) bool {
		all := slices.Concat(slices.Collect(maps.Values(byWorker))...)
		return len(byWorker) == 2 && len(all) == 1
	})
	t.Logf("it is back after %v", r.owned(0, 2))
	r.sentOnce(end())
	r.owned(0, 2)
}

// A worker that is told to stop while it gives accounts up stops in order, and
// the other one has everything.
func TestStopWhileAccountsAreGivenUp(t *testing.T) {
	t.Parallel()
	r := newSpreadRig(t, accounts(6)...)
	if err := r.sim.AddRule(simulator.Rule{Delay: simulator.Duration(200 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	end := r.traffic()
	stop := r.start(r.configs(r.accounts...)...)
	r.owned(6)
	r.start(r.configs(r.accounts...)...)
	r.until(time.Now(), "the first account to be given up", func(byWorker map[string][]string) bool {
		n := 0
		for _, owns := range byWorker {
			n += len(owns)
		}
		return len(byWorker) == 2 && n == 5
	})
	expired := r.expiries()
	stop()
	t.Logf("the other one owns all after %v", r.owned(6))
	if n := expired(); n != 0 {
		t.Errorf("%d leases of a worker that stopped ran out: it gave them not up", n)
	}
	r.sentOnce(end())
}
