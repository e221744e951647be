package sender

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Proof that comes after the end. An attempt that is given up is noted in the
// records (queue.Doubt), and what proves it later is led to its command:
//
//	echo or late answer ──> proof in the ledger ──> operator event ──> index
//
// The index is last: a message id that it leads to an attempt is wholly told. The
// place in the stream of evidence is kept, so that what is stored while nobody
// owns the account is met by the next owner.

const (
	// evidenceEvery is how often the place in the stream of evidence is noted; what
	// came since is read again by the next owner.
	evidenceEvery = 10 * time.Second
	// doubtsKept is how much longer than the ledger an owner remembers that
	// something was given up.
	doubtsKept = time.Hour
)

// stateEvidence is where the owner notes up to where evidence is handled.
const stateEvidence = "evidence"

// proofs is what an owner knows of attempts that were given up. Owned by the
// owner's mutex.
type proofs struct {
	doubted map[queue.DoubtKey]time.Time // something of this chat and content was given up: this owner learned of it then
	pending map[string]*pendingLook      // by the subject of the chat's echoes
	late    map[queue.Origin][]lateAnswer
	handled uint64 // sequence of the last evidence that was taken in
	noted   uint64 // the position that is stored
}

// pendingLook is evidence about a chat that was not judged yet, or could not be.
type pendingLook struct {
	contents map[string]struct{}
	first    uint64 // sequence of the oldest of it
	seen     uint64 // how often more came
}

// lateAnswer is a late answer whose command has not ended yet, or was not looked
// at yet.
type lateAnswer struct {
	index    *queue.Index
	sequence uint64
}

// contentsWith returns the contents in question, with those of the doubts.
func (p *pendingLook) contentsWith(open []*command) []string {
	all := make(map[string]struct{})
	if p != nil {
		for c := range p.contents {
			all[c] = struct{}{}
		}
	}
	for _, c := range open {
		all[c.doubt.content] = struct{}{}
	}
	contents := make([]string, 0, len(all))
	for c := range all {
		contents = append(contents, c)
	}
	return contents
}

func (p *pendingLook) last() uint64 {
	if p == nil {
		return 0
	}
	return p.seen
}

// pend notes that evidence of a content came to a chat. The owner's mutex is held.
func (o *owner) pend(subject, content string, sequence uint64) {
	p := o.proofs.pending[subject]
	if p == nil {
		p = &pendingLook{contents: make(map[string]struct{}), first: sequence}
		o.proofs.pending[subject] = p
	}
	p.contents[content] = struct{}{}
	p.first = min(p.first, sequence)
	p.seen++
}

// leaveDoubt notes an attempt that is given up; then runs when that is durable.
// The owner's mutex is held.
func (o *owner) leaveDoubt(c *command, d *doubt, then func()) {
	if !c.doubted || c.doubtSeq == 0 {
		c.doubted, c.doubtSeq, c.doubtAt = true, d.claim, d.claimed
	}
	note := &queue.Doubt{Index: *o.indexOf(c, ""), Claim: d.claim, ClaimAt: d.claimed.UnixMilli()}
	o.enter()
	noted := func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.leave()
		if errors.Is(err, queue.ErrStopped) {
			return // the next owner finds the unknown, and judges again
		}
		if err != nil {
			o.log.Error().Err(err).Str("command", c.id).Msg("doubt_not_noted") // its end is still told
		}
		// Its echo may have come since the evidence was read.
		o.proofs.doubted[d.key()] = time.Now()
		o.pend(d.subject, d.content, d.claim)
		o.later(then)
	}
	if err := o.ledger.PutDoubt(d.key(), note, noted); err != nil {
		o.later(func() { noted(err) })
	}
}

// noteDoubt sees to it that an attempt which the record gives up is noted: a person
// may have settled it, or the one who wrote the record ended there. then runs when
// that is durable, at once if the record gives up none. The owner's mutex is held,
// and is when then runs.
func (o *owner) noteDoubt(c *command, r *queue.Record, then func()) {
	if r.Claim == 0 || messageOf(r) != "" || c.body.Message == nil {
		o.settled(c)
		then()
		return
	}
	c.unsettled = true // it may own an echo that is judged now
	d := &doubt{subject: o.echoSubject(c.body.Message), content: contentOf(c.body.Message), claim: r.Claim, claimed: time.UnixMilli(r.ClaimAt)}
	o.later(func() {
		for try := 1; ; try++ {
			ctx, cancel := context.WithTimeout(o.ctx, requestTimeout)
			at, err := o.ledger.StoredAt(ctx, r.Claim)
			cancel()
			if err == nil {
				if !at.IsZero() {
					d.claimed = at
				}
				break
			}
			o.log.Warn().Err(err).Str("command", c.id).Msg("ledger_read_failed")
			if !o.pause(try) {
				return
			}
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.leaveDoubt(c, d, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.dropped {
				return
			}
			o.settled(c)
			then()
		})
	})
}

