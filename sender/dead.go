package sender

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Bounds of the requests about dead letters.
const (
	maxDeadIDs    = 1000     // in one request; for more there is the filter
	deadPage      = 1000     // items of one answer to dead.list
	deadEnvelope  = 1 << 10  // bytes of that answer beside its items
	deadTogether  = 64       // letters that are read or written at the same time
	deadShare     = 256      // letters that are redriven before the next are read
	deadShareSize = 16 << 20 // bytes of them, so that few large ones do not fill the memory
	deadNamed     = 10       // unknown ids that a fault names
)

// Fate is what is known of a dead command's calls.
type Fate string

// The fates.
const (
	FateUnsent  Fate = "unsent"  // proven: none of its calls had an effect
	FateUnknown Fate = "unknown" // one of its calls may have been carried out
)

func fateOf(d *queue.DeadLetter) Fate {
	if d.Doubted || d.Class == "" { // a letter that says nothing of its fault proves nothing
		return FateUnknown
	}
	return FateUnsent
}

// DeadItem is a dead letter in the answer to `dead.list`: all but what was to be
// said to whom.
type DeadItem struct {
	ID         string        `json:"id"`
	Kind       schema.Kind   `json:"kind"`
	ChannelID  string        `json:"channelId,omitempty"`
	Group      string        `json:"group,omitempty"`
	State      schema.State  `json:"state"`
	Code       string        `json:"code,omitempty"`
	Class      schema.Class  `json:"class,omitempty"`
	Reason     schema.Reason `json:"reason,omitempty"`
	Fate       Fate          `json:"fate"`
	Attempt    int           `json:"attempt"`    // claims so far, over all generations
	Generation int           `json:"generation"` // how often it was redriven
	Seq        uint64        `json:"seq"`        // of the command message
	At         time.Time     `json:"at"`         // of its death, NATS's clock
}

// DeadList is the answer to `dead.list`, oldest death first.
type DeadList struct {
	Items []DeadItem `json:"items"`
	Next  uint64     `json:"next,omitempty"` // the offset to go on from; 0 = this was all
}

// DeadDetail is the answer to `dead.show`.
type DeadDetail struct {
	DeadItem
	Subject     string          `json:"subject"`
	Headers     nats.Header     `json:"headers,omitempty"`
	Body        json.RawMessage `json:"body"` // what is no JSON as a string
	Description string          `json:"description,omitempty"`
}

func (o *owner) deadItem(d *queue.DeadLetter) DeadItem {
	kind, channel, _ := schema.ParseCommandSubject(o.cfg.Account, d.Subject)
	return DeadItem{
		ID: d.ID, Kind: kind, ChannelID: channel, Group: d.Group, State: schema.StateDead,
		Code: d.Code, Class: d.Class, Reason: d.Reason, Fate: fateOf(d),
		Attempt: d.Attempt, Generation: d.Generation, Seq: d.Origin.Seq, At: d.Died.UTC(),
	}
}

// deadLetter describes a dead command by the record of its end, which is all that
// is known of it after a crash.
func (o *owner) deadLetter(c *command, r *queue.Record) *queue.DeadLetter {
	e := errorOf(r)
	d := &queue.DeadLetter{
		ID: c.id, Origin: c.origin, Generation: c.generation,
		Subject: schema.CommandSubject(o.cfg.Account, c.kind, c.channel),
		Code:    e.Code, Class: e.Class, Reason: e.Reason, Description: e.Description, Attempt: r.Attempt,
		Doubted: r.Doubted || e.Class == schema.ClassUnknown,
		Header:  producersHeader(c.delivery.Header), Body: c.delivery.Data,
	}
	if d.Doubted {
		d.ClaimSeq, d.ClaimAt = earliestDoubt(r)
	}
	if c.body != nil {
		d.Group = c.body.Group
	}
	return d
}

