package relay

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/embedded"
	"github.com/wazzup-relay/wazzup-relay/internal/telemetry"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// How long the tasks may take to stop, beyond their own work.
const (
	settleBudget   = 15 * time.Second // records, events and hand-over after the last call
	natsBudget     = 10 * time.Second
	embeddedBudget = 30 * time.Second // writing what is pending
	adminBudget    = 5 * time.Second
)

// Worker is a built worker.
type Worker struct {
	*Program
	// Embedded is the NATS server inside the process; nil = none.
	Embedded *embedded.Server
	// AdminAddr is where /healthz, /readyz and /metrics are served.
	AdminAddr net.Addr
	// Nats is the worker's own connection.
	Nats *daemon.NATS

	settings *WorkerSettings
	work     *sender.Worker
}

// BuildWorker makes the worker's tasks out of parsed settings. In the order of
// their start, which is reversed when they stop:
//
//	admin, embedded_nats (if asked for), nats, telemetry, worker
//
// A caller that does not run it closes it. An address that is taken and a locked
// folder are errors; NATS or the vendor being away is none.
func BuildWorker(ctx context.Context, s *WorkerSettings, log zerolog.Logger) (_ *Worker, err error) {
	w := &Worker{Program: newProgram("worker", log), settings: s}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	s.warn(log)
	tel, err := w.startTelemetry(ctx, "wazzup-worker")
	if err != nil {
		return nil, err
	}
	if w.AdminAddr, err = w.serveAdmin(ctx, s.AdminAddr, tel.Handler); err != nil {
		return nil, err
	}
	if w.Embedded, err = w.startEmbedded(s); err != nil {
		return nil, err
	}
	cfg := s.NATS.Config("wazzup-worker "+processName(), log)
	if w.Embedded != nil {
		cfg.InProcess = w.Embedded
		w.add(w.Embedded, embeddedBudget)
	}
	if w.Nats, err = w.connect(cfg); err != nil {
		return nil, err
	}
	_, silent := tel.Tracer.(tracenoop.Tracer)
	w.work, err = sender.New(sender.Options{ //nolint:contextcheck // counters start without one
		NATS: w.Nats.Conn(), Accounts: s.Accounts, Log: log,
		Meter: tel.Meter, Tracer: tel.Tracer, Tracing: !silent,
	})
	if err != nil {
		return nil, err
	}
	w.add(telemetryTask(tel, log), telemetryGrace+time.Second)
	w.add(daemon.NewTask("worker", func(ctx context.Context) error {
		switch err := w.Nats.Wait(ctx); {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was told to stop while it waited
		case err != nil:
			return err
		}
		return w.work.Run(ctx)
	}, w.work.Ready), s.common.Timeout+settleBudget)
	return w, nil
}

// warn tells what is allowed and yet dangerous, or was given and not used.
func (w *WorkerSettings) warn(log zerolog.Logger) {
	for _, name := range w.Insecure {
		log.Warn().Str("setting", "WAZZUP_API_INSECURE").Str("address", name).Msg("API keys travel in plain text: the vendor's address is http and not this machine")
	}
	warnIgnored(w.Ignored, log)
}

func warnIgnored(names []string, log zerolog.Logger) {
	for _, name := range names {
		log.Warn().Str("setting", name).Msg("setting is not used: the accounts file replaces it")
	}
}

func (p *Program) startTelemetry(ctx context.Context, service string) (*telemetry.Telemetry, error) {
	tel, err := telemetry.Setup(ctx, telemetry.Config{Service: service, Version: version(), Log: p.log})
	if err != nil {
		return nil, err
	}
	p.opened(func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), telemetryGrace)
		defer cancel()
		if err := tel.Shutdown(grace); err != nil {
			p.log.Warn().Err(err).Msg("telemetry was not ended")
		}
	})
	return tel, nil
}

// serveAdmin adds the admin server, which stops last so that it tells of the
// stopping itself.
func (p *Program) serveAdmin(ctx context.Context, addr string, metrics http.Handler) (net.Addr, error) {
	admin, err := daemon.NewAdmin(ctx, daemon.AdminConfig{Addr: addr, Ready: p.Status, Metrics: metrics, Log: p.log})
	if err != nil {
		return nil, err
	}
	p.opened(func() { _ = admin.Close() }) // nobody has used it
	p.add(admin, adminBudget)
	p.log.Info().Stringer("address", admin.Addr()).Msg("admin server is listening")
	return admin.Addr(), nil
}

// startEmbedded starts the NATS server inside this process, if there is to be
// one.
func (w *Worker) startEmbedded(s *WorkerSettings) (*embedded.Server, error) {
	if s.Embedded == "" {
		return nil, nil
	}
	listen, err := s.NATS.listen()
	if err != nil {
		return nil, &UsageError{err}
	}
	server, err := embedded.Start(embedded.Config{
		Dir: s.Embedded, Listen: listen, User: s.NATS.User, Password: string(s.NATS.Password),
		TLSCert: s.EmbeddedCert, TLSKey: s.EmbeddedKey,
		SyncAlways: s.SyncAlways, MaxStore: max(s.storage(), embedded.DefaultMaxStore), Log: w.log,
	})
	switch {
	case errors.Is(err, embedded.ErrOpen), errors.Is(err, embedded.ErrConfig):
		return nil, &UsageError{err}
	case err != nil:
		return nil, err
	}
	w.opened(server.Shutdown)
	return server, nil
}

// connect begins to connect to NATS and adds the connection.
func (p *Program) connect(cfg daemon.NATSConfig) (*daemon.NATS, error) {
	conn, err := daemon.ConnectNATS(cfg)
	if err != nil {
		return nil, &UsageError{err}
	}
	p.opened(conn.Close)
	p.add(conn, natsBudget)
	return conn, nil
}