// givenUp reads the attempts of a chat and content that were given up.
func (o *owner) givenUp(ctx context.Context, subject, content string) ([]*queue.Doubt, error) {
	key := queue.NewDoubtKey(subject, content)
	o.mu.Lock()
	_, some := o.proofs.doubted[key]
	o.mu.Unlock()
	if !some {
		return nil, nil
	}
	return o.ledger.Doubts(ctx, key)
}

// stands reports whether the message of an attempt that was given up is still not
// known.
func (o *owner) stands(ctx context.Context, d *queue.Doubt) (bool, error) {
	records, err := o.ledger.Timeline(ctx, queue.LedgerKey(d.ID))
	if err != nil {
		return false, err
	}
	for _, r := range records {
		if r.Origin == d.Origin && r.Claim == d.Claim && messageOf(r) != "" {
			return false, nil
		}
	}
	return true, nil
}

// messageOf is the vendor's message id that a record speaks of as the command's.
func messageOf(r *queue.Record) string {
	switch r.Step {
	case queue.StepProof:
		return r.MessageID
	case queue.StepFinal:
		var e struct {
			MessageID string `json:"messageId"`
		}
		if json.Unmarshal(r.Event, &e) == nil {
			return e.MessageID
		}
	case queue.StepClaim, queue.StepRetry, queue.StepUnknown, queue.StepInvalid, queue.StepScheduled,
		queue.StepCancel, queue.StepRedrive, queue.StepStatus, queue.StepDropped:
	}
	return ""
}

func sameAttempt(a, b *queue.Index) bool {
	return a.Origin == b.Origin && a.Generation == b.Generation && a.Attempt == b.Attempt
}

// proof is what shows, after all, that an attempt was carried out.
type proof struct {
	index queue.Index // the command, its attempt and the message id
	kind  schema.EvidenceKind
	claim uint64 // the attempt's; 0: not known, its ledger tells
}

func proofBy(d *queue.Doubt, e *echo) proof {
	p := proof{index: d.Index, kind: schema.EvidenceEcho, claim: d.Claim}
	p.index.MessageID = e.messageID
	return p
}

// prove leads a proof to a command that has ended; done is false if it has not, or
// if its end is not told yet. A proof that is told already, or is the command's end itself, adds nothing.
func (o *owner) prove(p proof) (done bool, err error) {
	for {
		done, err = o.tryProve(p)
		if !errors.Is(err, queue.ErrConflict) {
			return done, err
		}
	}
}

func (o *owner) tryProve(p proof) (done bool, err error) {
	ctx, cancel := context.WithTimeout(o.ctx, scanTimeout)
	defer cancel()
	records, err := o.ledger.Timeline(ctx, queue.LedgerKey(p.index.ID))
	if err != nil {
		return false, err
	}
	if len(records) == 0 || records[len(records)-1].Origin != p.index.Origin {
		return true, nil // forgotten
	}
	for _, r := range records {
		if messageOf(r) == p.index.MessageID && r.Origin == p.index.Origin {
			if r.Step == queue.StepProof {
				return true, o.tellProof(ctx, p, r)
			}
			return true, nil
		}
	}
	last := records[len(records)-1]
	if !last.Step.Ended() {
		return false, nil
	}
	if told, err := o.endTold(ctx, &p.index, last); err != nil || !told {
		return false, err
	}
	r := o.proofRecord(p, records)
	written := make(chan error, 1)
	o.ledger.Append(r, last.Sequence, func(seq uint64, err error) {
		r.Sequence, r.Stored = seq, time.Now()
		written <- err
	})
	if err := <-written; err != nil {
		if errors.Is(err, queue.ErrFenced) {
			o.mu.Lock()
			o.lost(err)
			o.mu.Unlock()
		}
		return false, err
	}
	return true, o.tellProof(ctx, p, r)
}

// proofRecord is the record that follows a command's end. It carries on what the
// last record said of the command, its last event included: whoever asks for the
// command's state finds it there.
func (o *owner) proofRecord(p proof, records []*queue.Record) *queue.Record {
	last := records[len(records)-1]
	r := &queue.Record{
		Step: queue.StepProof, Key: queue.LedgerKey(p.index.ID), ID: p.index.ID, Nonce: o.nonce(),
		Origin: last.Origin, Generation: last.Generation, Kind: last.Kind, Channel: last.Channel, Fingerprint: last.Fingerprint,
		Attempt: last.Attempt, Spent: last.Spent, Refused: last.Refused,
		Doubted: last.Doubted, DoubtSeq: last.DoubtSeq, DoubtAt: last.DoubtAt,
		Worker: o.cfg.Worker, At: time.Now().UnixMilli(),
		Claim: p.claim, MessageID: p.index.MessageID, Evidence: string(p.kind),
	}
	for _, known := range records {
		if len(known.Event) > 0 && known.Origin == last.Origin {
			r.Event = known.Event
		}
		if r.Claim == 0 && known.Step == queue.StepClaim && known.Origin == last.Origin && known.Attempt == p.index.Attempt {
			r.Claim = known.Sequence
		}
	}
	return r
}