// earliestDoubt is the claim (its sequence, and its time in Unix milliseconds)
// after which the proof of a dead command's calls would be stored; zero where
// nothing is in doubt.
func earliestDoubt(r *queue.Record) (seq uint64, millis int64) {
	if r.DoubtSeq > 0 {
		return r.DoubtSeq, r.DoubtAt
	}
	return r.Claim, r.ClaimAt
}

// deadChoice says which letters a request is about.
type deadChoice struct {
	IDs    []string    `json:"ids"`
	Filter *deadFilter `json:"filter"`
}

// deadFilter chooses letters of which all that is given holds.
type deadFilter struct {
	Code      string `json:"code"`
	ChannelID string `json:"channelId"`
	Fate      Fate   `json:"fate"`
	Before    string `json:"before"` // died earlier than this
	After     string `json:"after"`  // died then or later
	Group     string `json:"group"`

	before, after time.Time
}

// check finds the request's faults. all: neither ids nor a filter means every
// letter.
func (q *deadChoice) check(all bool) error {
	switch {
	case q.IDs != nil && q.Filter != nil:
		return badRequest("BAD_REQUEST", "ids and filter: give one of them")
	case q.IDs == nil && q.Filter == nil && !all:
		return badRequest("REQUIRED", "ids or filter is required")
	case q.IDs != nil && len(q.IDs) == 0:
		return badRequest("BAD_REQUEST", "ids: names none")
	case len(q.IDs) > maxDeadIDs:
		return badRequest("BAD_REQUEST", fmt.Sprintf("ids: at most %d, a filter takes more", maxDeadIDs))
	case q.Filter != nil:
		return q.Filter.check()
	}
	return nil
}

func (f *deadFilter) check() (err error) {
	if f.Fate != "" && f.Fate != FateUnsent && f.Fate != FateUnknown {
		return badRequest("BAD_REQUEST", "filter.fate: must be unsent or unknown")
	}
	if f.before, err = filterTime("before", f.Before); err != nil {
		return err
	}
	f.after, err = filterTime("after", f.After)
	return err
}

func filterTime(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, badRequest("BAD_REQUEST", "filter."+name+": must be a time with a zone, such as 2026-11-22T10:00:00Z")
	}
	return at, nil
}

// takes reports whether the letter is meant. A nil filter takes all.
func (f *deadFilter) takes(account string, d *queue.DeadLetter) bool {
	if f == nil {
		return true
	}
	_, channel, _ := schema.ParseCommandSubject(account, d.Subject)
	return (f.Code == "" || f.Code == d.Code) &&
		(f.ChannelID == "" || f.ChannelID == channel) &&
		(f.Fate == "" || f.Fate == fateOf(d)) &&
		(f.Group == "" || f.Group == d.Group) &&
		(f.before.IsZero() || d.Died.Before(f.before)) &&
		(f.after.IsZero() || !d.Died.Before(f.after))
}

