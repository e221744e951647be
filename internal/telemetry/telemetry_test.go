package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/telemetry"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

// The tests that need OpenTelemetry's variables set them with t.Setenv; what
// the machine sets is none of their business.
func TestMain(m *testing.M) {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "OTEL_") {
			if err := os.Unsetenv(name); err != nil {
				panic(err)
			}
		}
	}
	goleak.VerifyTestMain(m)
}

func setup(t *testing.T, log io.Writer) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{Service: "worker", Version: "1.2.3", Log: zerolog.New(log)})
	if err != nil {
		t.Fatalf("Setup: %v", err)
	}
	t.Cleanup(func() {
		if err := tel.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return tel
}

func scrape(t *testing.T, tel *telemetry.Telemetry) string {
	t.Helper()
	answer := httptest.NewRecorder()
	tel.Handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if answer.Code != http.StatusOK {
		t.Fatalf("/metrics = %d: %s", answer.Code, answer.Body)
	}
	return answer.Body.String()
}

// collector is a place to which spans are sent.
type collector struct {
	*httptest.Server

	mu       sync.Mutex
	requests []request
}

type request struct {
	path, contentType, token string
	body                     []byte
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("collector: %v", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.requests = append(c.requests, request{r.URL.Path, r.Header.Get("Content-Type"), r.Header.Get("X-Token"), body})
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) received() []request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// export is the part of an OTLP/JSON request that the tests look at.
type export struct {
	ResourceSpans []struct {
		Resource   struct{ Attributes []attr }
		ScopeSpans []struct {
			Spans []struct {
				TraceID, ParentSpanID, Name string // ids in hex of either case
			}
		}
	}
}

type attr struct {
	Key   string
	Value struct{ StringValue string }
}

func TestSpanContinuesAMessagesTrace(t *testing.T) {
	col := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", col.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=secret")
	t.Setenv("OTEL_SERVICE_NAME", "my-relay")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
	tel := setup(t, io.Discard)

	conn := queuetest.Conn(t, queuetest.Server(t))
	sub, err := conn.SubscribeSync("commands")
	if err != nil {
		t.Fatal(err)
	}
	const traceID, spanID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	msg := nats.NewMsg("commands")
	msg.Header.Set("traceparent", "00-"+traceID+"-"+spanID+"-01")
	if err := conn.PublishMsg(msg); err != nil {
		t.Fatal(err)
	}
	msg, err = sub.NextMsgWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	ctx := tel.Propagator.Extract(t.Context(), telemetry.HeaderCarrier(msg.Header))
	ctx, span := tel.Tracer.Start(ctx, "send")
	out := nats.Header{}
	tel.Propagator.Inject(ctx, telemetry.HeaderCarrier(out))
	span.End()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatalf("Shutdown: %v", err)
	}

	if got, want := out.Get("traceparent"), "00-"+traceID+"-"+span.SpanContext().SpanID().String()+"-01"; got != want {
		t.Errorf("traceparent of what follows = %s, want %s", got, want)
	}
	requests := col.received()
	if len(requests) != 1 {
		t.Fatalf("%d requests, want 1", len(requests))
	}
	if got := requests[0]; got.path != "/v1/traces" || got.token != "secret" {
		t.Errorf("request = %s with token %q, want /v1/traces with the token", got.path, got.token)
	}
	var sent export
	if err := json.Unmarshal(requests[0].body, &sent); err != nil {
		t.Fatal(err)
	}
	got := sent.ResourceSpans[0].ScopeSpans[0].Spans[0]
	if got.Name != "send" || !strings.EqualFold(got.TraceID, traceID) || !strings.EqualFold(got.ParentSpanID, spanID) {
		t.Errorf("span = %+v, want send in %s below %s", got, traceID, spanID)
	}
	attrs := map[string]string{}
	for _, a := range sent.ResourceSpans[0].Resource.Attributes {
		attrs[a.Key] = a.Value.StringValue
	}
	for key, want := range map[string]string{"service.name": "my-relay", "service.version": "1.2.3", "deployment.environment": "test"} {
		if attrs[key] != want {
			t.Errorf("resource %s = %q, want %q", key, attrs[key], want)
		}
	}
}

