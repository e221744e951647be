package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/wazzup-relay/wazzup-relay/internal/embedded"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	srv, err := embedded.Start(cfg)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(srv.Shutdown)
	return srv
}

func connect(t *testing.T, url string, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatalf("connect to %s: %v", url, err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestStoredMessagesOutliveTheServer(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		cfg  embedded.Config
	}{
		{name: "defaults"},
		{name: "sync always", cfg: embedded.Config{SyncAlways: true}},
		{name: "credentials", cfg: embedded.Config{User: "relay", Password: "correct horse"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.cfg.Dir = t.TempDir()
			first := start(t, tc.cfg)
			js := connect(t, first.URL(), first.Options()...)
			if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
				t.Fatal(err)
			}
			if _, err := js.Publish(t.Context(), "s.a", []byte("kept")); err != nil {
				t.Fatal(err)
			}
			first.Shutdown()
			first.Shutdown() // harmless

			second := start(t, tc.cfg)
			stream, err := connect(t, second.URL(), second.Options()...).Stream(t.Context(), "S")
			if err != nil {
				t.Fatal(err)
			}
			msg, err := stream.GetMsg(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := string(msg.Data), "kept"; got != want {
				t.Errorf("message = %q, want %q", got, want)
			}
		})
	}
}

func TestConfigurationFaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		cfg   embedded.Config
		want  error
		names string // the setting that the text must name
	}{
		{"no folder", embedded.Config{}, embedded.ErrConfig, "EMBEDDED_NATS"},
		{"folder is a file", embedded.Config{Dir: file}, embedded.ErrConfig, "EMBEDDED_NATS"},
		{"all interfaces", embedded.Config{Dir: dir, Listen: "0.0.0.0:0"}, embedded.ErrOpen, "NATS_USER"},
		{"all interfaces, v6", embedded.Config{Dir: dir, Listen: "[::]:0"}, embedded.ErrOpen, "NATS_USER"},
		{"no host", embedded.Config{Dir: dir, Listen: ":4222"}, embedded.ErrOpen, "NATS_USER"},
		{"a name", embedded.Config{Dir: dir, Listen: "nats.example:4222"}, embedded.ErrOpen, "NATS_USER"},
		{"no port", embedded.Config{Dir: dir, Listen: "127.0.0.1"}, embedded.ErrConfig, "NATS_URL"},
		{"port is no number", embedded.Config{Dir: dir, Listen: "127.0.0.1:nats"}, embedded.ErrConfig, "NATS_URL"},
		{"user without password", embedded.Config{Dir: dir, User: "relay"}, embedded.ErrConfig, "NATS_PASSWORD"},
		{"negative limit", embedded.Config{Dir: dir, MaxStore: -1}, embedded.ErrConfig, "limit"},
		{"certificate is not there", embedded.Config{Dir: dir, TLSCert: file + "-", TLSKey: file}, embedded.ErrConfig, "certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv, err := embedded.Start(tc.cfg)
			if err == nil {
				srv.Shutdown()
			}
			if !errors.Is(err, tc.want) {
				t.Fatalf("error = %v, want %v", err, tc.want)
			}
			if !strings.Contains(err.Error(), tc.names) {
				t.Errorf("error %q does not name %s", err, tc.names)
			}
		})
	}
}

func TestNonLoopbackWithCredentials(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{Dir: t.TempDir(), Listen: "0.0.0.0:0", User: "relay", Password: "secret"})
	for _, tc := range []struct {
		name           string
		user, password string
		ok             bool
	}{
		{"right", "relay", "secret", true},
		{"wrong password", "relay", "secreT", false},
		{"wrong user", "other", "secret", false},
		{"none", "", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn, err := nats.Connect(srv.URL(), nats.UserInfo(tc.user, tc.password))
			if err == nil {
				conn.Close()
			}
			if got := err == nil; got != tc.ok {
				t.Errorf("connected = %t (%v), want %t", got, err, tc.ok)
			}
			if !tc.ok && !errors.Is(err, nats.ErrAuthorization) {
				t.Errorf("error = %v, want %v", err, nats.ErrAuthorization)
			}
		})
	}
}

func TestFolderIsLocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, embedded.Config{Dir: dir})

	_, err := embedded.Start(embedded.Config{Dir: dir, Listen: "127.0.0.1:0"})
	if !errors.Is(err, embedded.ErrLocked) {
		t.Fatalf("second Start: %v, want %v", err, embedded.ErrLocked)
	}
	for _, want := range []string{dir, "EMBEDDED_NATS"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %s", err, want)
		}
	}

	first.Shutdown()
	start(t, embedded.Config{Dir: dir}) // free again
}

