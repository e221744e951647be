package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/propagation"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Errors of a consumer.
var (
	// ErrConsumerGone: the durable consumer was deleted while it was read. It is not
	// made anew, since what it had acknowledged is forgotten with it.
	ErrConsumerGone = errors.New("the durable consumer was deleted")
	// ErrSkip: a handler that returns it, or an error that wraps it, does not want
	// the event again.
	ErrSkip = errors.New("event skipped")
	// ErrGaveUp goes with the handler's last error once ConsumerConfig.MaxAttempts
	// are used up; the event does not come again.
	ErrGaveUp = errors.New("gave up the event")
	// ErrNotAcknowledged: the handler has succeeded, but NATS was not told. The event
	// will come again.
	ErrNotAcknowledged = errors.New("the event was dealt with, and not acknowledged")
)

// Defaults of ConsumerConfig.
const (
	DefaultAckWait  = 30 * time.Second
	DefaultRetryMin = time.Second
	DefaultRetryMax = time.Minute
	DefaultGrace    = 30 * time.Second
)

const (
	// eventPull is how many events one pull request asks for. It is far more than are
	// under way with a usual Parallel, so that the request outlasts them: nats.go
	// (1.55.0) may miss when to ask again where the size is small.
	eventPull       = 100
	eventPullExpiry = 30 * time.Second
	eventHeartbeat  = 5 * time.Second
)

// Start says where a consumer begins that does not exist yet. The zero value is
// StartNew. One that exists goes on where it was, whatever this says.
type Start struct {
	all   bool
	since time.Time // where all is false; zero: does not count
}

// StartNew begins with what is stored from now on.
func StartNew() Start { return Start{} }

// StartAll begins with the oldest event that is kept.
func StartAll() Start { return Start{all: true} }

// StartSince begins with what was stored at that time or later: at the zero time or
// later is everything.
func StartSince(t time.Time) Start { return Start{all: t.IsZero(), since: t} }

func (s Start) policy() (p jetstream.DeliverPolicy, since *time.Time) {
	switch {
	case s.all:
		return jetstream.DeliverAllPolicy, nil
	case !s.since.IsZero():
		return jetstream.DeliverByStartTimePolicy, &s.since
	}
	return jetstream.DeliverNewPolicy, nil
}

// ConsumerConfig says what a consumer reads, and how.
type ConsumerConfig struct {
	// Name of the durable consumer, of A-Z a-z 0-9 _ -. Required: it is what the
	// server remembers the consumer's place by, so that it is the same in every
	// start of a service and another for every other service. Several processes
	// with the same name share the events.
	Name string
	// Subjects to read, all of which begin with `wazzup.<account>.evt.`; none means
	// all events. See [schema.FamilySubjects] and the functions beside it; a
	// token may be `*`, the last one `>`.
	Subjects []string
	// Start is where to begin, if the consumer does not exist yet.
	Start Start
	// Parallel is how many events are dealt with at once, by all processes of this
	// name together. 1, the default, keeps the stored order, whatever fails or is
	// killed; with more there is no order. Wherever order and speed are wanted both,
	// there can be several consumers with narrower subjects.
	Parallel int
	// AckWait is after how long NATS gives an event to another, or again, of which
	// it has not heard: how long a killed consumer delays it. A handler may take
	// longer, since NATS hears of its progress. Default 30 s.
	AckWait time.Duration
	// RetryMin and RetryMax bound the wait before an event comes again whose handler
	// failed; it doubles with each attempt. Defaults 1 s and 1 min.
	RetryMin, RetryMax time.Duration
	// MaxAttempts is after how many attempts an event is given up; 0, the default,
	// never. Until then it holds its place: with Parallel 1 all others wait.
	MaxAttempts int
	// Grace is how long handlers may go on when Run is told to stop; then their
	// context ends. Default 30 s.
	Grace time.Duration
	// OnError, if not nil, hears every failure of an event: the handler's error or
	// panic (*[PanicError]), ErrSkip, ErrGaveUp, ErrNotAcknowledged. It may be called
	// by several goroutines at once.
	OnError func(*Received, error)
}

