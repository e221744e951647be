//go:build system

package main_test

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	main "github.com/wazzup-relay/wazzup-relay/cmd/wazzupctl"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

// TestBulkOutlivesTheServer: NATS is killed in the middle; every row is still
// stored once, carried out, and told of.
func TestBulkOutlivesTheServer(t *testing.T) {
	t.Parallel()
	srv := queuetest.Process(t)
	sim := relaytest.Vendor(t, simulator.Config{})
	limits := queue.Limits{CommandBytes: 64 << 20, RecordBytes: 64 << 20, DeferredBytes: 1 << 20, DeadBytes: 1 << 20}
	nc := queuetest.Conn(t, srv)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Ensure(t.Context(), js, "main", limits); err != nil {
		t.Fatal(err)
	}
	bulkWorker(t, nc, sim, limits)
	const half = 500
	in, write := io.Pipe()
	var stdout, stderr bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- main.Run(t.Context(), []string{"contacts", "upsert", "-", "--batch", "10", "--json"}, relaytest.Env(map[string]string{"NATS_URL": srv.URL()}), in, &stdout, &stderr)
	}()
	rows := strings.SplitAfter(contactRows(2*half, 10), "\n")
	feed := func(part []string) {
		if _, err := io.WriteString(write, strings.Join(part, "")); err != nil {
			t.Error(err)
		}
	}
	feed(rows[:half])
	if err := sim.Wait(t.Context(), func(*simulator.View) bool { return len(sim.Contacts()) > half/2 }); err != nil {
		t.Fatal(err)
	}
	srv.Kill()
	go func() {
		feed(rows[half:]) // while nobody takes them
		_ = write.Close()
	}()
	srv.Start()
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
	}
	var sums struct{ Items, Stored, Done, Refused int }
	if err := json.Unmarshal(stdout.Bytes(), &sums); err != nil || sums.Items != 2*half || sums.Stored != 2*half || sums.Done != 2*half {
		t.Errorf("it printed %s", &stdout)
	}
	if got := len(sim.Contacts()); got != 2*half {
		t.Errorf("the vendor has %d contacts, want %d", got, 2*half)
	}
}
