package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/ingest"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

const publicURL = "https://hooks.example.com/in"

// vendor is what a worker would reach: it keeps one URL and calls it when it is set.
type vendor struct {
	mu  sync.Mutex
	url string
	set []string
}

func (v *vendor) state() (string, []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.url, v.set
}

// ownAccount answers webhooks.get and webhooks.set for an account over NATS, as
// the worker that owns it does.
func ownAccount(t *testing.T, nc *nats.Conn, v *vendor, handled chan<- string) {
	t.Helper()
	service, err := micro.AddService(nc, micro.Config{Name: "wazzup", Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = service.Stop() })
	answer := func(r micro.Request, changed bool) {
		var masked *string
		if v.url != "" {
			m := ingest.MaskURL(v.url)
			masked = &m
		}
		_ = r.RespondJSON(map[string]any{"webhooksUrl": masked, "webhooksUrlChanged": changed})
	}
	endpoints := map[string]micro.HandlerFunc{
		"wazzup.main.api.webhooks.get": func(r micro.Request) {
			v.mu.Lock()
			defer v.mu.Unlock()
			answer(r, false)
			handled <- "get"
		},
		"wazzup.main.api.webhooks.set": func(r micro.Request) {
			v.mu.Lock()
			defer v.mu.Unlock()
			var q struct {
				URL string `json:"url"`
			}
			if err := json.Unmarshal(r.Data(), &q); err != nil {
				t.Error(err)
			}
			v.set = append(v.set, q.URL)
			if len(v.set) == 1 {
				_ = r.Error("502", "refused", []byte(`{"error":{"code":"TEST_REQUEST_FAILED"}}`))
				handled <- "refused"
				return
			}
			changed := v.url != q.URL
			v.url = q.URL
			answer(r, changed)
			handled <- "set"
		},
	}
	for subject, h := range endpoints {
		if err := service.AddEndpoint(strings.ReplaceAll(subject, ".", "-"), h, micro.WithEndpointSubject(subject)); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestRegistersOverNATS(t *testing.T) {
	t.Parallel()
	node := queuetest.Server(t)
	nc := queuetest.Conn(t, node)
	v := &vendor{url: "https://other.example.com/hook"}
	handled := make(chan string, 16)
	ownAccount(t, nc, v, handled)

	logs := &logBuffer{}
	accounts := []ingest.Account{{Name: account, Secrets: []string{secret, former}, PublicURL: publicURL}}
	server, err := ingest.New(ingest.Config{Accounts: accounts}, nil, nc, zerolog.New(logs), nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := runServer(t, server)
	expect(t, handled, "get", "refused", "get", "set")
	want := publicURL + "/webhooks/main/" + secret
	if url, _ := v.state(); url != want {
		t.Errorf("registered: got %q, want the URL with the current secret", url)
	}
	stop()

	// A restart finds it registered and leaves it alone.
	server, err = ingest.New(ingest.Config{Accounts: accounts}, nil, nc, zerolog.New(logs), nil)
	if err != nil {
		t.Fatal(err)
	}
	stop = runServer(t, server)
	expect(t, handled, "get")

	// A reload with another secret registers the other URL.
	accounts = []ingest.Account{{Name: account, Secrets: []string{"third", secret}, PublicURL: publicURL}}
	if err := server.SetAccounts(accounts); err != nil {
		t.Fatal(err)
	}
	expect(t, handled, "get", "set")
	stop()
	if url, sets := v.state(); url != publicURL+"/webhooks/main/third" || len(sets) != 3 {
		t.Errorf("after the reload: %d requests", len(sets))
	}
	for _, hidden := range []string{secret, former, "third", publicURL} {
		if strings.Contains(logs.String(), hidden) {
			t.Errorf("the log holds %q:\n%s", hidden, logs)
		}
	}
	if !strings.Contains(logs.String(), `"reason":"refused with 502 TEST_REQUEST_FAILED"`) {
		t.Errorf("the log does not say why it waits:\n%s", logs)
	}
}

func expect(t *testing.T, ch <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-ch:
			if got != w {
				t.Fatalf("got %q, want %q", got, w)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("no %q came", w)
		}
	}
}

// runServer serves until the returned function is called, which waits for the end.
func runServer(t *testing.T, server *ingest.Server) (stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed by Run
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// askFunc is a Requester whose answers a test scripts.
type askFunc func(ctx context.Context, subject string, data []byte) (*nats.Msg, error)

func (f askFunc) RequestWithContext(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	return f(ctx, subject, data)
}

// Registration waits for a worker for as long as it takes, with pauses that grow
// to a minute and no further, and says each reason once.
func TestRegistrationWaitsForWorkers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var times []time.Time
		logs := &logBuffer{}
		api := askFunc(func(_ context.Context, subject string, _ []byte) (*nats.Msg, error) {
			times = append(times, time.Now())
			switch {
			case len(times) <= 40:
				return nil, nats.ErrNoResponders
			case len(times) <= 42:
				return nil, context.DeadlineExceeded
			case len(times) <= 44:
				return &nats.Msg{Data: []byte("?")}, nil
			case strings.HasSuffix(subject, ".get"):
				return &nats.Msg{Data: []byte(`{"webhooksUrl":null}`)}, nil
			}
			return &nats.Msg{Data: []byte(`{"webhooksUrl":"…","webhooksUrlChanged":true}`)}, nil
		})
		server, err := ingest.New(ingest.Config{Accounts: []ingest.Account{{Name: account, Secrets: []string{secret}, PublicURL: publicURL}}},
			nil, api, zerolog.New(logs), nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- server.Run(ctx, idleListener{ctx.Done()}) }()
		for !strings.Contains(logs.String(), "webhook_url_registered") {
			time.Sleep(time.Second) // in the bubble: only its clock moves
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := len(times); got != 46 {
			t.Errorf("got %d requests, want 46", got)
		}
		for i := 1; i < 45; i++ {
			if pause := times[i].Sub(times[i-1]); pause < 500*time.Millisecond || pause > time.Minute {
				t.Errorf("pause %d: %v", i, pause)
			}
		}
		if pause := times[40].Sub(times[39]); pause < 30*time.Second {
			t.Errorf("pauses do not grow: %v", pause)
		}
		for _, reason := range []string{"no worker serves this account yet", "no answer in time", "unexpected answer"} {
			if got := strings.Count(logs.String(), reason); got != 1 {
				t.Errorf("%q is logged %d times, want once", reason, got)
			}
		}
	})
}

// idleListener accepts nobody.
type idleListener struct{ done <-chan struct{} }

func (l idleListener) Accept() (net.Conn, error) {
	<-l.done
	return nil, net.ErrClosed
}
func (idleListener) Close() error   { return nil }
func (idleListener) Addr() net.Addr { return &net.TCPAddr{} }

// Stopping must not wait for a registration that waits for a worker.
func TestStopDuringRegistration(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	api := askFunc(func(ctx context.Context, _ string, _ []byte) (*nats.Msg, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	server, err := ingest.New(ingest.Config{Accounts: []ingest.Account{{Name: account, Secrets: []string{secret}, PublicURL: publicURL}}},
		nil, api, zerolog.Nop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := runServer(t, server)
	<-asked
	stop()
}

func TestMaskURL(t *testing.T) {
	t.Parallel()
	got := ingest.MaskURL("https://a.example/webhooks/main/abc")
	if want := "https://a.example/webhooks/main/***ba7816bf"; got != want { // SHA-256 of abc: ba7816bf…
		t.Errorf("got %q, want %q", got, want)
	}
	if ingest.MaskURL("https://a.example/webhooks/main/abd") == got {
		t.Error("another secret looks the same")
	}
}

func TestPublicURLNeedsSomebodyToAsk(t *testing.T) {
	t.Parallel()
	_, err := ingest.New(ingest.Config{Accounts: []ingest.Account{{Name: account, Secrets: []string{secret}, PublicURL: publicURL}}},
		nil, nil, zerolog.Nop(), nil)
	if err == nil {
		t.Error("want an error")
	}
}

func TestRunEndsWithItsListener(t *testing.T) {
	t.Parallel()
	server, err := ingest.New(ingest.Config{Accounts: []ingest.Account{{Name: account, Secrets: []string{secret}}}}, nil, nil, zerolog.Nop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	close(closed)
	if err := server.Run(t.Context(), idleListener{closed}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want the listener's error", err)
	}
}

// heldStore tells when the first publish begins, and lets it go on when it may.
type heldStore struct {
	ingest.Store
	entered, release chan struct{}
}

func (s heldStore) Publish(ctx context.Context, events []queue.Event) (int, error) {
	close(s.entered)
	<-s.release
	return s.Store.Publish(ctx, events)
}

// A request under way is answered when the server is told to stop, and new ones
// are not taken.
func TestStopAnswersWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{})
	store := heldStore{f.store, make(chan struct{}), make(chan struct{})}
	server, err := ingest.New(ingest.Config{Accounts: []ingest.Account{{Name: account, Secrets: []string{secret}}}},
		store, nil, zerolog.Nop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed by Run
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, l) }()

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://"+l.Addr().String()+"/webhooks/main/"+secret, strings.NewReader(textMessage(1, "x")))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var status int
	var posting sync.WaitGroup
	posting.Go(func() {
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		_ = resp.Body.Close()
		status = resp.StatusCode
	})
	<-store.entered
	cancel()
	refused := false
	for !refused { // the listener closes soon after the stop
		conn, err := net.Dial("tcp", l.Addr().String()) //nolint:noctx // to this process
		if refused = err != nil; !refused {
			_ = conn.Close()
		}
	}
	close(store.release)
	posting.Wait()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
	if status != http.StatusOK || len(f.all()) != 1 {
		t.Errorf("got %d and %d events, want 200 and 1", status, len(f.all()))
	}
}

func TestReloadSwapsAccounts(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{})
	f.mustPost("")
	if err := f.server.SetAccounts(nil); err == nil {
		t.Error("a set without accounts: want an error")
	}
	f.mustPost("") // the present set stays
	if err := f.server.SetAccounts([]ingest.Account{{Name: "other", Secrets: []string{"s"}}}); err != nil {
		t.Fatal(err)
	}
	if got := f.post(""); got != http.StatusNotFound {
		t.Errorf("removed account: got %d, want 404", got)
	}
	if got, _ := f.request(http.MethodPost, "/webhooks/other/s", nil); got != http.StatusOK {
		t.Errorf("new account: got %d, want 200", got)
	}
}
