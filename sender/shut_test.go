package sender_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// heldClaim holds back the confirmation of one command's claim.
type heldClaim struct {
	held, release chan struct{}
	reply         []byte // where it is confirmed
	confirmed     bool   // later writes are confirmed there too
}

// startHeld starts a worker whose claim of a command is confirmed only when the
// test says so. text is what only that claim's record contains.
func (r *rig) startHeld(cfg sender.Config, text string) *heldClaim {
	r.t.Helper()
	h := &heldClaim{held: make(chan struct{}), release: make(chan struct{})}
	replies := make(chan []byte, 1)
	c := newHolder(r.t, r.srv.URL(), func(toClient bool, frame []byte) <-chan struct{} {
		if !toClient && bytes.HasPrefix(frame, []byte("HPUB wz.main.f.")) && bytes.Contains(frame, []byte(text)) {
			select {
			case replies <- append([]byte(" "), append(bytes.Fields(frame)[2], ' ')...):
			default: // the second claim
			}
		}
		if !toClient || !bytes.HasPrefix(frame, []byte("MSG ")) {
			return nil
		}
		if h.reply == nil {
			select {
			case h.reply = <-replies:
			default:
				return nil
			}
		}
		if h.confirmed || !bytes.Contains(frame, h.reply) {
			return nil
		}
		h.confirmed = true
		close(h.held)
		return h.release
	})
	r.startOn(queuetest.Conn(r.t, c), cfg)
	return h
}

// A command whose claim is on its way when its gate closes is not called any more,
// whatever closed it: it waits, spends no attempt, and goes on when the gate opens.
func TestNoCallStartsAfterAGateHasClosed(t *testing.T) {
	t.Parallel()
	refuse := func(rule simulator.Rule) func(r *rig) {
		return func(r *rig) {
			rule.Match = simulator.Match{Path: "/v2/send_message", Text: "refused"}
			r.rule(rule)
			r.send("refused", "79000000001", "refused")
		}
	}
	for _, tt := range []struct {
		name  string
		sync  bool
		close func(r *rig) // until the worker knows
		open  func(r *rig)
		code  string
	}{
		{"a 401", false, func(r *rig) {
			r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 401})
			refuse(simulator.Rule{Status: 401, Times: 1})(r)
			r.ops(schema.OpsAccountClosed)
		}, func(r *rig) { r.sim.ClearRules() }, "HTTP_401"},
		{"a 401, of a change", true, func(r *rig) {
			r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 401})
			refuse(simulator.Rule{Status: 401, Times: 1})(r)
			r.ops(schema.OpsAccountClosed)
		}, func(r *rig) { r.sim.ClearRules() }, ""},
		{"a 401 to a request", false, func(r *rig) {
			// The list's own answer comes too late to close anything.
			r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 401, Delay: simulator.Duration(time.Second)})
			r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/users"}, Status: 401})
			if got := r.ask("users.list", ""); got.Code != "401" {
				r.t.Errorf("users.list: got %s %+v", got.Code, got.Error)
			}
		}, func(r *rig) { r.sim.ClearRules() }, "HTTP_401"},
		{"no account", false, func(r *rig) {
			r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 400, Code: "ACCOUNT_NOT_FOUND"})
			refuse(simulator.Rule{Status: 400, Code: "ACCOUNT_NOT_FOUND", Times: 1})(r)
			r.ops(schema.OpsAccountClosed)
		}, func(r *rig) { r.sim.ClearRules() }, "ACCOUNT_NOT_FOUND"},
		{"the channel's refusal", false, func(r *rig) {
			refuse(simulator.Rule{Status: 400, Code: "CHANNEL_NO_MONEY", Times: 1})(r)
			r.ops(schema.OpsLaneClosed)
		}, func(r *rig) { r.channelEvent(simulator.StateActive) }, "CHANNEL_NO_MONEY"},
		{"the channel's state", false, func(r *rig) {
			r.channelEvent(simulator.StateNotEnoughMoney)
			r.ops(schema.OpsLaneClosed)
		}, func(r *rig) { r.channelEvent(simulator.StateActive) }, simulator.StateNotEnoughMoney},
		{"an operator's pause", false, func(r *rig) { r.laneRequest("pause", "send") }, func(r *rig) { r.laneRequest("resume", "send") }, ""},
		{"a 429", false, func(r *rig) {
			refuse(simulator.Rule{Status: 429, Headers: map[string]string{"Retry-After": "5"}, Times: 1})(r)
			r.event("refused", schema.StateRetrying)
		}, func(*rig) {}, ""},
		{"a breaker", false, func(r *rig) {
			r.rule(simulator.Rule{Match: simulator.Match{Text: "lost"}, Fault: simulator.FaultDropBeforeRead})
			for i := range 5 {
				r.send(fmt.Sprint("lost-", i), fmt.Sprintf("7900000%04d", i), "lost")
			}
			r.ops(schema.OpsBreakerOpened)
		}, func(*rig) {}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.ChannelsPoll = time.Hour
			h := r.startHeld(cfg, `{"t":"claim","id":"late"`)
			r.states(r.send("warm", phone, "up"))
			r.channelsRead()
			if tt.sync {
				r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": "a"}, queue.WithID("late"))
			} else {
				r.send("late", phone, "late")
			}
			<-h.held
			tt.close(r)
			called := func() (n int) {
				for _, q := range r.sim.Requests() {
					if q.Path == "/v2/contacts" || strings.Contains(string(q.Body), `"late"`) {
						n++
					}
				}
				return n
			}
			close(h.release)
			r.waitStep("late", "retry")
			if n := called(); n != 0 {
				t.Errorf("the vendor was called %d times after the gate had closed", n)
			}
			if got := r.whole("late").Steps; len(got) < 3 || got[2].Phase != schema.PhaseNotSent && !tt.sync || got[2].Code != tt.code {
				t.Errorf("timeline: got %+v", got)
			}
			tt.open(r)
			want := schema.StateSent
			if tt.sync {
				want = schema.StateDone
			}
			if got := r.states("late"); fmt.Sprint(got) != fmt.Sprint([]schema.State{want}) {
				t.Errorf("got %v, want only %s", got, want)
			}
			if n := called(); n != 1 {
				t.Errorf("the vendor was called %d times, want once", n)
			}
		})
	}
}