// deadList lists letters in the order in which they came. Its offset is a place in
// the stream, so that what is redriven meanwhile moves nothing.
func (o *owner) deadList(ctx context.Context, body []byte) (any, error) {
	var q struct {
		deadChoice
		Offset uint64 `json:"offset"`
	}
	if err := decodeRequest(body, &q); err != nil {
		return nil, err
	}
	if err := q.check(true); err != nil {
		return nil, err
	}
	page := deadPaging{list: DeadList{Items: []DeadItem{}}, room: int(o.nc.MaxPayload()) - deadEnvelope}
	take := func(d *queue.DeadLetter) (more bool) {
		switch {
		case d.Sequence < q.Offset:
			return true
		case o.timeIsShort(ctx):
			page.list.Next = d.Sequence
			return false
		}
		return !q.Filter.takes(o.cfg.Account, d) || page.add(o.deadItem(d), d.Sequence)
	}
	if q.IDs == nil {
		err := o.ledger.DeadLetters(ctx, q.Offset, func(d *queue.DeadLetter) (bool, error) { return take(d), nil })
		if err != nil {
			return nil, err
		}
		return page.list, nil
	}
	letters, _, err := o.lettersOf(ctx, q.IDs)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(letters, func(a, b *queue.DeadLetter) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for _, d := range letters {
		if !take(d) {
			break
		}
	}
	return page.list, nil
}

// deadPaging fills one answer.
type deadPaging struct {
	list DeadList
	room int // bytes
}

// add takes the item in; false: there is no room for it, and the page ends before
// the letter with this sequence.
func (p *deadPaging) add(item DeadItem, seq uint64) bool {
	text, err := json.Marshal(item)
	size := len(text) + 1
	if err != nil || len(p.list.Items) == deadPage || size > p.room && len(p.list.Items) > 0 {
		p.list.Next = seq
		return false
	}
	p.room -= size
	p.list.Items = append(p.list.Items, item)
	return true
}

// timeIsShort reports whether a request has just the time left to finish what it
// has begun and to answer.
func (o *owner) timeIsShort(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < o.cfg.Timeout/4
}

// lettersOf reads the letters of ids, without keeping their bodies. missing are
// the ids that have none.
func (o *owner) lettersOf(ctx context.Context, ids []string) (letters []*queue.DeadLetter, missing []string, err error) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	var mu sync.Mutex
	err = together(ctx, len(ids), func(ctx context.Context, i int) error {
		d, err := o.ledger.DeadOf(ctx, ids[i])
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if d == nil {
			missing = append(missing, ids[i])
			return nil
		}
		d.Body = nil
		letters = append(letters, d)
		return nil
	})
	slices.Sort(missing)
	return letters, missing, err
}

