package simulator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Errors that callers may want to tell apart.
var (
	ErrClosed     = errors.New("the simulator is closed")
	ErrNoListener = errors.New("the simulator has no listener of its own: it was not started with Start")
	ErrNoWebhook  = errors.New("no webhook URL is registered")
)

const (
	closeGrace  = 5 * time.Second       // for requests under way when it closes
	relistenGap = 10 * time.Millisecond // between attempts to take the port again after a refusal
)

// Server is a simulator. All methods may be called at the same time. Create it
// with New and end it with Close, whether or not it was started.
type Server struct {
	cfg     Config // as given, with defaults
	keys    map[string]bool
	out     *outbox
	changed signal
	done    <-chan struct{} // closed when it closes

	base  func(net.Listener) context.Context // of every request; ends when the simulator closes
	stop  context.CancelFunc
	spawn func(func(context.Context)) bool // runs it in a goroutine that Close waits for; false = closed
	wg    sync.WaitGroup
	halt  func() // shutdown, once

	mu          sync.Mutex // taken before outbox.mu where both are
	live        Config     // as tuned
	view        View
	run         int // counts the resets
	requests    ring[*entry]
	rules       []*RuleState
	channels    []Channel // in the order of their making
	lists       map[string]*entityList
	known       map[string]struct{} // ids of messages that can be quoted
	knownOrder  ring[string]
	rng         *rand.Rand
	windowStart time.Time
	windowUsed  int

	fresh    sync.Map   // net.Conn: accepted, and nothing has come on it yet
	lmu      sync.Mutex // guards the listener and spawning; the last of the locks to be taken
	http     *http.Server
	listener net.Listener
	addr     string        // with the real port
	reopen   time.Time     // end of a refusal
	ended    chan struct{} // of capacity 1: a refusal may be over before its time
	closed   bool
}

// New makes a simulator that does not listen yet. The error names every fault
// of the configuration.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{cfg: cfg, keys: make(map[string]bool), done: ctx.Done(), stop: stop, ended: make(chan struct{}, 1)}
	s.base = func(net.Listener) context.Context { return ctx }
	for _, key := range cfg.Keys {
		s.keys[strings.TrimSpace(key)] = true
	}
	s.spawn = s.newSpawn(ctx)
	s.halt = sync.OnceFunc(s.shutdown)
	s.out = newOutbox(cfg, s.changed.broadcast, s.spawn)
	s.restore()
	s.out.setURL(cfg.WebhookURL)
	return s, nil
}

func (s *Server) newSpawn(ctx context.Context) func(func(context.Context)) bool {
	return func(f func(context.Context)) bool {
		s.lmu.Lock()
		defer s.lmu.Unlock()
		if s.closed {
			return false
		}
		s.wg.Go(func() { f(ctx) })
		return true
	}
}

// restore sets everything that a reset forgets to what it was at the start.
// Callers hold s.mu.
func (s *Server) restore() {
	s.live = s.cfg
	s.view = View{}
	s.run++
	s.requests = ring[*entry]{size: s.cfg.KeepRequests}
	s.rules = nil
	s.channels = slices.Clone(s.cfg.Channels)
	s.lists = newLists()
	s.known = make(map[string]struct{})
	s.knownOrder = ring[string]{size: max(s.cfg.KeepRequests, DefaultKeepRequests)}
	s.rng = rand.New(rand.NewPCG(s.cfg.Seed, uint64(s.run)))
	s.windowStart, s.windowUsed = time.Time{}, 0
}

// Reset forgets requests, rules, entities, messages, pending webhooks and
// tunings, and restores the channels. The registered webhook URL stays, since
// a receiver registers it only when it starts. Requests under way end as they
// would have.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restore()
	s.out.reset(s.cfg)
	s.changed.broadcast()
}

// Handler serves the vendor's API and the control API.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.EscapedPath(); {
		case path == "/_sim" || strings.HasPrefix(path, "/_sim/"):
			s.serveControl(w, r)
		default:
			s.serveVendor(w, r)
		}
	})
}

