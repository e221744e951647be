package sender

import (
	"context"
	"errors"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Codes of requests that never reached the vendor.
const (
	codeRateWait    = "RATE_WAIT"    // the account's window opens later than the request may wait
	codeBreakerOpen = "BREAKER_OPEN" // calls of this family fail, and the breaker waits
	codeHandOver    = "HAND_OVER"    // the account is changing hands: the next owner answers
)

// askVendor makes a call on behalf of a request: within the share of the account's
// window and of its calls in flight that bulk, sync and requests have together,
// and through the breaker of queries. What cannot be in time is refused at once,
// saying what it waits for. The answer is one that the vendor took; everything
// else is a fault.
func (o *owner) askVendor(ctx context.Context, call func(context.Context) wazzup.Answer) (wazzup.Answer, error) {
	return o.askWith(ctx, o.whyClosed, call)
}

// askAlways is askVendor for GET /channels, the call whose success opens a closed
// account.
func (o *owner) askAlways(ctx context.Context, call func(context.Context) wazzup.Answer) (wazzup.Answer, error) {
	return o.askWith(ctx, func() error { return nil }, call)
}

func (o *owner) askWith(ctx context.Context, closed func() error, call func(context.Context) wazzup.Answer) (wazzup.Answer, error) {
	done, err := o.turn(ctx, closed)
	if err != nil {
		return wazzup.Answer{}, err
	}
	start := time.Now()
	a := call(ctx)
	v := Classify(FamilyQuery, a)
	done(a.Fault != wazzup.FaultRequest && a.Fault != wazzup.FaultKey, v)
	o.metrics.called(ctx, FamilyQuery, v.Class, a.Phase, time.Since(start))
	if v.Action == ActionAccept {
		return a, nil
	}
	o.refusedQuery(a, v, start)
	return a, vendorFault(a, v)
}

// whyClosed refuses while the account is closed. The owner's mutex is held.
func (o *owner) whyClosed() error {
	if o.closed == nil {
		return nil
	}
	return &fault{status: 503, err: schema.Error{
		Code: o.closed.code, Class: schema.ClassAccount,
		Description: "the account is closed since " + schema.FormatTime(o.closed.began) + "; it opens when " + o.closed.opensOn,
	}}
}

func breakerOpen(retryAt time.Time) error {
	return &fault{status: 503, err: schema.Error{
		Code: codeBreakerOpen, Class: schema.ClassRetryable,
		Description: "requests to Wazzup fail; it opens with " + probeAt(retryAt),
	}}
}

// turn waits until the call may start, and takes its token and its slot. done gives
// them back; called tells whether the vendor was called, and v what came of it.
func (o *owner) turn(ctx context.Context, closed func() error) (done func(called bool, v Verdict), err error) {
	for {
		o.mu.Lock()
		report, at, why, err := o.tryTurn(time.Now(), closed)
		o.mu.Unlock()
		switch {
		case err != nil:
			return nil, err
		case why == "":
			return func(called bool, v Verdict) { o.turnOver(report, called, v) }, nil
		}
		if deadline, ok := ctx.Deadline(); ok && at.After(deadline) {
			return nil, &fault{status: 503, err: schema.Error{
				Code: codeRateWait, Class: schema.ClassRetryable,
				Description: "the account's requests wait for " + why + "; it opens at " + schema.FormatTime(at),
			}}
		}
		wait := tokenPoll
		if !at.IsZero() {
			wait = min(max(time.Until(at), time.Millisecond), time.Second)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

// breakerReport tells the breakers what came of a call that they let through.
type breakerReport func(called bool, v Verdict)

// tryTurn takes a token and a slot. If it cannot yet, why says what for, and at
// when to try again, zero if that depends on others. The owner's mutex is held.
func (o *owner) tryTurn(now time.Time, closed func() error) (report breakerReport, at time.Time, why string, err error) {
	if err := closed(); err != nil {
		return nil, time.Time{}, "", err
	}
	retryAt, blocked := o.breakers.Blocked(FamilyQuery, "")
	switch {
	case o.stopping:
		return nil, time.Time{}, "", &fault{status: 503, err: schema.Error{
			Code: codeHandOver, Class: schema.ClassRetryable, Description: "the account is changing hands: ask again",
		}}
	case blocked: // at once, not when the rate allows it
		return nil, time.Time{}, "", breakerOpen(retryAt)
	case o.pausedUntil.After(now):
		return nil, o.pausedUntil, "Wazzup, which answered 429", nil
	case !now.Before(o.leaseUntil()): // another owner may count by now
		return nil, time.Time{}, "the worker's lease", nil
	case o.flight >= o.cfg.Concurrency, o.otherFlight >= shareOf(o.cfg.Concurrency):
		return nil, time.Time{}, "a call in flight to end", nil
	}
	if at, ok := o.window.take(now, true); !ok {
		return nil, at, "the account's rate", nil
	}
	report, retryAt, ok := o.breakers.Allow(FamilyQuery, "")
	if !ok { // its only probe is under way
		o.window.unused(true)
		return nil, time.Time{}, "", breakerOpen(retryAt)
	}
	o.flight++
	o.otherFlight++
	return report, time.Time{}, "", nil
}

// turnOver gives back what a turn took.
func (o *owner) turnOver(report breakerReport, called bool, v Verdict) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flight--
	o.otherFlight--
	if called {
		o.window.answered(time.Now(), true)
	} else {
		o.window.unused(true)
	}
	report(called, v)
	o.pump()
}

// vendorFault is the fault of an answer that is no success.
func vendorFault(a wazzup.Answer, v Verdict) error {
	f := &fault{status: a.Status, err: *NewError(a, v)}
	switch {
	case a.Fault == wazzup.FaultTimeout:
		f.status = 504
	case a.Fault == wazzup.FaultCancelled, a.Fault == wazzup.FaultKey:
		f.status = 503
	case a.Fault == wazzup.FaultRequest:
		f.status = 400
	case f.status < 400:
		f.status = 502
	}
	if f.err.Description == "" {
		f.err.Description = v.Note
		if call, ok := errors.AsType[*wazzup.CallError](a.Err); ok && call.Detail() != "" {
			f.err.Description += ": " + call.Detail()
		}
	}
	return f
}

// badAnswer is the fault of a success that holds not what the manual says.
func badAnswer(description string) error {
	return &fault{status: 502, err: schema.Error{Code: CodeBadAnswer, Class: schema.ClassRetryable, Description: description}}
}
