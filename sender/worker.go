package sender

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
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
	nc       *nats.Conn
	js       jetstream.JetStream
	accounts []Config
	clients  []*wazzup.Client
	log      zerolog.Logger
	metrics  *metrics
	tracer   trace.Tracer
	tracing  bool
	spread   *spread

	standing []atomic.Bool // by account: owned, or standing by
	awaiting []atomic.Bool // by account: owned, and the vendor did not answer when it was last asked, or was not asked yet
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
		standing: make([]atomic.Bool, len(opt.Accounts)),
		awaiting: make([]atomic.Bool, len(opt.Accounts)),
	}
	var faults []error
	for _, cfg := range opt.Accounts {
		cfg = cfg.withDefaults()
		key := cfg.APIKey
		client, err := wazzup.NewClient(wazzup.Config{
			BaseURL: cfg.APIURL, Key: func() string { return key }, Timeout: cfg.Timeout,
			Transport: wazzup.NewTransport(wazzup.TransportConfig{Connections: cfg.Concurrency}),
		})
		if err != nil {
			faults = append(faults, fmt.Errorf("account %s: %w", cfg.Account, err))
			continue
		}
		w.accounts = append(w.accounts, cfg)
		w.clients = append(w.clients, client)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("new worker: %w", err)
	}
	names, name, replicas := make([]string, len(w.accounts)), "", 1
	for i := range w.accounts {
		names[i], name = w.accounts[i].Account, w.accounts[i].Worker
		replicas = max(replicas, w.accounts[i].Limits.Replicas)
	}
	w.spread = newSpread(js, name, names, replicas, w.log)
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
	for i := range w.standing {
		if !w.standing[i].Load() {
			return fmt.Errorf("account %s is neither owned nor stood by for", w.accounts[i].Account)
		}
		if w.awaiting[i].Load() {
			return fmt.Errorf("account %s: Wazzup does not answer", w.accounts[i].Account)
		}
	}
	return nil
}

// Run serves until ctx ends, then stops in order: no claim is made any more,
// calls in flight end, and the leases are given up. NATS being away is waited
// for.
func (w *Worker) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for i := range w.accounts {
		wg.Go(func() { w.serve(ctx, i) })
	}
	wg.Go(func() { w.spread.attend(ctx) })
	wg.Wait()
	for _, c := range w.clients {
		c.CloseIdleConnections()
	}
	return nil
}

// serve takes the account's lease whenever it is free and this worker's turn.
func (w *Worker) serve(ctx context.Context, i int) {
	log := w.log.With().Str("account", w.accounts[i].Account).Logger()
	var before *ownership
	prepared, failing := false, false
	for ctx.Err() == nil {
		news := w.spread.next()
		var err error
		if !prepared {
			err = w.prepare(ctx, i)
			prepared = err == nil
		}
		if err == nil {
			before, err = w.turn(ctx, i, before)
		}
		failed := err != nil && !errors.Is(err, errGivenUp) && !errors.Is(err, queue.ErrLeaseHeld)
		w.standing[i].Store(!failed)
		if failed && !failing && ctx.Err() == nil && !errors.Is(err, errNotRead) {
			log.Warn().Err(err).Msg("account_not_served")
			failing = true
		}
		failing = failing && failed
		select {
		case <-ctx.Done():
		case <-news:
		}
	}
	w.standing[i].Store(false)
}

// prepare sees to the account's streams, without which it cannot be stood by for.
func (w *Worker) prepare(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	cfg := w.accounts[i]
	_, err := queue.Ensure(ctx, w.js, cfg.Account, cfg.Limits)
	w.spread.offer(cfg.Account, err == nil)
	return err
}

// turn serves the account for one lease, if it is to be taken now, and returns
// what this process remembers of its last ownership.
func (w *Worker) turn(ctx context.Context, i int, before *ownership) (*ownership, error) {
	account := w.accounts[i].Account
	leases, err := w.spread.begin(account)
	if leases == nil {
		return before, err
	}
	after, opened, err := w.own(ctx, i, leases, before)
	if after == nil {
		after = before
	}
	lost := errors.Is(err, queue.ErrLeaseHeld) || errors.Is(err, queue.ErrLeaseLost) || errors.Is(err, queue.ErrFenced)
	w.spread.end(account, err != nil && !opened && !lost && ctx.Err() == nil)
	return after, err
}

// own serves one account for one lease. opened tells whether it got to work.
func (w *Worker) own(ctx context.Context, i int, leases *queue.Leases, before *ownership) (after *ownership, opened bool, err error) {
	cfg := w.accounts[i]
	setup, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	// The streams may have been made anew since they were last seen to.
	topology, err := queue.Ensure(setup, w.js, cfg.Account, cfg.Limits)
	if err != nil {
		return nil, false, err
	}
	lease, err := leases.Acquire(setup, cfg.Account)
	if err != nil {
		return nil, false, err
	}
	cancel()
	w.awaiting[i].Store(true)
	defer w.awaiting[i].Store(false)
	w.standing[i].Store(true)
	o := newOwner(w, cfg, topology, lease, w.clients[i])
	o.vendorAway = w.awaiting[i].Store
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
