package sender

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// What is known of a gate is stored whenever it changes, so that a closed channel,
// an operator's pause and the spam brake outlive any process. A closing takes
// effect at once, for nothing may be called meanwhile; an opening when it is durable,
// or calls would be made through a gate that the next owner finds closed. Each is
// told, and a request for it answered, when it is durable. The record has the event,
// until that is durable too: a crash in between neither loses it nor repeats it.

// keeper stores one gate's changes: one write at a time, since of two that are
// under way together the older could come last. Owned by the owner's mutex.
type keeper struct {
	record  func() *queue.GateRecord // what is known now
	writing bool
	changed bool     // since the write that is under way
	after   []func() // to be called when what is known now is durable
	tales   []*tale  // not known to be told
}

// tale is an operator event that belongs to a change of a gate.
type tale struct {
	queue.Tale
	begun bool // it is being published
}

// noteOps adds an operator event to what is stored next; it is published when that is
// durable. keepGate must follow.
func (o *owner) noteOps(k *keeper, e schema.OpsEvent) {
	k.tales = append(k.tales, &tale{Tale: queue.Tale{ID: o.opsID(), Event: o.fillOps(e)}})
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
	after, tales := k.after, slices.Clone(k.tales)
	k.writing, k.changed, k.after = true, false, nil
	o.enter()
	stored := func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		defer o.leave() // not before what follows has begun
		k.writing = false
		if err != nil {
			return // fenced or stopped: the next owner goes by what is stored
		}
		for _, t := range tales {
			o.publishTale(k, t)
		}
		for _, f := range after {
			f()
		}
		if k.changed && !k.writing {
			o.writeGate(k)
		}
	}
	r := k.record()
	for _, t := range tales {
		r.Tell = append(r.Tell, t.Tale)
	}
	if err := o.ledger.PutGate(r, stored); err != nil {
		o.log.Error().Err(err).Msg("gate_not_stored")
		o.later(func() { stored(err) })
	}
}

// publishTale publishes an event that is stored with its gate, once. When all are
// told, the record forgets them.
func (o *owner) publishTale(k *keeper, t *tale) {
	if t.begun {
		return
	}
	t.begun = true
	o.publishOps(t.Event, t.ID, func(err error) {
		if err == nil {
			o.told(k, t)
		}
	})
}

// told forgets an event that is durable. The owner's mutex is held.
func (o *owner) told(k *keeper, t *tale) {
	k.tales = slices.DeleteFunc(k.tales, func(other *tale) bool { return other == t })
	if len(k.tales) == 0 {
		o.keepGate(k, nil)
	}
}

// takeTales takes over the events that a former owner had stored with a gate, and
// may not have told. Beyond the server's duplicate window it looks first.
func (o *owner) takeTales(k *keeper, r *queue.GateRecord) {
	for _, one := range r.Tell {
		t := &tale{Tale: one}
		k.tales = append(k.tales, t)
		if time.Since(r.Stored) < o.topology.Limits.DedupeWindow*9/10 {
			o.publishTale(k, t)
			continue
		}
		o.later(func() {
			ctx, cancel := context.WithTimeout(o.ctx, scanTimeout)
			defer cancel()
			stored, err := o.ledger.EventStored(ctx, schema.OpsEventSubject(o.cfg.Account, one.Event.Name), one.ID, r.Sequence)
			o.mu.Lock()
			defer o.mu.Unlock()
			switch {
			case err != nil: // it stays with the record
				o.log.Warn().Err(err).Msg("ops_event_not_looked_for")
			case stored:
				o.told(k, t)
			default:
				o.publishTale(k, t)
			}
		})
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
		ChannelID: g.id, State: g.state, Learned: millis(g.learned), Refusals: g.refusals,
		Forgiven: millisUntil(g.forgiven), Flooded: millisUntil(g.flooded),
	}
	if !g.opening {
		r.Closed = g.closed.record()
	}
	for class, p := range g.paused {
		if p.ending {
			continue
		}
		if r.Paused == nil {
			r.Paused = make(map[string]*queue.Paused, len(g.paused))
		}
		r.Paused[class] = &queue.Paused{By: p.by, Since: millis(p.since), Until: millisUntil(p.until)}
	}
	for _, m := range g.spam {
		r.Spam = append(r.Spam, queue.SpamMark{At: millis(m.at), MessageID: m.messageID})
	}
	return r
}

// accountRecord is what is stored of the account.
func (o *owner) accountRecord() *queue.GateRecord {
	r := &queue.GateRecord{Refusals: o.refusals, Until: millisUntil(o.pausedUntil), Broken: o.breakers.Broken(), Strangers: millis(o.crowd.since)}
	for i, role := range storageRoles() {
		if o.fills[i].high {
			r.High = append(r.High, role)
		}
	}
	if !o.reopening {
		r.Closed = o.closed.record()
	}
	return r
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
			o.takeTales(&o.keeper, r)
			continue
		}
		o.restoreChannel(r)
		o.takeTales(&o.channel(r.ChannelID).keeper, r)
	}
	return nil
}

