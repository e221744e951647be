package sender_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
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

// fenced opens the account's ledger as a worker would that has lost its epoch: it
// reads all, and writes only what is not fenced.
func (r *rig) fenced() *queue.Ledger {
	r.t.Helper()
	topology, err := queue.Ensure(r.t.Context(), r.js, "main", limits())
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := queue.NewLedger(r.nc, topology, "a-former-one", nil, zerolog.Nop())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(l.Close)
	return l
}

func (r *rig) recordsOf(id string) []*queue.Record {
	r.t.Helper()
	records, err := r.fenced().Timeline(r.t.Context(), queue.LedgerKey(id))
	if err != nil {
		r.t.Fatal(err)
	}
	return records
}

func (r *rig) lastRecord(id string) *queue.Record {
	r.t.Helper()
	records := r.recordsOf(id)
	if len(records) == 0 {
		r.t.Fatalf("%s has no ledger", id)
	}
	return records[len(records)-1]
}

// lateAnswer notes, as a fenced worker does, the 201 of the command's last attempt.
func (r *rig) lateAnswer(id, messageID string) {
	r.t.Helper()
	l := r.fenced()
	last := r.lastRecord(id)
	x := &queue.Index{
		ID: id, Origin: last.Origin, Generation: last.Generation, Attempt: last.Attempt, Kind: schema.KindSend,
		ChannelID: simulator.ChannelWhatsApp, ChatType: schema.ChatWhatsApp, ChatID: phone, MessageID: messageID,
	}
	done := make(chan error, 2)
	for _, put := range []func(*queue.Index, func(error)){l.PutIndex, l.PutLate} {
		put(x, func(err error) { done <- err })
	}
	for range 2 {
		if err := <-done; err != nil {
			r.t.Fatal(err)
		}
	}
}

// lateProof is the detail of one `late_proof`.
type lateProof struct {
	ID, MessageID, Evidence string
	Generation              int
}

