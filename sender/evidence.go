package sender

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Timing of a look at the evidence.
const (
	// echoSettle is how long a look waits for what else belongs to the same moment:
	// an echo that comes alone may be followed by another program's equal one, and
	// then neither proves anything.
	echoSettle = 250 * time.Millisecond
	// takeOverSettle is how long a new owner judges nothing: a call that the former
	// owner left unanswered counts, and is known only when its command is delivered.
	takeOverSettle = time.Second
)

// doubt is an attempt whose fate is unknown: what may prove it, and until when
// that is waited for. Owned by the owner's mutex.
type doubt struct {
	subject string // on which the vendor's echo would be stored
	content string
	err     *schema.Error
	reason  schema.Reason // of the end, if nothing proves it
	since   time.Time     // through hand-overs
	ended   bool          // the wait is over; the next look decides
	claim   uint64        // sequence of its claim: evidence is stored after it
	claimed time.Time     // when that was stored, by NATS's clock; zero: not read yet

	// former: the attempt is one of an earlier generation, and the command has not
	// been called in this one. If nothing proves it, it is.
	former bool
}

func (d *doubt) key() queue.DoubtKey { return queue.NewDoubtKey(d.subject, d.content) }

// wonder waits for evidence about an attempt whose fate is unknown. The chat
// waits with it. The owner's mutex is held.
func (o *owner) wonder(c *command, e *schema.Error, since time.Time) {
	m := c.body.Message
	c.unsettled = false
	o.doubt(c, &doubt{
		subject: o.echoSubject(m), content: contentOf(m), err: e,
		reason: schema.ReasonNoEvidence, since: since, claim: c.claimSeq,
	})
	switch {
	case o.cfg.Evidence == EvidenceNone:
		c.doubt.ended = true
		o.look(c.doubt.subject)
	case o.webhooks:
		o.waitForEvidence(c)
	default:
		d := c.doubt
		o.later(func() { o.askForWebhooks(c, d) })
	}
}

func (o *owner) doubt(c *command, d *doubt) {
	c.doubt = d
	o.doubts[d.subject] = append(o.doubts[d.subject], c)
	o.chatWaits(c.chat)
}

func (o *owner) waitForEvidence(c *command) {
	d := c.doubt
	c.timer = time.AfterFunc(max(o.cfg.ReconcileWait-time.Since(d.since), 0), func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		d.ended = true
		o.look(d.subject)
	})
	o.lookSoon(d.subject)
}

// askForWebhooks decides whether waiting makes sense when no webhook has ever
// arrived: it does if an address is registered, for the first may be on its way.
func (o *owner) askForWebhooks(c *command, d *doubt) {
	expected := true
	ctx, cancel := context.WithTimeout(o.ctx, o.cfg.Timeout)
	defer cancel()
	a, err := o.askVendor(ctx, o.client.GetWebhooks)
	if err == nil {
		w, err := wazzup.DecodeWebhooks(a.Body)
		expected = err != nil || w.URL != ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.doubt != d || o.dropped {
		return
	}
	d.reason = schema.ReasonNoWebhooks
	if expected {
		o.waitForEvidence(c)
		return
	}
	d.ended = true
	o.look(d.subject)
}

// lookSoon looks after a moment. The owner's mutex is held.
func (o *owner) lookSoon(subject string) {
	if !o.worthALook(subject) || o.lookTimer[subject] != nil || o.stopping {
		return
	}
	wait := max(min(echoSettle, o.cfg.ReconcileWait/2), time.Until(o.judgesFrom()))
	o.lookTimer[subject] = time.AfterFunc(wait, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.lookTimer, subject)
		o.look(subject)
	})
}

// judgesFrom is when a new owner may have learned of every call that the former
// one left unanswered: a while after every lane with a command was opened.
func (o *owner) judgesFrom() time.Time {
	from := o.discovered
	if from.IsZero() {
		from = time.Now()
	}
	return from.Add(min(takeOverSettle, o.cfg.ReconcileWait/2))
}

// worthALook reports whether evidence about a chat can settle anything.
func (o *owner) worthALook(subject string) bool {
	return len(o.doubts[subject]) > 0 || o.proofs.pending[subject] != nil
}

// look has one chat judged by what is stored now. One look at a time; a wish
// during it is followed by another. The owner's mutex is held.
func (o *owner) look(subject string) {
	switch {
	case o.looking[subject]:
		o.lookAgain[subject] = true
		return
	case o.stopping || !o.worthALook(subject):
		return
	case time.Now().Before(o.judgesFrom()):
		o.lookSoon(subject)
		return
	}
	o.looking[subject] = true
	o.later(func() {
		o.judgeDoubts(subject)
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.looking, subject)
		if o.lookAgain[subject] {
			delete(o.lookAgain, subject)
			o.look(subject)
		}
	})
}

