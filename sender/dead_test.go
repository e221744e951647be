package sender_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// mortal is a config with which a command that fails surely dies at once.
func (r *rig) mortal() sender.Config {
	cfg := r.config()
	cfg.MaxAttempts = 1
	return cfg
}

// refuse has the vendor refuse texts that contain the word in a way that may pass,
// so many times (0: for ever).
func (r *rig) refuse(word string, times int) {
	r.t.Helper()
	r.rule(simulator.Rule{Match: simulator.Match{TextContains: word}, Status: 400, Code: "MESSAGES_CAN_NOT_ADD", Times: times})
}

// swallow has the vendor take texts that contain the word and not answer, so many
// times.
func (r *rig) swallow(word string, times int) {
	r.t.Helper()
	r.rule(simulator.Rule{Match: simulator.Match{TextContains: word}, Fault: simulator.FaultDropAfterAccept, Times: times})
}

func (r *rig) rule(rule simulator.Rule) {
	r.t.Helper()
	if err := r.sim.AddRule(rule); err != nil {
		r.t.Fatal(err)
	}
}

// askFor makes a request; status is empty when it was answered well.
func (r *rig) askFor(name, body string, into any) (status, description string) {
	r.t.Helper()
	m, err := r.request(name, body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", name, body, err)
	}
	if status := m.Header.Get("Nats-Service-Error-Code"); status != "" {
		var fault struct {
			Error schema.Error `json:"error"`
		}
		if err := json.Unmarshal(m.Data, &fault); err != nil {
			r.t.Fatalf("%v: %s", err, m.Data)
		}
		return status, fault.Error.Code + " " + fault.Error.Description
	}
	if err := json.Unmarshal(m.Data, into); err != nil {
		r.t.Fatalf("%v: %s", err, m.Data)
	}
	return "", ""
}

func (r *rig) redrive(body string, want sender.RedriveAnswer) {
	r.t.Helper()
	var got sender.RedriveAnswer
	if status, description := r.askFor("dead.redrive", body, &got); status != "" || got != want {
		r.t.Errorf("redrive %s: got %s %s %+v, want %+v", body, status, description, got, want)
	}
}

func (r *rig) refused(name, body, status string, says ...string) {
	r.t.Helper()
	var got json.RawMessage
	s, description := r.askFor(name, body, &got)
	if s != status {
		r.t.Errorf("%s %s: got %q %s %s, want %s", name, body, s, description, got, status)
	}
	for _, text := range says {
		if !strings.Contains(description, text) {
			r.t.Errorf("%s %s: got %q, want it to say %q", name, body, description, text)
		}
	}
}

func (r *rig) letters(body string) []sender.DeadItem {
	r.t.Helper()
	var got sender.DeadList
	if status, description := r.askFor("dead.list", body, &got); status != "" {
		r.t.Fatalf("dead.list: %s %s", status, description)
	}
	return got.Items
}

// died waits until an id has died so many times.
func (r *rig) died(id string, times int) schema.CommandEvent {
	return r.happened(id, schema.StateDead, times)
}

// happened waits until an id had a state so many times, and returns the last.
func (r *rig) happened(id string, s schema.State, times int) (last schema.CommandEvent) {
	r.t.Helper()
	r.wait(fmt.Sprintf("%d times %s of %s", times, s, id), func(all []schema.CommandEvent) bool {
		n := 0
		for _, e := range all {
			if e.ID == id && e.State == s {
				n++
				last = e
			}
		}
		return n >= times
	})
	return last
}

// ledger reads any ledger, and writes what is not fenced.
func (r *rig) ledger() *queue.Ledger {
	r.t.Helper()
	topology, err := queue.Ensure(r.t.Context(), r.js, "main", limits())
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := queue.NewLedger(r.nc, topology, "none", nil, zerolog.Nop())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(l.Close)
	return l
}

// asOwner writes records as an owner of the account would, while no worker runs.
func (r *rig) asOwner(records ...*queue.Record) (last uint64) {
	r.t.Helper()
	r.asFormerOwner(func(l *queue.Ledger) {
		for i, record := range records {
			record.Key, record.Nonce = queue.LedgerKey(record.ID), fmt.Sprint("test-", i)
			before, err := l.Last(r.t.Context(), record.Key)
			if err != nil {
				r.t.Fatal(err)
			}
			expect := uint64(0)
			if before != nil {
				expect = before.Sequence
			}
			done := make(chan error, 1)
			l.Append(record, expect, func(seq uint64, err error) {
				last = seq
				done <- err
			})
			if err := <-done; err != nil {
				r.t.Fatal(err)
			}
		}
	})
	return last
}

