package sender_test

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// The world of the model test is small, so that whatever can meet does meet: two
// channels, a few chats, two classes.
const (
	modelChats    = 3
	modelTimeout  = 800 * time.Millisecond // of one call
	modelWait     = 400 * time.Millisecond // for evidence
	modelAttempts = 4
)

func modelChannels() []string { return []string{simulator.ChannelWhatsApp, simulator.ChannelWhatsApp2} }

// modelRate is exceeded at once if two workers ever count apart.
func modelRate() rate.Rate { return rate.Rate{N: 30, Per: 500 * time.Millisecond} }

// modelCommand is a stored command as its producer knows it.
type modelCommand struct {
	seq      uint64
	id       string // "" = the one that is derived
	kind     schema.Kind
	channel  string
	chat     string
	text     string // as the vendor gets it, unlike that of any other body
	body     string
	invalid  bool
	resend   bool
	sendAt   time.Time
	expireAt time.Time

	contact, name string // of a sync command: whom it is about, and what an upsert says
}

// content is what the text has in common with the echo of an equal message.
func (c *modelCommand) content() string { return strings.Join(strings.Fields(c.text), " ") }

// modelRequest is a request of an operator, and what came of it.
type modelRequest struct {
	name    string
	id      string // of the command that it is about; "" = it is about lanes
	as      string // of command.resolve
	unknown bool   // of dead.redrive: those in doubt are included
	channel string // of the lanes
	class   string // of the lanes; "" = both

	asked time.Time
	at    time.Time // when its answer came
	code  string
	ok    bool
	// unclear: no answer came, so that it may have been carried out.
	unclear bool
}

// world is what the model's schedule acts on.
type world struct {
	*rig
	seed   uint64
	random *rand.Rand
	hooks  *httptest.Server

	commands []*modelCommand
	requests []modelRequest
	workers  []*modelWorker
	started  int
	serial   int            // of the last command that was drawn
	ending   sync.WaitGroup // workers that die

	told map[string]int // the highest rank of the statuses that were stored, by message id; guarded by mu

	open   map[modelRedrive]bool // redrives of which nobody knows how far they got
	paused map[string]bool       // channels of which lanes may be paused

	late    atomic.Int64 // echoes that are stored late
	storing sync.WaitGroup

	froze  bool
	deaths []time.Time // when a worker was cut off for good
	notes  []note      // what was done to the world
}

type note struct {
	at   time.Time
	what string
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{rig: newRig(t), told: make(map[string]int), open: make(map[modelRedrive]bool), paused: make(map[string]bool), seed: seed, random: rand.New(rand.NewPCG(seed, 0))}
	w.hooks = httptest.NewServer(http.HandlerFunc(w.webhook))
	t.Cleanup(w.storing.Wait)
	t.Cleanup(w.hooks.Close)
	if err := w.sim.SetWebhookURL(w.hooks.URL); err != nil {
		t.Fatal(err)
	}
	yes := true
	delay, jitter, retry, retries := simulator.Duration(0), simulator.Duration(modelWait/2), simulator.Duration(20*time.Millisecond), 1000
	if err := w.sim.Tune(simulator.Tuning{Shuffle: &yes, EchoDelay: &delay, StatusDelay: &delay, Jitter: &jitter, Retries: &retries, RetryDelay: &retry}); err != nil {
		t.Fatal(err)
	}
	w.echo("first", "70000000000", `"authorType":9,"dateTime":1,"text":"webhooks arrive here"`)
	t.Cleanup(w.ending.Wait)
	return w
}

func (w *world) note(format string, args ...any) {
	w.notes = append(w.notes, note{time.Now(), fmt.Sprintf(format, args...)})
}

// chance is true in so many of a hundred cases, by the schedule.
func (w *world) chance(percent int) bool { return w.random.IntN(100) < percent }

func pick[T any](random *rand.Rand, all []T) T { return all[random.IntN(len(all))] }

