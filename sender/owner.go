package sender

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Timing of an owner.
const (
	requestTimeout  = 5 * time.Second        // for one request to NATS
	openTimeout     = time.Minute            // for raising the epoch and opening the first lanes
	scanTimeout     = 30 * time.Second       // for reading a part of the records
	discoverEvery   = 700 * time.Millisecond // a lane is found within a second, on a busy machine too
	discoverTimeout = 20 * time.Second       // for finding lanes and opening them
	opensTogether   = 16                     // lanes that are opened at the same time
	holdEvery       = 40 * time.Second       // well within the lanes' ack wait
	tokenPoll       = 20 * time.Millisecond
	breakerOpenMax  = time.Minute     // after it, a channel that came back is surely found out
	settleGrace     = 2 * time.Second // for records and events after the last call
)

// stateHandover is where an owner that leaves in order notes its last window.
const stateHandover = "handover"

// owner serves one account for as long as it holds the lease.
type owner struct {
	cfg      Config
	nc       *nats.Conn
	js       jetstream.JetStream
	topology *queue.Topology
	lease    *queue.Lease
	client   *wazzup.Client
	log      zerolog.Logger
	metrics  *metrics
	tracer   trace.Tracer
	tracing  bool

	attempt    func(*command) // takes a message that has passed the gates on its way; with the mutex held
	vendorAway func(bool)     // hears after each reading of the channel list
	serving    func(bool)     // hears when the owner is at work, and when it begins to stop

	ledger   *queue.Ledger
	intake   *queue.Intake
	breakers *Breakers

	ctx        context.Context //nolint:containedctx // the ownership's life
	cancel     context.CancelFunc
	callCtx    context.Context //nolint:containedctx // the calls' life: ends when a stop has no more patience
	cancelCall context.CancelFunc
	background sync.WaitGroup
	callers    *callers
	polls      chan struct{} // asks for the channel list now
	keys       chan struct{} // the same, with another key
	gone       chan error    // the lease or the epoch is over
	closers    []func()      // what open started, beside the rest
	answers    formerAnswers

	noncePrefix string
	nonces      atomic.Uint64

	hookTurn     chan struct{} // held by the request that changes the webhook's address
	deadTurn     chan struct{} // held by the request that changes dead letters
	redriveUntil time.Time     // of the spaced redrive that had to end early; of whose turn it is

	opening      sync.Mutex // held while lanes are opened; before mu
	mu           sync.Mutex
	feeds        map[*queue.Source]*feed
	commands     map[identity]*command // in hand
	lanes        map[laneKey]*lane
	listed       map[string]bool // channels of the last channel list
	fills        [4]fill         // by stream
	backlog      backlog
	channels     map[string]*channelGate
	runnable     [2]fifo[*lane] // by rank: lanes with a command that may go
	lines        [2]gateClock   // by rank: where those lanes stand
	reasons      reasons
	doubts       map[string][]*command // by the subject of their echo
	looking      map[string]bool       // the same: evidence is being read
	lookAgain    map[string]bool
	lookTimer    map[string]*time.Timer
	proofs       proofs
	statuses     statuses
	counters     counters
	waiting      int       // commands in hand whose chats wait
	rounds       uint64    // of discovery, so far
	moving       int       // open lanes with commands in hand, at the last of them
	discovered   time.Time // when every source that held commands as the ownership began was known; zero: not yet
	seeking      bool      // commands on malformed channel tokens are looked for
	crowd        crowd
	deferredFull bool // no more commands may be scheduled for now
	windowKnown  bool // the calls of the past are known, or assumed
	owned        time.Time
	paces        paceMemory // of lanes that are not open
	window       *window
	flight       int // attempts that hold a slot
	otherFlight  int // of them, not transactional
	closed       *closure
	reopening    bool // that it opens is being stored, and takes effect then
	closings     int  // how often it was closed
	lastClosed   closedSpan
	refusals     int    // of the account, in a row
	keeper       keeper // of the account's gate
	replay       map[string]channelWord
	replayed     chan struct{} // closed when the last stored word on each channel is known
	caughtUp     func()        // closes it
	pausedUntil  time.Time
	full         bool // the records stream has no room
	fullTold     time.Time
	wake         *time.Timer
	wakes        time.Time
	expires      time.Time // of the lease
	webhooks     bool      // something has ever come by webhook

	unknownCodes map[string]time.Time // when operators were last told of each

	// active counts what must not be cut off when the owner stops in order:
	// writes under way and calls.
	active   int
	stopping bool          // no new claims
	dropped  bool          // nothing more is written: the epoch is over
	drained  chan struct{} // hears when stopping and nothing is active any more
}

