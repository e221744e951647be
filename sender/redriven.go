package sender

import (
	"context"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// evidenceFirst takes a redriven command, an earlier attempt of which is in doubt,
// out of its chat's queue until its evidence was looked for: if it turns out to
// have been carried out, it must not be called. The chat waits with it. It is
// false for every other command, and for one that was looked at. The owner's mutex
// is held.
func (o *owner) evidenceFirst(ch *chat) bool {
	c := ch.waiting.peek()
	if c.generation == 0 || c.doubtSeq == 0 || c.lookedFirst || c.body.Message == nil {
		return false
	}
	c.lookedFirst = true
	ch.waiting.pop()
	ch.busy = true
	o.later(func() { o.lookFirst(c) })
	return true
}

// lookFirst looks into the command's own ledger and the index, and then has the
// echoes of its chat judged.
func (o *owner) lookFirst(c *command) {
	records, ok := o.timelineOf(c)
	if !ok {
		return // the owner ends
	}
	out, wait := o.formerProof(c, records)
	if wait {
		var x *queue.Index
		if x, ok = o.formerAnswer(c, records); !ok {
			return
		}
		if x != nil {
			out = provenFormer(c, schema.EvidenceAnswer, x.MessageID)
		}
	}
	if out != nil {
		o.conclude(c, *out)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !wait {
		o.again(c)
		return
	}
	m := c.body.Message
	o.doubt(c, &doubt{
		subject: o.echoSubject(m), content: contentOf(m), reason: schema.ReasonNoEvidence, since: time.Now(), ended: true,
		err:   &schema.Error{Code: CodeConnection, Class: schema.ClassUnknown, Phase: schema.PhaseWritten},
		claim: c.doubtSeq, former: true,
	})
	o.look(c.doubt.subject)
}

// formerProof takes from the ledger what the next record must know, and the proof
// if it holds one. wait is true when there is a doubt to look into: not if the
// command was called in this generation already, or the ledger is another's.
func (o *owner) formerProof(c *command, records []*queue.Record) (out *outcome, wait bool) {
	if len(records) == 0 {
		return nil, false
	}
	last := records[len(records)-1]
	called := last.Generation == c.generation && last.Step != queue.StepRedrive && last.Step != queue.StepScheduled
	if last.Origin != c.origin || last.Generation > c.generation || called || last.Generation < c.generation && !last.Step.Ended() {
		return nil, false // the claim meets this record, and recovery decides
	}
	o.mu.Lock()
	c.expect, c.attempt = last.Sequence, last.Attempt
	c.learnDoubt(last)
	o.mu.Unlock()
	for _, r := range records {
		if r.Origin == c.origin && r.Step == queue.StepProof && r.MessageID != "" {
			return provenFormer(c, schema.EvidenceKind(r.Evidence), r.MessageID), false
		}
	}
	return nil, true
}

// provenFormer ends the command by what proves an attempt of an earlier generation.
func provenFormer(c *command, kind schema.EvidenceKind, messageID string) *outcome {
	out := proven(kind, messageID)
	out.claim = c.doubtSeq
	return &out
}

// timelineOf reads until it gets an answer, or the owner ends.
func (o *owner) timelineOf(c *command) ([]*queue.Record, bool) {
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(o.ctx, scanTimeout)
		records, err := o.ledger.Timeline(ctx, c.ledgerKey)
		cancel()
		if err == nil {
			return records, true
		}
		o.log.Warn().Err(err).Str("command", c.id).Msg("ledger_read_failed")
		if !o.pause(try) {
			return nil, false
		}
	}
}

// formerAnswer looks for an answer that a worker noted in the index and had no
// time to pass on: between the claim in doubt and the end that gave it up. What
// came later was passed on, or its echo leads to it.
func (o *owner) formerAnswer(c *command, records []*queue.Record) (x *queue.Index, ok bool) {
	until := uint64(0)
	for _, r := range records {
		if r.Origin == c.origin && r.Generation < c.generation && r.Step == queue.StepFinal {
			until = r.Sequence
		}
	}
	if until <= c.doubtSeq {
		return nil, true
	}
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(o.ctx, scanTimeout)
		x, err := o.ledger.AnswerOf(ctx, c.origin, c.doubtSeq, until)
		cancel()
		if err == nil {
			return x, true
		}
		o.log.Warn().Err(err).Str("command", c.id).Msg("index_scan_failed")
		if !o.pause(try) {
			return nil, false
		}
	}
}

// callAfterAll lets a redriven command go on to its call: nothing proves its
// earlier attempt. The owner's mutex is held.
func (o *owner) callAfterAll(c *command) {
	o.endDoubt(c)
	o.again(c)
}