// lateProofs waits for n `late_proof` and returns all that are stored.
func (r *rig) lateProofs(n int) []lateProof {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	subject := schema.OpsEventSubject("main", schema.OpsLateProof)
	c, err := s.OrderedConsumer(r.t.Context(), jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	var all []lateProof
	for len(all) < n || r.pending(c) {
		m, err := c.Next(jetstream.FetchContext(ctx))
		if err != nil {
			r.t.Fatalf("%d late proofs, want %d: %v", len(all), n, err)
		}
		var e struct {
			ChannelID string    `json:"channelId"`
			Detail    lateProof `json:"detail"`
		}
		if err := json.Unmarshal(m.Data(), &e); err != nil || e.ChannelID != simulator.ChannelWhatsApp {
			r.t.Errorf("late_proof %s: %v", m.Data(), err)
		}
		all = append(all, e.Detail)
	}
	slices.SortFunc(all, func(a, b lateProof) int { return strings.Compare(a.MessageID, b.MessageID) })
	return all
}

func (r *rig) pending(c jetstream.Consumer) bool {
	info, err := c.Info(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return info.NumPending > 0
}

// finalsOf counts the final events of an id.
func (r *rig) finalsOf(id string) (n int) {
	for _, s := range r.all(id) {
		if s.Final() {
			n++
		}
	}
	return n
}

// lossy is a rig whose vendor carries out what says `lost` and answers nothing,
// and on which webhooks are known to arrive.
func lossy(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.echo("first", "70000000000", `"authorType":9,"dateTime":1,"text":"webhooks arrive here"`)
	r.lose()
	return r
}

func (r *rig) lose() {
	r.t.Helper()
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/send_message", TextContains: "lost"}, Fault: simulator.FaultDropAfterAccept}); err != nil {
		r.t.Fatal(err)
	}
}

// said are the fields of an echo that the vendor dates now.
func said(text string) string {
	return `"authorType":9,"dateTime":` + ms(time.Now()) + `,"text":"` + text + `"`
}

// What proves, after its end, that a dead command was carried out goes to its
// timeline and to operators, wherever the account is owned meanwhile.
func TestLateProof(t *testing.T) {
	t.Parallel()
	prove := map[string]func(r *rig){
		"echo":   func(r *rig) { r.echo("m1", phone, said("lost")) },
		"answer": func(r *rig) { r.lateAnswer("a", "m1") },
	}
	owners := []struct {
		name string
		when func(r *rig, stop func(), proof func())
	}{
		{"the same owner", func(_ *rig, _, proof func()) { proof() }},
		{"the next owner", func(r *rig, stop, proof func()) {
			stop()
			r.start(r.config())
			r.states(r.send("b", "79000000001", "so it is owned"))
			proof()
		}},
		{"nobody owned it then", func(r *rig, stop, proof func()) {
			stop()
			proof()
			r.start(r.config())
		}},
	}
	for evidence, proof := range prove {
		for _, tt := range owners {
			t.Run(evidence+", "+tt.name, func(t *testing.T) {
				t.Parallel()
				r := lossy(t)
				stop := r.start(r.config())
				r.send("a", phone, "lost")
				r.event("a", schema.StateDead)
				r.emptied()
				tt.when(r, stop, func() { proof(r) })
				want := []lateProof{{"a", "m1", evidence, 0}}
				if got := r.lateProofs(1); !slices.Equal(got, want) {
					t.Errorf("late_proof: got %+v, want %+v", got, want)
				}
				last := r.lastRecord("a")
				if last.Step != queue.StepProof || last.MessageID != "m1" || last.Evidence != evidence || last.Claim == 0 {
					t.Errorf("last record: got %+v, want the proof", last)
				}
				// Its statuses are the command's from then on.
				r.status("m1", "delivered", 2)
				r.event("a", schema.StateDelivered)
				if n := r.finalsOf("a"); n != 1 {
					t.Errorf("%d final events, want 1", n)
				}
			})
		}
	}
}

// What a person settles without knowing the message may still have its echo, which
// then names it.
func TestEchoAfterAPersonsWord(t *testing.T) {
	t.Parallel()
	for as, state := range map[string]schema.State{"sent": schema.StateSent, "drop": schema.StateDead} {
		t.Run(as, func(t *testing.T) {
			t.Parallel()
			r := lossy(t)
			cfg := r.config()
			cfg.ReconcileWait = time.Minute
			r.start(cfg)
			r.send("a", phone, "lost")
			r.event("a", schema.StateUnknown)
			if _, err := r.request("command.resolve", fmt.Sprintf(`{"id":"a","as":%q}`, as)); err != nil {
				t.Fatal(err)
			}
			r.event("a", state)
			// An equal one, in doubt at the same time: one echo proves neither.
			r.send("b", phone, "lost")
			r.event("b", schema.StateUnknown)
			r.echoes(phone, said("lost"), "m1", "m2")
			proofs := r.lateProofs(1)
			if e := r.event("b", schema.StateSent); proofs[0].ID != "a" || proofs[0].MessageID == e.MessageID {
				t.Errorf("b is sent by %s, late_proof %+v: want an echo each", e.MessageID, proofs)
			}
			if n := r.finalsOf("a"); n != 1 {
				t.Errorf("%d final events, want 1", n)
			}
		})
	}
}

// A proof is told once, however often its evidence comes and whoever reads it.
func TestLateProofIsToldOnce(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	stop := r.start(r.config())
	r.send("a", phone, "lost")
	r.event("a", schema.StateDead)
	r.echo("m1", phone, said("lost"))
	r.lateProofs(1)
	r.echo("m1", phone, said("lost")) // the vendor repeats a message as its state changes
	r.lateAnswer("a", "m1")
	stop()
	r.start(r.config())
	r.lateAnswer("a", "m1")
	// What comes after it in the same chat has been told when that is.
	r.send("b", phone, "lost too")
	r.event("b", schema.StateDead)
	r.lateAnswer("b", "m2")
	want := []lateProof{{"a", "m1", "echo", 0}, {"b", "m2", "answer", 0}}
	if got := r.lateProofs(2); !slices.Equal(got, want) {
		t.Errorf("late_proof: got %+v, want %+v", got, want)
	}
}

// An answer that comes late to a command that evidence has proven meanwhile is
// nothing new, unless it names another message: that is a second one.
func TestLateAnswerAfterSent(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	cfg := r.config()
	cfg.ReconcileWait = patience
	r.start(cfg)
	r.send("a", phone, "lost")
	r.event("a", schema.StateUnknown)
	r.echo("m1", phone, said("lost"))
	r.event("a", schema.StateSent)
	r.lateAnswer("a", "m1")
	r.lateAnswer("a", "m2")
	want := []lateProof{{"a", "m2", "answer", 0}}
	if got := r.lateProofs(1); !slices.Equal(got, want) {
		t.Errorf("late_proof: got %+v, want %+v", got, want)
	}
	if got := r.states("a"); !slices.Equal(got, []schema.State{schema.StateUnknown, schema.StateSent}) {
		t.Errorf("states: got %v", got)
	}
}

// An answer that comes while its command is in doubt ends it.
func TestLateAnswerOfADoubt(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	cfg := r.config()
	cfg.ReconcileWait = patience
	r.start(cfg)
	r.send("a", phone, "lost")
	r.event("a", schema.StateUnknown)
	r.lateAnswer("a", "m1")
	e := r.event("a", schema.StateSent)
	if e.MessageID != "m1" || e.Evidence == nil || e.Evidence.Kind != schema.EvidenceAnswer {
		t.Errorf("got %s by %+v, want m1 by the answer", e.MessageID, e.Evidence)
	}
}

// Of two equal messages that were given up, one echo cannot tell which arrived;
// two prove both.
func TestTwoGivenUp(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	r.start(r.config())
	for _, id := range []string{"a", "b"} {
		r.send(id, phone, "lost")
		r.event(id, schema.StateDead)
	}
	r.send("c", "79000000001", "lost")
	r.event("c", schema.StateDead)
	r.echo("m1", phone, said("lost"))
	r.echo("m3", "79000000001", said("lost"))
	if got, want := r.lateProofs(1), []lateProof{{"c", "m3", "echo", 0}}; !slices.Equal(got, want) {
		t.Errorf("after one echo: got %+v, want %+v", got, want)
	}
	r.echo("m2", phone, said("lost"))
	want := []lateProof{{"a", "m1", "echo", 0}, {"b", "m2", "echo", 0}, {"c", "m3", "echo", 0}}
	if got := r.lateProofs(3); !slices.Equal(got, want) {
		t.Errorf("after two: got %+v, want %+v", got, want)
	}
}

// A late echo is not judged while another call of equal content is unanswered: it
// could be that one's.
func TestLateEchoDuringAnEqualCall(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	r.start(r.config())
	r.send("a", phone, "lost")
	r.event("a", schema.StateDead)
	r.sim.ClearRules()
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Text: "lost"}, Status: 201, Body: `{"messageId":"m2"}`, Delay: simulator.Duration(time.Second)}); err != nil {
		t.Fatal(err)
	}
	r.send("b", phone, "lost")
	if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return r.sendsTo(phone) == 2 }); err != nil {
		t.Fatal(err)
	}
	r.echo("m2", phone, said("lost")) // it overtakes the answer
	if e := r.event("b", schema.StateSent); e.MessageID != "m2" || e.Evidence != nil {
		t.Errorf("b: got %s by %+v", e.MessageID, e.Evidence)
	}
	r.echo("m1", phone, said("lost"))
	want := []lateProof{{"a", "m1", "echo", 0}}
	if got := r.lateProofs(1); !slices.Equal(got, want) {
		t.Errorf("late_proof: got %+v, want %+v", got, want)
	}
}

