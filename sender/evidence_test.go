package sender_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// echo stores what ingest would for the vendor's echo of an API send.
func (r *rig) echo(messageID, chat, fields string) {
	r.t.Helper()
	subject := schema.MessageEventSubject("main", "out", simulator.ChannelWhatsApp, schema.ChatWhatsApp, chat)
	body := fmt.Sprintf(`{"messageId":%q,"channelId":%q,"chatType":"whatsapp","chatId":%q,%s}`, messageID, simulator.ChannelWhatsApp, chat, fields)
	if !json.Valid([]byte(body)) {
		r.t.Fatalf("no JSON: %s", body)
	}
	if _, err := r.js.Publish(r.t.Context(), subject, []byte(body)); err != nil {
		r.t.Fatal(err)
	}
}

func ms(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// What proves that a call whose answer was lost was carried out, and what does
// not.
func TestEchoAsEvidence(t *testing.T) {
	t.Parallel()
	const text = `"text":"Hello,  wörld"`
	tests := []struct {
		name  string
		body  string // of the command
		echo  string // fields of the echo; %s is the vendor's time now
		proof bool
	}{
		{"its echo", text, `"authorType":9,"dateTime":%s,"type":1,"text":"Hello,  wörld"`, true},
		{"numbers as strings", text, `"authorType":"9","dateTime":"%s","type":"1","text":"Hello,  wörld"`, true},
		{"white space and composition differ", text, `"authorType":9,"dateTime":%s,"text":" Hello, wo\u0308rld\n"`, true},
		{"a file is known by its type", `"content":"https://a.example/x.png"`, `"authorType":9,"dateTime":%s,"type":2,"content":"https://vendor.example/own"`, true},
		{"another text", text, `"authorType":9,"dateTime":%s,"text":"Hello"`, false},
		{"a file for a text", text, `"authorType":9,"dateTime":%s,"content":"https://x.example/y"`, false},
		{"from the phone", text, `"authorType":0,"dateTime":%s,"text":"Hello,  wörld"`, false},
		{"from the vendor's window", text, `"authorType":1,"dateTime":%s,"text":"Hello,  wörld"`, false},
		{"no time", text, `"authorType":9,"text":"Hello,  wörld"`, false},
	}
	r := newRig(t)
	r.echo("first", "70000000000", `"authorType":9,"dateTime":1,"text":"webhooks arrive here"`)
	cfg := sender.OpenFor(r.config(), time.Millisecond)
	cfg.ReconcileWait = patience
	stop := r.start(cfg)
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Fault: simulator.FaultDropAfterAccept}); err != nil {
		t.Fatal(err)
	}
	for i, tt := range tests {
		chat := fmt.Sprintf("7900000%04d", i)
		r.publish(schema.KindSend, tt.name, fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":%q,%s}`, tt.name, chat, tt.body))
	}
	for _, proof := range []bool{false, true} { // when those that prove something were judged, the others were there
		for i, tt := range tests {
			if tt.proof != proof {
				continue
			}
			r.event(tt.name, schema.StateUnknown)
			fields := tt.echo
			if i < len(tests)-1 {
				fields = fmt.Sprintf(tt.echo, ms(time.Now()))
			}
			r.echo(fmt.Sprint("m-", i), fmt.Sprintf("7900000%04d", i), fields)
		}
	}
	for _, tt := range tests {
		if tt.proof {
			r.event(tt.name, schema.StateSent)
		}
	}
	// The next owner judges the rest again, and waits for no more.
	stop()
	cfg.ReconcileWait = 200 * time.Millisecond
	r.start(cfg)
	for i, tt := range tests { //nolint:paralleltest // the rows share one rig
		t.Run(tt.name, func(t *testing.T) {
			r.states(tt.name)
			if tt.proof {
				e := r.event(tt.name, schema.StateSent)
				if e.Evidence == nil || e.Evidence.Kind != schema.EvidenceEcho || e.MessageID != fmt.Sprint("m-", i) {
					t.Errorf("got %+v %s, want the echo as evidence", e.Evidence, e.MessageID)
				}
				return
			}
			if e := r.event(tt.name, schema.StateDead); e.Error.Reason != schema.ReasonNoEvidence {
				t.Errorf("reason: got %s, want no_evidence", e.Error.Reason)
			}
		})
	}
	if n := len(r.sim.Sends()); n != len(tests) {
		t.Errorf("the vendor got %d requests, want %d: never a blind second call", n, len(tests))
	}
}

