package sender_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

var errNotFound = errors.New("not found")

// timeline asks for a command's whole story.
func (r *rig) timeline(id string) (t sender.Timeline, err error) {
	r.t.Helper()
	answer, err := r.nc.RequestWithContext(r.t.Context(), schema.APISubject("main", "command.get"), fmt.Appendf(nil, `{"id":%q}`, id))
	if errors.Is(err, nats.ErrNoResponders) { // nobody owns the account yet
		return t, errNotFound
	}
	if err != nil {
		r.t.Fatal(err)
	}
	switch answer.Header.Get(micro.ErrorCodeHeader) {
	case "":
	case strconv.Itoa(http.StatusNotFound):
		return t, errNotFound
	default:
		r.t.Fatalf("command.get: %s", answer.Data)
	}
	if err := json.Unmarshal(answer.Data, &t); err != nil {
		r.t.Fatal(err)
	}
	return t, nil
}

// whole asks for the story of a command that must be known.
func (r *rig) whole(id string) sender.Timeline {
	r.t.Helper()
	timeout := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		t, err := r.timeline(id)
		if err == nil {
			return t
		}
		select {
		case <-tick.C: // requests are served a moment after the first commands
		case <-timeout:
			r.t.Fatalf("command.get %s: %v", id, err)
		}
	}
}

// waiting asks until a command waits at a gate, as its owner says.
func (r *rig) waiting(id, gate string) sender.Waiting {
	r.t.Helper()
	timeout := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var last sender.Timeline
	for {
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("%s never waited at %s: %+v", id, gate, last)
		}
		var err error
		if last, err = r.timeline(id); err == nil && last.Waiting != nil && last.Waiting.Gate == gate {
			return *last.Waiting
		}
	}
}

// waitsOf are all waits of a story at one gate.
func waitsOf(t sender.Timeline, gate string) (all []queue.Wait) {
	for _, s := range t.Steps {
		for _, w := range s.Waits {
			if w.Gate == gate {
				all = append(all, w)
			}
		}
	}
	return all
}

// wantWait fails unless the story has one wait at the gate, of at least a length
// and not longer than the command lived.
func wantWait(tb testing.TB, t sender.Timeline, gate, why string, least time.Duration) {
	tb.Helper()
	all := waitsOf(t, gate)
	if len(all) != 1 || all[0].Why != why || time.Duration(all[0].Millis)*time.Millisecond < least {
		tb.Errorf("%s: waits at %s are %+v, want one of %v or more because of %q", t.ID, gate, all, least, why)
	}
	sum := time.Duration(0)
	for _, s := range t.Steps {
		for _, w := range s.Waits {
			sum += time.Duration(w.Millis) * time.Millisecond
		}
	}
	if lived := t.Steps[len(t.Steps)-1].At.Sub(t.Steps[0].At); sum > lived+50*time.Millisecond {
		tb.Errorf("%s: it waited %v in a life of %v", t.ID, sum, lived)
	}
}

func steps(t sender.Timeline) (all []string) {
	for _, s := range t.Steps {
		all = append(all, s.Step)
	}
	return all
}

// The plain story: stored, claimed by a worker, answered, delivered.
func TestTimeline(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	before := time.Now().Add(-time.Second)
	r.start(r.config())
	r.states(r.send("warm", "79000000001", "up")) // nothing waits for the worker any more
	r.states(r.send("a", phone, "secret text"))
	sent := r.event("a", schema.StateSent)
	r.status(sent.MessageID, "read", 3)
	r.event("a", schema.StateRead)
	got := r.whole("a")
	if want := []string{"stored", "claim", "final", "status"}; !slices.Equal(steps(got), want) {
		t.Fatalf("steps: got %v, want %v", steps(got), want)
	}
	stored, claim, final, status := got.Steps[0], got.Steps[1], got.Steps[2], got.Steps[3]
	if stored.At.Before(before) || stored.At.After(claim.At) || got.Waiting != nil || got.State != schema.StateRead {
		t.Errorf("story: got %+v", got)
	}
	if claim.Worker != "worker-1" || claim.Attempt != 1 || len(claim.Waits) != 0 {
		t.Errorf("claim: got %+v", claim)
	}
	if final.HTTPStatus != 201 || final.MessageID != sent.MessageID || final.State != schema.StateSent || final.Code != "" {
		t.Errorf("final: got %+v", final)
	}
	if status.State != schema.StateRead || status.MessageID != sent.MessageID {
		t.Errorf("status: got %+v", status)
	}
	if whole, err := json.Marshal(got); err != nil || strings.Contains(string(whole), "secret text") {
		t.Errorf("the story holds the message (%v): %s", err, whole)
	}
	if _, err := r.timeline("nobody's"); !errors.Is(err, errNotFound) {
		t.Errorf("an unknown id: got %v", err)
	}
}

