package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// DefaultInFlight is how many commands of a batch wait for their PubAck together.
const DefaultInFlight = 64

// Waits between two tries of one command: they grow, and each is random between
// its half and its whole.
const (
	publishAgainMin = 100 * time.Millisecond
	publishAgainMax = 5 * time.Second
	// noStreamTries: a server that has just started may know no stream for a
	// moment; whoever meets none so often in a row, within some seconds, is told.
	noStreamTries = 5
)

// errNotTried goes with the context's error: not even one try was made.
var errNotTried = errors.New("it was not published")

// WithInFlight bounds how many commands of a batch wait for their PubAck together;
// the default is [DefaultInFlight]. It has no effect on a single publish.
func WithInFlight(n int) PublishOption {
	return func(o *publishing) { o.inFlight = n }
}

// Result is what became of one command of a batch.
type Result struct {
	Receipt       // where it was stored, if Err is nil
	Err     error // see [Publisher.PublishAll]
}

// PublishAll stores many commands, of any kinds, and returns a result for each, in
// their order. The error is nil if all are stored; otherwise it says how many are
// not, and wraps the first result's error.
//
// All are checked first. One that breaks a rule has a *[schema.InvalidCommandError]
// and is not published; that does not keep back the others.
//
// Order is kept: of commands for one chat (of one class), and of sync commands for
// one kind of entity, the next is published when the one before it has its PubAck.
// Where that one cannot be stored, the next have [ErrHeldBack]; one that is larger
// than NATS takes ([ErrTooLarge]) keeps nobody back. Beyond that there is no order.
//
// Where the stream is full, the connection is lost or a PubAck does not come, the
// same command is published again, under the same id and after growing, random
// waits, until ctx ends or the connection is closed for good: that is the bound of a
// batch, and a stream that is full
// slows it down to the pace at which it empties. What is not stored when ctx ends
// has ctx's error and ErrUnconfirmed (it may be stored) or ErrFull; without either
// it is surely not stored. To go on later, call again with the commands whose
// result has an error, in their order: those with an id of their own are carried
// out once, however often they are published.
//
// A subject that no stream takes, or that is forbidden, is tried for some seconds.
// All that is left for it then fails at once.
func (p *Publisher) PublishAll(ctx context.Context, commands []Command, opts ...PublishOption) ([]Result, error) {
	o := options(opts)
	if o.id != "" {
		return nil, errors.New("publish batch: one id for all: WithID is for a single command")
	}
	if o.inFlight <= 0 {
		o.inFlight = DefaultInFlight
	}
	b := &batch{p: p, results: make([]Result, len(commands)), hopeless: make(map[string]error)}
	lines := make(map[line]int) // where each stands in b.lines
	for i, c := range commands {
		out, err := p.prepare(ctx, c, o)
		if err != nil {
			b.results[i].Err = fmt.Errorf("publish command: %w", err)
			continue
		}
		at, known := lines[out.line]
		if !known {
			at = len(b.lines)
			lines[out.line] = at
			b.lines = append(b.lines, nil)
		}
		b.lines[at] = append(b.lines[at], place{i, out})
	}
	b.run(ctx, min(o.inFlight, len(b.lines)))
	return b.results, b.verdict()
}

// batch is one call of PublishAll.
type batch struct {
	p       *Publisher
	lines   [][]place
	results []Result // each is written by the one goroutine that has its line

	mu       sync.Mutex
	next     int              // line; guarded by mu
	hopeless map[string]error // by subject: nobody takes it, or it is forbidden; guarded by mu
}

// place is a command and where its result goes.
type place struct {
	at int
	*outgoing
}

// run publishes the lines, so many at a time.
func (b *batch) run(ctx context.Context, inFlight int) {
	var wg sync.WaitGroup
	for range inFlight {
		wg.Go(func() {
			t := &tries{p: b.p, ctx: ctx}
			defer t.close()
			for line := b.take(); line != nil; line = b.take() {
				b.publish(t, line)
			}
		})
	}
	wg.Wait()
}

func (b *batch) take() []place {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == len(b.lines) {
		return nil
	}
	b.next++
	return b.lines[b.next-1]
}

