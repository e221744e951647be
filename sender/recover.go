package sender

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// resolve asks the ledger what to do with a command whose write was refused
// because another record came first. pending is the outcome that was to be
// written; nil for a claim. The owner's mutex is held.
func (o *owner) resolve(c *command, pending *outcome) {
	o.enter()
	o.background.Go(func() {
		last, ok := o.lastRecord(c)
		o.mu.Lock()
		defer o.mu.Unlock()
		defer o.leave()
		if ok && !o.dropped {
			o.decide(c, pending, last)
		}
	})
}

// lastRecord reads until it gets an answer, or the owner ends.
func (o *owner) lastRecord(c *command) (*queue.Record, bool) {
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(o.ctx, requestTimeout)
		last, err := o.ledger.Last(ctx, c.ledgerKey)
		cancel()
		if err == nil {
			return last, true
		}
		o.log.Warn().Err(err).Str("command", c.id).Msg("ledger_read_failed")
		if !o.pause(try) {
			return nil, false
		}
	}
}

// decide is the whole of recovery: what the last record of a ledger says about a
// message that wants to write the next one.
func (o *owner) decide(c *command, pending *outcome, last *queue.Record) {
	switch {
	case last == nil: // its records have aged out
		c.expect = 0
		o.proceed(c, pending)
	case last.Step == queue.StepCancel && last.Origin == (queue.Origin{}):
		o.meetCancel(c, pending, last)
	case last.Origin == c.origin && last.Generation == c.generation:
		o.resume(c, pending, last)
	case last.Origin == c.origin && last.Generation < c.generation: // redriven
		c.expect, c.attempt = last.Sequence, last.Attempt
		c.learnDoubt(last)
		o.proceed(c, pending)
	case last.Origin == c.origin: // it ended, and was redriven before its message was acknowledged
		o.later(func() { o.resumeEnded(c) })
	case takesID(pending) && last.Step == queue.StepInvalid: // that one left the id free
		c.expect = last.Sequence
		o.proceed(c, pending)
	default:
		o.idTaken(c, pending, last)
	}
}

// meetCancel is for a command whose id was cancelled before anybody had seen it.
// One that was stored later is none of those that were meant.
func (o *owner) meetCancel(c *command, pending *outcome, last *queue.Record) {
	c.expect = last.Sequence
	if takesID(pending) && c.origin.Created == o.topology.Created.UnixNano() && c.origin.Seq <= last.Until {
		o.later(func() { o.conclude(c, final(schema.StateCancelled)) })
		return
	}
	o.proceed(c, pending)
}

// takesID reports whether the refused write was to claim or to schedule the
// command, rather than to end it unclaimed.
func takesID(pending *outcome) bool { return pending == nil || pending.step == queue.StepScheduled }

// proceed goes on after what was refused: with the outcome, or with a new claim.
func (o *owner) proceed(c *command, pending *outcome) {
	if pending == nil {
		o.again(c)
		return
	}
	out := *pending
	o.later(func() { o.conclude(c, out) })
}

// idTaken ends a command whose id belongs to another message. Its end is written
// to a ledger of its own, so that the other's is not disturbed.
func (o *owner) idTaken(c *command, pending *outcome, last *queue.Record) {
	c.ledgerKey, c.expect = c.origin.LedgerKey(), 0
	out := outcome{}
	switch {
	case !takesID(pending): // invalid, or too old
		out = *pending
	case last.Fingerprint == c.fingerprint:
		out = final(schema.StateDuplicate)
		out.original = &schema.Original{State: stateOf(last), Seq: last.Origin.Seq}
	default:
		out = invalid([]schema.Fault{schema.NewFault("id", schema.FaultIDReused)})
	}
	o.later(func() { o.conclude(c, out) })
}

// stateOf is the last published state that a record speaks of.
func stateOf(r *queue.Record) schema.State {
	var e struct {
		State schema.State `json:"state"`
	}
	if len(r.Event) > 0 && json.Unmarshal(r.Event, &e) == nil && e.State != "" {
		return e.State
	}
	switch r.Step {
	case queue.StepUnknown:
		return schema.StateUnknown
	case queue.StepDropped:
		return schema.StateDead
	default:
		return schema.StatePending
	}
}

