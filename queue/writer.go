package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// Errors of durable writes that a caller decides by.
var (
	// ErrConflict: another record of this command came first. Read it.
	ErrConflict = errors.New("another record came first")
	// ErrFenced: the epoch is over; another worker owns the account.
	ErrFenced = errors.New("epoch is over")
	// ErrTooLarge: the message exceeds NATS's payload limit and never fits.
	ErrTooLarge = errors.New("message is larger than NATS takes")
	// ErrStopped: the writer was stopped before the outcome was known.
	ErrStopped = errors.New("writer stopped")
)

const (
	writeTimeout  = 5 * time.Second // for one PubAck, before the message is published again
	writeRetryMin = 50 * time.Millisecond
	writeRetryMax = 2 * time.Second
	triesUntilLog = 5 // a few failures are an ordinary reconnect
	// asyncMaxPending is far above what an owner can have under way, because
	// nats.go would otherwise block the very goroutine that reads PubAcks.
	asyncMaxPending = 1 << 20
)

// writer publishes to an account's streams and calls back when the outcome is
// certain: after the PubAck, or when it can never come. Until then it publishes
// again, through time-outs, reconnects and full streams. Callbacks run one at a
// time for PubAcks and must not block.
type writer struct {
	js     jetstream.JetStream // its async publisher is ours alone
	fenced func(ctx context.Context) (bool, error)
	log    zerolog.Logger

	ctx    context.Context //nolint:containedctx // the writer's life; every retry belongs to it
	cancel context.CancelFunc
	wg     sync.WaitGroup // retries under way

	mu      sync.Mutex
	pending map[*nats.Msg]*write
	stopped bool
	onFull  func(full bool)
	full    bool
}

type write struct {
	msg   *nats.Msg
	done  func(seq uint64, duplicate bool, err error)
	tries int
	// records: it goes to the records stream, without which nothing can be claimed.
	records bool
	sure    bool // false once a PubAck may have been lost
	// check settles a refusal after an unsure publish: what is stored now?
	check func(ctx context.Context) (stored, error)
}

// stored is what a subject holds after a publish that may have been stored.
type stored struct {
	seq       uint64
	ours      bool // it is the very message that was published
	unchanged bool // it is still what was expected before the publish
}

func newWriter(nc *nats.Conn, fenced func(context.Context) (bool, error), onFull func(bool), log zerolog.Logger) (*writer, error) {
	w := &writer{pending: make(map[*nats.Msg]*write), fenced: fenced, onFull: onFull, log: log}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	js, err := jetstream.New(nc,
		jetstream.WithPublishAsyncMaxPending(asyncMaxPending),
		jetstream.WithPublishAsyncTimeout(writeTimeout),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, m *nats.Msg, ack *jetstream.PubAck) {
			w.acked(m, ack)
		}),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, m *nats.Msg, err error) {
			w.failed(m, err)
		}),
	)
	if err != nil {
		w.cancel()
		return nil, fmt.Errorf("async publisher: %w", err)
	}
	w.js = js
	return w, nil
}

// stop gives up every write that is under way; their callbacks get ErrStopped.
func (w *writer) stop() {
	w.mu.Lock()
	w.stopped = true
	pending := w.pending
	w.pending = nil
	w.mu.Unlock()
	w.cancel()
	w.wg.Wait()
	for _, p := range pending {
		p.done(0, false, ErrStopped)
	}
	w.js.CleanupPublisher()
}

// publish starts a write. done is called exactly once, never from within publish.
func (w *writer) publish(p *write) {
	p.sure = true
	w.send(p)
}

func (w *writer) send(p *write) {
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		go p.done(0, false, ErrStopped) // never from within publish: the caller may hold a lock
		return
	}
	w.pending[p.msg] = p
	w.mu.Unlock()
	if _, err := w.js.PublishMsgAsync(p.msg); err != nil {
		switch {
		case w.take(p.msg) == nil:
		case errors.Is(err, nats.ErrMaxPayload):
			go p.done(0, false, ErrTooLarge) // never from within publish
		default:
			w.again(p, err)
		}
	}
}

func (w *writer) take(m *nats.Msg) *write {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pending[m]
	delete(w.pending, m)
	return p
}

func (w *writer) acked(m *nats.Msg, ack *jetstream.PubAck) {
	p := w.take(m)
	if p == nil {
		return
	}
	if p.records {
		w.setFull(false)
	}
	p.done(ack.Sequence, ack.Duplicate, nil)
}

func (w *writer) failed(m *nats.Msg, err error) {
	p := w.take(m)
	if p == nil {
		return
	}
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && isWrongSequence(api):
		// With replicas the server also says so of a write that is still under
		// way (10164), perhaps our own.
		if p.check == nil || p.sure && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
			p.done(0, false, ErrConflict)
			return
		}
		w.retry(p, 0, w.settle)
	case errors.As(err, &api):
		if p.records {
			w.setFull(isFull(api))
		}
		w.again(p, err)
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		w.retry(p, 0, w.probe)
	default: // time-out, disconnect: it may have been stored
		p.sure = false
		w.again(p, err)
	}
}

// again publishes the same message after a growing pause.
func (w *writer) again(p *write, err error) {
	if p.tries == triesUntilLog {
		w.log.Warn().Err(err).Msg("record_not_stored_yet")
	}
	pause := min(writeRetryMin<<min(p.tries, 10), writeRetryMax)
	p.tries++
	w.retry(p, pause, w.send)
}

func (w *writer) retry(p *write, pause time.Duration, next func(*write)) {
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		go p.done(0, false, ErrStopped)
		return
	}
	w.wg.Add(1)
	w.mu.Unlock()
	go func() {
		defer w.wg.Done()
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
			next(p)
		case <-w.ctx.Done():
			p.done(0, false, ErrStopped)
		}
	}()
}

// probe finds out what "no responders" means: a fenced epoch, or a server that
// is not ready yet.
func (w *writer) probe(p *write) {
	ctx, cancel := context.WithTimeout(w.ctx, writeTimeout)
	defer cancel()
	fenced, err := w.fenced(ctx)
	if err == nil && fenced {
		p.done(0, false, ErrFenced)
		return
	}
	w.again(p, err)
}

// settle looks whether a write that was refused after a lost PubAck is the very
// one that is stored.
func (w *writer) settle(p *write) {
	ctx, cancel := context.WithTimeout(w.ctx, writeTimeout)
	defer cancel()
	now, err := p.check(ctx)
	switch {
	case err != nil || now.unchanged:
		w.again(p, err)
	case now.ours:
		p.done(now.seq, false, nil)
	default:
		p.done(0, false, ErrConflict)
	}
}

func (w *writer) setFull(full bool) {
	w.mu.Lock()
	changed := w.full != full
	w.full = full
	w.mu.Unlock()
	if changed && w.onFull != nil {
		w.onFull(full)
	}
}

// Error codes of the server that nats.go has no name for.
const (
	codeMaxBytes         jetstream.ErrorCode = 10077 // "maximum bytes exceeded" and its kin
	codeNoStorage        jetstream.ErrorCode = 10047 // "insufficient storage resources available"
	codeAccountNoStorage jetstream.ErrorCode = 10002 // "resource limits exceeded for account"
)

func isWrongSequence(e *jetstream.APIError) bool {
	return e.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		e.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

func isFull(e *jetstream.APIError) bool {
	return e.ErrorCode == codeMaxBytes || e.ErrorCode == codeNoStorage || e.ErrorCode == codeAccountNoStorage
}

func setExpectedSubjectSequence(h nats.Header, seq uint64) {
	h[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(seq, 10)}
}
