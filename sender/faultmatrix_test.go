package sender_test

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// point is a moment in a command's life at which a worker loses NATS: at a write
// that the server does not get, or gets without being able to answer; or, without
// a write, while the vendor has the request.
type point struct {
	subject, text string // of the write's frame; both "": during the call
	stored        bool   // the server gets the write
}

func (p point) duringCall() bool { return p.subject == "" }

// matches reports whether a frame is the point's write.
func (p point) matches(frame []byte) bool {
	return bytes.HasPrefix(frame, []byte(p.subject)) && bytes.Contains(frame, []byte(p.text))
}

func record(step string, stored bool) point {
	return point{"HPUB wz.main.f.", `{"t":"` + step + `","id":"target"`, stored}
}

func event(state string, stored bool) point {
	return point{"HPUB wazzup.main.evt.command." + state + ".", `"id":"target"`, stored}
}

// faultRow is one thing that goes wrong with the first call of a command.
type faultRow struct {
	name   string
	vendor simulator.Rule // of the first request
	at     *point         // where NATS is lost; nil: nowhere
	calls  int            // requests until then, or until the vendor is asked again
	took   bool           // the vendor took the message
	// doubt: nobody knows what became of the call. Where NATS is lost it is so
	// only if the worker is lost too; in vain, even where it is not.
	doubt, inVain bool
	retried       bool // the call surely had no effect, and another follows
	ended         bool // its end is durable, so that the next of its chat may be under way
}

func faultRows() []faultRow {
	yes, slow := true, simulator.Duration(150*time.Millisecond)
	lost, unanswered := simulator.Rule{Fault: simulator.FaultDropBeforeRead}, simulator.Rule{Fault: simulator.FaultDropAfterAccept}
	unreachable := simulator.Rule{Fault: simulator.FaultRefuse, For: simulator.Duration(60 * time.Millisecond)}
	refused := simulator.Rule{Status: 400, Code: "MESSAGES_CAN_NOT_ADD"}
	at := func(p point) *point { return &p }
	index := at(point{"PUB wz.main.x.", `"id":"target"`, false})
	indexed := at(point{"PUB wz.main.x.", `"id":"target"`, true})
	return []faultRow{
		{name: "before the claim", at: at(record("claim", false)), calls: 1, took: true},
		{name: "claim stored, its answer lost", at: at(record("claim", true)), doubt: true},
		{name: "during the call", vendor: simulator.Rule{Delay: slow}, at: &point{}, calls: 1, took: true, doubt: true},
		{name: "answer not noted", at: index, calls: 1, took: true, doubt: true},
		{name: "answer noted, nothing else", at: indexed, calls: 1, took: true},
		{name: "end not stored", at: at(record("final", false)), calls: 1, took: true},
		{name: "end stored, its answer lost", at: at(record("final", true)), calls: 1, took: true, ended: true},
		{name: "event not stored", at: at(event("sent", false)), calls: 1, took: true, ended: true},
		{name: "event stored, its answer lost", at: at(event("sent", true)), calls: 1, took: true, ended: true},
		{name: "ack lost", at: &point{"PUB $JS.ACK.wazzup-main-commands.", "+ACK", false}, calls: 1, took: true, ended: true},

		{name: "request lost", vendor: lost, calls: 1, inVain: true},
		{name: "request lost, doubt not stored", vendor: lost, at: at(record("unknown", false)), calls: 1, inVain: true},
		{name: "request lost, doubt stored, its answer lost", vendor: lost, at: at(record("unknown", true)), calls: 1, inVain: true},
		{name: "request lost, event not stored", vendor: lost, at: at(event("unknown", false)), calls: 1, inVain: true},
		{name: "answer lost", vendor: unanswered, calls: 1, took: true, inVain: true},
		{name: "answer lost, doubt not stored", vendor: unanswered, at: at(record("unknown", false)), calls: 1, took: true, inVain: true},
		{name: "answer lost, doubt stored, its answer lost", vendor: unanswered, at: at(record("unknown", true)), calls: 1, took: true, inVain: true},
		{name: "answer lost, event not stored", vendor: unanswered, at: at(event("unknown", false)), calls: 1, took: true, inVain: true},
		{name: "no answer in time", vendor: simulator.Rule{Fault: simulator.FaultHang}, calls: 1, inVain: true},
		{name: "no answer in time, taken", vendor: simulator.Rule{Fault: simulator.FaultHang, Accept: &yes}, calls: 1, took: true, inVain: true},
		{name: "server error", vendor: simulator.Rule{Status: 500}, calls: 1, inVain: true},
		{name: "server error, taken", vendor: simulator.Rule{Status: 502, Accept: &yes}, calls: 1, took: true, inVain: true},
		{name: "answer without a message id", vendor: simulator.Rule{Status: 201, Body: "{}", Accept: &yes}, calls: 1, took: true, inVain: true},

		{name: "no connection", vendor: unreachable, retried: true},
		{name: "no connection, not recorded", vendor: unreachable, at: at(record("retry", false)), doubt: true, retried: true},
		{name: "no connection, recorded, its answer lost", vendor: unreachable, at: at(record("retry", true)), retried: true},
		{name: "refused for the moment", vendor: refused, calls: 1, retried: true},
		{name: "refused for the moment, not recorded", vendor: refused, at: at(record("retry", false)), calls: 1, doubt: true, retried: true},
		{name: "refused for the moment, recorded, its answer lost", vendor: refused, at: at(record("retry", true)), calls: 1, retried: true},
		{name: "refused for the moment, event not stored", vendor: refused, at: at(event("retrying", false)), calls: 1, retried: true},

		{name: "dead, not recorded", vendor: lost, at: at(record("final", false)), calls: 1, inVain: true},
		{name: "dead, its letter not stored", vendor: lost, at: &point{"HPUB wz.main.dead.", "", false}, calls: 1, inVain: true, ended: true},
		{name: "dead, its letter stored, the answer lost", vendor: lost, at: &point{"HPUB wz.main.dead.", "", true}, calls: 1, inVain: true, ended: true},
		{name: "dead, event not stored", vendor: lost, at: at(event("dead", false)), calls: 1, inVain: true, ended: true},
	}
}

