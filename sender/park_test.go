package sender_test

import (
	"fmt"
	"strings"
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

const (
	waitingChat = "79000000001"
	few         = 20 // commands that a chat may hold
)

// loadChat publishes commands <prefix>0, <prefix>1 … to the chat that waits, whose
// texts are their ids.
func (r *rig) loadChat(prefix string, n int, more ...string) {
	r.t.Helper()
	for i := range n {
		id := fmt.Sprintf("%s%05d", prefix, i)
		body := fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":%q,"text":%q%s}`, id, waitingChat, id, strings.Join(more, ""))
		m := &nats.Msg{Subject: schema.SendSubject("main", schema.KindSend, simulator.ChannelWhatsApp), Data: []byte(body)}
		if _, err := r.js.PublishMsgAsync(m); err != nil {
			r.t.Fatal(err)
		}
	}
	select {
	case <-r.js.PublishAsyncComplete():
	case <-time.After(patience):
		r.t.Fatal("publishing was not acknowledged")
	}
}

// loseFirst has the vendor take the message with the text and never answer it,
// so that its chat waits for evidence.
func (r *rig) loseFirst(text string) {
	r.t.Helper()
	r.echo("first", "70000000000", `"authorType":9,"dateTime":1,"text":"webhooks arrive here"`)
	if err := r.sim.AddRule(simulator.Rule{
		Match: simulator.Match{Path: "/v2/send_message", Text: text}, Fault: simulator.FaultDropAfterAccept,
	}); err != nil {
		r.t.Fatal(err)
	}
}

// prove has the vendor echo a message of the waiting chat.
func (r *rig) prove(text string) {
	r.t.Helper()
	r.echo("echo", waitingChat, `"authorType":9,"dateTime":`+ms(time.Now())+`,"text":"`+text+`"`)
}

// inOrder holds the vendor's requests for the chat that waits to the order of
// their texts, each once.
func (r *rig) inOrder(want int) {
	r.t.Helper()
	n, last := 0, ""
	for _, s := range r.sim.Sends() {
		if s.ChatID != waitingChat {
			continue
		}
		if s.Text <= last {
			r.t.Fatalf("the chat got %s after %s", s.Text, last)
		}
		n, last = n+1, s.Text
	}
	if n != want {
		r.t.Errorf("the chat got %d requests, want %d", n, want)
	}
}

// deferred is how many messages the deferred stream holds.
func (r *rig) deferred() uint64 {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Deferred())
	if err != nil {
		r.t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func (r *rig) deferredEmptied() {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for r.deferred() > 0 {
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("%d commands are left in the deferred stream", r.deferred())
		}
	}
}

// A chat that waits with thousands of commands does not stop the other chats of
// its lane, and goes on in order when its doubt is settled.
func TestChatThatWaitsDoesNotStopItsLane(t *testing.T) {
	t.Parallel()
	const many = 3000
	r := newRig(t)
	cfg := r.config()
	cfg.ReconcileWait = time.Minute
	r.loseFirst("w00000")
	r.loadChat("w", many)
	r.start(cfg)
	r.event("w00000", schema.StateUnknown)
	for i := range 20 {
		r.send(fmt.Sprint("other-", i), fmt.Sprintf("7911111%04d", i), "x")
	}
	for i := range 20 {
		r.event(fmt.Sprint("other-", i), schema.StateSent)
	}
	r.parked()
	if n := len(r.sim.Sends()); n != 21 {
		t.Errorf("%d requests while the chat waits, want 21", n)
	}
	r.prove("w00000")
	r.finals(many + 20)
	r.inOrder(many)
	r.emptied()
	r.deferredEmptied()
	r.endedOnce()
}

// parked waits until all but a few commands were parked.
func (r *rig) parked() { r.t.Helper(); r.emptiedBut(few) }

// emptiedBut waits until the command stream holds at most n commands.
func (r *rig) emptiedBut(n uint64) {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Commands())
	if err != nil {
		r.t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		info, err := s.Info(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		if info.State.Msgs <= n {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("%d commands are left in the queue, want at most %d", info.State.Msgs, n)
		}
	}
}

// endedOnce holds the stored events to one final one a command.
func (r *rig) endedOnce() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	ended := make(map[uint64]schema.State)
	for _, e := range r.events {
		if !e.State.Final() {
			continue
		}
		if before, twice := ended[e.Seq]; twice {
			r.t.Errorf("%s ended twice: %s and %s", e.ID, before, e.State)
		}
		ended[e.Seq] = e.State
	}
}

