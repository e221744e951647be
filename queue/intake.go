package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Timing of an intake.
const (
	pullExpiry = 300 * time.Second // of one waiting pull request
	// ackWait only matters for what was lost between server and worker without
	// being noticed; what a worker holds it keeps by InProgress.
	ackWait     = 2 * time.Minute
	requestWait = 5 * time.Second
	replaceWait = 30 * time.Second // for making a consumer anew, before it is begun again
	// createWait is how long the making of a consumer may take at first. In a
	// cluster its leader may be chosen to be a node that has just been lost.
	createWait = time.Second
	// abandonWait is how long the deletion of a consumer may take before the next
	// is made all the same. Only its leader answers, and that may be gone.
	abandonWait = 200 * time.Millisecond
	// After pullAgainRounds in a row in which a source got nothing although
	// something waits, its pull is taken for lost, as one is that was on its way to
	// a node that died. After watchdogRounds so is the consumer: a server under
	// load is slow, and making its consumers anew would only make it slower.
	pullAgainRounds = 2
	watchdogRounds  = 20
)

// Delivery is one command message handed to the account's owner.
type Delivery struct {
	Source  *Source // nil: it was parked
	Subject string
	Header  nats.Header
	Data    []byte
	Seq     uint64    // in the stream it came from
	Stored  time.Time // NATS's clock

	nc       *nats.Conn
	stream   string // of a parked one
	mu       sync.Mutex
	reply    string // a redelivery of what is still held replaces it
	consumer string // whose reply it is
}

// Ack removes the message from its stream. It is not waited for: when it is
// lost the message comes again, and the ledger knows that it ended.
func (d *Delivery) Ack() error {
	if d.Source == nil {
		return nil
	}
	heard, asleep := d.Source.hears(d)
	if asleep {
		d.Source.in.delete(d)
	}
	if !heard {
		return nil
	}
	return d.respond("+ACK")
}

// hears reports whether the consumer that delivered the message is still there to be
// told. If not, the message may come once more, and is then acknowledged unseen.
func (s *Source) hears(d *Delivery) (heard, asleep bool) {
	d.mu.Lock()
	consumer := d.consumer
	d.mu.Unlock()
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	if asleep = s.asleep.Load(); !asleep && !s.resetting && consumer == s.consumer {
		return true, false
	}
	if s.ended == nil {
		s.ended = make(map[uint64]struct{})
	}
	s.ended[d.Seq] = struct{}{}
	return false, asleep
}

// deleteRequest asks for a message to be deleted, as an acknowledgement deletes it:
// its bytes are not overwritten.
func deleteRequest(seq uint64) []byte {
	return []byte(`{"seq":` + strconv.FormatUint(seq, 10) + `,"no_erase":true}`)
}

// InProgress keeps the message from being delivered again while it is held.
func (d *Delivery) InProgress() error {
	if d.Source == nil { // nobody else reads what is parked
		return nil
	}
	return d.respond("+WPI")
}

// Stream is the stream that the message came from.
func (d *Delivery) Stream() string {
	if d.Source == nil {
		return d.stream
	}
	return d.Source.stream
}

func (d *Delivery) respond(what string) error {
	d.mu.Lock()
	reply := d.reply
	d.mu.Unlock()
	return d.nc.Publish(reply, []byte(what))
}

// Same reports whether two deliveries are of one stored message.
func (d *Delivery) Same(other *Delivery) bool {
	return d.Stream() == other.Stream() && d.Seq == other.Seq
}

// Replace makes acknowledgements go to the place that a later delivery of the
// same message names, since the consumer of the earlier one may be gone.
func (d *Delivery) Replace(later *Delivery) {
	d.mu.Lock()
	d.reply, d.consumer = later.reply, later.consumer
	d.mu.Unlock()
}

// Intake hands an account's owner the messages of its lanes. Every source is a
// pull consumer on one subject filter; all their messages arrive on one shared
// inbox and are handed over by one goroutine, in stream order for each source.
//
// It pulls with requests of its own: nats.go's Consume keeps three goroutines a
// consumer and was seen to miss wake-ups with small batches.
type Intake struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	epoch  string
	inbox  string
	sub    *nats.Subscription
	handle func(*Delivery)
	owned  func(context.Context) (bool, error)
	lost   func()
	log    zerolog.Logger

	ctx    context.Context //nolint:containedctx // the intake's life, for requests of resets
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	sources map[string]*Source // by token
	byName  map[string]*Source // by consumer name
	serial  int
	closed  bool
	told    time.Time // when it was last told that consumers cannot be recreated
	missing int       // tries that failed since then
}

