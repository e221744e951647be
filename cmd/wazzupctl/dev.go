package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

type devCmd struct {
	Once        bool          `help:"Send sample traffic through the system, print what became of it, and end; exit code 0 only if all came out right."`
	Timeout     time.Duration `default:"45s" help:"How long --once may take in all (default ${default})."`
	Dir         string        `placeholder:"FOLDER" help:"Keep NATS's data here (EMBEDDED_NATS); otherwise in a temporary folder that is removed at the end."`
	NATS        string        `name:"nats-addr" placeholder:"ADDR" help:"Where NATS listens; default 127.0.0.1:4222, or a free port where that is in use."`
	Vendor      string        `name:"vendor-addr" placeholder:"ADDR" help:"Where the simulated Wazzup listens; default 127.0.0.1:8090 or free."`
	Ingest      string        `name:"ingest-addr" placeholder:"ADDR" help:"Where webhooks are taken; default 127.0.0.1:8080 or free."`
	WorkerAdmin string        `name:"worker-admin-addr" placeholder:"ADDR" help:"Where the worker's health and metrics are; default 127.0.0.1:8081 or free."`
	IngestAdmin string        `name:"ingest-admin-addr" placeholder:"ADDR" help:"Where ingest's are; default 127.0.0.1:8082 or free."`
	JSON        bool          `help:"Print JSON."`
	simulation
}

// Help is the detailed help.
func (*devCmd) Help() string {
	return `Needs nothing but itself: try it before anything else. Settings of the worker (WAZZUP_BULK_RATE, …) and LOG_LEVEL are taken from the environment, but with --once only LOG_LEVEL.

Examples:
  wazzupctl dev --once
  wazzupctl dev --dir ./data
  wazzupctl dev --rule '{"match":{"textContains":"slow"},"delay":"3s"}'`
}

// The addresses that are tried first.
const (
	devNATS        = "127.0.0.1:4222"
	devVendor      = "127.0.0.1:8090"
	devIngest      = "127.0.0.1:8080"
	devWorkerAdmin = "127.0.0.1:8081"
	devIngestAdmin = "127.0.0.1:8082"
	anyPort        = "127.0.0.1:0"
)

