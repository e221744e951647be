package sender_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// A state that came by webhook while nobody owned the account is known before the
// first call, however late NATS hands it over.
func TestWordOfUnownedTimesComesBeforeTheFirstCall(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 500})
	r.channelEvent(simulator.StateNotEnoughMoney)
	r.send("held", phone, "x")
	other := fmt.Sprintf(`{"id":"other","chatType":"whatsapp","chatId":%q,"text":"x"}`, phone)
	if _, err := r.pub.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp2, []byte(other)); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	once := sync.OnceFunc(func() { close(release) })
	c := newHolder(t, r.srv.URL(), func(toClient bool, frame []byte) <-chan struct{} {
		if !toClient || !bytes.Contains(frame, []byte(`"state":"notEnoughMoney"`)) {
			return nil
		}
		time.AfterFunc(500*time.Millisecond, once) // time for the calls that must not be made
		return release
	})
	r.startOn(queuetest.Conn(t, c), r.config())
	r.event("other", schema.StateSent)
	r.ops(schema.OpsLaneClosed)
	if n := len(r.sim.Sends()); n != 1 {
		t.Errorf("%d calls, want the other channel's only", n)
	}
	r.channelEvent(simulator.StateActive)
	r.event("held", schema.StateSent)
}

// A list that was asked for before a webhook came says nothing against it, however
// late it is answered; one that was asked for later does. The other way round, a
// webhook that comes after a list counts.
func TestListAndWebhookDisagree(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.ChannelsPoll = 10 * time.Millisecond
	list := func(state string, delay time.Duration, times int) simulator.Rule {
		return simulator.Rule{
			Match: simulator.Match{Path: "/v2/channels"}, Status: 200, Times: times, Delay: simulator.Duration(delay),
			Body: fmt.Sprintf(`[{"channelId":%q,"transport":"whatsapp","state":%q}]`, simulator.ChannelWhatsApp, state),
		}
	}
	word := func(state string) {
		body := fmt.Sprintf(`{"channelId":%q,"transport":"whatsapp","state":%q}`, simulator.ChannelWhatsApp, state)
		if _, err := r.js.Publish(t.Context(), schema.ChannelEventSubject("main", simulator.ChannelWhatsApp, state), []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	asked := func() (n int) {
		for _, q := range r.sim.Requests() {
			if q.Path == "/v2/channels" {
				n++
			}
		}
		return n
	}
	const slow = 700 * time.Millisecond
	if err := r.sim.AddRule(list(simulator.StateActive, slow, 1), list(simulator.StateNotEnoughMoney, slow, 1), list(simulator.StateActive, 0, 0)); err != nil {
		t.Fatal(err)
	}
	until := func(n int) {
		t.Helper()
		if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return asked() >= n }); err != nil {
			t.Fatal(err)
		}
	}
	r.start(cfg)
	until(1)
	word(simulator.StateNotEnoughMoney) // while the first list, which says active, is on its way
	r.ops(schema.OpsLaneClosed)
	until(2) // the first is answered
	if lane := r.lanes()["send"]; lane.State != "closed" {
		t.Errorf("the list that was asked for before counts against the webhook: %+v", lane)
	}
	r.send("held", phone, "x")
	word(simulator.StateActive) // while the second, which says notEnoughMoney, is on its way
	r.event("held", schema.StateSent)
	r.ops(schema.OpsLaneOpened)
	until(4)
	if n := r.opsCount(schema.OpsLaneClosed); n != 1 {
		t.Errorf("closed %d times, want once", n)
	}
	word(simulator.StateNotEnoughMoney) // against all lists: closed until the next of them
	r.event(r.send("next", phone, "x"), schema.StateSent)
	if err := waitFor(t, func() bool { return r.opsCount(schema.OpsLaneOpened) == 2 }); err != nil {
		t.Error(err)
	}
}
