package relay_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/embedded"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

const free = "127.0.0.1:0"

// workerEnv is a worker of the simulated vendor.
func workerEnv(sim *simulator.Server, more map[string]string) map[string]string {
	env := map[string]string{"WAZZUP_API_KEY": canary, "WAZZUP_API_URL": sim.URL(), "ADMIN_ADDR": free}
	maps.Copy(env, more)
	return env
}

func buildWorker(t *testing.T, env map[string]string, log io.Writer) *relay.Worker {
	t.Helper()
	s, err := worker(nil, env)
	if err != nil {
		t.Fatal(err)
	}
	w, err := relay.BuildWorker(t.Context(), s, zerolog.New(log))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func buildIngest(t *testing.T, env map[string]string, log io.Writer) *relay.Ingest {
	t.Helper()
	s, err := ingestSettings(env)
	if err != nil {
		t.Fatal(err)
	}
	i, err := relay.BuildIngest(t.Context(), s, nil, zerolog.New(log))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// start runs a program; the returned function tells it to stop, as SIGTERM does,
// and wants it to end well.
func start(t *testing.T, p daemon.Task) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stopped := false
	stop = func() {
		t.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s ended with %v, want nil", p.Name(), err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func names(all []daemon.Status) []string {
	var out []string
	for _, s := range all {
		out = append(out, s.Name)
	}
	return out
}

// TestWiring: which tasks there are, and in which order they start. They stop in
// the reverse order, which is what the order is for.
func TestWiring(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{})
	away := "nats://127.0.0.1:1"
	for _, tt := range []struct {
		name  string
		build func(t *testing.T) *relay.Program
		want  []string
	}{
		{"worker", func(t *testing.T) *relay.Program {
			t.Helper()
			return buildWorker(t, workerEnv(sim, map[string]string{"NATS_URL": away}), io.Discard).Program
		}, []string{"admin", "nats", "telemetry", "worker"}},
		{"worker with a server inside", func(t *testing.T) *relay.Program {
			t.Helper()
			return buildWorker(t, workerEnv(sim, map[string]string{"NATS_URL": "nats://" + free, "EMBEDDED_NATS": t.TempDir()}), io.Discard).Program
		}, []string{"admin", "embedded_nats", "nats", "telemetry", "worker"}},
		{"ingest", func(t *testing.T) *relay.Program {
			t.Helper()
			return buildIngest(t, map[string]string{"WEBHOOK_SECRET": canary, "INGEST_ADDR": free, "ADMIN_ADDR": free, "NATS_URL": away}, io.Discard).Program
		}, []string{"admin", "nats", "telemetry", "streams", "ingest"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := tt.build(t)
			defer p.Close()
			if got := names(p.Status()); !slices.Equal(got, tt.want) {
				t.Errorf("tasks = %q, want %q", got, tt.want)
			}
			if err := p.Ready(); err == nil {
				t.Error("a program that does not run is ready")
			}
		})
	}
}

// TestCloseFreesWhatWasOpened: a build that fails half-way, or is not run, must
// leave neither port nor folder taken.
func TestCloseFreesWhatWasOpened(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{})
	env := workerEnv(sim, map[string]string{"NATS_URL": "nats://" + free, "EMBEDDED_NATS": t.TempDir()})
	w := buildWorker(t, env, io.Discard)
	env["ADMIN_ADDR"] = w.AdminAddr.String()
	s, err := worker(nil, env)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := relay.BuildWorker(t.Context(), s, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "ADMIN_ADDR") {
		t.Errorf("a taken address: got %v, want an error that names ADMIN_ADDR", err)
	}
	env["ADMIN_ADDR"] = free
	if s, err = worker(nil, env); err != nil {
		t.Fatal(err)
	}
	if _, err := relay.BuildWorker(t.Context(), s, zerolog.Nop()); !errors.Is(err, embedded.ErrLocked) {
		t.Errorf("a folder in use: got %v, want ErrLocked", err)
	}
	w.Close()
	env["ADMIN_ADDR"] = w.AdminAddr.String()
	buildWorker(t, env, io.Discard).Close()
}

