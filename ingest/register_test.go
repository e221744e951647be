package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
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

// worker stands for the worker that owns the account: it keeps one URL, and answers
// as that does.
type worker struct {
	mu    sync.Mutex
	url   string
	asked []string // what was asked for
}

func (w *worker) state() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.url
}

func (w *worker) lose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.url = "https://other.example.com/hook"
}

// ownAccount answers webhooks.set for an account over NATS. The first request is
// refused.
func ownAccount(t *testing.T, nc *nats.Conn, w *worker, handled chan<- string) {
	t.Helper()
	service, err := micro.AddService(nc, micro.Config{Name: "wazzup", Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = service.Stop() })
	set := micro.HandlerFunc(func(r micro.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		var q struct{ URL, Guard string }
		if err := json.Unmarshal(r.Data(), &q); err != nil {
			t.Error(err)
		}
		w.asked = append(w.asked, q.Guard)
		if len(w.asked) == 1 {
			_ = r.Error("502", "refused", []byte(`{"error":{"code":"TEST_REQUEST_FAILED"}}`))
			handled <- "refused"
			return
		}
		state := "kept"
		switch {
		case w.url != q.URL && q.Guard == "keep":
			state = "repaired"
		case w.url != q.URL:
			state = "registered"
		}
		w.url = q.URL
		_ = r.RespondJSON(map[string]any{"webhooksUrl": "…", "webhooksUrlChanged": state != "kept", "guard": map[string]string{"state": state}})
		handled <- q.Guard + " " + state
	})
	if err := service.AddEndpoint("set", set, micro.WithEndpointSubject("wazzup.main.api.webhooks.set")); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestRegistersOverNATS(t *testing.T) {
	t.Parallel()
	node := queuetest.Server(t)
	nc := queuetest.Conn(t, node)
	w := &worker{url: "https://other.example.com/hook"}
	handled := make(chan string, 16)
	ownAccount(t, nc, w, handled)

	logs := &logBuffer{}
	accounts := []ingest.Account{{Name: account, Secrets: []string{secret, former}, PublicURL: publicURL}}
	server, err := ingest.New(ingest.Config{Accounts: accounts}, nil, nc, zerolog.New(logs), nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := runServer(t, server)
	expect(t, handled, "refused", "register registered")
	want := publicURL + "/webhooks/main/" + secret
	if w.state() != want {
		t.Error("registered is not the URL with the current secret")
	}
	stop()

	// A restart finds it registered; from then on it is looked after.
	server, err = ingest.New(ingest.Config{Accounts: accounts, Poll: 20 * time.Millisecond}, nil, nc, zerolog.New(logs), nil)
	if err != nil {
		t.Fatal(err)
	}
	stop = runServer(t, server)
	expect(t, handled, "register kept", "keep kept", "keep kept")
	w.lose()
	skip(t, handled, "keep kept", "keep repaired")
	expect(t, handled, "keep kept") // by now the ingest knows of the repair
	if w.state() != want {
		t.Error("it was not repaired")
	}

	// A reload with another secret registers the other URL.
	accounts = []ingest.Account{{Name: account, Secrets: []string{"third", secret}, PublicURL: publicURL}}
	if err := server.SetAccounts(accounts); err != nil {
		t.Fatal(err)
	}
	skip(t, handled, "keep kept", "register registered")
	skip(t, handled, "", "keep kept")
	stop()
	if w.state() != publicURL+"/webhooks/main/third" {
		t.Error("the reload did not register the other URL")
	}
	for _, hidden := range []string{secret, former, "third", publicURL} {
		if strings.Contains(logs.String(), hidden) {
			t.Errorf("the log holds %q:\n%s", hidden, logs)
		}
	}
	for _, said := range []string{`"reason":"refused with 502 TEST_REQUEST_FAILED"`, "webhook_url_repaired"} {
		if strings.Count(logs.String(), said) != 1 {
			t.Errorf("the log does not say once %s:\n%s", said, logs)
		}
	}
}

// skip takes what comes while it is the first, until the second.
func skip(t *testing.T, ch <-chan string, while, until string) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case got := <-ch:
			switch got {
			case until:
				return
			case while:
			default:
				t.Fatalf("got %q, want %q", got, until)
			}
		case <-timeout:
			t.Fatalf("no %q came", until)
		}
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
		case <-time.After(time.Minute):
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
		api := askFunc(func(context.Context, string, []byte) (*nats.Msg, error) {
			times = append(times, time.Now())
			switch {
			case len(times) <= 40:
				return nil, nats.ErrNoResponders
			case len(times) <= 42:
				return nil, context.DeadlineExceeded
			case len(times) <= 44:
				return &nats.Msg{Data: []byte("?")}, nil
			}
			return answered("registered"), nil
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
		if got := len(times); got != 45 {
			t.Errorf("got %d requests, want 45", got)
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

// answered is a worker's answer.
func answered(state string) *nats.Msg {
	return &nats.Msg{Data: fmt.Appendf(nil, `{"webhooksUrl":"…","webhooksUrlChanged":%t,"guard":{"state":%q,"opensOn":"later"}}`,
		state == "registered" || state == "repaired", state)}
}

// A registered URL is looked after once every Poll, give or take a tenth, whatever
// the answer; one that fails is asked for again sooner. Each change in what became of
// it is logged, and nothing else. Without Poll nothing follows the registration.
func TestGuardPolls(t *testing.T) {
	t.Parallel()
	for _, poll := range []time.Duration{5 * time.Minute, 0} {
		t.Run(poll.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				script := []string{
					"registered", "kept", "kept", "repaired", "kept", "stopped", "stopped", "", "", "stopped", "kept", "suspended", "suspended", "superseded", "kept",
				}
				var times []time.Time
				var requests []string
				api := askFunc(func(_ context.Context, _ string, data []byte) (*nats.Msg, error) {
					var q struct{ Guard string }
					if err := json.Unmarshal(data, &q); err != nil {
						t.Error(err)
					}
					state := "kept"
					if len(times) < len(script) {
						state = script[len(times)]
					}
					times, requests = append(times, time.Now()), append(requests, q.Guard)
					if state == "" {
						return nil, nats.ErrNoResponders
					}
					return answered(state), nil
				})
				logs := &logBuffer{}
				server, err := ingest.New(ingest.Config{Poll: poll, Accounts: []ingest.Account{{Name: account, Secrets: []string{secret}, PublicURL: publicURL}}},
					nil, api, zerolog.New(logs), nil)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
				defer cancel()
				if err := server.Run(ctx, idleListener{ctx.Done()}); err != nil {
					t.Error(err)
				}
				if poll == 0 {
					if len(times) != 1 {
						t.Errorf("%d requests, want one", len(times))
					}
					return
				}
				if got := len(times); got < 22 || got > 30 {
					t.Errorf("%d requests in two hours", got)
				}
				for i := 1; i < len(times); i++ {
					gap, failed := times[i].Sub(times[i-1]), i <= len(script) && script[i-1] == ""
					if !failed && (gap < poll*9/10 || gap > poll*11/10) || failed && gap > 2*time.Second {
						t.Errorf("request %d came %v after the one before", i, gap)
					}
				}
				if requests[0] != "register" || strings.Count(strings.Join(requests, " "), "keep") != len(requests)-1 {
					t.Errorf("asked for %q", requests)
				}
				var lines []string
				for line := range strings.Lines(logs.String()) {
					var l struct{ Message, State, Reason string }
					if err := json.Unmarshal([]byte(line), &l); err != nil {
						t.Fatal(err)
					}
					lines = append(lines, strings.TrimSpace(l.Message+" "+l.State+l.Reason))
				}
				want := []string{
					"webhook_url_registered", "webhook_url_repaired", "webhook_url_registered",
					"webhook_url_not_guarded stopped", "webhook_url_not_registered_yet no worker serves this account yet",
					"webhook_url_not_guarded stopped", "webhook_url_registered", "webhook_url_not_guarded suspended",
					"webhook_url_not_guarded superseded", "webhook_url_registered",
				}
				if !slices.Equal(lines, want) {
					t.Errorf("log: got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
				}
			})
		})
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