// Who goes on after NATS was lost.
type successor string

const (
	sameGoesOn   successor = "the same worker goes on"
	sameRestarts successor = "the same worker restarts"
	anotherTakes successor = "another takes over"
)

// faultCase is a row in one of its columns.
type faultCase struct {
	faultRow
	who          successor
	resend, echo bool
}

func (row faultRow) cases() (all []faultCase) {
	columns := []successor{sameGoesOn}
	if row.at != nil {
		columns = []successor{sameGoesOn, sameRestarts, anotherTakes}
	}
	for _, who := range columns {
		c := faultCase{faultRow: row, who: who}
		if !c.inDoubt() {
			if who != sameGoesOn || row.at == nil || !row.at.duringCall() {
				all = append(all, c)
			}
			continue
		}
		for _, resend := range []bool{false, true} {
			if resend && row.at != nil && c.dies() {
				continue // it is called again instead of ending dead
			}
			c.resend, c.echo = resend, false
			all = append(all, c)
			if row.took {
				c.echo = true
				all = append(all, c)
			}
		}
	}
	return all
}

// dies reports whether the row is about the end of a dead one.
func (row faultRow) dies() bool { return len(row.name) > 5 && row.name[:5] == "dead," }

func (c faultCase) inDoubt() bool { return c.inVain || c.doubt && c.who != sameGoesOn }

func (c faultCase) String() string {
	name := fmt.Sprintf("%s, %s", c.name, c.who)
	if c.inDoubt() {
		name += map[bool]string{true: ", resend", false: ", reconcile"}[c.resend]
	}
	if c.echo {
		name += ", echo"
	}
	return name
}

// want is how the command ends and how often the vendor is asked.
func (c faultCase) want() (end schema.State, requests int) {
	switch {
	case !c.inDoubt() && c.retried:
		return schema.StateSent, c.calls + 1
	case !c.inDoubt():
		return schema.StateSent, max(c.calls, 1)
	case c.echo:
		return schema.StateSent, c.calls
	case c.resend:
		return schema.StateSent, c.calls + 1
	}
	return schema.StateDead, c.calls
}

// Whatever goes wrong with a call, and whoever goes on: the command ends once, the
// vendor is never asked blindly for a second time, dead letters are kept of dead
// commands only, the chat keeps its order, and nothing stays in the queue.
func TestFaultMatrix(t *testing.T) {
	t.Parallel()
	for _, row := range faultRows() {
		for _, c := range row.cases() {
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				c.run(newRig(t))
			})
		}
	}
}

