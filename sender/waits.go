package sender

import (
	"strconv"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

// gate is where a command may have to wait, as its timeline names it.
type gate uint8

const (
	gateNone    gate = iota
	gatePaused       // an operator or the spam brake has paused it
	gateClosed       // the vendor, or its channel's state, says that the channel cannot send
	gateAccount      // the account is closed, or its ownership is in question
	gatePace         // the lane's rate
	gateWindow       // the account's rate
	gateSlots        // calls in flight
	gateBreaker      // calls fail
	gateStorage      // the records stream is full
	gates

	// Of one command rather than of its lane.
	gateOrder    // an earlier command of its chat
	gateBacklog  // it was on disk, behind others of its lane
	gateSchedule // its sendAt
	gateEvidence // its fate was not known
	gateRetry    // between two attempts
	gateGather   // of a sync command: others may share its request
)

func (g gate) String() string {
	switch g {
	case gatePaused:
		return "paused"
	case gateClosed:
		return "closed"
	case gateAccount:
		return "account"
	case gatePace:
		return "pace"
	case gateWindow:
		return "window"
	case gateSlots:
		return "slots"
	case gateBreaker:
		return "breaker"
	case gateStorage:
		return "storage"
	case gateOrder:
		return "order"
	case gateBacklog:
		return "backlog"
	case gateSchedule:
		return "schedule"
	case gateEvidence:
		return "evidence"
	case gateRetry:
		return "retry"
	case gateGather:
		return "gather"
	case gateNone, gates:
	}
	return ""
}

// Reasons that are the same for everybody.
const (
	whyOrder    = "an earlier command of the chat"
	whyEntity   = "an earlier command of the entity, or a replace"
	whyGather   = "others that may share its request"
	whyBacklog  = "on disk, behind others of its lane"
	whySchedule = "sendAt"
	whyEvidence = "whether the call was carried out is not known"
	whyRetry    = "backoff"
	whyLease    = "whether this worker still owns the account is not known"
	whyStorage  = "the records stream is full"
	why429      = "429"
	whyChannel  = "channel"
)

// backlogWorth is how long a command must have been on disk for its timeline to
// say so: less is the ordinary way of a message, and the search for new lanes.
const backlogWorth = 2 * time.Second

// reasons are the texts that depend on the settings, made once.
type reasons struct {
	window string    // the account's rate
	slots  [2]string // by rank
	share  string    // of one channel
}

func newReasons(cfg *Config) reasons {
	inFlight := func(n int) string { return strconv.Itoa(n) + " calls in flight" }
	return reasons{
		window: cfg.Rate.String(),
		slots:  [2]string{inFlight(cfg.Concurrency), inFlight(shareOf(cfg.Concurrency)) + " but for send"},
		share:  inFlight(channelSlots(cfg.Concurrency)) + " of one channel",
	}
}

func channelSlots(concurrency int) int { return max(int(float64(concurrency)*channelShare), 1) }

// whyFamily names a family's breaker.
func whyFamily(f Family) string { return "family " + string(f) }

// paceWhy is a lane's rate as its commands' timelines name it.
func paceWhy(limit rate.Rate) string {
	if limit.N == 0 {
		return ""
	}
	return limit.String()
}

// gateTimes is for how long each gate was closed to a lane, all in all. What it
// grew by while a command stood at the head of its chat is what that one waited.
type gateTimes [gates]time.Duration

// gateClock adds up the times of one lane, or of all lanes of a rank that stand
// in line. At most one gate is closed at a time: the first that is met.
type gateClock struct {
	gate  gate // that is closed now
	since time.Time
	total gateTimes
	why   [gates]string // the last reason of each
}

// stand says at which gate the lane stands from now on; gateNone: at none.
func (k *gateClock) stand(g gate, why string, now time.Time) {
	if k.gate != g {
		k.settle(now)
		k.gate, k.since = g, now
	}
	if g != gateNone {
		k.why[g] = why
	}
}

// settle adds what has gone by.
func (k *gateClock) settle(now time.Time) {
	if k.gate != gateNone {
		k.total[k.gate] += max(now.Sub(k.since), 0)
		k.since = now
	}
}

// read returns the times up to now.
func (k *gateClock) read(now time.Time) gateTimes {
	times := k.total
	if k.gate != gateNone {
		times[k.gate] += max(now.Sub(k.since), 0)
	}
	return times
}

// gateTimes returns the lane's times up to now: at its own gates, and at those of
// the account while it stands in line.
func (l *lane) gateTimes(now time.Time) gateTimes {
	times := l.clock.read(now)
	if l.queued && l.clock.gate == gateNone {
		addSince(&times, l.line.read(now), &l.joined)
	}
	return times
}

// join has the lane stand in line from now on.
func (l *lane) join(now time.Time) {
	l.queued = true
	l.joined = l.line.read(now)
}

// leave takes over what the lane waited in line.
func (l *lane) leave(now time.Time) {
	l.queued = false
	l.tally(now)
}

// tally adds to the lane's own times what it has waited in line since it joined.
// While a gate of its own is closed too, only that one counts.
func (l *lane) tally(now time.Time) {
	reading := l.line.read(now)
	if l.clock.gate == gateNone && reading != l.joined {
		addSince(&l.clock.total, reading, &l.joined)
		for g := range reading {
			if reading[g] != l.joined[g] {
				l.clock.why[g] = l.line.why[g]
			}
		}
	}
	l.joined = reading
}

func addSince(times *gateTimes, now gateTimes, before *gateTimes) {
	for g := range now {
		times[g] += now[g] - before[g]
	}
}

// stand says at which gate of its own the lane stands.
func (l *lane) stand(g gate, why string, now time.Time) {
	if l.queued && l.clock.gate != g {
		l.tally(now)
	}
	l.clock.stand(g, why, now)
}

// shut says at which gate a lane stands whose channel or account has been closed
// or opened.
func (o *owner) shut(l *lane, now time.Time) {
	switch {
	case l.channel != nil && l.channel.closed != nil:
		l.stand(gateClosed, l.channel.closed.code, now)
	case o.closed != nil:
		l.stand(gateAccount, o.closed.code, now)
	case l.pauseOf() != nil:
		l.stand(gatePaused, l.pauseOf().by, now)
	case l.parked != nil:
		l.stand(l.parkedAt, l.parkedWhy, now)
	default:
		l.stand(gateNone, "", now)
	}
}

// shutAll does so for all lanes of a channel; nil: of the account.
func (o *owner) shutAll(g *channelGate) {
	now := time.Now()
	for _, l := range o.lanes {
		if g == nil || l.channel == g {
			o.shut(l, now)
		}
	}
}

// waitedAtGates notes where a command waited since it became the head of its chat.
func (c *command) waitedAtGates(l *lane, now time.Time) {
	times := l.gateTimes(now)
	if times == c.gatesBefore {
		return
	}
	for g := range times {
		c.waited(gate(g), times[g]-c.gatesBefore[g], l.clock.why[g]) //nolint:gosec // a handful of gates
	}
}

// waited notes a gate that the command waited at, and the last reason why.
func (c *command) waited(g gate, d time.Duration, why string) {
	if d < time.Millisecond {
		return
	}
	name := g.String()
	for i := range c.waits {
		if c.waits[i].Gate == name {
			c.waits[i].Millis += d.Milliseconds()
			c.waits[i].Why = why
			return
		}
	}
	c.waits = append(c.waits, queue.Wait{Gate: name, Millis: d.Milliseconds(), Why: why})
}

// waitedOnDisk notes how long a command lay in its stream before it came to hand:
// while its lane was closed nothing was asked for, and otherwise others of the
// lane were ahead of it. What was before this worker took the account over is
// not known.
func (o *owner) waitedOnDisk(c *command, now time.Time) {
	from := latest(c.delivery.Stored, o.owned)
	whole := now.Sub(from)
	if c.delivery.Source == nil { // it was parked behind its own chat
		c.waited(gateOrder, whole, whyOrder)
		return
	}
	shut, g, why := o.shutSince(c.lane, from)
	c.waited(g, shut, why)
	if rest := whole - shut; rest >= backlogWorth {
		c.waited(gateBacklog, rest, whyBacklog)
	}
}

// shutSince is for how long a lane was not asked for its commands, of the time
// since from: the last time that its channel or account was closed, or it was paused.
func (o *owner) shutSince(l *lane, from time.Time) (d time.Duration, g gate, why string) {
	spans := [...]struct {
		closedSpan
		gate gate
	}{{gate: gateClosed}, {gate: gatePaused}, {o.lastClosed, gateAccount}}
	if ch := l.channel; ch != nil {
		spans[0].closedSpan, spans[1].closedSpan = ch.lastClosed, ch.lastPaused[l.key.class]
	}
	for _, s := range spans {
		if s.until.After(from) {
			return s.until.Sub(latest(s.from, from)), s.gate, s.code
		}
	}
	return 0, gateNone, ""
}

// waitedForTime notes what a scheduled command waited by its producer's wish. A
// redriven one has had its time before.
func (c *command) waitedForTime() {
	if m := c.body.Message; m != nil && c.generation == 0 && !m.SendAt.IsZero() {
		c.waited(gateSchedule, m.SendAt.Sub(c.stored), whySchedule)
	}
}

// closedSpan is a time for which something was closed, the last one.
type closedSpan struct {
	code        string
	from, until time.Time
}

// span ends a closure now.
func (c *closure) span() closedSpan { return closedSpan{c.code, c.began, time.Now()} }
