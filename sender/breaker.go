package sender

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

// BreakerConfig tunes the breakers of one account. Zero values mean the defaults.
type BreakerConfig struct {
	// ChannelFaults in a row open a channel's breaker; default 5.
	ChannelFaults int
	// FamilyFaults in a row, of two channels or more, open a family's breaker;
	// default 10. A success of any channel starts the count anew.
	FamilyFaults int
	// TransportFaults in a row, failures on the way to the vendor before any
	// answer, open a family's breaker; default 5.
	TransportFaults int
	// OpenFor is how long a breaker stays open the first time; default 5 s. Each
	// failed probe doubles it up to OpenMax; default 5 min. A probe of sends is a
	// real message whose fate may become unknown, so failing ones get rarer.
	OpenFor time.Duration
	OpenMax time.Duration
	// Probes that must succeed in a row to close a breaker, and may run at once;
	// default 1.
	Probes int
	// ProbeWait is when to ask again while all probes are under way; default 1 s.
	ProbeWait time.Duration
}

func (c BreakerConfig) withDefaults() BreakerConfig {
	orDefault(&c.ChannelFaults, 5)
	orDefault(&c.FamilyFaults, 10)
	orDefault(&c.TransportFaults, 5)
	orDefault(&c.OpenFor, 5*time.Second)
	orDefault(&c.OpenMax, 5*time.Minute)
	orDefault(&c.Probes, 1)
	orDefault(&c.ProbeWait, time.Second)
	c.OpenMax = max(c.OpenMax, c.OpenFor)
	return c
}

func orDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// BreakerChange tells that a breaker opened, opened again after a failed probe, or
// closed. That it lets probes through is not told.
type BreakerChange struct {
	Family  Family
	Channel string // "" = the family's own breaker
	Open    bool
	Again   bool      // it was open before, and a probe failed
	At      time.Time // now
	RetryAt time.Time // of one that opens: when probes begin
}

// Breakers guards the vendor's endpoints for one account: one breaker a family,
// and one for each channel that has had a fault. They count only faults of the
// vendor and of the way to it (see BreakerEffect), never a refusal of a message.
//
// A channel's breaker opens first. A family's opens only on faults of two
// channels or more, or where calls fail on the way before any answer, so that
// one broken channel stops nobody else.
//
// Methods may be called from any goroutine. There are no timers and no
// goroutines: an open breaker becomes half-open when it is next asked.
type Breakers struct {
	cfg      BreakerConfig
	onChange func(BreakerChange)

	open atomic.Int64 // breakers that are not closed

	mu       sync.Mutex
	families map[Family]*breaker
	channels map[breakerKey]*breaker // only those with faults since their last success
	changes  []BreakerChange         // of the call under way
}

type breakerKey struct {
	family  Family
	channel string
}

// breaker adds to gobreaker what it lacks: how long it stays open may grow, and
// everybody who is refused learns when to come back.
type breaker struct {
	key     breakerKey
	cb      *gobreaker.TwoStepCircuitBreaker[struct{}]
	state   gobreaker.State // as last told by gobreaker
	opensAt time.Time       // of an open one: when probes begin
	opened  int             // times in a row, each doubling the wait
	since   time.Time       // of one that is not closed: when it opened first
	forced  bool            // it opens at the next fault, whatever it has counted

	// Of a family, since its last success.
	transport int                 // failures before any answer
	failing   map[string]struct{} // channels that had faults
}

var (
	errBreakerFault    = errors.New("fault")
	errBreakerExcluded = errors.New("says nothing")
)

// NewBreakers returns closed breakers. onChange is called by the goroutine whose
// Allow or done caused the change, after the breakers' own lock is released: it
// may call them, but must not take a lock that its goroutine holds. nil means
// that nobody wants to know.
func NewBreakers(cfg BreakerConfig, onChange func(BreakerChange)) *Breakers {
	b := &Breakers{
		cfg:      cfg.withDefaults(),
		onChange: onChange,
		families: make(map[Family]*breaker),
		channels: make(map[breakerKey]*breaker),
	}
	for _, family := range Families() {
		b.families[family] = b.newBreaker(breakerKey{family: family})
	}
	return b
}

func (b *Breakers) newBreaker(key breakerKey) *breaker {
	e := &breaker{key: key, state: gobreaker.StateClosed}
	e.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:   uint32(b.cfg.Probes), //nolint:gosec // a small number
		Timeout:       b.cfg.OpenFor,        // the wait beyond it is kept in opensAt
		ReadyToTrip:   func(counts gobreaker.Counts) bool { return b.trips(e, counts) },
		IsExcluded:    func(err error) bool { return errors.Is(err, errBreakerExcluded) },
		OnStateChange: func(_ string, _, to gobreaker.State) { b.moved(e, to) },
	})
	if key.channel == "" {
		e.failing = make(map[string]struct{})
	}
	return e
}

