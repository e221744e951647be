//go:build system

package systemtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// binaries are the programs under test, built once.
var binaries string //nolint:gochecknoglobals // set once by TestMain

func TestMain(m *testing.M) {
	queuetest.MaybeServe()
	os.Exit(build(m))
}

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "wazzup-system")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binaries = dir
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", dir+string(filepath.Separator), "../../cmd/worker", "../../cmd/ingest")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
		return 1
	}
	return m.Run()
}

// program is a running binary.
type program struct {
	t     *testing.T
	cmd   *exec.Cmd
	admin string
	log   *lockedBuffer
	done  chan struct{}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

// runWorker starts a worker with these variables and nothing else of ours.
func runWorker(t *testing.T, env ...string) *program {
	t.Helper()
	return run(t, "worker", env...)
}

func run(t *testing.T, name string, env ...string) *program {
	t.Helper()
	p := &program{t: t, admin: freeAddr(t), log: new(lockedBuffer), done: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(binaries, name)) //nolint:noctx // ends by the test's own signals
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "ADMIN_ADDR=" + p.admin}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text := p.log.String()
			t.Logf("the %s said (the last 4 KB):\n%s", name, text[max(len(text)-4096, 0):])
		}
	})
	return p
}

func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// kill ends the program the hard way.
func (p *program) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop asks the program to end and returns its exit code.
func (p *program) stop() int {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.t.Fatal("the program did not end after SIGTERM")
	}
	return p.cmd.ProcessState.ExitCode()
}

// ready waits until /readyz says so.
func (p *program) ready() {
	p.t.Helper()
	p.until(http.StatusOK)
}

func (p *program) until(status int) {
	p.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for {
		if got := p.readyz(); got == status {
			return
		}
		select {
		case <-tick.C:
		case <-p.done:
			p.t.Fatalf("the program ended: %s", p.log.String())
		case <-timeout:
			p.t.Fatalf("/readyz never said %d", status)
		}
	}
}

func (p *program) readyz() int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/readyz", http.NoBody)
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// rig is NATS in processes of its own, the simulated vendor, and the events that
// were stored.
type rig struct {
	t       *testing.T
	srv     *queuetest.Proc      // one server, or else
	cluster *queuetest.ProcNodes // a cluster
	url     string
	limits  queue.Limits
	sim     *simulator.Server
	nc      *nats.Conn
	js      jetstream.JetStream

	mu     sync.Mutex
	finals []schema.CommandEvent
	unsure map[string]bool // ids of those whose fate was unknown at some time
	change chan struct{}
}

// newRig has one nats-server.
func newRig(t *testing.T, cfg simulator.Config) *rig {
	t.Helper()
	srv := queuetest.Process(t)
	r := startRig(t, cfg, srv, 1)
	r.srv = srv
	return r
}

// newClusterRig has three nats-servers, each of which has a copy of everything.
func newClusterRig(t *testing.T, cfg simulator.Config) *rig {
	t.Helper()
	cluster := queuetest.ProcessCluster(t, 3)
	r := startRig(t, cfg, cluster, cluster.Size())
	r.cluster = cluster
	return r
}

