package sender_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// status stores what ingest would for a `statuses` webhook.
func (r *rig) status(messageID string, word string, status int) {
	r.t.Helper()
	body := fmt.Sprintf(`{"messageId":%q,"status":%d}`, messageID, status)
	if _, err := r.js.Publish(r.t.Context(), schema.StatusEventSubject("main", word), []byte(body)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) all(id string) (states []schema.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.ID == id {
			states = append(states, e.State)
		}
	}
	return states
}

func TestStatusesFindTheirCommand(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.start(r.config())
	r.states(r.send("a", phone, "x", `,"meta":{"n":1},"group":"g"`))
	sent := r.event("a", schema.StateSent)
	r.status(sent.MessageID, "processing", 0)
	r.status(sent.MessageID, "read", 3)
	r.status(sent.MessageID, "delivered", 2) // it comes too late to be told
	r.status(sent.MessageID, "read", 3)
	r.status("nobody's", "delivered", 2)
	read := r.event("a", schema.StateRead)
	if string(read.Meta) != `{"n":1}` || read.Group != "g" || read.MessageID != sent.MessageID || read.ChatID != phone || read.Seq != 1 {
		t.Errorf("read: got %+v", read)
	}
	stop()
	r.start(r.config()) // another owner goes on where this one stopped
	r.status(sent.MessageID, "failed", 18)
	failed := r.event("a", schema.StateFailed)
	if failed.Error == nil || failed.Error.Code != "STATUS_18" || failed.Error.Class != schema.ClassTerminal {
		t.Errorf("failed: got %+v", failed.Error)
	}
	if got, want := r.all("a"), []schema.State{schema.StateSent, schema.StateRead, schema.StateFailed}; !slices.Equal(got, want) {
		t.Errorf("states: got %v, want %v", got, want)
	}
	// The id is used up as before.
	r.send("a", phone, "x", `,"meta":{"n":1},"group":"g"`)
	if e := r.bySeq(2); e.State != schema.StateDuplicate || e.Original == nil || e.Original.State != schema.StateFailed {
		t.Errorf("same again: got %s %+v", e.State, e.Original)
	}
}

// A status that overtakes the answer of its own call waits for it.
func TestEarlyStatus(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	release := make(chan struct{})
	const messageID = "10d90130-38f6-421c-ada9-951f82884056"
	if err := r.sim.AddRule(simulator.Rule{
		Match: simulator.Match{Path: "/v2/send_message"}, Status: 201, Body: fmt.Sprintf(`{"messageId":%q}`, messageID),
		Delay: simulator.Duration(300_000_000),
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(release)
		_ = r.sim.Wait(t.Context(), func(*simulator.View) bool { return len(r.sim.Sends()) == 1 })
	}()
	r.send("a", phone, "x")
	<-release
	r.status(messageID, "delivered", 2)
	r.event("a", schema.StateDelivered)
	if got, want := r.all("a"), []schema.State{schema.StateSent, schema.StateDelivered}; !slices.Equal(got, want) {
		t.Errorf("states: got %v, want %v", got, want)
	}
}