// together does n things, a bounded number of them at the same time.
func together(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(deadTogether)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

func (o *owner) deadShow(ctx context.Context, body []byte) (any, error) {
	var q struct {
		ID string `json:"id"`
	}
	if err := decodeRequest(body, &q); err != nil {
		return nil, err
	}
	if q.ID == "" {
		return nil, badField("id", schema.FaultRequired, "is required")
	}
	d, err := o.ledger.DeadOf(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, notFound("no dead letter has this id")
	}
	detail := DeadDetail{
		DeadItem: o.deadItem(d), Subject: d.Subject, Headers: d.Header, Body: d.Body, Description: d.Description,
	}
	if !json.Valid(d.Body) {
		if detail.Body, err = json.Marshal(string(d.Body)); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(detail)
	if err == nil && int64(len(text)) > o.nc.MaxPayload() {
		return nil, &fault{status: 413, err: schema.Error{
			Code: "TOO_LARGE", Class: schema.ClassTerminal,
			Description: "the letter does not fit into an answer: read it from the stream " + o.topology.Dead() + ", subject " + o.topology.DeadSubject(d.ID),
		}}
	}
	return json.RawMessage(text), err
}

// deadPick is a chosen letter: as little as its turn needs, since there may be a
// great many.
type deadPick struct {
	seq    uint64 // of the letter
	origin queue.Origin
	size   int // of its body
	fate   Fate
}

// pick finds the letters that are meant, in the order of their commands. An id
// that has neither a letter nor a ledger is unknown, and a fault.
func (o *owner) pick(ctx context.Context, q *deadChoice) ([]deadPick, error) {
	var picks []deadPick
	add := func(d *queue.DeadLetter) {
		picks = append(picks, deadPick{d.Sequence, d.Origin, d.Size, fateOf(d)})
	}
	if q.IDs == nil {
		if err := o.ledger.DeadLetters(ctx, 0, func(d *queue.DeadLetter) (bool, error) {
			if q.Filter.takes(o.cfg.Account, d) {
				add(d)
			}
			return true, nil
		}); err != nil {
			return nil, err
		}
	} else {
		letters, missing, err := o.lettersOf(ctx, q.IDs)
		if err != nil {
			return nil, err
		}
		if err := o.allKnown(ctx, missing); err != nil {
			return nil, err
		}
		for _, d := range letters {
			add(d)
		}
	}
	slices.SortFunc(picks, func(a, b deadPick) int {
		return cmp.Or(cmp.Compare(a.origin.Created, b.origin.Created), cmp.Compare(a.origin.Seq, b.origin.Seq))
	})
	return picks, nil
}

// allKnown is a fault if the ledger does not know one of the ids.
func (o *owner) allKnown(ctx context.Context, ids []string) error {
	known := make([]bool, len(ids))
	if err := together(ctx, len(ids), func(ctx context.Context, i int) error {
		last, err := o.ledger.Last(ctx, queue.LedgerKey(ids[i]))
		known[i] = last != nil
		return err
	}); err != nil {
		return err
	}
	var unknown []string
	for i, id := range ids {
		if !known[i] {
			unknown = append(unknown, id)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	more := ""
	if n := len(unknown) - deadNamed; n > 0 {
		unknown, more = unknown[:deadNamed], fmt.Sprintf(" and %d more", n)
	}
	return notFound("no command has the id " + strings.Join(unknown, ", ") + more)
}

// deadStand is how a letter stands to its command's ledger.
type deadStand int

const (
	deadEnded    deadStand = iota // its end is the ledger's last word
	deadForgot                    // the ledger has forgotten it, and its id is free
	deadHalfway                   // it is being redriven; whether its copy was published is not known
	deadSettled                   // after its end it was proven sent, or dropped: there is nothing left to do
	deadOutdated                  // it went on in a later generation, or its id is another's now
)

func standOf(d *queue.DeadLetter, last *queue.Record) deadStand {
	switch {
	case last == nil:
		return deadForgot
	case last.Origin != d.Origin:
		if last.Step == queue.StepInvalid { // that one left the id free
			return deadForgot
		}
		return deadOutdated
	case last.Generation == d.Generation+1 && last.Step == queue.StepRedrive:
		return deadHalfway
	case last.Generation != d.Generation:
		return deadOutdated
	case last.Step == queue.StepFinal && stateOf(last) == schema.StateDead:
		return deadEnded
	}
	return deadSettled
}

// sequenceOf is what the next record of a ledger expects.
func sequenceOf(last *queue.Record) uint64 {
	if last == nil {
		return 0
	}
	return last.Sequence
}

// deadRecord starts a ledger record about a dead letter.
func (o *owner) deadRecord(d *queue.DeadLetter, step queue.Step, generation int) *queue.Record {
	kind, channel, _ := schema.ParseCommandSubject(o.cfg.Account, d.Subject)
	return &queue.Record{
		Step: step, Key: queue.LedgerKey(d.ID), ID: d.ID, Nonce: o.nonce(), Origin: d.Origin, Generation: generation,
		Kind: string(kind), Channel: channel, Fingerprint: fingerprintOf(kind, channel, d.Body),
		Attempt: d.Attempt, Doubted: fateOf(d) == FateUnknown, Claim: d.ClaimSeq, ClaimAt: d.ClaimAt,
		Worker: o.cfg.Worker, At: time.Now().UnixMilli(),
	}
}

// appendNow writes a record and waits for its outcome. If ctx ends first, the
// record may be written all the same.
func (o *owner) appendNow(ctx context.Context, r *queue.Record, expect uint64) (seq uint64, err error) {
	type written struct {
		seq uint64
		err error
	}
	done := make(chan written, 1)
	o.ledger.Append(r, expect, func(seq uint64, err error) { done <- written{seq, err} })
	select {
	case w := <-done:
		if errors.Is(w.err, queue.ErrFenced) {
			o.mu.Lock()
			o.lost(w.err)
			o.mu.Unlock()
		}
		return w.seq, w.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// oneAtATime lets the requests that change dead letters take turns, so that no
// letter is counted by two of them. The returned function ends the turn.
func (o *owner) oneAtATime(ctx context.Context) (done func(), err error) {
	select {
	case o.deadTurn <- struct{}{}:
		return func() { <-o.deadTurn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func nothingLeft(description string) error {
	return &fault{status: 409, err: schema.Error{Code: "NOTHING_LEFT", Class: schema.ClassInvalid, Description: description}}
}

// partly is the fault of a request that ended before all its letters had their
// turn, for a reason that passes. What had it is gone from the letters, so that the
// same request goes on where this one ended.
func partly(status int, reason string, n int, done string) error {
	return &fault{status: status, err: schema.Error{
		Code: "PARTLY_DONE", Class: schema.ClassRetryable, Description: fmt.Sprintf("%s: %d %s so far, ask again for the rest", reason, n, done),
	}}
}

// interruption is the fault of a request whose letters' turns end here; nil: they
// may go on.
func (o *owner) interruption(ctx context.Context, n int, done string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.stopping:
		return partly(503, "the account is changing hands", n, done)
	case ctx.Err() != nil || o.timeIsShort(ctx):
		return partly(504, "the time of one request is over", n, done)
	}
	return nil
}

// interrupted is the fault that an error makes of a request that has done a part.
func (o *owner) interrupted(ctx context.Context, err error, n int, done string) error {
	if fault := o.interruption(ctx, n, done); fault != nil {
		return fault
	}
	if _, ok := errors.AsType[*fault](err); ok || n == 0 {
		return err
	}
	o.log.Warn().Err(err).Msg("dead_letters_interrupted")
	return partly(503, "NATS does not answer", n, done)
}

// shares cuts what was picked into parts whose letters may be in memory together.
func shares(picks []deadPick) [][]deadPick {
	var all [][]deadPick
	size, from := 0, 0
	for i, p := range picks {
		if size += p.size; i > from && (size > deadShareSize || i-from == deadShare) {
			all = append(all, picks[from:i])
			size, from = p.size, i
		}
	}
	if from < len(picks) {
		all = append(all, picks[from:])
	}
	return all
}

// deadDrop throws letters away for good.
func (o *owner) deadDrop(ctx context.Context, body []byte) (any, error) {
	var q deadChoice
	if err := decodeRequest(body, &q); err != nil {
		return nil, err
	}
	if err := q.check(false); err != nil {
		return nil, err
	}
	done, err := o.oneAtATime(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	picks, err := o.pick(ctx, &q)
	if err != nil {
		return nil, err
	}
	dropped := 0
	for _, share := range shares(picks) {
		if err := o.interruption(ctx, dropped, "were dropped"); err != nil {
			return nil, err
		}
		n, err := o.dropShare(ctx, share)
		if dropped += n; err != nil {
			return nil, o.interrupted(ctx, err, dropped, "were dropped")
		}
	}
	if dropped == 0 {
		return nil, nothingLeft("no dead letter is left to drop")
	}
	return DropAnswer{dropped}, nil
}

// DropAnswer is the answer to `dead.drop`.
type DropAnswer struct {
	Dropped int `json:"dropped"`
}

func (o *owner) dropShare(ctx context.Context, share []deadPick) (dropped int, err error) {
	var mu sync.Mutex
	err = together(ctx, len(share), func(ctx context.Context, i int) error {
		ok, err := o.drop(ctx, share[i].seq)
		mu.Lock()
		defer mu.Unlock()
		if ok {
			dropped++
		}
		return err
	})
	return dropped, err
}

// drop throws one letter away; its ledger says so first. It reports false where
// there was nothing to drop: the letter is gone, its command went on, or is just
// being redriven.
func (o *owner) drop(ctx context.Context, seq uint64) (dropped bool, err error) {
	d, err := o.ledger.DeadAt(ctx, seq)
	if err != nil || d == nil {
		return false, err
	}
	for {
		last, err := o.ledger.Last(ctx, queue.LedgerKey(d.ID))
		if err != nil {
			return false, err
		}
		stand := standOf(d, last)
		if stand == deadHalfway {
			return false, nil
		}
		if stand == deadEnded {
			_, err := o.appendNow(ctx, o.deadRecord(d, queue.StepDropped, d.Generation), sequenceOf(last))
			if errors.Is(err, queue.ErrConflict) {
				continue
			}
			if err != nil {
				return false, err
			}
		}
		if err := o.ledger.DeleteDead(ctx, seq); err != nil {
			return false, err
		}
		return stand != deadOutdated, nil
	}
}
