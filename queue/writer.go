package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
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
	sweepEvery    = time.Second     // how often writes are looked through for those that have waited so long
	writeRetryMin = 50 * time.Millisecond
	writeRetryMax = 2 * time.Second
	triesUntilLog = 5           // a few failures are an ordinary reconnect
	toldEvery     = time.Minute // of writes that are not stored
	// Where nobody answers, a stream may be without a leader for a moment. Only
	// what meets nobody after unansweredTries more is probed.
	unansweredTries = 2
	unansweredPause = 250 * time.Millisecond
)

// writer publishes to an account's streams and calls back when the outcome is
// certain: after the PubAck, or when it can never come. Until then it publishes
// again, through time-outs, reconnects and full streams. Callbacks run one at a
// time for PubAcks and must not block.
//
// It does for itself what nats.go's asynchronous publisher does too, since four
// messages are published for every command: no timer and no future for each, and
// no reflection to read a PubAck.
type writer struct {
	nc     *nats.Conn
	inbox  string // where PubAcks arrive, with a dot at its end: a token's number follows
	acks   *nats.Subscription
	breaks chan nats.Status // of the connection
	fenced func(ctx context.Context) (bool, error)
	log    zerolog.Logger

	ctx    context.Context //nolint:containedctx // the writer's life; every retry belongs to it
	cancel context.CancelFunc
	wg     sync.WaitGroup // retries under way, and what watches over the writes

	mu      sync.Mutex
	pending map[uint64]*write // by their tokens' numbers: published, and not answered
	tokens  uint64            // made so far
	free    []*token          // those whose write was stored and answered
	stopped bool
	onFull  func(full bool)
	full    bool

	expectations sync.Pool // of *expectation, none of them in use

	told     time.Time // when it was last told that writes are not stored
	unstored int       // such writes since then
}

// token is where the PubAck of a write arrives. One whose write was stored and
// answered is used again: the server remembers where it last led subjects, and a new
// one for each of a command's four messages would cost it a tenth of what it takes to
// store them. All others are given up, since an answer may still be on its way.
type token struct {
	number uint64
	reply  string
	// last is the sequence that its last PubAck named. Only a higher one answers
	// the present write: whatever is answered twice, none is taken for another.
	last uint64
}

type write struct {
	msg   nats.Msg // without reply, and without the header of what is expected
	done  func(seq uint64, duplicate bool, err error)
	token *token    // of its last publish
	sent  time.Time // when that was
	tries int
	// unanswered: how often in a row nobody was there to store it.
	unanswered int
	// records: it goes to the records stream, without which nothing can be claimed.
	records bool
	sure    bool // false once a PubAck may have been lost
	// expects: it is stored only if the subject's last message has the sequence
	// expect; 0: if there is none.
	expects bool
	expect  uint64
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
	w := &writer{
		nc: nc, inbox: nc.NewInbox() + ".",
		pending: make(map[uint64]*write), fenced: fenced, onFull: onFull, log: log,
	}
	var err error
	if w.acks, err = nc.Subscribe(w.inbox+"*", w.answered); err != nil {
		return nil, fmt.Errorf("subscribe to PubAcks: %w", err)
	}
	// A full buffer would drop PubAcks; there are no more than writes under way.
	if err := w.acks.SetPendingLimits(-1, -1); err != nil {
		return nil, fmt.Errorf("lift the pending limits of PubAcks: %w", err)
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.breaks = nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	w.wg.Go(w.watch)
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
	w.nc.RemoveStatusListener(w.breaks)
	_ = w.acks.Unsubscribe() // an error: the connection is closed, and the subscription with it
	w.wg.Wait()
	for _, p := range pending {
		p.done(0, false, ErrStopped)
	}
}

// watch publishes again what has waited too long for its PubAck, and all that was
// under way when the connection broke.
func (w *writer) watch() {
	breaks := w.breaks
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case now := <-sweep.C:
			w.lose(nats.ErrTimeout, func(p *write) bool { return now.Sub(p.sent) >= writeTimeout })
		case _, ok := <-breaks:
			if !ok { // the connection is closed
				breaks = nil
				continue
			}
			w.lose(nats.ErrDisconnected, func(*write) bool { return true })
		}
	}
}

// lose gives up waiting for the PubAcks of some writes.
func (w *writer) lose(err error, which func(*write) bool) {
	var lost []*write
	w.mu.Lock()
	for token, p := range w.pending {
		if which(p) {
			delete(w.pending, token)
			lost = append(lost, p)
		}
	}
	w.mu.Unlock()
	for _, p := range lost {
		w.failed(p, err)
	}
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
	t := w.tokenFor(p)
	w.pending[t.number] = p
	p.token, p.sent = t, time.Now()
	w.mu.Unlock()
	if err := w.put(p, t.reply); err != nil {
		switch {
		case w.take(t.number, 0) == nil:
		case errors.Is(err, nats.ErrMaxPayload):
			go p.done(0, false, ErrTooLarge) // never from within publish
		default:
			w.again(p, err)
		}
	}
}

// tokenFor finds a token for a write. Sequences are of a stream, so that only writes
// to the records stream share theirs. mu is held.
func (w *writer) tokenFor(p *write) *token {
	if n := len(w.free); p.records && n > 0 {
		t := w.free[n-1]
		w.free = w.free[:n-1]
		return t
	}
	w.tokens++
	return &token{number: w.tokens, reply: w.inbox + strconv.FormatUint(w.tokens, 36)}
}