// judgeDoubts reads the evidence about one chat and settles what it settles.
func (o *owner) judgeDoubts(subject string) {
	o.mu.Lock()
	open := slices.Clone(o.doubts[subject])
	waiting := o.proofs.pending[subject]
	contents := waiting.contentsWith(open)
	seen := waiting.last()
	o.mu.Unlock()

	err := o.takeLateAnswers(open)
	var found findings
	if err == nil {
		found, err = o.gather(subject, open, contents)
	}
	var proofs []proof
	settled := false
	if err == nil {
		proofs, settled = o.weigh(subject, found)
	}
	for _, p := range proofs {
		done, proveErr := o.prove(p)
		settled = settled && done && proveErr == nil
		if proveErr != nil {
			err = proveErr
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		if !o.dropped {
			o.log.Warn().Err(err).Msg("evidence_not_judged")
		}
		o.lookSoon(subject)
		return
	}
	if p := o.proofs.pending[subject]; settled && p != nil && p.seen == seen {
		delete(o.proofs.pending, subject)
	}
}

// takeLateAnswers settles doubts whose answer reached a worker that had lost the
// account meanwhile.
func (o *owner) takeLateAnswers(open []*command) error {
	for _, c := range open {
		ctx, cancel := context.WithTimeout(o.ctx, requestTimeout)
		x, err := o.ledger.LateOf(ctx, c.id)
		cancel()
		if err != nil {
			return err
		}
		if x == nil || x.Origin != c.origin {
			continue
		}
		o.mu.Lock()
		if c.doubt != nil {
			out := proven(schema.EvidenceAnswer, x.MessageID)
			if c.doubt.former || x.Attempt == c.attempt {
				out.claim = c.doubt.claim
			}
			o.resolved(c, out)
		}
		o.mu.Unlock()
	}
	return nil
}

// findings is what is stored about one chat.
type findings struct {
	echoes map[string][]echo         // by content: those that were sent since the first attempt in question
	given  map[string][]*queue.Doubt // by content: attempts that were given up and that nothing proved yet
	busy   map[string]bool           // contents of which a call of the former owner is still to be settled
}

// gather reads what is stored about the given contents of a chat.
func (o *owner) gather(subject string, open []*command, contents []string) (findings, error) {
	ctx, cancel := context.WithTimeout(o.ctx, scanTimeout)
	defer cancel()
	f := findings{echoes: make(map[string][]echo), given: make(map[string][]*queue.Doubt), busy: make(map[string]bool)}
	var attempts []attempt
	for _, c := range open {
		s, err := o.dated(ctx, c)
		if err != nil {
			return f, err
		}
		if s.command != nil {
			attempts = append(attempts, s)
		}
	}
	if o.cfg.Evidence == EvidenceNone {
		return f, nil
	}
	for _, content := range contents {
		given, err := o.givenUp(ctx, subject, content)
		if err != nil {
			return f, err
		}
		f.given[content] = given
		for _, d := range given {
			attempts = append(attempts, givenAttempt(d))
		}
	}
	if err := o.readEchoes(ctx, subject, attempts, contents, f.echoes); err != nil {
		return f, err
	}
	for content := range f.echoes {
		if err := o.lookUp(ctx, subject, content, &f); err != nil {
			return f, err
		}
	}
	return f, nil
}

// dated learns when the claim in doubt was stored. The attempt is empty when the
// command is in doubt no more.
func (o *owner) dated(ctx context.Context, c *command) (attempt, error) {
	o.mu.Lock()
	d := c.doubt
	if d == nil { // a late answer settled it
		o.mu.Unlock()
		return attempt{}, nil
	}
	claim, at := d.claim, d.claimed
	own := c.claimAt
	if d.former {
		own = c.doubtAt
	}
	o.mu.Unlock()
	if at.IsZero() {
		var err error
		if at, err = o.ledger.StoredAt(ctx, claim); err != nil {
			return attempt{}, err
		}
		if at.IsZero() { // it has aged out; our own clock is all that is left
			at = own
		}
		o.mu.Lock()
		d.claimed = at
		o.mu.Unlock()
	}
	return attempt{command: c, claim: claim, claimed: at}, nil
}

// readEchoes reads the API echoes of one chat that any of the attempts may own.
func (o *owner) readEchoes(ctx context.Context, subject string, attempts []attempt, contents []string, into map[string][]echo) error {
	if len(attempts) == 0 {
		return nil
	}
	from := slices.MinFunc(attempts, func(a, b attempt) int { return cmp.Compare(a.claim, b.claim) }).claim
	known := make(map[string]bool)
	return o.ledger.Events(ctx, subject, from+1, func(sequence uint64, body []byte) error {
		e, ok := parseEcho(sequence, body)
		// The vendor repeats a message as its state changes.
		if !ok || known[e.messageID] || !slices.Contains(contents, e.content) ||
			!slices.ContainsFunc(attempts, func(s attempt) bool { return s.owns(&e) }) {
			return nil
		}
		known[e.messageID] = true
		into[e.content] = append(into[e.content], e)
		return nil
	})
}

// lookUp finds out whose the echoes of one content are already, which of the
// attempts that were given up stand unproven, and whether a call of the former
// owner is still to be settled.
func (o *owner) lookUp(ctx context.Context, subject, content string, f *findings) error {
	echoes := f.echoes[content]
	for i := range echoes {
		x, err := o.ledger.IndexOf(ctx, echoes[i].messageID)
		if err != nil {
			return err
		}
		echoes[i].of = x
	}
	var standing []*queue.Doubt
	for _, d := range f.given[content] {
		stands, err := o.stands(ctx, d)
		if err != nil {
			return err
		}
		if stands {
			standing = append(standing, d)
		}
	}
	f.given[content] = standing
	busy, err := o.leftUnderWay(ctx, subject, content)
	f.busy[content] = busy
	return err
}

// leftUnderWay reports whether a command of equal content, which this owner has
// not come to yet, was under way when the former one ended.
func (o *owner) leftUnderWay(ctx context.Context, subject, content string) (bool, error) {
	var fresh []*command
	o.mu.Lock()
	for _, c := range o.commands {
		if c.expect == 0 && c.attempt == 0 && !c.unsettled && c.stored.Before(o.owned) && o.equal(c, subject, content) {
			fresh = append(fresh, c)
		}
	}
	o.mu.Unlock()
	for _, c := range fresh {
		last, err := o.ledger.Last(ctx, c.ledgerKey)
		if err != nil {
			return false, err
		}
		if last != nil && last.Origin == c.origin && (last.Step == queue.StepClaim || last.Step == queue.StepUnknown) {
			return true, nil
		}
	}
	return false, nil
}

// weigh settles what the findings settle, and returns what they prove of attempts
// that were given up. settled is false when something must be looked at again
// later.
func (o *owner) weigh(subject string, f findings) (proofs []proof, settled bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dropped || o.lookAgain[subject] {
		// A call got its outcome while we were reading, and its message id may be on
		// what we read: the next look, which follows at once, knows.
		return nil, false
	}
	settled = true
	for content, echoes := range f.echoes {
		if f.busy[content] || o.unanswered(subject, content) {
			settled = false
			continue
		}
		proofs = append(proofs, o.assign(subject, content, echoes, f.given[content])...)
	}
	for _, c := range slices.Clone(o.doubts[subject]) {
		d := c.doubt
		if !d.ended || d.claimed.IsZero() || o.unanswered(subject, d.content) {
			continue
		}
		if d.former {
			if !f.busy[d.content] {
				o.callAfterAll(c)
			}
			continue
		}
		o.resolved(c, o.unresolved(c))
	}
	return proofs, settled
}

// assign leads the echoes of one content to the attempts that they prove. The
// owner's mutex is held.
func (o *owner) assign(subject, content string, echoes []echo, given []*queue.Doubt) (proofs []proof) {
	var doubted []*command
	for _, c := range o.doubts[subject] {
		if c.doubt.content == content {
			doubted = append(doubted, c)
		}
	}
	// A message id that is on a command says whose it is.
	var free []echo
	for _, e := range echoes {
		if e.of == nil {
			free = append(free, e)
			continue
		}
		if i := slices.IndexFunc(doubted, func(c *command) bool { return c.origin == e.of.Origin }); i >= 0 {
			o.provenBy(doubted[i], &e, doubted[i].doubt.claim)
			doubted = slices.Delete(doubted, i, i+1)
			continue
		}
		if i := slices.IndexFunc(given, func(d *queue.Doubt) bool { return sameAttempt(&d.Index, e.of) }); i >= 0 {
			proofs = append(proofs, proofBy(given[i], &e))
			given = slices.Delete(slices.Clone(given), i, i+1)
		}
	}
	attempts := attemptsOf(doubted, given)
	for i, s := range match(attempts, free) {
		if s < 0 {
			continue
		}
		switch at := attempts[s]; {
		case at.command != nil && at.command.doubt != nil:
			o.provenBy(at.command, &free[i], at.claim)
		case at.given != nil:
			proofs = append(proofs, proofBy(at.given, &free[i]))
		}
	}
	return proofs
}

// attemptsOf are the attempts that echoes of one content may belong to. What was
// given up of a command that is in doubt itself proves that command, too.
func attemptsOf(doubted []*command, given []*queue.Doubt) []attempt {
	attempts := make([]attempt, 0, len(doubted)+len(given))
	for _, c := range doubted {
		attempts = append(attempts, attempt{command: c, claim: c.doubt.claim, claimed: c.doubt.claimed})
	}
	for _, d := range given {
		s := givenAttempt(d)
		if i := slices.IndexFunc(doubted, func(c *command) bool { return c.origin == d.Origin }); i >= 0 {
			if s.claim == doubted[i].doubt.claim {
				continue // the same attempt: it is looked for again
			}
			s.command = doubted[i]
		}
		attempts = append(attempts, s)
	}
	return attempts
}

func givenAttempt(d *queue.Doubt) attempt {
	return attempt{given: d, claim: d.Claim, claimed: time.UnixMilli(d.ClaimAt)}
}

// unanswered reports whether a call of equal content to a chat, in either class,
// has no outcome yet. When it has, the chat is looked at again.
func (o *owner) unanswered(subject, content string) bool {
	for _, c := range o.commands {
		if c.unsettled && c.doubt == nil && o.equal(c, subject, content) {
			return true
		}
	}
	return false
}

// equal reports whether a command's echo could be taken for another's of that
// chat and content.
func (o *owner) equal(c *command, subject, content string) bool {
	if c.body == nil || c.body.Message == nil {
		return false
	}
	return o.echoSubject(c.body.Message) == subject && contentOf(c.body.Message) == content
}

// settled looks again at a chat when one of its calls has got its outcome. The
// owner's mutex is held.
func (o *owner) settled(c *command) {
	c.unsettled = false
	if c.body.Message == nil {
		return
	}
	o.examineLate(c.origin)
	if len(o.doubts) > 0 || len(o.proofs.pending) > 0 {
		o.look(o.echoSubject(c.body.Message))
	}
}

// provenBy ends a doubt by an echo. The owner's mutex is held.
func (o *owner) provenBy(c *command, e *echo, claim uint64) {
	out := proven(schema.EvidenceEcho, e.messageID)
	out.claim = claim
	o.resolved(c, out)
}

// resolved ends a doubt. An attempt whose message nobody knows is noted first, so
// that it counts for as long as its echo may come. The owner's mutex is held.
func (o *owner) resolved(c *command, out outcome) {
	d := o.endDoubt(c)
	c.unsettled = true // until its end is durable: what proved it proves nothing else
	then := func() { o.conclude(c, out) }
	if out.messageID != "" {
		out.indexed = true
		then = func() { o.indexFirst(c, out) }
	}
	if d.former || out.messageID != "" && out.claim == d.claim {
		o.later(then)
		return
	}
	if out.messageID == "" {
		out.claim = d.claim
	}
	o.leaveDoubt(c, d, then)
}

// indexFirst makes durable whose message an echo or a late answer speaks of before
// the command ends by it: once that end is known, an equal doubt is judged, and
// must find the message id taken.
//
// The index is not fenced, so the epoch is looked at first: what a former owner
// makes of echoes must not stand against what the present one does.
func (o *owner) indexFirst(c *command, out outcome) {
	ctx, cancel := context.WithTimeout(o.ctx, requestTimeout)
	owned, err := o.ledger.Owned(ctx)
	cancel()
	o.mu.Lock()
	if err == nil && !owned {
		o.lost(queue.ErrFenced)
		o.mu.Unlock()
		return
	}
	o.enter()
	o.mu.Unlock()
	o.ledger.PutIndex(o.indexOf(c, out.messageID), func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.leave()
		if err == nil {
			o.later(func() { o.conclude(c, out) })
		} // stopped: the next owner finds the unknown, and judges again
	})
}

