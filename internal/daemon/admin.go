package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// adminGrace is how long requests under way may take when the server stops.
const adminGrace = 2 * time.Second

// AdminConfig says what the admin server shows.
type AdminConfig struct {
	// Addr is ADMIN_ADDR, host:port; port 0 = a free one.
	Addr string
	// Ready tells the tasks' readiness, usually [Group.Status].
	Ready func() []Status
	// Metrics answers /metrics; nil = 404.
	Metrics http.Handler
	// Log hears what the HTTP server complains of.
	Log zerolog.Logger
}

// Admin serves /healthz, /readyz and /metrics. It is a task; added first, it
// is the last to stop, so that /readyz tells of the stopping itself.
type Admin struct {
	listener net.Listener
	server   *http.Server
}

// NewAdmin listens at once, so that a wrong or taken address is known before
// anything else starts. An address that is none is a [ConfigFault].
func NewAdmin(ctx context.Context, cfg AdminConfig) (*Admin, error) {
	if _, _, err := net.SplitHostPort(cfg.Addr); err != nil {
		return nil, &ConfigFault{Variable: "ADMIN_ADDR", Err: err}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("ADMIN_ADDR: %w", err)
	}
	return &Admin{
		listener: listener,
		server: &http.Server{
			Handler:           NewAdminHandler(cfg.Ready, cfg.Metrics),
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       time.Minute,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          stdlog.New(lineWriter{cfg.Log}, "", 0),
		},
	}, nil
}

// Addr is where it listens.
func (a *Admin) Addr() net.Addr { return a.listener.Addr() }

// Name is the task's name.
func (a *Admin) Name() string { return "admin" }

// Ready is always nil: whoever can ask has been answered.
func (a *Admin) Ready() error { return nil }

// Run serves until ctx ends, lets requests under way finish, and closes the
// listener.
func (a *Admin) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- a.server.Serve(a.listener) }()
	select {
	case err := <-served: // it never ends by itself without an error
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminGrace)
	defer cancel()
	if err := a.server.Shutdown(grace); err != nil {
		_ = a.server.Close() // whoever is left has had its time
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close frees the address of a server that was never run.
func (a *Admin) Close() error { return a.listener.Close() }

// NewAdminHandler is the admin server's handler:
//
//   - GET /healthz: 200 while the process lives.
//   - GET /readyz: 200 when every task is ready, otherwise 503; either way a
//     JSON object that names each task and why it is not ready.
//   - GET /metrics: metrics, if there is one.
func NewAdminHandler(ready func() []Status, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n") // the prober is gone
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		writeReadiness(w, ready())
	})
	if metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
	return mux
}

// readiness is the body of /readyz.
type readiness struct {
	Ready bool     `json:"ready"`
	Tasks []Status `json:"tasks"`
}

func writeReadiness(w http.ResponseWriter, tasks []Status) {
	answer := readiness{Ready: true, Tasks: tasks}
	for _, task := range tasks {
		answer.Ready = answer.Ready && task.Ready
	}
	body, err := json.Marshal(answer)
	if err != nil { // strings and bools always marshal
		http.Error(w, "readiness cannot be told", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !answer.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n')) // the prober is gone
}

// lineWriter gives each line of a standard logger to zerolog.
type lineWriter struct{ log zerolog.Logger }

func (w lineWriter) Write(line []byte) (int, error) {
	w.log.Warn().Str("text", strings.TrimSpace(string(line))).Msg("admin server reports")
	return len(line), nil
}
