package sender_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// answer is what a request about a command got.
type answer struct {
	Code  string // HTTP-like; "" = success
	State schema.State
	Error schema.Error
	Body  []byte
}

// ask sends a request to the account's owner, again while there is none.
func (r *rig) ask(name, body string) answer {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		m, err := r.nc.Request(schema.APISubject("main", name), []byte(body), 10*time.Second)
		if err == nil {
			var got struct {
				State schema.State `json:"state"`
				Error schema.Error `json:"error"`
			}
			if err := json.Unmarshal(m.Data, &got); err != nil {
				r.t.Fatalf("%s answers no JSON: %v", name, err)
			}
			r.byContract(name, body, m)
			return answer{m.Header.Get(micro.ErrorCodeHeader), got.State, got.Error, m.Data}
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("%s: %v", name, err)
		}
	}
}

func (r *rig) cancel(id string) answer {
	r.t.Helper()
	return r.ask("command.cancel", fmt.Sprintf(`{"id":%q}`, id))
}

// A command is cancelled wherever it stands, and is never sent; its event comes
// at its turn, and the id is used up.
func TestCancel(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	r.channelEvent("qr")
	r.start(cfg)
	r.ops(schema.OpsLaneClosed)
	// Behind a closed lane all of them are unseen, on disk.
	for i := range 500 {
		r.send(fmt.Sprint("unseen-", i), fmt.Sprintf("7900000%04d", i), "x")
	}
	r.publish(schema.KindSend, "", `{"chatType":"whatsapp","chatId":"79000009999","text":"x"}`, queue.WithID("by-header"))
	r.send("escaped", "79000009998", "x")
	for _, id := range []string{"unseen-0", "unseen-499", "by-header"} {
		if got := r.cancel(id); got.Code != "" || got.State != schema.StateCancelled {
			t.Errorf("%s: got %s %+v, want success", id, got.Code, got)
		}
		if got := r.cancel(id); got.Code != "" {
			t.Errorf("%s for the second time: got %s, want success", id, got.Code)
		}
	}
	for id, want := range map[string]string{"unseen-0": `"step":"cancel"`, "unseen-7": `"gate":"closed","why":"qr"`} {
		if got := r.ask("command.get", fmt.Sprintf(`{"id":%q}`, id)); got.Code != "" || got.State != schema.StatePending || !strings.Contains(string(got.Body), want) {
			t.Errorf("timeline of %s: got %s %s, want pending and %s", id, got.Code, got.Body, want)
		}
	}
	if got := r.cancel("no-such"); got.Code != "404" {
		t.Errorf("no such command: got %s, want 404", got.Code)
	}
	r.send("no-such", "79000009997", "published after somebody tried to cancel it")
	r.send("unseen-0", "79000000000", "x") // again
	r.channelEvent("active")
	r.finals(504)
	for _, id := range []string{"unseen-0", "unseen-499", "by-header"} {
		r.event(id, schema.StateCancelled)
	}
	r.event("no-such", schema.StateSent)
	if e := r.event("unseen-0", schema.StateDuplicate); e.Original.State != schema.StateCancelled {
		t.Errorf("published again: its original is %s, want cancelled", e.Original.State)
	}
	if n := len(r.sim.Sends()); n != 500 {
		t.Errorf("%d requests, want 500", n)
	}
	if got := r.cancel("unseen-1"); got.Code != "409" || got.State != schema.StateSent || !strings.Contains(got.Error.Description, "sent") {
		t.Errorf("after its end: got %s %+v, want 409 and its state", got.Code, got)
	}
	if got := r.cancel("unseen-0"); got.Code != "409" || got.State != schema.StateCancelled {
		t.Errorf("after it ended cancelled: got %s %+v, want 409", got.Code, got)
	}
	for _, body := range []string{``, `{"id":""}`, `{"id":"x","as":"sent"}`, `[]`} {
		if got := r.ask("command.cancel", body); got.Code != "400" {
			t.Errorf("request %s: got %s, want 400", body, got.Code)
		}
	}
	r.emptied()
	r.endedOnce()
}