// One echo resolves one command, and where more echoes than doubts are there,
// none proves anything.
func TestEchoesAreNotShared(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.echo("first", "70000000000", `"authorType":9,"dateTime":1,"text":"webhooks arrive here"`)
	cfg := sender.OpenFor(r.config(), time.Millisecond)
	cfg.ReconcileWait = patience
	stop := r.start(cfg)
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/send_message", Text: "lost"}, Fault: simulator.FaultDropAfterAccept}); err != nil {
		t.Fatal(err)
	}
	send := func(kind schema.Kind, id, chat string) {
		r.publish(kind, id, fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":%q,"text":"lost"}`, id, chat))
		r.event(id, schema.StateUnknown)
	}
	lost := func() string { return `"authorType":9,"dateTime":` + ms(time.Now()) + `,"text":"lost"` }

	// The same text to one chat in both classes, and one echo.
	send(schema.KindSend, "two-a", "79000000001")
	send(schema.KindBulk, "two-b", "79000000001")
	r.echo("m1", "79000000001", lost())
	// One doubt, two echoes: another program sends the same on the same key.
	send(schema.KindSend, "one", "79000000002")
	r.echoes("79000000002", lost(), "m2", "m3")
	// An echo whose message is another command's already.
	send(schema.KindSend, "taken", "79000000003")
	r.index("m4")
	r.echo("m4", "79000000003", lost())
	// An echo that came long before the claim.
	r.echo("m5", "79000000004", lost())
	send(schema.KindSend, "before", "79000000004")
	// An old message that the vendor delivers after a reconnection.
	send(schema.KindSend, "old", "79000000005")
	r.echo("m6", "79000000005", `"authorType":9,"dateTime":`+ms(time.Now().Add(-time.Minute))+`,"text":"lost"`)
	// One that is proven: by then the others were there to be judged.
	send(schema.KindSend, "proven", "79000000006")
	r.echo("m7", "79000000006", lost())
	r.event("proven", schema.StateSent)
	r.event("two-a", schema.StateSent)
	// The next owner judges the rest again, and waits for no more.
	stop()
	cfg.ReconcileWait = 200 * time.Millisecond
	r.start(cfg)

	for _, id := range []string{"two-a", "two-b", "one", "taken", "before", "old"} {
		r.states(id)
	}
	sent := 0
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.State != schema.StateSent || e.ID == "proven" {
			continue
		}
		sent++
		if e.ID != "two-a" || e.MessageID != "m1" {
			t.Errorf("%s is sent by %s: that echo proves nothing", e.ID, e.MessageID)
		}
	}
	if sent != 1 {
		t.Errorf("%d commands are proven, want 1", sent)
	}
}

// The echo of a message that was given up as dead may come when an equal one is
// in doubt: it could be either's.
func TestEchoAfterAnEqualMessageWasGivenUp(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	cfg := r.config()
	cfg.ReconcileWait = 500 * time.Millisecond
	r.start(cfg)
	r.send("given-up", phone, "lost")
	r.event("given-up", schema.StateDead)
	r.send("doubted", phone, "lost")
	r.event("doubted", schema.StateUnknown)
	r.echo("m1", phone, said("lost"))
	if got := r.states("doubted"); got[len(got)-1] != schema.StateDead {
		t.Errorf("got %v, want dead", got)
	}
}