func TestWhetherSpansAreExported(t *testing.T) {
	for _, tc := range []struct {
		name      string
		variables map[string]string // "URL" stands for the collector's
		requests  int
		path      string
	}{
		{"nothing set", nil, 0, ""},
		{"endpoint", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "URL"}, 1, "/v1/traces"},
		{"endpoint of traces", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "URL/own"}, 1, "/own"},
		{"exporter none", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "URL", "OTEL_TRACES_EXPORTER": "none"}, 0, ""},
		{"exporter otlp", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "URL", "OTEL_TRACES_EXPORTER": "otlp"}, 1, "/v1/traces"},
		{"disabled", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "URL", "OTEL_SDK_DISABLED": "TRUE"}, 0, ""},
		{"not quite disabled", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "URL", "OTEL_SDK_DISABLED": "yes"}, 1, "/v1/traces"},
		{"sampled away", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "URL", "OTEL_TRACES_SAMPLER": "always_off"}, 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			col := newCollector(t)
			for name, value := range tc.variables {
				t.Setenv(name, strings.ReplaceAll(value, "URL", col.URL))
			}
			tel := setup(t, io.Discard)
			_, span := tel.Tracer.Start(t.Context(), "send")
			span.End()
			if err := tel.Shutdown(t.Context()); err != nil {
				t.Fatalf("Shutdown: %v", err)
			}
			got := col.received()
			if len(got) != tc.requests {
				t.Fatalf("%d requests, want %d", len(got), tc.requests)
			}
			if tc.requests > 0 && (got[0].path != tc.path || got[0].contentType != "application/x-protobuf" || len(got[0].body) == 0) {
				t.Errorf("request = %s of %s, %d bytes; want %s of protobuf", got[0].path, got[0].contentType, len(got[0].body), tc.path)
			}
		})
	}
}

func TestNoExporterCostsNothing(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "none") // also keeps it apart from parallel tests, whose allocations would count
	tel := setup(t, io.Discard)
	header := nats.Header{"traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	ctx := tel.Propagator.Extract(t.Context(), telemetry.HeaderCarrier(header))
	allocs := testing.AllocsPerRun(100, func() {
		_, span := tel.Tracer.Start(ctx, "send")
		span.End()
	})
	if allocs != 0 {
		t.Errorf("a span costs %v allocations", allocs)
	}
	ctx, span := tel.Tracer.Start(ctx, "send")
	if span.IsRecording() {
		t.Error("a span records, and nobody exports it")
	}
	out := nats.Header{}
	tel.Propagator.Inject(ctx, telemetry.HeaderCarrier(out))
	if got, want := out.Get("traceparent"), header.Get("traceparent"); got != want {
		t.Errorf("traceparent = %s, want the producer's %s", got, want)
	}
}

func TestConfigurationFault(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "zipkin")
	_, err := telemetry.Setup(t.Context(), telemetry.Config{})
	if fault, ok := errors.AsType[*daemon.ConfigFault](err); !ok || fault.Variable != "OTEL_TRACES_EXPORTER" {
		t.Errorf("error = %v, want a fault of OTEL_TRACES_EXPORTER", err)
	}
}

func TestCollectorRefuses(t *testing.T) {
	col := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden) // a fault that is not tried again
	}))
	t.Cleanup(col.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", col.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
	var log bytes.Buffer
	tel := setup(t, &log)
	for range 5 {
		_, span := tel.Tracer.Start(t.Context(), "send")
		span.End()
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Logf("Shutdown: %v", err) // it may or may not tell
	}
	if got := strings.Count(log.String(), "operation fails"); got != 1 {
		t.Errorf("the failure is logged %d times, want once:\n%s", got, &log)
	}
	if !strings.Contains(log.String(), "OTEL_EXPORTER_OTLP_PROTOCOL") {
		t.Errorf("nothing says that gRPC is not built in:\n%s", &log)
	}
}

func TestBadResourceAttributesAreReported(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "no-equals-sign")
	var log bytes.Buffer
	tel := setup(t, &log)
	if !strings.Contains(log.String(), "operation fails") {
		t.Errorf("the log says nothing of it: %s", &log)
	}
	if body := scrape(t, tel); !strings.Contains(body, `service_name="worker"`) {
		t.Error("the rest of the resource is gone")
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	tel := setup(t, io.Discard)
	gauge, err := tel.Meter.Int64Gauge("wazzup.lanes")
	if err != nil {
		t.Fatal(err)
	}
	gauge.Record(t.Context(), 3)
	body := scrape(t, tel)
	for _, want := range []string{
		"wazzup_lanes 3\n",
		"go_goroutines ",
		"process_start_time_seconds ",
		`target_info{service_name="worker",service_version="1.2.3",`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %q", want)
		}
	}
	if strings.Contains(body, "otel_scope") {
		t.Error("/metrics repeats the scope on every series")
	}
}

func TestDisabledSDKKeepsTheHandler(t *testing.T) {
	t.Setenv("OTEL_SDK_DISABLED", "true")
	tel := setup(t, io.Discard)
	counter, err := telemetry.NewCounter(tel.Meter, telemetry.CounterConfig{Name: "wazzup.x"})
	if err != nil {
		t.Fatal(err)
	}
	counter.With().Add(t.Context(), 1)
	if body := scrape(t, tel); strings.Contains(body, "wazzup_x") || !strings.Contains(body, "go_goroutines") {
		t.Error("/metrics must have the runtime's metrics and none of ours")
	}
}

