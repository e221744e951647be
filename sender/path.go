package sender

import (
	"errors"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// carry takes a command that has passed the gates through one attempt. The
// owner's mutex is held.
//
//	claim ── durable ──> expiry ──> call ──> classify ──> conclude
func (o *owner) carry(c *command) {
	o.claim(c, func() {
		o.callers.run(func() {
			if out := o.tooLate(c); out != nil {
				o.conclude(c, *out)
				return
			}
			o.conclude(c, o.call(c))
		})
	})
}

// claim writes the record that says "about to call". It is, in one write, the
// check that this id was not carried out before, the marker that a crash leaves,
// and the fence against a former owner. then runs once it is durable.
func (o *owner) claim(c *command, then func()) {
	r := o.record(c, queue.StepClaim)
	r.Attempt++
	r.Waits = c.waits
	o.enter()
	o.ledger.Append(r, c.expect, func(seq uint64, err error) {
		o.mu.Lock()
		if err != nil {
			o.free(c)
			if c.work != nil {
				o.leaveBatch(c)
			}
			o.unclaimed(c, err)
			o.pump()
			o.leave()
			o.mu.Unlock()
			return
		}
		c.expect, c.attempt, c.waits = seq, r.Attempt, nil
		c.claimSeq, c.claimAt, c.unsettled = seq, time.UnixMilli(r.At), true
		c.calling = true // what was under way is the call now: it is not left in between
		o.mu.Unlock()
		then()
	})
}

// unclaimed handles a claim that was refused.
func (o *owner) unclaimed(c *command, err error) {
	switch {
	case errors.Is(err, queue.ErrConflict):
		o.resolve(c, nil)
	case errors.Is(err, queue.ErrFenced):
		o.lost(err)
	default: // stopped: the next owner finds no claim and sends
	}
}

// tooLate asks, with nothing left but the call, whether it may still be made.
func (o *owner) tooLate(c *command) *outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	if m := c.body.Message; m != nil && !m.ExpireAt.IsZero() && !time.Now().Before(m.ExpireAt) {
		out := expired(c)
		return &out
	}
	if out := o.tooOld(c); out != nil {
		return out
	}
	if o.dropped || !time.Now().Before(o.leaseUntil()) {
		// The claim took so long to be confirmed that another worker may own the
		// account, for which this command is in doubt: it must not be called behind
		// its back. If nobody does, it is free to be claimed again.
		out := o.retry(c, leaseOver(), false)
		return &out
	}
	if o.shutMeanwhile(c.lane, c.slot.try) {
		out := unsent(o.whyUnsent(c.lane))
		return &out
	}
	c.slot.started = true
	c.lane.pace.called(time.Now())
	return nil
}

// shutMeanwhile reports whether one of a lane's gates has closed since its command
// passed them. A claim takes its time to be confirmed, and no call may start after
// the answer, the word or the request that closed the gate: the command waits as
// though it had come later. A try is meant to go through a channel that is closed.
// The owner's mutex is held.
func (o *owner) shutMeanwhile(l *lane, try bool) bool {
	return o.closed != nil || l.channel != nil && l.channel.closed != nil && (!try || !l.channel.trying) || l.pauseOf() != nil ||
		time.Now().Before(o.pausedUntil) || o.breakers.Opened(l.family(), l.channelID())
}

// whyUnsent is what the timeline tells of a call that was not made for that reason.
func (o *owner) whyUnsent(l *lane) *schema.Error {
	e := &schema.Error{Phase: schema.PhaseNotSent}
	switch {
	case l.channel != nil && l.channel.closed != nil:
		e.Code = l.channel.closed.code
	case o.closed != nil:
		e.Code = o.closed.code
	}
	return e
}

func leaseOver() *schema.Error {
	return &schema.Error{
		Code: CodeLease, Class: schema.ClassRetryable, Phase: schema.PhaseNotSent,
		Description: "the worker's lease ran out between its claim and the call",
	}
}

// expired ends a command whose time is over. That its last call was not made says
// nothing of an earlier one in doubt: then its fate stays unknown.
func expired(c *command) outcome {
	if !c.doubted {
		return final(schema.StateExpired)
	}
	return outcome{step: queue.StepFinal, state: schema.StateDead, err: &schema.Error{
		Code: CodeTimeout, Class: schema.ClassUnknown, Phase: schema.PhaseWritten, Reason: schema.ReasonNoEvidence,
		Description: "an earlier call may have been carried out, and expireAt passed before another",
	}}
}

