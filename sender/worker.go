package sender

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

// standbyPoll is how often a standby asks for a lease. An owner that leaves in
// order is noticed at once; one that died, when its lease is over.
const standbyPoll = 250 * time.Millisecond

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
// the others.
type Worker struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	accounts []Config
	clients  []*wazzup.Client
	log      zerolog.Logger
	metrics  *metrics
	tracer   trace.Tracer
	tracing  bool

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
			Transport: wazzup.NewTransport(wazzup.TransportConfig{}),
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
	wg.Wait()
	for _, c := range w.clients {
		c.CloseIdleConnections()
	}
	return nil
}

// serve takes the account's lease whenever it is free.
func (w *Worker) serve(ctx context.Context, i int) {
	cfg := w.accounts[i]
	log := w.log.With().Str("account", cfg.Account).Logger()
	var before *ownership
	failing := false
	for ctx.Err() == nil {
		after, err := w.own(ctx, i, before)
		if after != nil {
			before = after
		}
		switch {
		case err == nil, ctx.Err() != nil:
			failing = false
		case errors.Is(err, queue.ErrLeaseHeld):
			w.standing[i].Store(true)
			failing = false
		default:
			w.standing[i].Store(false)
			if !failing {
				log.Warn().Err(err).Msg("account_not_served")
			}
			failing = true
		}
		waitForLease(ctx)
	}
	w.standing[i].Store(false)
}

// own serves one account for one lease.
func (w *Worker) own(ctx context.Context, i int, before *ownership) (*ownership, error) {
	cfg := w.accounts[i]
	bounded, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	setup, stop := queue.WhileConnected(bounded, w.nc)
	defer stop()
	topology, err := queue.Ensure(setup, w.js, cfg.Account, cfg.Limits)
	if err != nil {
		return nil, err
	}
	leases, err := queue.OpenLeases(setup, w.js, cfg.Worker, cfg.Limits.Replicas)
	if err != nil {
		return nil, err
	}
	lease, err := leases.Acquire(setup, cfg.Account)
	if err != nil {
		return nil, err
	}
	stop()
	cancel()
	w.awaiting[i].Store(true)
	defer w.awaiting[i].Store(false)
	w.standing[i].Store(true)
	o := newOwner(w, cfg, topology, lease, w.clients[i])
	o.vendorAway = w.awaiting[i].Store
	return o.run(ctx, before)
}

// waitForLease waits until a lease may be free.
func waitForLease(ctx context.Context) {
	timer := time.NewTimer(standbyPoll)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