func (r *rig) bury(l *queue.Ledger, d *queue.DeadLetter) {
	r.t.Helper()
	done := make(chan error, 1)
	if err := l.PutDead(d, func(err error) { done <- err }); err != nil {
		r.t.Fatal(err)
	}
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
}

// buryMany puts letters c-0, c-1, … into a hundred chats, without their having
// lived. Those that died first were stored last, as number their text.
func (r *rig) buryMany(n int) {
	r.t.Helper()
	l := r.ledger()
	done := make(chan error, n)
	for i := range n {
		id := fmt.Sprint("c-", i)
		if err := l.PutDead(&queue.DeadLetter{
			ID: id, Origin: queue.Origin{Created: l.Created.UnixNano(), Seq: uint64(n - i)}, Attempt: 1, Code: "CODE", Class: schema.ClassRetryable,
			Subject: schema.SendSubject("main", schema.KindSend, simulator.ChannelWhatsApp),
			Body:    fmt.Appendf(nil, `{"id":%q,"chatType":"whatsapp","chatId":"7900000%04d","text":"%d"}`, id, i%100, n-i),
		}, func(err error) { done <- err }); err != nil {
			r.t.Fatal(err)
		}
	}
	for range n {
		if err := <-done; err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) letter(l *queue.Ledger, id string) *queue.DeadLetter {
	r.t.Helper()
	d, err := l.DeadOf(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

func (r *rig) texts() []string {
	var all []string
	for _, s := range r.sim.Sends() {
		all = append(all, s.Text)
	}
	return all
}

// onceEach fails if an event was stored twice.
func (r *rig) onceEach() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, n := range r.ids {
		if n != 1 {
			r.t.Errorf("event %s is stored %d times", id, n)
		}
	}
}

// The life of a dead command that was surely not sent: it is listed and shown, a
// dry run counts it, it is redriven once, and its ledger tells all of it.
func TestRedrive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.refuse("later", 1)
	stop := r.start(r.mortal())
	replies, err := r.nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"id":"a","chatType":"whatsapp","chatId":%q,"text":"later","meta":{"n":1},"group":"g"}`, phone)
	r.publish(schema.KindSend, "a", body, queue.WithReplyTo(replies.Subject))
	died := r.died("a", 1)

	items := r.letters(`{}`)
	want := sender.DeadItem{
		ID: "a", Kind: schema.KindSend, ChannelID: simulator.ChannelWhatsApp, Group: "g", State: schema.StateDead,
		Code: "MESSAGES_CAN_NOT_ADD", Class: schema.ClassRetryable, Reason: schema.ReasonAttempts, Fate: sender.FateUnsent, Attempt: 1, Seq: 1,
	}
	if len(items) != 1 || items[0].At.Before(died.At.Add(-time.Minute)) {
		t.Fatalf("list: got %+v", items)
	}
	if want.At = items[0].At; items[0] != want {
		t.Errorf("list: got %+v, want %+v", items[0], want)
	}
	var shown sender.DeadDetail
	if status, description := r.askFor("dead.show", `{"id":"a"}`, &shown); status != "" {
		t.Fatalf("show: %s %s", status, description)
	}
	if shown.DeadItem != want || string(shown.Body) != body || shown.Description == "" || shown.Headers.Get(schema.HeaderReplyTo) != replies.Subject ||
		shown.Subject != schema.SendSubject("main", schema.KindSend, simulator.ChannelWhatsApp) {
		t.Errorf("show: got %+v", shown)
	}

	r.redrive(`{"ids":["a"],"dryRun":true}`, sender.RedriveAnswer{Unsent: 1})
	r.redrive(`{"ids":["a"]}`, sender.RedriveAnswer{Redriven: 1, Unsent: 1})
	sent := r.event("a", schema.StateSent)
	if sent.Attempt != 2 || sent.Seq != 1 || string(sent.Meta) != `{"n":1}` || sent.Group != "g" {
		t.Errorf("sent: got %+v", sent)
	}
	for _, state := range []schema.State{schema.StateDead, schema.StateSent} {
		m, err := replies.NextMsg(patience)
		if err != nil || m.Header.Get(schema.HeaderCEType) != "wazzup.command."+string(state) {
			t.Errorf("reply: got %+v (%v), want %s", m, err, state)
		}
	}
	r.refused("dead.redrive", `{"ids":["a"]}`, "409", "NOTHING_LEFT")
	r.refused("dead.redrive", `{"filter":{}}`, "409", "NOTHING_LEFT")
	r.refused("dead.drop", `{"ids":["a"]}`, "409", "NOTHING_LEFT")
	r.refused("dead.show", `{"id":"a"}`, "404")
	if n := len(r.sim.Sends()); n != 2 {
		t.Errorf("the vendor got %d requests, want 2", n)
	}

	r.publish(schema.KindSend, "a", body)
	if e := r.bySeq(2); e.State != schema.StateDuplicate || e.Original == nil || e.Original.State != schema.StateSent || e.Original.Seq != 1 {
		t.Errorf("the same again: got %+v", e)
	}
	var line sender.Timeline
	r.askFor("command.get", `{"id":"a"}`, &line)
	var steps []string
	for _, s := range line.Steps {
		steps = append(steps, fmt.Sprintf("%s.%d.%d", s.Step, s.Generation, s.Attempt))
	}
	if want := []string{"stored.0.0", "claim.0.1", "final.0.1", "redrive.1.1", "claim.1.2", "final.1.2"}; !slices.Equal(steps, want) || line.State != schema.StateSent {
		t.Errorf("timeline: got %v %s, want %v", steps, line.State, want)
	}
	stop()
	r.emptied()
	r.onceEach()
}

// What may have been sent is redriven only by those who say so.
func TestRedriveInDoubt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.swallow("lost", 1)
	r.refuse("later", 1)
	r.start(r.mortal())
	r.send("lost", phone, "lost")
	r.send("later", "79990000002", "later")
	r.died("lost", 1)
	r.died("later", 1)
	if items := r.letters(`{"ids":["lost"]}`); len(items) != 1 || items[0].Fate != sender.FateUnknown || items[0].Class != schema.ClassUnknown {
		t.Errorf("list: got %+v, want its fate unknown", items)
	}
	l := r.ledger()
	claim, err := l.Timeline(t.Context(), "lost")
	if err != nil || len(claim) == 0 {
		t.Fatal(err)
	}
	if d := r.letter(l, "lost"); !d.Doubted || d.ClaimSeq != claim[0].Sequence || d.ClaimAt != claim[0].Stored.UnixMilli() {
		t.Errorf("letter: got %+v, want the claim %d", d, claim[0].Sequence)
	}
	r.refused("dead.redrive", `{"ids":["lost"]}`, "409", "includeUnknown")
	r.redrive(`{"filter":{},"dryRun":true}`, sender.RedriveAnswer{Unsent: 1, Unknown: 1})
	r.redrive(`{"filter":{}}`, sender.RedriveAnswer{Redriven: 1, Unsent: 1, Unknown: 1})
	r.event("later", schema.StateSent)
	if n := len(r.sim.Sends()); n != 3 {
		t.Errorf("the vendor got %d requests, want 3", n)
	}
	r.redrive(`{"filter":{},"includeUnknown":true}`, sender.RedriveAnswer{Redriven: 1, Unknown: 1})
	r.event("lost", schema.StateSent)
	last, err := l.Last(t.Context(), "lost")
	if err != nil || !last.Doubted {
		t.Errorf("the ledger's last record: got %+v (%v), want it to keep the doubt", last, err)
	}
}

// A doubt stays through a retry that was surely without effect.
func TestDeadAfterResend(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.swallow("twice", 1)
	r.refuse("twice", 0)
	cfg := r.config()
	cfg.MaxAttempts = 2
	r.start(cfg)
	r.send("twice", phone, "twice", `,"onUnknown":"resend"`)
	r.died("twice", 1)
	if items := r.letters(`{}`); len(items) != 1 || items[0].Fate != sender.FateUnknown || items[0].Class != schema.ClassRetryable || items[0].Attempt != 2 {
		t.Errorf("list: got %+v, want a retryable fault and an unknown fate", items)
	}
}

func TestDeadFilter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.refuse("later", 0)
	r.swallow("lost", 0)
	r.start(r.mortal())
	r.send("a", phone, "later", `,"group":"g"`)
	r.died("a", 1)
	between := r.letters(`{}`)[0].At.Add(time.Nanosecond).Format(time.RFC3339Nano)
	r.send("b", phone, "lost", `,"group":"g"`)
	r.send("c", "79990000002", "later")
	if _, err := r.pub.Send(t.Context(), schema.KindBulk, simulator.ChannelTelegram, []byte(`{"id":"d","chatType":"telegram","chatId":"x","text":"later"}`)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"b", "c", "d"} {
		r.died(id, 1)
	}
	for _, tt := range []struct { //nolint:paralleltest // the rows share one rig
		name, filter string
		want         string
	}{
		{"all", `{}`, "a b c d"},
		{"code", `{"code":"MESSAGES_CAN_NOT_ADD"}`, "a c d"},
		{"channel", `{"channelId":"` + simulator.ChannelTelegram + `"}`, "d"},
		{"group", `{"group":"g"}`, "a b"},
		{"unsent", `{"fate":"unsent"}`, "a c d"},
		{"unknown", `{"fate":"unknown"}`, "b"},
		{"before", `{"before":"` + between + `"}`, "a"},
		{"after", `{"after":"` + between + `"}`, "b c d"},
		{"all must hold", `{"group":"g","fate":"unsent","before":"` + between + `"}`, "a"},
		{"none", `{"code":"OTHER"}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var ids []string
			for _, item := range r.letters(`{"filter":` + tt.filter + `}`) {
				ids = append(ids, item.ID)
			}
			slices.Sort(ids)
			if got := strings.Join(ids, " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	r.deadFaults()
	if items := r.letters(`{}`); len(items) != 4 {
		t.Errorf("%d letters are left, want all 4", len(items))
	}
}

// deadFaults asks for what cannot be answered, of letters a to d.
func (r *rig) deadFaults() {
	r.t.Helper()
	for _, tt := range []struct{ request, body, status, says string }{
		{"dead.redrive", `{}`, "400", "ids or filter"},
		{"dead.drop", `{}`, "400", "ids or filter"},
		{"dead.redrive", `{"ids":["a"],"filter":{}}`, "400", "ids and filter"},
		{"dead.redrive", `{"ids":[]}`, "400", "ids"},
		{"dead.redrive", `{"filter":{"fate":"lost"}}`, "400", "filter.fate"},
		{"dead.redrive", `{"filter":{"before":"yesterday"}}`, "400", "filter.before"},
		{"dead.list", `{"filter":{"after":"1h"}}`, "400", "filter.after"},
		{"dead.list", `{"filter":{"state":"dead"}}`, "400", ""},
		{"dead.redrive", `{"filter":{},"rate":"fast"}`, "400", "rate"},
		{"dead.redrive", `{"filter":{},"rate":"1/24h","includeUnknown":true}`, "400", "rate"},
		{"dead.redrive", `{"ids":["a","nobody","no one"]}`, "404", "no one, nobody"},
		{"dead.drop", `{"ids":["nobody","a"]}`, "404", "nobody"},
		{"dead.redrive", `{"filter":{"code":"OTHER"}}`, "409", "NOTHING_LEFT"},
		{"dead.drop", `{"filter":{"code":"OTHER"}}`, "409", "NOTHING_LEFT"},
		{"dead.show", `{}`, "400", "id"},
		{"dead.show", `{"id":"nobody"}`, "404", ""},
	} {
		r.refused(tt.request, tt.body, tt.status, tt.says)
	}
}

// Two requests at once: each letter is one command, and counted once.
func TestRedriveTwiceAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const n = 20
	r.buryMany(n)
	r.start(r.config())
	var wg sync.WaitGroup
	counted := make([]int, 3)
	for i := range counted {
		wg.Go(func() {
			m, err := r.request("dead.redrive", `{"filter":{}}`)
			if err != nil {
				t.Error(err)
				return
			}
			var got sender.RedriveAnswer
			if json.Unmarshal(m.Data, &got) == nil {
				counted[i] = got.Redriven
			}
		})
	}
	wg.Wait()
	if got := counted[0] + counted[1] + counted[2]; got != n {
		t.Errorf("redriven: got %v, want %d in all", counted, n)
	}
	for i := range n {
		r.event(fmt.Sprint("c-", i), schema.StateSent)
	}
	if got := len(r.sim.Sends()); got != n {
		t.Errorf("the vendor got %d requests, want %d", got, n)
	}
}

