package sender

import (
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Shares of the account's window and of its calls in flight. The transactional
// class goes first, and what others leave to it is always free for it. Where it has
// more to do than the account may, the others have their least ahead of it, so that
// they still move.
const (
	otherShare   = 0.8  // for bulk, sync and requests
	otherLeast   = 0.05 // for them, whatever the transactional class takes
	channelShare = 0.25 // of the calls in flight, for one channel while others want them
)

// leastCount is below which a limit is too small to be divided.
const leastCount = 5

// shareOf is what the others may take of a limit, unless they would get nothing.
func shareOf(limit int) int { return max(int(float64(limit)*otherShare), 1) }

// leastOf is what the others may take of a limit in any case.
func leastOf(limit int) int {
	if limit < leastCount {
		return 0
	}
	return max(int(float64(limit)*otherLeast), 1)
}

// closure is why something is closed, since when, and what opens it.
type closure struct {
	code    string
	since   time.Time
	began   time.Time // of the first of several words that closed it
	opensOn string
	probing bool        // it is also opened for a try, after a while
	probe   *time.Timer // until then
	// notBefore: what would open it does so no earlier.
	notBefore time.Time
}

// channelGate is what is known of one channel. Owned by the owner's mutex.
type channelGate struct {
	id       string
	state    string    // the vendor's last word; "" = not known
	learned  time.Time // when
	taken    bool      // a call to it was, by this owner
	closed   *closure
	refusals int // in a row, each doubling the wait before the next try
	flight   int // attempts of all its lanes that hold a slot

	paused map[string]*pause // by class
	spam   []spamMark        // within the window
	// Statuses that were stored no later may be read again after a crash, and mean
	// nothing then: what made the channel brake that a person has resumed, and the last
	// that broke it off.
	forgiven, flooded time.Time
	// opening: that it opens is being stored, and takes effect then.
	opening bool
	// trying: while it is closed one call at a time may be made, to see whether it is
	// well again.
	trying bool
	// ramp is how many calls in flight it may have, after a try opened it; each call that
	// is taken adds one, so that they double with each round. 0: as many as others.
	ramp int

	keeper     keeper
	lastClosed closedSpan
	lastPaused map[string]closedSpan // by class
}

// full reports whether a channel that is tried, or came back by a try, has as many calls
// in flight as it may have by now.
func (g *channelGate) full() bool {
	return g.trying && g.flight > 0 || g.ramp > 0 && g.flight >= g.ramp
}

// pauseOf is what pauses a lane; nil: nothing does.
func (l *lane) pauseOf() *pause {
	if l.channel == nil {
		return nil
	}
	return l.channel.paused[l.key.class]
}

// soft reports whether a channel in this state may come back without a word.
func soft(state string) bool {
	return state == wazzup.ChannelPhoneUnavailable || state == wazzup.ChannelOpenElsewhere
}

func (o *owner) laneOpen(l *lane) bool {
	return !o.stopping && o.closed == nil && (l.channel == nil || l.channel.closed == nil || l.channel.trying) && l.pauseOf() == nil
}

// pump starts attempts while slots, tokens and lanes allow. It is called whenever
// one of them may have changed.
func (o *owner) pump() {
	if o.runnable[0].len() == 0 && o.runnable[1].len() == 0 {
		return
	}
	now := time.Now()
	if least := leastOf(o.cfg.Concurrency); least > 0 && o.runnable[0].len() > 0 {
		o.pumpRank(1, now, least)
	}
	o.pumpRank(0, now, 0)
	o.pumpRank(1, now, 0)
}

// pumpRank starts attempts of one rank. least is how many calls that are not
// transactional may be in flight by it, ahead of those that are, as long as they have
// not had their least of the window either; 0: as many as their share.
func (o *owner) pumpRank(rank int, now time.Time, least int) {
	q := &o.runnable[rank]
	// passed counts the lanes in a row that were over their share, so that one
	// turn through the queue without a start ends the loop.
	for passed := 0; passed < q.len(); {
		if least > 0 && (o.otherFlight >= least || o.window.hadLeast(now)) {
			return // for the rest of their share they stand in line behind
		}
		if blocked := o.accountOpen(rank, now); blocked.gate != gateNone {
			o.hold(rank, blocked, now)
			return
		}
		o.lines[rank].stand(gateNone, "", now)
		l := q.pop()
		l.leave(now)
		o.evidenceBefore(l)
		if l.ready.len() == 0 || !o.laneOpen(l) || l.channel != nil && l.channel.full() || l.sync != nil && l.flight >= syncFlight {
			continue
		}
		if o.overShare(l) && o.othersWant(l) {
			l.stand(gateSlots, o.reasons.share, now)
			l.join(now)
			q.push(l)
			passed++
			continue
		}
		l.stand(gateNone, "", now)
		switch blocked := o.start(l, now); blocked.gate {
		case gateNone:
			passed = 0
			o.offer(l)
		case gateWindow:
			l.join(now)
			q.pushFront(l)
			o.hold(rank, blocked, now)
			return
		default:
			o.park(l, blocked, now)
		}
	}
}

// block is a closed gate: which, why, and when to look again, zero if an event
// will.
type block struct {
	gate gate
	why  string
	at   time.Time
}

// hold leaves all lanes of a rank in the line.
func (o *owner) hold(rank int, by block, now time.Time) {
	o.lines[rank].stand(by.gate, by.why, now)
	o.wakeAt(by.at)
}

// accountOpen asks the gates of the whole account, but for the window's token.
func (o *owner) accountOpen(rank int, now time.Time) block {
	switch {
	case o.stopping || !now.Before(o.leaseUntil()):
		return block{gate: gateAccount, why: whyLease}
	case o.closed != nil:
		return block{gate: gateAccount, why: o.closed.code}
	case o.full:
		return block{gate: gateStorage, why: whyStorage}
	case now.Before(o.pausedUntil):
		return block{gate: gateWindow, why: why429, at: o.pausedUntil}
	case o.flight >= o.cfg.Concurrency:
		return block{gate: gateSlots, why: o.reasons.slots[0]}
	case rank > 0 && o.otherFlight >= shareOf(o.cfg.Concurrency):
		return block{gate: gateSlots, why: o.reasons.slots[1]}
	}
	return block{}
}

// overShare reports whether a lane must wait while lanes of other channels want calls
// in flight. Of a channel's quarter bulk leaves the transactional class the same part
// as of the whole, so that a code does not wait for a campaign's slow calls to end. It
// has that part even where bulk, alone until now, holds more than the quarter.
func (o *owner) overShare(l *lane) bool {
	if l.channel == nil {
		return false
	}
	slots := channelSlots(o.cfg.Concurrency)
	if l.rank() > 0 {
		return l.channel.flight >= slots || l.flight >= shareOf(slots)
	}
	return l.channel.flight >= slots && l.flight >= slots-shareOf(slots)
}

// othersWant reports whether a lane of another channel stands in line.
func (o *owner) othersWant(l *lane) bool {
	for rank := range o.runnable {
		for _, other := range o.runnable[rank].all() {
			if other.channel != l.channel && other.ready.len() > 0 {
				return true
			}
		}
	}
	return false
}

// start takes the lane's next command through the remaining gates and, when all
// are open, sends it on its way. Otherwise it names the gate that is closed.
func (o *owner) start(l *lane, now time.Time) block {
	if at, ok := l.pace.ready(now); !ok {
		return block{gatePace, l.paceWhy, at}
	}
	if at, ok := o.window.take(now, l.rank() > 0); !ok {
		return block{gateWindow, o.reasons.window, at}
	}
	done, retryAt, ok := o.breakers.Allow(l.family(), l.channelID())
	if !ok {
		o.window.unused(l.rank() > 0)
		return block{gateBreaker, o.whyBreaker(l), retryAt}
	}
	ch := l.ready.pop()
	c := ch.waiting.pop()
	ch.busy = true
	c.waitedAtGates(l, now)
	if l.sync != nil {
		o.count(l, 1)
		b := o.newBatch(c, now)
		b.ticket = o.newTicket(done)
		o.carryBatch(b)
		return block{}
	}
	l.pace.started(now, o.random())
	c.slot = &slot{breaker: done, try: l.channel != nil && l.channel.trying}
	o.count(l, 1)
	o.attempt(c)
	return block{}
}

// whyBreaker names the breaker that has just refused a lane's call.
func (o *owner) whyBreaker(l *lane) string {
	if o.breakers.ChannelClosed(l.family(), l.channelID()) {
		return whyFamily(l.family())
	}
	return whyChannel
}

// count adds to the attempts that hold a slot.
func (o *owner) count(l *lane, n int) {
	o.flight += n
	l.flight += n
	if l.rank() > 0 {
		o.otherFlight += n
	}
	if l.channel != nil {
		l.channel.flight += n
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// judged notes that the vendor was called, and has the breaker judge at once.
func (s *slot) judged(v Verdict) {
	s.called, s.verdict = true, v
	s.breaker(true, v)
}

// free gives back what an attempt held that has not called the vendor, or is judged.
func (o *owner) free(c *command) {
	s := c.slot
	c.slot = nil
	o.giveBack(c.lane, s)
}

// giveBack gives back a slot; nil: there was none. Only where the vendor was called the
// window's token is used.
func (o *owner) giveBack(l *lane, s *slot) {
	if s == nil {
		return
	}
	if s.called {
		o.window.answered(time.Now(), l.rank() > 0)
	} else {
		o.window.unused(l.rank() > 0)
		s.breaker(false, Verdict{})
	}
	o.count(l, -1)
	g, taken := l.channel, s.called && s.verdict.Action == ActionAccept
	if g != nil && taken {
		g.taken = true
	}
	switch {
	case g == nil, !g.trying && g.ramp == 0:
	case !g.trying:
		if taken {
			g.ramp++
		}
		if g.ramp >= o.cfg.Concurrency {
			g.ramp = 0
		}
		o.offerChannel(g)
	case s.try && taken:
		o.openChannel(g, openedByTry)
	default: // it shows nothing of the channel
		o.offerChannel(g)
	}
}

// offerChannel has the channel's lanes stand in line, if they may.
func (o *owner) offerChannel(g *channelGate) {
	for _, l := range o.lanes {
		if l.channel == g {
			o.offer(l)
		}
	}
}

// park takes a lane out of the line until one of its own gates opens.
func (o *owner) park(l *lane, by block, now time.Time) {
	l.parkedAt, l.parkedWhy = by.gate, by.why
	l.stand(by.gate, by.why, now)
	l.parked = time.AfterFunc(max(time.Until(by.at), time.Millisecond), func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		l.parked = nil
		o.shut(l, time.Now())
		o.offer(l)
		o.pump()
		o.fill(l)
	})
}

// wakeAt pumps again at a time; zero means that an event will.
func (o *owner) wakeAt(at time.Time) {
	if at.IsZero() || o.stopping || (!o.wakes.IsZero() && !at.Before(o.wakes)) {
		return
	}
	if o.wake != nil {
		o.wake.Stop()
	}
	o.wakes = at
	o.wake = time.AfterFunc(max(time.Until(at), 0), func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.wakes = time.Time{}
		o.pump()
	})
}

// refused closes what the vendor's answer says is closed. A call that began before
// the last opening says nothing of what is open now.
func (o *owner) refused(c *command, v Verdict, e *schema.Error, began time.Time) {
	switch v.Action {
	case ActionCloseChannel:
		if g := c.lane.channel; g != nil && !began.Before(g.lastClosed.until) {
			o.closeChannel(g, closing{
				code: e.Code, opensOn: v.Reopens, probe: v.Probe, at: time.Now(), refused: true, try: c.slot != nil && c.slot.try,
			})
		}
	case ActionCloseAccount:
		if !began.Before(o.lastClosed.until) {
			o.closeAccount(e.Code)
		}
	case ActionAccept, ActionReject, ActionRetry, ActionRetryLimited, ActionPauseAccount, ActionUnknown:
	}
}

// closing is a word that closes a channel: a state, or the refusal of a call.
type closing struct {
	code, opensOn string
	probe         bool      // it is also tried after a while
	at            time.Time // when it was learned
	refused       bool      // it is a refusal
	try           bool      // of a call that was a try
}

// closeChannel closes both lanes of a channel. A word that comes while they are
// closed replaces the former one; only the refusal of a try puts off the next try.
func (o *owner) closeChannel(g *channelGate, w closing) {
	was := g.closed
	if g.opening {
		was, g.opening = nil, false // what is told of it comes first
	}
	if w.refused && (was == nil || w.try) {
		g.refusals++
	}
	g.closed = &closure{code: w.code, since: w.at, began: time.Now(), opensOn: w.opensOn, probing: w.probe}
	if was != nil {
		g.closed.began = was.began
	}
	switch {
	case was != nil && was.probing && w.probe && !w.try:
		g.closed.probe = was.probe
	default:
		if was != nil && was.probe != nil {
			was.probe.Stop()
		}
		g.trying = false
		o.probeLater(g)
	}
	o.shutAll(g)
	switch {
	case was == nil:
		o.noteOps(&g.keeper, schema.OpsEvent{Name: schema.OpsLaneClosed, ChannelID: g.id, Reason: w.code, OpensOn: w.opensOn})
		o.keepGate(&g.keeper, nil)
	case w.try || was.code != w.code || was.probing != w.probe:
		o.keepGate(&g.keeper, nil)
	}
}

// probeLater has a channel tried after a while, if what closed it may pass without
// a word. It stays closed until a call is taken.
func (o *owner) probeLater(g *channelGate) {
	if !g.closed.probing {
		return
	}
	o.whileClosed(g, o.cfg.Backoff.Delay(max(g.refusals, 1), o.random), func() {
		g.trying = true
		o.channelOpened(g)
	})
}

// whileClosed runs f after a while, with the mutex held, unless the channel opens or
// is put off again.
func (o *owner) whileClosed(g *channelGate, wait time.Duration, f func()) {
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if g.closed != nil && g.closed.probe == timer && !o.stopping {
			f()
		}
	})
	g.closed.probe = timer
}