func newOwner(w *Worker, cfg Config, t *queue.Topology, lease *queue.Lease, client *wazzup.Client) *owner {
	o := &owner{
		cfg: cfg, nc: w.nc, js: w.js, topology: t, lease: lease, client: client,
		log:     w.log.With().Str("account", cfg.Account).Str("epoch", lease.Epoch).Logger(),
		metrics: w.metrics, tracer: w.tracer, tracing: w.tracing,
		callers:   newCallers(),
		polls:     make(chan struct{}, 1),
		keys:      make(chan struct{}, 1),
		hookTurn:  make(chan struct{}, 1),
		deadTurn:  make(chan struct{}, 1),
		gone:      make(chan error, 1),
		commands:  make(map[identity]*command),
		feeds:     make(map[*queue.Source]*feed),
		statuses:  newStatuses(),
		counters:  newCounters(&cfg),
		replay:    make(map[string]channelWord),
		replayed:  make(chan struct{}),
		backlog:   newBacklog(),
		doubts:    make(map[string][]*command),
		looking:   make(map[string]bool),
		lookAgain: make(map[string]bool),
		proofs: proofs{
			doubted: make(map[queue.DoubtKey]time.Time),
			pending: make(map[string]*pendingLook),
			late:    make(map[queue.Origin][]lateAnswer),
		},
		lookTimer: make(map[string]*time.Timer),
		lanes:     make(map[laneKey]*lane),
		channels:  make(map[string]*channelGate),
		window:    newWindow(cfg.Rate),
		reasons:   newReasons(&cfg),
		drained:   make(chan struct{}, 1),
		expires:   lease.Expires(),

		noncePrefix:  nuid.Next()[12:],
		unknownCodes: make(map[string]time.Time),
	}
	o.attempt = o.carry
	o.keeper.record = o.accountRecord
	o.caughtUp = sync.OnceFunc(func() { close(o.replayed) })
	o.breakers = NewBreakers(BreakerConfig{OpenFor: o.cfg.timing.openFor, OpenMax: breakerOpenMax}, o.breakerChanged)
	o.ctx, o.cancel = context.WithCancel(context.Background())
	o.callCtx, o.cancelCall = context.WithCancel(context.Background())
	return o
}

// run serves the account until ctx ends (nil) or the ownership does (the
// reason), by a call of giveUp among others. It returns after everything that it started has ended. before is the
// window of this process's last ownership, nil if there was none.
func (o *owner) run(ctx context.Context, before *ownership) (*ownership, error) {
	// The lease is kept from before the first step to after the last.
	renewing, stopRenewing := context.WithCancel(context.Background())
	var renewal sync.WaitGroup
	renewal.Go(func() { o.renew(renewing) })
	err := o.openIn(ctx, before)
	if err == nil {
		o.log.Info().Msg("account_owned")
		o.serving(true)
		err = o.serve(ctx)
		o.serving(false)
	}
	o.drain(ctx)
	stopRenewing()
	renewal.Wait()
	return o.close(before), err
}

// openIn opens within a bound: a connection that breaks in the middle answers
// nothing.
func (o *owner) openIn(ctx context.Context, before *ownership) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	ctx, stop := queue.WhileConnected(ctx, o.nc)
	defer stop()
	return o.open(ctx, before)
}

// ownership is what a process remembers of the account it owned.
type ownership struct {
	epoch  string
	window *window
	paused time.Time // until when a 429 holds the account
	paces  paceMemory
}

// open makes this process the only one that can claim, and starts the lanes.
func (o *owner) open(ctx context.Context, before *ownership) error {
	raised, err := o.lease.Raise(ctx, o.topology)
	if err != nil {
		return err
	}
	o.answers.until = raised.LastSeq
	o.owned = time.Now()
	if o.ledger, err = queue.NewLedger(o.nc, o.topology, o.lease.Epoch, o.storageFull, o.log); err != nil {
		return err
	}
	if o.intake, err = queue.NewIntake(queue.IntakeConfig{
		NATS: o.nc, JetStream: o.js, Epoch: o.lease.Epoch, Handle: o.delivered, Owned: o.ledger.Owned, Lost: o.fencedOff, Log: o.log,
	}); err != nil {
		return err
	}
	for _, stream := range []string{o.topology.Commands(), o.topology.Deferred()} {
		if err := o.intake.Clear(ctx, stream); err != nil {
			return err
		}
	}
	if err := o.takeWindow(ctx, raised.Before, before); err != nil {
		return err
	}
	if err := o.loadGates(ctx); err != nil {
		return err
	}
	if err := o.watch(ctx); err != nil {
		return err
	}
	if err := o.findParked(ctx); err != nil {
		return err
	}
	var lanes []wantedLane
	for _, e := range schema.Entities() {
		lanes = append(lanes, wantedLane{laneKey{classSync, string(e)}, sourceCommands})
	}
	if err := o.openLanes(ctx, lanes); err != nil {
		return err
	}
	// What it does not find now, because the server does not answer or for another
	// reason that may pass, is found in the seconds to come; the account is served.
	if err := o.discover(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		o.log.Warn().Err(err).Msg("lanes_not_all_found")
	}
	return nil
}