// A redriven command that dies again is redriven again.
func TestSecondDeath(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.refuse("later", 4)
	cfg := r.config()
	cfg.MaxAttempts = 2
	r.start(cfg)
	r.send("a", phone, "later")
	for death := 1; death <= 2; death++ {
		if e := r.died("a", death); e.Attempt != 2*death {
			t.Errorf("death %d: attempt %d, want %d: attempts start anew, their numbers go on", death, e.Attempt, 2*death)
		}
		if items := r.letters(`{}`); len(items) != 1 || items[0].Generation != death-1 || items[0].Attempt != 2*death {
			t.Errorf("letters: got %+v, want one of generation %d", items, death-1)
		}
		r.redrive(`{"ids":["a"]}`, sender.RedriveAnswer{Redriven: 1, Unsent: 1})
	}
	if e := r.event("a", schema.StateSent); e.Attempt != 5 {
		t.Errorf("attempt: got %d, want 5", e.Attempt)
	}
	r.emptied()
	r.onceEach()
}

// What is redriven together keeps the order of its chat, and another command of
// the chat that died later does not overtake.
func TestRedriveKeepsOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const n = 4 // more in a row would open the breaker
	r.refuse("later", n)
	r.start(r.mortal())
	var want []string
	for i := range n {
		text := fmt.Sprintf("later %02d", i)
		want = append(want, text)
		r.send(fmt.Sprint("c-", i), phone, text)
	}
	for i := range n {
		r.died(fmt.Sprint("c-", i), 1)
	}
	// Where the letters lie tells nothing: this one lies last.
	l := r.ledger()
	r.bury(l, r.letter(l, "c-0"))
	r.redrive(`{"filter":{}}`, sender.RedriveAnswer{Redriven: n, Unsent: n})
	for i := range n {
		r.event(fmt.Sprint("c-", i), schema.StateSent)
	}
	if got := r.texts()[n:]; !slices.Equal(got, want) {
		t.Errorf("order: got %v", got)
	}
}

