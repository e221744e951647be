package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
)

func fails(err error) daemon.Run {
	return func(context.Context, []string, func(string) string, io.Writer, io.Writer) error { return err }
}

func TestAdminHandler(t *testing.T) {
	t.Parallel()
	ready := []daemon.Status{{Name: "nats", Ready: true}, {Name: "worker", Ready: true}}
	unready := []daemon.Status{{Name: "nats", Reason: "not connected"}, {Name: "worker", Ready: true}}
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a_metric 1\n") })
	for _, tc := range []struct {
		name, method, path string
		tasks              []daemon.Status
		metrics            http.Handler
		code               int
		body               string
	}{
		{"alive", "GET", "/healthz", ready, nil, 200, "ok\n"},
		{"alive though not ready", "GET", "/healthz", unready, nil, 200, "ok\n"},
		{
			"ready", "GET", "/readyz", ready, nil, 200,
			`{"ready":true,"tasks":[{"name":"nats","ready":true},{"name":"worker","ready":true}]}` + "\n",
		},
		{
			"not ready", "GET", "/readyz", unready, nil, 503,
			`{"ready":false,"tasks":[{"name":"nats","ready":false,"reason":"not connected"},{"name":"worker","ready":true}]}` + "\n",
		},
		{"metrics", "GET", "/metrics", ready, metrics, 200, "a_metric 1\n"},
		{"no metrics", "GET", "/metrics", ready, nil, 404, "404 page not found\n"},
		{"nothing else", "GET", "/", ready, nil, 404, "404 page not found\n"},
		{"reading only", "POST", "/readyz", ready, nil, 405, "Method Not Allowed\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			handler := daemon.NewAdminHandler(func() []daemon.Status { return tc.tasks }, tc.metrics)
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), tc.method, tc.path, nil))
			if answer.Code != tc.code {
				t.Errorf("status = %d, want %d", answer.Code, tc.code)
			}
			if got := answer.Body.String(); got != tc.body {
				t.Errorf("body = %q, want %q", got, tc.body)
			}
		})
	}
}

// TestAdminOfAGroup follows a program's readiness from outside.
func TestAdminOfAGroup(t *testing.T) {
	t.Parallel()
	g := daemon.NewGroup(zerolog.Nop())
	admin, err := daemon.NewAdmin(t.Context(), daemon.AdminConfig{Addr: "127.0.0.1:0", Ready: g.Status})
	if err != nil {
		t.Fatal(err)
	}
	stopping, release := make(chan struct{}), make(chan struct{})
	g.Add(admin, 0)
	g.Add(daemon.NewTask("worker", func(ctx context.Context) error {
		<-ctx.Done()
		close(stopping)
		<-release
		return nil
	}, nil), 0)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- g.Run(ctx) }()

	// The listener is open already: the first answer comes when Run serves.
	code, body := get(t, "http://"+admin.Addr().String()+"/readyz")
	if code != http.StatusOK || !body.Ready {
		t.Errorf("running: %d %+v, want 200 and ready", code, body)
	}
	cancel()
	<-stopping
	code, body = get(t, "http://"+admin.Addr().String()+"/readyz")
	if code != http.StatusServiceUnavailable || body.Ready {
		t.Errorf("stopping: %d %+v, want 503 and not ready", code, body)
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("Run: %v", err)
	}
	again, err := daemon.NewAdmin(t.Context(), daemon.AdminConfig{Addr: admin.Addr().String(), Ready: g.Status})
	if err != nil {
		t.Fatalf("the address is not free after the end: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

type readiness struct {
	Ready bool            `json:"ready"`
	Tasks []daemon.Status `json:"tasks"`
}

func get(t *testing.T, url string) (int, readiness) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body readiness
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

func TestAdminAddressFaults(t *testing.T) {
	t.Parallel()
	taken, err := daemon.NewAdmin(t.Context(), daemon.AdminConfig{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	for _, tc := range []struct {
		name, addr string
		code       int
	}{
		{"no address", "8081", daemon.ExitUsage},
		{"empty", "", daemon.ExitUsage},
		{"taken", taken.Addr().String(), daemon.ExitFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := daemon.NewAdmin(t.Context(), daemon.AdminConfig{Addr: tc.addr})
			if err == nil {
				t.Fatal("no error")
			}
			var stderr bytes.Buffer
			if got := daemon.RunMain(fails(err), nil, &stderr, nil, nil); got != tc.code {
				t.Errorf("exit code = %d, want %d", got, tc.code)
			}
			if !bytes.Contains(stderr.Bytes(), []byte("ADMIN_ADDR")) {
				t.Errorf("%q does not name ADMIN_ADDR", &stderr)
			}
		})
	}
}

func TestAdminHasTimeouts(t *testing.T) {
	t.Parallel()
	admin, err := daemon.NewAdmin(t.Context(), daemon.AdminConfig{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })
	server := reflect.ValueOf(daemon.AdminServer(admin)).Elem()
	for _, field := range []string{"ReadHeaderTimeout", "ReadTimeout", "WriteTimeout", "IdleTimeout", "MaxHeaderBytes"} {
		if server.FieldByName(field).IsZero() {
			t.Errorf("%s is not set", field)
		}
	}
}
