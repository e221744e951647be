package sender

import (
	"context"
	"fmt"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// What is known of a gate is stored whenever it changes, so that a closed channel,
// an operator's pause and the spam brake outlive any process. A closing takes
// effect at once, for nothing may be called meanwhile; it is told, and a request
// for it answered, when it is durable.

// keeper stores one gate's changes: one write at a time, since of two that are
// under way together the older could come last. Owned by the owner's mutex.
type keeper struct {
	record  func() *queue.GateRecord // what is known now
	writing bool
	changed bool     // since the write that is under way
	after   []func() // to be called when what is known now is durable
}

// keepGate stores a gate; then runs, with the mutex held, when that is durable.
func (o *owner) keepGate(k *keeper, then func()) {
	if then != nil {
		k.after = append(k.after, then)
	}
	k.changed = true
	if !k.writing {
		o.writeGate(k)
	}
}

func (o *owner) writeGate(k *keeper) {
	after := k.after
	k.writing, k.changed, k.after = true, false, nil
	o.enter()
	stored := func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.leave()
		k.writing = false
		if err != nil {
			return // fenced or stopped: the next owner goes by what is stored
		}
		for _, f := range after {
			f()
		}
		if k.changed {
			o.writeGate(k)
		}
	}
	if err := o.ledger.PutGate(k.record(), stored); err != nil {
		o.log.Error().Err(err).Msg("gate_not_stored")
		o.later(func() { stored(err) })
	}
}

// millis writes a time; the zero time as 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// millisUntil writes the end of a pause, which must not come early for who reads it.
func millisUntil(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Add(time.Millisecond - 1).UnixMilli()
}

// timeOf reads what millis wrote.
func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func (c *closure) record() *queue.Closed {
	if c == nil {
		return nil
	}
	return &queue.Closed{Code: c.code, Since: millis(c.since), OpensOn: c.opensOn, Probe: c.probing}
}

func closureOf(r *queue.Closed) *closure {
	since := timeOf(r.Since)
	return &closure{code: r.Code, since: since, began: since, opensOn: r.OpensOn, probing: r.Probe}
}

// record is what is stored of a channel.
func (g *channelGate) record() *queue.GateRecord {
	r := &queue.GateRecord{
		ChannelID: g.id, State: g.state, Learned: millis(g.learned), Closed: g.closed.record(), Refusals: g.refusals,
	}
	for class, p := range g.paused {
		if r.Paused == nil {
			r.Paused = make(map[string]*queue.Paused, len(g.paused))
		}
		r.Paused[class] = &queue.Paused{By: p.by, Since: millis(p.since), Until: millisUntil(p.until)}
	}
	for _, at := range g.spam {
		r.Spam = append(r.Spam, millis(at))
	}
	return r
}

// accountRecord is what is stored of the account.
func (o *owner) accountRecord() *queue.GateRecord {
	return &queue.GateRecord{Closed: o.closed.record(), Refusals: o.refusals, Until: millisUntil(o.pausedUntil)}
}

// loadGates takes over what former owners knew, before any lane is opened.
func (o *owner) loadGates(ctx context.Context) error {
	records, err := o.ledger.Gates(ctx)
	if err != nil {
		return fmt.Errorf("take over gates: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range records {
		if r.ChannelID == "" {
			o.restoreAccount(r)
			continue
		}
		o.restoreChannel(r)
	}
	return nil
}

func (o *owner) restoreAccount(r *queue.GateRecord) {
	o.refusals = r.Refusals
	if until := timeOf(r.Until); until.After(o.pausedUntil) {
		o.pausedUntil = until
		o.wakeAt(until)
	}
	if r.Closed != nil { // the channel list, which is read at once, opens it
		o.closed = closureOf(r.Closed)
	}
}

func (o *owner) restoreChannel(r *queue.GateRecord) {
	g := o.channel(r.ChannelID)
	g.state, g.learned, g.refusals = r.State, timeOf(r.Learned), r.Refusals
	for _, ms := range r.Spam {
		g.spam = append(g.spam, timeOf(ms))
	}
	if r.Closed != nil {
		g.closed = closureOf(r.Closed)
		o.probeLater(g)
	}
	for class, p := range r.Paused {
		o.setPause(g, class, &pause{by: p.By, since: timeOf(p.Since), until: timeOf(p.Until)})
	}
}

// refreshGates stores anew what is not as it would be without a record: the
// stream forgets what is older than its retention.
func (o *owner) refreshGates(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, g := range o.channels {
		if g.closed != nil || len(g.paused) > 0 {
			o.keepGate(&g.keeper, nil)
		}
	}
	if o.closed != nil {
		o.keepGate(&o.keeper, nil)
	}
	return nil
}

// Who pauses a class of a channel, as lanes and events name it.
const (
	byOperator = "operator"
	bySpam     = "spam"  // too many messages were rated as spam
	byFlood    = "flood" // the vendor broke off: too many messages from the account
)

// openOnResume: a pause ends when somebody resumes the lane.
const openOnResume = "lane.resume"

// pause is why a class of a channel is paused, since when, and until when.
type pause struct {
	by    string
	since time.Time
	until time.Time   // zero: until somebody resumes it
	timer *time.Timer // of until
}

func (p *pause) opensOn() string {
	if p.until.IsZero() {
		return openOnResume
	}
	return schema.FormatTime(p.until)
}

// setPause pauses a class of a channel, in memory.
func (o *owner) setPause(g *channelGate, class string, p *pause) {
	if g.paused == nil {
		g.paused = make(map[string]*pause)
	}
	if before := g.paused[class]; before != nil && before.timer != nil {
		before.timer.Stop()
	}
	g.paused[class] = p
	if !p.until.IsZero() {
		p.timer = time.AfterFunc(max(time.Until(p.until), 0), func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			if g.paused[class] == p && !o.stopping {
				o.resumeLane(g, class, "time", nil)
			}
		})
	}
	o.shutAll(g)
}

