package sender

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

// Timing of the spread of accounts over workers.
const (
	// lookEvery is how often a worker reads who is alive and which leases are
	// free. An owner that leaves in order is noticed within that; one that died,
	// when its lease is over.
	lookEvery   = 250 * time.Millisecond
	lookTimeout = 2 * time.Second // for each of its parts
	// joinWait is how long a worker of several accounts looks around before it
	// takes the first, so that workers that start together, or meet again after
	// NATS was away, share them at once.
	joinWait = 500 * time.Millisecond
	// shunAfterFailure is how long an account that could not be opened here is
	// not offered to be served, so that no other worker gives it up in vain.
	shunAfterFailure = time.Minute
)

var (
	// errNotRead: it is not known yet which leases are free.
	errNotRead = errors.New("leases were not read yet")
	// errGivenUp ends an ownership in order, for the sake of another worker.
	errGivenUp = errors.New("given up for another worker")
)

// spread keeps this worker's place among the others that are alive: it announces
// it, follows what they own, and says which accounts are to be taken and given
// up here.
type spread struct {
	id       string
	js       jetstream.JetStream
	replicas int
	log      zerolog.Logger

	// Owned by the goroutine of attend.
	members   *queue.Members // nil: not open
	announced []string
	renewed   time.Time // when it was last announced
	joined    time.Time // since when it has been without a failure; zero: there was one
	listed    time.Time // when the members were last read
	balance   *balance

	mu      sync.Mutex
	served  []string      // accounts that this worker is configured to serve
	leases  *queue.Leases // nil: not open
	able    map[string]bool
	shunned map[string]time.Time // by account that could not be opened: until when
	takes   map[string]bool      // free accounts that are to be taken here
	mine    map[string]*owner    // what was taken; nil: it is being opened or closed
	fault   error                // of the last reading
	news    chan struct{}        // closed with each reading
}

func newSpread(js jetstream.JetStream, name string, accounts []string, replicas int, log zerolog.Logger) *spread {
	id := queue.WorkerID(name)
	return &spread{
		id: id, js: js, replicas: replicas, log: log.With().Str("worker", id).Logger(),
		balance: newBalance(id, accounts), served: accounts,
		able: make(map[string]bool), shunned: make(map[string]time.Time),
		mine: make(map[string]*owner), fault: errNotRead, news: make(chan struct{}),
	}
}

// attend looks around again and again until ctx ends; then the others learn at
// once that this worker leaves.
func (s *spread) attend(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		s.tell(s.look(ctx))
		select {
		case <-ctx.Done():
			s.leave()
			return
		case <-ticker.C:
		}
	}
}

