//go:build system

package systemtest_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

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
		if _, err := r.js.PublishMsgAsync(&nats.Msg{Subject: schema.SyncSubject("main", schema.EntityContacts, verb), Data: []byte(body)}); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 999 {
			<-r.js.PublishAsyncComplete()
		}
	}
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
	got := make(map[string]string)
	for _, raw := range r.sim.Contacts() {
		var c struct{ ID, Name string }
		if err := json.Unmarshal(raw, &c); err != nil {
			t.Fatal(err)
		}
		got[c.ID] = c.Name
	}
	for i := range contacts {
		if id := fmt.Sprint("contact-", i); got[id] != want[id] {
			t.Errorf("%s is named %q, want %q", id, got[id], want[id])
		}
	}
	requests := r.sim.View().Requests
	t.Logf("%d commands in %d requests, %d superseded", total, requests, superseded)
	if requests > total/2 {
		t.Errorf("%d requests for %d commands", requests, total)
	}
}