// serve runs the owner's loops until the first of them has a reason to end.
func (o *owner) serve(ctx context.Context) error {
	loops, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		stop()
		wg.Wait()
	}()
	api, err := o.serveAPI()
	if err != nil {
		return err
	}
	defer api()
	wg.Go(func() { o.every(loops, discoverEvery, "discover_lanes", o.discover) })
	wg.Go(func() { o.every(loops, o.cfg.timing.laneIdle/idleRounds, "retire_lanes", o.retireIdle) })
	wg.Go(func() { o.every(loops, o.cfg.timing.storage, "watch_storage", o.watchStorage) })
	wg.Go(func() { o.every(loops, holdEvery, "hold_messages", o.keep) })
	wg.Go(func() { o.every(loops, evidenceEvery, "note_evidence_position", o.noteEvidence) })
	wg.Go(func() { o.every(loops, positionEvery, "keep_statuses", o.keepStatuses) })
	wg.Go(func() { o.every(loops, max(o.cfg.Limits.Retention/8, discoverEvery), "refresh_gates", o.refreshGates) })
	wg.Go(func() { _ = o.readOldest(loops) }) // watchStorage does so again, and tells why not
	wg.Go(func() { o.pollChannels(loops) })
	wg.Go(func() { o.watchSilence(loops) })
	// Not waited for here: what it has heard may still have to be stored, and that
	// must not hold up the end of all claims.
	o.background.Go(func() { o.followCounters(loops) })
	wg.Go(func() { o.followConnection(loops) })
	select {
	case <-ctx.Done():
		return nil
	case err := <-o.gone:
		return err
	}
}

// every runs a chore again and again; the same failure is told once.
func (o *owner) every(ctx context.Context, pause time.Duration, name string, chore func(context.Context) error) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := chore(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			o.log.Warn().Err(err).Str("chore", name).Msg("chore_failed")
		}
		failing = err != nil
	}
}

// renew keeps the lease. When it runs out nothing is claimed; it is over when
// somebody else has it. While NATS cannot renew it, as when a cluster elects,
// nobody can take it either.
func (o *owner) renew(ctx context.Context) {
	pause := queue.LeaseRenew
	for {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		// One that has begun is not cut off: its end would not be known, and the
		// lease could not be released but only run out.
		renewCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queue.LeaseRenew)
		err := o.lease.Renew(renewCtx)
		cancel()
		over := errors.Is(err, queue.ErrLeaseLost)
		pause = queue.LeaseRenew
		if err != nil {
			pause = queue.LeaseRetry
		}
		o.mu.Lock()
		o.expires = o.lease.Expires()
		if err == nil {
			o.pump() // what was held while the lease was in question
		}
		if over {
			o.lose(fmt.Errorf("own %s: %w", o.cfg.Account, err))
		}
		o.mu.Unlock()
		if over {
			return
		}
	}
}

func (o *owner) leaseUntil() time.Time { return o.expires }

// lose ends the ownership: no new claims, but what is under way may finish as
// long as nobody else has raised the epoch.
func (o *owner) lose(err error) {
	o.stopping = true
	select {
	case o.gone <- err:
	default:
	}
}

// giveUp ends the ownership in order, as if the process were told to stop.
func (o *owner) giveUp() {
	select {
	case o.gone <- errGivenUp:
	default: // it ends already
	}
}

// lost ends the ownership at once: the epoch is over.
func (o *owner) lost(err error) {
	o.dropped = true
	o.lose(fmt.Errorf("own %s: %w", o.cfg.Account, err))
}

// fencedOff hears that the epoch is over from whoever found out without a write.
func (o *owner) fencedOff() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost(queue.ErrFenced)
}

