package daemon_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/embedded"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func connectNATS(t *testing.T, cfg daemon.NATSConfig) *daemon.NATS {
	t.Helper()
	n, err := daemon.ConnectNATS(cfg)
	if err != nil {
		t.Fatalf("ConnectNATS: %v", err)
	}
	t.Cleanup(n.Close)
	return n
}

func waitNATS(t *testing.T, n *daemon.NATS) {
	t.Helper()
	if err := n.Wait(t.Context()); err != nil {
		t.Fatalf("Wait: %v", err)
	}
	if err := n.Ready(); err != nil {
		t.Fatalf("Ready: %v", err)
	}
}

// notify gives the connection's events as a channel.
func notify(n *daemon.NATS) <-chan daemon.NATSEvent {
	events := make(chan daemon.NATSEvent, 100)
	n.Notify(func(e daemon.NATSEvent) { events <- e })
	return events
}

func TestNATSConnected(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		opts []queuetest.Option
		cfg  daemon.NATSConfig
	}{
		{name: "open"},
		{
			name: "credentials",
			opts: []queuetest.Option{queuetest.WithCredentials("u", "p")},
			cfg:  daemon.NATSConfig{User: "u", Password: "p", InboxPrefix: "_INBOX.worker"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv := queuetest.Server(t, tc.opts...)
			tc.cfg.URL = srv.URL()
			n := connectNATS(t, tc.cfg)
			waitNATS(t, n)
			if got, want := <-notify(n), daemon.NATSConnected; got != want {
				t.Errorf("a late observer hears %v, want %v", got, want)
			}
			if tc.cfg.InboxPrefix != "" && !strings.HasPrefix(n.Conn().NewInbox(), tc.cfg.InboxPrefix+".") {
				t.Errorf("inbox = %s, want prefix %s", n.Conn().NewInbox(), tc.cfg.InboxPrefix)
			}
		})
	}
}

func TestNATSInProcess(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t, queuetest.WithCredentials("u", "p"))
	n := connectNATS(t, daemon.NATSConfig{
		InProcess: srv.Embedded(), User: "u", Password: "p", URL: "not even looked at",
	})
	waitNATS(t, n)
	if err := n.Conn().Flush(); err != nil {
		t.Error(err)
	}
}

func TestNATSAwayAtStart(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	srv.Stop()
	var log logBuffer
	n := connectNATS(t, daemon.NATSConfig{URL: srv.URL(), Log: zerolog.New(&log)})
	events := notify(n)

	if err := n.Ready(); err == nil {
		t.Error("ready without a server")
	}
	if err := n.Conn().Publish("s", nil); !errors.Is(err, nats.ErrReconnectBufExceeded) {
		t.Errorf("publish without a server: %v, want %v", err, nats.ErrReconnectBufExceeded)
	}
	sub, err := n.Conn().SubscribeSync("s")
	if err != nil {
		t.Fatalf("subscribe without a server: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Wait(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v, want %v", err, context.Canceled)
	}

	srv.Start()
	waitNATS(t, n)
	if got, want := <-events, daemon.NATSConnected; got != want {
		t.Errorf("event = %v, want %v", got, want)
	}
	if err := n.Conn().Publish("s", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsgWithContext(t.Context()); err != nil {
		t.Errorf("the early subscription: %v", err)
	}
	if got := strings.Count(log.String(), "operation fails"); got != 1 {
		t.Errorf("the failure is logged %d times, want once:\n%s", got, log.String())
	}
	if !strings.Contains(log.String(), "operation works again") {
		t.Errorf("the end of the failure is not logged:\n%s", log.String())
	}
}

func TestNATSRestart(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	n := connectNATS(t, daemon.NATSConfig{URL: srv.URL()})
	waitNATS(t, n)
	events, other := notify(n), notify(n)
	mute := n.Notify(func(e daemon.NATSEvent) {
		if e != daemon.NATSConnected {
			t.Errorf("an observer that has left hears %v", e)
		}
	})
	mute()
	next := func(want daemon.NATSEvent) {
		t.Helper()
		for _, c := range []<-chan daemon.NATSEvent{events, other} {
			if got := <-c; got != want {
				t.Fatalf("event = %v, want %v", got, want)
			}
		}
	}
	next(daemon.NATSConnected)
	for range 3 {
		srv.Stop()
		next(daemon.NATSDisconnected)
		if err := n.Ready(); err == nil {
			t.Error("ready without a server")
		}
		if err := n.Conn().Publish("s", nil); !errors.Is(err, nats.ErrReconnectBufExceeded) {
			t.Errorf("publish without a server: %v, want %v", err, nats.ErrReconnectBufExceeded)
		}
		srv.Start()
		next(daemon.NATSReconnected)
		if err := n.Conn().Publish("s", nil); err != nil {
			t.Errorf("publish after a restart: %v", err)
		}
	}
	n.Close()
	next(daemon.NATSClosed)
}

// TestNATSRefusedLogin shows that a wrong password neither ends the process
// nor the trying: somebody may mend it on the server.
func TestNATSRefusedLogin(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t, queuetest.WithCredentials("u", "another"))
	var log logBuffer
	n := connectNATS(t, daemon.NATSConfig{URL: srv.URL(), User: "u", Password: "canary", Log: zerolog.New(&log)})
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), srv.URL()) {
		t.Errorf("refused: got %v, want it to say where", err)
	}
	for !strings.Contains(log.String(), "Authorization Violation: the server takes neither NATS_USER") || !strings.Contains(log.String(), `"url":"`+srv.URL()) {
		if t.Context().Err() != nil {
			t.Fatal("the refusal is not logged")
		}
		if err := n.Wait(expired(t)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Wait: %v", err)
		}
	}
	srv.Stop()
	mended, err := embedded.Start(embedded.Config{
		Dir: t.TempDir(), Listen: strings.TrimPrefix(srv.URL(), "nats://"), User: "u", Password: "canary",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mended.Shutdown)
	waitNATS(t, n)
	if strings.Contains(log.String(), "canary") {
		t.Error("the password is in the log")
	}
}

