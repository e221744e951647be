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
	"github.com/wazzup-relay/wazzup-relay/sender"
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
			cfg.SyncGather = time.Second // of a slow machine: a whole request does not wait
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
	r.endedOnce()
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, n := range r.ids {
		if n != 1 {
			r.t.Errorf("event %s is stored %d times", strings.ToValidUTF8(id, "?"), n)
		}
	}
}

// TestSyncIdentity: whose word a sync command's id is, what an empty list is, and
// that the ids of entities reach the vendor as they were written.
func TestSyncIdentity(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		entity     schema.Entity
		verb       schema.Verb
		header     string
		id         string // "": a derived one
		ends       string
		request    string // "": none
	}{
		{"the envelope's before the header's", `{"id":"own","items":[{"id":1}]}`, schema.EntityDeals, schema.VerbUpsert, "header", "own", "done", "PATCH deals 1"},
		{"an envelope without one", `{"items":[{"id":2.50}]}`, schema.EntityDeals, schema.VerbUpsert, "header-2", "header-2", "done", "PATCH deals 2.50"},
		{"of an array", `[{"id":"03"},{"id":12345678901234567890}]`, schema.EntityContacts, schema.VerbUpsert, "header-3", "header-3", "done", `PATCH contacts "03",12345678901234567890`},
		{"an entity's is none of the command's", `{"id":4,"items":"no array"}`, schema.EntityContacts, schema.VerbUpsert, "", "", "done", "PATCH contacts 4"},
		{"nor of a delete", `{"id":"a/b %2F?#ё;+"}`, schema.EntityContacts, schema.VerbDelete, "", "", "done", "DELETE contacts/a/b %2F?#ё;+"},
		{"a number in a path", `[12345678901234567890]`, schema.EntityContacts, schema.VerbDelete, "", "", "done", "DELETE contacts/12345678901234567890"},
		{"an empty list replaces all", `[]`, schema.EntityUsers, schema.VerbReplace, "", "", "done", "PUT users "},
		{"in an envelope, too", `{"id":"none","items":[]}`, schema.EntityUsers, schema.VerbReplace, "", "none", "done", "PUT users "},
		{"an empty list of upserts", `[]`, schema.EntityUsers, schema.VerbUpsert, "", "", "invalid INVALID", ""},
		{"of deletes, in an envelope", `{"id":"empty","items":[]}`, schema.EntityDeals, schema.VerbDelete, "", "empty", "invalid INVALID", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			var opts []queue.PublishOption
			if tt.header != "" {
				opts = append(opts, queue.WithID(tt.header))
			}
			r.sync(tt.entity, tt.verb, json.RawMessage(tt.body), opts...)
			r.start(r.config())
			e := r.bySeq(1)
			if got := ending(&e); got != tt.ends {
				t.Errorf("got %s, want %s", got, tt.ends)
			}
			derived := strings.HasSuffix(e.ID, "-1") && len(e.ID) > len("header-1")
			if tt.id != "" && e.ID != tt.id || tt.id == "" && !derived {
				t.Errorf("its id is %q, want %q", e.ID, tt.id)
			}
			var requests []string
			for _, q := range r.writes() {
				requests = append(requests, told(t, q))
			}
			if got := strings.Join(requests, " | "); got != tt.request {
				t.Errorf("requests: %s, want %s", got, tt.request)
			}
			r.emptied()
		})
	}
}

// TestSyncBarrierWaitsForRetries: a replace does not overtake what is retried before
// it, and what comes behind it does not overtake the replace while that is retried.
func TestSyncBarrierWaitsForRetries(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/users/1"}, Status: 500, Times: 2})
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/users", Method: "PATCH", BodyContains: "b"}, Fault: simulator.FaultDropAfterAccept, Times: 1})
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/users", Method: "PUT"}, Status: 502, Times: 2})
	r.sync(schema.EntityUsers, schema.VerbDelete, []int{1})
	r.sync(schema.EntityUsers, schema.VerbUpsert, json.RawMessage(`{"id":2,"name":"b"}`))
	r.sync(schema.EntityUsers, schema.VerbReplace, json.RawMessage(`[{"id":3,"name":"c"}]`))
	r.sync(schema.EntityUsers, schema.VerbUpsert, json.RawMessage(`{"id":4,"name":"d"}`))
	r.sync(schema.EntityUsers, schema.VerbDelete, []int{3})
	cfg := r.config()
	cfg.MaxAttempts = 4
	r.start(cfg)
	for _, e := range r.finals(5) {
		if e.State != schema.StateDone {
			t.Errorf("command %d ended %s", e.Seq, e.State)
		}
	}
	var methods []string
	for _, q := range r.writes() {
		methods = append(methods, q.Method)
	}
	slices.Sort(methods[:5]) // the deletes and upserts before the replace are of different users
	slices.Sort(methods[8:])
	if got, want := strings.Join(methods, " "), "DELETE DELETE DELETE PATCH PATCH PUT PUT PUT DELETE PATCH"; got != want {
		t.Errorf("requests: %s, want %s", got, want)
	}
	var names []string
	for _, raw := range r.sim.Users() {
		names = append(names, string(raw))
	}
	if got := strings.Join(names, " "); got != `{"id":4,"name":"d"}` {
		t.Errorf("the vendor has %s", got)
	}
	r.emptied()
	r.once()
}

// TestSyncGatherOff: without time to gather, a command waits for no company.
func TestSyncGatherOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.SyncGather = -1
	r.start(cfg)
	r.channelsRead()
	for i := range 3 {
		id := fmt.Sprint("c", i+1)
		r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": i, "name": "a"}, queue.WithID(id))
		if got := r.statesOf(id); got != "done" {
			t.Errorf("%s: got %s, want done", id, got)
		}
		for _, step := range r.whole(id).Steps {
			for _, w := range step.Waits {
				if w.Gate == "gather" && w.Millis >= sender.DefaultSyncGather.Milliseconds()/2 {
					t.Errorf("%s waited %d ms for company", id, w.Millis)
				}
			}
		}
	}
}
