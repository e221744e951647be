package sender_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// moved goes on with another server, to which the account's streams were moved by
// a backup.
func (r *rig) moved() {
	r.t.Helper()
	to := queuetest.Server(r.t)
	nc := queuetest.Conn(r.t, to)
	names := queue.Names{Account: "main"}
	for _, stream := range []string{names.Commands(), names.Records(), names.Deferred(), names.Dead()} {
		queuetest.TakeBackup(r.t, r.nc, stream).Restore(r.t, nc)
	}
	var err error
	if r.js, err = jetstream.New(nc); err != nil {
		r.t.Fatal(err)
	}
	if r.pub, err = queue.NewPublisher(nc, "main"); err != nil {
		r.t.Fatal(err)
	}
	r.srv, r.nc = to, nc
	r.mu.Lock()
	r.events = nil
	clear(r.ids)
	r.mu.Unlock()
	r.collect("main")
}

// A restored backup is a new stream for the server. What was under way goes on
// under it all the same, and what was done is remembered.
func TestRestoredBackup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.Backoff.Min, cfg.Backoff.Max = 3*time.Second, 3*time.Second
	if err := r.sim.AddRule(simulator.Rule{
		Match: simulator.Match{Text: "refused once"}, Status: 400, Code: "MESSAGES_CAN_NOT_ADD", Times: 1,
	}); err != nil {
		t.Fatal(err)
	}
	stop := r.start(cfg)
	r.event(r.send("done", "79000000001", "done"), schema.StateSent)
	r.event(r.send("tried", phone, "refused once"), schema.StateRetrying)
	behind, err := r.pub.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp,
		[]byte(`{"chatType":"whatsapp","chatId":"`+phone+`","text":"behind it, without an id"}`))
	if err != nil {
		t.Fatal(err)
	}
	due := time.Now().Add(3 * time.Second)
	r.send("scheduled", "79000000002", "scheduled", `,"sendAt":"`+due.Format(time.RFC3339Nano)+`"`)
	r.emptiedBut(2) // it is scheduled
	stop()

	r.moved()
	cfg.Backoff = r.config().Backoff
	r.start(cfg)
	for _, id := range []string{"tried", "scheduled"} {
		r.event(id, schema.StateSent)
	}
	if e := r.bySeq(behind.Seq); e.State != schema.StateSent {
		t.Errorf("what stood behind it: got %s", e.State)
	}
	r.event(r.send("done", "79000000001", "done"), schema.StateDuplicate)
	r.emptied()
	r.endedOnce()
	if n := len(r.sim.Sends()); n != 5 {
		t.Errorf("%d requests, want 5: one was refused", n)
	}

	// A third server: the restored stream is backed up like the first.
	r.moved()
	r.start(r.config())
	r.event(r.send("tried", phone, "refused once"), schema.StateDuplicate)
}