// Parked commands outlive their owner, whether it leaves in order or dies, and
// nothing overtakes them: neither what was in its hand nor what came later.
func TestParkedCommandsOutliveTheirOwner(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		leave func(*doomed)
	}{
		{"in order", func(w *doomed) { w.stop() }},
		{"without a word", func(w *doomed) { w.die() }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			const many = 400
			r := newRig(t)
			cfg := r.config()
			cfg.ReconcileWait = time.Minute
			r.loseFirst("w00000")
			r.loadChat("w", many)
			first := r.startDoomed(cfg)
			r.event("w00000", schema.StateUnknown)
			r.parked()
			row.leave(first)
			r.loadChat("x", 50) // while nobody owns the account
			cfg.Worker = "worker-2"
			r.start(cfg)
			r.loadChat("y", 50)
			r.parked()
			r.prove("w00000")
			r.finals(many + 100)
			r.inOrder(many + 100)
			r.emptied()
			r.deferredEmptied()
			r.endedOnce()
		})
	}
}

// dueNow has a scheduled command come due at once.
func (r *rig) dueNow(id string) {
	r.t.Helper()
	names := queue.Names{Account: "main"}
	s, err := r.js.Stream(r.t.Context(), names.Deferred())
	if err != nil {
		r.t.Fatal(err)
	}
	held, err := s.GetLastMsgForSubject(r.t.Context(), names.ScheduleSubject(id, "0"))
	if err != nil {
		r.t.Fatal(err)
	}
	if err := s.DeleteMsg(r.t.Context(), held.Sequence); err != nil {
		r.t.Fatal(err)
	}
	m := nats.NewMsg(names.DueSubject(schema.KindSend, simulator.ChannelWhatsApp))
	m.Data = held.Data
	for name, values := range held.Header {
		if strings.HasPrefix(name, "Wazzup-") {
			m.Header[name] = values
		}
	}
	if _, err := r.js.PublishMsg(r.t.Context(), m); err != nil {
		r.t.Fatal(err)
	}
}

// parks waits until commands are parked.
func (r *rig) parks() {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Deferred())
		if err != nil {
			r.t.Fatal(err)
		}
		info, err := s.Info(r.t.Context(), jetstream.WithSubjectFilter(queue.Names{Account: "main"}.ParkFilter()))
		if err != nil {
			r.t.Fatal(err)
		}
		if len(info.State.Subjects) > 0 {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatal("nothing is parked")
		}
	}
}

// A command that came due before those that a full chat holds, and is found after
// them, takes its place among them. If it were parked instead, the next owner would
// put those that come after it behind everything that was parked since.
func TestDueCommandIsNotParkedAheadOfWhatItsChatHolds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	stop := r.start(cfg)
	r.send("w00000a", waitingChat, "w00000a", `,"sendAt":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano)+`"`)
	r.emptied()
	stop()
	vendor := cfg.APIURL
	address, release := r.holdAnswers(`"w00000"`, 0)
	cfg.APIURL, cfg.Timeout = address, patience
	first := r.startDoomed(cfg)
	r.channelsRead()
	r.send("w00000", waitingChat, "w00000")
	if err := r.sim.Wait(t.Context(), func(v *simulator.View) bool { return v.Sends == 1 }); err != nil {
		t.Fatal(err)
	}
	r.dueNow("w00000a") // its lane is looked for once a second
	for i := range 15 {
		id := fmt.Sprintf("w%05d", i+1)
		r.send(id, waitingChat, id)
	}
	r.parks()
	r.loadChat("x", 10)
	r.emptiedBut(16)
	first.nc.Close() // the answer cannot be noted any more
	release()
	first.die()
	cfg.Worker, cfg.APIURL = "worker-2", vendor
	r.start(cfg)
	r.finals(27)
	r.inOrder(27)
	r.emptied()
	r.deferredEmptied()
}

// doomed is a worker that can be cut off from NATS for good, as if it had died:
// it records nothing any more and gives nothing up.
type doomed struct {
	r    *rig
	stop func()
	nc   *nats.Conn
}

// die saves the time until the lease is over; tests that kill processes wait for it.
func (w *doomed) die() {
	w.nc.Close()
	w.stop()
	w.r.expireLease()
}

func (r *rig) startDoomed(cfg sender.Config) *doomed {
	r.t.Helper()
	nc := queuetest.Conn(r.t, r.srv)
	return &doomed{r: r, stop: r.startOn(nc, cfg), nc: nc}
}