// openedByTry is why a channel opens that nobody has called well.
const openedByTry = "try"

// rampFrom is how many calls in flight a channel has at first that a try has opened: the
// try showed that one is taken, and not that a backlog's would be.
const rampFrom = 2

// openChannel opens a channel's lanes as soon as that is durable.
func (o *owner) openChannel(g *channelGate, why string) {
	c := g.closed
	if c == nil || g.opening || o.stopping {
		return
	}
	if c.probe != nil {
		c.probe.Stop()
	}
	g.lastClosed = c.span()
	g.opening, g.trying = true, false
	o.noteOps(&g.keeper, schema.OpsEvent{Name: schema.OpsLaneOpened, ChannelID: g.id, Reason: why})
	o.keepGate(&g.keeper, func() {
		if g.opening && g.closed == c {
			g.closed, g.opening, g.ramp = nil, false, 0
			if why == openedByTry {
				g.ramp = rampFrom
			}
			g.lastClosed = c.span()
			o.channelOpened(g)
		}
	})
}

// channelOpened has a channel's lanes go on that may.
func (o *owner) channelOpened(g *channelGate) {
	o.shutAll(g)
	for _, l := range o.lanes {
		if l.channel == g {
			o.laneOpened(l)
		}
	}
	o.pump()
}

// channelState takes in what the vendor says of a channel, by webhook or list.
// After a refusal only a state learned later opens the lanes, and each refusal
// after an opening doubles the wait, so that a stale word cannot loop.
func (o *owner) channelState(id, state string, learned time.Time) {
	g := o.channel(id)
	if learned.Before(g.learned) {
		return
	}
	same := g.state == state
	g.state, g.learned = state, learned
	if state != wazzup.ChannelActive {
		opensOn := ReopenOnActive
		if soft(state) {
			opensOn = ReopenOnProbe
		}
		if same && soft(state) && (g.closed == nil || g.opening) {
			return // a call that was taken since has shown better; the list only repeats it
		}
		o.closeChannel(g, closing{code: state, opensOn: opensOn, probe: soft(state), at: learned})
		return
	}
	if g.closed == nil || g.opening {
		return
	}
	if g.refusals > 1 {
		wait := g.closed.since.Add(o.cfg.Backoff.Delay(g.refusals-1, func() float64 { return 1 }))
		if learned.Before(wait) {
			if g.closed.probe == nil {
				o.whileClosed(g, time.Until(wait), func() { o.openChannel(g, ReopenOnActive) })
			}
			return
		}
	}
	if learned.After(g.closed.since) {
		o.openChannel(g, ReopenOnActive)
	}
}

