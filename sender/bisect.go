package sender

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// send makes the requests of a batch and notes with every item what came of it.
func (o *owner) send(b *batch) {
	switch b.commands[0].body.Sync.Verb {
	case schema.VerbUpsert:
		o.patch(b)
	case schema.VerbReplace:
		o.put(b)
	case schema.VerbDelete:
		o.deleteEach(b)
	}
	o.work(b)
}

// patch sends a batch of upserts. The vendor takes a request whole or refuses it
// whole: one that is refused is cut in two, again and again, until the items that
// it was refused for stand alone. Of a hundred items one bad one costs about
// fourteen requests more. All of that is one attempt of each command.
func (o *owner) patch(b *batch) {
	var items coalesced
	for _, c := range b.commands {
		if c.work.late == nil {
			c.work.repeat = false
			items.add(c)
			b.inOrder = b.inOrder || c.work.repeat
		}
	}
	for _, entries := range requestsOf(items.entries) {
		b.jobs = append(b.jobs, func() { o.patchOne(b, entries) })
	}
}

func (o *owner) patchOne(b *batch, entries []*entry) {
	a, v, ok := o.request(b, newRequest(entries), func(ctx context.Context) wazzup.Answer {
		return o.client.Patch(ctx, b.entity(), bodyOf(entries))
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !ok:
		b.jobs = nil
	case v.Action == ActionAccept:
		for _, e := range entries {
			e.taken(a.Status)
		}
	case v.Action == ActionReject && !blamesItems(&a):
		for _, e := range entries {
			e.refusedWhole(NewError(a, v))
		}
	case v.Action == ActionReject && len(entries) > 1:
		half := len(entries) / 2
		b.jobs = append([]func(){
			func() { o.patchOne(b, entries[:half]) },
			func() { o.patchOne(b, entries[half:]) },
		}, b.jobs...)
	case v.Action == ActionReject:
		if entries[0].refused(NewError(a, v)) {
			b.jobs = append([]func(){func() { o.patchOne(b, entries) }}, b.jobs...)
		}
	default:
		for _, e := range entries {
			e.left(&failure{called: true, answer: a, verdict: v})
		}
		b.stopIf(v)
	}
}

// put replaces the whole list in one request, whatever its size: two would each
// delete the other's items.
func (o *owner) put(b *batch) {
	c := b.commands[0]
	if c.work.late != nil {
		return
	}
	b.jobs = []func(){func() {
		a, v, ok := o.request(b, syncRequest{commands: b.commands, items: len(c.body.Sync.Items)}, func(ctx context.Context) wazzup.Answer {
			return o.client.Put(ctx, b.entity(), jsonArray(c.body.Sync.Items))
		})
		b.note(c, 0, a, v, ok, true)
	}}
}

// deleteEach makes one request an id. Where some are refused, the others are still
// wanted.
func (o *owner) deleteEach(b *batch) {
	c := b.commands[0]
	for i := range c.work.items {
		it := &c.work.items[i]
		if it.state != itemLeft || c.work.late != nil {
			continue
		}
		b.jobs = append(b.jobs, func() {
			a, v, ok := o.request(b, syncRequest{commands: b.commands, items: 1}, func(ctx context.Context) wazzup.Answer {
				return o.client.Delete(ctx, b.entity(), it.id)
			})
			b.note(c, i, a, v, ok, false)
		})
	}
}

// note notes what came of a request about one item.
func (b *batch) note(c *command, item int, a wazzup.Answer, v Verdict, called, whole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !called:
		b.jobs = nil
	case v.Action == ActionAccept:
		c.work.items[item].state, c.work.status = itemTaken, a.Status
	case v.Action == ActionReject:
		c.work.refuse(item, NewError(a, v), whole || !blamesItems(&a))
	default:
		c.work.leave(&failure{called: true, answer: a, verdict: v})
		b.stopIf(v)
	}
}