// fate decides about a webhook item by what it is rather than when it comes, so
// that a seed means the same in every run.
func (w *world) fate(item string, percent int) bool {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, w.seed, item)
	return h.Sum64()%100 < uint64(percent) //nolint:gosec // not negative
}

// webhook stores what the vendor calls back, as ingest does, but loses some of it
// for good, is late with some and stores some twice, as though the second came after ingest's
// window.
func (w *world) webhook(rw http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	var body struct {
		Messages, Statuses, Channels []json.RawMessage
		ChannelsList                 json.RawMessage
	}
	if err == nil {
		err = json.Unmarshal(raw, &body)
	}
	if err != nil {
		w.t.Errorf("webhook: %v", err)
	}
	store := func(subject string, item json.RawMessage, key string) (times int) {
		times = 1
		switch {
		case w.fate("lost "+key, 15):
			times = 0
		case w.fate("twice "+key, 15):
			times = 2
		}
		for range times {
			if err == nil {
				_, err = w.js.Publish(context.WithoutCancel(r.Context()), subject, item)
			}
		}
		return times
	}
	for _, item := range body.Messages {
		var m struct{ MessageID, ChannelID, ChatType, ChatID string }
		_ = json.Unmarshal(item, &m)
		subject := schema.MessageEventSubject("main", "out", m.ChannelID, m.ChatType, m.ChatID)
		if w.fate("late "+m.MessageID, 15) {
			w.storeLate(subject, item)
			continue
		}
		store(subject, item, "echo "+m.MessageID)
	}
	for _, item := range body.Statuses {
		var s struct {
			MessageID string
			Status    int
		}
		_ = json.Unmarshal(item, &s)
		word := map[int]string{1: "sent", 2: "delivered", 3: "read"}[s.Status]
		if word == "" {
			word = "failed"
		}
		if store(schema.StatusEventSubject("main", word), item, fmt.Sprint("status ", s.Status, s.MessageID)) > 0 {
			w.mu.Lock()
			w.told[s.MessageID] = max(w.told[s.MessageID], statusRank(s.Status))
			w.mu.Unlock()
		}
	}
	for _, item := range body.Channels {
		var ch struct{ ChannelID, State string }
		_ = json.Unmarshal(item, &ch)
		if err == nil {
			_, err = w.js.Publish(context.WithoutCancel(r.Context()), schema.ChannelEventSubject("main", ch.ChannelID, ch.State), item)
		}
	}
	if err != nil {
		rw.WriteHeader(http.StatusServiceUnavailable) // the vendor repeats all of it
	}
}

// storeLate stores an echo after the time for which it is waited.
func (w *world) storeLate(subject string, item json.RawMessage) {
	w.late.Add(1)
	w.storing.Go(func() {
		defer w.late.Add(-1)
		tick := time.NewTicker(2 * modelWait)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-w.t.Context().Done():
				return
			}
			if _, err := w.js.Publish(w.t.Context(), subject, item); err == nil {
				return
			}
		}
	})
}

// publishCommand stores a command of the schedule; its fields say all but the sequence.
func (w *world) publishCommand(c *modelCommand, opts ...queue.PublishOption) {
	w.t.Helper()
	for {
		receipt, err := w.pub.Send(w.t.Context(), c.kind, c.channel, []byte(c.body), opts...)
		if err == nil {
			c.seq = receipt.Seq
			w.commands = append(w.commands, c)
			return
		}
		w.reconnected(err)
	}
}

// reconnected waits until the server answers the test's own connection again.
func (w *world) reconnected(cause error) {
	w.t.Helper()
	timeout := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := w.js.AccountInfo(w.t.Context()); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			w.t.Fatalf("NATS does not come back: %v", cause)
		}
	}
}

