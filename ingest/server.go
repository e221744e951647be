package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"golang.org/x/sync/semaphore"
)

// Config is what a Server needs to know. The zero value of a field other than
// Accounts and Poll means its default.
type Config struct {
	Accounts []Account
	// Poll is how often registered URLs are looked after; 0: they are registered
	// once.
	Poll time.Duration
	// MaxBody is the longest body that is taken, in bytes; default 8 MiB.
	MaxBody int64
	// MaxInFlight bounds the bodies in memory at one time, in bytes; default
	// 64 MiB, at least one body. Events take about as much again.
	MaxInFlight int64
	// AdmitTimeout is how long a request waits for room; default 3 s.
	AdmitTimeout time.Duration
	// ReadTimeout is how long a request may take to arrive; default 10 s.
	ReadTimeout time.Duration
	// StoreTimeout is how long storing may take before the answer is 503;
	// default 10 s. Together with the two above it stays below the 30 s after
	// which the vendor hangs up.
	StoreTimeout time.Duration
	// LookupTimeout is how long a status waits for its command; default 2 s.
	LookupTimeout time.Duration
	// StopTimeout is how long Run waits for requests under way; default 15 s.
	StopTimeout time.Duration
}

// DefaultMaxBody is Config.MaxBody's default.
const DefaultMaxBody = 8 << 20

func (c Config) withDefaults() Config {
	duration := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	if c.MaxBody == 0 {
		c.MaxBody = DefaultMaxBody
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 64 << 20
	}
	c.MaxInFlight = max(c.MaxInFlight, c.MaxBody+requestWeight)
	duration(&c.AdmitTimeout, 3*time.Second)
	duration(&c.ReadTimeout, 10*time.Second)
	duration(&c.StoreTimeout, 10*time.Second)
	duration(&c.LookupTimeout, 2*time.Second)
	duration(&c.StopTimeout, 15*time.Second)
	return c
}

// Server is the webhook endpoint. It is an http.Handler; Run serves it and
// registers its URLs.
type Server struct {
	cfg     Config
	events  Store
	api     Requester
	log     zerolog.Logger
	metrics *metrics
	budget  *semaphore.Weighted // bytes of bodies in memory

	accounts atomic.Pointer[accountSet]
	changed  chan struct{} // holds one token when accounts changed
}

// New returns a Server that keeps events in store. api reaches the workers, to
// register public URLs; it may be nil if no account has one. A nil meter and a
// zero logger mean silence. The error names every fault of the configuration.
func New(cfg Config, store Store, api Requester, logger zerolog.Logger, meter metric.Meter) (*Server, error) {
	if meter == nil {
		meter = noop.Meter{}
	}
	m, err := newMetrics(meter)
	if err != nil {
		return nil, fmt.Errorf("new webhook server: %w", err)
	}
	cfg = cfg.withDefaults()
	s := &Server{
		cfg: cfg, events: store, api: api, log: logger, metrics: m,
		budget:  semaphore.NewWeighted(cfg.MaxInFlight),
		changed: make(chan struct{}, 1),
	}
	if err := s.SetAccounts(cfg.Accounts); err != nil {
		return nil, fmt.Errorf("new webhook server: %w", err)
	}
	return s, nil
}

// SetAccounts puts another set of accounts in place of the present one, at once
// for requests that are yet to come. URLs that are new are registered. After an
// error, which names every fault, the present set stays.
func (s *Server) SetAccounts(accounts []Account) error {
	faults := Validate(accounts)
	for _, a := range accounts {
		if a.PublicURL != "" && s.api == nil {
			faults = append(faults, fmt.Errorf("account %q: has a public URL, but nobody to register it with", a.Name))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	set := newAccountSet(accounts)
	s.metrics.start(context.Background(), set)
	s.accounts.Store(set)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return nil
}

// Run serves on the listener until ctx ends, then stops accepting, waits at most
// Config.StopTimeout for requests under way, and returns nil if all of them were
// answered. Registrations begin once the listener is served.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       s.cfg.ReadTimeout,
		WriteTimeout:      s.cfg.AdmitTimeout + s.cfg.ReadTimeout + s.cfg.StoreTimeout + 5*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(serverLog{s.log}, "", 0),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	served := make(chan error, 1)
	tasks.Go(func() { served <- server.Serve(l) })
	tasks.Go(func() { s.register(ctx) })

	select {
	case err := <-served:
		return fmt.Errorf("serve webhooks: %w", err)
	case <-ctx.Done():
	}
	grace, done := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.StopTimeout)
	defer done()
	if err := server.Shutdown(grace); err != nil {
		return fmt.Errorf("stop webhooks: %w", errors.Join(err, server.Close()))
	}
	return nil
}

// serverLog takes what net/http has to say, a line a call. A panic's text and
// stack may hold what was posted, so only the fact is logged.
type serverLog struct{ log zerolog.Logger }

func (l serverLog) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("panic")) {
		l.log.Error().Msg("webhook_handler_panicked")
	} else {
		l.log.Warn().Bytes("detail", bytes.TrimSpace(line)).Msg("http_server")
	}
	return len(line), nil
}