// pauseLane pauses a class of a channel until a time, or until somebody resumes
// it; then runs when that is durable. A pause without an end is not replaced by
// one that has one. The owner's mutex is held.
func (o *owner) pauseLane(g *channelGate, class, by string, until time.Time, then func()) {
	before := g.paused[class]
	if before != nil && (before.by == by && before.until.Equal(until) || before.until.IsZero() && !until.IsZero()) {
		o.keepGate(&g.keeper, then)
		return
	}
	p := &pause{by: by, since: time.Now(), until: until}
	o.setPause(g, class, p)
	o.keepGate(&g.keeper, func() {
		o.opsLane(schema.OpsLanePaused, g.id, class, by, p.opensOn())
		if then != nil {
			then()
		}
	})
}

// resumeLane ends a pause, whoever made it; then runs when that is durable. The
// owner's mutex is held.
func (o *owner) resumeLane(g *channelGate, class, why string, then func()) {
	p := g.paused[class]
	if p == nil {
		o.keepGate(&g.keeper, then)
		return
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	if p.by == bySpam {
		g.spam = nil // what was rated before is forgiven
	}
	delete(g.paused, class)
	if g.lastPaused == nil {
		g.lastPaused = make(map[string]closedSpan)
	}
	g.lastPaused[class] = closedSpan{p.by, p.since, time.Now()}
	o.keepGate(&g.keeper, func() {
		o.opsLane(schema.OpsLaneResumed, g.id, class, why, "")
		if then != nil {
			then()
		}
	})
	o.shutAll(g)
	for _, l := range o.lanes {
		if l.channel == g {
			o.laneOpened(l)
		}
	}
	o.pump()
}

// ratedAsSpam counts a message that the vendor rated as spam; too many within the
// window stop the channel's bulk class until a person releases it.
func (o *owner) ratedAsSpam(channelID string) {
	if o.cfg.SpamLimit <= 0 || channelID == "" {
		return
	}
	g := o.channel(channelID)
	now := time.Now()
	kept := g.spam[:0]
	for _, at := range g.spam {
		if now.Sub(at) < o.cfg.SpamWindow {
			kept = append(kept, at)
		}
	}
	g.spam = append(kept, now)
	if p := g.paused[classBulk]; len(g.spam) >= o.cfg.SpamLimit && (p == nil || !p.until.IsZero()) {
		o.pauseLane(g, classBulk, bySpam, time.Time{}, nil)
		return
	}
	o.keepGate(&g.keeper, nil)
}

// flooded pauses the channel's bulk class: the vendor broke a transmission off.
func (o *owner) flooded(channelID string) {
	if channelID == "" {
		return
	}
	o.pauseLane(o.channel(channelID), classBulk, byFlood, time.Now().Add(o.cfg.FloodPause), nil)
}

// lateWord does what a status means for its channel, beside its command's event.
func (o *owner) lateWord(channelID string, late LateStatus) {
	if !late.SpamBrake && !late.FloodPause {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if late.SpamBrake {
		o.ratedAsSpam(channelID)
	}
	if late.FloodPause {
		o.flooded(channelID)
	}
}