// Run starts the system and, with --once, the samples.
func (c *devCmd) Run(ctx context.Context, e *env) error {
	level := "info"
	if c.Once {
		level = "error"
	}
	log, logErr := programLog(e, level)
	simCfg, rules, simErr := c.config(log)
	if err := joinFaults(logErr, simErr); err != nil {
		return err
	}
	s := &system{log: log, getenv: e.getenv, once: c.Once}
	if err := s.folder(c.Dir, e.getenv); err != nil {
		return err
	}
	defer s.removeFolder()
	e.Progress("starting NATS, the simulated Wazzup, worker and ingest")
	defer e.Done()
	if err := s.start(ctx, c, simCfg, rules); err != nil {
		return err
	}
	return s.serve(ctx, func(ctx context.Context) error {
		if c.Once {
			return s.runOnce(ctx, c, e)
		}
		if s.up(ctx) != nil {
			return nil //nolint:nilerr // it was ended before it was up
		}
		e.Done()
		if err := s.announce(c, e); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
}

// up waits until the webhook is registered, which needs them all: NATS, the
// simulated Wazzup, a worker that owns the account, an ingest that answers.
func (s *system) up(ctx context.Context) error {
	return s.sim.Wait(ctx, func(*simulator.View) bool { return s.sim.WebhookURL() != "" })
}

// system is everything in one process.
type system struct {
	log    zerolog.Logger
	getenv func(string) string
	once   bool

	dir       string
	temporary bool
	account   string
	sim       *simulator.Server
	worker    *relay.Worker
	ingest    *relay.Ingest
}

func (s *system) folder(dir string, getenv func(string) string) error {
	if dir == "" && !s.once {
		dir = getenv("EMBEDDED_NATS")
	}
	if dir != "" {
		s.dir = dir
		return nil
	}
	temporary, err := os.MkdirTemp("", "wazzup-dev-")
	if err != nil {
		return fmt.Errorf("make a folder for NATS: %w", err)
	}
	s.dir, s.temporary = temporary, true
	return nil
}

func (s *system) removeFolder() {
	if !s.temporary {
		return
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.log.Warn().Err(err).Msg("the temporary folder was not removed")
	}
}

// start builds the parts in the order of their need. What was started is ended
// again if a later one fails.
func (s *system) start(ctx context.Context, c *devCmd, simCfg simulator.Config, rules []simulator.Rule) (err error) {
	var undo []func()
	defer func() {
		for i := len(undo) - 1; err != nil && i >= 0; i-- {
			undo[i]()
		}
	}()
	if s.sim, err = simulator.New(simCfg); err != nil { //nolint:contextcheck // it outlives the building
		return &relay.UsageError{Err: err}
	}
	undo = append(undo, s.sim.Close)
	if err := s.sim.Start(context.WithoutCancel(ctx), s.address(ctx, c.Vendor, devVendor)); err != nil {
		return fmt.Errorf("--vendor-addr: %w", err)
	}
	if err := s.sim.AddRule(rules...); err != nil {
		return &relay.UsageError{Err: fmt.Errorf("--rule: %w", err)}
	}
	if s.worker, err = s.buildWorker(ctx, c); err != nil {
		return err
	}
	undo = append(undo, s.worker.Close)
	s.ingest, err = s.buildIngest(ctx, c)
	return err
}

// address is what was asked for, or the usual one, or a free one where that is
// taken. Nobody needs to know the addresses of a single run.
func (s *system) address(ctx context.Context, asked, usual string) string {
	switch {
	case asked != "":
		return asked
	case s.once:
		return anyPort
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", usual)
	if err != nil {
		return anyPort
	}
	_ = l.Close() // it was taken to see that it is free
	return usual
}

// variables are what the parts are configured with: the environment, but for
// what would lead them out of this process.
func (s *system) variables(set map[string]string) func(string) string {
	return func(name string) string {
		if value, ok := set[name]; ok {
			return value
		}
		if keep, listed := passed(name); listed && (keep || !s.once) {
			return s.getenv(name)
		}
		return ""
	}
}

// passed tells which variables of the environment reach the parts, and which of
// them even a single run, whose rates and times must be the defaults.
func passed(name string) (always, listed bool) {
	switch name {
	case "WAZZUP_API_KEY", "WAZZUP_API_KEY_FILE", "WEBHOOK_SECRET", "WEBHOOK_SECRET_FILE", "LOG_LEVEL", "LOG_FORMAT":
		return true, true
	case "WAZZUP_ACCOUNT", "WAZZUP_ACCOUNT_RATE", "WAZZUP_SEND_RATE", "WAZZUP_BULK_RATE", "WAZZUP_CONCURRENCY",
		"WAZZUP_MAX_ATTEMPTS", "WAZZUP_TIMEOUT", "WAZZUP_BACKOFF", "WAZZUP_EVIDENCE", "WAZZUP_RECONCILE_WAIT",
		"WAZZUP_CHANNELS_POLL", "WAZZUP_STATUS_WAIT", "WAZZUP_SYNC_GATHER", "WAZZUP_FLOOD_PAUSE", "WAZZUP_RETENTION", "WAZZUP_DEAD_RETENTION", "WAZZUP_DEDUPE_WINDOW",
		"WAZZUP_COMMAND_BYTES", "WAZZUP_RECORD_BYTES", "WAZZUP_DEFERRED_BYTES", "WAZZUP_DEAD_BYTES",
		"WEBHOOK_MAX_BODY", "WEBHOOK_POLL", "WEBHOOK_SILENCE", "EMBEDDED_SYNC_ALWAYS":
		return false, true
	}
	return false, false
}

// orMade sets a secret unless the environment gives one.
func (s *system) orMade(set map[string]string, name string) {
	if s.getenv(name) == "" && s.getenv(name+"_FILE") == "" {
		set[name] = rand.Text()
	}
}

func (s *system) buildWorker(ctx context.Context, c *devCmd) (*relay.Worker, error) {
	set := map[string]string{
		"WAZZUP_API_URL": s.sim.URL(),
		"EMBEDDED_NATS":  s.dir,
		"NATS_URL":       "nats://" + s.address(ctx, c.NATS, devNATS),
		"ADMIN_ADDR":     s.address(ctx, c.WorkerAdmin, devWorkerAdmin),
	}
	s.orMade(set, "WAZZUP_API_KEY")
	settings := relay.NewWorkerSettings()
	if err := relay.Parse(settings, nil, s.variables(set), io.Discard); err != nil {
		return nil, err
	}
	s.account = settings.Accounts[0].Account
	return relay.BuildWorker(ctx, settings, s.log.With().Str("program", "worker").Logger())
}

func (s *system) buildIngest(ctx context.Context, c *devCmd) (*relay.Ingest, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address(ctx, c.Ingest, devIngest))
	if err != nil {
		return nil, fmt.Errorf("--ingest-addr: %w", err)
	}
	set := map[string]string{
		"NATS_URL":    s.worker.Embedded.URL(),
		"INGEST_ADDR": listener.Addr().String(),
		"PUBLIC_URL":  "http://" + listener.Addr().String(),
		"ADMIN_ADDR":  s.address(ctx, c.IngestAdmin, devIngestAdmin),
	}
	s.orMade(set, "WEBHOOK_SECRET")
	settings := relay.NewIngestSettings()
	if err := relay.Parse(settings, nil, s.variables(set), io.Discard); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return relay.BuildIngest(ctx, settings, listener, s.log.With().Str("program", "ingest").Logger())
}

// serve runs the parts and, beside them, what uses them; it ends with that, with
// ctx, or when a part fails. Parts stop in reverse order: no webhook is cut off,
// and NATS is the last but the simulated vendor, which the worker may still call.
func (s *system) serve(ctx context.Context, use func(context.Context) error) error {
	group := daemon.NewGroup(s.log)
	group.Add(daemon.NewTask("vendor", func(ctx context.Context) error {
		<-ctx.Done()
		s.sim.Close()
		return nil
	}, nil), 0)
	group.Add(s.worker, s.worker.Budget())
	group.Add(s.ingest, s.ingest.Budget())
	var used error
	group.Add(daemon.NewTask("use", func(ctx context.Context) error {
		used = use(ctx)
		return used
	}, nil), 0)
	err := group.Run(ctx)
	if used != nil { // as it was said, without the name of the task
		return used
	}
	return err
}

// announce tells where everything is, and what to try.
func (s *system) announce(c *devCmd, e *env) error {
	nats, vendor, hooks := s.worker.Embedded.URL(), s.sim.URL(), "http://"+s.ingest.Addr.String()
	admin := []string{"http://" + s.worker.AdminAddr.String(), "http://" + s.ingest.AdminAddr.String()}
	if c.JSON {
		return e.JSON(map[string]string{
			"account": s.account, "nats": nats, "vendor": vendor, "webhooks": hooks + "/webhooks/" + s.account + "/***",
			"workerAdmin": admin[0], "ingestAdmin": admin[1], "dir": s.dir,
		})
	}
	kept := "kept in " + s.dir
	if s.temporary {
		kept = "removed at the end; --dir keeps it"
	}
	e.Printf("%s\n\n", e.tint(good, "the system is up"))
	for _, row := range [][3]string{
		{"NATS", nats, "data: " + kept},
		{"simulated Wazzup", vendor, "/v2, driven by /_sim/"},
		{"webhooks", hooks, "/webhooks/" + s.account + "/***"},
		{"worker", admin[0], "/readyz /metrics"},
		{"ingest", admin[1], "/readyz /metrics"},
	} {
		e.Printf("  %s  %s  %s\n", pad(row[0], 16), e.tint(bold, pad(row[1], 28)), e.tint(faint, row[2]))
	}
	e.Printf(`
Try in another terminal:

  export NATS_URL=%s WAZZUP_ACCOUNT=%s
  wazzupctl watch
  wazzupctl send --channel-id %s --chat-id 79998887766 --text 'Hello' --wait
  curl -d '%s' %s/_sim/inbound
  wazzupctl doctor

Ctrl-C ends it.
`, nats, s.account, simulator.ChannelWhatsApp, sampleInbound, vendor)
	return nil
}