// Source is one lane's pull consumer. Its methods may be called by any goroutine.
type Source struct {
	in     *Intake
	stream string
	filter string

	generation int // of the consumer; changed only while resetting

	asleep atomic.Bool // it has no consumer until more is wanted; changed by in.mu's holder

	// Owned by in.mu.
	token       string
	consumer    string
	wanted      int    // asked for by the owner, not yet delivered
	outstanding int    // of wanted, those in a pull request the server has
	consumerSeq uint64 // last consumer sequence, to notice a loss
	resetting   bool
	closed      bool
	quiet       int // watchdog rounds without a message while some were due
	// ended has what was acknowledged since the last consumer was given up: the next one
	// may have it still.
	ended map[uint64]struct{}
}

// IntakeConfig says whose messages an intake hands to whom.
type IntakeConfig struct {
	NATS      *nats.Conn
	JetStream jetstream.JetStream
	Epoch     string // is part of the consumers' names
	// Handle is called by one goroutine and must not block.
	Handle func(*Delivery)
	// Owned is asked before a consumer is made anew: a former owner that has not
	// noticed yet must not stand in the way of the next one.
	Owned func(context.Context) (bool, error)
	// Lost is told, by any goroutine, when Owned said no: nothing more will come.
	// nil: nobody wants to know.
	Lost func()
	Log  zerolog.Logger
}

// NewIntake starts an intake for one ownership.
func NewIntake(cfg IntakeConfig) (*Intake, error) {
	nc := cfg.NATS
	in := &Intake{
		nc: nc, js: cfg.JetStream, epoch: cfg.Epoch, handle: cfg.Handle, owned: cfg.Owned, lost: cfg.Lost, log: cfg.Log,
		inbox:   nc.NewInbox(),
		sources: make(map[string]*Source),
		byName:  make(map[string]*Source),
	}
	in.ctx, in.cancel = context.WithCancel(context.Background())
	sub, err := nc.Subscribe(in.inbox+".*", in.received)
	if err != nil {
		in.cancel()
		return nil, fmt.Errorf("subscribe to the intake's inbox: %w", err)
	}
	// A full buffer would drop deliveries; what may arrive is bounded by what
	// was asked for.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		in.cancel()
		return nil, fmt.Errorf("lift the intake's pending limits: %w", err)
	}
	in.sub = sub
	return in, nil
}

// Clear deletes every consumer of the stream that is not ours: a former owner's pulls end, its
// acknowledgements find nobody, and everything unfinished comes again.
func (in *Intake) Clear(ctx context.Context, stream string) error {
	return in.clear(ctx, stream, func(name string) bool { return !strings.HasPrefix(name, in.prefix()) })
}

// clear deletes the consumers whose names are unwanted.
func (in *Intake) clear(ctx context.Context, stream string, unwanted func(name string) bool) error {
	var names []string
	err := Ask(ctx, func(ctx context.Context) error {
		s, err := in.js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		names = names[:0]
		list := s.ConsumerNames(ctx)
		for name := range list.Name() {
			if unwanted(name) {
				names = append(names, name)
			}
		}
		return list.Err()
	})
	if err == nil {
		err = together(names, func(name string) error { return in.remove(ctx, stream, name) })
	}
	if err != nil {
		return fmt.Errorf("clear consumers of %s: %w", stream, err)
	}
	return nil
}

// remove deletes a consumer; one that is not there is no error. Only the
// consumer's leader answers: where that is gone, the second try finds it deleted.
// See abandon for what need not be certain.
func (in *Intake) remove(ctx context.Context, stream, consumer string) error {
	return Ask(ctx, func(ctx context.Context) error {
		err := in.js.DeleteConsumer(ctx, stream, consumer)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil
		}
		return err
	})
}

// abandon has a consumer deleted. If it should stand in the way of the next one
// all the same, create sees to it.
func (in *Intake) abandon(ctx context.Context, stream, consumer string) {
	_ = tryOnce(ctx, abandonWait, func(ctx context.Context) error {
		return in.js.DeleteConsumer(ctx, stream, consumer)
	})
}