func (cfg ConsumerConfig) withDefaults() ConsumerConfig {
	duration := func(v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
	}
	if cfg.Parallel == 0 {
		cfg.Parallel = 1
	}
	duration(&cfg.AckWait, DefaultAckWait)
	duration(&cfg.RetryMin, DefaultRetryMin)
	duration(&cfg.RetryMax, DefaultRetryMax)
	duration(&cfg.Grace, DefaultGrace)
	if cfg.OnError == nil {
		cfg.OnError = func(*Received, error) {}
	}
	return cfg
}

func (cfg ConsumerConfig) check(account string) error {
	var faults []error
	if !schema.ValidAccount(account) {
		faults = append(faults, fmt.Errorf("account %q: want 1 to 32 of a-z, 0-9 and -", account))
	}
	if cfg.Name == "" || schema.Key(cfg.Name) != cfg.Name {
		faults = append(faults, fmt.Errorf("name %q: want 1 to 64 of A-Z, a-z, 0-9, _ and -", cfg.Name))
	}
	events := strings.TrimSuffix(schema.EventSubjects(account), ">")
	for i, subject := range cfg.Subjects { // which may name a chat, and is not quoted
		if !strings.HasPrefix(subject, events) || strings.ContainsAny(subject, " \t\r\n") || slices.Contains(strings.Split(subject, "."), "") {
			faults = append(faults, fmt.Errorf("subject %d: want one that begins with %s", i+1, events))
		}
	}
	for _, n := range []int64{int64(cfg.Parallel), int64(cfg.AckWait), int64(cfg.RetryMin), int64(cfg.RetryMax), int64(cfg.MaxAttempts), int64(cfg.Grace)} {
		if n < 0 {
			faults = append(faults, errors.New("a number or a time is negative"))
		}
	}
	return errors.Join(faults...)
}

// Consumer reads an account's events with a durable consumer of its own.
type Consumer struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	stream string
	cfg    ConsumerConfig
	want   jetstream.ConsumerConfig
	trace  propagation.TraceContext
}

// NewConsumer returns a consumer of an account's events over a connection that the
// caller keeps and closes. Nothing is asked of NATS yet. The error names every
// fault of the configuration.
func NewConsumer(nc *nats.Conn, account string, cfg ConsumerConfig) (*Consumer, error) {
	if err := cfg.check(account); err != nil {
		return nil, fmt.Errorf("new consumer: %w", err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("new consumer: %w", err)
	}
	cfg = cfg.withDefaults()
	c := &Consumer{nc: nc, js: js, stream: Names{account}.Records(), cfg: cfg}
	c.want = jetstream.ConsumerConfig{
		Durable:       cfg.Name,
		Description:   "wazzup-relay: events of account " + account,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       cfg.AckWait,
		MaxAckPending: cfg.Parallel,
	}
	c.want.DeliverPolicy, c.want.OptStartTime = cfg.Start.policy()
	switch subjects := cfg.Subjects; len(subjects) {
	case 0:
		c.want.FilterSubject = schema.EventSubjects(account)
	case 1: // the request to make the consumer names it, so that rights can
		c.want.FilterSubject = subjects[0]
	default:
		c.want.FilterSubjects = subjects
	}
	return c, nil
}

// Ensure makes the durable consumer, or brings it to what is configured, but for
// its place. Run does so too; on its own it is for an administrator, whose service
// then needs no right but to read it. The error is [ErrNoStream] where no worker
// has served the account yet, and [ErrForbidden] where the NATS user lacks the right.
func (c *Consumer) Ensure(ctx context.Context) error {
	_, err := c.open(ctx, true)
	return err
}

func (c *Consumer) open(ctx context.Context, create bool) (jetstream.Consumer, error) {
	var consumer jetstream.Consumer
	err := Ask(ctx, func(ctx context.Context) (err error) {
		api, before := "INFO", c.nc.LastError()
		consumer, err = c.js.Consumer(ctx, c.stream, c.cfg.Name)
		if errors.Is(err, jetstream.ErrConsumerNotFound) && create {
			api = "CREATE"
			consumer, err = c.js.CreateConsumer(ctx, c.stream, c.want)
			if errors.Is(err, jetstream.ErrConsumerExists) { // another process was faster, and begins elsewhere
				consumer, err = c.js.Consumer(ctx, c.stream, c.cfg.Name)
			}
		}
		if err == nil && create {
			cfg := c.want
			have := consumer.CachedInfo().Config
			cfg.DeliverPolicy, cfg.OptStartTime, cfg.OptStartSeq = have.DeliverPolicy, have.OptStartTime, have.OptStartSeq
			if !sameConsumer(have, cfg) {
				api = "CREATE"
				consumer, err = c.js.UpdateConsumer(ctx, c.stream, cfg)
			}
		}
		if err != nil && c.forbidden(api, before) {
			return ErrForbidden
		}
		return err
	})
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		err = fmt.Errorf("%w: no worker has served the account yet", ErrNoStream)
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		err = ErrConsumerGone
	}
	if err != nil {
		return nil, fmt.Errorf("open consumer %s of %s: %w", c.cfg.Name, c.stream, err)
	}
	return consumer, nil
}