func TestTwoAtOnceDoNotShareMetrics(t *testing.T) {
	t.Parallel()
	first, second := setup(t, io.Discard), setup(t, io.Discard)
	if _, err := telemetry.NewCounter(first.Meter, telemetry.CounterConfig{Name: "wazzup.only.first"}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(scrape(t, first), "wazzup_only_first_total 0") {
		t.Error("the first has lost its counter")
	}
	if strings.Contains(scrape(t, second), "wazzup_only_first") {
		t.Error("the second has the first one's counter")
	}
}

type state string

func TestCounter(t *testing.T) {
	t.Parallel()
	tel := setup(t, io.Discard)
	declare := func(account string) *telemetry.Counter {
		t.Helper()
		counter, err := telemetry.NewCounter(tel.Meter, telemetry.CounterConfig{
			Name: "wazzup.commands.ended", Description: "Commands that have ended.", Unit: "{command}",
			Labels: []telemetry.Label{
				telemetry.NewLabel("account", account),
				telemetry.NewLabel[state]("state", "sent", "dead"),
				telemetry.NewLabel("class", "send", "bulk"),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return counter
	}
	check := func(want ...string) {
		t.Helper()
		var got []string
		for line := range strings.Lines(scrape(t, tel)) {
			if rest, ok := strings.CutPrefix(line, "wazzup_commands_ended_total"); ok {
				got = append(got, strings.TrimSpace(rest))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("series = %q, want %q", got, want)
		}
	}

	main := declare("main")
	check(
		`{account="main",class="bulk",state="dead"} 0`, `{account="main",class="bulk",state="sent"} 0`,
		`{account="main",class="send",state="dead"} 0`, `{account="main",class="send",state="sent"} 0`,
	)

	main.With("main", "sent", "send").Add(t.Context(), 2)
	main.With("main", "sent", "send").Add(t.Context(), 1)
	main.With("main", "odd", "send").Add(t.Context(), 1)
	main.With("main").Add(t.Context(), 1)
	declare("other").With("other", "dead", "bulk").Add(t.Context(), 5)
	telemetry.Series{}.Add(t.Context(), 1) // harmless
	check(
		`{account="main",class="bulk",state="dead"} 0`, `{account="main",class="bulk",state="sent"} 0`,
		`{account="main",class="send",state="dead"} 0`, `{account="main",class="send",state="sent"} 3`,
		`{account="main",class="send",state="_OTHER"} 1`, `{account="main",class="_OTHER",state="_OTHER"} 1`,
		`{account="other",class="bulk",state="dead"} 5`, `{account="other",class="bulk",state="sent"} 0`,
		`{account="other",class="send",state="dead"} 0`, `{account="other",class="send",state="sent"} 0`,
	)
}

func TestHeaderCarrier(t *testing.T) {
	t.Parallel()
	header := nats.Header{"Traceparent": {"a", "b"}, "empty": {}}
	c := telemetry.HeaderCarrier(header)
	for name, want := range map[string]string{"traceparent": "a", "Traceparent": "a", "empty": "", "none": ""} {
		if got := c.Get(name); got != want {
			t.Errorf("Get(%s) = %q, want %q", name, got, want)
		}
	}
	c.Set("traceparent", "c")
	if got, want := c.Keys(), []string{"empty", "traceparent"}; !slices.Equal(got, want) {
		t.Errorf("keys = %q, want %q", got, want)
	}
	if got := header.Get("traceparent"); got != "c" {
		t.Errorf("header = %q, want c", got)
	}
	if got := telemetry.HeaderCarrier(nil).Get("traceparent"); got != "" {
		t.Errorf("Get of no headers = %q", got)
	}
}

func FuzzPropagation(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=1")
	f.Add("00-0-0-0", ",,=")
	tel, err := telemetry.Setup(f.Context(), telemetry.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, traceparent, tracestate string) {
		in := telemetry.HeaderCarrier{"traceparent": {traceparent}, "tracestate": {tracestate}}
		ctx := tel.Propagator.Extract(t.Context(), in)
		out := telemetry.HeaderCarrier{}
		tel.Propagator.Inject(ctx, out)
		again := tel.Propagator.Extract(t.Context(), out)
		if got, want := trace.SpanContextFromContext(again), trace.SpanContextFromContext(ctx); !got.Equal(want) {
			t.Errorf("context after a round trip = %v, want %v", got, want)
		}
	})
}

func BenchmarkSeriesAdd(b *testing.B) {
	tel, err := telemetry.Setup(b.Context(), telemetry.Config{})
	if err != nil {
		b.Fatal(err)
	}
	counter, err := telemetry.NewCounter(tel.Meter, telemetry.CounterConfig{
		Name: "wazzup.bench", Labels: []telemetry.Label{telemetry.NewLabel("state", "sent")},
	})
	if err != nil {
		b.Fatal(err)
	}
	series := counter.With("sent")
	b.ReportAllocs()
	for b.Loop() {
		series.Add(b.Context(), 1)
	}
}
