package sender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
)

// served is one account of a worker, from the configuration that brings it to the
// one that no longer names it.
type served struct {
	name     string
	client   *wazzup.Client
	key      atomic.Pointer[string] // read before each call
	standing atomic.Bool            // owned, or stood by for
	fault    atomic.Pointer[string] // why it is neither; nil: not known
	awaiting atomic.Bool            // owned, and the vendor did not answer when it was last asked, or was not asked yet

	former *served            // of the same name, which may not be given up yet; nil: none
	stop   context.CancelFunc // nil: not started
	ended  chan struct{}      // closed when it is given up

	mu    sync.Mutex // before the owner's
	cfg   Config
	owner *owner // nil: not owned
}

func newServed(cfg Config) (*served, error) {
	a := &served{name: cfg.Account, cfg: cfg, ended: make(chan struct{})}
	a.key.Store(&cfg.APIKey)
	var err error
	a.client, err = wazzup.NewClient(wazzup.Config{
		BaseURL: cfg.APIURL, Key: func() string { return *a.key.Load() }, Timeout: cfg.Timeout,
		Transport: wazzup.NewTransport(wazzup.TransportConfig{Connections: cfg.Concurrency}),
	})
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", cfg.Account, err)
	}
	return a, nil
}

// newAccounts makes what serves each account, but for those that are known, which
// are taken over as they are. The error names every fault.
func newAccounts(cfgs []Config, known []*served) ([]*served, error) {
	accounts := make([]*served, 0, len(cfgs))
	var faults []error
	for _, cfg := range cfgs {
		cfg = cfg.withDefaults()
		if accountNamed(accounts, cfg.Account) != nil {
			faults = append(faults, fmt.Errorf("account %s: is configured twice", cfg.Account))
			continue
		}
		a := accountNamed(known, cfg.Account)
		if a == nil {
			var err error
			if a, err = newServed(cfg); err != nil {
				faults = append(faults, err)
				continue
			}
		}
		accounts = append(accounts, a)
	}
	return accounts, errors.Join(faults...)
}

func accountNamed(accounts []*served, name string) *served {
	i := slices.IndexFunc(accounts, func(a *served) bool { return a.name == name })
	if i < 0 {
		return nil
	}
	return accounts[i]
}

func names(accounts []*served) []string {
	all := make([]string, len(accounts))
	for i, a := range accounts {
		all[i] = a.name
	}
	return all
}

// Changes are what a reload changed, by the accounts' names.
type Changes struct{ Added, Removed, Changed []string }

// Reload puts another set of accounts in place of the present one while the worker
// runs. New accounts are served. Removed ones are given up in order, as when the
// worker stops, and are not offered to the other workers any more. Of the others
// the API key, the rates and the users of the counter take effect at once; the rest of their configuration
// stays as it was. After an error, which names every fault, nothing has changed.
func (w *Worker) Reload(cfgs []Config) (Changes, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	accounts, err := newAccounts(cfgs, w.accounts)
	if err != nil {
		return Changes{}, fmt.Errorf("reload: %w", err)
	}
	var changes Changes
	w.spread.serve(names(accounts))
	for _, a := range w.accounts {
		if accountNamed(accounts, a.name) != nil {
			continue
		}
		changes.Removed = append(changes.Removed, a.name)
		if a.stop != nil {
			a.stop()
			w.leaving[a.name] = a
		}
	}
	for i, a := range accounts {
		if accountNamed(w.accounts, a.name) != nil {
			if a.reload(cfgs[i].withDefaults()) {
				changes.Changed = append(changes.Changed, a.name)
			}
			continue
		}
		changes.Added = append(changes.Added, a.name)
		a.former = w.leaving[a.name]
		if w.start != nil {
			w.start(a)
		}
	}
	w.accounts = accounts
	return changes, nil
}

// config is the configuration that is in force now.
func (a *served) config() Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

// owned makes the owner, which hears of every reload from now on.
func (a *served) owned(make func(Config) *owner) *owner {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.owner = make(a.cfg)
	return a.owner
}

func (a *served) released() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.owner = nil
}

// reload takes over what may change while the account is served, and reports
// whether anything did.
func (a *served) reload(cfg Config) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	newKey := cfg.APIKey != a.cfg.APIKey
	if !newKey && sameRates(&a.cfg, &cfg) && sameUsers(&a.cfg, &cfg) {
		return false
	}
	a.key.Store(&cfg.APIKey)
	a.cfg.APIKey = cfg.APIKey
	a.cfg.takeRates(&cfg)
	a.cfg.CounterUsers = cfg.CounterUsers
	if a.owner != nil {
		a.owner.reload(&cfg, newKey)
	}
	return true
}

// sameUsers reports whether the same counters are followed.
func sameUsers(a, b *Config) bool {
	return slices.EqualFunc(a.CounterUsers, b.CounterUsers, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) })
}

func (c *Config) takeRates(from *Config) {
	c.Rate, c.SendRate, c.BulkRate, c.Channels = from.Rate, from.SendRate, from.BulkRate, from.Channels
}

func sameRates(a, b *Config) bool {
	same := func(a, b *rate.Rate) bool { return a == b || a != nil && b != nil && *a == *b }
	return a.Rate == b.Rate && a.SendRate == b.SendRate && a.BulkRate == b.BulkRate &&
		maps.EqualFunc(a.Channels, b.Channels, func(a, b ChannelConfig) bool {
			return same(a.SendRate, b.SendRate) && same(a.BulkRate, b.BulkRate)
		})
}

// reload puts other rates in force, from the next call on. What the window has
// counted and when each lane may go on is kept.
func (o *owner) reload(cfg *Config, newKey bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.cfg.takeRates(cfg)
	if cfg.Rate != o.window.limit {
		o.window.change(cfg.Rate)
	}
	o.reasons = newReasons(&o.cfg)
	for key, l := range o.lanes {
		if limit := o.cfg.paceOf(key); limit != l.pace.limit {
			o.repace(l, limit, now)
		}
	}
	if newKey {
		o.tryKey()
	}
	o.counters.want(cfg)
	o.pump()
}

// repace puts another pace in force. A lane that waits for its old one stands in
// line again, where the new one is asked.
func (o *owner) repace(l *lane, limit rate.Rate, now time.Time) {
	l.pace.change(limit, now)
	l.paceWhy = paceWhy(limit)
	// A timer that cannot be stopped any more has gone off and waits for the mutex.
	if l.parked != nil && l.parkedAt == gatePace && l.parked.Stop() {
		l.parked = nil
		o.shut(l, now)
		o.offer(l)
	}
	o.fill(l)
}

// tryKey has a new key tried at once where the old one closed the account: what
// the old one met says nothing of it.
func (o *owner) tryKey() {
	if o.closed == nil {
		return
	}
	o.refusals = 0
	o.closed.notBefore = time.Time{}
	o.keepGate(&o.keeper, nil)
	select {
	case o.keys <- struct{}{}:
	default:
	}
}