func (c faultCase) run(r *rig) {
	r.t.Helper()
	r.echo("first", "70000000000", `"authorType":9,"dateTime":1,"text":"webhooks arrive here"`)
	cfg := r.config()
	rule, ahead := c.vendor, func() {}
	if rule.Fault == simulator.FaultRefuse { // it acts at once
		ahead = sync.OnceFunc(func() { r.rule(rule) })
		cfg.Backoff.Min, cfg.Backoff.Max = 100*time.Millisecond, 100*time.Millisecond // too rare for a breaker
	} else {
		rule.Match, rule.Times = simulator.Match{Path: "/v2/send_message", Text: "target"}, 1
		r.rule(rule)
	}
	cfg.Timeout, cfg.ReconcileWait = time.Second, 200*time.Millisecond
	if c.echo {
		cfg.ReconcileWait = 20 * time.Second
	}
	more := ""
	if c.resend {
		more = `,"onUnknown":"resend"`
	}
	r.send("target", phone, "target", more)
	follow := func() {
		r.send("after-1", phone, "after-1")
		r.send("after-2", phone, "after-2")
	}
	if !c.ended {
		follow()
	}
	first := r.startMortal(cfg, c.at, c.who != sameGoesOn, ahead)
	if c.at != nil {
		if c.at.duringCall() {
			r.waitRequested()
			first.lose()
		}
		first.waitLost()
		if c.who != sameGoesOn {
			first.die()
			r.expireLease()
			if c.who == anotherTakes {
				cfg.Worker = "worker-2"
			}
			r.start(cfg)
		}
	}
	if c.echo {
		r.waitRequested()
		r.echo(r.messageID("target"), phone, `"authorType":9,"dateTime":`+ms(time.Now())+`,"text":"target"`)
	}
	if c.ended {
		follow()
	}
	r.send("beside", "79000000007", "beside")
	r.finals(4)
	r.emptied()
	r.deferredEmptied()
	c.check(r)
}

func (c faultCase) check(r *rig) {
	r.t.Helper()
	end, requests := c.want()
	states := r.states("target")
	if got := states[len(states)-1]; got != end {
		r.t.Errorf("ended %v, want %s", states, end)
	}
	if end == schema.StateDead {
		if e := r.event("target", schema.StateDead); e.Error.Class != schema.ClassUnknown || e.Error.Reason != schema.ReasonNoEvidence {
			r.t.Errorf("dead of %+v, want its fate unknown for want of evidence", e.Error)
		}
	}
	got, texts := 0, []string(nil)
	for _, s := range r.sim.Sends() {
		if s.ChatID == phone {
			texts = append(texts, s.Text)
		}
		if s.Text == "target" {
			got++
		}
	}
	if got != requests {
		r.t.Errorf("%d requests, want %d", got, requests)
	}
	if want := requests + 2; len(texts) != want || texts[want-2] != "after-1" || texts[want-1] != "after-2" {
		r.t.Errorf("the chat got %v, want the target %d times and then the others", texts, requests)
	}
	for _, id := range []string{"after-1", "after-2", "beside"} {
		r.event(id, schema.StateSent)
	}
	r.onceEach()
	r.storedOnce()
	if letters, want := r.keptLetters(), map[bool]uint64{true: 1}[end == schema.StateDead]; letters != want {
		r.t.Errorf("%d dead letters, want %d", letters, want)
	}
}

// storedOnce holds every event to its ce-id.
func (r *rig) storedOnce() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, n := range r.ids {
		if n != 1 {
			r.t.Errorf("event %s is stored %d times", id, n)
		}
	}
}