// Two commands in doubt and two echoes: one each, in both classes of a chat.
func TestTwoDoubtsTwoEchoes(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	cfg := r.config()
	cfg.ReconcileWait = 20 * time.Second
	r.start(cfg)
	for id, kind := range map[string]schema.Kind{"a": schema.KindSend, "b": schema.KindBulk} {
		r.publish(kind, id, fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":%q,"content":"https://a.example/%s.png"}`, id, phone, id))
	}
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{ContentContains: "a.example"}, Fault: simulator.FaultDropAfterAccept}); err != nil {
		t.Fatal(err)
	}
	r.event("a", schema.StateUnknown)
	r.event("b", schema.StateUnknown)
	r.echoes(phone, `"authorType":9,"dateTime":`+ms(time.Now())+`,"type":2,"content":"https://vendor.example/own"`, "m1", "m2")
	a, b := r.event("a", schema.StateSent), r.event("b", schema.StateSent)
	if a.MessageID == b.MessageID || a.Evidence == nil || b.Evidence == nil {
		t.Errorf("a is sent by %s (%+v), b by %s (%+v): want an echo each", a.MessageID, a.Evidence, b.MessageID, b.Evidence)
	}
}

// The same text three times to one chat in one class, each answer lost: each waits
// for the one before, and the echo that proved one proves no other.
func TestEqualTextsInOneClass(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	cfg := r.config()
	cfg.ReconcileWait = patience
	stop := r.start(cfg)
	for _, id := range []string{"a", "b", "c"} {
		r.send(id, phone, "lost")
	}
	for i, id := range []string{"a", "b"} {
		r.event(id, schema.StateUnknown)
		r.echo(fmt.Sprint("m", i), phone, said("lost"))
		if e := r.event(id, schema.StateSent); e.MessageID != fmt.Sprint("m", i) {
			t.Errorf("%s is sent by %s, want m%d", id, e.MessageID, i)
		}
	}
	r.event("c", schema.StateUnknown)
	stop()
	cfg.ReconcileWait = 200 * time.Millisecond
	r.start(cfg)
	r.event("c", schema.StateDead)
	if n := len(r.sim.Sends()); n != 3 {
		t.Errorf("the vendor got %d requests, want 3", n)
	}
}

// An echo may come while its call still waits for its answer.
func TestEchoDuringTheCall(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	r.sim.ClearRules()
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Text: "slow"}, Fault: simulator.FaultDropAfterAccept, Delay: simulator.Duration(500 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	cfg := r.config()
	cfg.ReconcileWait = 20 * time.Second
	r.start(cfg)
	r.send("a", phone, "slow")
	if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return len(r.sim.Sends()) == 1 }); err != nil {
		t.Fatal(err)
	}
	r.echo("m1", phone, said("slow"))
	if e := r.event("a", schema.StateSent); e.MessageID != "m1" {
		t.Errorf("got %s, want m1", e.MessageID)
	}
	if got, want := r.states("a"), []schema.State{schema.StateUnknown, schema.StateSent}; !slices.Equal(got, want) {
		t.Errorf("states: got %v, want %v", got, want)
	}
}

// How far a request got, as the events tell it.
func TestPhases(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text  string
		rule  simulator.Rule
		state schema.State
		phase schema.Phase
	}{
		{"dropped", simulator.Rule{Fault: simulator.FaultDropAfterAccept}, schema.StateUnknown, schema.PhaseWritten},
		{"never read", simulator.Rule{Fault: simulator.FaultDropBeforeRead}, schema.StateUnknown, schema.PhaseWritten},
		{"no answer in time", simulator.Rule{Fault: simulator.FaultHang}, schema.StateUnknown, schema.PhaseWritten},
		{"500", simulator.Rule{Status: 500}, schema.StateUnknown, schema.PhaseAnswered},
		{"no message id", simulator.Rule{Status: 201, Body: `{}`}, schema.StateUnknown, schema.PhaseAnswered},
		{"refused", simulator.Rule{Status: 400, Code: "MESSAGES_NOT_TEXT_FIRST"}, schema.StateRejected, schema.PhaseAnswered},
		{"429", simulator.Rule{Status: 429, Times: 1, Headers: map[string]string{"Retry-After": "0"}}, schema.StateRetrying, schema.PhaseAnswered},
	}
	for _, timeout := range []time.Duration{patience, 300 * time.Millisecond} { // the last is of what hangs
		r := lossy(t)
		cfg := r.config()
		cfg.Timeout = timeout
		r.start(cfg)
		for i, tt := range tests {
			if (tt.rule.Fault == simulator.FaultHang) != (timeout < patience) {
				continue
			}
			tt.rule.Match.Text = tt.text
			r.rule(tt.rule)
			r.send(tt.text, fmt.Sprintf("7900000%04d", i), tt.text)
			if e := r.event(tt.text, tt.state); e.Error == nil || e.Error.Phase != tt.phase {
				t.Errorf("%s: got %s %+v, want the phase %s", tt.text, e.State, e.Error, tt.phase)
			}
		}
	}
}