func startRig(t *testing.T, cfg simulator.Config, srv queuetest.Endpoint, replicas int) *rig {
	t.Helper()
	r := &rig{t: t, url: srv.URL(), change: make(chan struct{}), unsure: make(map[string]bool), limits: queue.Limits{
		Replicas: replicas, CommandBytes: 64 << 20, RecordBytes: 512 << 20, DeferredBytes: 16 << 20, DeadBytes: 64 << 20,
	}}
	var err error
	if r.sim, err = simulator.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := r.sim.Start(context.WithoutCancel(t.Context()), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.sim.Close)
	r.nc = queuetest.Conn(t, srv, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if r.js, err = jetstream.New(r.nc); err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Ensure(t.Context(), r.js, "main", r.limits); err != nil {
		t.Fatal(err)
	}
	return r
}

// move goes on with a cluster instead of the one server.
func (r *rig) move(to *queuetest.ProcNodes) {
	r.t.Helper()
	r.moveTo(to, to.Size())
	r.cluster = to
}

// moveTo goes on with another server, or a cluster of this size.
func (r *rig) moveTo(to queuetest.Endpoint, size int) {
	r.t.Helper()
	r.srv, r.url, r.limits.Replicas = nil, to.URL(), size
	r.nc = queuetest.Conn(r.t, to, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	var err error
	if r.js, err = jetstream.New(r.nc); err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.finals = nil
	r.mu.Unlock()
	r.collect()
}

// env is a worker's configuration.
func (r *rig) env(more ...string) []string {
	return append([]string{
		"NATS_URL=" + r.url, "WAZZUP_API_KEY=key", "WAZZUP_API_URL=" + r.sim.URL(),
		"WAZZUP_ACCOUNT_RATE=0", "WAZZUP_BULK_RATE=0", "WAZZUP_RECONCILE_WAIT=200ms", "WAZZUP_BACKOFF=20ms..200ms",
		"WAZZUP_COMMAND_BYTES=64MiB", "WAZZUP_RECORD_BYTES=512MiB", "WAZZUP_DEFERRED_BYTES=16MiB", "WAZZUP_DEAD_BYTES=64MiB",
		"WAZZUP_REPLICAS=" + strconv.Itoa(r.limits.Replicas), "LOG_FORMAT=json",
	}, more...)
}

// runIngest starts an ingest that has its address registered with the vendor, and
// waits until it is: a worker must be running.
func (r *rig) runIngest(more ...string) *program {
	r.t.Helper()
	addr := freeAddr(r.t)
	p := run(r.t, "ingest", append([]string{
		"NATS_URL=" + r.url, "INGEST_ADDR=" + addr, "PUBLIC_URL=http://" + addr,
		"WEBHOOK_SECRET=a-secret-of-this-test-and-no-other", "LOG_FORMAT=json",
	}, more...)...)
	if err := r.sim.Wait(r.t.Context(), func(*simulator.View) bool { return r.sim.WebhookURL() != "" }); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// seedEnv repeats a run of a test that does things at random moments.
const seedEnv = "WAZZUP_SYSTEM_SEED"

// random is seeded by the environment, or else by the time, and says so.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedEnv); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
	}
	t.Logf("%s=%d", seedEnv, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// latency makes the vendor take a while for every request.
func (r *rig) latency(d time.Duration) {
	r.t.Helper()
	if err := r.sim.AddRule(simulator.Rule{Delay: simulator.Duration(d)}); err != nil {
		r.t.Fatal(err)
	}
}

// busy waits until the vendor works on n requests at once.
func (r *rig) busy(n int) {
	r.t.Helper()
	if err := r.sim.Wait(r.t.Context(), func(v *simulator.View) bool { return v.Requests-v.Finished >= n }); err != nil {
		r.t.Fatal(err)
	}
}

// collect reads every event from the start, through reconnects, holds it to the
// contract, and counts those of commands.
func (r *rig) collect() { r.t.Helper(); r.collectOf("main") }

func (r *rig) collectOf(account string) {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: account}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := s.OrderedConsumer(r.t.Context(), jetstream.OrderedConsumerConfig{FilterSubjects: []string{schema.EventSubjects(account)}})
	if err != nil {
		r.t.Fatal(err)
	}
	consuming, err := c.Consume(func(m jetstream.Msg) {
		if err := schematest.Event(m.Subject(), m.Headers(), m.Data()); err != nil {
			r.t.Error(err)
		}
		if !strings.HasPrefix(m.Subject(), "wazzup."+account+".evt.command.") {
			return
		}
		var e schema.CommandEvent
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			r.t.Errorf("event is no JSON: %v", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		switch {
		case e.State.Final():
			r.finals = append(r.finals, e)
		case e.State == schema.StateUnknown:
			r.unsure[e.ID] = true
		}
		close(r.change)
		r.change = make(chan struct{})
	}, jetstream.ConsumeErrHandler(func(jetstream.ConsumeContext, error) {}))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(consuming.Stop)
}

// waitFinals waits until n final events are stored.
func (r *rig) waitFinals(n int, patience time.Duration) []schema.CommandEvent {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		finals, change := r.finals, r.change
		r.mu.Unlock()
		if len(finals) >= n {
			return finals
		}
		select {
		case <-change:
		case <-timeout:
			r.t.Fatalf("%d final events, want %d", len(finals), n)
		}
	}
}

// stored is how many commands were ever stored, and left how many are in the stream.
func (r *rig) stored() (stored, left uint64) {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Commands())
	if err != nil {
		r.t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq, s.CachedInfo().State.Msgs
}

// waitEmpty waits until no command is left in the stream.
func (r *rig) waitEmpty() {
	r.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(20 * time.Second)
	for {
		_, left := r.stored()
		if left == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("%d commands are left in the queue", left)
		}
	}
}

func newJetStream(nc *nats.Conn) (jetstream.JetStream, error) { return jetstream.New(nc) }
