//go:build system

package systemtest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// load publishes commands the way a program in any language would: subject and
// JSON, asynchronously, and every one acknowledged.
func (r *rig) load(channels []simulator.Channel, chats, total int) {
	r.t.Helper()
	for i := range total {
		chat := i % chats
		ch := channels[chat%len(channels)]
		body := fmt.Sprintf(`{"id":"cmd-%06d","chatType":"whatsapp","chatId":"7900%07d","text":"%d"}`, i, chat, i)
		if _, err := r.js.PublishMsgAsync(&nats.Msg{Subject: "wazzup.main.cmd.send." + ch.ChannelID, Data: []byte(body)}); err != nil {
			r.t.Fatal(err)
		}
		if i%1000 == 999 || i == total-1 {
			select {
			case <-r.js.PublishAsyncComplete():
			case <-time.After(30 * time.Second):
				r.t.Fatal("publishing was not acknowledged")
			}
		}
	}
}

func whatsapps(n int) []simulator.Channel {
	channels := make([]simulator.Channel, n)
	for i := range channels {
		channels[i] = simulator.Channel{
			ChannelID: fmt.Sprintf("b0000000-0000-4000-8000-%012d", i), Transport: "whatsapp",
			PlainID: fmt.Sprintf("7999%07d", i), State: simulator.StateActive,
		}
	}
	return channels
}

// check holds the promises to what the vendor got and what was stored. Commands
// may end dead only where inDoubt says why: for that reason, with an unknown fate.
func (r *rig) check(total int, finals []schema.CommandEvent, inDoubt schema.Reason) (dead int) {
	r.t.Helper()
	states := make(map[string]schema.State)
	for _, e := range finals {
		if before, twice := states[e.ID]; twice {
			r.t.Errorf("%s ended twice: %s and %s", e.ID, before, e.State)
		}
		states[e.ID] = e.State
		switch {
		case e.State == schema.StateSent:
		case e.State == schema.StateDead && inDoubt != "":
			dead++
			if e.Error == nil || e.Error.Reason != inDoubt || e.Error.Class != schema.ClassUnknown {
				r.t.Errorf("%s is dead with %+v, want an unknown fate and the reason %s", e.ID, e.Error, inDoubt)
			}
		default:
			r.t.Errorf("%s ended %s %+v", e.ID, e.State, e.Error)
		}
	}
	if len(states) != total {
		r.t.Errorf("%d commands ended, want %d", len(states), total)
	}
	requested := r.checkRequests(nil)
	for id, state := range states {
		var n int
		if _, err := fmt.Sscanf(id, "cmd-%d", &n); err != nil {
			r.t.Fatal(err)
		}
		switch reached := requested[n]; {
		case state == schema.StateSent && !reached:
			r.t.Errorf("%s ended sent, and the vendor never heard of it", id)
		case state == schema.StateDead && reached && inDoubt == schema.ReasonNoEvidence:
			r.t.Errorf("%s ended dead, though the vendor took it and told of it", id)
		}
	}
	r.waitEmpty()
	return dead
}

// checkRequests finds no message requested twice, and each chat's in their order
// but for those that are excused. A text is the number of its command, which
// grows within a chat.
func (r *rig) checkRequests(excused func(*simulator.Send) bool) map[int]bool {
	r.t.Helper()
	seen := make(map[int]bool)
	last := make(map[string]int)
	for _, s := range r.sim.Sends() {
		var n int
		if _, err := fmt.Sscan(s.Text, &n); err != nil {
			r.t.Fatal(err)
		}
		if seen[n] {
			r.t.Errorf("message %d was requested twice", n)
		}
		seen[n] = true
		if excused != nil && excused(&s) {
			continue
		}
		if before, ok := last[s.ChatID]; ok && n <= before {
			r.t.Errorf("chat %s got %d after %d", s.ChatID, n, before)
		}
		last[s.ChatID] = n
	}
	return seen
}

// 10,000 sends over 20 channels and 500 chats: as many events, as many requests,
// order kept, nothing left.
func TestTenThousandSends(t *testing.T) {
	const total = 10_000
	channels := whatsapps(20)
	r := newRig(t, simulator.Config{Channels: channels})
	r.load(channels, 500, total)
	r.collect()
	start := time.Now()
	w := runWorker(t, r.env()...)
	finals := r.waitFinals(total, 2*time.Minute)
	t.Logf("%d sends in %v", total, time.Since(start))
	r.check(total, finals, "")
	if code := w.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d, want 0", code)
	}
}