// endAgain finishes a command whose end is durable, though its event may not be:
// tell does it. Within the server's duplicate window publishing it again does no
// harm; beyond it, look first.
func (o *owner) endAgain(c *command, last *queue.Record, tell func(*command, schema.State, *queue.Record)) {
	state := stateOf(last)
	if time.Since(last.Stored) < o.topology.Limits.DedupeWindow*9/10 {
		tell(c, state, last)
		return
	}
	o.later(func() {
		ctx, cancel := context.WithTimeout(o.ctx, scanTimeout)
		defer cancel()
		stored, err := o.ledger.EventStored(ctx, schema.CommandEventSubject(o.cfg.Account, state, c.kind, c.channelID()),
			c.origin.CommandEventID(o.topology.Commands(), last.Generation, last.Attempt, state), last.Sequence)
		o.mu.Lock()
		defer o.mu.Unlock()
		switch {
		case err != nil:
			o.log.Warn().Err(err).Str("command", c.id).Msg("event_not_looked_up")
			o.retryEnd(c, last, tell)
		case stored:
			o.finish(c)
		default:
			tell(c, state, last)
		}
	})
}

// tell is end without the dead letter, for an end that something has followed: a
// letter was there before it was redriven or dropped, and may be gone for good.
func (o *owner) tell(c *command, s schema.State, r *queue.Record) {
	o.announce(c, s, r.Event, func() { o.finish(c) })
}

func (o *owner) retryEnd(c *command, last *queue.Record, tell func(*command, schema.State, *queue.Record)) {
	c.timer = time.AfterFunc(o.cfg.Backoff.Delay(1, o.random), func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !o.stopping {
			o.endAgain(c, last, tell)
		}
	})
}

// errorOf is the error that a record's event tells.
func errorOf(r *queue.Record) *schema.Error {
	var e schema.CommandEvent
	if json.Unmarshal(r.Event, &e) == nil && e.Error != nil {
		return e.Error
	}
	return &schema.Error{Code: CodeConnection, Class: schema.ClassUnknown, Phase: schema.PhaseWritten}
}

// resume goes on with a command that was under way before a crash, a hand-over
// or a lost connection.
func (o *owner) resume(c *command, pending *outcome, last *queue.Record) {
	if !last.Step.Ended() && c.chat == nil {
		if pending != nil && !takesID(pending) && last.Step == queue.StepRetry {
			c.expect, c.attempt = last.Sequence, last.Attempt
			o.proceed(c, pending) // it was surely without effect, and must not be called again
			return
		}
		if last.Step == queue.StepScheduled && o.defers(c) {
			c.expect = last.Sequence
			o.scheduled(c)
			return
		}
		// It goes on from its place in its chat: the claim meets this record again.
		o.enqueue(c)
		o.pump()
		return
	}
	c.expect, c.attempt, c.spent, c.refused = last.Sequence, last.Attempt, last.Spent, last.Refused
	c.learnDoubt(last)
	switch last.Step {
	case queue.StepFinal, queue.StepInvalid:
		// The end is durable; whether its event is, nobody knows. It has the same
		// id as before, so publishing it again does no harm.
		o.noteDoubt(c, last, func() {
			c.messageID = messageOf(last)
			o.release(c)
			o.endAgain(c, last, o.end)
			o.pump()
		})
	case queue.StepStatus, queue.StepProof, queue.StepDropped:
		o.later(func() { o.resumeEnded(c) })
	case queue.StepRetry:
		o.noteDoubt(c, last, func() {
			o.announce(c, stateOf(last), last.Event, func() { o.retryAt(c, time.UnixMilli(last.RetryAt)) })
		})
	case queue.StepUnknown:
		c.claimSeq, c.claimAt = last.Claim, time.UnixMilli(last.ClaimAt)
		o.announce(c, stateOf(last), last.Event, func() { o.wonder(c, errorOf(last), last.Stored) })
	case queue.StepScheduled, queue.StepRedrive:
		o.again(c) // its time has come; a copy that the server fires is the same command
	case queue.StepCancel:
		o.later(func() { o.conclude(c, final(schema.StateCancelled)) })
	case queue.StepClaim:
		o.crashed(c, last)
	}
}