// What waits for its time ends cancelled at once; what waits for a retry, at its
// turn; what is under way or in doubt cannot be cancelled.
func TestCancelWhatIsSeen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.ReconcileWait = time.Minute
	cfg.Backoff.Min, cfg.Backoff.Max = 300*time.Millisecond, 300*time.Millisecond
	r.loseFirst("doubted")
	for _, rule := range []simulator.Rule{
		{Match: simulator.Match{Path: "/v2/send_message", Text: "refused"}, Status: 400, Code: "MESSAGES_CAN_NOT_ADD"},
		{Match: simulator.Match{Path: "/v2/send_message", Text: "slow"}, Fault: simulator.FaultHang},
	} {
		if err := r.sim.AddRule(rule); err != nil {
			t.Fatal(err)
		}
	}
	stop := r.start(cfg)
	r.send("scheduled", "79000000001", "later", `,"sendAt":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano)+`"`)
	r.waitStep("scheduled", "scheduled")
	if got := r.cancel("scheduled"); got.Code != "" {
		t.Errorf("scheduled: got %s %+v, want success", got.Code, got)
	}
	r.event("scheduled", schema.StateCancelled)

	r.send("retried", "79000000002", "refused")
	r.event("retried", schema.StateRetrying)
	if got := r.cancel("retried"); got.Code != "" {
		t.Errorf("retried: got %s %+v, want success", got.Code, got)
	}
	r.event("retried", schema.StateCancelled)

	r.send("doubted", waitingChat, "doubted")
	r.event("doubted", schema.StateUnknown)
	if got := r.cancel("doubted"); got.Code != "409" || got.State != schema.StateUnknown {
		t.Errorf("doubted: got %s %+v, want 409 unknown", got.Code, got)
	}

	r.send("slow", "79000000003", "slow")
	if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return r.requested("slow") }); err != nil {
		t.Fatal(err)
	}
	if got := r.cancel("slow"); got.Code != "409" {
		t.Errorf("under way: got %s %+v, want 409", got.Code, got)
	}
	stop()
	if n := len(r.sim.Sends()); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

// A cancel that comes while a command is on its way to the server's scheduler, or is
// held here because that does not take it, has its event at once all the same.
func TestCancelOnTheWayToTheScheduler(t *testing.T) {
	t.Parallel()
	later := func() string { return `,"sendAt":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano) + `"` }
	t.Run("the schedule is not stored yet", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		schedule := []byte("HPUB " + queue.Names{Account: "main"}.ScheduleSubject("slow", "0") + " ")
		reached, cancelled := make(chan struct{}), make(chan struct{})
		var once sync.Once
		// Until the cancel is answered the schedule is published where no stream takes
		// it, again and again.
		r.startOn(queuetest.Conn(t, newCutter(t, r.srv.URL(), func(toClient bool, frame []byte) bool {
			if toClient || !bytes.HasPrefix(frame, schedule) {
				return false
			}
			select {
			case <-cancelled:
			default:
				frame[len("HPUB ")] = '_'
				once.Do(func() { close(reached) })
			}
			return false
		})), r.config())
		r.send("slow", "79000000001", "x", later())
		<-reached
		if got := r.cancel("slow"); got.Code != "" {
			t.Fatalf("got %s %+v, want success", got.Code, got)
		}
		close(cancelled)
		r.event("slow", schema.StateCancelled)
		r.emptied()
		r.deferredEmptied()
		r.endedOnce()
	})
	t.Run("too large for the scheduler", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.start(r.config())
		r.send("large", phone, "x", later(), strings.Repeat(" ", int(r.nc.MaxPayload())-170))
		r.waitStep("large", "scheduled")
		if got := r.cancel("large"); got.Code != "" {
			t.Fatalf("got %s %+v, want success", got.Code, got)
		}
		r.event("large", schema.StateCancelled)
		r.emptied()
		r.endedOnce()
	})
}

func (r *rig) requested(text string) bool {
	for _, s := range r.sim.Sends() {
		if s.Text == text {
			return true
		}
	}
	return false
}

// waitStep waits until the command's timeline has a step.
func (r *rig) waitStep(id, step string) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		got := r.ask("command.get", fmt.Sprintf(`{"id":%q}`, id))
		if strings.Contains(string(got.Body), `"step":"`+step+`"`) {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("%s has no step %s: %s", id, step, got.Body)
		}
	}
}

