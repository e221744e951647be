package sender_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// members reads "w1:a,b w2:b".
func members(text string) []queue.Member {
	var out []queue.Member
	for part := range strings.FieldsSeq(text) {
		id, list, _ := strings.Cut(part, ":")
		m := queue.Member{ID: id}
		if list != "" {
			m.Accounts = strings.Split(list, ",")
		}
		out = append(out, m)
	}
	return out
}

func accounts(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint("account-", i)
	}
	return out
}

func TestShare(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		members string
		want    map[string]int
	}{
		{"alone", "w1:a,b,c", map[string]int{"w1": 3}},
		{"one account, two workers", "w1:a w2:a", map[string]int{"w1": 1, "w2": 1}},
		{"seven accounts, two workers", "w1:a,b,c,d,e,f,g w2:a,b,c,d,e,f,g", map[string]int{"w1": 4, "w2": 4}},
		{"seven accounts, three workers", "w1:a,b,c,d,e,f,g w2:a,b,c,d,e,f,g w3:a,b,c,d,e,f,g", map[string]int{"w1": 3, "w2": 3, "w3": 3}},
		{"as many workers as accounts: no rounding error", "w1:a,b,c w2:a,b,c w3:a,b,c", map[string]int{"w1": 1, "w2": 1, "w3": 1}},
		{"an account that only one serves counts as a whole", "w1:a,b w2:b", map[string]int{"w1": 2, "w2": 1}},
		{"nothing in common", "w1:a,b w2:c", map[string]int{"w1": 2, "w2": 1}},
		{"one that can serve nothing", "w1:a,b w2:", map[string]int{"w1": 2, "w2": 0}},
		{"not alive", "w1:a", map[string]int{"w2": 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for worker, want := range tt.want {
				if got := (sender.Reading{Members: members(tt.members)}).Share(worker); got != want {
					t.Errorf("share of %s: got %d, want %d", worker, got, want)
				}
			}
		})
	}
	for n := 1; n <= 60; n++ {
		var all []queue.Member
		for m := 1; m <= 60; m++ {
			all = append(all, queue.Member{ID: strconv.Itoa(m), Accounts: accounts(n)})
			if got, want := (sender.Reading{Members: all}).Share("1"), (n+m-1)/m; got != want {
				t.Errorf("%d accounts, %d workers: share %d, want %d", n, m, got, want)
			}
		}
	}
}