// forbidden reports whether the server refused a request about the consumer since the
// connection's last error was another.
func (c *Consumer) forbidden(api string, before error) bool {
	subject := "$JS.API.CONSUMER." + api + "." + c.stream + "." + c.cfg.Name
	if api == "CREATE" && c.want.FilterSubject != "" {
		subject += "." + c.want.FilterSubject
	}
	return forbidden(c.nc, before, subject)
}

func sameConsumer(have, want jetstream.ConsumerConfig) bool {
	filters := func(cfg jetstream.ConsumerConfig) []string {
		if cfg.FilterSubject != "" {
			return []string{cfg.FilterSubject}
		}
		return cfg.FilterSubjects
	}
	return have.AckPolicy == want.AckPolicy && have.AckWait == want.AckWait &&
		have.MaxAckPending == want.MaxAckPending && slices.Equal(filters(have), filters(want))
}

// Handler deals with one event. nil acknowledges it; an error has it come again,
// after a wait, but for one that wraps [ErrSkip]. A panic counts as an error. ctx
// carries the event's trace, and ends when Run was told to stop and its grace is over.
//
// An event may come more than once: after a crash between its end and its
// acknowledgement, and some hundreds after the NATS server itself was killed, which
// notes a consumer's place a few times a second. Received.ID is then the same.
type Handler func(ctx context.Context, e *Received) error

// Run reads events until ctx ends, and returns nil then: it stops reading at once,
// waits for the handlers under way, acknowledges, and gives back what it holds
// besides. What was not acknowledged comes again at the next start, of this process
// or of another. It returns an error where it cannot go on: [ErrNoStream],
// [ErrForbidden], [ErrConsumerGone], a closed connection. NATS being away is none:
// it waits.
func (c *Consumer) Run(ctx context.Context, handle Handler) error {
	consumer, err := c.open(ctx, true)
	for err == nil && ctx.Err() == nil {
		if err = c.read(ctx, consumer, handle); err == nil && ctx.Err() == nil {
			consumer, err = c.open(ctx, false) // is it still there?
		}
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it was told to stop
	}
	return err
}

