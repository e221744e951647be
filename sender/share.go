package sender

import (
	"cmp"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

// Patience of the balance between workers.
const (
	// steadyAfter is how long the same workers must have been alive before one of
	// them gives anything up for another.
	steadyAfter = time.Second
	// freeTooLong: whoever was to take this account does not.
	freeTooLong = 2 * queue.LeaseTTL
	// keepAfterRescue is how long nothing is given up after that.
	keepAfterRescue = 5 * time.Minute
)

// census is one reading of who is alive and who owns what.
type census struct {
	self    string
	serves  map[string][]string // by living worker, this one included: the accounts that it can serve
	holders map[string]string   // by account: the worker that has its lease; a free one is left out

	servers map[string]int // by account: how many living workers can serve it
	owned   map[string]int // by worker
}

func newCensus(self string, accounts []string, others []queue.Member, holders map[string]string) *census {
	c := &census{
		self: self, serves: map[string][]string{self: accounts}, holders: holders,
		servers: make(map[string]int), owned: make(map[string]int),
	}
	for _, m := range others {
		if m.ID != self {
			c.serves[m.ID] = m.Accounts
		}
	}
	for _, list := range c.serves {
		for _, account := range list {
			c.servers[account]++
		}
	}
	for _, worker := range holders {
		c.owned[worker]++
	}
	return c
}

// share is how many accounts a worker should own at most: each account counts as
// the part of it that is left to one of its workers. Where all workers serve the
// same accounts, it is their number divided by that of the workers, rounded up.
func (c *census) share(worker string) int {
	sum := 0.0
	for _, account := range c.serves[worker] {
		sum += 1 / float64(c.servers[account])
	}
	return int(math.Ceil(sum - 1e-9)) // seven sevenths are one
}

// heir reports whether another worker that can serve the account is below its
// share, and so will take it if it is free.
func (c *census) heir(account string) bool {
	for worker, accounts := range c.serves {
		if worker != c.self && c.owned[worker] < c.share(worker) && slices.Contains(accounts, account) {
			return true
		}
	}
	return false
}

// balance decides what a worker takes and gives up, from one reading to the next.
type balance struct {
	self     string
	accounts []string // that this worker is configured to serve, best liked first

	serves    map[string][]string  // of the last reading
	since     time.Time            // these workers have been the same
	freeSince map[string]time.Time // accounts that are free
	keepUntil time.Time            // nothing is given up before
}

func newBalance(self string, accounts []string) *balance {
	b := &balance{self: self, freeSince: make(map[string]time.Time)}
	b.serve(accounts)
	return b
}

// serve takes in which accounts this worker is configured to serve. It orders them
// differently for each worker, so that workers that start together do not all
// reach for the same ones, and each gives up first what it would take last.
func (b *balance) serve(accounts []string) {
	liking := func(account string) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(b.self + " " + account)) // never fails
		return h.Sum64()
	}
	b.accounts = slices.SortedFunc(slices.Values(accounts), func(a, b string) int { return cmp.Compare(liking(a), liking(b)) })
	maps.DeleteFunc(b.freeSince, func(account string, _ time.Time) bool { return !slices.Contains(accounts, account) })
}

// plan is what a worker does after a reading.
type plan struct {
	take   []string // free accounts to take
	rescue []string // of them, those that nobody else took, though there was room
	give   string   // one that is owned here, for another worker; "" = none
}

// decide makes a plan. mine are the accounts that this worker has taken, true
// where it is at work already.
//
// It takes what is free as long as it is below its share, and beyond it what
// nobody else would take: an account that others cannot serve, or whose owner
// just died, when the others have their share too. What it owns beyond its share
// it gives up, one account at a time, if another worker has room for it. So
// every move brings two workers closer to their shares, and none goes back.
func (b *balance) decide(c *census, mine map[string]bool, now time.Time) plan {
	b.observe(c, mine, now)
	owned, share := b.owned(c, mine), c.share(c.self)
	var p plan
	for _, account := range b.accounts {
		since, free := b.freeSince[account]
		if !free {
			continue
		}
		if owned >= share && c.heir(account) {
			if now.Sub(since) < freeTooLong {
				continue
			}
			p.rescue = append(p.rescue, account)
			b.keepUntil = now.Add(keepAfterRescue)
		}
		p.take = append(p.take, account)
		owned++
	}
	if owned > share && len(b.freeSince) == 0 && now.Sub(b.since) >= steadyAfter && !now.Before(b.keepUntil) {
		p.give = b.leastLiked(c, mine)
	}
	return p
}

// observe notes since when things are as they are.
func (b *balance) observe(c *census, mine map[string]bool, now time.Time) {
	if b.since.IsZero() || !maps.EqualFunc(b.serves, c.serves, slices.Equal) {
		b.serves, b.since = c.serves, now
	}
	for _, account := range b.accounts {
		_, taken := mine[account]
		_, known := b.freeSince[account]
		switch {
		case taken || c.holders[account] != "":
			delete(b.freeSince, account)
		case !known:
			b.freeSince[account] = now
		}
	}
}

// owned counts what this worker has taken, whether the reading shows it or not,
// and a lease of its own that has not run out yet.
func (b *balance) owned(c *census, mine map[string]bool) int {
	n := 0
	for _, account := range b.accounts {
		if _, taken := mine[account]; taken || c.holders[account] == c.self {
			n++
		}
	}
	return n
}

func (b *balance) leastLiked(c *census, mine map[string]bool) string {
	for _, account := range slices.Backward(b.accounts) {
		if mine[account] && c.heir(account) {
			return account
		}
	}
	return ""
}
