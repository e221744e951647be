package queuetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/internal/embedded"
)

const (
	// serveEnv makes a test binary serve instead of test: see MaybeServe.
	serveEnv = "WAZZUP_QUEUETEST_SERVE"
	// readyLine is what the served process says when JetStream answers.
	readyLine = "ready"
	// processStart bounds the wait for it.
	processStart = 30 * time.Second
)

// MaybeServe turns the test binary into a nats-server when [Process] has
// started it as one, and does not return then. A package that uses Process
// calls it first thing in TestMain:
//
//	func TestMain(m *testing.M) {
//		queuetest.MaybeServe()
//		os.Exit(m.Run())
//	}
func MaybeServe() {
	text, ok := os.LookupEnv(serveEnv)
	if !ok {
		return
	}
	if err := serve(text, os.Stdin, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve runs until its standard input ends: that is a polite stop, and also
// what a parent that was killed leaves behind.
func serve(text string, stdin io.Reader, stdout io.Writer) error {
	var s settings
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return fmt.Errorf("queuetest: settings of the server process: %w", err)
	}
	shutdown, err := s.start()
	if err != nil {
		return err
	}
	defer shutdown()
	if _, err := fmt.Fprintln(stdout, readyLine); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stdin)
	return err
}

// settings is the part of a server's configuration that travels to its process.
type settings struct {
	Dir, Listen, User, Password string
	SyncAlways                  bool
	MaxStore                    int64
	MaxPayload                  int32

	Cluster *membership `json:",omitempty"` // nil: a server of its own
}

func newSettings(cfg embedded.Config) settings {
	return settings{
		Dir: cfg.Dir, Listen: cfg.Listen, User: cfg.User, Password: cfg.Password,
		SyncAlways: cfg.SyncAlways, MaxStore: cfg.MaxStore, MaxPayload: cfg.MaxPayload,
	}
}

func (s *settings) config() embedded.Config {
	return embedded.Config{
		Dir: s.Dir, Listen: s.Listen, User: s.User, Password: s.Password,
		SyncAlways: s.SyncAlways, MaxStore: s.MaxStore, MaxPayload: s.MaxPayload,
	}
}

// start returns when the server's JetStream answers.
func (s *settings) start() (shutdown func(), err error) {
	if s.Cluster != nil {
		return s.startNode()
	}
	srv, err := embedded.Start(s.config())
	if err != nil {
		return nil, err
	}
	return srv.Shutdown, nil
}

// Proc is a nats-server in a process of its own. Its methods are for the
// test's own goroutine.
type Proc struct {
	t   testing.TB
	cfg embedded.Config

	child *child // nil while there is no process
}

// Process starts a nats-server with JetStream in a process of its own: the
// test binary once more, which serves if TestMain calls [MaybeServe]. Options
// apply as to [Server], except [WithLog].
func Process(tb testing.TB, opts ...Option) *Proc {
	tb.Helper()
	p := &Proc{t: tb, cfg: newConfig(tb, opts)}
	tb.Cleanup(p.Kill)
	for range portAttempts {
		err := p.launch()
		if err == nil {
			return p
		}
		if errors.Is(err, errNotServing) {
			tb.Fatal(err)
		}
		tb.Logf("%v; trying another port", err)
		p.cfg.Listen = freeAddr(tb)
	}
	tb.Fatal("queuetest: the server process did not start")
	return nil
}

// launch starts the process and waits until JetStream answers.
func (p *Proc) launch() error {
	c, err := spawn(newSettings(p.cfg))
	if err != nil {
		return err
	}
	if err := c.ready(); err != nil {
		return err
	}
	p.child = c
	return nil
}

// URL is where clients connect; it stays the same over a restart.
func (p *Proc) URL() string { return "nats://" + p.cfg.Listen }

// Dir is the folder in which the server stores.
func (p *Proc) Dir() string { return p.cfg.Dir }

// Options are what a client needs besides the URL.
func (p *Proc) Options() []nats.Option { return clientOptions(p.cfg) }

// PID is the process's id; 0 while there is none.
func (p *Proc) PID() int {
	if p.child == nil {
		return 0
	}
	return p.child.cmd.Process.Pid
}

// Kill ends the process with SIGKILL, frozen or not, and waits until it is
// gone; harmless if there is none.
func (p *Proc) Kill() {
	if p.child != nil {
		p.child.kill()
		p.child = nil
	}
}

// Stop ends the process as an orderly shutdown does, and waits until it is
// gone; harmless if there is none. A frozen process must be thawed first.
func (p *Proc) Stop() {
	p.t.Helper()
	if p.child == nil {
		return
	}
	if err := p.child.stop(); err != nil {
		p.t.Errorf("queuetest: stop the server process: %v", err)
	}
	p.child = nil
}

// Start runs the server again on the same port and folder after a Kill or a
// Stop, and returns when it has recovered and JetStream answers.
func (p *Proc) Start() {
	p.t.Helper()
	if p.child != nil {
		return
	}
	if err := p.launch(); err != nil {
		p.t.Fatal(err)
	}
}

// Freeze stops the process in its tracks: connections stay open, nobody
// answers, and what is written waits in the kernel.
func (p *Proc) Freeze() {
	p.t.Helper()
	if err := freeze(p.child.cmd.Process); err != nil {
		p.t.Fatalf("queuetest: freeze the server process: %v", err)
	}
}

// Thaw lets a frozen process go on.
func (p *Proc) Thaw() {
	p.t.Helper()
	if err := thaw(p.child.cmd.Process); err != nil {
		p.t.Fatalf("queuetest: thaw the server process: %v", err)
	}
}