// One worker's decisions, w1's, who serves a to d unless told otherwise. The
// reading before is the same, an age ago.
func TestDecide(t *testing.T) {
	t.Parallel()
	const two = "w1:a,b,c,d w2:a,b,c,d"
	for _, tt := range []struct {
		name    string
		members string
		holders map[string]string
		mine    map[string]bool
		age     time.Duration
		want    sender.Plan // take and rescue in the order of the alphabet
	}{
		{name: "alone it takes all", members: "w1:a,b,c,d", want: sender.Plan{Take: []string{"a", "b", "c", "d"}}},
		{
			name: "only what is free", members: "w1:a,b,c,d w2:a,b,c,d",
			holders: map[string]string{"a": "w2", "b": "w2"}, want: sender.Plan{Take: []string{"c", "d"}},
		},
		{
			name: "what another has room for it leaves, beyond its share", members: two,
			holders: map[string]string{"a": "w1", "b": "w1", "c": "w2"}, mine: map[string]bool{"a": true, "b": true},
		},
		{
			name: "what it is about to take counts", members: two,
			holders: map[string]string{"c": "w2"}, mine: map[string]bool{"a": false, "b": false},
		},
		{
			name: "what nobody else has room for it takes beyond its share: the owner died", members: two,
			holders: map[string]string{"a": "w1", "b": "w1", "c": "w2", "e": "w2"}, mine: map[string]bool{"a": true, "b": true},
			want: sender.Plan{Take: []string{"d"}},
		},
		{
			name: "what nobody else serves it takes beyond its share", members: "w1:a,b,c,d w2:a w3:a,b w4:a,b,c",
			holders: map[string]string{"a": "w1", "b": "w1", "c": "w1"}, mine: map[string]bool{"a": true, "b": true, "c": true},
			want: sender.Plan{Take: []string{"d"}},
		},
		{
			name: "what nobody took for long it takes, and says so", members: two, age: sender.FreeTooLong,
			holders: map[string]string{"a": "w1", "b": "w1", "c": "w2"}, mine: map[string]bool{"a": true, "b": true},
			want: sender.Plan{Take: []string{"d"}, Rescue: []string{"d"}},
		},
		{
			name: "beyond its share it gives one up for another with room", members: two, age: sender.SteadyAfter,
			holders: map[string]string{"a": "w1", "b": "w1", "c": "w1", "d": "w2"}, mine: map[string]bool{"a": true, "b": true, "c": true},
			want: sender.Plan{Give: "one"},
		},
		{
			name: "not while workers come and go", members: two, age: sender.SteadyAfter - 1,
			holders: map[string]string{"a": "w1", "b": "w1", "c": "w1", "d": "w2"}, mine: map[string]bool{"a": true, "b": true, "c": true},
		},
		{
			name: "not while one that was given up is free", members: two, age: sender.SteadyAfter,
			holders: map[string]string{"a": "w1", "b": "w1", "c": "w1"}, mine: map[string]bool{"a": true, "b": true, "c": true},
		},
		{
			name: "not one that is still being opened", members: "w1:a,b,c,d w2:a,b", age: sender.SteadyAfter,
			holders: map[string]string{"a": "w1", "b": "w1", "c": "w1", "d": "w1"}, mine: map[string]bool{"a": false, "b": false, "c": true, "d": true},
		},
		{
			name: "not to a worker that does not serve it", members: "w1:a,b,c,d w2:a,b", age: sender.SteadyAfter,
			holders: map[string]string{"a": "w2", "b": "w1", "c": "w1", "d": "w1"}, mine: map[string]bool{"b": true, "c": true, "d": true},
		},
		{
			name: "one account, two workers: no handing back and forth", members: "w1:a w2:a", age: time.Hour,
			holders: map[string]string{"a": "w1", "b": "w2", "c": "w2", "d": "w2"}, mine: map[string]bool{"a": true},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := sender.NewBalance("w1", []string{"a", "b", "c", "d"})
			r := sender.Reading{Members: members(tt.members), Holders: tt.holders}
			start := time.Now()
			b.Decide(r, tt.mine, start)
			got := b.Decide(r, tt.mine, start.Add(tt.age))
			slices.Sort(got.Take)
			if !slices.Equal(got.Take, tt.want.Take) || !slices.Equal(got.Rescue, tt.want.Rescue) {
				t.Errorf("take %v, rescue %v; want %v and %v", got.Take, got.Rescue, tt.want.Take, tt.want.Rescue)
			}
			if (got.Give == "") != (tt.want.Give == "") || got.Give != "" && !tt.mine[got.Give] {
				t.Errorf("gives up %q, want %q", got.Give, tt.want.Give)
			}
		})
	}
}

// A worker that had to take back what it gave up keeps what it has for a while.
func TestNothingIsGivenUpInVainTwice(t *testing.T) {
	t.Parallel()
	b := sender.NewBalance("w1", []string{"a", "b"})
	reading := func(holders map[string]string) sender.Reading {
		return sender.Reading{Members: members("w1:a,b w2:a,b"), Holders: holders}
	}
	both := reading(map[string]string{"a": "w1", "b": "w1"})
	all := map[string]bool{"a": true, "b": true}
	now := time.Now()
	b.Decide(both, all, now)
	now = now.Add(sender.SteadyAfter)
	given := b.Decide(both, all, now).Give
	if given == "" {
		t.Fatal("nothing is given up although another worker has nothing")
	}
	kept := map[string]string{"a": "w1", "b": "w1"}
	delete(kept, given)
	mine := map[string]bool{"a": true, "b": true}
	delete(mine, given)
	if p := b.Decide(reading(kept), mine, now); p.Take != nil {
		t.Errorf("it takes %v back at once", p.Take)
	}
	now = now.Add(sender.FreeTooLong)
	if p := b.Decide(reading(kept), mine, now); !slices.Equal(p.Take, []string{given}) {
		t.Errorf("it takes %v, want %s that nobody took", p.Take, given)
	}
	now = now.Add(sender.KeepAfterRescue - 1)
	if p := b.Decide(both, all, now); p.Give != "" {
		t.Errorf("%s is given up, want nothing so soon", p.Give)
	}
	now = now.Add(1)
	if p := b.Decide(both, all, now); p.Give == "" {
		t.Error("nothing is ever given up again")
	}
}

// crowd is workers that share leases, in steps of one look each.
type crowd struct {
	t       *testing.T
	random  *rand.Rand
	now     time.Time
	holders map[string]string
	workers map[string]*crowdWorker
	moves   int
}