// conclude makes an outcome durable and tells the world.
//
//	index ──> record ── durable ──> next of the chat, dead letter, event ── durable ──> ack
func (o *owner) conclude(c *command, out outcome) {
	o.mu.Lock()
	o.enter()
	// The slot covers claim and call, until the outcome's record is on its way: another
	// claim follows it on the connection, so that a worker that is killed leaves no more
	// in doubt than it may have in flight.
	over := func() {}
	if c.calling {
		c.calling = false
		s := c.slot
		c.slot = nil
		over = func() {
			o.giveBack(c.lane, s)
			o.pump()
			o.leave()
		}
	}
	if o.dropped {
		over()
		o.lateAnswer(c, out)
		o.recorded(c)
		o.leave()
		o.mu.Unlock()
		return
	}
	o.mu.Unlock()

	var event []byte
	if out.state != "" {
		event = o.encode(c, out)
	}
	if out.messageID != "" && !out.indexed {
		o.index(c, out.messageID)
	}
	r := o.record(c, out.step)
	r.Event, r.Waits = event, c.waits // of one that ended without a claim, or was in doubt
	out.answer.note(r)
	if !out.retryAt.IsZero() {
		r.RetryAt = out.retryAt.UnixMilli()
	}
	if out.step == queue.StepUnknown {
		out.claim = c.claimSeq
	}
	if r.Claim = out.claim; r.Claim > 0 && r.Claim == c.claimSeq {
		r.ClaimAt = c.claimAt.UnixMilli()
	}
	o.ledger.Append(r, c.expect, func(seq uint64, err error) { o.concluded(c, out, r, seq, err) })
	o.mu.Lock()
	defer o.mu.Unlock()
	over()
}

// concluded goes on when the outcome's record is durable, or can never be.
func (o *owner) concluded(c *command, out outcome, r *queue.Record, seq uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.leave() // not before what follows has begun
	o.recorded(c)
	switch {
	case errors.Is(err, queue.ErrConflict):
		o.resolve(c, &out)
		return
	case errors.Is(err, queue.ErrFenced):
		o.lateAnswer(c, out)
		o.lost(err)
		return
	case err != nil:
		return
	}
	c.expect, c.waits = seq, nil
	o.settled(c)
	switch out.step {
	case queue.StepRetry:
		o.announce(c, out.state, r.Event, func() { o.retryAt(c, out.retryAt) })
	case queue.StepUnknown:
		since := time.Now()
		o.announce(c, out.state, r.Event, func() {
			if settled := c.byHand; settled != nil && settled.Sequence > seq {
				o.resume(c, nil, settled) // a person was faster than the PubAck
				return
			}
			o.wonder(c, out.err, since)
		})
	case queue.StepScheduled:
		o.scheduled(c)
	default:
		o.release(c)
		c.messageID = out.messageID
		o.end(c, out.state, r)
		o.pump()
	}
}

// announce publishes the command's event, if there is one; then runs, with the
// mutex held, once it is durable, so that no event overtakes an earlier one.
func (o *owner) announce(c *command, s schema.State, body []byte, then func()) {
	if s == "" || len(body) == 0 {
		then()
		return
	}
	e := queue.Event{
		Subject:     schema.CommandEventSubject(o.cfg.Account, s, c.kind, c.channelID()),
		ID:          c.origin.CommandEventID(o.topology.Commands(), c.generation, c.attempt, s),
		Account:     o.cfg.Account,
		Type:        "wazzup.command." + string(s),
		CESubject:   c.id,
		Time:        time.Now(),
		Body:        body,
		Traceparent: c.traceparent,
		Tracestate:  c.tracestate,
	}
	o.metrics.published(o.ctx, c.kind, s)
	o.enter()
	o.ledger.Publish(e, func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		defer o.leave()
		if err != nil {
			return // stopped: the record has the event, and the next owner publishes it
		}
		if c.replyTo != "" {
			o.reply(c.replyTo, e)
		}
		then()
	})
}

// finish lets go of a command whose end is durable and published.
func (o *owner) finish(c *command) {
	o.ackAll(c)
	o.forget(c)
	o.earlyStatuses(c.messageID)
	o.proveSoon(c)
	o.pump()
}