func (o *owner) channel(id string) *channelGate {
	g := o.channels[id]
	if g == nil {
		g = &channelGate{id: id}
		g.keeper.record = g.record
		o.channels[id] = g
	}
	return g
}

// closeAccount closes every lane until GET /v2/channels succeeds. Each refusal
// after a reopening doubles the wait before the next one, for that list may be
// open to a key that may not send.
func (o *owner) closeAccount(code string) {
	if o.closed != nil && !o.reopening {
		return
	}
	o.refusals++
	o.shutAccount(code)
	if o.refusals > 1 {
		o.closed.notBefore = o.closed.since.Add(o.cfg.Backoff.Delay(o.refusals-1, o.random))
	}
}

// shutAccount is closeAccount for the refusal of a call that is no command's: it
// doubles nothing, since anybody can make many requests, and the channel list, which
// is read at once, decides.
func (o *owner) shutAccount(code string) {
	if o.closed != nil && !o.reopening {
		return
	}
	now := time.Now()
	o.closings++
	o.reopening = false // what is told of it comes first
	o.closed = &closure{code: code, since: now, began: now, opensOn: ReopenOnAccount}
	o.shutAll(nil)
	o.noteOps(&o.keeper, schema.OpsEvent{Name: schema.OpsAccountClosed, Reason: code, OpensOn: ReopenOnAccount})
	o.keepGate(&o.keeper, nil)
	o.pollSoon()
}