// An echo that could not be judged when it came is, when the call that stood
// against it has its answer.
func TestLateEchoIsJudgedAfterAnEqualCall(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	r.start(r.config())
	r.send("a", phone, "lost")
	r.event("a", schema.StateDead)
	r.sim.ClearRules()
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Text: "lost"}, Status: 201, Body: `{"messageId":"m2"}`, Delay: simulator.Duration(time.Second)}); err != nil {
		t.Fatal(err)
	}
	r.send("b", phone, "lost")
	if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return r.sendsTo(phone) == 2 }); err != nil {
		t.Fatal(err)
	}
	r.echo("m1", phone, said("lost"))
	r.event("b", schema.StateSent)
	want := []lateProof{{"a", "m1", "echo", 0}}
	if got := r.lateProofs(1); !slices.Equal(got, want) {
		t.Errorf("late_proof: got %+v, want %+v", got, want)
	}
}

func TestEvidencePosition(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		pending, late []uint64
		want          uint64
	}{
		{"nothing waits", nil, nil, 100},
		{"a chat waits to be judged", []uint64{50, 70}, nil, 49},
		{"an answer waits for its command's end", []uint64{50}, []uint64{90, 40}, 39},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := sender.EvidencePosition(100, tt.pending, tt.late); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// What one owner gave up counts for the next: with an equal message in doubt, one
// echo proves neither, two prove both.
func TestGivenUpOutlivesItsOwner(t *testing.T) {
	t.Parallel()
	for echoes := 1; echoes <= 2; echoes++ {
		t.Run(fmt.Sprint(echoes, " echoes"), func(t *testing.T) {
			t.Parallel()
			r := lossy(t)
			stop := r.start(r.config())
			r.send("given-up", phone, "lost")
			r.event("given-up", schema.StateDead)
			stop()
			cfg := r.config()
			cfg.ReconcileWait = time.Second
			if echoes > 1 {
				cfg.ReconcileWait = patience
			}
			r.start(cfg)
			r.send("doubted", phone, "lost")
			r.event("doubted", schema.StateUnknown)
			r.echoes(phone, said("lost"), []string{"m1", "m2"}[:echoes]...)
			states := r.states("doubted")
			if echoes == 1 {
				if last := states[len(states)-1]; last != schema.StateDead {
					t.Errorf("got %s by one echo, which may be the other's", last)
				}
				return
			}
			proofs := r.lateProofs(1)
			e := r.event("doubted", schema.StateSent)
			if len(proofs) != 1 || proofs[0].ID != "given-up" || proofs[0].MessageID == e.MessageID {
				t.Errorf("doubted is sent by %s, late_proof %+v: want an echo each", e.MessageID, proofs)
			}
		})
	}
}

// For a while the index takes nothing, so that an echo that proved one command is
// not noted as its message when an equal one is judged.
func TestAnEchoThatProvedSomethingIsTaken(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	cfg := r.config()
	cfg.ReconcileWait = 5 * time.Second
	r.start(cfg)
	r.event(r.bulk("warm", phone), schema.StateSent) // its lane is open
	r.send("a", phone, "lost")
	r.event("a", schema.StateUnknown)
	r.publish(schema.KindBulk, "b", fmt.Sprintf(`{"id":"b","chatType":"whatsapp","chatId":%q,"text":"lost"}`, phone))
	r.event("b", schema.StateUnknown)
	r.indexOpen(false)
	r.echo("m1", phone, said("lost"))
	// It was in doubt after both, so both were judged by its end.
	r.send("c", "79000000001", "lost")
	r.event("c", schema.StateDead)
	r.indexOpen(true)
	r.states("a")
	r.states("b")
	if got := r.event("a", schema.StateSent); got.MessageID != "m1" {
		t.Errorf("a: got %s, want m1", got.MessageID)
	}
	if e := r.event("b", schema.StateDead); e.Error.Reason != schema.ReasonNoEvidence {
		t.Errorf("b: got %+v", e)
	}
}

// indexOpen lets the records stream take index records, or refuse them.
func (r *rig) indexOpen(open bool) {
	r.t.Helper()
	names := queue.Names{Account: "main"}
	s, err := r.js.Stream(r.t.Context(), names.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.Subjects = slices.DeleteFunc(cfg.Subjects, func(s string) bool { return s == names.IndexFilter() })
	if open {
		cfg.Subjects = append(cfg.Subjects, names.IndexFilter())
	}
	if _, err := r.js.UpdateStream(r.t.Context(), cfg); err != nil {
		r.t.Fatal(err)
	}
}

// claimed writes the claim of a stored command, and nothing after it.
func (r *rig) claimed(l *queue.Ledger, kind schema.Kind, id string, seq uint64) {
	r.t.Helper()
	done := make(chan error, 1)
	l.Append(&queue.Record{
		Step: queue.StepClaim, Key: queue.LedgerKey(id), ID: id, Nonce: "former-" + id,
		Origin: queue.Origin{Created: l.Created.UnixNano(), Seq: seq}, Kind: string(kind), Channel: simulator.ChannelWhatsApp,
		Attempt: 1, Spent: 0, Worker: "former", At: time.Now().UnixMilli(),
	}, 0, func(_ uint64, err error) { done <- err })
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
}

// A worker died after its claims. The echo of one proves one: the earlier.
func TestClaimsOfADeadWorker(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	r.send("a", phone, "lost")
	r.publish(schema.KindBulk, "b", fmt.Sprintf(`{"id":"b","chatType":"whatsapp","chatId":%q,"text":"lost"}`, phone))
	r.asFormerOwner(func(l *queue.Ledger) {
		r.claimed(l, schema.KindSend, "a", 1)
		r.claimed(l, schema.KindBulk, "b", 2)
	})
	r.echo("m1", phone, said("lost"))
	cfg := r.config()
	cfg.ReconcileWait = 2 * time.Second
	r.start(cfg)
	for _, id := range []string{"a", "b"} {
		if e := r.event(id, schema.StateUnknown); e.Error.Phase != schema.PhaseClaimed || e.Error.Class != schema.ClassUnknown {
			t.Errorf("%s: got %+v, want the phase claimed", id, e.Error)
		}
	}
	if e := r.event("a", schema.StateSent); e.MessageID != "m1" {
		t.Errorf("a: got %s", e.MessageID)
	}
	if e := r.event("b", schema.StateDead); e.Error.Phase != schema.PhaseClaimed || e.Error.Reason != schema.ReasonNoEvidence {
		t.Errorf("b: got %+v", e.Error)
	}
	if n := len(r.sim.Sends()); n != 0 {
		t.Errorf("%d calls, want none", n)
	}
}

// A call that the former owner left unanswered counts before this owner has come
// to its command, whose lane is not due for long.
func TestClaimBehindAPace(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	r.send("a", phone, "lost")
	r.publish(schema.KindBulk, "b", fmt.Sprintf(`{"id":"b","chatType":"whatsapp","chatId":%q,"text":"lost"}`, phone))
	r.asFormerOwner(func(l *queue.Ledger) {
		r.claimed(l, schema.KindSend, "a", 1)
		r.claimed(l, schema.KindBulk, "b", 2)
	})
	r.echo("m1", phone, said("lost"))
	cfg := r.config()
	cfg.ReconcileWait = 2 * time.Second
	cfg.BulkRate = rate.Rate{N: 1, Per: time.Hour}
	r.start(cfg)
	if got := r.states("a"); got[len(got)-1] != schema.StateDead {
		t.Errorf("got %v by an echo that may be the other class's", got)
	}
}

// redriveByHand hands the dead letter of a command to its lane again, in the next
// generation.
func (r *rig) redriveByHand(id string) {
	r.t.Helper()
	last := r.lastRecord(id)
	dead, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Dead())
	if err != nil {
		r.t.Fatal(err)
	}
	letter, err := dead.GetLastMsgForSubject(r.t.Context(), queue.Names{Account: "main"}.DeadSubject(id))
	if err != nil {
		r.t.Fatal(err)
	}
	if !last.Doubted || last.DoubtSeq == 0 || last.DoubtAt == 0 {
		r.t.Fatalf("%s: its end says of no doubt: %+v", id, last)
	}
	m := &nats.Msg{Subject: queue.Names{Account: "main"}.DueSubject(schema.KindSend, simulator.ChannelWhatsApp), Header: nats.Header{}, Data: letter.Data}
	for name, value := range map[string]string{
		"Wazzup-Origin":     fmt.Sprintf("%d.%d", last.Origin.Created, last.Origin.Seq),
		"Wazzup-Generation": strconv.Itoa(last.Generation + 1),
		"Wazzup-Stored":     strconv.FormatInt(time.Now().UnixNano(), 10),
		"Wazzup-Subject":    schema.SendSubject("main", schema.KindSend, simulator.ChannelWhatsApp),
		"Wazzup-Id":         id,
		"Wazzup-Expect":     strconv.FormatUint(last.Sequence, 10),
		"Wazzup-Doubt":      fmt.Sprintf("%d.%d", last.DoubtSeq, last.DoubtAt),
	} {
		m.Header.Set(name, value)
	}
	if _, err := r.js.PublishMsg(r.t.Context(), m); err != nil {
		r.t.Fatal(err)
	}
}

// sendsTo counts the calls for a chat.
func (r *rig) sendsTo(chat string) (n int) {
	for _, q := range r.sim.Sends() {
		if q.ChatID == chat {
			n++
		}
	}
	return n
}

// A redriven command in doubt is called only if nothing proves that it was
// carried out before.
func TestRedrivenLooksForEvidenceFirst(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		evidence func(r *rig) // comes while nobody owns the account
		kind     schema.EvidenceKind
		message  string // of its end; "" = that of the new call
	}{
		{"nothing", func(*rig) {}, "", ""},
		{"its echo", func(r *rig) { r.echo("m1", phone, said("lost")) }, schema.EvidenceEcho, "m1"},
		{"another's echo", func(r *rig) { r.index("m1"); r.echo("m1", phone, said("lost")) }, "", ""},
		{"two echoes", func(r *rig) { r.echoes(phone, said("lost"), "m1", "m2") }, "", ""},
		{"a late answer", func(r *rig) { r.lateAnswer("a", "m1") }, schema.EvidenceAnswer, "m1"},
		{"a proof in its ledger", func(r *rig) {
			r.echo("m1", phone, said("lost"))
			stop := r.start(r.config())
			r.lateProofs(1)
			stop()
		}, schema.EvidenceEcho, "m1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := lossy(t)
			stop := r.start(r.config())
			r.send("a", phone, "lost")
			r.event("a", schema.StateDead)
			r.emptied()
			stop()
			tt.evidence(r)
			r.sim.ClearRules()
			r.redriveByHand("a")
			r.start(r.config())
			e := r.event("a", schema.StateSent)
			want := 1
			if tt.message == "" {
				want = 2
				if e.Evidence != nil || e.MessageID == "" {
					t.Errorf("got %s by %+v, want a new call's", e.MessageID, e.Evidence)
				}
			} else if e.Evidence == nil || e.Evidence.Kind != tt.kind || e.MessageID != tt.message {
				t.Errorf("got %s by %+v, want %s by %s", e.MessageID, e.Evidence, tt.message, tt.kind)
			}
			if n := r.sendsTo(phone); n != want {
				t.Errorf("%d calls, want %d", n, want)
			}
			if last := r.lastRecord("a"); last.Generation != 1 || !last.Doubted {
				t.Errorf("last record: got %+v, want one of generation 1 that tells the doubt", last)
			}
		})
	}
}