// read deals with events until ctx ends or the subscription does.
func (c *Consumer) read(ctx context.Context, consumer jetstream.Consumer, handle Handler) error {
	before := c.nc.LastError()
	messages, err := consumer.Messages(
		jetstream.PullMaxMessages(max(eventPull, 4*c.cfg.Parallel)), jetstream.PullExpiry(eventPullExpiry), jetstream.PullHeartbeat(eventHeartbeat),
	)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer messages.Stop()
	// Handlers go on for a while when ctx has ended.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var stopping, wg sync.WaitGroup
	ended := make(chan struct{})
	stopping.Go(func() {
		select {
		case <-ctx.Done():
		case <-ended:
			return
		}
		if c.nc.IsConnected() {
			messages.Drain()
		} else {
			messages.Stop() // to drain asks the server, and waits for it
		}
		grace := time.NewTimer(c.cfg.Grace)
		defer grace.Stop()
		select {
		case <-grace.C:
			cancel()
		case <-ended:
		}
	})
	var faults faultOnce
	for range c.cfg.Parallel {
		wg.Go(func() {
			for {
				m, err := messages.Next()
				switch {
				case err == nil:
					c.deal(ctx, work, m, handle)
					continue
				case errors.Is(err, jetstream.ErrNoHeartbeat):
					if err = c.unheard(ctx, before); err == nil {
						continue // nats.go asks again
					}
				default:
					err = c.ended(err)
				}
				faults.set(err)
				messages.Stop()
				return
			}
		})
	}
	wg.Wait()
	close(ended)
	stopping.Wait()
	return faults.err
}