// The answer to a call that began before the account, or its channel, was opened
// again says nothing of it now: nothing closes again, and nothing is told again.
func TestRefusalOfFormerTimes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		status         int
		code           string
		closed, opened schema.OpsName
	}{
		{"account", 401, "", schema.OpsAccountClosed, schema.OpsAccountOpened},
		{"channel", 400, "CHANNEL_NO_MONEY", schema.OpsLaneClosed, schema.OpsLaneOpened},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.ChannelsPoll = time.Hour
			r.start(cfg)
			r.states(r.send("warm", phone, "up"))
			r.channelsRead()
			for text, delay := range map[string]time.Duration{"slow": time.Second, "quick": 0} {
				r.rule(simulator.Rule{Match: simulator.Match{Text: text}, Status: tt.status, Code: tt.code, Times: 1, Delay: simulator.Duration(delay)})
			}
			r.send("slow", "79000000001", "slow")
			if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return r.requested("slow") }); err != nil {
				t.Fatal(err)
			}
			r.send("quick", "79000000002", "quick")
			r.ops(tt.closed)
			if tt.closed == schema.OpsLaneClosed {
				r.channelEvent(simulator.StateActive)
			}
			r.ops(tt.opened)
			for _, id := range []string{"quick", "slow"} {
				if got := r.states(id); len(got) != 1 || got[0] != schema.StateSent {
					t.Errorf("%s: got %v, want only sent", id, got)
				}
			}
			if closed, opened := r.opsCount(tt.closed), r.opsCount(tt.opened); closed != 1 || opened != 1 {
				t.Errorf("closed %d times and opened %d times, want once", closed, opened)
			}
		})
	}
}
