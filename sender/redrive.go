package sender

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// RedriveAnswer is the answer to `dead.redrive`. In a dry run nothing is
// redriven, and the other two say what there is.
type RedriveAnswer struct {
	Redriven int `json:"redriven"`
	// Unsent and Unknown count the letters that the request is about: those that
	// were surely not sent, and those in doubt, which are redriven only if the
	// request includes them.
	Unsent  int `json:"unsent"`
	Unknown int `json:"unknown"`
}

// redriveRequest is the body of `dead.redrive`.
type redriveRequest struct {
	deadChoice
	DryRun         bool   `json:"dryRun"`
	Rate           string `json:"rate"`
	IncludeUnknown bool   `json:"includeUnknown"`

	rate rate.Rate
}

func (q *redriveRequest) check() (err error) {
	if err := q.deadChoice.check(false); err != nil {
		return err
	}
	if q.Rate == "" {
		return nil
	}
	if q.rate, err = rate.Parse(q.Rate); err != nil {
		return badRequest("BAD_REQUEST", "rate: "+err.Error())
	}
	return nil
}

// deadRedrive has dead commands carried out again, under their own ids.
//
// Of each letter: the ledger's record, by which it goes on in the next generation;
// then its copy, where what is due appears; then the letter goes. Whatever crashes
// in between, the same request goes on from there, and what was done twice is the
// same command.
func (o *owner) deadRedrive(ctx context.Context, body []byte) (any, error) {
	var q redriveRequest
	if err := decodeRequest(body, &q); err != nil {
		return nil, err
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	if !q.DryRun {
		done, err := o.oneAtATime(ctx)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	picks, err := o.pick(ctx, &q.deadChoice)
	if err != nil {
		return nil, err
	}
	if len(picks) == 0 {
		return nil, nothingLeft("no dead letter is left to redrive")
	}
	var chosen []deadPick
	var answer RedriveAnswer
	for _, p := range picks {
		if p.fate == FateUnknown {
			answer.Unknown++
		} else {
			answer.Unsent++
		}
		if p.fate != FateUnknown || q.IncludeUnknown {
			chosen = append(chosen, p)
		}
	}
	if q.DryRun {
		return answer, nil
	}
	return o.redriveAll(ctx, &q, chosen, answer)
}

func (o *owner) redriveAll(ctx context.Context, q *redriveRequest, chosen []deadPick, answer RedriveAnswer) (any, error) {
	if len(chosen) == 0 {
		return nil, nothingLeft(fmt.Sprintf("the fate of all %d is unknown: includeUnknown redrives them too", answer.Unknown))
	}
	r := &redrive{owner: o, answer: answer, opened: make(map[laneKey]bool)}
	if q.rate.N > 0 {
		r.spacing = q.rate.Per / time.Duration(q.rate.N)
		r.next = o.redriveFrom(time.Now())
		if limit := o.cfg.Limits.Retention / 2; r.spacing*time.Duration(len(chosen)) > limit {
			return nil, badRequest("BAD_REQUEST", fmt.Sprintf("rate: at this rate %d commands take longer than %s, half of what the ledger remembers", len(chosen), rate.ShortDuration(limit)))
		}
	}
	for _, share := range shares(chosen) {
		if err := r.share(ctx, share); err != nil {
			o.redriveUntil = r.next
			return nil, err
		}
	}
	o.redriveUntil = time.Time{}
	switch {
	case r.answer.Redriven > 0:
		return r.answer, nil
	case r.tooLarge > 0:
		return nil, &fault{status: 413, err: schema.Error{
			Code: "TOO_LARGE", Class: schema.ClassTerminal, Description: "their copies exceed NATS's payload limit by what a redrive adds to them",
		}}
	}
	return nil, nothingLeft("what there was has been redriven, dropped or proven sent")
}

// redriveFrom is when the first copy of a spaced redrive is due: after those of the
// one before, if that had to end with letters left. The turn is the request's.
func (o *owner) redriveFrom(now time.Time) time.Time {
	if o.redriveUntil.After(now) {
		return o.redriveUntil
	}
	return now
}

const redriven = "were redriven"

// redrive is one request's work.
type redrive struct {
	*owner
	answer   RedriveAnswer
	spacing  time.Duration // between copies; 0 = all at once
	next     time.Time     // when the next copy is due
	opened   map[laneKey]bool
	tooLarge int
}

// revival is a letter whose ledger says that it goes on; what is left is its copy.
type revival struct {
	letter *queue.DeadLetter
	lane   laneKey
	header nats.Header
}

// share redrives some letters: all are recorded, then all copies are published in
// order, then the letters go.
func (r *redrive) share(ctx context.Context, picks []deadPick) error {
	if err := r.mayGoOn(ctx); err != nil {
		return err
	}
	prepared := make([]*revival, len(picks))
	ready := make([]bool, len(picks))
	failed := together(ctx, len(picks), func(ctx context.Context, i int) (err error) {
		prepared[i], err = r.prepare(ctx, picks[i].seq)
		ready[i] = err == nil
		return err
	})
	var due []*revival
	for i, v := range prepared {
		if !ready[i] {
			break // what comes after it may be of its chat, and must not overtake it
		}
		if v == nil {
			r.uncount(picks[i])
			continue
		}
		due = append(due, v)
	}
	r.openLanes(ctx, due)
	err := r.publish(ctx, due)
	if err == nil {
		err = failed
	}
	if err != nil {
		return r.interrupted(ctx, err, r.answer.Redriven, redriven)
	}
	return nil
}

// mayGoOn asks before each share whether the request has time left, and the
// deferred stream room.
func (r *redrive) mayGoOn(ctx context.Context) error {
	if err := r.interruption(ctx, r.answer.Redriven, redriven); err != nil {
		return err
	}
	if err := r.checkDeferred(ctx); err != nil {
		return r.interrupted(ctx, err, r.answer.Redriven, redriven)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.deferredFull {
		return partly(503, "the stream of deferred commands is full", r.answer.Redriven, redriven)
	}
	return nil
}

// uncount takes a letter out of the answer that was no dead command's any more.
func (r *redrive) uncount(p deadPick) {
	if p.fate == FateUnknown {
		r.answer.Unknown--
	} else {
		r.answer.Unsent--
	}
}

// prepare records that a letter's command goes on. It returns nil if there is
// nothing to redrive; a letter that has outlived its command is deleted.
func (r *redrive) prepare(ctx context.Context, seq uint64) (*revival, error) {
	d, err := r.ledger.DeadAt(ctx, seq)
	if err != nil || d == nil {
		return nil, err
	}
	for {
		last, err := r.ledger.Last(ctx, queue.LedgerKey(d.ID))
		if err != nil {
			return nil, err
		}
		switch standOf(d, last) {
		case deadSettled, deadOutdated:
			return nil, r.ledger.DeleteDead(ctx, seq)
		case deadHalfway:
			return r.revive(d, last.Sequence), nil
		case deadEnded, deadForgot:
		}
		if !r.fits(d) {
			r.log.Error().Str("command", d.ID).Msg("dead_letter_too_large_to_redrive")
			r.mu.Lock()
			defer r.mu.Unlock()
			r.tooLarge++
			return nil, nil //nolint:nilnil // it stays where it is
		}
		recorded, err := r.appendNow(ctx, r.deadRecord(d, queue.StepRedrive, d.Generation+1), sequenceOf(last))
		if err == nil {
			return r.revive(d, recorded), nil
		}
		if !errors.Is(err, queue.ErrConflict) {
			return nil, err
		}
	}
}

// revive builds the copy of a command whose redrive has this sequence in its
// ledger. Its place and its age count from now.
func (r *redrive) revive(d *queue.DeadLetter, recorded uint64) *revival {
	kind, channel, _ := schema.ParseCommandSubject(r.cfg.Account, d.Subject)
	about := replica{
		origin: d.Origin, generation: d.Generation + 1, attempt: d.Attempt, stored: time.Now(),
		subject: d.Subject, id: d.ID, expect: recorded,
	}
	if fateOf(d) == FateUnknown {
		about.doubted, about.doubtSeq, about.doubtAt = true, d.ClaimSeq, d.ClaimAt
	}
	return &revival{letter: d, lane: dueLane(kind, channel), header: about.header(d.Header)}
}

// scheduleSize is more than what the server's scheduler is told takes in a header.
const scheduleSize = 512

// fits reports whether the copy of a letter's command will be within NATS's
// payload limit.
func (r *redrive) fits(d *queue.DeadLetter) bool {
	size := len(d.Body) + scheduleSize
	for name, values := range r.revive(d, 0).header {
		size += len(name) + len(values[0]) + len(": \r\n")
	}
	return int64(size) <= r.nc.MaxPayload()
}

// openLanes opens the lanes in which the copies come due. One that cannot be
// opened now is found when its copy is there, as are those of later copies.
func (r *redrive) openLanes(ctx context.Context, due []*revival) {
	if r.spacing > 0 {
		return
	}
	var lanes []wantedLane
	for _, v := range due {
		if !r.opened[v.lane] {
			r.opened[v.lane] = true
			lanes = append(lanes, wantedLane{v.lane, sourceDue})
		}
	}
	if err := r.owner.openLanes(ctx, lanes); err != nil {
		r.log.Warn().Err(err).Msg("due_lane_not_opened")
	}
}

// publish stores the copies in their order, and deletes the letters of those that
// are stored.
func (r *redrive) publish(ctx context.Context, due []*revival) error {
	type stored struct {
		which int
		err   error
	}
	outcomes := make(chan stored, len(due))
	for i, v := range due {
		r.store(v, func(err error) { outcomes <- stored{i, err} })
	}
	var letters []*queue.DeadLetter
	var failed error
	for left := len(due); left > 0; left-- {
		s, ok := await(ctx, outcomes)
		if !ok {
			failed = ctx.Err()
			break
		}
		if s.err != nil {
			failed = s.err
			continue
		}
		letters = append(letters, due[s.which].letter)
	}
	r.answer.Redriven += len(letters)
	err := together(ctx, len(letters), func(ctx context.Context, i int) error {
		return r.ledger.DeleteDead(ctx, letters[i].Sequence)
	})
	return errors.Join(failed, err)
}

// await takes what has come, or comes before ctx ends.
func await[T any](ctx context.Context, from <-chan T) (v T, ok bool) {
	select {
	case v = <-from:
		return v, true
	default:
	}
	select {
	case v = <-from:
		return v, true
	case <-ctx.Done():
		return v, false
	}
}

// store hands a copy to the stream: now, or to the server's scheduler, so that
// nobody need stay alive to keep the rate.
func (r *redrive) store(v *revival, done func(error)) {
	target := r.dueSubject(v.lane)
	if r.spacing == 0 {
		r.ledger.PutDue(target, v.header, v.letter.Body, done)
		return
	}
	r.ledger.Defer(&queue.Deferred{
		Schedule: r.topology.ScheduleSubject(v.letter.ID, strconv.Itoa(v.letter.Generation+1)),
		Target:   target,
		At:       r.next,
		Header:   v.header,
		Body:     v.letter.Body,
	}, done)
	r.next = r.next.Add(r.spacing)
}