// unheard looks why the server says nothing. nil: it is slow, or was away. A consumer
// that was deleted while there was no connection is told of by nobody.
func (c *Consumer) unheard(ctx context.Context, before error) error {
	if c.forbidden("MSG.NEXT", before) {
		return fmt.Errorf("read events of %s with %s: %w", c.stream, c.cfg.Name, ErrForbidden)
	}
	if _, err := c.open(ctx, false); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// ended tells what the end of a subscription means; nil: it may go on with another.
func (c *Consumer) ended(err error) error {
	switch {
	case errors.Is(err, jetstream.ErrConsumerDeleted):
		return fmt.Errorf("read events of %s with %s: %w", c.stream, c.cfg.Name, ErrConsumerGone)
	case c.nc.IsClosed():
		return fmt.Errorf("read events of %s: %w", c.stream, nats.ErrConnectionClosed)
	}
	return nil
}

// faultOnce keeps the first error of several goroutines.
type faultOnce struct {
	once sync.Once
	err  error
}

func (f *faultOnce) set(err error) {
	if err != nil {
		f.once.Do(func() { f.err = err })
	}
}

// deal has one event dealt with and tells NATS of it. When ctx has ended it goes to
// whoever reads next.
func (c *Consumer) deal(ctx, work context.Context, m jetstream.Msg, handle Handler) {
	if ctx.Err() != nil {
		giveBack(m)
		return
	}
	e := received(m)
	err := c.call(work, m, handle, e)
	last := c.cfg.MaxAttempts > 0 && e.Attempt >= c.cfg.MaxAttempts
	switch {
	case err == nil:
		if err = c.acknowledge(work, m); err != nil {
			c.cfg.OnError(e, fmt.Errorf("%w: %w", ErrNotAcknowledged, err))
		}
		return
	case errors.Is(err, ErrSkip):
		_ = m.TermWithReason("skipped") // unheard, as with the others: it comes again after AckWait
	case work.Err() != nil, ctx.Err() != nil && !last: // a handler that was told to end may only have done so
		giveBack(m)
	case last:
		err = fmt.Errorf("%w: %w", ErrGaveUp, err)
		_ = m.TermWithReason("gave up")
	default:
		_ = m.NakWithDelay(c.wait(e.Attempt))
	}
	c.cfg.OnError(e, err)
}

// wait is how long an event waits after so many attempts.
func (c *Consumer) wait(attempt int) time.Duration {
	wait := c.cfg.RetryMin
	for range attempt - 1 {
		if wait *= 2; wait >= c.cfg.RetryMax {
			break
		}
	}
	return min(wait, c.cfg.RetryMax)
}

// giveBack lets whoever reads next have the event at once.
func giveBack(m jetstream.Msg) {
	_ = m.Nak() //nolint:forbidigo // to come back at once is what is wanted, and nothing overtakes it
}

// ackTries is how often an acknowledgement goes unanswered by a server that is
// there: one that was killed may have forgotten that it gave the event to us, and
// never answers then. It gives it again.
const ackTries = 2

// acknowledge returns when NATS has noted that the event is dealt with. Through a
// break of the connection it waits for NATS, for as long as the event may still be
// this consumer's, and work lasts. It tries once in any case.
func (c *Consumer) acknowledge(work context.Context, m jetstream.Msg) error {
	work, cancel := context.WithTimeout(work, c.cfg.AckWait)
	defer cancel()
	for tries := 0; ; {
		err := nats.ErrDisconnected
		if c.nc.IsConnected() || c.nc.IsClosed() {
			err = tryOnce(context.WithoutCancel(work), tryFirst, m.DoubleAck)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			tries++
		}
		if !mayPass(err) || tries == ackTries {
			return err
		}
		if errors.Is(err, nats.ErrNoResponders) { // nobody leads, or nobody ever will
			if _, err := c.open(work, false); errors.Is(err, ErrConsumerGone) || errors.Is(err, ErrNoStream) {
				return err
			}
		}
		timer := time.NewTimer(tryPause)
		select {
		case <-timer.C:
		case <-work.Done():
			timer.Stop()
			return err
		}
	}
}

// keep tells NATS that an event is being dealt with, until the returned function
// is called.
func (c *Consumer) keep(m jetstream.Msg) (stop func()) {
	every := c.cfg.AckWait / 3
	var mu sync.Mutex // guards timer and done
	var timer *time.Timer
	done := false
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(every, func() {
		mu.Lock()
		defer mu.Unlock()
		if !done {
			_ = m.InProgress() // unheard: the next one may be heard
			timer.Reset(every)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		done = true
		timer.Stop()
	}
}

// PanicError is a handler's panic. Its value may hold what the event says.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("handler panicked: %v", e.Value) }

// call has the handler called. Its progress ends with it, also where it ends the
// goroutine.
func (c *Consumer) call(work context.Context, m jetstream.Msg, handle Handler, e *Received) (err error) {
	defer c.keep(m)()
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
		}
	}()
	return handle(c.trace.Extract(work, exactHeader(e.Header)), e)
}

// Received is an event as it was stored.
type Received struct {
	// ID is the event's identity (ce-id). A repeat of the same event has the same
	// one: compare it where doing a thing twice does harm.
	ID string
	// Subject is where it was published; [schema.ParseEventSubject] splits it.
	Subject string
	Type    string    // ce-type, such as wazzup.command.sent
	Time    time.Time // ce-time: when it was made, or for webhooks received
	Seq     uint64    // in the records stream, in whose order they come
	Attempt int       // 1 is the first; what was given back or lost counts, too
	// Data is the body, read; nil where its family is not known to this version, or
	// the body is not what it should be.
	Data   schema.Event
	Body   []byte // as it was stored: JSON
	Header nats.Header
}

func received(m jetstream.Msg) *Received {
	h := m.Headers()
	e := &Received{
		ID: h.Get(schema.HeaderCEID), Subject: m.Subject(), Type: h.Get(schema.HeaderCEType), Attempt: 1,
		Body: m.Data(), Header: h,
	}
	e.Time, _ = time.Parse(time.RFC3339Nano, h.Get(schema.HeaderCETime))
	if meta, err := m.Metadata(); err == nil {
		e.Seq, e.Attempt = meta.Sequence.Stream, int(meta.NumDelivered)
	}
	if data, err := schema.DecodeEvent(e.Subject, e.Body); err == nil {
		e.Data = data
	}
	return e
}