// expired is a context that ends very soon.
func expired(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestNATSTLS(t *testing.T) {
	t.Parallel()
	cert, key := newCertificate(t)
	srv, err := embedded.Start(embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", TLSCert: cert, TLSKey: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)

	trusting := connectNATS(t, daemon.NATSConfig{URL: srv.URL(), CA: cert, Cert: cert, Key: key})
	waitNATS(t, trusting)
	if _, err := trusting.Conn().TLSConnectionState(); err != nil {
		t.Errorf("no TLS: %v", err)
	}

	doubting := connectNATS(t, daemon.NATSConfig{URL: srv.URL()})
	if err := doubting.Ready(); err == nil {
		t.Error("ready though the certificate is not trusted")
	}
}

// newCertificate writes a certificate for 127.0.0.1 that signs itself.
func newCertificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, "CERTIFICATE", der), writePEM(t, "PRIVATE KEY", keyDER)
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	return writeFile(t, kind+".pem", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func writeFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNATSConfigFaults(t *testing.T) {
	t.Parallel()
	junk := writeFile(t, "junk", []byte("canary"))
	cert, key := newCertificate(t)
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	noJWT := writeFile(t, "seed.creds", fmt.Appendf(nil, "-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n", seed))
	const url = "nats://127.0.0.1:4222"
	for _, tc := range []struct {
		name string
		cfg  daemon.NATSConfig
		want []string
	}{
		{"no URL", daemon.NATSConfig{}, []string{"NATS_URL"}},
		{"odd scheme", daemon.NATSConfig{URL: "http://127.0.0.1"}, []string{"NATS_URL"}},
		{"broken URL with a password", daemon.NATSConfig{URL: "nats://u:canary@host:port"}, []string{"NATS_URL"}},
		{"one of several", daemon.NATSConfig{URL: url + ",nats://"}, []string{"NATS_URL"}},
		{"no creds file", daemon.NATSConfig{URL: url, Creds: junk + "-"}, []string{"NATS_CREDS"}},
		{"creds of something else", daemon.NATSConfig{URL: url, Creds: junk}, []string{"NATS_CREDS"}},
		{"creds without JWT", daemon.NATSConfig{URL: url, Creds: noJWT}, []string{"NATS_CREDS"}},
		{"creds and user", daemon.NATSConfig{URL: url, Creds: junk, User: "u", Password: "canary"}, []string{"NATS_CREDS"}},
		{"user alone", daemon.NATSConfig{URL: url, User: "u"}, []string{"NATS_USER"}},
		{"password alone", daemon.NATSConfig{URL: url, Password: "canary"}, []string{"NATS_USER"}},
		{"no CA file", daemon.NATSConfig{URL: url, CA: junk + "-"}, []string{"NATS_CA"}},
		{"CA of something else", daemon.NATSConfig{URL: url, CA: junk}, []string{"NATS_CA"}},
		{"certificate alone", daemon.NATSConfig{URL: url, Cert: cert}, []string{"NATS_KEY"}},
		{"key alone", daemon.NATSConfig{URL: url, Key: key}, []string{"NATS_CERT"}},
		{"key of something else", daemon.NATSConfig{URL: url, Cert: cert, Key: junk}, []string{"NATS_CERT"}},
		{"inboxes with a wildcard", daemon.NATSConfig{URL: url, InboxPrefix: "_INBOX.*"}, []string{"NATS_INBOX_PREFIX"}},
		{"inboxes without an end", daemon.NATSConfig{URL: url, InboxPrefix: "_INBOX."}, []string{"NATS_INBOX_PREFIX"}},
		{"inboxes where no events go", daemon.NATSConfig{URL: url, InboxPrefix: "_INBOX_worker"}, []string{"NATS_INBOX_PREFIX"}},
		{"all at once", daemon.NATSConfig{User: "u", CA: junk, Key: key}, []string{"NATS_URL", "NATS_USER", "NATS_CA", "NATS_CERT"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			n, err := daemon.ConnectNATS(tc.cfg)
			if err == nil {
				n.Close()
			}
			checkFaults(t, err, tc.want)
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("a secret is in %q", err)
			}
		})
	}
}

func TestNATSClose(t *testing.T) {
	t.Parallel()
	t.Run("waits for handlers", func(t *testing.T) {
		t.Parallel()
		srv := queuetest.Server(t)
		n := connectNATS(t, daemon.NATSConfig{URL: srv.URL()})
		waitNATS(t, n)
		started, release := make(chan struct{}), make(chan struct{})
		handled := 0
		if _, err := n.Conn().Subscribe("s", func(*nats.Msg) {
			if handled == 0 {
				close(started)
				<-release
			}
			handled++
		}); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if err := n.Conn().Publish("s", nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Conn().Flush(); err != nil {
			t.Fatal(err)
		}
		<-started
		close(release)
		n.Close()
		n.Close()
		if handled != 10 {
			t.Errorf("%d messages handled, want all 10", handled)
		}
		if err := n.Ready(); err == nil {
			t.Error("ready after Close")
		}
	})
	t.Run("never connected", func(t *testing.T) {
		t.Parallel()
		srv := queuetest.Server(t)
		srv.Stop()
		n := connectNATS(t, daemon.NATSConfig{URL: srv.URL()})
		n.Close()
		if err := n.Wait(t.Context()); !errors.Is(err, daemon.ErrNATSClosed) {
			t.Errorf("Wait: %v, want %v", err, daemon.ErrNATSClosed)
		}
	})
	t.Run("server gone", func(t *testing.T) {
		t.Parallel()
		srv := queuetest.Server(t)
		n := connectNATS(t, daemon.NATSConfig{URL: srv.URL()})
		waitNATS(t, n)
		srv.Stop()
		n.Close()
	})
}

func TestNATSTask(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	t.Run("told to stop", func(t *testing.T) {
		t.Parallel()
		n := connectNATS(t, daemon.NATSConfig{URL: srv.URL()})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		waitNATS(t, n)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if !n.Conn().IsClosed() {
			t.Error("the connection is open after Run")
		}
	})
	t.Run("closed by somebody", func(t *testing.T) {
		t.Parallel()
		n := connectNATS(t, daemon.NATSConfig{URL: srv.URL()})
		n.Conn().Close()
		if err := n.Run(t.Context()); !errors.Is(err, daemon.ErrNATSClosed) {
			t.Errorf("Run: %v, want %v", err, daemon.ErrNATSClosed)
		}
	})
}

func TestSafeNATSError(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"other", nats.ErrTimeout, "nats: timeout"},
		{
			"publish",
			fmt.Errorf("%w: %s", nats.ErrPermissionViolation, `Permissions Violation for Publish to "wazzup.main.evt.message.in.c.whatsapp.79998887766"`),
			"nats: permissions violation for wazzup.main.evt.…",
		},
		{
			"subscribe",
			fmt.Errorf("%w: %s", nats.ErrPermissionViolation, `Permissions Violation for Subscription to "_INBOX.a" using queue "q"`),
			"nats: permissions violation for _INBOX.a",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := daemon.SafeNATSError(tc.err)
			if got.Error() != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if errors.Is(tc.err, nats.ErrPermissionViolation) && !errors.Is(got, nats.ErrPermissionViolation) {
				t.Error("the sentinel is lost")
			}
		})
	}
}

func TestReconnectDelay(t *testing.T) {
	t.Parallel()
	for round := range 1000 {
		got := daemon.ReconnectDelay(round)
		if got <= 0 || got > 2*time.Second {
			t.Fatalf("round %d: %v, want up to 2 s", round, got)
		}
		if round > 10 && got < time.Second {
			t.Fatalf("round %d: %v, want at least 1 s", round, got)
		}
	}
	if got := daemon.ReconnectDelay(1); got > 50*time.Millisecond {
		t.Errorf("first pause = %v, want at most 50 ms", got)
	}
}