// A rate spreads the calls, and needs no worker to stay alive.
func TestRedriveWithRate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const n = 4
	r.refuse("later", n)
	stop := r.start(r.mortal())
	for i := range n {
		r.send(fmt.Sprint("c-", i), phone, fmt.Sprint("later ", i))
	}
	for i := range n {
		r.died(fmt.Sprint("c-", i), 1)
	}
	asked := time.Now()
	r.redrive(`{"filter":{},"rate":"2/1s"}`, sender.RedriveAnswer{Redriven: n, Unsent: n})
	r.event("c-0", schema.StateSent)
	stop()
	r.start(r.mortal())
	for i := range n {
		r.event(fmt.Sprint("c-", i), schema.StateSent)
	}
	sends := r.sim.Sends()[n:]
	if len(sends) != n {
		t.Fatalf("the vendor got %d requests, want %d", len(sends), n)
	}
	for i, s := range sends {
		if due := asked.Add(time.Duration(i) * 500 * time.Millisecond); s.Time.Before(due) || s.Text != fmt.Sprint("later ", i) {
			t.Errorf("call %d was %q after %v, want it in order and not before %v", i, s.Text, s.Time.Sub(asked), due.Sub(asked))
		}
	}
}

// Whatever step a redrive crashed after, the same request completes it, and the
// command is called once.
func TestRedriveAfterCrash(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		// crash leaves behind what a redrive that ended there does.
		crash func(r *rig, l *queue.Ledger, d *queue.DeadLetter)
		found bool // the next redrive has something to do
	}{
		{"after the record", func(r *rig, l *queue.Ledger, d *queue.DeadLetter) {
			last, err := l.Last(r.t.Context(), d.ID)
			if err != nil {
				r.t.Fatal(err)
			}
			redrive := *last
			redrive.Step, redrive.Generation, redrive.Event = queue.StepRedrive, 1, nil
			r.asOwner(&redrive)
		}, true},
		{"after the copy", func(r *rig, l *queue.Ledger, d *queue.DeadLetter) {
			stop := r.start(r.mortal())
			r.redrive(`{"ids":["a"]}`, sender.RedriveAnswer{Redriven: 1, Unsent: 1})
			r.event("a", schema.StateSent)
			stop()
			r.bury(l, d)
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.refuse("later", 1)
			stop := r.start(r.mortal())
			r.send("a", phone, "later")
			r.died("a", 1)
			stop()
			l := r.ledger()
			tt.crash(r, l, r.letter(l, "a"))
			r.start(r.mortal())
			if tt.found {
				r.redrive(`{"ids":["a"]}`, sender.RedriveAnswer{Redriven: 1, Unsent: 1})
			} else {
				r.refused("dead.redrive", `{"ids":["a"]}`, "409")
			}
			if e := r.event("a", schema.StateSent); e.Attempt != 2 {
				t.Errorf("attempt: got %d, want 2", e.Attempt)
			}
			r.emptied()
			if n := len(r.sim.Sends()); n != 2 {
				t.Errorf("the vendor got %d requests, want 2", n)
			}
			if d := r.letter(l, "a"); d != nil {
				t.Errorf("the letter is still there: %+v", d)
			}
			r.onceEach()
		})
	}
}