// newCommand draws a command, and what the vendor does with its requests.
func (w *world) newCommand(n int) (*modelCommand, []queue.PublishOption) {
	c := &modelCommand{kind: schema.KindSend, channel: pick(w.random, modelChannels()), chat: fmt.Sprintf("7900000000%d", w.random.IntN(modelChats))}
	if w.chance(30) {
		c.kind = schema.KindBulk
	}
	c.text = fmt.Sprintf("message %d", n)
	if w.chance(20) { // equal to others, but for white space
		c.text = "good" + strings.NewReplacer("0", " ", "1", "\t").Replace(fmt.Sprintf("%010b", n)) + "morning"
	}
	fields := map[string]any{"chatType": "whatsapp", "chatId": c.chat, "text": c.text}
	var opts []queue.PublishOption
	switch {
	case w.chance(80):
		c.id = fmt.Sprintf("c-%d", n)
		fields["id"] = c.id
	case w.chance(50):
		c.id = fmt.Sprintf("h-%d", n)
		opts = append(opts, queue.WithID(c.id))
	}
	if w.chance(3) {
		c.invalid = true
		fields["text"] = " "
	}
	if c.resend = w.chance(35); c.resend {
		fields["onUnknown"] = "resend"
	}
	now := time.Now()
	if w.chance(8) {
		c.sendAt = now.Add(time.Duration(w.random.IntN(1500)) * time.Millisecond)
		fields["sendAt"] = c.sendAt.Format(time.RFC3339Nano)
	}
	if w.chance(12) {
		c.expireAt = latest(now, c.sendAt).Add(time.Duration(100+w.random.IntN(2500)) * time.Millisecond)
		fields["expireAt"] = c.expireAt.Format(time.RFC3339Nano)
	}
	if w.chance(50) {
		fields["meta"] = map[string]int{"n": n}
	}
	body, err := json.Marshal(fields)
	if err != nil {
		w.t.Fatal(err)
	}
	c.body = string(body)
	return c, opts
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// again is a repeat of a former command's id, with the same body or another; nil
// if there is none to repeat.
func (w *world) again(n int) *modelCommand {
	former := pick(w.random, w.commands)
	if !strings.HasPrefix(former.id, "c-") {
		return nil
	}
	c := *former
	if w.chance(40) {
		text := fmt.Sprintf("other %d", n)
		quoted, _ := json.Marshal(text)
		old, _ := json.Marshal(c.text)
		c.body = strings.Replace(c.body, `"text":`+string(old), `"text":`+string(quoted), 1)
		c.text = text
	}
	return &c
}

// plan draws what the vendor does with the requests of a command, one after the
// other; beyond that it takes them.
func (w *world) plan(c *modelCommand) {
	if !w.chance(35) {
		return
	}
	yes := true
	faults := []simulator.Rule{
		{Delay: simulator.Duration(time.Duration(w.random.IntN(200)) * time.Millisecond)},
		{Delay: simulator.Duration(time.Duration(w.random.IntN(200)) * time.Millisecond)},
		{Fault: simulator.FaultDropAfterAccept},
		{Fault: simulator.FaultDropAfterAccept},
		{Fault: simulator.FaultDropBeforeRead},
		{Fault: simulator.FaultDropBeforeRead},
		{Fault: simulator.FaultHang},
		{Fault: simulator.FaultHang, Accept: &yes},
		{Status: 500},
		{Status: 502, Accept: &yes},
		{Status: 201, Body: "{}", Accept: &yes},
		{Status: 400, Code: "UNKNOWN_ERROR", Accept: &yes},
		{Status: 400, Code: "MESSAGES_CAN_NOT_ADD"},
		{Status: 400, Code: "MESSAGE_DOWNLOAD_CONTENT_ERROR"},
		{Status: 400, Code: "MESSAGE_DOWNLOAD_CONTENT_ERROR"},
		{Status: 400, Code: "CONTACT_NOT_FOUND"},
		{Status: 400, Code: "A_CODE_OF_TOMORROW"},
		{Status: 400, Code: "CHANNEL_NO_MONEY"},
		{Status: 400, Code: "MESSAGE_CHANNEL_UNAVAILABLE"},
		{Statuses: &[]int{1, 13}},
		{Statuses: &[]int{2, 1, 21}},
	}
	if w.chance(5) {
		faults = append(faults, simulator.Rule{Status: 429}, simulator.Rule{Status: 429, Headers: map[string]string{"Retry-After": "1"}}, simulator.Rule{Status: 401})
	}
	for range 1 + w.random.IntN(3) {
		rule := pick(w.random, faults)
		rule.Match, rule.Times = simulator.Match{Path: "/v2/send_message", Text: c.text}, 1
		w.addRule(rule)
	}
}

// modelWorker is a worker that can be cut off for good, or lose its connection at
// some frame and get it back.
type modelWorker struct {
	*doomed
	name string
	// countdown: the connection breaks at this many frames from now.
	countdown *atomic.Int64
	frozen    *stalled
}

func (w *world) config() sender.Config {
	cfg := sender.Drowsy(w.rig.config())
	cfg.Rate, cfg.Timeout, cfg.ReconcileWait, cfg.MaxAttempts = modelRate(), modelTimeout, modelWait, modelAttempts
	cfg.Concurrency, cfg.ChannelsPoll = 16, 300*time.Millisecond
	w.started++
	cfg.Worker = fmt.Sprintf("worker-%d", w.started)
	return cfg
}

func (w *world) startWorker() {
	w.t.Helper()
	cfg := w.config()
	countdown, frozen := new(atomic.Int64), new(stalled)
	c := newCutter(w.t, w.srv.URL(), func(toClient bool, frame []byte) bool {
		frozen.pass(toClient, frame)
		return countdown.Load() > 0 && countdown.Add(-1) == 0
	})
	nc := queuetest.Conn(w.t, c)
	w.workers = append(w.workers, &modelWorker{&doomed{stop: w.startOn(nc, cfg), nc: nc}, cfg.Worker, countdown, frozen})
	w.note("%s starts", cfg.Worker)
}

// endWorker has a worker die or leave in order, and another one start if it was
// the last.
func (w *world) endWorker(dies bool) {
	w.t.Helper()
	if dies {
		w.busy()
	}
	i := w.random.IntN(len(w.workers))
	leaving := w.workers[i]
	w.workers = slices.Delete(w.workers, i, i+1)
	if dies {
		w.note("%s dies", leaving.name)
		w.deaths = append(w.deaths, time.Now())
		leaving.nc.Close()
		if w.chance(75) {
			leaving.stop() // it calls nobody any more, as is certain when a lease runs out
			w.endLease(leaving.name)
		} else {
			w.ending.Go(leaving.stop)
		}
	} else {
		w.note("%s stops", leaving.name)
		leaving.stop()
		w.note("%s has stopped", leaving.name)
	}
	if len(w.workers) == 0 {
		w.startWorker()
	}
}

// busy has the workers in the middle of much work: many calls, or slow ones.
func (w *world) busy() {
	w.t.Helper()
	if w.chance(50) {
		w.addRule(simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Delay: simulator.Duration(150 * time.Millisecond), Times: 6})
	}
	requests := w.sim.View().Requests
	for range 40 {
		w.serial++
		c, opts := w.newCommand(w.serial)
		w.publishCommand(c, opts...)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 500*time.Millisecond) // the workers may be unable to
	defer cancel()
	more := 1 + w.random.IntN(30)
	_ = w.sim.Wait(ctx, func(v *simulator.View) bool { return v.Requests >= requests+more })
}

