package sender_test

import (
	"maps"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
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
	from := r.nc
	r.switchTo(queuetest.Server(r.t), func(nc *nats.Conn) {
		for _, stream := range accountStreams() {
			queuetest.TakeBackup(r.t, from, stream).Restore(r.t, nc)
		}
	})
}

func accountStreams() []string {
	names := queue.Names{Account: "main"}
	return []string{names.Commands(), names.Records(), names.Deferred(), names.Dead()}
}

// switchTo goes on with a server on which the streams are restored first.
func (r *rig) switchTo(to *queuetest.Node, restore func(*nats.Conn)) {
	r.t.Helper()
	nc := queuetest.Conn(r.t, to)
	restore(nc)
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
	clear(r.latest)
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
		Match: simulator.Match{Text: "refused once"}, Status: 400, Code: "MESSAGES_CAN_NOT_ADD",
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
	r.sim.ClearRules()

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
	taken := make(map[string]int)
	for _, s := range r.sim.Sends() {
		if s.Accepted() {
			taken[s.Text]++
		}
	}
	if want := map[string]int{"done": 1, "refused once": 1, "behind it, without an id": 1, "scheduled": 1}; !maps.Equal(taken, want) {
		t.Errorf("the vendor took %v, want %v", taken, want)
	}

	// A third server: the restored stream is backed up like the first.
	r.moved()
	r.start(r.config())
	r.event(r.send("tried", phone, "refused once"), schema.StateDuplicate)
}

// A backup is no way back in time: what was sent since, the restored ledger does
// not know. The pages tell to empty what waits, and this is why.
func TestBackupOfAnEarlierMoment(t *testing.T) {
	t.Parallel()
	for _, purged := range []bool{true, false} {
		t.Run(map[bool]string{true: "purged", false: "as it was"}[purged], func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.send("a", phone, "a")
			var backups []queuetest.Backup
			for _, stream := range accountStreams() {
				backups = append(backups, queuetest.TakeBackup(t, r.nc, stream))
			}
			stop := r.start(r.config())
			r.event("a", schema.StateSent)
			stop()

			r.switchTo(queuetest.Server(t), func(nc *nats.Conn) {
				for _, b := range backups {
					b.Restore(t, nc)
				}
			})
			want := 2
			if purged {
				want = 1
				s, err := r.js.Stream(t.Context(), accountStreams()[0])
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Purge(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			r.start(r.config())
			r.event(r.send("later", "79000000001", "later"), schema.StateSent)
			r.emptied()
			if n := len(r.sim.Sends()) - 1; n != want {
				t.Errorf("it was requested %d times, want %d", n, want)
			}
		})
	}
}
