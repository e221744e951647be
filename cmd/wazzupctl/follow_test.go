package main_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	main "github.com/wazzup-relay/wazzup-relay/cmd/wazzupctl"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// eventStore is an account's streams without a worker.
func eventStore(t *testing.T) (*queuetest.Node, jetstream.JetStream) {
	t.Helper()
	srv := queuetest.Server(t)
	js, err := jetstream.New(queuetest.Conn(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Ensure(t.Context(), js, "main", queue.Limits{}); err != nil {
		t.Fatal(err)
	}
	return srv, js
}

func storeEvent(t *testing.T, js jetstream.JetStream, subject string, n int) {
	t.Helper()
	// A server that was just started may not have its streams back yet.
	if err := queue.Ask(t.Context(), func(ctx context.Context) error {
		_, err := js.Publish(ctx, subject, fmt.Appendf(nil, `{"id":"%d"}`, n))
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestWatchReadsAll: more events than one request brings come in their order, once
// each, and nothing else that the stream holds.
func TestWatchReadsAll(t *testing.T) {
	t.Parallel()
	srv, js := eventStore(t)
	const events = 1201
	for n := range events {
		storeEvent(t, js, schema.StatusEventSubject("main", "read"), n)
		storeEvent(t, js, queue.Names{Account: "main"}.IndexSubject(strconv.Itoa(n)), n)
		storeEvent(t, js, schema.ChannelsEventSubject("main"), n)
	}
	env := map[string]string{"NATS_URL": srv.URL()}
	for _, tt := range []struct {
		kinds []string
		want  func(n int) uint64 // the sequence of the nth line
		lines int
	}{
		{[]string{"--kind", "status"}, func(n int) uint64 { return uint64(3*n + 1) }, events},
		{[]string{"--kind", "channels"}, func(n int) uint64 { return uint64(3*n + 3) }, events},
		{nil, func(n int) uint64 { return uint64(3*(n/2) + 1 + 2*(n%2)) }, 2 * events},
	} {
		args := append([]string{"watch", "--since", "1h", "--json", "--count", strconv.Itoa(tt.lines)}, tt.kinds...)
		got := lines(ctl(t, env, "", args...).want(t, 0).stdout)
		if len(got) != tt.lines {
			t.Fatalf("%q: %d lines, want %d", tt.kinds, len(got), tt.lines)
		}
		for n, line := range got {
			if line["seq"] != float64(tt.want(n)) {
				t.Fatalf("%q: line %d has sequence %v, want %d", tt.kinds, n, line["seq"], tt.want(n))
			}
		}
	}
}

// TestWatchOutlivesNATS: only what is new is shown, and nothing is missed while the
// server restarts.
func TestWatchOutlivesNATS(t *testing.T) {
	t.Parallel()
	srv, js := eventStore(t)
	subject := schema.StatusEventSubject("main", "read")
	storeEvent(t, js, subject, 0) // before it began
	out, log := relaytest.NewOutput(), relaytest.NewOutput()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- main.Run(ctx, []string{"watch", "--json", "--count", "20"}, relaytest.Env(map[string]string{"NATS_URL": srv.URL()}), strings.NewReader(""), out, log)
	}()
	// It has begun when the first event that is shown is none of those before.
	shown := make(chan string, 1)
	go func() { shown <- out.Line(t, func(string) bool { return true }) }()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	n := 1
	for first := ""; first == ""; n++ {
		storeEvent(t, js, subject, n)
		select {
		case first = <-shown:
		case <-ticker.C:
		}
	}
	srv.Restart()
	for range 20 {
		storeEvent(t, js, subject, n)
		n++
	}
	if err := <-ended; err != nil {
		t.Fatalf("it ended with %v\n%s", err, log)
	}
	all := lines(out.String())
	if len(all) != 20 {
		t.Fatalf("it printed\n%s", out)
	}
	first, _ := all[0]["seq"].(float64)
	if first < 2 { // the first of all was there before
		t.Errorf("it printed\n%s", out)
	}
	for i, line := range all {
		if line["seq"] != first+float64(i) {
			t.Fatalf("it printed\n%s", out)
		}
	}
}