// proofDetail is what an operator is told of a late proof.
type proofDetail struct {
	ID         string              `json:"id"`
	MessageID  string              `json:"messageId"`
	Evidence   schema.EvidenceKind `json:"evidence"`
	Generation int                 `json:"generation"` // of the attempt
}

// tellProof tells operators of a proof whose record is durable, and then the
// index, so that the message's statuses find the command.
func (o *owner) tellProof(ctx context.Context, p proof, r *queue.Record) error {
	x := &p.index
	known, err := o.ledger.IndexOf(ctx, x.MessageID)
	if err != nil {
		return err
	}
	if err := o.publishProof(ctx, p, r); err != nil {
		return err
	}
	if known == nil {
		written := make(chan error, 1)
		o.ledger.PutIndex(x, func(err error) { written <- err })
		if err := <-written; err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.earlyStatuses(x.MessageID)
	return nil
}

// publishProof publishes the operator event of a proof, once: its id follows from
// the attempt and the message. Beyond the server's duplicate window it looks first.
func (o *owner) publishProof(ctx context.Context, p proof, r *queue.Record) error {
	x := &p.index
	subject := schema.OpsEventSubject(o.cfg.Account, schema.OpsLateProof)
	id := x.Origin.CommandEventID(o.topology.Commands(), x.Generation, x.Attempt, schema.State(schema.OpsLateProof)) +
		"." + schema.Key(x.MessageID)
	if time.Since(r.Stored) > o.topology.Limits.DedupeWindow*9/10 {
		if stored, err := o.ledger.EventStored(ctx, subject, id, r.Sequence); err != nil || stored {
			return err
		}
	}
	detail, err := json.Marshal(proofDetail{ID: x.ID, MessageID: x.MessageID, Evidence: p.kind, Generation: x.Generation})
	if err != nil {
		return fmt.Errorf("encode proof: %w", err)
	}
	now := time.Now().UTC()
	body, err := json.Marshal(schema.OpsEvent{
		Name: schema.OpsLateProof, Account: o.cfg.Account, At: now, ChannelID: x.ChannelID, Class: string(x.Kind), Detail: detail,
	})
	if err != nil {
		return fmt.Errorf("encode proof: %w", err)
	}
	o.log.Warn().Str("event", string(schema.OpsLateProof)).Str("command", x.ID).Str("channel", x.ChannelID).
		Str("evidence", string(p.kind)).Str("message_id", x.MessageID).Msg("ops")
	written := make(chan error, 1)
	o.ledger.Publish(queue.Event{
		Subject: subject, ID: id, Account: o.cfg.Account, Type: "wazzup.ops." + string(schema.OpsLateProof),
		CESubject: x.ChannelID, Time: now, Body: body,
	}, func(err error) { written <- err })
	return <-written
}

// openProofs learns what was given up, and follows evidence from where the last
// owner stopped.
func (o *owner) openProofs(ctx context.Context) error {
	keys, err := o.ledger.DoubtKeys(ctx)
	if err != nil {
		return err
	}
	o.mu.Lock()
	for _, k := range keys {
		o.proofs.doubted[k] = time.Now()
	}
	o.mu.Unlock()
	from, err := o.evidencePosition(ctx, len(keys) > 0)
	if err != nil {
		return fmt.Errorf("follow evidence: %w", err)
	}
	o.proofs.handled, o.proofs.noted = from, from
	cfg := jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{o.topology.LateFilter()},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy, OptStartSeq: from + 1,
	}
	if o.cfg.Evidence == EvidenceEcho {
		cfg.FilterSubjects = append(cfg.FilterSubjects, "wazzup."+o.cfg.Account+".evt.message.out.>")
	}
	if _, err := o.follow(ctx, cfg, o.evidenceStored); err != nil {
		return fmt.Errorf("follow evidence: %w", err)
	}
	return nil
}