// A cancel races the call: whichever comes first wins, and success means that the
// vendor never got the message.
func TestCancelRacesTheCall(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	const n = 300
	cancelled := make(map[string]bool)
	for i := range n {
		id := fmt.Sprint("c-", i)
		r.send(id, fmt.Sprintf("7900000%04d", i%7), id)
		switch got := r.cancel(id); got.Code {
		case "":
			cancelled[id] = true
		case "409":
		default:
			t.Fatalf("%s: got %s %+v", id, got.Code, got)
		}
	}
	r.finals(n)
	for i := range n {
		id := fmt.Sprint("c-", i)
		states := r.states(id)
		if got := states[len(states)-1] == schema.StateCancelled; got != cancelled[id] {
			t.Errorf("%s: cancelled %v, ended %v", id, cancelled[id], states)
		}
		if cancelled[id] == r.requested(id) {
			t.Errorf("%s: cancelled %v, requested %v", id, cancelled[id], r.requested(id))
		}
	}
	t.Logf("%d of %d cancelled", len(cancelled), n)
	r.emptied()
	r.endedOnce()
}

// A cancel outlives its owner, also of a parked command.
func TestCancelOutlivesItsOwner(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.ReconcileWait = time.Minute
	r.loseFirst("w00000")
	r.loadChat("w", 100)
	first := r.startDoomed(cfg)
	r.event("w00000", schema.StateUnknown)
	r.parked()
	for _, id := range []string{"w00002", "w00099"} {
		if got := r.cancel(id); got.Code != "" {
			t.Errorf("%s: got %s %+v, want success", id, got.Code, got)
		}
	}
	first.die()
	r.start(cfg)
	r.prove("w00000")
	r.finals(100)
	r.event("w00002", schema.StateCancelled)
	r.event("w00099", schema.StateCancelled)
	r.inOrder(98)
	r.emptied()
	r.deferredEmptied()
}

// A person settles what is in doubt, in hand or behind a closed lane.
func TestResolve(t *testing.T) {
	t.Parallel()
	for _, inHand := range []bool{true, false} {
		t.Run(map[bool]string{true: "in hand", false: "behind a closed lane"}[inHand], func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.ReconcileWait = time.Minute
			r.loseFirst("")
			w := r.startDoomed(cfg)
			for i, id := range []string{"sent", "resend", "drop"} {
				r.send(id, fmt.Sprintf("7900000000%d", i), id, `,"meta":{"n":1}`)
				r.event(id, schema.StateUnknown)
			}
			if !inHand {
				w.die()
				r.channelEvent("qr")
				r.start(cfg)
				r.ops(schema.OpsLaneClosed)
			}
			r.sim.ClearRules()
			for id, want := range map[string]schema.State{"sent": schema.StateSent, "resend": schema.StateRetrying, "drop": schema.StateDead} {
				if got := r.ask("command.resolve", fmt.Sprintf(`{"id":%q,"as":%q}`, id, id)); got.Code != "" || got.State != want {
					t.Errorf("%s: got %s %+v, want %s", id, got.Code, got, want)
				}
				if got := r.ask("command.resolve", fmt.Sprintf(`{"id":%q,"as":"drop"}`, id)); got.Code != "409" {
					t.Errorf("%s for the second time: got %s %+v, want 409", id, got.Code, got)
				}
			}
			if !inHand {
				r.channelEvent("active")
			}
			if e := r.event("sent", schema.StateSent); e.Evidence == nil || e.Evidence.Kind != schema.EvidenceOperator || string(e.Meta) != `{"n":1}` {
				t.Errorf("sent: got %+v, want an operator's evidence and the producer's meta", e)
			}
			r.event("resend", schema.StateRetrying)
			r.event("resend", schema.StateSent)
			if e := r.event("drop", schema.StateDead); e.Error.Reason != schema.ReasonDropped || e.Error.Class != schema.ClassUnknown {
				t.Errorf("drop: got %+v, want dropped, unknown", e.Error)
			}
			r.emptied()
			if n := len(r.sim.Sends()); n != 4 {
				t.Errorf("%d requests, want 4", n)
			}
			r.endedOnce()
		})
	}
}

func TestResolveRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	r.states(r.send("a", phone, "x"))
	for body, want := range map[string]string{
		`{"id":"a","as":"sent"}`: "409", `{"id":"none","as":"sent"}`: "404", `{"id":"a","as":"maybe"}`: "400", `{"id":"a"}`: "400", `{"as":"sent"}`: "400",
	} {
		if got := r.ask("command.resolve", body); got.Code != want {
			t.Errorf("%s: got %s %+v, want %s", body, got.Code, got, want)
		}
	}
}