func (w *world) addRule(rule simulator.Rule) {
	w.t.Helper()
	if err := w.sim.AddRule(rule); err != nil {
		w.t.Fatal(err)
	}
}

// freezeWorker holds everything between a worker and NATS back until another has
// taken over, then lets it wake up.
func (w *world) freezeWorker() {
	w.t.Helper()
	w.busy()
	worker := pick(w.random, w.workers)
	if len(w.workers) == 1 {
		w.startWorker()
	}
	w.note("%s freezes", worker.name)
	w.deaths = append(w.deaths, time.Now()) // what it has in hand may come too late
	worker.frozen.freeze()
	w.ending.Go(func() {
		<-time.After(queue.LeaseTTL + time.Second)
		worker.frozen.thaw()
	})
}

// endLease saves the time until the lease of a worker that died is over, unless
// another has it.
func (w *world) endLease(worker string) {
	kv, err := w.js.KeyValue(w.t.Context(), "wazzup-owners")
	if err != nil {
		return
	}
	lease, err := kv.Get(w.t.Context(), "main")
	if err != nil || !strings.Contains(string(lease.Value()), `"`+worker+`-`) { // the rest of its id is random
		return
	}
	if kv.Delete(w.t.Context(), "main", jetstream.LastRevision(lease.Revision())) == nil {
		w.note("the lease of %s is over", worker)
	}
}

