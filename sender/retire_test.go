package sender_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// consumers waits until the lanes' consumers satisfy the condition: they are told by
// the commands' filters.
func (r *rig) consumers(what string, cond func(map[string]*jetstream.ConsumerInfo) bool) {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Commands())
	if err != nil {
		r.t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		lanes := make(map[string]*jetstream.ConsumerInfo)
		list := s.ListConsumers(r.t.Context())
		for info := range list.Info() {
			lanes[info.Config.FilterSubject] = info
		}
		if err := list.Err(); err != nil {
			r.t.Fatal(err)
		}
		if cond(lanes) {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("waited in vain for %s; there are %d lanes", what, len(lanes))
		}
	}
}

func laneOf(class schema.Kind, channel string) string {
	return schema.SendSubject("main", class, channel)
}

func (r *rig) retired(channel string) {
	r.t.Helper()
	r.consumers("a lane to be retired", func(all map[string]*jetstream.ConsumerInfo) bool { return all[laneOf(schema.KindBulk, channel)] == nil })
}

func (r *rig) bulkOn(channel, id, chat, text string) {
	r.t.Helper()
	body := fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":%q,"text":%q}`, id, chat, text)
	if _, err := r.pub.Send(r.t.Context(), schema.KindBulk, channel, []byte(body)); err != nil {
		r.t.Fatal(err)
	}
}

// A bulk lane goes when it has been idle, with its pace remembered, and is found
// again at its next command. The lanes whose first command must not wait stay.
func TestIdleLaneIsRetired(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := sender.Hasty(r.config(), 200*time.Millisecond)
	cfg.BulkRate = rate.Rate{N: 1, Per: 3 * time.Second}
	stop := r.start(cfg)
	r.channelsRead()
	r.bulkOn(simulator.ChannelWhatsApp, "first", phone, "x")
	r.event("first", schema.StateSent)
	r.retired(simulator.ChannelWhatsApp)
	r.consumers("the lanes that stay", func(all map[string]*jetstream.ConsumerInfo) bool {
		for _, ch := range simulator.DefaultChannels() {
			if all[laneOf(schema.KindSend, ch.ChannelID)] == nil {
				return false
			}
		}
		return len(all) == len(simulator.DefaultChannels())+len(schema.Entities())
	})
	r.bulkOn(simulator.ChannelWhatsApp, "second", phone, "x")
	r.event("second", schema.StateSent)
	// The pace outlives an owner, too, that left while the lane was not there.
	r.retired(simulator.ChannelWhatsApp)
	stop()
	r.start(cfg)
	r.bulkOn(simulator.ChannelWhatsApp, "third", phone, "x")
	r.event("third", schema.StateSent)
	sends := r.sim.Sends()
	for i := range 2 {
		if gap := sends[i+1].Time.Sub(sends[i].Time); gap < 3*time.Second {
			t.Errorf("call %d came %v after the one before, want 3s at least", i+2, gap)
		}
	}
}

// Ten minutes are what it takes unless a test is in a hurry.
func TestIdleLaneIsRetiredAfterTenMinutes(t *testing.T) {
	t.Parallel()
	start := time.Unix(0, 0)
	last := start.Add(10 * time.Minute)
	if sender.IdleFor(start, start.Add(5*time.Minute), last.Add(-1)) {
		t.Error("a lane was retired before it was idle for ten minutes")
	}
	if !sender.IdleFor(start, start.Add(5*time.Minute), last) {
		t.Error("a lane is there after ten idle minutes")
	}
}

