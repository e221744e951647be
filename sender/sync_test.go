package sender_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// sync publishes a sync command.
func (r *rig) sync(e schema.Entity, v schema.Verb, items any, opts ...queue.PublishOption) {
	r.t.Helper()
	if _, err := r.pub.Sync(r.t.Context(), e, v, items, opts...); err != nil {
		r.t.Fatal(err)
	}
}

// writes are the requests that change entities.
func (r *rig) writes() []simulator.Request {
	return slices.DeleteFunc(r.sim.Requests(), func(q simulator.Request) bool { return q.Method == "GET" })
}

// inStream waits until so many commands are in the stream.
func (r *rig) inStream(n uint64) {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Commands())
	if err != nil {
		r.t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		info, err := s.Info(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		if info.State.Msgs >= n {
			return
		}
		<-tick.C
	}
}

// contactNames are the contacts' names by id, as the vendor has them.
func (r *rig) contactNames() map[string]string {
	r.t.Helper()
	names := make(map[string]string)
	for _, raw := range r.sim.Contacts() {
		var c struct {
			ID   json.RawMessage
			Name string
		}
		if err := json.Unmarshal(raw, &c); err != nil {
			r.t.Fatal(err)
		}
		names[schema.EntityID(c.ID)] = c.Name
	}
	return names
}

// TestSyncGathers: single upserts travel by the hundred, and a few bad ones among
// them do not make it many more requests. (For ten thousand, see the system tests.)
func TestSyncGathers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		n        int
		bad      []int
		requests int
	}{
		{"all good", 2_000, nil, 22},
		{"three bad", 2_000, []int{17, 1_000, 1_998}, 22 + 50},
		{"three bad side by side", 1_000, []int{321, 322, 323}, 11 + 50},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := tt.n
			r := newRig(t)
			for i := range n {
				item := map[string]any{"id": i, "name": fmt.Sprint("name ", i)}
				if slices.Contains(tt.bad, i) {
					item["chats"] = []any{map[string]any{"chatType": "whatsapp"}} // the vendor wants a chatId
				}
				body, err := json.Marshal(item)
				if err != nil {
					t.Fatal(err)
				}
				if err := r.nc.Publish(schema.SyncSubject("main", schema.EntityContacts, schema.VerbUpsert), body); err != nil {
					t.Fatal(err)
				}
			}
			r.inStream(uint64(n)) //nolint:gosec // thousands
			cfg := r.config()
			cfg.SyncGather = 0 // the default
			r.start(cfg)
			r.wait("all events", func(all []schema.CommandEvent) bool { return len(all) >= n })
			ends := make(map[schema.State]int)
			for _, e := range r.finals(n) {
				ends[e.State]++
				if e.State != schema.StateRejected {
					continue
				}
				if len(e.Items) != 1 || string(e.Items[0].ID) != strconv.FormatUint(e.Seq-1, 10) || e.Items[0].Error.Code != "VALIDATION_ERROR" {
					t.Errorf("command %d: items %+v", e.Seq, e.Items)
				}
			}
			if ends[schema.StateDone] != n-len(tt.bad) || ends[schema.StateRejected] != len(tt.bad) {
				t.Errorf("ends: %v, want %d rejected and all others done", ends, len(tt.bad))
			}
			requests := len(r.writes())
			t.Logf("%d requests", requests)
			if requests > tt.requests {
				t.Errorf("%d requests, want at most %d", requests, tt.requests)
			}
			names := r.contactNames()
			for i := range n {
				want := fmt.Sprint("name ", i)
				if slices.Contains(tt.bad, i) {
					want = ""
				}
				if got := names[strconv.Itoa(i)]; got != want {
					t.Fatalf("contact %d is named %q, want %q", i, got, want)
				}
			}
			r.emptied()
			r.once()
		})
	}
}

// once: no event is stored twice, and no command has two ends.
func (r *rig) once() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	ends := make(map[uint64]schema.State)
	for _, e := range r.events {
		if !e.State.Final() {
			continue
		}
		if s, again := ends[e.Seq]; again {
			r.t.Errorf("command %d ended %s and %s", e.Seq, s, e.State)
		}
		ends[e.Seq] = e.State
	}
	for id, n := range r.ids {
		if n != 1 {
			r.t.Errorf("event %s is stored %d times", strings.ToValidUTF8(id, "?"), n)
		}
	}
}
