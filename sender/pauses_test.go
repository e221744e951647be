package sender_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
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
	if paused, resumed := r.opsCount(schema.OpsLanePaused), r.opsCountOnce(schema.OpsLaneResumed, 1); paused != 1 || resumed != 1 {
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
			cfg.SpamLimit, cfg.SpamWindow = 3, time.Hour
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

// A flood of statuses 19 is one pause, which the last of them ends.
func TestFloodIsToldOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.FloodPause = time.Hour
	r.start(cfg)
	for i := range 4 {
		id := fmt.Sprint("a-", i)
		r.status(r.event(r.send(id, phone, "x"), schema.StateSent).MessageID, "failed", 19)
		r.event(id, schema.StateFailed)
	}
	first := r.ops(schema.OpsLanePaused)
	if err := waitFor(t, func() bool { return r.lanes()["bulk"].OpensOn > first.OpensOn }); err != nil {
		t.Errorf("%v: the pause should last until after %s", err, first.OpensOn)
	}
	r.laneRequest("resume", "bulk")
	if n := r.opsCount(schema.OpsLanePaused); n != 1 {
		t.Errorf("lane.paused was told %d times, want once", n)
	}
}

// A status that is read again after a crash pauses nothing that a person has resumed,
// and makes no pause longer than it was: neither the one of a flood nor the spam brake.
func TestStatusIsReadAgain(t *testing.T) {
	t.Parallel()
	for _, status := range []int{18, 19} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.FloodPause, cfg.SpamLimit = time.Hour, 2
			w := r.startDoomed(cfg)
			var ids []string
			for i := range 2 {
				ids = append(ids, r.event(r.send(fmt.Sprint("a-", i), phone, "x"), schema.StateSent).MessageID)
			}
			for _, id := range ids {
				r.status(id, "failed", status)
			}
			r.ops(schema.OpsLanePaused)
			r.event("a-0", schema.StateFailed)
			r.event("a-1", schema.StateFailed)
			r.laneRequest("resume", "bulk")
			w.die() // before it noted how far it had read
			r.start(cfg)
			r.send("b", phone, "x")
			r.event("b", schema.StateSent)
			r.status(r.event("b", schema.StateSent).MessageID, "failed", 17)
			r.event("b", schema.StateFailed) // all statuses before it were read
			r.event(r.bulk("on", phone), schema.StateSent)
			if n := r.opsCount(schema.OpsLanePaused); n != 1 {
				t.Errorf("lane.paused was told %d times, want once", n)
			}
		})
	}
}

// The brake holds whatever an operator does beside it: what is rated as spam while
// the class is paused by hand brakes it, an operator's pause does not hide the brake,
// and only lane.resume forgives.
func TestSpamBrakeBesideAnOperator(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.SpamLimit, cfg.SpamWindow = 2, time.Hour
	r.rule(simulator.Rule{Match: simulator.Match{Text: "spam"}, Status: 400, Code: "MESSAGES_IS_SPAM"})
	w := r.startDoomed(cfg)
	spam := func(id string) { r.event(r.send(id, phone, "spam"), schema.StateRejected) }
	reason := func(want string) {
		t.Helper()
		if err := waitFor(t, func() bool { return r.lanes()["bulk"].Reason == want }); err != nil {
			t.Errorf("%v for the reason %q: %+v", err, want, r.lanes()["bulk"])
		}
	}
	r.laneRequest("pause", "bulk")
	spam("1")
	reason("operator")
	spam("2")
	reason("spam")
	r.laneRequest("pause", "bulk") // hides nothing
	reason("spam")
	w.die()
	r.start(cfg)
	r.bulk("held", phone)
	reason("spam")
	r.laneRequest("resume", "bulk")
	r.event("held", schema.StateSent)
	spam("3") // the first since
	r.event(r.bulk("on", phone), schema.StateSent)
	r.laneRequest("pause", "bulk")
	r.laneRequest("resume", "bulk") // of another pause: it forgives nothing
	spam("4")
	reason("spam")
	if n := r.opsCountOnce(schema.OpsLanePaused, 4); n != 4 { // operator, spam, operator, spam
		t.Errorf("lane.paused was told %d times, want 4", n)
	}
}