func TestTakenWebhookAddress(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", free)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // nobody uses it
	s, err := ingestSettings(map[string]string{"WEBHOOK_SECRET": canary, "INGEST_ADDR": l.Addr().String(), "ADMIN_ADDR": free})
	if err != nil {
		t.Fatal(err)
	}
	_, err = relay.BuildIngest(t.Context(), s, nil, zerolog.Nop())
	if err == nil || !strings.Contains(err.Error(), "INGEST_ADDR") {
		t.Errorf("got %v, want an error that names INGEST_ADDR", err)
	}
	if _, usage := errors.AsType[*relay.UsageError](err); usage {
		t.Error("a taken port is no fault of the configuration")
	}
}

// TestReadinessFollowsNATS: NATS that is away, before the start or later, is no
// reason to end; it is told at /readyz, and over as soon as NATS is back.
func TestReadinessFollowsNATS(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{})
	node := queuetest.Server(t)
	node.Stop()
	log := relaytest.NewOutput()
	w := buildWorker(t, workerEnv(sim, map[string]string{"NATS_URL": node.URL()}), log)
	i := buildIngest(t, map[string]string{"WEBHOOK_SECRET": canary, "INGEST_ADDR": free, "ADMIN_ADDR": free, "NATS_URL": node.URL()}, io.Discard)
	stopWorker, stopIngest := start(t, w), start(t, i)

	check := func(when string, want int) {
		t.Helper()
		for name, addr := range map[string]net.Addr{"worker": w.AdminAddr, "ingest": i.AdminAddr} {
			body := relaytest.Readiness(t, addr.String(), want)
			if want == 503 && !strings.Contains(body, `{"name":"nats","ready":false`) {
				t.Errorf("%s: %s does not say that NATS is away: %s", when, name, body)
			}
			if code, _ := relaytest.Get(t, "http://"+addr.String()+"/healthz"); code != 200 {
				t.Errorf("%s: %s: /healthz = %d, want 200", when, name, code)
			}
		}
	}
	check("before NATS", 503)
	log.Line(t, func(line string) bool { return strings.Contains(line, `"operation":"connect to NATS"`) })
	node.Start()
	check("with NATS", 200)
	node.Stop()
	check("NATS is gone", 503)
	node.Start()
	check("NATS is back", 200)
	stopIngest()
	stopWorker()
}

// TestReadinessFollowsTheVendor: a vendor that is away is waited for and told.
func TestReadinessFollowsTheVendor(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{})
	if err := sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Fault: simulator.FaultDropBeforeRead}); err != nil {
		t.Fatal(err)
	}
	log := relaytest.NewOutput()
	w := buildWorker(t, workerEnv(sim, map[string]string{
		"NATS_URL": queuetest.Server(t).URL(), "WAZZUP_CHANNELS_POLL": "50ms", "WAZZUP_BACKOFF": "1ms..10ms",
	}), log)
	start(t, w)
	log.Logged(t, "channel_list_not_read", "")
	if body := relaytest.Readiness(t, w.AdminAddr.String(), 503); !strings.Contains(body, "Wazzup does not answer") {
		t.Errorf("the reason is %s", body)
	}
	sim.ClearRules()
	relaytest.Readiness(t, w.AdminAddr.String(), 200)
	if err := sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 503}); err != nil {
		t.Fatal(err)
	}
	relaytest.Readiness(t, w.AdminAddr.String(), 503)
	sim.ClearRules()
	if err := sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 401}); err != nil {
		t.Fatal(err)
	}
	relaytest.Readiness(t, w.AdminAddr.String(), 200) // it answers: the key is another matter
}