// Open makes the consumer of a lane. Nothing is delivered before Want.
func (in *Intake) Open(ctx context.Context, stream, filter string) (*Source, error) {
	s, err := in.newSource(stream, filter)
	if err != nil {
		return nil, err
	}
	name, err := s.create(ctx)
	if err != nil {
		return nil, fmt.Errorf("open lane on %s: %w", stream, err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	s.consumer = name
	in.sources[s.token] = s
	in.byName[name] = s
	return s, nil
}

func (in *Intake) newSource(stream, filter string) (*Source, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return nil, fmt.Errorf("open lane %s: %w", stream, ErrStopped)
	}
	in.serial++
	// Where the deletion of a closed source's consumer failed, the next source of
	// its filter must not take that one for its own: hence the generation.
	return &Source{in: in, stream: stream, filter: filter, token: strconv.Itoa(in.serial), generation: in.serial}, nil
}

func (in *Intake) prefix() string { return "lane-" + in.epoch + "-" }

// codeNotUnique: another consumer of the work queue has this filter.
const codeNotUnique jetstream.ErrorCode = 10100

// stem is common to the names of all consumers that this intake made for the
// source's filter.
func (s *Source) stem() string {
	return s.in.prefix() + strings.TrimPrefix(schema.Key(s.filter), "~") + "-"
}

func (s *Source) name() string { return s.stem() + strconv.Itoa(s.generation) }

// create makes the source's consumer, and makes it anew under another name while
// it does not answer: the cluster then chooses another leader for it, which takes
// less time than an election among those that are left.
func (s *Source) create(ctx context.Context) (name string, err error) {
	for patience := createWait; ; patience = patience * 5 / 4 {
		err = tryOnce(ctx, patience, func(ctx context.Context) error {
			name, err = s.createNamed(ctx)
			return err
		})
		api, refused := errors.AsType[*jetstream.APIError](err)
		switch {
		case err == nil, ctx.Err() != nil:
			return name, err
		case refused && api.ErrorCode == codeNotUnique:
			// A former owner made its consumer anew before it noticed, or a try of
			// ours was carried out after all.
			err = s.in.clear(ctx, s.stream, func(name string) bool {
				return !strings.HasPrefix(name, s.in.prefix()) || strings.HasPrefix(name, s.stem())
			})
			s.generation++ // a deletion that comes late must not meet the next one
		case mayPass(err):
			s.in.abandon(ctx, s.stream, s.name())
			s.generation++
			err = ctx.Err()
		}
		if err != nil {
			return "", err
		}
	}
}

// createNamed makes the consumer. Its state is in the server's memory: a work
// queue forgets what was acknowledged anyway, and consumer files would cost a
// quarter of the server's time. In a cluster it has as many copies as its stream.
func (s *Source) createNamed(ctx context.Context) (name string, err error) {
	name = s.name()
	_, err = s.in.js.CreateConsumer(ctx, s.stream, jetstream.ConsumerConfig{
		Durable:       name,
		FilterSubject: s.filter,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    -1,
		MaxAckPending: -1,
		DeliverPolicy: jetstream.DeliverAllPolicy,
		MemoryStorage: true,
	})
	return name, err
}

// Stream is the stream that the source reads.
func (s *Source) Stream() string { return s.stream }

// Want asks for up to n more messages. They stay asked for until delivered, or
// until the source is put to sleep.
func (s *Source) Want(n int) {
	if n <= 0 {
		return
	}
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.wanted += n
	if s.asleep.Load() {
		s.wakeLocked()
		return
	}
	s.pullLocked()
}

// Wanted tells how many messages are asked for and not delivered.
func (s *Source) Wanted() int {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.wanted
}

// Close deletes the consumer; what was not acknowledged stays in the stream, and
// comes again through the next source of the filter. After an error the consumer
// may be left, which does not stand in the way of that source.
func (s *Source) Close(ctx context.Context) error {
	in := s.in
	in.mu.Lock()
	s.closed = true
	delete(in.sources, s.token)
	delete(in.byName, s.consumer)
	name := s.consumer
	in.mu.Unlock()
	if name == "" { // it slept since it was opened
		return nil
	}
	if err := in.remove(ctx, s.stream, name); err != nil {
		return fmt.Errorf("close lane on %s: %w", s.stream, err)
	}
	return nil
}

func (s *Source) pullLocked() {
	n := s.wanted - s.outstanding
	if n <= 0 || s.closed || s.resetting || s.in.closed {
		return
	}
	s.outstanding += n
	req := `{"batch":` + strconv.Itoa(n) + `,"expires":` + strconv.FormatInt(int64(pullExpiry), 10) + `}`
	subject := "$JS.API.CONSUMER.MSG.NEXT." + s.stream + "." + s.consumer
	if err := s.in.nc.PublishRequest(subject, s.in.inbox+"."+s.token, []byte(req)); err != nil {
		s.outstanding -= n // disconnected; Reset follows the reconnect
	}
}

// received gets every message and status of every source.
func (in *Intake) received(m *nats.Msg) {
	// By the reply subject: a producer may give its message any header.
	if !strings.HasPrefix(m.Reply, "$JS.ACK.") {
		in.status(m)
		return
	}
	meta, err := parseAckReply(m.Reply)
	if err != nil {
		in.log.Error().Err(err).Msg("intake_message_without_metadata")
		return
	}
	in.mu.Lock()
	s := in.byName[meta.consumer]
	if s == nil || s.resetting {
		in.mu.Unlock()
		return // of a consumer that was replaced: it comes again
	}
	if meta.consumerSeq != s.consumerSeq+1 {
		// A delivery was lost on the way. Going on would break the order.
		in.resetLocked(s, "gap")
		in.mu.Unlock()
		return
	}
	s.consumerSeq = meta.consumerSeq
	s.quiet = 0
	s.outstanding = max(s.outstanding-1, 0)
	d := &Delivery{
		Source: s, Subject: m.Subject, Header: m.Header, Data: m.Data,
		Seq: meta.streamSeq, Stored: meta.stored, nc: in.nc, reply: m.Reply, consumer: meta.consumer,
	}
	if _, ended := s.ended[d.Seq]; ended {
		delete(s.ended, d.Seq)
		s.pullLocked() // another one in its place
		in.mu.Unlock()
		_ = d.respond("+ACK") // unheard, it comes again, and the ledger knows that it ended
		return
	}
	s.wanted = max(s.wanted-1, 0)
	in.mu.Unlock()
	in.handle(d)
}

// status handles what the server says of a pull request instead of a message.
func (in *Intake) status(m *nats.Msg) {
	token := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.sources[token]
	if s == nil || s.resetting || s.asleep.Load() {
		return
	}
	switch m.Header.Get("Status") {
	case "100": // heartbeat
	case "408", "404": // the request expired
		left, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
		if err != nil {
			left = s.outstanding
		}
		s.outstanding = max(s.outstanding-left, 0)
		s.pullLocked()
	default: // 503 no such consumer, 409 deleted or leadership changed
		in.resetLocked(s, "status_"+m.Header.Get("Status"))
	}
}

// Reset recreates the consumers of all sources. The owner calls it after a
// reconnect: what the server sent into the broken connection is lost, and so
// are the waiting pulls.
func (in *Intake) Reset() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.sources {
		in.resetLocked(s, "reconnect")
	}
}