// A copy that is published twice is one command, whether the second meets the
// first under way or after its end, even as dead.
func TestCopyTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.refuse("later", 2)
	stop := r.start(r.mortal())
	r.send("a", phone, "later")
	r.died("a", 1)
	stop()
	l := r.ledger()
	d := r.letter(l, "a")
	last, err := l.Last(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	redrive := *last
	redrive.Step, redrive.Generation, redrive.Event = queue.StepRedrive, 1, nil
	expect := r.asOwner(&redrive)
	put := func() { r.putCopy(l, d, expect) }
	put()
	put()
	r.start(r.mortal())
	r.died("a", 2)
	r.redrive(`{"ids":["a"]}`, sender.RedriveAnswer{Redriven: 1, Unsent: 1})
	r.event("a", schema.StateSent)
	put() // long after it was redriven once more
	r.drained()
	if n := len(r.sim.Sends()); n != 3 {
		t.Errorf("the vendor got %d requests, want 3", n)
	}
	if d := r.letter(l, "a"); d != nil {
		t.Errorf("a letter has come back: %+v", d)
	}
	r.onceEach()
}

// putCopy publishes the copy of a dead command as a redrive with this sequence in
// its ledger does.
func (r *rig) putCopy(l *queue.Ledger, d *queue.DeadLetter, expect uint64) {
	r.t.Helper()
	kind, channel, _ := schema.ParseCommandSubject("main", d.Subject)
	h := nats.Header{
		"Wazzup-Origin": {fmt.Sprintf("%d.%d", d.Origin.Created, d.Origin.Seq)}, "Wazzup-Generation": {"1"},
		"Wazzup-Stored": {strconv.FormatInt(time.Now().UnixNano(), 10)}, "Wazzup-Subject": {d.Subject}, "Wazzup-Id": {d.ID},
		"Wazzup-Expect": {strconv.FormatUint(expect, 10)}, "Wazzup-Attempt": {"1"},
	}
	done := make(chan error, 1)
	l.PutDue(l.DueSubject(kind, channel), h, d.Body, func(err error) { done <- err })
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
}

