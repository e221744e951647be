package sender_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// silences waits until so many silences are told, and for a while more whether there
// are others.
func (r *rig) silences(want int, limit time.Duration) {
	r.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for r.opsCount(schema.OpsWebhookSilent) < want {
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("%d silences are told, want %d", r.opsCount(schema.OpsWebhookSilent), want)
		}
	}
	<-time.After(limit) // in which the next would be told
	if n := r.opsCount(schema.OpsWebhookSilent); n != want {
		r.t.Errorf("%d silences are told, want %d", n, want)
	}
}

// A silence is told once, over hand-overs and the death of the owner, and again only
// after statuses have come and stopped.
func TestWebhookSilence(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.Silence = 300 * time.Millisecond
	cfg.Limits.DedupeWindow = 100 * time.Millisecond // beyond it the server would store a repeat
	stop := r.start(cfg)
	r.silences(0, 2*cfg.Silence) // nothing was sent: nothing is missing
	r.states(r.send("a", phone, "a"))
	r.silences(1, 2*cfg.Silence)
	e := r.ops(schema.OpsWebhookSilent)
	var detail struct{ Since, Limit string }
	if err := json.Unmarshal(e.Detail, &detail); err != nil || detail.Since == "" || detail.Limit != "300ms" || e.Reason != "no_status" {
		t.Errorf("got %+v %s", e, e.Detail)
	}
	r.states(r.send("b", phone, "b")) // the same silence goes on
	r.silences(1, 2*cfg.Silence)
	var got guarded
	if err := json.Unmarshal(r.ask("webhooks.get", "").Body, &got); err != nil || got.SilentSince != detail.Since {
		t.Errorf("webhooks.get: got %+v (%v), want silent since %s", got, err, detail.Since)
	}
	stop()
	mortal := queuetest.Conn(t, r.srv)
	stop = r.startOn(mortal, cfg)
	r.states(r.send("c", phone, "c"))
	r.silences(1, 2*cfg.Silence)
	mortal.Close()
	stop()
	r.expireLease()
	r.start(cfg)
	r.states(r.send("d", phone, "d"))
	r.silences(1, 2*cfg.Silence)

	r.statusOf("d")
	if err := waitFor(t, func() bool {
		got = guarded{}
		return json.Unmarshal(r.ask("webhooks.get", "").Body, &got) == nil && got.SilentSince == ""
	}); err != nil {
		t.Errorf("webhooks.get: got %+v (%v), want no silence", got, err)
	}
	r.silences(1, 2*cfg.Silence) // nothing was sent since
	r.states(r.send("e", phone, "e"))
	r.silences(2, 2*cfg.Silence)
}

// statusOf stores what ingest would for the status of a command's message.
func (r *rig) statusOf(id string) {
	r.t.Helper()
	sent := r.event(id, schema.StateSent)
	m := nats.NewMsg(schema.StatusEventSubject("main", "sent"))
	m.Data = fmt.Appendf(nil, `{"messageId":%q,"status":1}`, sent.MessageID)
	if _, err := r.js.PublishMsg(r.t.Context(), m); err != nil {
		r.t.Fatal(err)
	}
}

// Statuses that come are no silence, and the alarm can be switched off.
func TestNoSilence(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		limit    time.Duration
		statuses bool
	}{
		{"statuses come", 4 * time.Second, true},
		{"it is switched off", -1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.Silence = tt.limit
			r.start(cfg)
			until := time.After(max(tt.limit*3/2, 2*time.Second))
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				id := strconv.Itoa(i)
				r.states(r.send(id, phone, id))
				if tt.statuses {
					r.statusOf(id)
				}
				select {
				case <-until:
					r.silences(0, 0)
					return
				case <-tick.C:
				}
			}
		})
	}
}
