// Package embedded runs a NATS server with JetStream inside this process: the
// choice for a single machine, where a second daemon would only be one more
// thing to operate.
//
// The server listens on TCP like any other, so producers and consumers need
// not know that it shares a process with the worker. What it acknowledged
// survives a kill -9 of the process; what a power loss may cost is said at
// [Config.SyncAlways].
package embedded

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// Defaults of [Config].
const (
	DefaultListen       = "127.0.0.1:4222"
	DefaultSyncInterval = time.Second
	DefaultMaxStore     = 10 << 30 // bytes
	DefaultMaxMemory    = 1 << 30  // bytes
	DefaultMaxPayload   = 1 << 20  // bytes
)

// readyWait bounds the wait for the server's own ready signal. It is raised
// when the listener is open, which is before start returns, so that the wait
// only ever ends early.
const readyWait = 10 * time.Second

var (
	// ErrLocked: another process (or another server of this one) uses the folder.
	ErrLocked = errors.New("folder is in use by another process")
	// ErrOpen: a non-loopback address without user and password.
	ErrOpen = errors.New("a non-loopback address needs credentials")
	// ErrConfig: any other setting that cannot work.
	ErrConfig = errors.New("wrong configuration")
)

// Config says where the server stores and who may reach it.
type Config struct {
	// Dir is where JetStream stores; it is created if it is not there, and
	// locked while the server runs. Required. (EMBEDDED_NATS)
	Dir string
	// Listen is host:port; "" = [DefaultListen], port 0 or -1 = a free one.
	// Anything but loopback needs User and Password. (NATS_URL)
	Listen string
	// User and Password, both or neither, are what clients must present.
	// (NATS_USER, NATS_PASSWORD)
	User, Password string
	// TLSCert and TLSKey, both or neither, are PEM files; with them clients
	// must speak TLS.
	TLSCert, TLSKey string
	// SyncAlways makes every write durable against power loss before it is
	// acknowledged, for about a tenth of the throughput.
	SyncAlways bool
	// SyncInterval is how much acknowledged work a power loss may cost (a
	// killed process costs none); 0 = [DefaultSyncInterval].
	SyncInterval time.Duration
	// MaxStore and MaxMemory, in bytes, bound JetStream; 0 = the defaults.
	// Streams reserve their MaxBytes from MaxStore, whatever the disk holds,
	// so that the same configuration works on any machine.
	MaxStore, MaxMemory int64
	// MaxPayload of one message, in bytes; 0 = [DefaultMaxPayload].
	MaxPayload int32
	// Log hears what the server warns of. The zero value is silent.
	Log zerolog.Logger
}

// Server is a running server. It is a task of a daemon: see Name, Run, Ready.
type Server struct {
	nats     *server.Server
	user     string
	password string
	stop     func()
}

// Start returns when the server accepts connections and JetStream has
// recovered what the folder holds. The error names the setting at fault and is
// an [ErrLocked], an [ErrOpen] or an [ErrConfig] where it is one; a taken port
// or an unusable store is none of them.
func Start(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	opts, err := cfg.options()
	if err != nil {
		return nil, err
	}
	unlock, err := lock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	srv, err := launch(opts, cfg.Log)
	if err != nil {
		unlock()
		return nil, fmt.Errorf("start embedded NATS server (EMBEDDED_NATS=%s, NATS_URL address %s): %w", cfg.Dir, cfg.Listen, err)
	}
	cfg.Log.Info().Str("url", srv.ClientURL()).Str("dir", cfg.Dir).Bool("sync_always", cfg.SyncAlways).
		Msg("embedded NATS server is listening")
	return &Server{
		nats:     srv,
		user:     cfg.User,
		password: cfg.Password,
		stop: sync.OnceFunc(func() {
			srv.Shutdown()
			srv.WaitForShutdown()
			unlock()
		}),
	}, nil
}

func (cfg Config) withDefaults() Config {
	if cfg.Listen == "" {
		cfg.Listen = DefaultListen
	}
	if cfg.SyncInterval == 0 {
		cfg.SyncInterval = DefaultSyncInterval
	}
	if cfg.MaxStore == 0 {
		cfg.MaxStore = DefaultMaxStore
	}
	if cfg.MaxMemory == 0 {
		cfg.MaxMemory = DefaultMaxMemory
	}
	if cfg.MaxPayload == 0 {
		cfg.MaxPayload = DefaultMaxPayload
	}
	return cfg
}