// drained waits until nothing that is due is left in the deferred stream.
func (r *rig) drained() {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Deferred())
	if err != nil {
		r.t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(patience); ; {
		info, err := s.Info(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		if info.State.Msgs == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("%d copies are left in the deferred stream", info.State.Msgs)
		}
	}
}

// A dead command whose message was not acknowledged is in hand together with its
// redriven copy: its end is told, and the copy goes its own way.
func TestOriginalAfterRedrive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.refuse("later", 1)
	stop := r.start(r.mortal())
	r.send("first", phone, "later")
	r.died("first", 1)
	stop()
	// What an owner leaves that died before the event of the end of "second", while
	// another one redrove it.
	body := fmt.Sprintf(`{"id":"second","chatType":"whatsapp","chatId":%q,"text":"x"}`, phone)
	r.publish(schema.KindSend, "second", body)
	l := r.ledger()
	first, err := l.Timeline(t.Context(), "first")
	if err != nil || len(first) != 2 {
		t.Fatalf("got %d records (%v), want 2", len(first), err)
	}
	sum := schema.Fingerprint(schema.KindSend, simulator.ChannelWhatsApp, []byte(body))
	for _, record := range first {
		record.ID, record.Origin.Seq = "second", 2
		record.Fingerprint = base64.RawURLEncoding.EncodeToString(sum[:])
		record.Event = json.RawMessage(strings.NewReplacer(`"id":"first"`, `"id":"second"`, `"seq":1`, `"seq":2`).Replace(string(record.Event)))
	}
	redrive := *first[1]
	redrive.Step, redrive.Generation, redrive.Event = queue.StepRedrive, 1, nil
	expect := r.asOwner(first[0], first[1], &redrive)
	d := r.letter(l, "first")
	d.ID, d.Origin.Seq, d.Body = "second", 2, []byte(body)
	r.putCopy(l, d, expect)

	cfg := r.mortal()
	cfg.Rate = rate.Rate{N: 10, Per: time.Second} // a new owner waits the window out, with both in hand
	r.start(cfg)
	r.died("second", 1)
	r.event("second", schema.StateSent)
	r.emptied()
	r.drained()
	if got, want := r.texts(), []string{"later", "x"}; !slices.Equal(got, want) {
		t.Errorf("calls: got %v, want %v", got, want)
	}
	if d := r.letter(l, "second"); d != nil {
		t.Errorf("the letter has come back: %+v", d)
	}
	r.onceEach()
}

// A letter outlives its ledger, and an id that was taken since is left alone.
func TestRedriveForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.refuse("later", 2)
	r.start(r.mortal())
	r.send("a", phone, "later")
	r.send("b", phone, "later")
	r.died("a", 1)
	r.died("b", 1)
	l := r.ledger()
	taken := r.letter(l, "b")
	records, err := r.js.Stream(t.Context(), l.Records())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		if err := records.Purge(t.Context(), jetstream.WithPurgeSubject(l.LedgerSubject(id))); err != nil {
			t.Fatal(err)
		}
	}
	r.send("b", phone, "another")
	r.event("b", schema.StateSent)
	r.bury(l, taken)

	r.redrive(`{"ids":["a"]}`, sender.RedriveAnswer{Redriven: 1, Unsent: 1})
	if e := r.event("a", schema.StateSent); e.Attempt != 2 {
		t.Errorf("attempt: got %d, want 2", e.Attempt)
	}
	r.refused("dead.redrive", `{"ids":["b"]}`, "409")
	if d := r.letter(l, "b"); d != nil {
		t.Errorf("the letter of the id's former owner is still there: %+v", d)
	}
	if n := len(r.sim.Sends()); n != 4 {
		t.Errorf("the vendor got %d requests, want 4", n)
	}
}

