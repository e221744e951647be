package sender_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// status stores what ingest would for a `statuses` webhook.
func (r *rig) status(messageID string, word string, status int) {
	r.t.Helper()
	body := fmt.Sprintf(`{"messageId":%q,"status":%d}`, messageID, status)
	if _, err := r.js.Publish(r.t.Context(), schema.StatusEventSubject("main", word), []byte(body)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) all(id string) (states []schema.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.ID == id {
			states = append(states, e.State)
		}
	}
	return states
}

func TestStatusesFindTheirCommand(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.start(r.config())
	r.states(r.send("a", phone, "x", `,"meta":{"n":1},"group":"g"`))
	sent := r.event("a", schema.StateSent)
	r.status(sent.MessageID, "processing", 0)
	r.status(sent.MessageID, "read", 3)
	r.status(sent.MessageID, "delivered", 2) // it comes too late to be told
	r.status(sent.MessageID, "read", 3)
	r.status("nobody's", "delivered", 2)
	read := r.event("a", schema.StateRead)
	if string(read.Meta) != `{"n":1}` || read.Group != "g" || read.MessageID != sent.MessageID || read.ChatID != phone || read.Seq != 1 {
		t.Errorf("read: got %+v", read)
	}
	stop()
	r.start(r.config()) // another owner goes on where this one stopped
	r.status(sent.MessageID, "failed", 18)
	failed := r.event("a", schema.StateFailed)
	if failed.Error == nil || failed.Error.Code != "STATUS_18" || failed.Error.Class != schema.ClassTerminal {
		t.Errorf("failed: got %+v", failed.Error)
	}
	if got, want := r.all("a"), []schema.State{schema.StateSent, schema.StateRead, schema.StateFailed}; !slices.Equal(got, want) {
		t.Errorf("states: got %v, want %v", got, want)
	}
	// The id is used up as before.
	r.send("a", phone, "x", `,"meta":{"n":1},"group":"g"`)
	if e := r.bySeq(2); e.State != schema.StateDuplicate || e.Original == nil || e.Original.State != schema.StateFailed {
		t.Errorf("same again: got %s %+v", e.State, e.Original)
	}
}