// resumeEnded finishes a command whose end is durable and was followed by a
// status, a proof or a redrive: the event of the end may be missing all the same.
func (o *owner) resumeEnded(c *command) {
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(o.ctx, scanTimeout)
		records, err := o.ledger.Timeline(ctx, c.ledgerKey)
		cancel()
		if err == nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.settled(c)
			o.release(c)
			o.endedBefore(c, records)
			o.pump()
			return
		}
		o.log.Warn().Err(err).Str("command", c.id).Msg("ledger_read_failed")
		if !o.pause(try) {
			return
		}
	}
}

// endedBefore tells the end that stands somewhere in a command's records.
func (o *owner) endedBefore(c *command, records []*queue.Record) {
	for _, r := range slices.Backward(records) {
		if (r.Step == queue.StepFinal || r.Step == queue.StepInvalid) && r.Origin == c.origin && r.Generation == c.generation {
			c.expect, c.attempt = r.Sequence, r.Attempt
			o.endAgain(c, r, o.tell)
			return
		}
	}
	o.finish(c) // only what followed is left within retention
}

// crashed handles a claim without an outcome: the worker that wrote it died, or
// lost the account, between the claim and its record.
func (o *owner) crashed(c *command, claim *queue.Record) {
	if !c.kind.IsMessage() {
		out := o.retry(c, &schema.Error{
			Code: CodeConnection, Class: schema.ClassRetryable, Phase: schema.PhaseClaimed,
			Description: "the worker ended after its claim; the call may be repeated",
		}, true)
		o.later(func() { o.conclude(c, out) })
		return
	}
	c.claimSeq, c.claimAt, c.unsettled = claim.Sequence, time.UnixMilli(claim.At), true
	o.later(func() {
		x, ok := o.answers.of(o, claim)
		switch {
		case !ok: // the owner ends: the next one asks again
		case x != nil:
			o.conclude(c, proven(schema.EvidenceAnswer, x.MessageID))
		default:
			o.conclude(c, unknown(&schema.Error{
				Code: CodeConnection, Class: schema.ClassUnknown, Phase: schema.PhaseClaimed,
				Description: "the worker ended after its claim; whether it called is not known",
			}))
		}
	})
}

// formerAnswers knows the answers that former owners noted and had no time to
// record as final. It reads the index once for all claims that need it, from the
// oldest of them up to the beginning of this epoch.
type formerAnswers struct {
	mu    sync.Mutex
	until uint64 // the last record of any former epoch
	from  uint64 // what is known begins here; 0 = nothing is
	known map[queue.Origin]*queue.Index
}

// scanStep is how far, in records, each reading goes back beyond the claim that
// caused it, so that its neighbours find theirs known.
const scanStep = 4096

// of returns the answer to a claim, nil if there was none; ok is false when the
// owner ended first.
func (f *formerAnswers) of(o *owner, claim *queue.Record) (x *queue.Index, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.from == 0 {
		f.from, f.known = f.until+1, make(map[queue.Origin]*queue.Index)
	}
	for try := 1; claim.Sequence < f.from; try++ {
		from := claim.Sequence - min(claim.Sequence-1, scanStep)
		ctx, cancel := context.WithTimeout(o.ctx, scanTimeout)
		found, err := o.ledger.Answers(ctx, from, f.from-1)
		cancel()
		if err == nil {
			maps.Copy(f.known, found)
			f.from = from
			break
		}
		o.log.Warn().Err(err).Msg("index_scan_failed")
		if !o.pause(try) {
			return nil, false
		}
	}
	if x = f.known[claim.Origin]; x != nil && x.Generation != claim.Generation {
		x = nil
	}
	return x, true
}

// pause waits before a read is tried again; false: the owner ends.
func (o *owner) pause(try int) bool {
	timer := time.NewTimer(o.cfg.Backoff.Delay(try, o.random))
	defer timer.Stop()
	select {
	case <-o.ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// retry lets a command be claimed again after a pause; one that used up its
// attempts is dead.
func (o *owner) retry(c *command, e *schema.Error, spends bool) outcome {
	if spends {
		c.spent++
	}
	if c.spent >= o.cfg.MaxAttempts {
		dead := *e
		dead.Reason = schema.ReasonAttempts
		return outcome{step: queue.StepFinal, state: schema.StateDead, err: &dead}
	}
	return outcome{
		step: queue.StepRetry, state: schema.StateRetrying, err: e,
		retryAt: time.Now().Add(o.cfg.Backoff.Delay(max(c.attempt, 1), o.random)),
	}
}