func (b *Breakers) trips(e *breaker, counts gobreaker.Counts) bool {
	if e.forced {
		return true
	}
	faults := int(counts.ConsecutiveFailures)
	if e.key.channel != "" {
		return faults >= b.cfg.ChannelFaults
	}
	return e.transport >= b.cfg.TransportFaults || len(e.failing) >= 2 && faults >= b.cfg.FamilyFaults
}

// moved is called by gobreaker, under our lock.
func (b *Breakers) moved(e *breaker, to gobreaker.State) {
	from := e.state
	e.state = to
	if from == gobreaker.StateClosed {
		e.since = time.Now()
		b.open.Add(1)
	} else if to == gobreaker.StateClosed {
		b.open.Add(-1)
	}
	e.forget()
	change := BreakerChange{Family: e.key.family, Channel: e.key.channel, At: time.Now()}
	switch to {
	case gobreaker.StateHalfOpen:
		return
	case gobreaker.StateClosed:
		e.opened = 0
	case gobreaker.StateOpen:
		if e.opened == 0 {
			e.since = change.At
		}
		wait := b.cfg.OpenFor
		for range e.opened {
			wait = min(2*wait, b.cfg.OpenMax)
		}
		e.opened++
		// gobreaker turns half-open strictly after its timeout: a moment more, so
		// that whoever comes at the very time is let through.
		e.opensAt = change.At.Add(wait + time.Nanosecond)
		change.Open, change.RetryAt = true, e.opensAt
		change.Again = from == gobreaker.StateHalfOpen
	}
	b.changes = append(b.changes, change)
}

// forget starts a family's counts anew.
func (e *breaker) forget() {
	e.transport = 0
	clear(e.failing)
}

// Allow asks for one call; channelID is "" where the family has no channels. If
// ok, done must be called exactly once, whatever happens: a breaker that waits
// for a probe's outcome lets nothing else through. called tells whether the call
// was made (false: it expired, or the worker stops), and v what came of it; done
// may be called from any goroutine, and a second time does nothing.
//
// If not ok, nothing is held, and retryAt says when to ask again: until then the
// answer stays the same, so the caller need not pull or poll.
func (b *Breakers) Allow(family Family, channelID string) (done func(called bool, v Verdict), retryAt time.Time, ok bool) {
	b.mu.Lock()
	defer b.unlockAndTell()
	now := time.Now()

	// The channel first, so that a broken channel never takes a family's probe.
	var channelDone func(error)
	key := breakerKey{family, channelID}
	channel := b.channels[key]
	if channel != nil {
		channelDone, retryAt, ok = b.enter(channel, now)
		if !ok {
			return nil, retryAt, false
		}
	}
	familyDone, retryAt, ok := b.enter(b.families[family], now)
	if !ok {
		if channelDone != nil {
			channelDone(errBreakerExcluded)
		}
		return nil, retryAt, false
	}
	reported := false
	return func(called bool, v Verdict) {
		b.mu.Lock()
		defer b.unlockAndTell()
		if reported {
			return
		}
		reported = true
		effect := v.Breaker
		if !called {
			effect = BreakerNothing
		}
		if channelID == "" && effect == BreakerChannel {
			effect = BreakerFamily
		}
		b.reportFamily(b.families[family], channelID, familyDone, effect)
		if b.channels[key] != channel {
			channelDone = nil // that breaker is gone
		}
		b.reportChannel(key, channelDone, effect)
	}, time.Time{}, true
}