// The worker is killed in the middle of its work and started again.
func TestWorkerKilledUnderLoad(t *testing.T) {
	const total, kills = 10_000, 3
	channels := whatsapps(20)
	r := newRig(t, simulator.Config{Channels: channels})
	r.load(channels, 500, total)
	r.collect()
	w := runWorker(t, r.env()...)
	for i := range kills {
		r.waitFinals((i+1)*1500, time.Minute)
		w.kill()
		w = runWorker(t, r.env()...)
	}
	dead := r.check(total, r.waitFinals(total, 2*time.Minute), schema.ReasonNoWebhooks)
	t.Logf("%d kills left %d of %d in doubt", kills, dead, total)
	if limit := kills * 64; dead > limit {
		t.Errorf("%d commands in doubt, want at most the %d calls in flight", dead, limit)
	}
}

// killAtRandom kills worker and nats-server at random moments while the vendor
// takes 30 ms for each request, and returns the ends of all commands.
func (r *rig) killAtRandom(channels []simulator.Channel, w *program, total int, env ...string) []schema.CommandEvent {
	r.t.Helper()
	random := random(r.t)
	r.latency(30 * time.Millisecond)
	r.load(channels, 60, total)
	for i, what := range []string{"worker", "server", "worker", "worker", "server", "worker", "worker"} {
		r.waitFinals((i+1)*150, time.Minute)
		<-time.After(time.Duration(random.IntN(200)) * time.Millisecond) // a random moment, not a wait for anything
		if what == "worker" {
			w.kill()
			w = runWorker(r.t, r.env(env...)...)
		} else {
			r.srv.Kill()
			r.srv.Start()
		}
	}
	return r.waitFinals(total, 2*time.Minute)
}

// Worker and nats-server are killed at random moments under load, and nothing
// tells of the calls whose answer was lost.
func TestWorkerAndServerKilledAtRandom(t *testing.T) {
	const total = 2000
	channels := whatsapps(6)
	r := newRig(t, simulator.Config{Channels: channels})
	r.collect()
	finals := r.killAtRandom(channels, runWorker(t, r.env()...), total)
	t.Logf("%d of %d in doubt", r.check(total, finals, schema.ReasonNoWebhooks), total)
}

// The same where the vendor's echoes arrive: whatever it took ends as sent.
func TestWorkerAndServerKilledAtRandomWithEchoes(t *testing.T) {
	t.Parallel()
	const total = 2000
	channels := whatsapps(6)
	r := newRig(t, simulator.Config{Channels: channels, Retries: 20, RetryDelay: 50 * time.Millisecond})
	r.collect()
	patient := "WAZZUP_RECONCILE_WAIT=8s" // far longer than an echo takes, even past a server that is started again
	w := runWorker(t, r.env(patient)...)
	w.ready()
	r.runIngest()
	finals := r.killAtRandom(channels, w, total, patient)
	dead := r.check(total, finals, schema.ReasonNoEvidence)
	proven := 0
	for _, e := range finals {
		if e.Evidence != nil {
			proven++
		}
	}
	t.Logf("%d of %d never reached the vendor, %d are proven", dead, total, proven)
	if proven == 0 {
		t.Error("five kills left no call whose answer was lost")
	}
}

// The owner is killed: the other worker's first request comes within 10 s.
func TestTakeOver(t *testing.T) {
	const total = 4000
	channels := whatsapps(4)
	r := newRig(t, simulator.Config{Channels: channels})
	r.latency(30 * time.Millisecond)
	r.load(channels, 200, total)
	r.collect()
	first := runWorker(t, r.env("WAZZUP_ACCOUNT_RATE=500/5s")...)
	r.waitFinals(100, time.Minute)
	second := runWorker(t, r.env("WAZZUP_ACCOUNT_RATE=500/5s")...)
	second.ready()
	first.kill()
	killed := time.Now()
	before := len(r.sim.Sends())
	if err := r.sim.Wait(t.Context(), func(v *simulator.View) bool { return len(r.sim.Sends()) > before+64 }); err != nil {
		t.Fatal(err)
	}
	sends := r.sim.Sends()
	took := sends[before].Time.Sub(killed)
	for _, s := range sends[before:] { // calls of the dead one may still have been on their way
		if took = s.Time.Sub(killed); took > 50*time.Millisecond {
			break
		}
	}
	t.Logf("first request of the other worker after %v", took)
	if took > 10*time.Second {
		t.Errorf("take-over took %v, want at most 10s", took)
	}
}