// A command that the disk does not take with our headers stays in hand, in its
// place.
func TestCommandTooLargeToPark(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.ReconcileWait = time.Minute
	r.loseFirst("w00000")
	r.loadChat("w", 20)
	padding := strings.Repeat(" ", int(r.nc.MaxPayload())-130)
	r.loadChat("x", 1, padding)
	r.loadChat("y", 20)
	r.start(cfg)
	r.event("w00000", schema.StateUnknown)
	r.send("other", phone, "x")
	r.event("other", schema.StateSent)
	r.prove("w00000")
	r.finals(42)
	r.inOrder(41)
	r.emptied()
	r.deferredEmptied()
}

// A busy chat that merely has much to say does not keep its lane to itself.
func TestBusyChatSharesItsLane(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.sim.AddRule(simulator.Rule{
		Match: simulator.Match{Path: "/v2/send_message", ChatID: waitingChat}, Delay: simulator.Duration(20 * time.Millisecond),
	}); err != nil {
		t.Fatal(err)
	}
	r.loadChat("w", 600)
	r.send("other", phone, "x")
	r.start(r.config())
	r.event("other", schema.StateSent)
	if n := len(r.sim.Sends()); n > 150 {
		t.Errorf("the other chat waited for %d requests", n)
	}
	r.sim.ClearRules() // the rest need not take as long
	r.finals(601)
	r.inOrder(600)
	r.emptied()
	r.deferredEmptied()
}

// A scheduled command that the server's scheduler does not take with our headers
// is held, and sent at its time, through a change of owners.
func TestCommandTooLargeToSchedule(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.start(r.config())
	r.channelsRead() // the worker is up
	due := time.Now().Add(5 * time.Second)
	at := `,"sendAt":"` + due.UTC().Format(time.RFC3339Nano) + `"`
	r.send("large", phone, "x", at, strings.Repeat(" ", int(r.nc.MaxPayload())-170))
	r.waitStep("large", "scheduled")
	r.send("meanwhile", phone, "y")
	r.event("meanwhile", schema.StateSent)
	stop()
	r.start(r.config())
	r.event("large", schema.StateSent)
	for _, s := range r.sim.Sends() {
		if s.Text == "x" && s.Time.Before(due) {
			t.Errorf("sent %v early", due.Sub(s.Time))
		}
	}
	r.emptied()
	r.endedOnce()
}

// A schedule that the server fires twice is one command.
func TestScheduleFiresTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	r.channelsRead() // the worker is up
	at := `,"sendAt":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano) + `"`
	r.send("twice", phone, "x", at)
	r.waitStep("twice", "scheduled")
	names := queue.Names{Account: "main"}
	s, err := r.js.Stream(t.Context(), names.Deferred())
	if err != nil {
		t.Fatal(err)
	}
	held, err := s.GetLastMsgForSubject(t.Context(), names.ScheduleSubject("twice", "0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteMsg(t.Context(), held.Sequence); err != nil {
		t.Fatal(err)
	}
	for range 2 { // as the server would: without the schedule's own headers
		m := nats.NewMsg(names.DueSubject(schema.KindSend, simulator.ChannelWhatsApp))
		m.Data = held.Data
		for name, values := range held.Header {
			if strings.HasPrefix(name, "Wazzup-") {
				m.Header[name] = values
			}
		}
		if _, err := r.js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	r.event("twice", schema.StateSent)
	r.deferredEmptied()
	r.emptied()
	if n := len(r.sim.Sends()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	r.endedOnce()
}

// The oldest command of a lane may be a parked one: lanes.list tells since when it
// waits, from its publication on.
func TestOldestIsParked(t *testing.T) {
	t.Parallel()
	const many = 200
	r := newRig(t)
	cfg := r.config()
	cfg.ReconcileWait = time.Minute
	r.loseFirst("w00000")
	began := time.Now()
	r.loadChat("w", many)
	published := time.Now()
	r.start(cfg)
	r.event("w00000", schema.StateUnknown)
	r.parked()
	r.slow(100 * time.Millisecond)
	r.prove("w00000")
	r.emptied() // what is left is parked
	r.laneRequest("pause", "send")
	lane := r.lanes()["send"]
	if lane.Backlog == 0 || lane.Backlog >= many {
		t.Fatalf("a backlog of %d, want less than %d", lane.Backlog, many)
	}
	// NATS's clock is this machine's.
	if lane.Oldest == nil || lane.Oldest.Before(began.Add(-time.Second)) || lane.Oldest.After(published) {
		t.Errorf("the oldest is of %v, want one of %v to %v", lane.Oldest, began, published)
	}
	r.sim.ClearRules() // the rest need not take as long
	r.laneRequest("resume", "send")
	r.finals(many)
	r.inOrder(many)
}