type crowdWorker struct {
	accounts []string
	balance  sender.Balance
	mine     map[string]bool
	dead     int // steps since it died; 0: it lives
}

// Steps after which what a dead worker left runs out.
const (
	memberSteps = int(queue.MemberTTL/sender.LookEvery) + 1
	leaseSteps  = int(queue.LeaseTTL/sender.LookEvery) + 1
)

func (c *crowd) join(id string, accounts []string) {
	c.workers[id] = &crowdWorker{accounts: accounts, balance: sender.NewBalance(id, accounts), mine: make(map[string]bool)}
}

func (c *crowd) reading() sender.Reading {
	r := sender.Reading{Holders: maps.Clone(c.holders)}
	for id, w := range c.workers {
		if w.dead < memberSteps {
			r.Members = append(r.Members, queue.Member{ID: id, Accounts: w.accounts})
		}
	}
	return r
}

// step has every worker look once, in any order; some see what was a step ago.
func (c *crowd) step() {
	c.now = c.now.Add(sender.LookEvery)
	old := c.reading()
	ids := slices.Sorted(maps.Keys(c.workers))
	c.random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		w := c.workers[id]
		if w.dead > 0 {
			if w.dead++; w.dead > leaseSteps {
				maps.DeleteFunc(c.holders, func(_, holder string) bool { return holder == id })
				delete(c.workers, id)
			}
			continue
		}
		for account := range w.mine {
			w.mine[account] = true // what it took with its last look is at work
		}
		seen := old
		if c.random.IntN(3) > 0 {
			seen = c.reading()
		}
		p := w.balance.Decide(seen, w.mine, c.now)
		for _, account := range p.Take {
			if c.holders[account] == "" {
				c.holders[account], w.mine[account] = id, false
				c.moves++
			}
		}
		if p.Give != "" {
			delete(c.holders, p.Give)
			delete(w.mine, p.Give)
		}
	}
}

// settle steps until nothing moves any more and tells how long that took.
func (c *crowd) settle() time.Duration {
	c.t.Helper()
	start, still := c.now, 0
	for still < 60 {
		before := maps.Clone(c.holders)
		c.step()
		if still++; !maps.Equal(before, c.holders) {
			still = 0
		}
		if c.now.Sub(start) > 10*time.Minute {
			c.t.Fatalf("accounts still move: %v", c.holders)
		}
	}
	return c.now.Sub(start) - 60*sender.LookEvery
}

// Whatever workers come and go: all accounts are owned, none has more than its
// share where all serve the same, and then nothing moves any more.
func TestCrowdSettles(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		c := &crowd{
			t: t, random: rand.New(rand.NewPCG(seed, 0)), now: time.Now(),
			holders: make(map[string]string), workers: make(map[string]*crowdWorker),
		}
		all := accounts(1 + c.random.IntN(12))
		alike := seed%2 == 0
		list := func() []string {
			if alike {
				return all
			}
			return slices.DeleteFunc(slices.Clone(all), func(string) bool { return c.random.IntN(3) == 0 })
		}
		serial := 0
		for range 6 {
			for range c.random.IntN(3) {
				serial++
				c.join(fmt.Sprint("w", serial), list())
			}
			for _, w := range c.workers {
				if c.random.IntN(4) == 0 && w.dead == 0 {
					w.dead = 1
				}
			}
			took := c.settle()
			if took > 30*time.Second {
				t.Errorf("seed %d: settled after %v", seed, took)
			}
			c.check(seed, alike, all)
		}
	}
}

func (c *crowd) check(seed uint64, alike bool, all []string) {
	c.t.Helper()
	owned := make(map[string]int)
	served := make(map[string]bool)
	for id, w := range c.workers {
		for _, account := range w.accounts {
			served[account] = true
		}
		owned[id] = 0
	}
	for _, account := range all {
		holder := c.holders[account]
		if served[account] && holder == "" {
			c.t.Errorf("seed %d: %s is owned by nobody", seed, account)
		}
		if holder != "" {
			owned[holder]++
		}
	}
	if !alike || len(c.workers) == 0 {
		return
	}
	limit := (len(all) + len(c.workers) - 1) / len(c.workers)
	for id, n := range owned {
		if n > limit {
			c.t.Errorf("seed %d: %s owns %d of %d accounts, want at most %d with %d workers", seed, id, n, len(all), limit, len(c.workers))
		}
	}
}