// A status that overtakes the answer of its own call waits for it.
func TestEarlyStatus(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	release := make(chan struct{})
	const messageID = "10d90130-38f6-421c-ada9-951f82884056"
	if err := r.sim.AddRule(simulator.Rule{
		Match: simulator.Match{Path: "/v2/send_message"}, Status: 201, Body: fmt.Sprintf(`{"messageId":%q}`, messageID),
		Delay: simulator.Duration(300_000_000),
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(release)
		_ = r.sim.Wait(t.Context(), func(*simulator.View) bool { return len(r.sim.Sends()) == 1 })
	}()
	r.send("a", phone, "x")
	<-release
	r.status(messageID, "delivered", 2)
	r.event("a", schema.StateDelivered)
	if got, want := r.all("a"), []schema.State{schema.StateSent, schema.StateDelivered}; !slices.Equal(got, want) {
		t.Errorf("states: got %v, want %v", got, want)
	}
}

// many sends n messages and returns the vendor's id of each, by the command's.
func (r *rig) many(n int) map[string]string {
	r.t.Helper()
	for i := range n {
		r.send(fmt.Sprint("c-", i), fmt.Sprintf("7900%07d", i), "x")
	}
	messages := make(map[string]string, n)
	for _, e := range r.finals(n) {
		if e.State != schema.StateSent {
			r.t.Fatalf("%s ended %s", e.ID, e.State)
		}
		messages[e.ID] = e.MessageID
	}
	return messages
}

// shuffled stores every status of every message, twice each and in any order.
func (r *rig) shuffled(messages map[string]string) {
	r.t.Helper()
	type report struct {
		messageID, word string
		number          int
	}
	var all []report
	for _, id := range messages {
		for n, word := range []string{"processing", "sent", "delivered", "read"} {
			all = append(all, report{id, word, n}, report{id, word, n})
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, one := range all {
		r.status(one.messageID, one.word, one.number)
	}
}

// wantForwardOnce waits until every message is read, and fails where a command's
// events went back, or came twice.
func (r *rig) wantForwardOnce(messages map[string]string) {
	r.t.Helper()
	r.wait("every message read", func(all []schema.CommandEvent) bool {
		read := 0
		for _, e := range all {
			if e.State == schema.StateRead {
				read++
			}
		}
		return read >= len(messages)
	})
	long := []schema.State{schema.StateSent, schema.StateDelivered, schema.StateRead}
	short := []schema.State{schema.StateSent, schema.StateRead}
	for id := range messages {
		if got := r.all(id); !slices.Equal(got, long) && !slices.Equal(got, short) {
			r.t.Errorf("%s: states are %v", id, got)
		}
	}
}

// Statuses of many messages, repeated and in any order: each command's events go
// forward only, once each.
func TestStatusesOfManyMessages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	messages := r.many(200)
	r.shuffled(messages)
	r.wantForwardOnce(messages)
}

// crashing runs a worker whose connection can be cut for good: to everybody else
// it has died.
func (r *rig) crashing(cfg sender.Config) (crash func()) {
	r.t.Helper()
	nc, err := nats.Connect(r.srv.URL())
	if err != nil {
		r.t.Fatal(err)
	}
	w, err := sender.New(sender.Options{
		NATS: nc, Accounts: []sender.Config{cfg}, Log: r.log, Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(ctx) })
	r.t.Cleanup(func() {
		nc.Close()
		cancel()
		wg.Wait()
	})
	return nc.Close
}

// A worker dies amid the statuses: the next one tells what is missing, and
// nothing twice.
func TestStatusesSurviveACrash(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	crash := r.crashing(r.config())
	messages := r.many(200)
	crashed := make(chan struct{})
	go func() {
		defer close(crashed)
		read := 0
		r.wait("some messages read", func(all []schema.CommandEvent) bool {
			for _, e := range all {
				if e.State == schema.StateRead {
					read++
				}
			}
			return read > 0
		})
		crash()
	}()
	r.shuffled(messages)
	<-crashed
	r.expireLease()
	r.start(r.config())
	r.wantForwardOnce(messages)
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, n := range r.ids {
		if n > 1 {
			t.Errorf("event %s is stored %d times", id, n)
		}
	}
}

// statusPosition is up to where statuses are handled, as the owner noted.
func (r *rig) statusPosition() uint64 {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(r.t.Context(), queue.Names{Account: "main"}.StateSubject("statuses"))
	if err != nil {
		return 0
	}
	position, err := strconv.ParseUint(string(m.Data), 10, 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return position
}

// positionAfter waits until the noted position is at least the given one.
func (r *rig) positionAfter(sequence uint64) {
	r.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for r.statusPosition() < sequence {
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("the noted position is %d, want %d", r.statusPosition(), sequence)
		}
	}
}

// lastStatus is the sequence of the last status event that is stored.
func (r *rig) lastStatus() uint64 {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(r.t.Context(), schema.StatusEventSubject("main", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return m.Sequence
}

// A status of a stranger's message stays an event of its own, and is kept for as
// long as the setting says. Until then the noted position stays before it, so
// that a crash cannot lose it.
func TestStatusOfAStranger(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.StatusWait = time.Hour
	stop := r.start(cfg)
	r.states(r.send("a", phone, "x"))
	sent := r.event("a", schema.StateSent)
	r.status(sent.MessageID, "delivered", 2)
	r.event("a", schema.StateDelivered)
	r.positionAfter(r.lastStatus())
	r.status("nobody's", "delivered", 2)
	stranger := r.lastStatus()
	r.status(sent.MessageID, "read", 3)
	r.event("a", schema.StateRead)
	r.positionAfter(stranger - 1)
	if got := r.statusPosition(); got != stranger-1 {
		t.Errorf("the noted position is %d, want it before the stranger's %d", got, stranger)
	}
	stop()
	cfg.StatusWait = time.Second
	r.start(cfg)
	r.positionAfter(stranger + 1) // it was given up; what followed it was handled long ago
	if some, err := r.stored(schema.StatusEventSubject("main", "delivered")); err != nil || !some {
		t.Errorf("the stranger's status is no event any more: %v", err)
	}
}

// append writes records of one command, one after the other.
func (r *rig) append(l *queue.Ledger, after uint64, records ...queue.Record) uint64 {
	r.t.Helper()
	type written struct {
		seq uint64
		err error
	}
	for _, record := range records {
		done := make(chan written, 1)
		l.Append(&record, after, func(seq uint64, err error) { done <- written{seq, err} })
		w := <-done
		if w.err != nil {
			r.t.Fatalf("append %s: %v", record.Step, w.err)
		}
		after = w.seq
	}
	return after
}

// dead is a command that died in doubt, and the message that it made after all.
type dead struct {
	id, messageID string
	origin        queue.Origin
}

func (d dead) record(step queue.Step, generation int, state schema.State, messageID string) queue.Record {
	r := queue.Record{
		Step: step, Key: queue.LedgerKey(d.id), ID: d.id, Nonce: fmt.Sprint(d.id, step, generation), Origin: d.origin, Generation: generation,
		Kind: "send", Channel: simulator.ChannelWhatsApp, Attempt: generation + 1, Fingerprint: "f", Doubted: generation > 0,
	}
	if state != "" {
		e := schema.CommandEvent{
			ID: d.id, Account: "main", Kind: schema.KindSend, State: state, At: time.Now().UTC(), MessageID: messageID, Seq: d.origin.Seq,
		}
		r.Event, _ = e.AppendJSON(nil) // nothing of it can fail
	}
	return r
}

func (d dead) index(generation int, messageID string) *queue.Index {
	return &queue.Index{
		ID: d.id, Origin: d.origin, Generation: generation, Attempt: generation + 1, Kind: schema.KindSend,
		ChannelID: simulator.ChannelWhatsApp, ChatType: "whatsapp", ChatID: phone, MessageID: messageID,
	}
}

func (r *rig) putIndex(l *queue.Ledger, x *queue.Index) {
	r.t.Helper()
	done := make(chan error, 1)
	l.PutIndex(x, func(err error) { done <- err })
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
}

// hasDied is a ledger that ends dead, with the message's index written later.
func (r *rig) hasDied(l *queue.Ledger, t *queue.Topology, id string, seq uint64) (d dead, last uint64) {
	r.t.Helper()
	d = dead{id: id, messageID: "m-" + id, origin: queue.Origin{Created: t.Created.UnixNano(), Seq: seq}}
	last = r.append(l, 0,
		d.record(queue.StepClaim, 0, "", ""), d.record(queue.StepUnknown, 0, schema.StateUnknown, ""), d.record(queue.StepFinal, 0, schema.StateDead, ""))
	r.putIndex(l, d.index(0, d.messageID))
	return d, last
}

// Statuses of a message whose command had died: they wait for the record of what
// the message proves, and for a newer generation to end, and never come between
// another's claim and final.
func TestStatusesAfterTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.latest = nil // the commands have ended in the ledger only: no events tell how
	var proven, unproven, redriven, sentAgain, rejected dead
	after := make(map[string]uint64)
	r.asFormerOwner(func(l *queue.Ledger) {
		t := l.Topology
		var last uint64
		proven, last = r.hasDied(l, t, "proven", 1)
		r.append(l, last, proven.record(queue.StepProof, 0, "", ""))
		unproven, after["unproven"] = r.hasDied(l, t, "unproven", 2)
		redriven, last = r.hasDied(l, t, "redriven", 3)
		after["redriven"] = r.append(l, last, redriven.record(queue.StepRedrive, 1, "", ""), redriven.record(queue.StepClaim, 1, "", ""))
		sentAgain, last = r.hasDied(l, t, "sent again", 4)
		r.append(l, last, sentAgain.record(queue.StepRedrive, 1, "", ""), sentAgain.record(queue.StepClaim, 1, "", ""),
			sentAgain.record(queue.StepFinal, 1, schema.StateSent, "second"))
		r.putIndex(l, sentAgain.index(1, "second"))
		rejected, last = r.hasDied(l, t, "rejected", 5)
		r.append(l, last, rejected.record(queue.StepRedrive, 1, "", ""), rejected.record(queue.StepClaim, 1, "", ""),
			rejected.record(queue.StepFinal, 1, schema.StateRejected, ""))
	})
	stop := r.start(r.config())
	for _, d := range []dead{proven, unproven, redriven, sentAgain, rejected} {
		r.status(d.messageID, "delivered", 2)
	}
	r.status("second", "read", 3)
	if e := r.event("proven", schema.StateDelivered); e.MessageID != "m-proven" || e.Attempt != 1 {
		t.Errorf("proven: got %+v", e)
	}
	if e := r.event("sent again", schema.StateRead); e.MessageID != "second" || e.Attempt != 2 {
		t.Errorf("sent again: got %+v", e)
	}
	if e := r.event("rejected", schema.StateDelivered); e.MessageID != "m-rejected" || e.Attempt != 1 {
		t.Errorf("rejected: got %+v", e)
	}
	stop()
	// The last record speaks for its generation and the doubt: a copy of the
	// command must not be taken for one that was redriven. The appends fail where
	// a status came between.
	r.asFormerOwner(func(l *queue.Ledger) {
		last, err := l.Last(t.Context(), queue.LedgerKey("rejected"))
		if err != nil || last == nil || last.Step != queue.StepStatus || last.Generation != 1 || !last.Doubted || last.Attempt != 2 {
			t.Errorf("rejected: the last record is %+v (%v)", last, err)
		}
		r.append(l, after["unproven"], unproven.record(queue.StepProof, 0, "", ""))
		r.append(l, after["redriven"], redriven.record(queue.StepFinal, 1, schema.StateDead, ""))
	})
	r.start(r.config()) // what waited is read again
	r.event("unproven", schema.StateDelivered)
	r.event("redriven", schema.StateDelivered)
	// Its owner had not stored the event of its end, without which none may follow.
	if got, want := r.all("sent again"), []schema.State{schema.StateSent, schema.StateRead}; !slices.Equal(got, want) {
		t.Errorf("sent again: got %v, want %v: the message of the dead generation is another's news", got, want)
	}
}

// liveLedger writes in the name of the worker that owns the account.
func (r *rig) liveLedger() *queue.Ledger {
	r.t.Helper()
	topology, err := queue.Ensure(r.t.Context(), r.js, "main", limits())
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := r.js.Stream(r.t.Context(), topology.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	prefix, _, _ := strings.Cut(topology.LedgerWrite("", ""), ".l.")
	for _, subject := range s.CachedInfo().Config.Subjects {
		if rest, ok := strings.CutPrefix(subject, prefix); ok {
			l, err := queue.NewLedger(r.nc, topology, strings.TrimSuffix(rest, ".*.*"), nil, zerolog.Nop())
			if err != nil {
				r.t.Fatal(err)
			}
			r.t.Cleanup(l.Close)
			return l
		}
	}
	r.t.Fatal("no epoch may write")
	return nil
}

// A status that waits for its command's end is led to it although nobody tells
// that it ended.
func TestStatusLooksAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	r.states(r.send("a", phone, "x"))
	l := r.liveLedger()
	d := dead{id: "late", messageID: "m-late", origin: queue.Origin{Created: 1, Seq: 1}}
	claim := r.append(l, 0, d.record(queue.StepClaim, 0, "", ""))
	r.putIndex(l, d.index(0, d.messageID))
	r.status(d.messageID, "delivered", 2)
	r.status(d.messageID, "read", 3)
	waiting := r.lastStatus() - 1
	r.positionAfter(waiting - 1) // it was looked at, and waits
	r.append(l, claim, d.record(queue.StepFinal, 0, schema.StateSent, d.messageID))
	r.event("late", schema.StateRead)
	if got, want := r.all("late"), []schema.State{schema.StateDelivered, schema.StateRead}; !slices.Equal(got, want) {
		t.Errorf("states: got %v, want %v", got, want)
	}
}