// TestIngestWaitsForStreams: without a worker there is nothing to store in, and
// an ingest that answers 503 to every webhook must not call itself ready.
func TestIngestWaitsForStreams(t *testing.T) {
	t.Parallel()
	node := queuetest.Server(t)
	i := buildIngest(t, map[string]string{"WEBHOOK_SECRET": canary, "INGEST_ADDR": free, "ADMIN_ADDR": free, "NATS_URL": node.URL()}, io.Discard)
	start(t, i)
	for {
		body := relaytest.Readiness(t, i.AdminAddr.String(), 503)
		if strings.Contains(body, "no worker has served it") {
			break
		}
	}
	sim := relaytest.Vendor(t, simulator.Config{})
	start(t, buildWorker(t, workerEnv(sim, map[string]string{"NATS_URL": node.URL()}), io.Discard))
	relaytest.Readiness(t, i.AdminAddr.String(), 200)
}

func TestStandbyIsReady(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{})
	node := queuetest.Server(t)
	first, second := relaytest.NewOutput(), relaytest.NewOutput()
	owner := buildWorker(t, workerEnv(sim, map[string]string{"NATS_URL": node.URL()}), first)
	stop := start(t, owner)
	first.Logged(t, "account_owned", "")
	standby := buildWorker(t, workerEnv(sim, map[string]string{"NATS_URL": node.URL()}), second)
	start(t, standby)
	relaytest.Readiness(t, standby.AdminAddr.String(), 200)
	if strings.Contains(second.String(), "account_owned") {
		t.Fatal("two workers own the account")
	}
	stop()
	second.Logged(t, "account_owned", "")
	relaytest.Readiness(t, standby.AdminAddr.String(), 200)
}

// TestOrderlyStop: a worker with a server inside hands the account over while
// NATS is still there, and frees port and folder.
func TestOrderlyStop(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{})
	dir := t.TempDir()
	for _, run := range []string{"first", "second"} {
		log := relaytest.NewOutput()
		w := buildWorker(t, workerEnv(sim, map[string]string{"NATS_URL": "nats://" + free, "EMBEDDED_NATS": dir}), log)
		stop := start(t, w)
		relaytest.Readiness(t, w.AdminAddr.String(), 200)
		log.Logged(t, "account_owned", "")
		stop()
		text := log.String()
		if !strings.Contains(text, "account_released") {
			t.Errorf("%s run: the account was not released:\n%s", run, text)
		}
		for _, bad := range []string{"lease_not_released", "handover_not_noted", "owner_stopped_with_work_under_way", `"level":"error"`} {
			if strings.Contains(text, bad) {
				t.Errorf("%s run: the log says %s:\n%s", run, bad, text)
			}
		}
		if strings.Contains(text, canary) {
			t.Errorf("%s run: the log shows the key", run)
		}
	}
}

// TestStoppedWhileNATSIsAway: being told to stop goes before everything else.
func TestStoppedWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{})
	w := buildWorker(t, workerEnv(sim, map[string]string{"NATS_URL": "nats://127.0.0.1:1"}), io.Discard)
	stop := start(t, w)
	relaytest.Readiness(t, w.AdminAddr.String(), 503)
	stop()
	if code, _ := relaytest.Get(t, "http://"+w.AdminAddr.String()+"/healthz"); code != 0 {
		t.Errorf("the admin server still answers %d", code)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/accounts.yaml"
	for name, text := range map[string]string{file: "accounts: [{name: a, apiKeyFile: key}]\n", strings.Replace(file, "accounts.yaml", "key", 1): "k\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"a key in plain text", map[string]string{"WAZZUP_API_KEY": canary, "WAZZUP_API_URL": "http://vendor.example", "WAZZUP_API_INSECURE": "1"}, "API keys travel in plain text"},
		{"a key beside the accounts file", map[string]string{"WAZZUP_API_KEY": canary, "WAZZUP_ACCOUNTS_FILE": file}, `"setting":"WAZZUP_API_KEY"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.env["ADMIN_ADDR"], tt.env["NATS_URL"] = free, "nats://127.0.0.1:1"
			log := relaytest.NewOutput()
			buildWorker(t, tt.env, log).Close()
			if !strings.Contains(log.String(), tt.want) || strings.Contains(log.String(), canary) {
				t.Errorf("the log is\n%s\nwant %s", log, tt.want)
			}
		})
	}
}