// operate does one thing to the world that is no command.
func (w *world) operate() {
	w.t.Helper()
	switch n := w.random.IntN(100); {
	case n < 18 && len(w.commands) > 0:
		recent := w.commands[max(len(w.commands)-20, 0):]
		if c := pick(w.random, recent); c.id != "" {
			w.request(modelRequest{name: "command.cancel", id: c.id})
		}
	case n < 36:
		if ids := w.standing(schema.StateUnknown); len(ids) > 0 {
			w.request(modelRequest{name: "command.resolve", id: pick(w.random, ids), as: pick(w.random, []string{"sent", "resend", "drop"})})
		}
	case n < 46:
		if ids := w.standing(schema.StateDead); len(ids) > 0 {
			w.handleDead(pick(w.random, ids))
		}
	case n < 54:
		w.handleLane()
	case n < 61:
		w.endWorker(true)
	case n < 66:
		w.endWorker(false)
	case n < 72 && len(w.workers) < 3:
		w.startWorker()
	case n < 82:
		worker := pick(w.random, w.workers)
		worker.countdown.Store(1 + int64(w.random.IntN(40)))
		w.note("the connection of %s is about to break", worker.name)
	case n < 85 && !w.froze:
		w.froze = true // it takes seconds
		w.freezeWorker()
	case n < 88:
		w.note("NATS restarts")
		w.srv.Restart()
		w.reconnected(nil)
	default:
		channel := pick(w.random, modelChannels())
		state := pick(w.random, []string{simulator.StateNotEnoughMoney, simulator.StatePhoneUnavailable, simulator.StateActive, simulator.StateActive})
		w.setChannel(channel, state)
		w.note("channel %s is %s", channel, state)
	}
}

func (w *world) setChannel(channel, state string) {
	w.t.Helper()
	if err := w.sim.SetChannel(simulator.Channel{ChannelID: channel, State: state}); err != nil {
		w.t.Fatal(err)
	}
}

