//go:build system

package systemtest_test

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

// told are the counters that were published, by the user's id as JSON.
type told struct {
	mu     sync.Mutex
	values map[string][]int
	change chan struct{}
}

// follow reads every counter event, from the start, through reconnects.
func (r *rig) followCounters() *told {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := s.OrderedConsumer(r.t.Context(), jetstream.OrderedConsumerConfig{FilterSubjects: []string{"wazzup.main.evt.counter.>"}})
	if err != nil {
		r.t.Fatal(err)
	}
	out := &told{values: make(map[string][]int), change: make(chan struct{})}
	consuming, err := c.Consume(func(m jetstream.Msg) {
		var e struct {
			User    json.RawMessage `json:"userId"`
			Counter int             `json:"counter"`
		}
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			r.t.Errorf("event is no JSON: %v", err)
		}
		out.mu.Lock()
		defer out.mu.Unlock()
		out.values[string(e.User)] = append(out.values[string(e.User)], e.Counter)
		close(out.change)
		out.change = make(chan struct{})
	}, jetstream.ConsumeErrHandler(func(jetstream.ConsumeContext, error) {}))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(consuming.Stop)
	return out
}

// exactly waits until a user's values end with these, in this order and without
// anything between them.
func (o *told) exactly(t *testing.T, user string, want ...int) {
	t.Helper()
	timeout := time.After(60 * time.Second)
	for {
		o.mu.Lock()
		all, change := slices.Clone(o.values[user]), o.change
		o.mu.Unlock()
		if len(all) >= len(want) && slices.Equal(all[len(all)-len(want):], want) {
			return
		}
		select {
		case <-change:
		case <-timeout:
			t.Fatalf("published for %s: %v, want it to end with %v", user, all, want)
		}
	}
}

// Each of the three Socket.IO servers is killed and started anew, and frozen until
// the worker has given it up: every change of a counter after that is published, in
// order. Another worker then takes over, and no user ever has two connections.
func TestCounterServers(t *testing.T) {
	t.Parallel()
	const number, text = `17`, `"maria"`
	users := []string{number, text}
	for _, version := range []string{"2", "3", "4"} {
		t.Run("socket.io "+version, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, simulator.Config{})
			server := startSocketServer(t, version)
			events := r.followCounters()
			env := r.env("WAZZUP_WS_URL="+server.URL(), `WAZZUP_COUNTER_USERS=17,maria`, "WAZZUP_API_KEY=the-key-of-this-test")
			worker := runWorker(t, env...)
			worker.ready()
			server.joined(0, users...)

			n := 0
			changes := func() {
				t.Helper()
				var want []int
				for range 20 {
					n++
					want = append(want, n)
					for _, u := range users {
						server.tell(u, n)
					}
				}
				for _, u := range users {
					events.exactly(t, u, want...)
				}
			}
			changes()

			server.kill()
			server.start()
			server.joined(0, users...)
			changes()

			ended := strings.Count(worker.log.String(), "the server fell silent")
			server.freeze()
			for range users {
				ended++
				worker.says("the server fell silent", ended)
			}
			before := server.said()
			server.thaw()
			server.joined(before, users...)
			changes()

			// The connections of before the freeze are over too.
			server.wait("one connection a user", func(lines []socketLine) bool {
				last := make(map[string]int)
				for _, l := range lines {
					last[string(l.Connected)+string(l.Disconnected)] = l.Sockets
				}
				return last[number] == 1 && last[text] == 1
			})
			handover := server.said()
			next := runWorker(t, env...)
			next.ready()
			worker.signal(syscall.SIGTERM)
			server.joined(handover, users...)
			server.mu.Lock()
			for _, l := range server.lines[handover:] {
				if l.Sockets > 1 {
					t.Errorf("%s%s has %d connections", l.Connected, l.Disconnected, l.Sockets)
				}
				if l.Connected != nil && l.Key != "the-key-of-this-test" {
					t.Error("the connection carried another key")
				}
			}
			server.mu.Unlock()
			changes()
			for _, p := range []*program{worker, next} {
				for _, hidden := range []string{"the-key-of-this-test", "maria"} {
					if strings.Contains(p.log.String(), hidden) {
						t.Errorf("a worker's log holds %q", hidden)
					}
				}
			}
		})
	}
}

// says waits until the program has logged a text so often.
func (p *program) says(text string, times int) {
	p.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(60 * time.Second)
	for strings.Count(p.log.String(), text) < times {
		select {
		case <-tick.C:
		case <-p.done:
			p.t.Fatalf("the program ended: %s", p.log.String())
		case <-timeout:
			p.t.Fatalf("the program never said %q %d times", text, times)
		}
	}
}
