package sender

import (
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
)

// window keeps an account within its limit of requests in any interval of a
// length, wherever the interval begins.
//
// The vendor counts a request when it arrives, which is some time between the
// start of the call and its answer. A token is therefore taken before the start
// and comes free one length after the answer: of any limit+1 calls, the one that
// starts last would still find the others counted if all arrived within one
// length. The price is one answer time a window.
type window struct {
	limit rate.Rate
	held  int       // tokens of calls without an answer yet
	freed []token   // those of answered calls, by when they come free
	floor time.Time // nothing before: the former owner's calls are not known

	others      int // of held, those of the other classes
	othersFreed int // of freed, the same
}

// token is that of an answered call.
type token struct {
	free  time.Time // when it comes free
	other bool      // the call was not transactional
}

func newWindow(limit rate.Rate) *window { return &window{limit: limit} }

// assumeFull makes the window act as if all its calls had just been answered.
func (w *window) assumeFull(now time.Time) {
	if w.limit.N > 0 {
		w.floor = now.Add(w.limit.Per)
	}
}

// take takes a token. When there is none, at tells when to ask again; it is zero
// if that depends on an answer. other says that the call is not transactional: it
// leaves a share of the window free, unless that would stop the others altogether.
func (w *window) take(now time.Time, other bool) (at time.Time, ok bool) {
	if w.limit.N == 0 {
		w.hold(other, 1) // it counts as soon as there is a limit
		return time.Time{}, true
	}
	if now.Before(w.floor) {
		return w.floor, false
	}
	w.expire(now)
	limit := w.limit.N
	if other && w.others+w.othersFreed >= leastOf(limit) {
		limit = shareOf(limit)
	}
	if w.held+len(w.freed) < limit {
		w.hold(other, 1)
		return time.Time{}, true
	}
	if over := w.held + len(w.freed) - limit; over < len(w.freed) {
		return w.freed[over].free, false
	}
	return time.Time{}, false
}

// hadLeast reports whether the calls that are not transactional have had what they may
// have in any case.
func (w *window) hadLeast(now time.Time) bool {
	w.expire(now)
	return w.limit.N > 0 && w.others+w.othersFreed >= leastOf(w.limit.N)
}

func (w *window) hold(other bool, n int) {
	w.held += n
	if other {
		w.others += n
	}
}

// answered gives the token back one length after now.
func (w *window) answered(now time.Time, other bool) {
	w.hold(other, -1)
	if w.limit.N == 0 {
		return
	}
	w.freed = append(w.freed, token{now.Add(w.limit.Per), other})
	if other {
		w.othersFreed++
	}
}

// unused gives the token back at once: no call was made.
func (w *window) unused(other bool) { w.hold(other, -1) }

// called keeps the spacing to a call that reached the wire only now: between its
// start and that lie its claim and the way to a new connection.
func (p *pace) called(at time.Time) {
	if p.limit.N > 0 {
		p.next = latest(p.next, at.Add(spacingOf(p.limit)))
	}
}

// change puts another limit in force. Whatever is counted stays so, for the new
// length: in any interval that begins at the change or later there are no more
// calls than the new limit, but for those that were under way already. A call is
// forgotten when it no longer counts, so that a longer window knows of those of
// the shorter one only.
func (w *window) change(limit rate.Rate) {
	if limit.N == 0 {
		w.limit, w.freed, w.othersFreed, w.floor = limit, nil, 0, time.Time{}
		return
	}
	longer := limit.Per - w.limit.Per
	for i := range w.freed {
		w.freed[i].free = w.freed[i].free.Add(longer)
	}
	if !w.floor.IsZero() {
		w.floor = w.floor.Add(longer)
	}
	w.limit = limit
}

func (w *window) expire(now time.Time) {
	n := 0
	for n < len(w.freed) && !w.freed[n].free.After(now) {
		if w.freed[n].other {
			w.othersFreed--
		}
		n++
	}
	if n > 0 {
		w.freed = append(w.freed[:0], w.freed[n:]...)
	}
}

// busy lists when the tokens of the last calls come free, for the hand-over.
func (w *window) busy(now time.Time) []time.Time {
	w.expire(now)
	times := make([]time.Time, len(w.freed))
	for i, t := range w.freed {
		times[i] = t.free
	}
	return times
}

// inherit takes over the calls of the owner before. Whose they were is not passed
// on: they count as the others', who have had more than their least then.
func (w *window) inherit(freed []time.Time, floor time.Time) {
	if w.limit.N == 0 {
		return
	}
	w.freed, w.floor = w.freed[:0], floor
	for _, at := range freed {
		w.freed = append(w.freed, token{at, true})
	}
	w.othersFreed = len(w.freed)
}

// cutOff forgets the calls that have no answer and will not get one.
func (w *window) cutOff() { w.held, w.others = 0, 0 }

// pace spreads the calls of one lane evenly, with jitter, so that they look like
// a person's and never come as a burst.
type pace struct {
	limit rate.Rate
	next  time.Time
}

// ready tells whether a call may start now, or when.
func (p *pace) ready(now time.Time) (at time.Time, ok bool) {
	if p.limit.N == 0 || !now.Before(p.next) {
		return time.Time{}, true
	}
	return p.next, false
}

// started puts the next call one spacing later, up to a fifth more by random.
// Since the jitter only ever adds, no interval holds more than the limit.
func (p *pace) started(now time.Time, random float64) {
	if p.limit.N == 0 {
		return
	}
	spacing := spacingOf(p.limit)
	p.next = now.Add(spacing + time.Duration(float64(spacing)*random/5))
}

// change puts another limit in force. The next call comes when it was to come, or
// sooner if the new spacing, counted from now, ends before.
func (p *pace) change(limit rate.Rate, now time.Time) {
	p.limit = limit
	p.next = soonest(p.next, limit, now)
}

// spacingOf is the least time between two calls of a pace; 0: there is none.
func spacingOf(limit rate.Rate) time.Duration {
	if limit.N == 0 {
		return 0
	}
	return limit.Per / time.Duration(limit.N)
}

// soonest moves a pace's next call forward to where a limit allows it, whenever
// the last one was.
func soonest(next time.Time, limit rate.Rate, now time.Time) time.Time {
	if at := now.Add(spacingOf(limit)); next.After(at) {
		return at
	}
	return next
}