// Start listens on addr and serves until ctx ends or Close is called. Without
// a host it is the loopback address; port 0 takes a free one: see URL. When
// Start returns, connections are accepted.
func (s *Server) Start(ctx context.Context, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("simulator: listening: %w", err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	ln, err := listen(ctx, net.JoinHostPort(host, port))
	if err != nil {
		return fmt.Errorf("simulator: listening: %w", err)
	}
	if err := s.adopt(ln); err != nil {
		_ = ln.Close()
		return err
	}
	s.spawn(func(own context.Context) { s.serve(own, ln) })
	s.spawn(func(own context.Context) {
		select {
		case <-ctx.Done():
			s.halt()
		case <-own.Done():
		}
	})
	s.cfg.Log.Info().Str("address", s.Addr()).Msg("simulator listening")
	return nil
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}

func (s *Server) adopt(ln net.Listener) error {
	s.lmu.Lock()
	defer s.lmu.Unlock()
	switch {
	case s.closed:
		return fmt.Errorf("simulator: starting: %w", ErrClosed)
	case s.http != nil:
		return errors.New("simulator: it was started before")
	}
	s.listener, s.addr = ln, ln.Addr().String()
	s.http = &http.Server{
		Handler:           s.Handler(),
		BaseContext:       s.base,
		ReadHeaderTimeout: 10 * time.Second,
		ConnState: func(conn net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.fresh.Store(conn, nil)
				return
			}
			s.fresh.Delete(conn)
		},
		ErrorLog: slog.NewLogLogger(zerolog.NewSlogHandler(s.cfg.Log), slog.LevelWarn),
	}
	return nil
}

// serve accepts connections, and listens again after each refusal.
func (s *Server) serve(ctx context.Context, ln net.Listener) {
	for {
		err := s.http.Serve(ln)
		if errors.Is(err, http.ErrServerClosed) {
			return
		}
		if ln = s.relisten(ctx); ln == nil {
			return
		}
	}
}

// relisten waits for the end of the refusal and takes the port again; nil
// means that the simulator closes. The port may be another program's for a
// moment (an outgoing connection is enough), so it tries until it has it.
func (s *Server) relisten(ctx context.Context) net.Listener {
	for {
		s.lmu.Lock()
		wait := time.Until(s.reopen)
		s.lmu.Unlock()
		if wait <= 0 {
			ln, err := listen(ctx, s.addr)
			if err == nil {
				return s.resume(ln)
			}
			wait = relistenGap
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.ended:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// resume ends a refusal with the new listener.
func (s *Server) resume(ln net.Listener) net.Listener {
	s.lmu.Lock()
	defer s.lmu.Unlock()
	if s.closed {
		_ = ln.Close()
		return nil
	}
	s.listener = ln
	s.http.SetKeepAlivesEnabled(true)
	s.cfg.Log.Info().Msg("simulator accepts connections again")
	return ln
}

// refuse closes the listener for d, or longer if a refusal under way is longer.
// Requests under way are answered, on connections that close after them.
func (s *Server) refuse(d time.Duration) error {
	s.lmu.Lock()
	defer s.lmu.Unlock()
	switch {
	case s.http == nil:
		return fmt.Errorf("simulator: refusing connections: %w", ErrNoListener)
	case s.closed:
		return fmt.Errorf("simulator: refusing connections: %w", ErrClosed)
	}
	if end := time.Now().Add(d); end.After(s.reopen) {
		s.reopen = end
	}
	// First, so that no idle connection carries a request past the refusal.
	s.http.SetKeepAlivesEnabled(false)
	_ = s.listener.Close() // an error means that it is closed already
	// One that a client opened and has not used yet is as good as idle; net/http
	// leaves it alone for five seconds.
	s.fresh.Range(func(conn, _ any) bool {
		if conn, ok := conn.(net.Conn); ok {
			_ = conn.Close()
		}
		return true
	})
	s.cfg.Log.Info().Dur("for", d).Msg("simulator refuses connections")
	return nil
}

// EndRefusal ends a refusal before its time. New connections are taken a moment
// later.
func (s *Server) EndRefusal() {
	s.lmu.Lock()
	s.reopen = time.Time{}
	s.lmu.Unlock()
	select {
	case s.ended <- struct{}{}:
	default: // it is told already
	}
}

// Addr is the address that it listens on, "" before Start.
func (s *Server) Addr() string {
	s.lmu.Lock()
	defer s.lmu.Unlock()
	return s.addr
}

// URL is the base URL of a started simulator, without /v2: what a client is
// configured with in place of https://api.wazzup24.com.
func (s *Server) URL() string { return "http://" + s.Addr() }

// Close stops it: no new requests, hanging ones are dropped, others may end,
// webhooks that wait are forgotten. It returns when every goroutine of the
// simulator has ended, and may be called more than once.
func (s *Server) Close() {
	s.halt()
	s.wg.Wait()
	s.out.closeIdle()
}

func (s *Server) shutdown() {
	s.lmu.Lock()
	s.closed = true
	srv := s.http
	s.lmu.Unlock()
	s.stop()
	if srv == nil {
		return
	}
	grace, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		_ = srv.Close()
	}
}
