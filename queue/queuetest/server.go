package queuetest

import (
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/embedded"
)

// Option changes a server before it starts.
type Option func(*embedded.Config)

// WithCredentials makes the server ask for a user and a password; [Conn]
// presents them.
func WithCredentials(user, password string) Option {
	return func(cfg *embedded.Config) { cfg.User, cfg.Password = user, password }
}

// WithMaxStore bounds what JetStream stores, in bytes, so that a test can fill it.
func WithMaxStore(size int64) Option {
	return func(cfg *embedded.Config) { cfg.MaxStore = size }
}

// WithMaxPayload bounds one message, in bytes.
func WithMaxPayload(size int32) Option {
	return func(cfg *embedded.Config) { cfg.MaxPayload = size }
}

// WithSyncAlways makes every write durable before its PubAck.
func WithSyncAlways() Option {
	return func(cfg *embedded.Config) { cfg.SyncAlways = true }
}

// WithLog hears the server; the default is silence.
func WithLog(log zerolog.Logger) Option {
	return func(cfg *embedded.Config) { cfg.Log = log }
}

// Endpoint is a server that a client can reach.
type Endpoint interface {
	URL() string
	Options() []nats.Option // credentials, or nothing
}

// Node is a nats-server inside the test's process. Its methods are for the
// test's own goroutine.
type Node struct {
	t   testing.TB
	cfg embedded.Config

	mu  sync.Mutex
	srv *embedded.Server // nil while stopped, guarded by mu
}

// Server starts a nats-server with JetStream inside the test's process.
func Server(tb testing.TB, opts ...Option) *Node {
	tb.Helper()
	n := &Node{t: tb, cfg: newConfig(tb, opts)}
	tb.Cleanup(n.Stop)
	// The port was free a moment ago, but another process may be quicker.
	for range portAttempts {
		srv, err := embedded.Start(n.cfg)
		if err == nil {
			n.srv = srv
			return n
		}
		tb.Logf("queuetest: %v; trying another port", err)
		n.cfg.Listen = freeAddr(tb)
	}
	tb.Fatal("queuetest: the server did not start")
	return nil
}

func newConfig(tb testing.TB, opts []Option) embedded.Config {
	tb.Helper()
	cfg := embedded.Config{Dir: folder(tb), Listen: freeAddr(tb), Log: zerolog.Nop()}
	for _, opt := range opts {
		opt(&cfg)
	}
	return cfg
}

// URL is where clients connect; it stays the same over a restart.
func (n *Node) URL() string { return "nats://" + n.cfg.Listen }

// Dir is the folder in which the server stores.
func (n *Node) Dir() string { return n.cfg.Dir }

// Options are what a client needs besides the URL.
func (n *Node) Options() []nats.Option { return clientOptions(n.cfg) }

// Embedded is the running server, for what needs a connection without a
// socket; nil while it is stopped.
func (n *Node) Embedded() *embedded.Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.srv
}

// Stop shuts the server down and waits until it is; harmless if it is stopped.
func (n *Node) Stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.srv != nil {
		n.srv.Shutdown()
		n.srv = nil
	}
}

// Start runs a stopped server again, on the same port and folder.
func (n *Node) Start() {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.srv != nil {
		return
	}
	srv, err := embedded.Start(n.cfg)
	if err != nil {
		n.t.Fatalf("queuetest: %v", err)
	}
	n.srv = srv
}

// Restart stops and starts the server. Clients lose their connection and, with
// [Conn], come back by themselves.
func (n *Node) Restart() {
	n.t.Helper()
	n.Stop()
	n.Start()
}

// Conn connects to the server for the length of the test. The connection comes
// back within milliseconds of a restart, and publishes at once or not at all.
func Conn(tb testing.TB, srv Endpoint, opts ...nats.Option) *nats.Conn {
	tb.Helper()
	all := append([]nats.Option{
		nats.Name(tb.Name()),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(10 * time.Millisecond),
		nats.ReconnectJitter(0, 0),
		nats.ReconnectBufSize(-1),
		nats.RetryOnFailedConnect(false),
	}, srv.Options()...)
	conn, err := nats.Connect(srv.URL(), append(all, opts...)...)
	if err != nil {
		tb.Fatalf("queuetest: connect to %s: %v", srv.URL(), err)
	}
	tb.Cleanup(conn.Close)
	return conn
}

func clientOptions(cfg embedded.Config) []nats.Option {
	if cfg.User == "" {
		return nil
	}
	return []nats.Option{nats.UserInfo(cfg.User, cfg.Password)}
}