// A command that died of its age is as young as its redrive.
func TestRedriveTooOld(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const oldest = 4 * time.Second
	r.send("a", phone, "1")
	cfg := r.config()
	cfg.Limits.Retention = time.Hour + time.Millisecond
	stop := r.start(cfg)
	if e := r.died("a", 1); e.Error.Reason != schema.ReasonTooOld {
		t.Fatalf("reason: got %s, want too_old", e.Error.Reason)
	}
	stop()
	tooOld := time.After(oldest) // for the next owner, too
	cfg.Limits.Retention = time.Hour + oldest
	r.start(cfg)
	<-tooOld
	r.redrive(`{"ids":["a"]}`, sender.RedriveAnswer{Redriven: 1, Unsent: 1})
	r.event("a", schema.StateSent)
}

func TestDropLetter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.refuse("later", 0)
	stop := r.start(r.mortal())
	body := fmt.Sprintf(`{"id":"a","chatType":"whatsapp","chatId":%q,"text":"later"}`, phone)
	r.publish(schema.KindSend, "a", body)
	r.send("b", phone, "later")
	r.died("a", 1)
	r.died("b", 1)
	l := r.ledger()
	letter := r.letter(l, "a")
	var got sender.DropAnswer
	if status, description := r.askFor("dead.drop", `{"ids":["a"]}`, &got); status != "" || got.Dropped != 1 {
		t.Errorf("drop: got %s %s %+v", status, description, got)
	}
	if items := r.letters(`{}`); len(items) != 1 || items[0].ID != "b" {
		t.Errorf("letters: got %+v, want b", items)
	}
	r.publish(schema.KindSend, "a", body)
	if e := r.bySeq(3); e.State != schema.StateDuplicate || e.Original.State != schema.StateDead {
		t.Errorf("the same again: got %+v, want a duplicate of a dead one", e)
	}
	var line sender.Timeline
	r.askFor("command.get", `{"id":"a"}`, &line)
	if last := line.Steps[len(line.Steps)-1]; last.Step != "dropped" || line.State != schema.StateDead {
		t.Errorf("timeline: got %s %+v", line.State, last)
	}
	// A drop that crashed before the letter went is completed, by a redrive too.
	r.bury(l, letter)
	r.refused("dead.redrive", `{"ids":["a"]}`, "409")
	r.bury(l, letter)
	if status, description := r.askFor("dead.drop", `{"filter":{}}`, &got); status != "" || got.Dropped != 2 {
		t.Errorf("drop: got %s %s %+v, want 2", status, description, got)
	}
	stop()
	if n := len(r.sim.Sends()); n != 2 {
		t.Errorf("the vendor got %d requests, want 2", n)
	}
}