// keptLetters is how many dead letters are kept.
func (r *rig) keptLetters() uint64 {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Dead())
	if err != nil {
		r.t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// waitRequested waits until the vendor has the target.
func (r *rig) waitRequested() {
	r.t.Helper()
	if err := r.sim.Wait(r.t.Context(), func(*simulator.View) bool { return r.requested("target") }); err != nil {
		r.t.Fatal(err)
	}
}

// messageID is that of the message that the vendor took.
func (r *rig) messageID(text string) string {
	r.t.Helper()
	id := ""
	if err := r.sim.Wait(r.t.Context(), func(*simulator.View) bool {
		for _, s := range r.sim.Sends() {
			if s.Text == text && s.Accepted() {
				id = s.MessageID
			}
		}
		return id != ""
	}); err != nil {
		r.t.Fatal(err)
	}
	return id
}

// expireLease saves the time until the lease of a worker that died is over.
func (r *rig) expireLease() {
	r.t.Helper()
	kv, err := r.js.KeyValue(r.t.Context(), "wazzup-owners")
	if err == nil {
		err = kv.Delete(r.t.Context(), "main")
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// mortal is a worker that loses NATS at a point, for good or for a moment.
type mortal struct {
	t    *testing.T
	stop func()
	nc   *nats.Conn
	dead atomic.Bool // no connection is let through any more
	once sync.Once
	lost chan struct{}
	good bool // what is lost is lost for good
}

// startMortal starts a worker behind a proxy. at nil never loses anything; ahead is
// called before each claim.
func (r *rig) startMortal(cfg sender.Config, at *point, forGood bool, ahead func()) *mortal {
	r.t.Helper()
	w := &mortal{t: r.t, lost: make(chan struct{}), good: forGood}
	var passed atomic.Bool
	claim := record("claim", false)
	c := newCutter(r.t, r.srv.URL(), func(toClient bool, frame []byte) bool {
		if !toClient && claim.matches(frame) {
			ahead()
		}
		switch {
		case w.dead.Load():
			return true
		case at == nil || at.duringCall():
			return false
		}
		isWrite := !toClient && at.matches(frame)
		if !at.stored {
			return isWrite && w.lose()
		}
		if isWrite {
			passed.Store(true)
		}
		return toClient && passed.Load() && bytes.Contains(frame, []byte("MSG ")) && w.lose()
	})
	w.nc = queuetest.Conn(r.t, c)
	w.stop = r.startOn(w.nc, cfg)
	return w
}

// lose loses the connection; it reports false if that was done before.
func (w *mortal) lose() (first bool) {
	w.once.Do(func() {
		first = true
		w.dead.Store(w.good)
		close(w.lost)
	})
	return first
}

func (w *mortal) waitLost() {
	w.t.Helper()
	select {
	case <-w.lost:
	case <-time.After(20 * time.Second):
		w.t.Fatal("the worker never came to the point")
	}
}

// die ends what is left of a worker that is cut off, without waiting for it: its
// call may still be under way.
func (w *mortal) die() {
	w.nc.Close()
	go w.stop() // the test's end waits for it
}

// stalled stands between a worker and NATS and can hold everything back, as though
// the worker were frozen.
type stalled struct {
	mu   sync.Mutex
	gate chan struct{} // nil: open
}

func (s *stalled) pass(bool, []byte) bool {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return false
}

func (s *stalled) freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate == nil {
		s.gate = make(chan struct{})
	}
}

func (s *stalled) thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.gate)
	s.gate = nil
}

// An owner that is frozen during a call and wakes up when another has the account
// can claim nothing more; but the answer that it has got is recorded, and settles
// the doubt.
func TestLateAnswerOfAFrozenOwner(t *testing.T) {
	t.Parallel()
	for _, onUnknown := range []string{"reconcile", "resend"} {
		t.Run(onUnknown, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.echo("first", "70000000000", `"authorType":9,"dateTime":1,"text":"webhooks arrive here"`)
			cfg := r.config()
			cfg.ReconcileWait = 30 * time.Second
			if err := r.sim.AddRule(simulator.Rule{
				Match: simulator.Match{Path: "/v2/send_message", Text: "target"}, Delay: simulator.Duration(300 * time.Millisecond),
			}); err != nil {
				t.Fatal(err)
			}
			frozen := new(stalled)
			r.startOn(queuetest.Conn(t, newCutter(t, r.srv.URL(), frozen.pass)), cfg)
			r.send("target", phone, "target", `,"onUnknown":"`+onUnknown+`"`)
			r.send("after", phone, "after")
			r.waitRequested()
			frozen.freeze()
			r.expireLease()
			cfg.Worker = "worker-2"
			r.start(cfg)
			r.event("target", schema.StateUnknown)
			if err := r.sim.Wait(t.Context(), func(v *simulator.View) bool { return v.Requests == v.Finished }); err != nil {
				t.Fatal(err)
			}
			frozen.thaw()
			e := r.event("target", schema.StateSent)
			if e.Evidence == nil || e.Evidence.Kind != schema.EvidenceAnswer || e.MessageID != r.messageID("target") {
				t.Errorf("got %+v %s, want the late answer as evidence", e.Evidence, e.MessageID)
			}
			for i := range 20 {
				r.send(fmt.Sprint("later-", i), fmt.Sprintf("7911111%04d", i), fmt.Sprint("later-", i))
			}
			r.finals(22)
			r.emptied()
			if n := len(r.sim.Sends()); n != 22 {
				t.Errorf("%d requests, want 22", n)
			}
			r.onceEach()
			r.storedOnce()
		})
	}
}