// A channel that the vendor closes: the story says for how long and with which
// word, to the one that met the refusal and to those that stood at the gate; the
// refusal itself is told although no event goes with it.
func TestTimelineOfAClosedChannel(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.ChannelsPoll = time.Hour
	r.start(cfg)
	r.states(r.send("warm", phone, "up"))
	r.channelsRead()
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{ChannelID: simulator.ChannelWhatsApp}, Status: 400, Code: "CHANNEL_NO_MONEY"}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		r.send(fmt.Sprint("held-", i), phone, "x")
	}
	r.ops(schema.OpsLaneClosed)
	now := r.waiting("held-0", "closed")
	if now.Why != "CHANNEL_NO_MONEY" || now.Position != 1 || now.Since == nil || time.Since(*now.Since) > patience {
		t.Errorf("waiting: got %+v", now)
	}
	if next := r.waiting("held-2", "order"); next.Position != 3 || next.Why == "" || next.Since == nil {
		t.Errorf("the third of the chat: got %+v", next)
	}
	r.sim.ClearRules()
	r.channelEvent(simulator.StateActive)
	r.states("held-2")
	first := r.whole("held-0")
	wantWait(t, first, "closed", "CHANNEL_NO_MONEY", time.Millisecond)
	if want := []string{"stored", "claim", "retry", "claim", "final"}; !slices.Equal(steps(first), want) {
		t.Fatalf("steps: got %v, want %v", steps(first), want)
	}
	if refused := first.Steps[2]; refused.Code != "CHANNEL_NO_MONEY" || refused.HTTPStatus != 400 || refused.Phase != schema.PhaseAnswered || refused.State != "" {
		t.Errorf("refusal: got %+v", refused)
	}
	wantWait(t, r.whole("held-2"), "order", "an earlier command of the chat", time.Millisecond)
}

// Two gates one after the other: the channel's state, then the account's key.
func TestTimelineOfAClosedAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.ChannelsPoll = time.Hour
	r.start(cfg)
	r.states(r.send("warm", phone, "up"))
	r.channelsRead()
	r.channelEvent(simulator.StateNotEnoughMoney)
	r.ops(schema.OpsLaneClosed)
	r.send("held", phone, "x")
	r.waiting("held", "closed")
	if err := r.sim.AddRule(simulator.Rule{Status: 401, Code: "UNAUTHORIZED"}); err != nil {
		t.Fatal(err)
	}
	// Another channel's command meets the wrong key.
	other := fmt.Sprintf(`{"id":"other","chatType":"whatsapp","chatId":%q,"text":"x"}`, phone)
	if _, err := r.pub.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp2, []byte(other)); err != nil {
		t.Fatal(err)
	}
	r.ops(schema.OpsAccountClosed)
	r.channelEvent(simulator.StateActive)
	if now := r.waiting("held", "account"); now.Position != 1 || now.Why == "" {
		t.Errorf("waiting: got %+v", now)
	}
	r.sim.ClearRules()
	r.states("held")
	r.states("other")
	got := r.whole("held")
	wantWait(t, got, "closed", simulator.StateNotEnoughMoney, time.Millisecond)
	if all := waitsOf(got, "account"); len(all) != 1 || all[0].Why == "" {
		t.Errorf("waits at the account: %+v", all)
	}
	if all := waitsOf(r.whole("other"), "account"); len(all) != 1 {
		t.Errorf("the other's waits at the account: %+v", all)
	}
}

// The account's own limits, each with its figure. All lanes of the line wait, not
// only the first of it.
func TestTimelineOfTheLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		set       func(*sender.Config)
		gate, why string
		least     time.Duration
		delay     time.Duration // of the vendor's answers
	}{
		{"pace", func(c *sender.Config) { c.SendRate = rate.Rate{N: 5, Per: time.Second} }, "pace", "5/1s", 150 * time.Millisecond, 0},
		{"window", func(c *sender.Config) { c.Rate = rate.Rate{N: 2, Per: 500 * time.Millisecond} }, "window", "2/500ms", 150 * time.Millisecond, 0},
		{"slots", func(c *sender.Config) { c.Concurrency = 1 }, "slots", "1 calls in flight", 100 * time.Millisecond, 150 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.ChannelsPoll = time.Hour
			tt.set(&cfg)
			r.slow(tt.delay)
			const each = 3
			for i := range each { // two lanes, many chats
				for n, channel := range []string{simulator.ChannelWhatsApp, simulator.ChannelWhatsApp2} {
					body := fmt.Sprintf(`{"id":"%d-%d","chatType":"whatsapp","chatId":"7900000%02d%02d","text":"x"}`, n, i, n, i)
					if _, err := r.pub.Send(t.Context(), schema.KindSend, channel, []byte(body)); err != nil {
						t.Fatal(err)
					}
				}
			}
			r.start(cfg) // all are there, and wait from the first moment on
			r.finals(2 * each)
			for n := range 2 {
				wantWait(t, r.whole(fmt.Sprintf("%d-%d", n, each-1)), tt.gate, tt.why, tt.least)
			}
		})
	}
}