// The gate of a channel outlives its lane: what comes later for the closed channel
// waits on disk, with its lane left open, until the channel is active.
func TestRetiredLaneStaysClosed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := sender.Hasty(r.config(), 100*time.Millisecond)
	cfg.ChannelsPoll = time.Hour
	r.start(cfg)
	r.channelsRead()
	r.bulkOn(simulator.ChannelWhatsApp, "first", phone, "x")
	r.event("first", schema.StateSent)
	r.channelEvent(simulator.StateNotEnoughMoney)
	r.ops(schema.OpsLaneClosed)
	r.retired(simulator.ChannelWhatsApp)
	r.bulkOn(simulator.ChannelWhatsApp, "held", phone, "x")
	r.listed("the closed lane", func(l sender.LaneItem) bool { return l.State == "closed" && l.Backlog == 1 })
	// Another lane is found, used and retired meanwhile: this one is not.
	r.bulkOn(simulator.ChannelWhatsApp2, "other", phone, "x")
	r.event("other", schema.StateSent)
	r.retired(simulator.ChannelWhatsApp2)
	if l := r.lanes()["bulk"]; l.State != "closed" || l.Backlog != 1 {
		t.Errorf("the closed lane: got %+v, want it left alone", l)
	}
	r.consumers("the closed lane to have none", func(all map[string]*jetstream.ConsumerInfo) bool {
		return all[laneOf(schema.KindBulk, simulator.ChannelWhatsApp)] == nil
	})
	if n := len(r.sim.Sends()); n != 2 {
		t.Errorf("%d requests, want none for the closed channel", n)
	}
	r.channelEvent(simulator.StateActive)
	r.event("held", schema.StateSent)
}

// Commands that arrive just while their lanes are retired are sent, once and in
// the order of their chats.
func TestCommandsWhileLanesRetire(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(sender.Hasty(r.config(), 20*time.Millisecond))
	r.channelsRead()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	channels := make([]string, 40)
	for i := range channels {
		channels[i] = fmt.Sprintf("b0000000-0000-4000-8000-%012d", i)
		if err := r.sim.SetChannel(simulator.Channel{ChannelID: channels[i], Transport: "whatsapp", PlainID: strconv.Itoa(i), State: simulator.StateActive}); err != nil {
			t.Fatal(err)
		}
	}
	const total = 240
	for i := range total {
		n := random.IntN(len(channels))
		r.bulkOn(channels[n], fmt.Sprint("c-", i), fmt.Sprintf("790000%05d", n), fmt.Sprintf("%06d", i))
		if i%20 == 0 { // until about now the lanes of before have become idle
			r.finals(i)
		}
	}
	for _, e := range r.finals(total) {
		if e.State != schema.StateSent {
			t.Errorf("%s ended %s %+v", e.ID, e.State, e.Error)
		}
	}
	last := make(map[string]string)
	sends := r.sim.Sends()
	for _, s := range sends {
		if s.Text <= last[s.ChatID] {
			t.Errorf("chat %s got %s after %s", s.ChatID, s.Text, last[s.ChatID])
		}
		last[s.ChatID] = s.Text
	}
	if len(sends) != total {
		t.Errorf("%d requests for %d commands", len(sends), total)
	}
	r.consumers("all of them to be retired", func(all map[string]*jetstream.ConsumerInfo) bool {
		return !slices.ContainsFunc(channels, func(id string) bool { return all[laneOf(schema.KindBulk, id)] != nil })
	})
}

// A lane whose commands are all parked has nothing in its stream, and stays until the
// last of them has gone.
func TestLaneWithParkedCommandsStays(t *testing.T) {
	t.Parallel()
	const many = 25
	r := newRig(t)
	cfg := sender.Hasty(r.config(), 50*time.Millisecond)
	cfg.ReconcileWait = 500 * time.Millisecond
	r.loseFirst("w00")
	r.slow(200 * time.Millisecond)
	for i := range many {
		id := fmt.Sprintf("w%02d", i)
		r.bulkOn(simulator.ChannelWhatsApp, id, waitingChat, id)
	}
	r.start(cfg)
	r.event("w00", schema.StateDead)
	if n := r.deferred(); n < 5 {
		t.Fatalf("only %d commands are parked", n)
	}
	r.finals(many)
	r.inOrder(many)
	r.deferredEmptied()
	r.retired(simulator.ChannelWhatsApp)
}

// What was on its way while its lane was retired is left to the lane's next
// consumer: it is neither kept nor acknowledged.
func TestDeliveryOfARetiredLane(t *testing.T) {
	t.Parallel()
	late := &queue.Delivery{Subject: laneOf(schema.KindBulk, simulator.ChannelWhatsApp), Seq: 7, Data: []byte(`{"chatType":"whatsapp","chatId":"79998887766","text":"x"}`)}
	if kept := sender.ReceiveRetired(late); kept != 0 {
		t.Errorf("%d kept, want none", kept)
	}
}