// followConnection has the lanes delivered again after a reconnect: what the
// server sent into the broken connection is lost.
func (o *owner) followConnection(ctx context.Context) {
	changes := o.nc.StatusChanged(nats.CONNECTED)
	defer o.nc.RemoveStatusListener(changes)
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-changes:
			if !ok {
				return
			}
			if s == nats.CONNECTED {
				o.intake.Reset()
			}
		}
	}
}

// keep keeps the messages in hand from being delivered again.
func (o *owner) keep(context.Context) error {
	o.mu.Lock()
	held := make([]*command, 0, len(o.commands))
	for _, c := range o.commands {
		held = append(held, c)
	}
	o.mu.Unlock()
	for _, c := range held {
		if err := c.delivery.InProgress(); err != nil {
			return err
		}
	}
	return nil
}

// drain stops claiming at once and waits for what is under way: calls in flight
// get the time of one call, records and events a little more. While NATS is away
// and nobody asks this process to end, it waits on: an answer in hand that cannot
// be recorded yet would be a doubt later.
func (o *owner) drain(ctx context.Context) {
	o.mu.Lock()
	o.stopping = true
	o.stopTimers()
	o.mu.Unlock()
	if o.intake != nil {
		o.intake.Quiesce()
	}
	patience := time.AfterFunc(o.cfg.Timeout, o.cancelCall)
	defer patience.Stop()
	closed := o.nc.StatusChanged(nats.CLOSED)
	defer o.nc.RemoveStatusListener(closed)
	for !o.idle() && !o.nc.IsClosed() { // once it is, nothing can be recorded any more
		select {
		case <-o.drained:
			continue
		case <-closed:
			return
		case <-time.After(o.cfg.Timeout + settleGrace):
		}
		if ctx.Err() != nil || o.nc.IsConnected() {
			o.log.Warn().Msg("owner_stopped_with_work_under_way")
			return
		}
	}
}

// idle reports whether nothing is under way. One step of a command may end and
// the next begin under the same lock, so that only who holds it can tell.
func (o *owner) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.active == 0
}

// close ends what is left of the ownership and gives up the lease.
func (o *owner) close(before *ownership) *ownership {
	o.cancelCall()
	after := o.handOver(before)
	o.mu.Lock()
	o.dropped = true
	o.mu.Unlock()
	o.cancel()
	for _, f := range o.closers {
		f()
	}
	if o.ledger != nil {
		o.ledger.Close()
	}
	if o.intake != nil {
		o.intake.Close()
	}
	o.callers.close()
	o.background.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if err := o.lease.Release(ctx); err != nil {
		o.log.Warn().Err(err).Msg("lease_not_released") // it was lost, or runs out
	}
	o.log.Info().Msg("account_released")
	return after
}

func (o *owner) onClose(f func()) { o.closers = append(o.closers, f) }

func (o *owner) stopTimers() {
	if o.wake != nil {
		o.wake.Stop()
	}
	for _, l := range o.lanes {
		if l.parked != nil {
			l.parked.Stop()
		}
		if l.sync != nil && l.sync.timer != nil {
			l.sync.timer.Stop()
		}
	}
	if o.closed != nil && o.closed.probe != nil {
		o.closed.probe.Stop()
	}
	for _, g := range o.channels {
		if g.closed != nil && g.closed.probe != nil {
			g.closed.probe.Stop()
		}
		for _, p := range g.paused {
			if p.timer != nil {
				p.timer.Stop()
			}
		}
	}
	for _, timer := range o.lookTimer {
		timer.Stop()
	}
	for _, c := range o.commands {
		if c.timer != nil {
			c.timer.Stop()
		}
	}
}

// enter and leave count what is under way. The owner's mutex is held.
func (o *owner) enter() { o.active++ }

func (o *owner) leave() {
	o.active--
	if o.active < 0 {
		panic("sender: more work ended than began")
	}
	if o.stopping && o.active == 0 {
		select {
		case o.drained <- struct{}{}:
		default:
		}
	}
}

// later runs f without the mutex, in a goroutine that the owner waits for. The
// mutex is held.
func (o *owner) later(f func()) {
	if o.dropped {
		return
	}
	o.enter()
	o.background.Go(func() {
		f()
		o.mu.Lock()
		defer o.mu.Unlock()
		o.leave()
	})
}