// A redrive that crashed after its record is no letter to drop: its command goes on.
func TestDropHalfRedriven(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.refuse("later", 1)
	stop := r.start(r.mortal())
	r.send("a", phone, "later")
	r.died("a", 1)
	stop()
	last, err := r.ledger().Last(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	redrive := *last
	redrive.Step, redrive.Generation, redrive.Event = queue.StepRedrive, 1, nil
	r.asOwner(&redrive)
	r.start(r.mortal())
	r.refused("dead.drop", `{"ids":["a"]}`, "409")
	r.redrive(`{"ids":["a"]}`, sender.RedriveAnswer{Redriven: 1, Unsent: 1})
	r.event("a", schema.StateSent)
}

// What was proven after its death is not sent again, whoever asks for it.
func TestRedriveProven(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.swallow("lost", 1)
	stop := r.start(r.mortal())
	r.send("a", phone, "lost")
	r.died("a", 1)
	stop()
	last, err := r.ledger().Last(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	proof := *last
	proof.Step, proof.Event, proof.MessageID, proof.Evidence = queue.StepProof, nil, "m", "echo"
	r.asOwner(&proof)
	r.start(r.mortal())
	r.refused("dead.redrive", `{"ids":["a"],"includeUnknown":true}`, "409", "proven")
	if items := r.letters(`{}`); len(items) != 0 {
		t.Errorf("letters: got %+v, want none", items)
	}
	if n := len(r.sim.Sends()); n != 1 {
		t.Errorf("the vendor got %d requests, want 1", n)
	}
}

// Every kind of command can die and be redriven, one that was scheduled too, and
// any header that a producer gave it.
func TestRedriveKinds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.refuse("later", 2)
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/contacts"}, Times: 1, Status: 500})
	r.start(r.mortal())
	r.send("scheduled\n1", phone, "later", fmt.Sprintf(`,"sendAt":%q`, time.Now().Add(300*time.Millisecond).Format(time.RFC3339Nano)))
	headers := queue.WithHeader("Nats-Expected-Stream", queue.Names{Account: "main"}.Commands())
	r.publish(schema.KindBulk, "bulk", `{"id":"bulk","chatType":"whatsapp","chatId":"79990000002","text":"later"}`, headers)
	contact := map[string]any{"id": "c1", "responsibleUserId": "u1", "name": "N", "contactData": []any{map[string]string{"chatType": "whatsapp", "chatId": phone}}}
	if _, err := r.pub.Sync(t.Context(), schema.EntityContacts, schema.VerbUpsert, contact, queue.WithID("sync")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"scheduled\n1", "bulk", "sync"} {
		r.died(id, 1)
	}
	r.redrive(`{"filter":{}}`, sender.RedriveAnswer{Redriven: 3, Unsent: 3})
	r.event("scheduled\n1", schema.StateSent)
	r.event("bulk", schema.StateSent)
	r.event("sync", schema.StateDone)
	if n := len(r.sim.Contacts()); n != 1 {
		t.Errorf("%d contacts, want 1", n)
	}
	r.emptied()
	r.drained()
	r.onceEach()
}

// A command that is too old to be called and whose id is another's leaves the
// other's letter alone.
func TestLetterOfAnother(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.refuse("later", 0)
	cfg := r.mortal()
	stop := r.start(cfg)
	r.send("a", phone, "later")
	r.died("a", 1)
	stop()
	r.send("a", phone, "later")
	cfg.Limits.Retention = time.Hour + time.Millisecond
	r.start(cfg)
	if e := r.bySeq(2); e.State != schema.StateDead || e.Error.Reason != schema.ReasonTooOld {
		t.Fatalf("got %s %+v, want it too old", e.State, e.Error)
	}
	if items := r.letters(`{}`); len(items) != 1 || items[0].Seq != 1 {
		t.Errorf("letters: got %+v, want that of the first", items)
	}
}

// Many letters are listed in pages and redriven by one request, in the order of
// their commands and not of their deaths.
func TestManyLetters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const n = 1200
	r.buryMany(n)
	cfg := r.config()
	cfg.Timeout = time.Minute // of a request, on a slow machine
	r.start(cfg)
	var ids []string
	pages, offset := 0, uint64(0)
	for {
		var page sender.DeadList
		if status, description := r.askFor("dead.list", fmt.Sprintf(`{"filter":{"code":"CODE"},"offset":%d}`, offset), &page); status != "" {
			t.Fatalf("list: %s %s", status, description)
		}
		for _, item := range page.Items {
			ids = append(ids, item.ID)
		}
		pages++
		if offset = page.Next; offset == 0 {
			break
		}
	}
	if len(ids) != n || ids[0] != "c-0" || ids[n-1] != fmt.Sprint("c-", n-1) || pages < 2 {
		t.Errorf("list: got %d in %d pages, want %d, oldest death first", len(ids), pages, n)
	}
	m, err := r.nc.Request(schema.APISubject("main", "dead.redrive"), []byte(`{"filter":{"code":"CODE"}}`), time.Minute)
	if want := fmt.Sprintf(`{"redriven":%d,"unsent":%d,"unknown":0}`, n, n); err != nil || string(m.Data) != want {
		t.Fatalf("redrive: got %+v (%v), want %s", m, err, want)
	}
	r.finals(n)
	sends := r.sim.Sends()
	if len(sends) != n {
		t.Errorf("the vendor got %d requests, want %d", len(sends), n)
	}
	lastOf := make(map[string]int)
	for _, s := range sends {
		seq, err := strconv.Atoi(s.Text)
		if err != nil || seq <= lastOf[s.ChatID] {
			t.Errorf("chat %s: %s after %d", s.ChatID, s.Text, lastOf[s.ChatID])
		}
		lastOf[s.ChatID] = seq
	}
	if items := r.letters(`{}`); len(items) != 0 {
		t.Errorf("%d letters are left", len(items))
	}
}

// Without room in the deferred stream a redrive ends and says how far it came.
func TestRedriveWithoutRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.refuse("later", 0)
	cfg := r.mortal()
	cfg.Limits.DeferredBytes = 1
	r.start(cfg)
	r.send("a", phone, "later")
	r.send("b", phone, "in an hour", fmt.Sprintf(`,"sendAt":%q`, time.Now().Add(time.Hour).Format(time.RFC3339)))
	r.died("a", 1)
	r.emptied() // b is scheduled
	r.refused("dead.redrive", `{"filter":{}}`, "503", "PARTLY_DONE", "0 were redriven")
	if items := r.letters(`{}`); len(items) != 1 {
		t.Errorf("letters: got %+v, want it to be there", items)
	}
}