// publish publishes a line.
func (b *batch) publish(t *tries, line []place) {
	var held error // of what would overtake one that is not stored
	for _, c := range line {
		r := &b.results[c.at]
		switch r.Err = b.why(c.msg.Subject); {
		case r.Err != nil:
		case held != nil:
			r.Err = held
		default:
			r.Receipt, r.Err = t.publish(c.outgoing)
			b.note(c.msg.Subject, r.Err)
		}
		if r.Err != nil && !errors.Is(r.Err, ErrTooLarge) && t.ctx.Err() == nil {
			held = fmt.Errorf("publish command: %w", ErrHeldBack)
		}
	}
}

// why tells why publishing to a subject is in vain, if it is.
func (b *batch) why(subject string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hopeless[subject]
}

func (b *batch) note(subject string, err error) {
	for _, why := range []error{ErrNoStream, ErrForbidden} {
		if errors.Is(err, why) {
			b.mu.Lock()
			b.hopeless[subject] = fmt.Errorf("publish command: %w", why)
			b.mu.Unlock()
		}
	}
}

func (b *batch) verdict() error {
	var first error
	failed := 0
	for i := range b.results {
		if err := b.results[i].Err; err != nil {
			failed++
			if first == nil {
				first = err
			}
		}
	}
	if first == nil {
		return nil
	}
	return fmt.Errorf("publish batch: %d of %d are not stored, the first: %w", failed, len(b.results), first)
}

// tries publishes commands, each again and again until it is stored, is refused
// for good, or ctx ends. It is for one goroutine.
type tries struct {
	p    *Publisher
	ctx  context.Context //nolint:containedctx // of the call that it serves
	conn context.Context //nolint:containedctx // ends when the connection breaks; nil at first
	stop context.CancelFunc
}

func (t *tries) close() {
	if t.stop != nil {
		t.stop()
	}
}

func (t *tries) publish(c *outgoing) (Receipt, error) {
	unsure := false
	missing := 0 // how often in a row there was no stream
	last := errNotTried
	for n := 1; ; n++ {
		if err := t.ctx.Err(); err != nil {
			return Receipt{}, t.ended(last, unsure)
		}
		r, err := t.try(c)
		if errors.Is(err, ErrNoStream) {
			missing++
		} else {
			missing = 0
		}
		again := errors.Is(err, ErrFull) || missing > 0 && missing < noStreamTries || mayPass(err) && !errors.Is(err, ErrForbidden)
		switch {
		case err == nil:
			r.Tries = n
			return r, nil
		case errors.Is(err, ErrUnconfirmed):
			unsure, last = true, err
		case again: // this one is surely not stored
			last = err
		case unsure: // refused now, but an earlier one may be stored
			return Receipt{}, fmt.Errorf("%w; then: %w", ErrUnconfirmed, err)
		default:
			return Receipt{}, err
		}
		if !pause(t.ctx, n) {
			return Receipt{}, t.ended(last, unsure)
		}
	}
}

// ended is the error of a command that is not known to be stored when ctx ends.
func (t *tries) ended(last error, unsure bool) error {
	if unsure && !errors.Is(last, ErrUnconfirmed) {
		last = fmt.Errorf("%w; then: %w", ErrUnconfirmed, last)
	}
	return fmt.Errorf("%w: %w", context.Cause(t.ctx), last)
}

// try publishes once. It waits for the PubAck no longer than the connection lasts.
func (t *tries) try(c *outgoing) (Receipt, error) {
	if t.conn == nil || t.conn.Err() != nil {
		t.close()
		t.conn, t.stop = WhileConnected(t.ctx, t.p.nc)
		if t.conn.Err() != nil && !t.p.nc.IsClosed() {
			return Receipt{}, fmt.Errorf("publish command: %w", nats.ErrDisconnected)
		}
	}
	ctx, cancel := context.WithTimeout(t.conn, writeTimeout)
	defer cancel()
	return t.p.once(ctx, c)
}

// pause waits before the next try; false if ctx ended.
func pause(ctx context.Context, n int) bool {
	whole := min(publishAgainMin<<min(n-1, 10), publishAgainMax)
	timer := time.NewTimer(whole/2 + rand.N(whole/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