// A claim whose PubAck was lost is recognised as the worker's own: it is called
// once, and not taken for another's.
func TestClaimIsRecognised(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := record("claim", true)
	w := r.startMortal(r.config(), &at, false, func() {})
	r.send("target", phone, "target")
	w.waitLost()
	if states := r.states("target"); len(states) != 1 || states[0] != schema.StateSent {
		t.Errorf("got %v, want sent and nothing else", states)
	}
	claims := 0
	s, err := r.js.Stream(t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context(), jetstream.WithSubjectFilter("wz.main.l.target"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range info.State.Subjects {
		claims += int(n) //nolint:gosec // a few
	}
	if claims != 2 {
		t.Errorf("%d records, want a claim and an end", claims)
	}
	if n := len(r.sim.Sends()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// A worker that is told to stop at any moment of a command's life leaves nothing in
// doubt: what it has begun it ends, and the next one does the rest.
func TestStopAtEveryWrite(t *testing.T) {
	t.Parallel()
	for _, row := range faultRows() {
		if row.at == nil || !row.took || row.inVain || row.at.stored {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if err := r.sim.AddRule(simulator.Rule{
				Match: simulator.Match{Path: "/v2/send_message", Text: "target"}, Delay: simulator.Duration(50 * time.Millisecond),
			}); err != nil {
				t.Fatal(err)
			}
			reached := make(chan struct{})
			var once sync.Once
			c := newCutter(t, r.srv.URL(), func(toClient bool, frame []byte) bool {
				if !toClient && !row.at.duringCall() && row.at.matches(frame) {
					once.Do(func() {
						close(reached)
						<-time.After(20 * time.Millisecond) // the stop comes before the answer
					})
				}
				return false
			})
			stop := r.startOn(queuetest.Conn(t, c), r.config())
			r.send("target", phone, "target")
			if row.at.duringCall() {
				r.waitRequested()
			} else {
				<-reached
			}
			stop()
			r.start(r.config())
			if states := r.states("target"); len(states) != 1 || states[0] != schema.StateSent {
				t.Errorf("got %v, want sent and nothing else", states)
			}
			r.emptied()
			if n := len(r.sim.Sends()); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
			r.onceEach()
		})
	}
}

// An owner that is frozen between its claim and the call, and wakes up when
// another has the account, does not call any more: the command is in doubt for
// the other one, and whatever it does next must not be overtaken.
func TestClaimConfirmedAfterTheLeaseIsNotCalled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	frozen := new(stalled)
	freeze := sync.OnceFunc(frozen.freeze) // not again, when the claim is published again
	stop := r.startOn(queuetest.Conn(t, newCutter(t, r.srv.URL(), func(toClient bool, frame []byte) bool {
		if toClient {
			return frozen.pass(toClient, frame)
		}
		if bytes.HasPrefix(frame, []byte("HPUB wz.main.f.")) && bytes.Contains(frame, []byte(`{"t":"claim","id":"target"`)) {
			freeze() // the claim passes, its PubAck does not
		}
		return false
	})), cfg)
	r.event(r.send("warm", phone, "warm"), schema.StateSent) // it owns the account
	r.send("target", phone, "target")
	r.send("after", phone, "after")
	cfg.Worker = "worker-2"
	r.start(cfg)
	r.event("target", schema.StateUnknown)
	r.event("after", schema.StateSent)
	frozen.thaw()
	stop()
	if e := r.event("target", schema.StateDead); e.Error.Class != schema.ClassUnknown {
		t.Errorf("got %+v, want it in doubt", e.Error)
	}
	if r.requested("target") {
		t.Error("the vendor got the command in doubt")
	}
	r.emptied()
}