// resetLocked replaces a source's consumer: everything unacknowledged comes
// again from the start, in stream order. The owner knows what it holds already.
func (in *Intake) resetLocked(s *Source, why string) {
	if s.resetting || s.asleep.Load() || s.closed || in.closed {
		return
	}
	s.resetting = true
	s.ended = nil
	delete(in.byName, s.consumer)
	old := s.consumer
	in.wg.Go(func() { in.replace(s, old, why) })
}

// whyAwake is why the consumer of a source is made that was put to sleep.
const whyAwake = "wanted"

// recreatedSlowly is from when on it is told that a lane stood still: after a
// reconnect all of them, perhaps thousands, are recreated in milliseconds.
const recreatedSlowly = time.Second

func (in *Intake) recreated(s *Source, why string, took time.Duration) {
	level := zerolog.DebugLevel
	if took >= recreatedSlowly {
		level = zerolog.InfoLevel
	}
	in.log.WithLevel(level).Str("stream", s.stream).Str("filter", s.filter).Str("why", why).Dur("took", took).Msg("lane_consumer_recreated")
}

// notRecreated tells once a minute of consumers that cannot be recreated yet: what
// keeps one away keeps many away, and each is tried once a second.
func (in *Intake) notRecreated(s *Source, why string, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.missing++
	if now := time.Now(); now.Sub(in.told) >= toldEvery {
		in.log.Warn().Err(err).Str("stream", s.stream).Str("filter", s.filter).Str("why", why).Int("tries", in.missing).Msg("lane_consumer_not_recreated")
		in.told, in.missing = now, 0
	}
}

