//go:build system

package systemtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// TestTenThousandContacts: ten thousand single upserts that are stored before the
// worker starts become about a hundred requests, and a few bad ones among them do
// not make it many more: those are refused, and all others are taken.
func TestTenThousandContacts(t *testing.T) {
	t.Parallel()
	const total = 10_000
	tests := []struct {
		name     string
		bad      []int
		requests int
	}{
		{"all good", nil, 110},
		{"three bad", []int{17, 5_000, 9_998}, 160},
		{"three bad in one request", []int{4_321, 4_322, 4_360}, 160},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, simulator.Config{})
			want := make(map[string]string)
			for i := range total {
				id, name, more := strconv.Itoa(i), fmt.Sprint("name ", i), ""
				if slices.Contains(tt.bad, i) {
					more = `,"chats":[{"chatType":"whatsapp"}]` // the vendor wants a chatId
				} else {
					want[id] = name
				}
				r.storeContact(schema.VerbUpsert, fmt.Sprintf(`{"id":%s,"name":%q%s}`, id, name, more))
			}
			r.allStored()
			r.collect()
			start := time.Now()
			runWorker(t, r.env()...)
			ends := make(map[schema.State]int)
			for _, e := range r.waitFinals(total, 2*time.Minute) {
				ends[e.State]++
				if e.State == schema.StateRejected && (len(e.Items) != 1 || string(e.Items[0].ID) != strconv.FormatUint(e.Seq-1, 10) || e.Items[0].Error.Code != "VALIDATION_ERROR") {
					t.Errorf("command %d: items %+v", e.Seq, e.Items)
				}
			}
			took := time.Since(start)
			r.waitEmpty()
			if len(r.finals) != total || ends[schema.StateDone] != total-len(tt.bad) || ends[schema.StateRejected] != len(tt.bad) {
				t.Errorf("ends: %v, want %d rejected and all others done", ends, len(tt.bad))
			}
			requests := 0
			for _, q := range r.sim.Requests() {
				if q.Method == http.MethodPatch {
					requests++
				}
			}
			t.Logf("%d commands in %d requests, in %v", total, requests, took)
			if requests > tt.requests {
				t.Errorf("%d requests, want at most %d", requests, tt.requests)
			}
			r.checkContacts(want)
		})
	}
}

// storeContact publishes a command about contacts; allStored waits for its PubAck.
func (r *rig) storeContact(v schema.Verb, body string) {
	r.t.Helper()
	subject := schema.SyncSubject("main", schema.EntityContacts, v)
	if _, err := r.js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: []byte(body)}); err != nil {
		r.t.Fatal(err)
	}
	if r.js.PublishAsyncPending() >= 1000 {
		r.allStored()
	}
}

func (r *rig) allStored() {
	r.t.Helper()
	select {
	case <-r.js.PublishAsyncComplete():
	case <-time.After(30 * time.Second):
		r.t.Fatal("publishing was not acknowledged")
	}
}

// checkContacts compares the names of the vendor's contacts, by id.
func (r *rig) checkContacts(want map[string]string) {
	r.t.Helper()
	got := make(map[string]string)
	for _, raw := range r.sim.Contacts() {
		var c struct {
			ID   json.RawMessage
			Name string
		}
		if err := json.Unmarshal(raw, &c); err != nil {
			r.t.Fatal(err)
		}
		got[schema.EntityID(c.ID)] = c.Name
	}
	faults := 0
	for id := range got {
		if got[id] != want[id] {
			r.t.Errorf("contact %s is named %q, want %q", id, got[id], want[id])
			faults++
		}
		if faults > 10 {
			return
		}
	}
	if len(got) != len(want) {
		r.t.Errorf("%d contacts, want %d", len(got), len(want))
	}
}

// TestSyncKilledAtRandom: worker and nats-server are killed at random moments while
// contacts are changed again and again. Each command ends once, and the vendor is
// left with what was stored last of each contact.
func TestSyncKilledAtRandom(t *testing.T) {
	t.Parallel()
	const total, contacts = 6000, 400
	r := newRig(t, simulator.Config{})
	r.collect()
	r.latency(30 * time.Millisecond)
	random := random(t)
	want := make(map[string]string)
	for i := range total {
		id := fmt.Sprint("contact-", random.IntN(contacts))
		name := fmt.Sprint("name ", i)
		verb, body := schema.VerbUpsert, fmt.Sprintf(`{"id":%q,"name":%q}`, id, name)
		want[id] = name
		if random.IntN(20) == 0 {
			verb, body = schema.VerbDelete, fmt.Sprintf(`{"id":%q}`, id)
			delete(want, id)
		}
		r.storeContact(verb, body)
	}
	r.allStored()
	w := runWorker(t, r.env()...)
	for i, what := range []string{"worker", "worker", "server", "worker", "server", "worker"} {
		r.waitFinals((i+1)*600, time.Minute)
		<-time.After(time.Duration(random.IntN(100)) * time.Millisecond) // a random moment, not a wait for anything
		if what == "worker" {
			w.kill()
			w = runWorker(t, r.env()...)
		} else {
			r.srv.Kill()
			r.srv.Start()
		}
	}
	ended := make(map[uint64]schema.State)
	superseded := 0
	for _, e := range r.waitFinals(total, 2*time.Minute) {
		if before, twice := ended[e.Seq]; twice {
			t.Errorf("command %d ended twice: %s and %s", e.Seq, before, e.State)
		}
		if ended[e.Seq] = e.State; e.State != schema.StateDone {
			t.Errorf("command %d ended %s", e.Seq, e.State)
		}
		if e.SupersededBy != "" {
			superseded++
		}
	}
	r.waitEmpty()
	r.checkContacts(want)
	requests := r.sim.View().Requests
	t.Logf("%d commands in %d requests, %d superseded", total, requests, superseded)
	if requests > total/2 {
		t.Errorf("%d requests for %d commands", requests, total)
	}
}