// Blocked reports whether Allow would refuse now, and until when, without asking
// for a call. It costs next to nothing while all breakers are closed.
func (b *Breakers) Blocked(family Family, channelID string) (retryAt time.Time, blocked bool) {
	if b.open.Load() == 0 {
		return time.Time{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, e := range []*breaker{b.channels[breakerKey{family, channelID}], b.families[family]} {
		if e != nil && e.state == gobreaker.StateOpen && now.Before(e.opensAt) {
			return e.opensAt, true
		}
		if e != nil && e.state == gobreaker.StateHalfOpen && b.probing(e) {
			return now.Add(b.cfg.ProbeWait), true
		}
	}
	return time.Time{}, false
}

// Since is when a breaker opened that refuses a channel's calls; zero: none does.
func (b *Breakers) Since(family Family, channelID string) (since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range []*breaker{b.families[family], b.channels[breakerKey{family, channelID}]} {
		if e != nil && e.state != gobreaker.StateClosed {
			since = e.since
		}
	}
	return since
}

// Broken lists the breakers that are not closed, so that the next owner can restore
// them.
func (b *Breakers) Broken() (all []queue.Broken) {
	if b.open.Load() == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	note := func(e *breaker) {
		if e.state != gobreaker.StateClosed {
			all = append(all, queue.Broken{Family: string(e.key.family), Channel: e.key.channel, Since: millis(e.since), Times: e.opened})
		}
	}
	for _, family := range Families() {
		note(b.families[family])
	}
	for _, e := range b.channels {
		note(e)
	}
	return all
}

// Restore opens a breaker that was open when a former owner ended, without telling
// it: what it counted there need not be met again. Its probes begin after the first
// wait, since this worker may have another way to the vendor; when they fail, the
// waits go on from where they were.
func (b *Breakers) Restore(was queue.Broken) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := breakerKey{Family(was.Family), was.Channel}
	e := b.families[key.family]
	if e == nil {
		return // of a later version's
	}
	if key.channel != "" {
		if e = b.channels[key]; e == nil {
			e = b.newBreaker(key)
			b.channels[key] = e
		}
	}
	if e.state != gobreaker.StateClosed {
		return
	}
	if done, err := e.cb.Allow(); err == nil {
		e.forced = true
		done(errBreakerFault)
		e.forced = false
	}
	b.changes = nil
	e.opened, e.since = max(was.Times, 1), timeOf(was.Since)
}

// Opened reports whether a breaker of the channel's calls is open, so that what was
// allowed before it opened and has not begun must ask anew.
func (b *Breakers) Opened(family Family, channelID string) bool {
	if b.open.Load() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	channel := b.channels[breakerKey{family, channelID}]
	return b.families[family].state == gobreaker.StateOpen || channel != nil && channel.state == gobreaker.StateOpen
}

// ChannelClosed reports whether nothing but the family's own breaker can refuse a
// channel's call.
func (b *Breakers) ChannelClosed(family Family, channelID string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.channels[breakerKey{family, channelID}]
	return e == nil || e.state == gobreaker.StateClosed
}

func (b *Breakers) probing(e *breaker) bool {
	counts := e.cb.Counts()
	return int(counts.Requests)-int(counts.TotalExclusions) >= b.cfg.Probes
}

// enter asks one breaker. An open one is not even asked before its time, since
// gobreaker's own timeout may be over long before.
func (b *Breakers) enter(e *breaker, now time.Time) (done func(error), retryAt time.Time, ok bool) {
	if e.state == gobreaker.StateOpen && now.Before(e.opensAt) {
		return nil, e.opensAt, false
	}
	done, err := e.cb.Allow()
	if err != nil { // half-open, and all probes are under way
		return nil, now.Add(b.cfg.ProbeWait), false
	}
	return done, time.Time{}, true
}

func (b *Breakers) reportFamily(e *breaker, channelID string, done func(error), effect BreakerEffect) {
	if e.state == gobreaker.StateOpen {
		return // of a call that began before: it changes nothing, and asking gobreaker could
	}
	switch effect {
	case BreakerNothing:
		done(errBreakerExcluded)
	case BreakerHealthy:
		e.forget()
		done(nil)
	case BreakerFamily:
		e.transport++
		done(errBreakerFault)
	case BreakerChannel:
		e.failing[channelID] = struct{}{}
		if e.state == gobreaker.StateHalfOpen && len(e.failing) < 2 {
			// One channel's fault is no verdict on the family: another probes.
			done(errBreakerExcluded)
			return
		}
		done(errBreakerFault)
	}
}

func (b *Breakers) reportChannel(key breakerKey, done func(error), effect BreakerEffect) {
	if key.channel == "" {
		return
	}
	e := b.channels[key]
	if e != nil && e.state == gobreaker.StateOpen {
		return
	}
	if effect == BreakerChannel && done == nil {
		// The channel had no breaker when the call began.
		if e == nil {
			e = b.newBreaker(key)
			b.channels[key] = e
		}
		if e.state == gobreaker.StateClosed {
			done, _ = e.cb.Allow() // closed, so never refused
		}
	}
	if e == nil || done == nil {
		return
	}
	switch effect {
	case BreakerNothing, BreakerFamily:
		done(errBreakerExcluded)
	case BreakerHealthy:
		done(nil)
		if e.state == gobreaker.StateClosed {
			delete(b.channels, key) // nothing is known against it any more
		}
	case BreakerChannel:
		done(errBreakerFault)
	}
}

// unlockAndTell releases the lock and tells what changed under it.
func (b *Breakers) unlockAndTell() {
	changes := b.changes
	b.changes = nil
	b.mu.Unlock()
	if b.onChange == nil {
		return
	}
	for _, change := range changes {
		b.onChange(change)
	}
}

// count adds the breakers that are not closed, by family and kind.
func (b *Breakers) count(open map[breakerLabels]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for family, e := range b.families {
		if e.state != gobreaker.StateClosed {
			open[breakerLabels{family, breakerOfFamily}]++
		}
	}
	for key, e := range b.channels {
		if e.state != gobreaker.StateClosed {
			open[breakerLabels{key.family, breakerOfChannel}]++
		}
	}
}