// SIGTERM hands over at once, with nothing in doubt.
func TestHandOver(t *testing.T) {
	const total = 3000
	channels := whatsapps(4)
	r := newRig(t, simulator.Config{Channels: channels})
	r.latency(30 * time.Millisecond)
	r.load(channels, 200, total)
	r.collect()
	w := runWorker(t, r.env()...)
	r.waitFinals(200, time.Minute)
	for range 3 {
		other := runWorker(t, r.env()...)
		other.ready()
		start := time.Now()
		if code := w.stop(); code != 0 {
			t.Errorf("SIGTERM: exit %d, want 0", code)
		}
		n := len(r.sim.Sends())
		if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return len(r.sim.Sends()) > n }); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("the hand-over took %v, want at most 2s", took)
		}
		w = other
	}
	r.check(total, r.waitFinals(total, time.Minute), "")
}

// A hand-over passes on the calls of the last window: however often the owner
// changes, no interval of that length holds more requests than the limit.
func TestHandOverKeepsTheRate(t *testing.T) {
	const total, limit, length = 400, 50, time.Second
	channels := whatsapps(4)
	r := newRig(t, simulator.Config{Channels: channels})
	r.latency(30 * time.Millisecond)
	r.load(channels, 100, total)
	r.collect()
	rate := fmt.Sprintf("WAZZUP_ACCOUNT_RATE=%d/%v", limit, length)
	w := runWorker(t, r.env(rate)...)
	for i := range 3 {
		other := runWorker(t, r.env(rate)...)
		other.ready()
		r.waitFinals((i+1)*80, time.Minute)
		start := time.Now()
		if code := w.stop(); code != 0 {
			t.Errorf("SIGTERM: exit %d, want 0", code)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("SIGTERM took %v, want at most 2s", took)
		}
		w = other
	}
	r.check(total, r.waitFinals(total, time.Minute), "")
	requests := r.sim.Requests() // those that are no command's count as well
	for i := limit; i < len(requests); i++ {
		if took := requests[i].Time.Sub(requests[i-limit].Time); took < length {
			t.Errorf("requests %d to %d came within %v: more than %d in %v", i-limit, i, took, limit, length)
		}
	}
}

// One machine, one process: the embedded server survives the kill of its process.
func TestEmbeddedServerSurvivesKill(t *testing.T) {
	channels := whatsapps(4)
	sim, err := simulator.New(simulator.Config{Channels: channels})
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Start(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	env := []string{
		"NATS_URL=nats://" + freeAddr(t), "EMBEDDED_NATS=" + t.TempDir(), "WAZZUP_API_KEY=key", "WAZZUP_API_URL=" + sim.URL(),
		"WAZZUP_ACCOUNT_RATE=0", "WAZZUP_RECONCILE_WAIT=100ms",
		"WAZZUP_COMMAND_BYTES=64MiB", "WAZZUP_RECORD_BYTES=512MiB", "WAZZUP_DEFERRED_BYTES=16MiB", "WAZZUP_DEAD_BYTES=64MiB",
	}
	w := runWorker(t, env...)
	w.ready()
	r := &rig{t: t, sim: sim, change: make(chan struct{}), unsure: make(map[string]bool)}
	if r.nc, err = nats.Connect(env[0][len("NATS_URL="):], nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.nc.Close)
	if r.js, err = newJetStream(r.nc); err != nil {
		t.Fatal(err)
	}
	const total = 3000
	r.load(channels, 200, total)
	w.kill()
	w = runWorker(t, env...)
	w.ready()
	r.collect()
	dead := r.check(total, r.waitFinals(total, 2*time.Minute), schema.ReasonNoWebhooks)
	t.Logf("%d of %d in doubt", dead, total)
}