// evidencePosition is up to where evidence is handled. Where no owner noted it
// yet, nothing was given up before this epoch, unless a doubt says otherwise.
func (o *owner) evidencePosition(ctx context.Context, doubted bool) (uint64, error) {
	body, err := o.ledger.LastState(ctx, stateEvidence)
	switch {
	case err != nil:
		return 0, err
	case body != nil:
		return strconv.ParseUint(string(body), 10, 64)
	case doubted:
		return 0, nil
	}
	written := make(chan error, 1)
	o.ledger.PutState(stateEvidence, strconv.AppendUint(nil, o.answers.until, 10), func(err error) { written <- err })
	select {
	case err = <-written:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return o.answers.until, err
}

// evidenceStored takes in an echo or a late answer.
func (o *owner) evidenceStored(m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopping {
		return // the next owner reads it again
	}
	sequence := meta.Sequence.Stream
	if strings.HasPrefix(m.Subject(), "wazzup.") {
		o.echoStored(m.Subject(), sequence, m.Data())
	} else {
		o.lateStored(sequence, m.Data())
	}
	o.proofs.handled = sequence
}

func (o *owner) echoStored(subject string, sequence uint64, body []byte) {
	o.webhooks = true
	if len(o.proofs.doubted) > 0 {
		if e, ok := parseEcho(sequence, body); ok {
			if _, some := o.proofs.doubted[queue.NewDoubtKey(subject, e.content)]; some {
				o.pend(subject, e.content, sequence)
			}
		}
	}
	o.lookSoon(subject)
}

func (o *owner) lateStored(sequence uint64, body []byte) {
	var x queue.Index
	if err := json.Unmarshal(body, &x); err != nil {
		o.log.Error().Err(err).Uint64("sequence", sequence).Msg("late_answer_not_read")
		return
	}
	for subject, doubted := range o.doubts {
		if slices.ContainsFunc(doubted, func(c *command) bool { return c.origin == x.Origin }) {
			o.lookSoon(subject)
		}
	}
	o.proofs.late[x.Origin] = append(o.proofs.late[x.Origin], lateAnswer{&x, sequence})
	o.examineLate(x.Origin)
}

// examineLate leads the late answers of a command to its timeline, once it has
// ended. The owner's mutex is held.
func (o *owner) examineLate(origin queue.Origin) {
	if len(o.proofs.late[origin]) == 0 {
		return
	}
	o.later(func() {
		o.mu.Lock()
		waiting := o.proofs.late[origin]
		o.mu.Unlock()
		for _, a := range waiting {
			if o.lateAnswered(a.index) {
				o.forgetLate(origin, a)
			}
		}
	})
}

// lateAnswered tries until the answer is told, or its command turns out not to
// have ended yet (false).
func (o *owner) lateAnswered(x *queue.Index) bool {
	for try := 1; ; try++ {
		done, err := o.prove(proof{index: *x, kind: schema.EvidenceAnswer})
		if err == nil {
			return done
		}
		if errors.Is(err, queue.ErrFenced) || errors.Is(err, queue.ErrStopped) {
			return false // the next owner reads it again
		}
		o.log.Warn().Err(err).Str("command", x.ID).Msg("late_answer_not_told")
		if !o.pause(try) {
			return false
		}
	}
}

// proveSoon looks again at what waited for a command's end to be told. The owner's
// mutex is held.
func (o *owner) proveSoon(c *command) {
	if c.body == nil || c.body.Message == nil {
		return
	}
	o.examineLate(c.origin)
	if len(o.proofs.pending) == 0 {
		return
	}
	if subject := o.echoSubject(c.body.Message); o.proofs.pending[subject] != nil {
		o.look(subject)
	}
}

func (o *owner) forgetLate(origin queue.Origin, told lateAnswer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var left []lateAnswer
	for _, a := range o.proofs.late[origin] {
		if a != told {
			left = append(left, a)
		}
	}
	if len(left) == 0 {
		delete(o.proofs.late, origin)
		return
	}
	o.proofs.late[origin] = left
}

// position is up to where everything is judged and told.
func (p *proofs) position() uint64 {
	position := p.handled
	for _, waiting := range p.pending {
		position = min(position, waiting.first-1)
	}
	for _, answers := range p.late {
		for _, a := range answers {
			position = min(position, a.sequence-1)
		}
	}
	return position
}

// noteEvidence stores up to where evidence is handled: before the oldest that
// waits to be judged. It also forgets what the ledger has forgotten.
func (o *owner) noteEvidence(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, since := range o.proofs.doubted {
		if time.Since(since) > o.cfg.Limits.Retention+doubtsKept {
			delete(o.proofs.doubted, key)
		}
	}
	position := o.proofs.position()
	if position <= o.proofs.noted {
		return nil
	}
	o.proofs.noted = position
	o.enter()
	o.ledger.PutState(stateEvidence, strconv.AppendUint(nil, position, 10), func(error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.leave()
	})
	return nil
}