// handover is the note of an owner that left in order. Times are how much is
// left of them, in milliseconds, because the next owner's clock is another.
type handover struct {
	Epoch  string           `json:"epoch"`
	Busy   []int64          `json:"busyMs,omitempty"`   // each token of the window that is not free
	Per    int64            `json:"perMs,omitempty"`    // the window's length, which a reload may have changed
	Floor  int64            `json:"floorMs,omitempty"`  // the window counts as full
	Paused int64            `json:"pausedMs,omitempty"` // a 429 holds the account
	Paces  map[string]int64 `json:"paceMs,omitempty"`   // by class and channel: the lane's next call
	Blind  int64            `json:"blindMs,omitempty"`  // how long ago calls were last made that nobody knows of
}

// left is how much of a time is left, rounded up.
func left(until, now time.Time) int64 {
	if !until.After(now) {
		return 0
	}
	return until.Sub(now).Milliseconds() + 1
}

// handOver notes what the next owner must know to keep the rates, and returns it
// for this process too. Where it is not known, there is no note, and the next
// owner assumes the worst.
func (o *owner) handOver(before *ownership) *ownership {
	now := time.Now()
	o.mu.Lock()
	if !o.windowKnown {
		o.mu.Unlock()
		return before
	}
	after := &ownership{epoch: o.lease.Epoch, window: o.window, paused: o.pausedUntil, paces: o.paces.of(o.lanes, now)}
	note := handover{
		Epoch: o.lease.Epoch, Per: o.window.limit.Per.Milliseconds(), Floor: left(o.window.floor, now), Paused: left(o.pausedUntil, now),
	}
	for _, at := range o.window.busy(now) {
		note.Busy = append(note.Busy, left(at, now))
	}
	after.paces.note(&note, now)
	unclear := !o.window.limit.IsZero() && o.window.held > 0 || o.dropped
	o.mu.Unlock()
	if unclear {
		return nil // calls of unknown end
	}
	body, err := json.Marshal(note)
	if err != nil {
		o.log.Error().Err(err).Msg("handover_not_noted")
		return after
	}
	if o.nc.IsClosed() {
		return after // nothing can be noted any more
	}
	done := make(chan error, 1)
	o.ledger.PutState(stateHandover, body, func(err error) { done <- err })
	select {
	case err = <-done:
	case <-time.After(settleGrace):
		err = context.DeadlineExceeded
	}
	if err != nil {
		o.log.Warn().Err(err).Msg("handover_not_noted")
	}
	return after
}

// takeWindow finds out which of the account's calls still count: our own, those
// that the former owner noted, or, when it left no note, as many as may be.
func (o *owner) takeWindow(ctx context.Context, former string, before *ownership) error {
	ours := before != nil && before.epoch == former
	var note handover
	if !ours && former != queue.NoEpoch {
		body, err := o.ledger.LastState(ctx, stateHandover)
		if err != nil {
			return err
		}
		if body != nil {
			if err := json.Unmarshal(body, &note); err != nil {
				return fmt.Errorf("read hand-over note: %w", err)
			}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.owned, o.windowKnown = now, true
	switch {
	case ours:
		limit := o.window.limit
		o.window, o.pausedUntil, o.paces = before.window, before.paused, before.paces
		o.window.cutOff() // of calls that were cut off while there was no limit
		o.window.change(limit)
	case former == queue.NoEpoch: // nobody has ever called
	case note.Epoch != former:
		o.window.assumeFull(now)
		o.paces.blind = now
	default:
		o.inherit(&note, now)
	}
	return nil
}

// inherit takes over what the former owner noted. The mutex is held.
func (o *owner) inherit(note *handover, now time.Time) {
	in := func(ms int64) time.Time { return now.Add(time.Duration(ms) * time.Millisecond) }
	var longer int64 // the window, than that of the former owner
	if note.Per > 0 {
		longer = o.window.limit.Per.Milliseconds() - note.Per
	}
	freed := make([]time.Time, 0, len(note.Busy))
	for _, ms := range note.Busy {
		freed = append(freed, in(ms+longer))
	}
	floor := note.Floor
	if floor > 0 {
		floor += longer
	}
	o.window.inherit(freed, in(floor))
	o.pausedUntil = in(note.Paused)
	o.paces.inherit(note, now)
}

func (o *owner) storageFull(full bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.full = full
	if now := time.Now(); full && now.Sub(o.fullTold) >= time.Minute { // it may have room for a moment again and again
		o.fullTold = now
		o.log.Error().Str("stream", o.topology.Records()).Msg("records_stream_is_full")
	}
	o.pump()
}

func (o *owner) nonce() string {
	return o.noncePrefix + strconv.FormatUint(o.nonces.Add(1), 36)
}

func (o *owner) random() float64 {
	if o.cfg.timing.longest {
		return math.Nextafter(1, 0)
	}
	return rand.Float64()
}