func (cfg Config) options() (*server.Options, error) {
	if cfg.Dir == "" {
		return nil, fmt.Errorf("%w: EMBEDDED_NATS names no folder", ErrConfig)
	}
	if (cfg.User == "") != (cfg.Password == "") {
		return nil, fmt.Errorf("%w: NATS_USER and NATS_PASSWORD go together", ErrConfig)
	}
	if cfg.MaxStore < 0 || cfg.MaxMemory < 0 || cfg.MaxPayload < 0 || cfg.SyncInterval < 0 {
		return nil, fmt.Errorf("%w: a limit of the embedded NATS server is negative", ErrConfig)
	}
	host, port, err := splitListen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if cfg.User == "" && !isLoopback(host) {
		return nil, fmt.Errorf("%w: EMBEDDED_NATS would listen on NATS_URL's %s for everybody; set NATS_USER and NATS_PASSWORD, or a loopback address", ErrOpen, cfg.Listen)
	}
	opts := &server.Options{
		Host:                   host,
		Port:                   port,
		MaxPayload:             cfg.MaxPayload,
		JetStream:              true,
		StoreDir:               cfg.Dir,
		JetStreamMaxStore:      cfg.MaxStore,
		JetStreamMaxMemory:     cfg.MaxMemory,
		SyncAlways:             cfg.SyncAlways,
		SyncInterval:           cfg.SyncInterval,
		DisableJetStreamBanner: true,
		NoSigs:                 true, // signals are the daemon's
	}
	if cfg.User != "" {
		opts.CustomClientAuthentication = newAuth(cfg.User, cfg.Password)
	}
	if cfg.TLSCert != "" || cfg.TLSKey != "" {
		cert, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("%w: certificate of the embedded NATS server: %w", ErrConfig, err)
		}
		opts.TLS = true
		opts.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	return opts, nil
}

func splitListen(listen string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("%w: address of the embedded NATS server (from NATS_URL): %w", ErrConfig, err)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < -1 || port > 65535 {
		return "", 0, fmt.Errorf("%w: port of the embedded NATS server (from NATS_URL) is no number from 0 to 65535", ErrConfig)
	}
	if port == 0 {
		port = server.RANDOM_PORT // the server reads 0 as "the default port"
	}
	return host, port, nil
}

// isLoopback is false for every name but localhost: what a name resolves to
// may change, and "" means all interfaces.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// launch starts the server and turns what it would die of into an error: it
// reports fatal faults to its logger only, and returns.
func launch(opts *server.Options, log zerolog.Logger) (*server.Server, error) {
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	sink := &logSink{log: log}
	srv.SetLoggerV2(sink, false, false, false)
	srv.Start()
	if err := sink.fatal(); err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, err
	}
	if !srv.ReadyForConnections(readyWait) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, errors.New("the server did not become ready")
	}
	return srv, nil
}

// auth compares in constant time. The server's own user and password options
// would do as well, but warn of plain text at every start.
type auth struct{ user, password [sha256.Size]byte }

func newAuth(user, password string) *auth {
	return &auth{user: sha256.Sum256([]byte(user)), password: sha256.Sum256([]byte(password))}
}

// Check implements server.Authentication.
func (a *auth) Check(c server.ClientAuthentication) bool {
	given := newAuth(c.GetOpts().Username, c.GetOpts().Password)
	user := subtle.ConstantTimeCompare(a.user[:], given.user[:])
	password := subtle.ConstantTimeCompare(a.password[:], given.password[:])
	return user&password == 1
}

// URL is where clients connect; it holds no credentials.
func (s *Server) URL() string { return s.nats.ClientURL() }

// InProcessConn makes a connection that needs no socket; the server is thus a
// [nats.InProcessConnProvider]. Credentials are asked for all the same.
func (s *Server) InProcessConn() (net.Conn, error) { return s.nats.InProcessConn() }

// Options connect a client of this process without a socket, credentials
// included.
func (s *Server) Options() []nats.Option {
	opts := []nats.Option{nats.InProcessServer(s)}
	if s.user != "" {
		opts = append(opts, nats.UserInfo(s.user, s.password))
	}
	return opts
}

// Name is the task's name.
func (s *Server) Name() string { return "embedded_nats" }

// Run waits for the end of ctx, then shuts the server down.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.Shutdown()
	return nil
}

// Ready tells why the server cannot serve, or nil. A server that cannot write
// (disk full, I/O error) switches JetStream off by itself.
func (s *Server) Ready() error {
	switch {
	case !s.nats.Running():
		return errors.New("embedded NATS server is stopped")
	case !s.nats.JetStreamEnabled():
		return errors.New("embedded NATS server has switched JetStream off: it cannot write to its folder")
	}
	return nil
}

// Shutdown closes every connection, writes what is pending, waits until that
// is done and frees the folder. It may be called more than once and from
// several goroutines; each call returns when the server is down.
func (s *Server) Shutdown() { s.stop() }