func TestTakenPort(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	dir := t.TempDir()
	_, err = embedded.Start(embedded.Config{Dir: dir, Listen: listener.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), listener.Addr().String()) || !strings.Contains(err.Error(), "bind: ") {
		t.Fatalf("Start on a taken port: %v, want an error that names it and says why", err)
	}
	start(t, embedded.Config{Dir: dir}) // the failed start keeps no lock
}

func TestMaxStoreBoundsStreams(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{Dir: t.TempDir(), MaxStore: 1 << 20, MaxMemory: 1 << 20, MaxPayload: 1000})
	js := connect(t, srv.URL())
	info, err := js.AccountInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Store != 0 {
		t.Errorf("a fresh folder stores %d bytes", info.Store)
	}
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", MaxBytes: 2 << 20})
	if apiErr, ok := errors.AsType[*jetstream.APIError](err); !ok {
		t.Errorf("stream beyond MaxStore: %v, want the server's refusal", err)
	} else if got, want := int(apiErr.ErrorCode), 10047; got != want {
		t.Errorf("error code = %d, want %d (insufficient storage)", got, want)
	}
	if got, want := js.Conn().MaxPayload(), int64(1000); got != want {
		t.Errorf("max payload = %d, want %d", got, want)
	}
}

func TestTask(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{Dir: t.TempDir()})
	if err := srv.Ready(); err != nil {
		t.Errorf("Ready: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := srv.Ready(); err == nil {
		t.Error("ready after the end")
	}
}

func TestLogHasNoNoiseAboveDebug(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := zerolog.New(&out).Level(zerolog.InfoLevel)
	srv, err := embedded.Start(embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", User: "relay", Password: "canary", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	srv.Shutdown()
	if got := strings.Count(out.String(), "\n"); got != 1 {
		t.Errorf("a start and a stop log %d lines, want 1:\n%s", got, &out)
	}
	if strings.Contains(out.String(), "canary") {
		t.Error("the log holds the password")
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, give, want string }{
		{"plain", `Can't start JetStream: disk full`, `Can't start JetStream: disk full`},
		{"stream", `JetStream stream '$G > WAZZUP_main' is slow`, `JetStream stream '$G > WAZZUP_main' is slow`},
		{
			"quoted subject", `Internal subscription on "wazzup.main.evt.message.in.c.whatsapp.79998887766" took too long: 2s`,
			`Internal subscription on "…" took too long: 2s`,
		},
		{"bare subject", `no interest on wazzup.main.evt.message.in.c.vk.joe today`, `no interest on … today`},
		{"api subject", `slow: $JS.API.STREAM.MSG.GET.S now`, `slow: … now`},
		{"escaped quote", `Malformed JetStream API Request: [x] "{\"text\":\"hello\"}" end`, `Malformed JetStream API Request: [x] "…" end`},
		{"single quotes", `value='hello there' end`, `value='…' end`},
		{"parser", `127.0.0.1:1 - cid:5 - Client parser ERROR, state=0, i=0: proto='"hello"...'`, `127.0.0.1:1 - cid:5 - Client parser ERROR, state=0, i=0: proto=…`},
		{"phone", `odd 79998887766 text`, `odd … text`},
		{"listening", `Error listening on port: [::1]:4222, "listen tcp [::1]:4222: bind: address already in use"`, `Error listening on port: [::1]:4222, "listen tcp [::1]:4222: bind: address already in use"`},
		{"address", `127.0.0.1:53312 - cid:12 - "worker" - slow consumer`, `127.0.0.1:53312 - cid:12 - "worker" - slow consumer`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := embedded.Redact(tc.give); got != tc.want {
				t.Errorf("redact(%q)\n got %q\nwant %q", tc.give, got, tc.want)
			}
		})
	}
}

func FuzzRedact(f *testing.F) {
	f.Add(`on "`, `" took`)
	f.Add(`proto='`, `...'`)
	f.Add(`x wazzup.main.`, ` y`)
	f.Fuzz(func(t *testing.T, before, after string) {
		const canary = "79998887766"
		if got := embedded.Redact(before + canary + after); strings.Contains(got, canary) {
			t.Errorf("redact(%q + phone + %q) = %q", before, after, got)
		}
	})
}

func TestStopsWithinBudget(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{Dir: t.TempDir()})
	js := connect(t, srv.URL(), nats.MaxReconnects(-1))
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	consumer, err := js.CreateConsumer(t.Context(), "S", jetstream.ConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithCancel(t.Context())
	pull, err := consumer.Fetch(1, jetstream.FetchContext(waiting)) // must not hold the server up
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); srv.Shutdown() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("Shutdown did not return")
	}
	cancel() // else the client would wait for heartbeats
	for range pull.Messages() {
		t.Error("a message out of nowhere")
	}
}