// stopIf drops the batch's other requests where an answer closed a gate: their
// items go again when it is open.
func (b *batch) stopIf(v Verdict) {
	if closes(v) {
		b.jobs = nil
	}
}

// work makes the requests, several at a time if slots are free: they are about
// different entities. The lane's other commands go first where they want a slot.
func (o *owner) work(b *batch) {
	var helpers sync.WaitGroup
	for range len(b.jobs) - 1 {
		if b.inOrder || !o.takeSlot(b.lane) {
			break
		}
		helpers.Go(func() {
			for !o.wanted(b.lane) && b.work() {
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			o.count(b.lane, -1)
			o.offer(b.lane)
			o.pump()
		})
	}
	for b.work() {
	}
	helpers.Wait()
}

// work makes the next request; false: there was none.
func (b *batch) work() bool {
	b.mu.Lock()
	if len(b.jobs) == 0 {
		b.mu.Unlock()
		return false
	}
	job := b.jobs[0]
	b.jobs = b.jobs[1:]
	b.mu.Unlock()
	job()
	return true
}

// wanted reports whether a lane has commands that could use a slot.
func (o *owner) wanted(l *lane) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return l.ready.len() > 0
}

// takeSlot takes another slot for a lane's calls, if there is one.
func (o *owner) takeSlot(l *lane) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.flight >= syncFlight || o.accountOpen(l.rank(), time.Now()).gate != gateNone {
		return false
	}
	o.count(l, 1)
	return true
}

// requestsOf cuts entries into requests of what one may hold. An entity is in a
// request once: its next entry is in a later one.
func requestsOf(entries []*entry) (requests [][]*entry) {
	begin, size := 0, 0
	in := make(map[string]bool, maxBatch)
	for i, s := range entries {
		n := len(s.value()) + 1
		if i > begin && (i-begin == maxBatch || size+n > maxBatchBytes || in[s.id]) {
			requests = append(requests, entries[begin:i])
			begin, size = i, 0
			clear(in)
		}
		size += n
		in[s.id] = true
	}
	if begin < len(entries) {
		requests = append(requests, entries[begin:])
	}
	return requests
}

func bodyOf(entries []*entry) []byte {
	values := make([]json.RawMessage, len(entries))
	for i, s := range entries {
		values[i] = s.value()
	}
	return jsonArray(values)
}

// blamesItems reports whether a refusal may be for some of a request's items rather
// than for all requests of its kind: a route that is closed, absent or of another
// type without a word of the vendor is not opened by sending less.
func blamesItems(a *wazzup.Answer) bool {
	switch a.Status {
	case http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType:
		return a.Code != ""
	}
	return true
}

// closes reports whether an answer closed a gate, so that the batch's other
// requests must not be made now.
func closes(v Verdict) bool {
	return v.Action == ActionCloseAccount || v.Action == ActionPauseAccount
}

// ticket is leave to make one request: the window's token and the breaker's
// consent. It is given back, with the mutex held, after the answer, or unused.
type ticket func(called bool, v Verdict)

func (o *owner) newTicket(breaker func(bool, Verdict)) ticket {
	return func(called bool, v Verdict) {
		if called {
			o.window.answered(time.Now(), true)
		} else {
			o.window.unused(true)
		}
		breaker(called, v)
	}
}

// nextTicket is for a request that is not the batch's first, which came with its
// slot: it waits for a token of its own. nil: a gate has closed.
func (o *owner) nextTicket(b *batch) ticket {
	b.mu.Lock()
	t := b.ticket
	b.ticket = nil
	b.mu.Unlock()
	if t != nil {
		return t
	}
	if o.halted() || o.token(o.callCtx) != nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.stopping && o.closed == nil {
		if done, _, ok := o.breakers.Allow(FamilySync, ""); ok {
			return o.newTicket(done)
		}
	}
	o.window.unused(true)
	return nil
}

func (o *owner) halted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stopping || o.closed != nil
}