func (in *Intake) replace(s *Source, old, why string) {
	s.generation++
	began := time.Now()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		name, err := in.renew(s, old)
		switch {
		case errors.Is(err, ErrFenced):
			if in.lost != nil {
				in.lost()
			}
			return
		case err == nil && !in.resume(s, name):
			in.abandon(in.ctx, s.stream, name)
			return
		case err == nil:
			in.recreated(s, why, time.Since(began))
			return
		case in.ctx.Err() == nil:
			in.notRecreated(s, why, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-in.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// renew puts a new consumer in the place of the old one, unless the epoch is over.
func (in *Intake) renew(s *Source, old string) (name string, err error) {
	ctx, cancel := context.WithTimeout(in.ctx, replaceWait)
	defer cancel()
	owned, err := in.owned(ctx)
	if err != nil {
		return "", err
	}
	if !owned {
		return "", ErrFenced
	}
	if old != "" {
		in.abandon(ctx, s.stream, old)
	}
	name, err = s.create(ctx)
	return name, err
}

// resume goes on with the new consumer, unless the source was closed meanwhile.
func (in *Intake) resume(s *Source, name string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if s.closed || in.closed {
		return false
	}
	s.consumer, s.consumerSeq = name, 0
	s.outstanding, s.resetting, s.quiet = 0, false, 0
	in.byName[name] = s
	// A new inbox token: what is still said of former pulls is not about these.
	delete(in.sources, s.token)
	in.serial++
	s.token = strconv.Itoa(in.serial)
	in.sources[s.token] = s
	s.pullLocked()
	return true
}

// Waiting lists the subjects of a stream that hold messages, with their number.
// It is a server-side listing: 1,000 subjects take about 2 ms.
func (in *Intake) Waiting(ctx context.Context, stream, filter string) (map[string]uint64, error) {
	return listSubjects(ctx, in.nc, stream, filter)
}

// EachWaiting is Waiting without the list: each subject is handed over as it comes,
// and what is held meanwhile is bounded however many there are.
func (in *Intake) EachWaiting(ctx context.Context, stream, filter string, each func(subject string, n uint64)) error {
	return eachSubject(ctx, in.nc, stream, filter, each)
}

// Check is the watchdog: the owner tells how many messages the server holds for
// the source beyond what the owner holds. A source that gets nothing for some
// rounds although it asked and some wait pulls again, which asks for too many at
// worst; one that gets nothing for many is recreated.
func (s *Source) Check(waiting int) {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	if waiting <= 0 || s.wanted == 0 || s.resetting || s.closed { // nothing is wanted of one that sleeps
		s.quiet = 0
		return
	}
	switch s.quiet++; s.quiet {
	case pullAgainRounds:
		s.outstanding = 0
		s.pullLocked()
	case watchdogRounds:
		s.in.resetLocked(s, "watchdog")
	}
}

// Quiesce ends pulling and recreating; what is in hand can still be acknowledged.
func (in *Intake) Quiesce() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
}

// Close ends the intake and waits for its goroutines. The consumers stay for the
// next owner to clear.
func (in *Intake) Close() {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	in.cancel()
	// An error means that the connection is closed: nothing arrives then either.
	_ = in.sub.Unsubscribe()
	in.wg.Wait()
}

type ackReply struct {
	consumer    string
	streamSeq   uint64
	consumerSeq uint64
	stored      time.Time
}

// parseAckReply reads the acknowledgement subject of a delivery,
// $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>,
// or the longer form with domain and account hash in front (NATS ADR-15).
func parseAckReply(reply string) (ackReply, error) {
	tokens := strings.Split(reply, ".")
	if len(tokens) >= 11 {
		tokens = append(tokens[:2:2], tokens[4:]...)
	}
	if len(tokens) < 9 || tokens[0] != "$JS" || tokens[1] != "ACK" {
		return ackReply{}, errors.New("acknowledgement subject has another form")
	}
	streamSeq, err1 := strconv.ParseUint(tokens[5], 10, 64)
	consumerSeq, err2 := strconv.ParseUint(tokens[6], 10, 64)
	nanos, err3 := strconv.ParseInt(tokens[7], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return ackReply{}, fmt.Errorf("acknowledgement subject: %w", err)
	}
	return ackReply{consumer: tokens[3], streamSeq: streamSeq, consumerSeq: consumerSeq, stored: time.Unix(0, nanos)}, nil
}
