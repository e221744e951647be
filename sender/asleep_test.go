package sender_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// listed waits until the bulk lane of the test's channel is as it should be.
func (r *rig) listed(what string, cond func(sender.LaneItem) bool) {
	r.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		l := r.lanes()["bulk"]
		if cond(l) {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("waited in vain for %s: %+v", what, l)
		}
	}
}

// asleep waits until a lane of the test's channel has no consumer.
func (r *rig) asleep(class schema.Kind) {
	r.t.Helper()
	r.consumers("the lane to sleep", func(all map[string]*jetstream.ConsumerInfo) bool {
		return all[laneOf(class, simulator.ChannelWhatsApp)] == nil
	})
}

// A lane that closes with commands in hand loses its consumer. What ends meanwhile is
// removed all the same; the rest goes on when the lane opens: once, in order, with no
// attempt spent.
func TestClosedLaneSleeps(t *testing.T) {
	t.Parallel()
	const chats, each, doubted = 8, 5, 3 // so few of a chat are not parked
	r := newRig(t)
	cfg := sender.Drowsy(r.config())
	cfg.ChannelsPoll, cfg.ReconcileWait = time.Hour, time.Minute
	r.loseFirst("w00000")
	r.loadChat("w", doubted)
	r.start(cfg)
	r.channelsRead()
	r.event("w00000", schema.StateUnknown)
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{ChannelID: simulator.ChannelWhatsApp}, Status: 400, Code: "CHANNEL_NO_MONEY"}); err != nil {
		t.Fatal(err)
	}
	for i := range chats * each {
		r.bulkText(fmt.Sprint("b-", i), fmt.Sprintf("7911111%04d", i%chats), fmt.Sprintf("%06d", i))
	}
	r.ops(schema.OpsLaneClosed)
	r.asleep(schema.KindBulk)
	r.asleep(schema.KindSend)
	requests := len(r.sim.Sends())

	r.prove("w00000")
	r.event("w00000", schema.StateSent)
	r.emptiedBut(chats*each + doubted - 1)
	r.bulkText("later", phone, "x") // found, and not pulled
	r.listed("the backlog", func(l sender.LaneItem) bool { return l.State == "closed" && l.Backlog == chats*each+1 })
	if w := r.waiting("later", "closed"); w.Why != "CHANNEL_NO_MONEY" || w.Since == nil || w.Position != 0 {
		t.Errorf("on disk it waits %+v", w)
	}
	r.asleep(schema.KindBulk)
	if n := len(r.sim.Sends()); n != requests {
		t.Errorf("%d requests while the channel was closed", n-requests)
	}

	r.sim.ClearRules()
	r.channelEvent(simulator.StateActive)
	for _, e := range r.finals(chats*each + doubted + 1) {
		if e.State != schema.StateSent {
			t.Errorf("%s ended %s %+v, want sent", e.ID, e.State, e.Error)
		}
	}
	r.emptied()
	r.endedOnce()
	last := make(map[string]string)
	for _, s := range r.sim.Sends() {
		if s.Text < last[s.ChatID] { // one that was refused comes again
			t.Errorf("chat %s got %s after %s", s.ChatID, s.Text, last[s.ChatID])
		}
		last[s.ChatID] = s.Text
	}
}

// The lanes of a channel that is closed when an owner takes over have no consumer
// before they open.
func TestLaneIsClosedAtTakeOver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config() // in which a lane that was open stays so for some seconds
	cfg.ChannelsPoll = time.Hour
	stop := r.start(cfg)
	r.channelsRead()
	r.laneRequest("pause", "")
	stop()
	r.bulk("bulk", phone)
	r.send("send", phone, "x")
	r.start(cfg)
	r.listed("the lane to be found", func(l sender.LaneItem) bool { return l.State == "paused" && l.Backlog == 1 })
	if w := r.waiting("bulk", "paused"); w.Why != "operator" {
		t.Errorf("on disk it waits %+v", w)
	}
	r.bulkOn(simulator.ChannelWhatsApp2, "other", phone, "x")
	r.event("other", schema.StateSent)
	r.asleep(schema.KindBulk)
	r.asleep(schema.KindSend)
	r.laneRequest("resume", "bulk")
	r.event("bulk", schema.StateSent)
	r.asleep(schema.KindSend)
	r.laneRequest("resume", "")
	r.event("send", schema.StateSent)
	r.emptied()
}

// A channel that is tried is pulled, however long its next command takes to come.
func TestTriedLaneStaysAwake(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := sender.Longest(sender.Drowsy(r.config()))
	cfg.ChannelsPoll = time.Hour
	cfg.Backoff = sender.Backoff{Min: 5 * time.Second, Max: 5 * time.Second} // until the try
	r.start(cfg)
	r.channelsRead()
	r.channelEvent(simulator.StatePhoneUnavailable)
	r.ops(schema.OpsLaneClosed)
	if err := r.sim.SetChannel(simulator.Channel{ChannelID: simulator.ChannelWhatsApp, Transport: "whatsapp", PlainID: "1", State: simulator.StateActive}); err != nil {
		t.Fatal(err) // nobody says so
	}
	r.asleep(schema.KindSend)
	r.consumers("the channel to be tried", func(all map[string]*jetstream.ConsumerInfo) bool {
		return all[laneOf(schema.KindSend, simulator.ChannelWhatsApp)] != nil
	})
	// Each of these is found in a later round of discovery.
	for i, channel := range []string{simulator.ChannelWhatsApp2, simulator.ChannelTelegram} {
		r.bulkOn(channel, fmt.Sprint("other-", i), phone, "x")
		r.wait("the other", func(all []schema.CommandEvent) bool { return len(all) > i })
	}
	r.event(r.send("try", phone, "x"), schema.StateSent)
}
