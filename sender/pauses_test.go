package sender_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// lanes lists the lanes of the test's channel by class.
func (r *rig) lanes() map[string]sender.LaneItem {
	r.t.Helper()
	got := r.ask("lanes.list", `{}`)
	var list sender.LaneList
	if err := json.Unmarshal(got.Body, &list); got.Code != "" || err != nil {
		r.t.Fatalf("lanes.list: %s %v %s", got.Code, err, got.Body)
	}
	lanes := make(map[string]sender.LaneItem)
	for _, item := range list.Items {
		if item.ChannelID == simulator.ChannelWhatsApp {
			lanes[item.Class] = item
		}
	}
	return lanes
}

// laneRequest pauses or resumes a class of the test's channel; "" = both.
func (r *rig) laneRequest(what, class string) {
	r.t.Helper()
	body := fmt.Sprintf(`{"channelId":%q,"class":%q}`, simulator.ChannelWhatsApp, class)
	if class == "" {
		body = fmt.Sprintf(`{"channelId":%q}`, simulator.ChannelWhatsApp)
	}
	if got := r.ask("lane."+what, body); got.Code != "" {
		r.t.Fatalf("lane.%s %s: %s %+v", what, class, got.Code, got.Error)
	}
}

func (r *rig) bulk(id, chat string) string {
	r.t.Helper()
	return r.bulkText(id, chat, "x")
}

func (r *rig) bulkText(id, chat, text string) string {
	r.t.Helper()
	return r.publish(schema.KindBulk, id, fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":%q,"text":%q}`, id, chat, text))
}

// opsCount counts the stored operator events of a name.
func (r *rig) opsCount(name schema.OpsName) int {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	subject := schema.OpsEventSubject("main", name)
	info, err := s.Info(r.t.Context(), jetstream.WithSubjectFilter(subject))
	if err != nil {
		r.t.Fatal(err)
	}
	return int(info.State.Subjects[subject]) //nolint:gosec // a few
}

// An operator's pause stops its class and no other, through a hand-over and the
// death of its owner, until somebody resumes it; each change is told once.
func TestPauseOutlivesItsOwner(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := r.startDoomed(r.config())
	r.laneRequest("pause", "bulk")
	r.laneRequest("pause", "bulk") // again: nothing new
	for i := range 5 {
		r.bulk(fmt.Sprint("bulk-", i), fmt.Sprintf("7900000%04d", i))
	}
	r.event(r.send("send-1", phone, "x"), schema.StateSent)
	lane := r.lanes()["bulk"]
	if lane.State != "paused" || lane.Reason != "operator" || lane.OpensOn != "lane.resume" || lane.Since == nil || lane.Backlog != 5 || lane.Oldest == nil {
		t.Errorf("paused lane: got %+v", lane)
	}
	if lane := r.lanes()["send"]; lane.State != "open" {
		t.Errorf("the other class: got %+v, want it open", lane)
	}
	first.die()
	second := r.start(r.config())
	r.event(r.send("send-2", phone, "x"), schema.StateSent)
	second()
	r.start(r.config())
	r.event(r.send("send-3", phone, "x"), schema.StateSent)
	if lane := r.lanes()["bulk"]; lane.State != "paused" || lane.Backlog != 5 {
		t.Errorf("after two changes of owners: got %+v, want it paused", lane)
	}
	if n := len(r.sim.Sends()); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
	r.laneRequest("resume", "")
	r.finals(8)
	r.emptied()
	if got := r.lanes()["bulk"]; got.State != "open" || got.Backlog != 0 {
		t.Errorf("resumed lane: got %+v", got)
	}
	if paused, resumed := r.opsCount(schema.OpsLanePaused), r.opsCount(schema.OpsLaneResumed); paused != 1 || resumed != 1 {
		t.Errorf("events: %d paused, %d resumed; want one of each", paused, resumed)
	}
	if e := r.ops(schema.OpsLanePaused); e.Class != "bulk" || e.ChannelID != simulator.ChannelWhatsApp || e.Reason != "operator" || e.OpensOn != "lane.resume" {
		t.Errorf("event: got %+v", e)
	}
	wantWait(t, r.whole("bulk-0"), "paused", "operator", time.Millisecond)
}

func TestLaneRequestsRefuse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	for _, tt := range []struct{ name, body string }{
		{"lane.pause", `{}`},
		{"lane.pause", `{"channelId":"x"}`},
		{"lane.pause", `{"channelId":"` + simulator.ChannelWhatsApp + `","class":"sync"}`},
		{"lane.resume", `{"channel":"x"}`},
		{"lanes.list", `{"offset":-1}`},
		{"lanes.list", `{"orderBy":"name"}`},
		{"lanes.list", `{"orderDirection":"up"}`},
	} {
		if got := r.ask(tt.name, tt.body); got.Code != "400" {
			t.Errorf("%s %s: got %q %+v, want 400", tt.name, tt.body, got.Code, got.Error)
		}
	}
}

