package main_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	main "github.com/wazzup-relay/wazzup-relay/cmd/wazzupctl"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// bulkWorker runs a worker of account main until the test ends.
func bulkWorker(t *testing.T, nc *nats.Conn, sim *simulator.Server, limits queue.Limits) {
	t.Helper()
	w, err := sender.New(sender.Options{
		NATS: nc, Log: zerolog.Nop(), Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{},
		Accounts: []sender.Config{{
			Account: "main", APIKey: "key", APIURL: sim.URL(), Worker: "worker-1", Limits: limits,
			Backoff: sender.Backoff{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the worker ended with %v", err)
		}
	})
}

func contactRows(n, size int) string {
	var b strings.Builder
	note := strings.Repeat("x", size)
	for i := range n {
		fmt.Fprintf(&b, "{\"id\":\"contact-%05d\",\"note\":%q}\n", i, note)
	}
	return b.String()
}

// TestBulkThroughAFullStream: where the stream has no room, the rows wait for it;
// a hundredth of them fit at a time.
func TestBulkThroughAFullStream(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	sim := relaytest.Vendor(t, simulator.Config{})
	nc := queuetest.Conn(t, srv)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	limits := queue.Limits{CommandBytes: 64 << 10, RecordBytes: 64 << 20, DeferredBytes: 1 << 20, DeadBytes: 1 << 20}
	if _, err := queue.Ensure(t.Context(), js, "main", limits); err != nil {
		t.Fatal(err)
	}
	// The worker starts when the stream is full.
	const n = 3000
	in, write := io.Pipe()
	go func() {
		_, err := io.WriteString(write, contactRows(n, 1000))
		_ = write.CloseWithError(err)
	}()
	var stdout, stderr bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- main.Run(t.Context(), []string{"contacts", "upsert", "-", "--batch", "20"}, relaytest.Env(map[string]string{"NATS_URL": srv.URL()}), in, &stdout, &stderr)
	}()
	full(t, js)
	bulkWorker(t, queuetest.Conn(t, srv), sim, limits)
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
	}
	if got := stdout.String(); !strings.Contains(got, "3000 read, 3000 stored, 3000 done, 0 refused") {
		t.Errorf("it printed %s", got)
	}
	if got := len(sim.Contacts()); got != n {
		t.Errorf("the vendor has %d contacts, want %d", got, n)
	}
}

// full waits until no more than one small command fits.
func full(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	s, err := js.Stream(t.Context(), queue.Names{Account: "main"}.Commands())
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Bytes > 64<<10-21<<10 {
			return
		}
	}
}