// put hands the message to the connection, which keeps nothing of it.
func (w *writer) put(p *write, reply string) error {
	msg := nats.Msg{Subject: p.msg.Subject, Reply: reply, Header: p.msg.Header, Data: p.msg.Data}
	if p.expects {
		x, ok := w.expectations.Get().(*expectation)
		if !ok {
			x = newExpectation()
		}
		defer w.expectations.Put(x)
		x.value[0] = strconv.FormatUint(p.expect, 10)
		msg.Header = x.header
	}
	return w.nc.PublishMsg(&msg)
}

// expectation is a header that says which sequence is expected. Most writes carry
// it alone, and a map for each would be a tenth of a command's garbage.
type expectation struct {
	header nats.Header
	value  []string // of the header
}

func newExpectation() *expectation {
	value := make([]string, 1)
	return &expectation{nats.Header{jetstream.ExpectedLastSubjSeqHeader: value}, value}
}

// take returns the write that waits under a token's number; nil if none does any
// more. seq is where it was stored, 0 if the answer says anything else.
func (w *writer) take(number, seq uint64) *write {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pending[number]
	if p != nil && p.records && seq > 0 {
		if seq <= p.token.last {
			return nil
		}
		p.token.last = seq
		w.free = append(w.free, p.token)
	}
	delete(w.pending, number)
	return p
}

// answered takes in a PubAck, or that nobody is there to send one.
func (w *writer) answered(m *nats.Msg) {
	number, err := strconv.ParseUint(m.Subject[len(w.inbox):], 36, 64)
	if err != nil {
		return // not an answer to us
	}
	seq, stored := plainPubAck(m.Data)
	p := w.take(number, seq)
	if p == nil {
		return
	}
	ack := pubAck{seq: seq}
	if !stored {
		if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
			w.failed(p, jetstream.ErrNoStreamResponse)
			return
		}
		if ack, err = parsePubAck(m.Data); err != nil {
			w.failed(p, err)
			return
		}
	}
	if p.records {
		w.setFull(false)
	}
	p.done(ack.seq, ack.duplicate, nil)
}

func (w *writer) failed(p *write, err error) {
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		if p.unanswered++; p.unanswered <= unansweredTries {
			w.retry(p, unansweredPause, w.send)
			return
		}
		p.unanswered = 0
		w.retry(p, 0, w.probe)
		return
	}
	p.unanswered = 0
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
	case api != nil:
		if p.records {
			w.setFull(isFull(api))
		}
		w.again(p, err)
	default: // time-out, disconnect: it may have been stored
		p.sure = false
		w.again(p, err)
	}
}

// again publishes the same message after a growing pause.
func (w *writer) again(p *write, err error) {
	if p.tries == triesUntilLog {
		w.notStored(p, err)
	}
	pause := min(writeRetryMin<<min(p.tries, 10), writeRetryMax)
	p.tries++
	w.retry(p, pause, w.send)
}

// notStored logs a write that is not stored for long. What keeps it away keeps many
// away: they are told of together.
func (w *writer) notStored(p *write, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unstored++
	if now := time.Now(); now.Sub(w.told) >= toldEvery {
		w.log.Warn().Err(err).Int("writes", w.unstored).Str("subject", head(p.msg.Subject)).Msg("record_not_stored_yet")
		w.told, w.unstored = now, 0
	}
}

// head is the part of a subject that names no person: the first three tokens.
func head(subject string) string {
	tokens := strings.SplitN(subject, ".", 4)
	return strings.Join(tokens[:min(len(tokens), 3)], ".")
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

// pubAck is what the server says of a stored message.
type pubAck struct {
	seq       uint64
	duplicate bool
}

// parsePubAck reads a PubAck. The usual form of one is read without reflection,
// since four come for every command:
//
//	{"stream":"records","seq":17}
//
// What the server refused is an *[jetstream.APIError].
func parsePubAck(data []byte) (pubAck, error) {
	if seq, ok := plainPubAck(data); ok {
		return pubAck{seq: seq}, nil
	}
	var ack struct {
		Error     *jetstream.APIError `json:"error"`
		Stream    string              `json:"stream"`
		Sequence  uint64              `json:"seq"`
		Duplicate bool                `json:"duplicate"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return pubAck{}, fmt.Errorf("decode PubAck: %w", err)
	}
	if ack.Error != nil {
		return pubAck{}, ack.Error
	}
	if ack.Stream == "" {
		return pubAck{}, errors.New("decode PubAck: it names no stream")
	}
	return pubAck{seq: ack.Sequence, duplicate: ack.Duplicate}, nil
}

func plainPubAck(data []byte) (seq uint64, ok bool) {
	rest, ok := bytes.CutPrefix(data, []byte(`{"stream":"`))
	if !ok {
		return 0, false
	}
	end := bytes.IndexByte(rest, '"')
	if end <= 0 {
		return 0, false
	}
	rest, ok = bytes.CutPrefix(rest[end+1:], []byte(`,`))
	rest, named := bytes.CutPrefix(bytes.TrimLeft(rest, " "), []byte(`"seq":`))
	digits, whole := bytes.CutSuffix(rest, []byte(`}`))
	if !ok || !named || !whole {
		return 0, false
	}
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	return seq, err == nil
}