func (o *owner) ackAll(c *command) {
	o.ack(c, c.delivery)
	for _, other := range c.copies {
		o.ack(c, other.delivery)
	}
}

func (o *owner) ack(c *command, d *queue.Delivery) {
	if d.Source == nil {
		o.unparked(c.lane, d)
		return
	}
	if err := d.Ack(); err != nil {
		o.log.Warn().Err(err).Str("command", c.id).Msg("ack_failed") // it comes again, and its ledger knows
	}
}

// record starts a ledger record of the command.
func (o *owner) record(c *command, step queue.Step) *queue.Record {
	stored := int64(0)
	if c.expect == 0 { // the first of its ledger
		stored = c.stored.UnixMilli()
	}
	r := &queue.Record{
		CommandStored: stored,
		Step:          step, Key: c.ledgerKey, ID: c.id, Nonce: o.nonce(),
		Origin: c.origin, Generation: c.generation,
		Kind: string(c.kind), Channel: c.channel, Fingerprint: c.fingerprint,
		Attempt: c.attempt, Spent: c.spent, Refused: c.refused, Doubted: c.doubted,
		Worker: o.cfg.Worker, At: time.Now().UnixMilli(),
	}
	if c.doubtSeq > 0 {
		r.DoubtSeq, r.DoubtAt = c.doubtSeq, c.doubtAt.UnixMilli()
	}
	return r
}

// index notes which command the vendor's message id belongs to, just ahead of
// the final record on the same connection. Statuses find the command by it, and
// after a crash it proves the answer.
func (o *owner) index(c *command, messageID string) {
	o.ledger.PutIndex(o.indexOf(c, messageID), func(error) {})
}

func (o *owner) indexOf(c *command, messageID string) *queue.Index {
	x := &queue.Index{
		ID: c.id, Origin: c.origin, Generation: c.generation, Attempt: c.attempt,
		Kind: c.kind, ChannelID: c.channelID(), MessageID: messageID,
		Group: c.body.Group, Meta: c.body.Meta,
	}
	if m := c.body.Message; m != nil {
		x.ChatType, x.ChatID = m.ChatType, m.ChatID
	}
	return x
}

// lateAnswer passes on what a worker learned after it had lost its epoch. The
// owner's mutex is held.
func (o *owner) lateAnswer(c *command, out outcome) {
	if out.messageID == "" || out.evidence != nil { // evidence is the new owner's to judge
		return
	}
	o.index(c, out.messageID)
	o.enter()
	o.ledger.PutLate(o.indexOf(c, out.messageID), func(error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.leave()
	})
}

// end tells a durable end, which the record describes, and lets go of the command.
// A dead one is kept as a dead letter first; whoever finds the record after a
// crash does the same again. The owner's mutex is held.
func (o *owner) end(c *command, s schema.State, r *queue.Record) {
	if s != schema.StateDead || c.ledgerKey != queue.LedgerKey(c.id) {
		// Of an id that is another's no letter is kept: it would take the other's
		// place, and redriven it could only end duplicate.
		o.announce(c, s, r.Event, func() { o.finish(c) })
		return
	}
	o.enter()
	buried := func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		defer o.leave()
		if errors.Is(err, queue.ErrStopped) {
			return
		}
		if err != nil {
			o.log.Error().Err(err).Str("command", c.id).Msg("dead_letter_not_kept") // its end is still told
		}
		o.announce(c, s, r.Event, func() { o.finish(c) })
	}
	if err := o.ledger.PutDead(o.deadLetter(c, r), buried); err != nil {
		o.later(func() { buried(err) })
	}
}

// retryAt lets the command go again at a time; its chat waits with it.
func (o *owner) retryAt(c *command, at time.Time) {
	wait := time.Until(at)
	if wait <= 0 {
		o.again(c)
		return
	}
	o.chatWaits(c.chat)
	c.timer = time.AfterFunc(wait, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		c.timer = nil
		if !o.stopping {
			o.again(c)
		}
	})
}

// encode writes the event's JSON.
func (o *owner) encode(c *command, out outcome) []byte {
	e := c.event(o.cfg.Account, &out, time.Now())
	body, err := e.AppendJSON(make([]byte, 0, 512+len(e.Meta)))
	if err != nil {
		// Only meta can be no JSON, and it was checked.
		o.log.Error().Err(err).Str("command", c.id).Msg("event_not_encoded")
	}
	return body
}
