package sender

import (
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

// Reading is what a worker saw of the others, for tests of what it makes of it.
type Reading struct {
	Members []queue.Member
	Holders map[string]string
}

// Share is how many accounts a worker should own at most.
func (r Reading) Share(worker string) int {
	return newCensus("", nil, r.Members, r.Holders).share(worker)
}

// Plan opens what a worker decides to tests.
type Plan struct {
	Take, Rescue []string
	Give         string
}

// Balance opens a worker's decisions to tests.
type Balance struct {
	self     string
	accounts []string
	b        *balance
}

func NewBalance(self string, accounts []string) Balance {
	return Balance{self, accounts, newBalance(self, accounts)}
}

func (b Balance) Decide(r Reading, mine map[string]bool, now time.Time) Plan {
	p := b.b.decide(newCensus(b.self, b.accounts, r.Members, r.Holders), mine, now)
	return Plan{p.take, p.rescue, p.give}
}

// Timing of the spread.
const (
	SteadyAfter     = steadyAfter
	FreeTooLong     = freeTooLong
	KeepAfterRescue = keepAfterRescue
	LookEvery       = lookEvery
)