// A lane with a command that is scheduled stays until that is due, so that it
// comes in time, and goes when it has been.
func TestLaneOfAScheduledCommandStays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(sender.Hasty(r.config(), 50*time.Millisecond))
	r.channelsRead()
	scheduled := func(channel, id string, at time.Time) {
		t.Helper()
		body := fmt.Appendf(nil, `{"id":%q,"chatType":"whatsapp","chatId":%q,"text":"x","sendAt":%q}`, id, phone, at.Format(time.RFC3339Nano))
		if _, err := r.pub.Send(t.Context(), schema.KindBulk, channel, body); err != nil {
			t.Fatal(err)
		}
	}
	scheduled(simulator.ChannelWhatsApp, "much-later", time.Now().Add(time.Hour))
	r.waitStep("much-later", "scheduled")
	retired, err := r.nc.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.DELETED." + queue.Names{Account: "main"}.Commands() + ".>")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(3 * time.Second)
	scheduled(simulator.ChannelWhatsApp2, "soon", at)
	r.event("soon", schema.StateSent)
	sent := r.sim.Sends()[0].Time
	if sent.Before(at) {
		t.Errorf("it was sent %v early", at.Sub(sent))
	}
	r.retired(simulator.ChannelWhatsApp2)
	var gone struct {
		Time time.Time `json:"timestamp"`
	}
	if m, err := retired.NextMsg(patience); err != nil || json.Unmarshal(m.Data, &gone) != nil || gone.Time.Before(sent) {
		t.Errorf("the first lane was retired at %v (%v), want it to stay until %v", gone.Time, err, sent)
	}
	r.consumers("the lane to stay", func(all map[string]*jetstream.ConsumerInfo) bool {
		return all[laneOf(schema.KindBulk, simulator.ChannelWhatsApp)] != nil
	})
}

// While a family's breaker is open nothing is asked for, not even by a lane that
// is found meanwhile; afterwards everything goes on, and no attempt was spent.
func TestNothingIsPulledWhileABreakerIsOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := sender.OpenFor(r.config(), time.Hour) // until the next owner
	cfg.MaxAttempts = 2                          // of which the first may be in doubt, below
	cfg.ChannelsPoll = time.Hour
	stop := r.start(cfg)
	r.states(r.send("warm", phone, "up"))
	r.channelsRead()
	reachable := r.unreachable()
	r.send("a", phone, "x", `,"onUnknown":"resend"`) // it may meet a connection that is just being closed
	opened := r.ops(schema.OpsBreakerOpened)
	if opened.ChannelID != "" || opened.Reason != string(sender.FamilySend) || !strings.HasPrefix(opened.OpensOn, "a probe at ") {
		t.Errorf("breaker.opened: got %+v", opened)
	}
	for i := range 20 {
		r.bulkOn(simulator.ChannelWhatsApp, fmt.Sprint("b-", i), fmt.Sprintf("7900000%04d", i), "x")
	}
	untouched := func(channel string) func(map[string]*jetstream.ConsumerInfo) bool {
		return func(all map[string]*jetstream.ConsumerInfo) bool {
			lane := all[laneOf(schema.KindBulk, simulator.ChannelWhatsApp)]
			if lane != nil && (lane.Delivered.Consumer > 0 || lane.NumWaiting > 0) {
				t.Fatalf("the lane pulls while the breaker is open: %d delivered, %d pulls", lane.Delivered.Consumer, lane.NumWaiting)
			}
			return all[laneOf(schema.KindBulk, channel)] != nil
		}
	}
	r.consumers("the lane to be found", untouched(simulator.ChannelWhatsApp))
	r.bulkOn(simulator.ChannelWhatsApp2, "next", phone, "x")
	r.consumers("another one, a round later", untouched(simulator.ChannelWhatsApp2))
	reachable()
	stop()
	r.start(sender.OpenFor(cfg, time.Second))
	for _, e := range r.finals(23) {
		if e.State != schema.StateSent {
			t.Errorf("%s ended %s %+v, want sent", e.ID, e.State, e.Error)
		}
	}
	r.ops(schema.OpsBreakerClosed)
}