// standing lists the ids of the commands whose last event is of this state.
func (w *world) standing(state schema.State) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := make(map[uint64]schema.CommandEvent)
	for _, e := range w.events {
		last[e.Seq] = e
	}
	var ids []string
	for _, e := range last {
		if e.State == state {
			ids = append(ids, e.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// run carries the schedule out.
func (w *world) run(commands int) {
	w.t.Helper()
	w.startWorker()
	for range commands {
		w.serial++
		if w.chance(8) {
			for range 1 + w.random.IntN(4) { // they follow one another, and share requests
				w.publishSync(w.serial)
				w.serial++
			}
			continue
		}
		c, opts := w.newCommand(w.serial)
		if w.chance(8) && len(w.commands) > 0 {
			if again := w.again(w.serial); again != nil {
				c, opts = again, nil
			}
		}
		w.plan(c)
		w.publishCommand(c, opts...)
		if w.chance(15) {
			w.operate()
		}
		if w.chance(30) {
			<-time.After(time.Duration(w.random.IntN(40)) * time.Millisecond) // the producers' pace
		}
	}
}

// rest ends all faults and waits until nothing moves any more. What is dead then
// may be redriven, and comes to rest in its next generation.
func (w *world) rest() {
	w.t.Helper()
	w.sim.ClearRules()
	w.note("the faults are over")
	w.comeToRest()
	for _, id := range w.standing(schema.StateDead) {
		if w.chance(60) {
			w.handleDead(id)
		}
	}
	w.comeToRest()
}

func (w *world) comeToRest() {
	w.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for round := 0; !w.finished() || !w.resting(); round++ {
		// Once a second, for each word is a webhook that must come to rest too.
		for _, ch := range w.sim.Channels() {
			if round%10 == 0 {
				w.setChannel(ch.ChannelID, simulator.StateActive)
			}
		}
		select {
		case <-tick.C:
		case <-timeout:
			w.t.Errorf("seed %d: the world does not come to rest: %+v%s", w.seed, w.sim.View(), w.left())
			return
		}
	}
}

// left tells what the streams of commands still hold, and who holds it.
func (w *world) left() string {
	var out strings.Builder
	for _, name := range []string{queue.Names{Account: "main"}.Commands(), queue.Names{Account: "main"}.Deferred()} {
		s, err := w.js.Stream(w.t.Context(), name)
		if err != nil {
			return err.Error()
		}
		info, err := s.Info(w.t.Context(), jetstream.WithSubjectFilter(">"))
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&out, "\n%s: %d from %d, %v", name, info.State.Msgs, info.State.FirstSeq, info.State.Subjects)
		for c := range s.ListConsumers(w.t.Context()).Info() {
			fmt.Fprintf(&out, "\n  %s: %d delivered, %d unacknowledged, %d pending, %d pulls waiting", c.Config.FilterSubject, c.Delivered.Consumer, c.NumAckPending, c.NumPending, c.NumWaiting)
		}
	}
	return out.String()
}

// statusRank orders the vendor's statuses by what follows what, and stateRank our
// events of them; 0 = they tell a command nothing.
func statusRank(status int) int { return map[int]int{2: 1, 3: 2, 13: 3, 21: 3}[status] }

func stateRank(s schema.State) int {
	return map[schema.State]int{schema.StateDelivered: 1, schema.StateRead: 2, schema.StateFailed: 3}[s]
}

func (w *world) resting() bool {
	for _, stream := range []string{queue.Names{Account: "main"}.Commands(), queue.Names{Account: "main"}.Deferred()} {
		s, err := w.js.Stream(w.t.Context(), stream)
		if err != nil || s.CachedInfo().State.Msgs > 0 {
			return false
		}
	}
	if v := w.sim.View(); !v.Idle() || w.late.Load() > 0 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	ended, messages := make(map[uint64]bool), make(map[string]int)
	for _, e := range w.events {
		if e.State.Final() {
			ended[e.Seq] = true
		}
		if e.State == schema.StateSent {
			messages[e.MessageID] = max(messages[e.MessageID], 0)
		}
		if rank := stateRank(e.State); rank > 0 {
			messages[e.MessageID] = max(messages[e.MessageID], rank)
		}
	}
	for id, rank := range messages {
		if rank < w.told[id] {
			return false
		}
	}
	return len(ended) >= len(w.commands)
}

// stored reads everything that a stream holds, oldest first.
func (w *world) stored(stream string) []jetstream.Msg {
	w.t.Helper()
	s, err := w.js.Stream(w.t.Context(), stream)
	if err != nil {
		w.t.Fatal(err)
	}
	if s.CachedInfo().State.Msgs == 0 {
		return nil
	}
	c, err := s.OrderedConsumer(w.t.Context(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		w.t.Fatal(err)
	}
	messages, err := c.Messages()
	if err != nil {
		w.t.Fatal(err)
	}
	defer messages.Stop()
	var all []jetstream.Msg
	for {
		m, err := messages.Next(jetstream.NextMaxWait(patience))
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, m)
		meta, err := m.Metadata()
		if err != nil {
			w.t.Fatal(err)
		}
		if meta.NumPending == 0 {
			return all
		}
	}
}