// What was given up before a redrive stands for one possible message afterwards:
// its echo is told as a second carrying-out, and the new call's is the new call's.
func TestEchoOfTheFirstGenerationAfterTheSecondWasSent(t *testing.T) {
	t.Parallel()
	r := lossy(t)
	r.start(r.config())
	r.send("a", phone, "lost")
	r.event("a", schema.StateDead)
	r.emptied()
	r.sim.ClearRules()
	r.redriveByHand("a")
	e := r.event("a", schema.StateSent)
	r.echo(e.MessageID, phone, said("lost"))
	r.echo("m1", phone, said("lost"))
	want := []lateProof{{"a", "m1", "echo", 0}}
	if got := r.lateProofs(1); !slices.Equal(got, want) {
		t.Errorf("late_proof: got %+v, want %+v", got, want)
	}
	if last := r.lastRecord("a"); last.Step != queue.StepProof || last.Generation != 1 {
		t.Errorf("last record: got %+v, want the proof in the ledger's generation", last)
	}
}

// A command that is called again after an unknown says so for good.
func TestResendIsDoubted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.echo("first", "70000000000", `"authorType":9,"dateTime":1,"text":"webhooks arrive here"`)
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Times: 1, Fault: simulator.FaultDropAfterAccept}); err != nil {
		t.Fatal(err)
	}
	r.start(r.config())
	r.send("a", phone, "lost", `,"onUnknown":"resend"`)
	r.event("a", schema.StateSent)
	records := r.recordsOf("a")
	claim := records[0].Sequence
	after := false
	for _, rec := range records {
		if after = after || rec.Step == queue.StepRetry; after != rec.Doubted || after && rec.DoubtSeq != claim {
			t.Errorf("%s, attempt %d: doubted %v since %d; want %v since %d", rec.Step, rec.Attempt, rec.Doubted, rec.DoubtSeq, after, claim)
		}
	}
	// The first attempt's echo: the customer has it twice.
	r.echo("m1", phone, said("lost"))
	if got := r.lateProofs(1); got[0].ID != "a" || got[0].MessageID != "m1" {
		t.Errorf("late_proof: got %+v", got)
	}
}

