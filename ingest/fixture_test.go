package ingest_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/wazzup-relay/wazzup-relay/ingest"
	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

func TestMain(m *testing.M) {
	queuetest.MaybeServe()
	goleak.VerifyTestMain(m,
		// nats.go 1.55 starts this goroutine with the first asynchronous publish;
		// where the publisher is closed before it has run, it waits on a nil
		// channel for ever.
		goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"),
	)
}

const (
	account = "main"
	secret  = "current-secret_1"
	former  = "former.secret~2"
)

// fixture is an endpoint before a real NATS server.
type fixture struct {
	t      testing.TB
	node   *queuetest.Node
	nc     *nats.Conn
	js     jetstream.JetStream
	store  *ingest.Streams
	server *ingest.Server
	web    *httptest.Server
	logs   *logBuffer
}

type fixtureConfig struct {
	limits queue.Limits
	nats   []queuetest.Option
	ingest ingest.Config
}

func newFixture(t testing.TB, cfg fixtureConfig) *fixture {
	t.Helper()
	f := &fixture{t: t, node: queuetest.Server(t, cfg.nats...), logs: &logBuffer{}}
	f.nc = queuetest.Conn(t, f.node, ingest.ConnOptions()...)
	var err error
	if f.js, err = jetstream.New(f.nc); err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Ensure(t.Context(), f.js, account, cfg.limits); err != nil {
		t.Fatal(err)
	}
	if f.store, err = ingest.NewStreams(f.nc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.store.Close)
	if cfg.ingest.Accounts == nil {
		cfg.ingest.Accounts = []ingest.Account{{Name: account, Secrets: []string{secret, former}}}
	}
	// A machine that runs other tests at the same time is slow now and then.
	cfg.ingest.StoreTimeout = cmp.Or(cfg.ingest.StoreTimeout, time.Minute)
	cfg.ingest.LookupTimeout = cmp.Or(cfg.ingest.LookupTimeout, time.Minute)
	f.server, err = ingest.New(cfg.ingest, f.store, f.nc, zerolog.New(f.logs), nil)
	if err != nil {
		t.Fatal(err)
	}
	f.web = httptest.NewServer(f.server)
	t.Cleanup(f.web.Close)
	return f
}

// post sends a body to the account's URL and returns the status.
func (f *fixture) post(body string) int {
	f.t.Helper()
	status, _ := f.request(http.MethodPost, "/webhooks/"+account+"/"+secret, strings.NewReader(body))
	return status
}

func (f *fixture) request(method, path string, body io.Reader) (int, http.Header) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.web.URL+path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	resp, err := f.web.Client().Do(req)
	if err != nil {
		f.t.Fatalf("%s: %v", method, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header
}

func (f *fixture) mustPost(body string) {
	f.t.Helper()
	if got := f.post(body); got != http.StatusOK {
		f.t.Fatalf("status: got %d, want 200; log:\n%s", got, f.logs)
	}
}

// events reads everything that is stored under a filter, oldest first. Every event
// is held to the contract.
func (f *fixture) events(filter string) []*jetstream.RawStreamMsg {
	f.t.Helper()
	s, err := f.js.Stream(f.t.Context(), queue.Names{Account: account}.Records())
	if err != nil {
		f.t.Fatal(err)
	}
	info, err := s.Info(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	var out []*jetstream.RawStreamMsg
	for seq := info.State.FirstSeq; seq > 0 && seq <= info.State.LastSeq; seq++ {
		m, err := s.GetMsg(f.t.Context(), seq)
		if err != nil {
			f.t.Fatal(err)
		}
		if matches(filter, m.Subject) {
			if strings.HasPrefix(m.Subject, "wazzup.") {
				if err := schematest.Event(m.Subject, m.Header, m.Data); err != nil {
					f.t.Error(err)
				}
			}
			out = append(out, m)
		}
	}
	return out
}

func (f *fixture) all() []*jetstream.RawStreamMsg {
	return f.events(schema.EventSubjects(account))
}

func matches(filter, subject string) bool {
	if prefix, ok := strings.CutSuffix(filter, ">"); ok {
		return strings.HasPrefix(subject, prefix)
	}
	return filter == subject
}

func subjects(events []*jetstream.RawStreamMsg) []string {
	var out []string
	for _, m := range events {
		out = append(out, m.Subject)
	}
	return out
}

// putIndex notes the command behind a message id, as a worker does.
func (f *fixture) putIndex(x queue.Index) {
	f.t.Helper()
	data, err := json.Marshal(x)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.js.Publish(f.t.Context(), queue.Names{Account: account}.IndexSubject(x.MessageID), data); err != nil {
		f.t.Fatal(err)
	}
}

func golden(t testing.TB, name string) string {
	t.Helper()
	body, err := os.ReadFile("testdata/webhooks/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// logBuffer collects log lines.
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

// serve puts an endpoint before a NATS server that the caller has prepared.
func serve(t testing.TB, nc *nats.Conn, cfg ingest.Config) *fixture {
	t.Helper()
	f := &fixture{t: t, nc: nc, logs: &logBuffer{}}
	var err error
	if f.store, err = ingest.NewStreams(nc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.store.Close)
	cfg.Accounts = []ingest.Account{{Name: account, Secrets: []string{secret}}}
	if f.server, err = ingest.New(cfg, f.store, nc, zerolog.New(f.logs), nil); err != nil {
		t.Fatal(err)
	}
	f.web = httptest.NewServer(f.server)
	t.Cleanup(f.web.Close)
	return f
}

// logTo has the endpoint log to a file, as a program does.
func (f *fixture) logTo(t testing.TB, name string) {
	t.Helper()
	file, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	cfg := ingest.Config{Accounts: []ingest.Account{{Name: account, Secrets: []string{secret}}}}
	if f.server, err = ingest.New(cfg, f.store, f.nc, zerolog.New(file), nil); err != nil {
		t.Fatal(err)
	}
	f.web.Config.Handler = f.server
}

func connected() []nats.Status { return []nats.Status{nats.CONNECTED} }

// newMeteredFixture also returns what reads all counters, named
// "<instrument> <label>=<value> …" in the labels' order.
func newMeteredFixture(t testing.TB) (*fixture, func() map[string]int64) {
	t.Helper()
	f := newFixture(t, fixtureConfig{})
	reader := metric.NewManualReader()
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	server, err := ingest.New(ingest.Config{Accounts: []ingest.Account{{Name: account, Secrets: []string{secret}}}},
		f.store, nil, zerolog.Nop(), provider.Meter("test"))
	if err != nil {
		t.Fatal(err)
	}
	f.server = server
	f.web.Config.Handler = server
	return f, func() map[string]int64 {
		var data metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &data); err != nil {
			t.Fatal(err)
		}
		out := make(map[string]int64)
		for _, scope := range data.ScopeMetrics {
			for _, m := range scope.Metrics {
				sum, ok := m.Data.(metricdata.Sum[int64])
				if !ok {
					continue
				}
				for _, p := range sum.DataPoints {
					name := []string{m.Name}
					for _, kv := range p.Attributes.ToSlice() {
						name = append(name, string(kv.Key)+"="+kv.Value.String())
					}
					out[strings.Join(name, " ")] = p.Value
				}
			}
		}
		return out
	}
}