// look announces this worker, reads who is alive and who owns what, and makes
// the plan.
func (s *spread) look(ctx context.Context) error {
	if !s.js.Conn().IsConnected() {
		return errors.New("NATS is not connected")
	}
	s.balance.serve(s.configured())
	leases, err := s.open(ctx)
	if err != nil {
		return err
	}
	// A list that cannot be read for long is taken as empty: what is free must
	// not stay so because of it.
	others, err := s.meet(ctx)
	if err != nil {
		s.joined = time.Time{}
		if time.Since(s.listed) < freeTooLong {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	holders, err := leases.Holders(ctx, s.accounts(others))
	if err != nil {
		return err
	}
	s.act(newCensus(s.id, s.announced, others, holders), time.Now())
	return nil
}

// open opens the buckets, again after a reading that failed: a server may have
// come back without them.
func (s *spread) open(ctx context.Context) (*queue.Leases, error) {
	s.mu.Lock()
	leases, failed := s.leases, s.fault != nil
	s.mu.Unlock()
	if leases != nil && s.members != nil && !failed {
		return leases, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	members, err := queue.OpenMembers(ctx, s.js, s.replicas)
	if err != nil {
		return nil, err
	}
	if leases, err = queue.OpenLeases(ctx, s.js, s.id, s.replicas); err != nil {
		return nil, err
	}
	s.members = members
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases = leases
	return leases, nil
}

// meet announces this worker when it is time, and reads who else is alive.
func (s *spread) meet(ctx context.Context) ([]queue.Member, error) {
	now := time.Now()
	if s.listed.IsZero() {
		s.listed = now
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	can := s.canServe(now)
	if now.Sub(s.renewed) >= queue.MemberRenew-lookEvery/2 || !slices.Equal(can, s.announced) {
		if err := s.members.Announce(ctx, queue.Member{ID: s.id, Accounts: can}); err != nil {
			return nil, err
		}
		s.announced, s.renewed = can, now
		if s.joined.IsZero() {
			s.joined = now
		}
	}
	others, err := s.members.List(ctx)
	if err != nil {
		return nil, err
	}
	s.listed = time.Now()
	return others, nil
}

// canServe lists the accounts whose streams are there and which could be opened
// when it was last tried.
func (s *spread) canServe(now time.Time) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var can []string
	for account, able := range s.able {
		if able && !now.Before(s.shunned[account]) {
			can = append(can, account)
		}
	}
	slices.Sort(can)
	return can
}

// accounts are all those of this worker and of the others.
func (s *spread) accounts(others []queue.Member) []string {
	all := make(map[string]bool)
	for _, account := range s.balance.accounts {
		all[account] = true
	}
	for _, m := range others {
		for _, account := range m.Accounts {
			all[account] = true
		}
	}
	return slices.Collect(maps.Keys(all))
}

// act carries the plan out: what is to be taken waits for the account's own
// goroutine, and what is given up is told so.
func (s *spread) act(c *census, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := make(map[string]bool, len(s.mine))
	for account, o := range s.mine {
		mine[account] = o != nil
	}
	p := s.balance.decide(c, mine, now)
	s.takes = make(map[string]bool, len(p.take))
	if len(s.balance.accounts) == 1 || now.Sub(s.joined) >= joinWait {
		for _, account := range p.take {
			s.takes[account] = true
		}
	}
	for _, account := range p.rescue {
		s.log.Warn().Str("account", account).Dur("free", now.Sub(s.balance.freeSince[account])).Msg("account_taken_beyond_share")
	}
	if o := s.mine[p.give]; o != nil {
		s.log.Info().Str("account", p.give).Int("owned", len(mine)).Int("share", c.share(s.id)).Int("workers", len(c.serves)).
			Str("why", "another worker owns less than its share").Msg("account_given_up")
		s.mine[p.give] = nil
		o.giveUp()
	}
}

// tell wakes everybody who waits for a reading.
func (s *spread) tell(fault error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
	if fault != nil {
		s.takes = nil
	}
	close(s.news)
	s.news = make(chan struct{})
}

// next is closed with the next reading.
func (s *spread) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.news
}

// begin tells whether a free account is to be taken now; the caller ends it. The
// error is why that is not known.
func (s *spread) begin(account string) (*queue.Leases, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		return nil, fmt.Errorf("take %s: %w", account, s.fault)
	}
	if !s.takes[account] {
		return nil, nil //nolint:nilnil // "not now" is an answer
	}
	delete(s.takes, account)
	s.mine[account] = nil
	return s.leases, nil
}

// serving notes that the account is served here, by this owner; nil: it has
// stopped.
func (s *spread) serving(account string, o *owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mine[account] = o
	if o != nil {
		delete(s.shunned, account)
	}
}

// end notes that the account was let go. One that could not be opened here is
// not offered for a while.
func (s *spread) end(account string, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mine, account)
	if failed {
		s.shunned[account] = time.Now().Add(shunAfterFailure)
	}
}

// offer notes whether the account could be served here.
func (s *spread) offer(account string, able bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.served, account) {
		s.able[account] = able
	}
}

// serve puts another list of accounts in force. One that is not on it any more is
// neither offered nor taken from now on; the others hear of it within a reading.
func (s *spread) serve(accounts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served = accounts
	gone := func(account string) bool { return !slices.Contains(accounts, account) }
	maps.DeleteFunc(s.able, func(account string, _ bool) bool { return gone(account) })
	maps.DeleteFunc(s.takes, func(account string, _ bool) bool { return gone(account) })
	maps.DeleteFunc(s.shunned, func(account string, _ time.Time) bool { return gone(account) })
}

func (s *spread) configured() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

func (s *spread) leave() {
	if s.members == nil || !s.js.Conn().IsConnected() {
		return // it runs out
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	if err := s.members.Leave(ctx, s.id); err != nil {
		s.log.Warn().Err(err).Msg("worker_not_taken_off_the_list")
	}
}