// accountAnswers opens a closed account, at once or when its wait is over.
func (o *owner) accountAnswers() {
	if o.closed == nil || o.closed.probe != nil {
		return
	}
	wait := time.Until(o.closed.notBefore)
	if wait <= 0 {
		o.openAccount()
		return
	}
	o.closed.probe = time.AfterFunc(wait, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !o.stopping {
			o.openAccount()
		}
	})
}

// openAccount opens the account as soon as that is durable.
func (o *owner) openAccount() {
	c := o.closed
	if c == nil || o.reopening {
		return
	}
	o.lastClosed = c.span()
	o.reopening = true
	o.noteOps(&o.keeper, schema.OpsEvent{Name: schema.OpsAccountOpened, Reason: "channel list read"})
	o.keepGate(&o.keeper, func() {
		if !o.reopening || o.closed != c {
			return
		}
		o.closed, o.reopening = nil, false
		o.lastClosed = c.span()
		o.shutAll(nil)
		for _, l := range o.lanes {
			o.laneOpened(l)
		}
		o.pump()
	})
}

// laneOpened has a lane go on.
func (o *owner) laneOpened(l *lane) {
	o.fill(l)
	o.unparkAll(l)
	o.offer(l)
}

// pauseAccount holds every call after a 429, until the vendor's hint or, without
// one, for a window's length.
func (o *owner) pauseAccount(a wazzup.Answer) time.Time {
	pause := max(o.cfg.Rate.Per, time.Second)
	if a.HasRetryAfter {
		pause = min(a.RetryAfter, MaxRetryAfter)
	}
	if until := time.Now().Add(pause); until.After(o.pausedUntil) {
		o.pausedUntil = until
		o.keepGate(&o.keeper, nil)
	}
	o.wakeAt(o.pausedUntil)
	return o.pausedUntil
}