// What was rated longer ago than the window counts no more.
func TestSpamBrakeForgets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.SpamLimit, cfg.SpamWindow = 3, time.Hour
	r.asFormerOwner(func(l *queue.Ledger) {
		ago := func(d time.Duration) queue.SpamMark { return queue.SpamMark{At: time.Now().Add(-d).UnixMilli()} }
		record := &queue.GateRecord{ChannelID: simulator.ChannelWhatsApp, Spam: []queue.SpamMark{ago(2 * time.Hour), ago(61 * time.Minute), ago(59 * time.Minute)}}
		done := make(chan error, 1)
		if err := l.PutGate(record, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
	r.rule(simulator.Rule{Match: simulator.Match{Text: "spam"}, Status: 400, Code: "MESSAGES_IS_SPAM"})
	r.start(cfg)
	r.event(r.send("1", phone, "spam"), schema.StateRejected)
	r.event(r.bulk("on", phone), schema.StateSent)
	if n := r.opsCount(schema.OpsLanePaused); n != 0 {
		t.Error("it braked for messages of former times")
	}
	r.event(r.send("2", phone, "spam"), schema.StateRejected) // the third within the hour
	if e := r.ops(schema.OpsLanePaused); e.Reason != "spam" {
		t.Errorf("got %+v", e)
	}
}

// A status 18 counts, though its owner dies when it is recorded with its command and
// not with the channel, and counts once, though it is read again.
func TestSpamIsCountedOnceThroughACrash(t *testing.T) {
	t.Parallel()
	for _, lose := range []string{"the mark", "the position"} {
		t.Run(lose+" is lost", func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.SpamLimit, cfg.SpamWindow = 2, time.Hour
			gone := make(chan struct{})
			var once sync.Once
			dead := false
			c := newCutter(t, r.srv.URL(), func(toClient bool, frame []byte) bool {
				mark := !toClient && bytes.HasPrefix(frame, []byte("PUB wz.main.f.")) && bytes.Contains(frame, []byte(`"sm":[`))
				told := !toClient && bytes.HasPrefix(frame, []byte("HPUB wazzup.main.evt.command.failed."))
				if lose == "the mark" && mark || lose == "the position" && told {
					once.Do(func() { dead = true; close(gone) })
				}
				return !toClient && dead
			})
			nc := queuetest.Conn(t, c)
			stop := r.startOn(nc, cfg)
			sent := r.event(r.send("a", phone, "x"), schema.StateSent)
			r.event(r.bulk("warm", phone), schema.StateSent)
			r.status(sent.MessageID, "failed", 18)
			<-gone
			nc.Close()
			stop()
			r.expireLease()
			r.start(cfg)
			r.event("a", schema.StateFailed)
			r.event(r.bulk("one", phone), schema.StateSent)
			if lane := r.lanes()["bulk"]; lane.State != "open" {
				t.Errorf("lane after one message: got %+v", lane)
			}
			r.status(r.event(r.send("b", phone, "x"), schema.StateSent).MessageID, "failed", 18)
			if e := r.ops(schema.OpsLanePaused); e.Reason != "spam" {
				t.Errorf("got %+v", e)
			}
		})
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

// A channel that may come back without a word is tried with one call at a time; the
// others follow only when one was taken. Until then it is closed since it closed,
// and nothing is told.
func TestTryIsOneCall(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := sender.Longest(r.config())
	cfg.Backoff = sender.Backoff{Min: 50 * time.Millisecond, Max: 400 * time.Millisecond}
	address, release := r.holdAnswers(`"x"`, 2) // that to the second try
	cfg.APIURL, cfg.Timeout = address, patience
	r.start(cfg)
	r.event(r.send("warm", phone, "up"), schema.StateSent)
	r.channelsRead()
	send := simulator.Match{Path: "/v2/send_message"}
	if err := r.sim.AddRule(
		simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 500},
		simulator.Rule{Match: send, Times: 3, Status: 400, Code: "MESSAGE_CHANNEL_UNAVAILABLE"},
		simulator.Rule{Match: send, Times: 1, Status: 429, Headers: map[string]string{"Retry-After": "0"}}, // says nothing of it
		simulator.Rule{Match: send, Times: 1, Status: 400, Code: "VALIDATION_ERROR"},                       // nor this
		simulator.Rule{Match: send, Delay: simulator.Duration(100 * time.Millisecond)},
	); err != nil {
		t.Fatal(err)
	}
	r.send("refused", phone, "x")
	r.ops(schema.OpsLaneClosed)
	since := *r.lanes()["send"].Since
	for i := range 10 {
		r.send(fmt.Sprint("c-", i), fmt.Sprintf("7900000%04d", i), "x")
	}
	r.reached("two tries", func(v *simulator.View) bool { return v.Sends == 4 })
	if lane := r.lanes()["send"]; lane.State != "closed" || !lane.Since.Equal(since) || lane.OpensOn != sender.ReopenOnProbe {
		t.Errorf("lane after two tries: got %+v, want it closed since %v", lane, since)
	}
	release()
	r.finals(12)
	sends := r.sim.Sends()[1:]
	for i, least := range []int64{99, 199, 399, 0, 0, 100} { // milliseconds
		if gap := sends[i+1].Time.Sub(sends[i].Time); gap.Milliseconds() < least {
			t.Errorf("call %d began %v after the one before, want %d ms", i+2, gap, least)
		}
	}
	r.ops(schema.OpsLaneOpened)
	if closed, opened := r.opsCount(schema.OpsLaneClosed), r.opsCount(schema.OpsLaneOpened); closed != 1 || opened != 1 {
		t.Errorf("told %d times that it closed and %d times that it opened, want once", closed, opened)
	}
}

// The list that repeats a state does not put off the try, and does not close what a
// call has shown to be well, not even through a change of owners.
func TestRepeatedStateIsNoNews(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.ChannelsPoll = 10 * time.Millisecond
	cfg.Backoff = sender.Backoff{Min: 400 * time.Millisecond, Max: 400 * time.Millisecond}
	w := r.startDoomed(cfg)
	r.event(r.send("warm", phone, "up"), schema.StateSent)
	word := fmt.Sprintf(`{"channelId":%q,"transport":"whatsapp","state":"phoneUnavailable"}`, simulator.ChannelWhatsApp)
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 200, Body: "[" + word + "]"}) // and takes messages
	if _, err := r.js.Publish(t.Context(), schema.ChannelEventSubject("main", simulator.ChannelWhatsApp, simulator.StatePhoneUnavailable), []byte(word)); err != nil {
		t.Fatal(err)
	}
	r.ops(schema.OpsLaneClosed)
	r.send("held", phone, "x")
	polled := func(n int) {
		t.Helper()
		before := r.lists()
		if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return r.lists() >= before+n }); err != nil {
			t.Fatal(err)
		}
	}
	polled(5)
	w.die() // closed, with a command at its head: the next one tries
	w = r.startDoomed(cfg)
	r.event("held", schema.StateSent)
	r.ops(schema.OpsLaneOpened)
	polled(5)
	r.event(r.send("next", phone, "x"), schema.StateSent)
	w.die()
	stop := r.start(cfg)
	r.event(r.send("another", phone, "x"), schema.StateSent)
	polled(5)
	stop()
	if closed, opened := r.opsCount(schema.OpsLaneClosed), r.opsCount(schema.OpsLaneOpened); closed != 1 || opened != 1 {
		t.Errorf("told %d times that it closed and %d times that it opened, want once", closed, opened)
	}
}

// lists counts readings of the channel list.
func (r *rig) lists() (n int) {
	for _, q := range r.sim.Requests() {
		if q.Path == "/v2/channels" {
			n++
		}
	}
	return n
}
