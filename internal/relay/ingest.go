package relay

import (
	"context"
	"net"
	"time"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/ingest"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
)

// ingestBudget covers the requests under way: [ingest.Config.StopTimeout]'s
// default, and a little more.
const ingestBudget = 20 * time.Second

// Ingest is a built ingest.
type Ingest struct {
	*Program
	// Addr is where webhooks are taken.
	Addr net.Addr
	// AdminAddr is where /healthz, /readyz and /metrics are served.
	AdminAddr net.Addr

	settings *IngestSettings
	accounts []ingest.Account // in force; owned by whoever calls Reload
	server   *ingest.Server
	streams  *streamWatch
}

// BuildIngest makes the ingest's tasks out of parsed settings. In the order of
// their start, which is reversed when they stop:
//
//	admin, nats, telemetry, streams, ingest
//
// webhooks is what to take webhooks from; nil = listen on INGEST_ADDR. A caller
// that does not run it closes it.
func BuildIngest(ctx context.Context, s *IngestSettings, webhooks net.Listener, log zerolog.Logger) (_ *Ingest, err error) {
	i := &Ingest{Program: newProgram("ingest", log), settings: s, accounts: s.Accounts}
	defer func() {
		if err != nil {
			i.Close()
		}
	}()
	warnIgnored(s.Ignored, log)
	if webhooks == nil {
		if webhooks, err = new(net.ListenConfig).Listen(ctx, "tcp", s.Addr); err != nil {
			return nil, &addressFault{"INGEST_ADDR", err}
		}
	}
	i.opened(func() { _ = webhooks.Close() }) // nobody has used it
	i.Addr = webhooks.Addr()
	tel, err := i.startTelemetry(ctx, "wazzup-ingest")
	if err != nil {
		return nil, err
	}
	if i.AdminAddr, err = i.serveAdmin(ctx, s.AdminAddr, tel.Handler); err != nil {
		return nil, err
	}
	conn, err := i.connect(s.NATS.Config("wazzup-ingest "+processName(), log))
	if err != nil {
		return nil, err
	}
	store, err := ingest.NewStreams(conn.Conn())
	if err != nil {
		return nil, err
	}
	i.opened(store.Close)
	i.server, err = ingest.New(ingest.Config{Accounts: s.Accounts, MaxBody: s.MaxBody, Poll: s.poll}, store, conn.Conn(), log, tel.Meter) //nolint:contextcheck // counters start without one
	if err != nil {
		return nil, err
	}
	if i.streams, err = newStreamWatch(conn, s.Accounts); err != nil {
		return nil, err
	}
	i.add(telemetryTask(tel, log), telemetryGrace+time.Second)
	i.add(i.streams, streamsTimeout+time.Second)
	log.Info().Stringer("address", i.Addr).Int("accounts", len(s.Accounts)).Msg("webhooks are listened for")
	i.add(daemon.NewTask("ingest", func(ctx context.Context) error {
		defer store.Close()
		return i.server.Run(ctx, webhooks)
	}, store.Available), ingestBudget)
	return i, nil
}