// syncRequest is whose items a request carries.
type syncRequest struct {
	commands []*command // the oldest first
	items    int
}

func newRequest(entries []*entry) syncRequest {
	r := syncRequest{items: len(entries)}
	seen := make(map[*command]bool)
	for _, s := range entries {
		for _, t := range s.takers {
			if !seen[t.c] {
				seen[t.c] = true
				r.commands = append(r.commands, t.c)
			}
		}
	}
	return r
}

// request makes one call, closes the gates that its answer closed, and writes its
// log line, span and metrics; false: it was not made, since a gate is closed.
func (o *owner) request(b *batch, r syncRequest, do func(context.Context) wazzup.Answer) (wazzup.Answer, Verdict, bool) {
	t := o.nextTicket(b)
	if t == nil {
		return wazzup.Answer{}, Verdict{}, false
	}
	ctx, span := o.startSpan(r.commands)
	began := time.Now()
	a := do(ctx)
	v := Classify(FamilySync, a)
	took := time.Since(began)
	o.settleRequest(t, a, v, began)
	o.reportCall(ctx, span, r.commands, callReport{
		family: FamilySync, answer: a, verdict: v, items: r.items, outcome: requestOutcome(&a, v, r.items), took: took,
	})
	return a, v, true
}

// requestOutcome is what the log line says of a request.
func requestOutcome(a *wazzup.Answer, v Verdict, items int) string {
	switch {
	case v.Action == ActionAccept:
		return string(schema.StateDone)
	case v.Action == ActionReject && a.Method == http.MethodPatch && items > 1 && blamesItems(a):
		return outcomeSplit
	case v.Action == ActionReject:
		return string(schema.StateRejected)
	case closes(v):
		return ""
	}
	return string(schema.StateRetrying)
}

// outcomeSplit is of a refused request whose halves are sent by themselves.
const outcomeSplit = "split"

func (o *owner) settleRequest(t ticket, a wazzup.Answer, v Verdict, began time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	code := ErrorCode(a)
	switch v.Action {
	case ActionAccept:
		o.refusals = 0
	case ActionCloseAccount:
		if !began.Before(o.lastClosed.until) { // see refused
			o.closeAccount(code)
		}
	case ActionPauseAccount:
		o.pauseAccount(a)
	case ActionReject, ActionRetry, ActionRetryLimited, ActionCloseChannel, ActionUnknown:
	}
	if v.OpsUnknownCode {
		o.unknownCode("", code)
	}
	t(true, v)
	o.pump()
}

// failedRequest is what becomes of a command of which items are left. The owner's
// mutex is held.
func (o *owner) failedRequest(c *command, f *failure, chance float64) outcome {
	if f == nil || !f.called {
		if f != nil && f.err != nil {
			return o.retry(c, f.err, false)
		}
		return unsent(nil)
	}
	v, e := f.verdict, NewError(f.answer, f.verdict)
	var out outcome
	switch v.Action {
	case ActionCloseAccount:
		// The lane closes and says so once; the command waits at its gate.
		out = unsent(e)
	case ActionPauseAccount:
		out = o.retry(c, e, false)
		out.retryAt = o.pausedUntil
	case ActionRetryLimited:
		if c.refused++; c.refused >= v.Limit {
			out = final(schema.StateRejected)
			out.err = e
			break
		}
		out = o.retry(c, e, true)
	default:
		out = o.retry(c, e, v.SpendsAttempt)
		if out.step != queue.StepFinal {
			out.retryAt = time.Now().Add(o.cfg.Backoff.Delay(max(c.attempt, 1), func() float64 { return chance }))
		}
	}
	out.answer.status = f.answer.Status
	return out
}

// unsent has a command go again as soon as its gates are open. No event tells it; e
// is for its timeline.
func unsent(e *schema.Error) outcome {
	return outcome{step: queue.StepRetry, answer: answer{err: e}}
}