func (o *owner) restoreAccount(r *queue.GateRecord) {
	o.refusals = r.Refusals
	for i, role := range storageRoles() {
		o.fills[i].high = slices.Contains(r.High, role)
	}
	o.crowd.since = timeOf(r.Strangers)
	for _, was := range r.Broken {
		o.breakers.Restore(was)
	}
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
	g.forgiven, g.flooded = timeOf(r.Forgiven), timeOf(r.Flooded)
	for _, m := range r.Spam {
		g.spam = append(g.spam, spamMark{timeOf(m.At), m.MessageID})
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
	high := slices.ContainsFunc(o.fills[:], func(f fill) bool { return f.high })
	if o.closed != nil || high || !o.crowd.since.IsZero() || len(o.breakers.Broken()) > 0 {
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

	ending bool // its end is being stored, and takes effect then
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
// it; then runs when that is durable. A pause without an end is replaced by no other
// but the spam brake, and the brake by none, so that whoever resumes the lane sees
// that it had to brake. One that a flood makes longer is not told again. The owner's
// mutex is held.
func (o *owner) pauseLane(g *channelGate, class, by string, until time.Time, then func()) {
	before := g.paused[class]
	if before != nil && before.ending {
		before = nil
	}
	p := &pause{by: by, since: time.Now(), until: until}
	switch {
	case before == nil:
	case before.until.IsZero() && (before.by == bySpam || by != bySpam):
		o.keepGate(&g.keeper, then)
		return
	case before.by == by:
		p.since, p.until = before.since, latest(before.until, until)
		o.setPause(g, class, p)
		o.keepGate(&g.keeper, then)
		return
	}
	o.setPause(g, class, p)
	o.noteOps(&g.keeper, schema.OpsEvent{Name: schema.OpsLanePaused, ChannelID: g.id, Class: class, Reason: by, OpensOn: p.opensOn()})
	o.keepGate(&g.keeper, then)
}

// resumeLane ends a pause, whoever made it; then runs when that is durable, and the
// lane goes on. The owner's mutex is held.
func (o *owner) resumeLane(g *channelGate, class, why string, then func()) {
	p := g.paused[class]
	if p == nil || p.ending {
		o.keepGate(&g.keeper, then)
		return
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	if p.by == bySpam {
		for _, m := range g.spam { // what was rated before is forgiven
			g.forgiven = latest(g.forgiven, m.at)
		}
		g.spam = nil
	}
	p.ending = true
	o.noteOps(&g.keeper, schema.OpsEvent{Name: schema.OpsLaneResumed, ChannelID: g.id, Class: class, Reason: why})
	o.keepGate(&g.keeper, func() {
		if g.paused[class] == p {
			o.pauseOver(g, class)
		}
		if then != nil {
			then()
		}
	})
}

// pauseOver has a lane go on whose pause has ended.
func (o *owner) pauseOver(g *channelGate, class string) {
	p := g.paused[class]
	delete(g.paused, class)
	if g.lastPaused == nil {
		g.lastPaused = make(map[string]closedSpan)
	}
	g.lastPaused[class] = closedSpan{p.by, p.since, time.Now()}
	o.channelOpened(g)
}

// spamMark is a message that the vendor rated as spam.
type spamMark struct {
	at        time.Time
	messageID string // of one that was rated by a status, which may be read again after a crash
}

// ratedAsSpam counts a message that the vendor rated as spam; too many within the
// window stop the channel's bulk class until a person releases it. at is when it did.
func (o *owner) ratedAsSpam(channelID, messageID string, at time.Time) {
	if o.cfg.SpamLimit <= 0 || channelID == "" {
		return
	}
	g := o.channel(channelID)
	now := time.Now()
	if now.Sub(at) >= o.cfg.SpamWindow || messageID != "" && !after(at, g.forgiven) {
		return
	}
	g.spam = slices.DeleteFunc(g.spam, func(m spamMark) bool { return now.Sub(m.at) >= o.cfg.SpamWindow })
	if messageID != "" && slices.ContainsFunc(g.spam, func(m spamMark) bool { return m.messageID == messageID }) {
		return
	}
	g.spam = append(g.spam, spamMark{at, messageID})
	if more := len(g.spam) - o.cfg.SpamLimit; more > 0 {
		g.spam = slices.Delete(g.spam, 0, more) // enough to decide by
	}
	if len(g.spam) >= o.cfg.SpamLimit {
		o.pauseLane(g, classBulk, bySpam, time.Time{}, nil)
		return
	}
	o.keepGate(&g.keeper, nil)
}

// flooded pauses the channel's bulk class: the vendor broke a transmission off. at is
// when it said so, from when on the pause counts.
func (o *owner) flooded(channelID string, at time.Time) {
	until := at.Add(o.cfg.FloodPause)
	if channelID == "" || !until.After(time.Now()) {
		return
	}
	g := o.channel(channelID)
	if !after(at, g.flooded) {
		return
	}
	g.flooded = at
	o.pauseLane(g, classBulk, byFlood, until, nil)
}

// after compares times as records keep them.
func after(t, u time.Time) bool { return u.IsZero() || t.UnixMilli() > u.UnixMilli() }

// lateWord does what a status means for its channel, beside its command's event. It
// may be called again for one that was led to its command before a crash. at is when it
// was stored first.
func (o *owner) lateWord(channelID string, s status, at time.Time) {
	if !s.late.SpamBrake && !s.late.FloodPause {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.late.SpamBrake {
		o.ratedAsSpam(channelID, s.messageID, at)
	}
	if s.late.FloodPause {
		o.flooded(channelID, at)
	}
}
