//go:build system

package queue_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

// firsts leaves out repeats.
func firsts(ids []string) []string {
	var all []string
	seen := make(map[string]bool)
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			all = append(all, id)
		}
	}
	return all
}

// A consumer that is killed at any moment costs nothing: the next one goes on
// where it was, in order. What comes twice is what was in its hands.
func TestConsumerKilled(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	a := newAccount(t, srv)
	want := store(t, a.js, 0, 5000)
	var got []string
	const kills = 5
	for kill := range kills + 1 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), consumeEnv+"="+srv.URL())
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until := 400 * (kill + 1)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if id := strings.TrimSpace(lines.Text()); id != "" {
				got = append(got, id)
			}
			if kill < kills && len(got) == until || len(firsts(got)) == len(want) {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
	}
	if first := firsts(got); !slices.Equal(first, want) {
		t.Errorf("got %d of %d events, or not in order", len(first), len(want))
	}
	if repeats := len(got) - len(want); repeats > kills+1 {
		t.Errorf("%d events came twice, want at most one a kill", repeats)
	}
}

// A server that is killed while events are stored and read loses none of them for
// the consumer, which goes on by itself.
func TestConsumerThroughServerKills(t *testing.T) {
	t.Parallel()
	srv := queuetest.Process(t)
	a := newAccount(t, srv)
	r := consume(t, a.nc, killable(), nil)
	want := store(t, a.js, 0, 1000)
	for kill := range 4 {
		r.dealt(300 + 500*kill)
		srv.Kill()
		srv.Start()
		want = append(want, storeAll(t, a.js, len(want), len(want)+500)...)
	}
	got, errs := r.wait(func(got []string, _ []error) bool { return len(firsts(got)) >= len(want) })
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if first := firsts(got); !slices.Equal(first, want) {
		t.Errorf("got %d of %d events, or not in order", len(first), len(want))
	}
	t.Logf("%d events came %d times; failures: %v", len(want), len(got), errs)
}

// storeAll stores events through whatever happens to the server.
func storeAll(t *testing.T, js jetstream.JetStream, from, to int) (ids []string) {
	t.Helper()
	for i := from; i < to; i++ {
		m := event("e-" + strconv.Itoa(i))
		err := queue.Ask(bounded(t), func(ctx context.Context) error {
			_, err := js.PublishMsg(ctx, m)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, "e-"+strconv.Itoa(i))
	}
	return ids
}