// A breaker's refusal names the breaker.
func TestTimelineOfABreaker(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.MaxAttempts = 20
	r.start(cfg)
	r.states(r.send("warm", phone, "up"))
	r.channelsRead()
	reachable := r.unreachable()
	r.send("a", phone, "x", `,"onUnknown":"resend"`) // it may meet a connection that is just being closed
	r.ops(schema.OpsBreakerOpened)
	if now := r.waiting("a", "breaker"); !strings.HasPrefix(now.Why, "family ") && now.Why != "channel" {
		t.Errorf("waiting: got %+v", now)
	}
	reachable()
	r.states("a")
	all := waitsOf(r.whole("a"), "breaker")
	if len(all) != 1 || all[0].Millis < 1000 || all[0].Why == "" {
		t.Errorf("waits at the breaker: %+v", all)
	}
}

// A command that waits for its time says so while it does, and afterwards.
func TestTimelineOfAScheduledCommand(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	r.channelsRead() // the worker is up
	at := time.Now().Add(4 * time.Second)
	r.send("later", phone, "x", fmt.Sprintf(`,"sendAt":%q`, at.Format(time.RFC3339Nano)))
	if now := r.waiting("later", "schedule"); now.Since == nil || now.Why != "sendAt" {
		t.Errorf("waiting: got %+v", now)
	}
	r.states("later")
	got := r.whole("later")
	if want := []string{"stored", "scheduled", "claim", "final"}; !slices.Equal(steps(got), want) {
		t.Fatalf("steps: got %v, want %v", steps(got), want)
	}
	wantWait(t, got, "schedule", "sendAt", time.Second)
}

// An unknown fate: the story has the phase, the wait for evidence and what proved
// it.
func TestTimelineOfADoubt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.ReconcileWait = patience
	r.echo("first", "70000000000", `"authorType":9,"dateTime":1,"text":"webhooks arrive here"`)
	r.start(cfg)
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Fault: simulator.FaultDropAfterAccept}); err != nil {
		t.Fatal(err)
	}
	r.send("a", phone, "x")
	r.event("a", schema.StateUnknown)
	if now := r.waiting("a", "evidence"); now.Position != 1 || now.Since == nil {
		t.Errorf("waiting: got %+v", now)
	}
	r.echo("proof-1", phone, `"authorType":9,"text":"x","dateTime":`+ms(time.Now()))
	r.states("a")
	got := r.whole("a")
	if want := []string{"stored", "claim", "unknown", "final"}; !slices.Equal(steps(got), want) {
		t.Fatalf("steps: got %v, want %v", steps(got), want)
	}
	if doubt := got.Steps[2]; doubt.Phase != schema.PhaseWritten || doubt.Code == "" {
		t.Errorf("unknown: got %+v", doubt)
	}
	if final := got.Steps[3]; final.Evidence != schema.EvidenceEcho || final.MessageID != "proof-1" {
		t.Errorf("final: got %+v", final)
	}
	wantWait(t, got, "evidence", "whether the call was carried out is not known", time.Millisecond)
}

// A timeline that does not fit into an answer is a fault, not silence.
func TestTimelineTooLargeToAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.Timeout = patience // of a request, on a slow machine
	r.start(cfg)
	r.states(r.send("long", phone, "x"))
	s, err := r.js.Stream(t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		t.Fatal(err)
	}
	fenced, _, _ := strings.Cut(s.CachedInfo().Config.Subjects[0], "*")
	last, err := s.GetLastMsgForSubject(t.Context(), queue.Names{Account: "main"}.LedgerSubject(queue.LedgerKey("long")))
	if err != nil {
		t.Fatal(err)
	}
	padded := append(last.Data[:len(last.Data)-1:len(last.Data)-1], `,"e":{"state":"sent","meta":"`+strings.Repeat("x", 500_000)+`"}}`...)
	for range 3 {
		if _, err := r.js.Publish(t.Context(), fenced+"l."+queue.LedgerKey("long"), padded); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.ask("command.get", `{"id":"long"}`); got.Code != "413" || got.Error.Code != "TOO_LARGE" {
		t.Errorf("got %s %+v, want 413", got.Code, got.Error)
	}
}
