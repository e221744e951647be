package sender_test

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// gatePoint is a write of a gate's change, at which its owner loses NATS for good.
type gatePoint string

const (
	gateNotStored  gatePoint = "record not stored"
	gateStored     gatePoint = "record stored, the answer lost"
	eventNotStored gatePoint = "event not stored"
	eventStored    gatePoint = "event stored, the answer lost"
	notForgotten   gatePoint = "event told, the record still has it"
)

// dyingAt starts a worker that loses NATS for good at a point of the change that an
// event tells of.
func (r *rig) dyingAt(cfg sender.Config, name schema.OpsName, at gatePoint) (lost <-chan struct{}, die func()) {
	r.t.Helper()
	gone := make(chan struct{})
	lose := sync.OnceFunc(func() { close(gone) })
	var mu sync.Mutex
	passed, told, dead := false, false, false
	c := newCutter(r.t, r.srv.URL(), func(toClient bool, frame []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		gate := !toClient && bytes.HasPrefix(frame, []byte("PUB wz.main.f.")) && bytes.Contains(frame, []byte(".c."))
		tells := gate && bytes.Contains(frame, []byte(`"name":"`+string(name)+`"`))
		event := !toClient && bytes.HasPrefix(frame, []byte("HPUB "+schema.OpsEventSubject("main", name)+" "))
		told = told || event
		cut := false
		switch at {
		case gateNotStored:
			cut = tells
		case gateStored:
			cut = passed && toClient && bytes.Contains(frame, []byte("MSG "))
			passed = passed || tells
		case eventNotStored:
			cut = event
		case eventStored:
			cut = passed && toClient && bytes.Contains(frame, []byte("MSG "))
			passed = passed || event
		case notForgotten:
			cut = told && gate && !tells
		}
		if cut && !dead {
			dead = true
			lose()
		}
		return dead
	})
	nc := queuetest.Conn(r.t, c)
	stop := r.startOn(nc, cfg)
	return gone, func() {
		nc.Close()
		stop()
		r.expireLease()
	}
}