// endDoubt has nothing wait any more for what would settle the command.
func (o *owner) endDoubt(c *command) *doubt {
	d := c.doubt
	c.doubt = nil
	c.waited(gateEvidence, time.Since(d.since), whyEvidence)
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	left := slices.DeleteFunc(o.doubts[d.subject], func(other *command) bool { return other == c })
	if len(left) == 0 {
		delete(o.doubts, d.subject)
	} else {
		o.doubts[d.subject] = left
	}
	return d
}

func proven(kind schema.EvidenceKind, messageID string) outcome {
	out := final(schema.StateSent)
	out.messageID = messageID
	out.evidence = &schema.Evidence{Kind: kind, MessageID: messageID}
	return out
}

// unresolved is what becomes of an unknown that nothing proved.
func (o *owner) unresolved(c *command) outcome {
	d := c.doubt
	e := *d.err
	if c.body.Message.OnUnknown == schema.OnUnknownResend {
		c.doubted = true
		return o.retry(c, &e, true)
	}
	e.Reason = d.reason
	if e.Reason == schema.ReasonNoWebhooks && o.webhooks { // the first came meanwhile
		e.Reason = schema.ReasonNoEvidence
	}
	return outcome{step: queue.StepFinal, state: schema.StateDead, err: &e}
}
