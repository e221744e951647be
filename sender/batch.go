package sender

import (
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// carryBatch takes a sync command that has passed the gates, and those that may go
// along, through one attempt. The owner's mutex is held.
//
//	claim each ── all durable ──> too late? ──> requests ──> conclude each
//
// Every command has a claim and an end of its own, so that a crash at any moment
// leaves each as a crash leaves one that goes alone. A command whose items follow
// another's is claimed when that one is, and its end is recorded when that one's
// is: otherwise a worker that dies in between would leave the older to be sent
// after the newer.
func (o *owner) carryBatch(b *batch) {
	b.claiming++ // until all that can be are begun
	for _, c := range b.commands {
		if c.work.awaits == 0 {
			o.claimFor(b, c)
		}
	}
	b.claiming--
	o.claimsDone(b)
}

func (o *owner) claimFor(b *batch, c *command) {
	b.claiming++
	o.claim(c, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, next := range c.work.after {
			if next.work.awaits--; next.work.awaits == 0 && next.work.batch == b {
				o.claimFor(b, next)
			}
		}
		b.claiming--
		o.claimsDone(b)
	})
}

// claimsDone goes on when every command of the batch is claimed or has left it.
func (o *owner) claimsDone(b *batch) {
	if b.claiming > 0 {
		return
	}
	claimed := b.commands[:0]
	for _, c := range b.commands {
		if c.work.batch == b {
			claimed = append(claimed, c)
		}
	}
	b.commands = claimed
	if len(claimed) == 0 {
		o.endBatch(b)
		return
	}
	o.callers.run(func() { o.makeRequests(b) })
}

// leaveBatch takes a command out whose claim was refused, and puts those that
// follow it back behind it. The owner's mutex is held.
func (o *owner) leaveBatch(c *command) {
	b := c.work.batch
	if b == nil {
		return
	}
	c.work.batch = nil
	for _, next := range c.work.after {
		o.putBack(next)
	}
	b.claiming--
	o.claimsDone(b)
}

func (o *owner) putBack(c *command) {
	if c.work.batch == nil {
		return
	}
	c.work.batch = nil
	c.chat.busy = false
	c.since = time.Now()
	c.chat.waiting.pushFront(c)
	for _, next := range c.work.after {
		o.putBack(next)
	}
}

// makeRequests makes the batch's calls and records what came of them.
func (o *owner) makeRequests(b *batch) {
	if o.sift(b) {
		o.send(b)
	}
	o.mu.Lock()
	o.endBatch(b)
	outcomes := o.outcomes(b)
	var first []*command
	for _, c := range b.commands {
		w := c.work
		w.ended, w.awaits = outcomes[c], 0
		for _, other := range w.before {
			if other.work.batch == b {
				w.awaits++
			}
		}
		if w.awaits == 0 {
			first = append(first, c)
		}
	}
	o.mu.Unlock()
	for _, c := range first {
		o.conclude(c, *outcomes[c])
	}
}

// sift takes out what must not be called any more, with nothing left but the calls;
// false: none may be.
func (o *owner) sift(b *batch) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dropped || !time.Now().Before(o.leaseUntil()) { // see tooLate
		for _, c := range b.commands {
			c.work.failed = &failure{err: leaseOver()}
		}
		return false
	}
	if o.shutMeanwhile(b.lane, false) {
		return false
	}
	for _, c := range b.commands {
		c.work.late = o.tooOld(c)
	}
	return true
}

// outcomes decides what each command of the batch comes to, those first whose items
// others follow. The owner's mutex is held.
func (o *owner) outcomes(b *batch) map[*command]*outcome {
	all := make(map[*command]*outcome, len(b.commands))
	chance := o.random() // the same for all, so that they meet again in one request
	for _, c := range b.commands {
		out := o.comesTo(c, chance)
		for _, other := range c.work.before {
			if before := all[other]; before != nil && before.step != queue.StepFinal && out.step == queue.StepFinal {
				// Its items are sent again, behind those of the other.
				c.work.again()
				out = unsent(nil)
			}
		}
		all[c] = &out
	}
	return all
}

// comesTo is what a command comes to by its items.
func (o *owner) comesTo(c *command, chance float64) outcome {
	out := o.endOf(c, chance)
	if out.step == queue.StepFinal {
		out.answer.status = c.work.status
	}
	return out
}

func (o *owner) endOf(c *command, chance float64) outcome {
	w := c.work
	if w.late != nil {
		return *w.late
	}
	if w.left() > 0 {
		if w.repeat { // in order, or an older one would come after a newer
			w.again()
		}
		return o.failedRequest(c, w.failed, chance)
	}
	refused := w.refused()
	if len(refused) > 0 {
		return rejectedItems(fitting(refused, int(o.nc.MaxPayload())/2))
	}
	if err := w.refusal(); err != nil {
		out := final(schema.StateRejected)
		out.err = err
		return out
	}
	out := final(schema.StateDone)
	if by := w.supersededBy(); by != nil {
		out.supersededBy = by.id
	}
	return out
}

// endBatch gives back what the batch held.
func (o *owner) endBatch(b *batch) {
	if b.ticket != nil {
		b.ticket(false, Verdict{})
		b.ticket = nil
	}
	o.count(b.lane, -1)
	o.gatherMore(b.lane)
	o.offer(b.lane)
	o.pump()
}

// recorded lets those be recorded whose items follow a command's, when its own
// outcome is durable or never will be. The owner's mutex is held.
func (o *owner) recorded(c *command) {
	w := c.work
	if w == nil || w.batch == nil {
		return
	}
	b := w.batch
	w.batch = nil
	for _, next := range w.after {
		if next.work.batch != b {
			continue // it was put back
		}
		if next.work.awaits--; next.work.awaits == 0 && next.work.ended != nil {
			out := *next.work.ended
			next.work.ended = nil
			o.background.Go(func() { o.conclude(next, out) })
		}
	}
}