// Messages that the vendor rates as spam stop the bulk class of their channel, by
// its answer or by a late status; the transactional class goes on, and the brake
// holds through a restart until a person releases it.
func TestSpamBrake(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		t.Run(map[bool]string{false: "by the answer", true: "by status 18"}[late], func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.SpamLimit, cfg.SpamWindow = 3, time.Minute
			if !late {
				if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Text: "spam"}, Status: 400, Code: "MESSAGES_IS_SPAM"}); err != nil {
					t.Fatal(err)
				}
			}
			w := r.startDoomed(cfg)
			spam := func(id string) {
				r.send(id, phone, "spam")
				if !late {
					r.event(id, schema.StateRejected)
					return
				}
				r.status(r.event(id, schema.StateSent).MessageID, "failed", 18)
				r.event(id, schema.StateFailed)
			}
			spam("spam-1")
			spam("spam-2")
			r.event(r.bulk("before", phone), schema.StateSent)
			r.emptied() // or its acknowledgement may be lost, and it is of the paused lane's backlog
			w.die()     // what was counted is not forgotten
			w = r.startDoomed(cfg)
			spam("spam-3")
			if e := r.ops(schema.OpsLanePaused); e.Class != "bulk" || e.Reason != "spam" || e.OpensOn != "lane.resume" {
				t.Errorf("event: got %+v", e)
			}
			r.bulk("after", phone)
			r.event(r.send("code", phone, "1234"), schema.StateSent)
			w.die()
			r.start(cfg)
			r.event(r.send("code-2", phone, "1234"), schema.StateSent)
			if lane := r.lanes()["bulk"]; lane.State != "paused" || lane.Reason != "spam" || lane.Backlog != 1 {
				t.Errorf("lane: got %+v, want it paused for spam", lane)
			}
			r.laneRequest("resume", "bulk")
			r.event("after", schema.StateSent)
			spam("spam-4") // counted from one again
			r.event(r.bulk("still", phone), schema.StateSent)
			if n := r.opsCount(schema.OpsLanePaused); n != 1 {
				t.Errorf("%d pauses, want 1", n)
			}
		})
	}
}

// Status 19 pauses the channel's bulk class for a time, and it goes on by itself.
func TestFloodPause(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.FloodPause = 1500 * time.Millisecond
	stop := r.start(cfg)
	sent := r.event(r.send("a", phone, "x"), schema.StateSent)
	began := time.Now()
	r.status(sent.MessageID, "failed", 19)
	if e := r.ops(schema.OpsLanePaused); e.Class != "bulk" || e.Reason != "flood" || e.OpensOn == "" {
		t.Errorf("event: got %+v", e)
	}
	r.bulk("held", phone)
	r.event(r.send("b", phone, "x"), schema.StateSent)
	stop()
	r.start(cfg)
	r.event("held", schema.StateSent)
	if took := time.Since(began); took < cfg.FloodPause {
		t.Errorf("the bulk class went on after %v, want %v", took, cfg.FloodPause)
	}
	if e := r.ops(schema.OpsLaneResumed); e.Reason != "time" || e.Class != "bulk" {
		t.Errorf("event: got %+v", e)
	}
}

// A closed channel and a closed account stay closed when their owner dies: the
// next one makes no call before it learns better, and tells nothing again.
func TestClosuresOutliveTheirOwner(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		rule  simulator.Rule
		event schema.OpsName
	}{
		{"channel", simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Status: 400, Code: "CHANNEL_NO_MONEY"}, schema.OpsLaneClosed},
		{"account", simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Status: 401}, schema.OpsAccountClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			w := r.startDoomed(cfg)
			r.event(r.send("warm", phone, "up"), schema.StateSent)
			r.channelsRead()
			lists := simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 500}
			if err := r.sim.AddRule(lists, tt.rule); err != nil {
				t.Fatal(err)
			}
			r.send("held", phone, "x")
			r.ops(tt.event)
			w.die()
			before := len(r.sim.Sends())
			r.start(cfg)
			lane := r.lanes()["send"]
			if lane.State != "closed" || lane.Reason == "" || lane.OpensOn == "" || lane.Since == nil || lane.Backlog != 1 {
				t.Errorf("lane of the next owner: got %+v, want it closed", lane)
			}
			r.send("more", "79000000001", "x")
			if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return r.listsRefused() > 2 }); err != nil {
				t.Fatal(err)
			}
			if n := len(r.sim.Sends()); n != before {
				t.Errorf("%d calls while closed", n-before)
			}
			if n := r.opsCount(tt.event); n != 1 {
				t.Errorf("%d events %s, want 1", n, tt.event)
			}
			r.sim.ClearRules()
			r.event("held", schema.StateSent)
			r.event("more", schema.StateSent)
		})
	}
}

// listsRefused counts readings of the channel list that failed.
func (r *rig) listsRefused() (n int) {
	for _, q := range r.sim.Requests() {
		if q.Path == "/v2/channels" && q.Status == 500 {
			n++
		}
	}
	return n
}

// A channel that is opened for a try gets one call, and the others follow only
// when that one was well.
func TestTryIsOneCall(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.Backoff = sender.Backoff{Min: 50 * time.Millisecond, Max: 100 * time.Millisecond}
	r.start(cfg)
	r.event(r.send("warm", phone, "up"), schema.StateSent)
	r.channelsRead()
	if err := r.sim.AddRule(
		simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 500},
		simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Times: 1, Status: 400, Code: "MESSAGE_CHANNEL_UNAVAILABLE"},
		simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Delay: simulator.Duration(100 * time.Millisecond)},
	); err != nil {
		t.Fatal(err)
	}
	r.send("refused", phone, "x")
	r.ops(schema.OpsLaneClosed)
	for i := range 10 {
		r.send(fmt.Sprint("c-", i), fmt.Sprintf("7900000%04d", i), "x")
	}
	r.finals(12)
	sends := r.sim.Sends()[2:] // after the refused one
	if gap := sends[1].Time.Sub(sends[0].Time); gap < 100*time.Millisecond {
		t.Errorf("the second call began %v after the try, before that was answered", gap)
	}
}