// What was surely not written is free: it is retried, and no unknown.
func TestNotSent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.APIURL = "http://127.0.0.1:1" // nobody listens there
	r.start(cfg)
	r.send("a", phone, "x")
	if e := r.event("a", schema.StateRetrying); e.Error == nil || e.Error.Phase != schema.PhaseNotSent {
		t.Errorf("got %+v, want the phase not_sent", e.Error)
	}
	if slices.Contains(r.all("a"), schema.StateUnknown) {
		t.Error("a call that was never written is unknown")
	}
}

// echoes stores several at once, so that none is seen alone.
func (r *rig) echoes(chat, fields string, messageIDs ...string) {
	r.t.Helper()
	subject := schema.MessageEventSubject("main", "out", simulator.ChannelWhatsApp, schema.ChatWhatsApp, chat)
	for _, id := range messageIDs {
		body := fmt.Sprintf(`{"messageId":%q,"channelId":%q,"chatType":"whatsapp","chatId":%q,%s}`, id, simulator.ChannelWhatsApp, chat, fields)
		if _, err := r.js.PublishAsync(subject, []byte(body)); err != nil {
			r.t.Fatal(err)
		}
	}
	<-r.js.PublishAsyncComplete()
}

// index notes a vendor's message id as another command's.
func (r *rig) index(messageID string) {
	r.t.Helper()
	if _, err := r.js.Publish(r.t.Context(), "wz.main.x."+messageID, []byte(`{"id":"other","o":{"c":1,"s":1},"k":"send","ch":"x","m":"`+messageID+`"}`)); err != nil {
		r.t.Fatal(err)
	}
}

// A doubt that waits for the outcome of an equal call is judged when that call's
// record turns out to be followed by another already.
func TestDoubtWaitsForACallThatIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.ReconcileWait = 500 * time.Millisecond
	r.echo("first", "70000000000", `"authorType":9,"dateTime":1,"text":"webhooks arrive here"`)
	r.start(cfg)
	r.event(r.bulk("warm", "79000000001"), schema.StateSent) // its lane is open
	if err := r.sim.AddRule(
		simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Times: 1, Fault: simulator.FaultDropAfterAccept},
		simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Delay: simulator.Duration(1500 * time.Millisecond)},
	); err != nil {
		t.Fatal(err)
	}
	r.event(r.send("doubted", phone, "x"), schema.StateUnknown)
	r.bulk("called", phone)
	r.waitStep("called", "claim")
	names := queue.Names{Account: "main"}
	s, err := r.js.Stream(t.Context(), names.Records())
	if err != nil {
		t.Fatal(err)
	}
	claim, err := s.GetLastMsgForSubject(t.Context(), names.LedgerSubject(queue.LedgerKey("called")))
	if err != nil {
		t.Fatal(err)
	}
	// As after a final record whose confirmation was lost, and a status.
	fenced, _, _ := strings.Cut(s.CachedInfo().Config.Subjects[0], "*")
	followed := strings.Replace(string(claim.Data), `"t":"claim"`, `"t":"status"`, 1)
	if _, err := r.js.Publish(t.Context(), fenced+"l."+queue.LedgerKey("called"), []byte(followed)); err != nil {
		t.Fatal(err)
	}
	r.event("doubted", schema.StateDead)
	r.emptied()
}