// An owner dies between any two writes of a gate's change: what was stored holds for
// the next one, and the change is told once, neither lost nor repeated.
func TestGateChangesAreToldOnceThroughACrash(t *testing.T) {
	t.Parallel()
	ask := func(r *rig, what string) {
		body := fmt.Sprintf(`{"channelId":%q,"class":"bulk"}`, simulator.ChannelWhatsApp)
		if err := r.nc.PublishRequest(schema.APISubject("main", "lane."+what), r.nc.NewInbox(), []byte(body)); err != nil {
			r.t.Fatal(err)
		}
	}
	wrongKey := func(r *rig) {
		r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/*"}, Status: 401})
		if err := r.nc.PublishRequest(schema.APISubject("main", "users.list"), r.nc.NewInbox(), nil); err != nil {
			r.t.Fatal(err)
		}
	}
	// A lane that nothing is known of is open.
	stateOf := func(r *rig) string { return cmp.Or(r.lanes()["bulk"].State, "open") }
	for _, change := range []struct {
		name    schema.OpsName
		before  func(r *rig)
		make    func(r *rig)
		state   string // of the lane afterwards
		former  string // before it
		learned bool   // the next owner learns of it anew, if it was not stored
	}{
		{schema.OpsLanePaused, nil, func(r *rig) { ask(r, "pause") }, "paused", "open", false},
		{schema.OpsLaneResumed, func(r *rig) { r.laneRequest("pause", "bulk") }, func(r *rig) { ask(r, "resume") }, "open", "paused", false},
		{schema.OpsLaneClosed, nil, func(r *rig) { r.channelEvent(simulator.StateNotEnoughMoney) }, "closed", "open", true},
		{schema.OpsLaneOpened, func(r *rig) {
			r.channelEvent(simulator.StateNotEnoughMoney)
			r.ops(schema.OpsLaneClosed)
		}, func(r *rig) { r.channelEvent(simulator.StateActive) }, "open", "closed", true},
		{schema.OpsAccountClosed, nil, wrongKey, "closed", "open", true},
	} {
		for _, at := range []gatePoint{gateNotStored, gateStored, eventNotStored, eventStored, notForgotten} {
			for _, window := range []time.Duration{0, 100 * time.Millisecond} {
				if window > 0 && at != eventStored && at != eventNotStored {
					continue
				}
				name := fmt.Sprintf("%s, %s", change.name, at)
				if window > 0 {
					name += ", beyond the duplicate window"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					r := newRig(t)
					cfg := r.config()
					cfg.ChannelsPoll = time.Hour
					cfg.Limits.DedupeWindow = window
					r.send("warm", phone, "up")
					r.bulk("warm-bulk", phone)
					lost, die := r.dyingAt(cfg, change.name, at)
					r.event("warm", schema.StateSent)
					r.event("warm-bulk", schema.StateSent)
					r.channelsRead()
					if change.before != nil {
						change.before(r)
					}
					change.make(r)
					select {
					case <-lost:
					case <-time.After(patience):
						t.Fatal("the worker never came to the point")
					}
					die()

					r.bulk("next", phone) // the lane has something to be listed for
					cfg.Worker = "worker-2"
					stop := r.start(cfg)
					want, state := 1, change.state
					if at == gateNotStored && !change.learned {
						want, state = 0, change.former
					}
					if change.learned {
						r.ops(change.name)
					}
					if got := stateOf(r); got != state {
						t.Errorf("lane of the next owner: got it %s, want %s", got, state)
					}
					stop() // what it had to tell is told
					if n := r.opsCount(change.name); n != want {
						t.Errorf("%s was told %d times, want %d", change.name, n, want)
					}
					stop = r.start(cfg)
					if got := stateOf(r); got != state {
						t.Errorf("lane of the third owner: got it %s, want %s", got, state)
					}
					stop()
					if n := r.opsCount(change.name); n != want {
						t.Errorf("%s was told %d times after another change of owners, want %d", change.name, n, want)
					}
				})
			}
		}
	}
}

// A lane goes on only when it is stored that it does: whoever dies before has called
// nothing through a gate that the next owner finds closed.
func TestOpeningIsStoredBeforeItTakesEffect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		close  func(r *rig)
		closed schema.OpsName
		open   func(r *rig)
		gate   string // in the record's frame
	}{
		{"a pause", func(r *rig) { r.laneRequest("pause", "") }, schema.OpsLanePaused, func(r *rig) {
			body := fmt.Sprintf(`{"channelId":%q}`, simulator.ChannelWhatsApp)
			if err := r.nc.PublishRequest(schema.APISubject("main", "lane.resume"), r.nc.NewInbox(), []byte(body)); err != nil {
				r.t.Fatal(err)
			}
		}, "lane.resumed"},
		{
			"a closed channel", func(r *rig) { r.channelEvent(simulator.StateNotEnoughMoney) }, schema.OpsLaneClosed,
			func(r *rig) { r.channelEvent(simulator.StateActive) }, "lane.opened",
		},
		{"a closed account", func(r *rig) {
			r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/*"}, Status: 401})
			r.ask("users.list", "")
		}, schema.OpsAccountClosed, func(r *rig) { r.sim.ClearRules() }, "account.opened"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.ChannelsPoll = time.Hour
			nc, held, release := r.holdGate(tt.gate)
			r.startOn(nc, cfg)
			r.states(r.send("warm", phone, "up"))
			r.channelsRead()
			tt.close(r)
			r.ops(tt.closed)
			r.send("held", phone, "held")
			tt.open(r)
			select {
			case <-held:
			case <-time.After(patience):
				t.Fatal("the opening was never stored")
			}
			if tt.closed != schema.OpsAccountClosed {
				// What another channel is sent meanwhile would have come after it.
				other := fmt.Sprintf(`{"id":"other","chatType":"whatsapp","chatId":%q,"text":"x"}`, phone)
				if _, err := r.pub.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp2, []byte(other)); err != nil {
					t.Fatal(err)
				}
				r.event("other", schema.StateSent)
			}
			if lane := r.lanes()["send"]; lane.State == "open" || r.requested("held") {
				t.Errorf("the lane goes on before that is stored: %+v", lane)
			}
			close(release)
			r.event("held", schema.StateSent)
		})
	}
}

// What waits for an opening that is being stored, and closes again, is told in order
// and stays closed.
func TestClosingOvertakesAnOpening(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.ChannelsPoll = time.Hour
	nc, held, release := r.holdGate("lane.opened")
	stop := r.startOn(nc, cfg)
	r.states(r.send("warm", phone, "up"))
	r.channelsRead()
	r.channelEvent(simulator.StateNotEnoughMoney)
	r.ops(schema.OpsLaneClosed)
	r.send("held", phone, "held")
	r.channelEvent(simulator.StateActive)
	<-held
	r.channelEvent(simulator.StateDisabled)
	if err := waitFor(t, func() bool { return r.lanes()["send"].Reason == simulator.StateDisabled }); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := waitFor(t, func() bool { return r.opsCount(schema.OpsLaneClosed) == 2 }); err != nil {
		t.Fatal(err)
	}
	if lane := r.lanes()["send"]; lane.State != "closed" || lane.Reason != simulator.StateDisabled || r.requested("held") {
		t.Errorf("lane: got %+v", lane)
	}
	if n := r.opsCount(schema.OpsLaneOpened); n != 1 {
		t.Errorf("lane.opened was told %d times, want once", n)
	}
	stop()
	r.start(cfg)
	if lane := r.lanes()["send"]; lane.State != "closed" || lane.Reason != simulator.StateDisabled {
		t.Errorf("lane of the next owner: got %+v", lane)
	}
	r.channelEvent(simulator.StateActive)
	r.event("held", schema.StateSent)
}

// waitFor asks again until a condition holds that nothing signals.
func waitFor(t *testing.T, cond func() bool) error {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-timeout:
			return fmt.Errorf("%s: waited in vain", strings.TrimSpace(t.Name()))
		}
	}
	return nil
}

// holdGate connects so that a gate's record which tells an event of the name is held
// back until release is closed; held is closed when one is.
func (r *rig) holdGate(name string) (nc *nats.Conn, held, release chan struct{}) {
	r.t.Helper()
	held, release = make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(held) })
	c := newHolder(r.t, r.srv.URL(), func(toClient bool, frame []byte) <-chan struct{} {
		if toClient || !bytes.HasPrefix(frame, []byte("PUB wz.main.f.")) || !bytes.Contains(frame, []byte(`"name":"`+name+`"`)) {
			return nil
		}
		once()
		return release
	})
	return queuetest.Conn(r.t, c), held, release
}