// Where a webhook never came, or is not asked for, the end says why nothing
// proved the call.
func TestWithoutWebhooks(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		set    func(r *rig, cfg *sender.Config)
		reason schema.Reason
	}{
		{"no address is registered", func(*rig, *sender.Config) {}, schema.ReasonNoWebhooks},
		{"an address is registered, and nothing comes", func(r *rig, _ *sender.Config) {
			if err := r.sim.SetWebhookURL("http://127.0.0.1:1/"); err != nil {
				r.t.Fatal(err)
			}
		}, schema.ReasonNoWebhooks},
		{"echoes count for nothing", func(r *rig, cfg *sender.Config) {
			cfg.Evidence = sender.EvidenceNone
			cfg.ReconcileWait = time.Hour
			r.echo("first", "70000000000", `"authorType":9,"dateTime":1,"text":"webhooks arrive here"`)
		}, schema.ReasonNoEvidence},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.lose()
			var log bytes.Buffer
			r.log = zerolog.New(zerolog.SyncWriter(&log))
			cfg := r.config()
			tt.set(r, &cfg)
			stop := r.start(cfg)
			r.send("a", phone, "lost")
			e := r.event("a", schema.StateDead)
			if e.Error.Reason != tt.reason || e.Error.Class != schema.ClassUnknown || e.Error.Phase != schema.PhaseWritten {
				t.Errorf("got %+v, want %s", e.Error, tt.reason)
			}
			// A late answer counts all the same.
			r.lateAnswer("a", "m1")
			r.lateProofs(1)
			stop()
			if told := strings.Contains(log.String(), "no_webhook_has_ever_arrived"); told != (tt.reason == schema.ReasonNoWebhooks) {
				t.Errorf("said at start that no webhook has ever arrived: %v", told)
			}
		})
	}
}

// A redriven command in doubt that joins its chat ahead of one that stands at a
// gate already has its evidence looked for all the same.
func TestEvidenceFirstAheadOfTheHead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.BulkRate = rate.Rate{N: 1, Per: 2 * time.Second}
	cfg.ReconcileWait = 600 * time.Millisecond
	r.loseFirst("doubted")
	r.start(cfg)
	r.bulkText("doubted", waitingChat, "doubted")
	r.event("doubted", schema.StateDead)
	r.laneRequest("pause", "bulk")
	if got := r.ask("dead.redrive", `{"ids":["doubted"],"includeUnknown":true}`); got.Code != "" {
		t.Fatalf("dead.redrive: %s %+v", got.Code, got.Error)
	}
	r.bulk("first", phone) // it takes the lane's pace
	r.bulk("head", waitingChat)
	r.prove("doubted")
	r.laneRequest("resume", "bulk")
	r.event("head", schema.StateSent)
	if e := r.event("doubted", schema.StateSent); e.Evidence == nil {
		t.Errorf("got %+v, want it proven by its echo", e)
	}
	n := 0
	for _, s := range r.sim.Sends() {
		if s.Text == "doubted" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d requests of it, want 1", n)
	}
}
