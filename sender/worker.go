package sender

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

// Options are what a worker is built from.
type Options struct {
	NATS     *nats.Conn
	Accounts []Config
	Log      zerolog.Logger
	Meter    metric.Meter
	Tracer   trace.Tracer
	Tracing  bool // spans are exported: worth building their attributes
}

// Worker serves accounts: it owns those whose lease it holds and stands by for
// the others. Workers that serve the same accounts share them evenly.
type Worker struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	log     zerolog.Logger
	metrics *metrics
	tracer  trace.Tracer
	tracing bool
	spread  *spread

	mu       sync.Mutex
	accounts []*served          // in the order of the configuration
	leaving  map[string]*served // by name: those that a reload removed, the last of each
	start    func(*served)      // begins to serve one; nil: Run does not run
}

// New builds a worker and names every fault of its configuration. It does not
// connect to anything.
func New(opt Options) (*Worker, error) {
	js, err := jetstream.New(opt.NATS)
	if err != nil {
		return nil, fmt.Errorf("new worker: %w", err)
	}
	m, err := newMetrics(opt.Meter)
	if err != nil {
		return nil, fmt.Errorf("new worker: %w", err)
	}
	w := &Worker{
		nc: opt.NATS, js: js, log: opt.Log, metrics: m, tracer: opt.Tracer, tracing: opt.Tracing,
		leaving: make(map[string]*served),
	}
	if w.accounts, err = newAccounts(opt.Accounts, nil); err != nil {
		return nil, fmt.Errorf("new worker: %w", err)
	}
	name, replicas := "", 1
	for _, a := range w.accounts {
		name, replicas = a.cfg.Worker, max(replicas, a.cfg.Limits.Replicas)
	}
	w.spread = newSpread(js, name, names(w.accounts), replicas, w.log)
	return w, nil
}

// Ready reports whether every account is stood by for, or owned while the vendor
// answers; the channel list, which is read on a schedule, tells. What the answer
// says does not count: one account's wrong key is told by an event, and must not
// hold up the others.
func (w *Worker) Ready() error {
	if !w.nc.IsConnected() {
		return errors.New("NATS is not connected")
	}
	w.mu.Lock()
	accounts := w.accounts
	w.mu.Unlock()
	for _, a := range accounts {
		if !a.standing.Load() {
			why := ""
			if fault := a.fault.Load(); fault != nil {
				why = ": " + *fault
			}
			return fmt.Errorf("account %s is neither owned nor stood by for%s", a.name, why)
		}
		if a.awaiting.Load() {
			return fmt.Errorf("account %s: Wazzup does not answer", a.name)
		}
	}
	return nil
}

// Run serves until ctx ends, then stops in order: no claim is made any more,
// calls in flight end, and the leases are given up. NATS being away is waited
// for.
func (w *Worker) Run(ctx context.Context) error {
	defer w.metrics.observe(w)()
	var wg sync.WaitGroup
	w.mu.Lock()
	w.start = func(a *served) {
		one, stop := context.WithCancel(ctx)
		a.stop = stop
		wg.Go(func() {
			defer close(a.ended)
			defer stop()
			w.serve(one, a)
		})
	}
	for _, a := range w.accounts {
		w.start(a)
	}
	w.mu.Unlock()
	wg.Go(func() { w.spread.attend(ctx) })
	<-ctx.Done()
	w.mu.Lock()
	w.start = nil // a reload starts nothing any more
	w.mu.Unlock()
	wg.Wait()
	return nil
}

// reasonsTold bounds how many different reasons are told why an account cannot be
// served.
const reasonsTold = 16

// serve takes the account's lease whenever it is free and this worker's turn.
func (w *Worker) serve(ctx context.Context, a *served) {
	defer a.client.CloseIdleConnections()
	if a.former != nil {
		<-a.former.ended // it is being given up
	}
	log := w.log.With().Str("account", a.name).Logger()
	var before *ownership
	prepared := false
	told := make(map[string]bool) // reasons, since the account could last be served
	for ctx.Err() == nil {
		news := w.spread.next()
		var err error
		if !prepared {
			err = w.prepare(ctx, a)
			prepared = err == nil
		}
		if err == nil {
			before, err = w.turn(ctx, a, before)
		}
		failed := err != nil && !errors.Is(err, errGivenUp) && !errors.Is(err, queue.ErrLeaseHeld)
		a.fault.Store(textOf(failed, err))
		a.standing.Store(!failed)
		switch {
		case !failed:
			clear(told)
		case ctx.Err() == nil && !errors.Is(err, errNotRead) && !told[err.Error()] && len(told) < reasonsTold:
			told[err.Error()] = true
			log.Warn().Err(err).Msg("account_not_served")
		}
		select {
		case <-ctx.Done():
		case <-news:
		}
	}
	a.standing.Store(false)
}

// textOf is what is told of a failure; nil: nothing failed.
func textOf(failed bool, err error) *string {
	if !failed {
		return nil
	}
	text := err.Error()
	return &text
}

// prepareTimeout is longer than an election, so that one is not told of.
const prepareTimeout = 12 * time.Second

// prepare sees to the account's streams, without which it cannot be stood by for.
func (w *Worker) prepare(ctx context.Context, a *served) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	_, err := queue.Ensure(ctx, w.js, a.name, a.config().Limits)
	w.spread.offer(a.name, err == nil)
	return err
}

// turn serves the account for one lease, if it is to be taken now, and returns
// what this process remembers of its last ownership.
func (w *Worker) turn(ctx context.Context, a *served, before *ownership) (*ownership, error) {
	leases, err := w.spread.begin(a.name)
	if leases == nil {
		return before, err
	}
	after, opened, err := w.own(ctx, a, leases, before)
	if after == nil {
		after = before
	}
	lost := errors.Is(err, queue.ErrLeaseHeld) || errors.Is(err, queue.ErrLeaseLost) || errors.Is(err, queue.ErrFenced)
	w.spread.end(a.name, err != nil && !opened && !lost && ctx.Err() == nil)
	return after, err
}

// own serves one account for one lease. opened tells whether it got to work.
func (w *Worker) own(ctx context.Context, a *served, leases *queue.Leases, before *ownership) (after *ownership, opened bool, err error) {
	setup, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	// The streams may have been made anew since they were last seen to.
	topology, err := queue.Ensure(setup, w.js, a.name, a.config().Limits)
	if err != nil {
		return nil, false, err
	}
	lease, err := leases.Acquire(setup, a.name)
	if err != nil {
		return nil, false, err
	}
	cancel()
	a.awaiting.Store(true)
	defer a.awaiting.Store(false)
	a.standing.Store(true)
	o := a.owned(func(cfg Config) *owner { return newOwner(w, cfg, topology, lease, a.client) })
	defer a.released()
	o.vendorAway = a.awaiting.Store
	o.serving = func(serves bool) {
		opened = opened || serves
		w.serving(o, serves)
	}
	after, err = o.run(ctx, before)
	return after, opened, err
}

// serving notes that an owner is at work, or has begun to stop.
func (w *Worker) serving(o *owner, serves bool) {
	if !serves {
		w.metrics.owned.Add(context.Background(), -1)
		w.spread.serving(o.cfg.Account, nil)
		return
	}
	w.metrics.owned.Add(context.Background(), 1)
	w.spread.serving(o.cfg.Account, o)
}
