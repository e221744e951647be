//go:build system

package systemtest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// producers publish commands as a careful program does: one after the other for
// each chat, and again under the same id until NATS has acknowledged it.
type producers struct {
	r    *rig
	pub  *queue.Publisher
	stop context.CancelFunc
	ctx  context.Context //nolint:containedctx // ends the publishing
	wg   sync.WaitGroup

	mu    sync.Mutex
	ids   map[string]bool
	again int // publishes that were not acknowledged
}

// produce publishes to chats until it is ended, a command each pause to each.
func (r *rig) produce(channels []simulator.Channel, chats int, pause time.Duration) *producers {
	r.t.Helper()
	pub, err := queue.NewPublisher(r.nc, "main")
	if err != nil {
		r.t.Fatal(err)
	}
	p := &producers{r: r, pub: pub, ids: make(map[string]bool)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	r.t.Cleanup(p.end)
	for chat := range chats {
		p.wg.Go(func() { p.chat(channels[chat%len(channels)].ChannelID, chat, pause) })
	}
	return p
}

func (p *producers) chat(channel string, chat int, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for n := 0; ; n++ {
		id := fmt.Sprintf("chat-%d-%d", chat, n)
		body := fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":"7900%07d","text":"%d"}`, id, chat, n*1000+chat)
		p.mu.Lock()
		p.ids[id] = true
		p.mu.Unlock()
		for {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			_, err := p.pub.Send(ctx, schema.KindSend, channel, []byte(body))
			cancel()
			if err == nil {
				break
			}
			p.mu.Lock()
			p.again++
			p.mu.Unlock()
			<-tick.C
		}
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// end stops the publishing when everything that was begun is acknowledged.
func (p *producers) end() {
	p.stop()
	p.wg.Wait()
}

// checkCluster holds the promises to what was published, stored and requested.
func (r *rig) checkCluster(p *producers) (dead int) {
	r.t.Helper()
	r.waitEmpty()
	stored, _ := r.stored()
	finals := r.waitFinals(int(stored), time.Minute)
	ends := make(map[string]schema.State) // by id, duplicates aside
	seqs := make(map[uint64]bool)
	for _, e := range finals {
		if seqs[e.Seq] {
			r.t.Errorf("command %d ended twice", e.Seq)
		}
		seqs[e.Seq] = true
		switch e.State {
		case schema.StateDuplicate:
			continue
		case schema.StateSent:
		case schema.StateDead:
			dead++
		default:
			r.t.Errorf("%s ended %s %+v", e.ID, e.State, e.Error)
		}
		if before, twice := ends[e.ID]; twice {
			r.t.Errorf("%s ended %s and %s", e.ID, before, e.State)
		}
		ends[e.ID] = e.State
	}
	if len(seqs) != int(stored) {
		r.t.Errorf("%d of %d stored commands ended", len(seqs), stored)
	}
	if len(ends) != len(p.ids) {
		r.t.Errorf("%d of %d ids ended", len(ends), len(p.ids))
	}
	requests := make(map[string]int)
	last := make(map[string]int)
	for _, s := range r.sim.Sends() {
		var n int
		if _, err := fmt.Sscan(s.Text, &n); err != nil {
			r.t.Fatal(err)
		}
		if requests[s.Text]++; requests[s.Text] > 1 {
			r.t.Errorf("message %s was requested %d times", s.Text, requests[s.Text])
		}
		if before, ok := last[s.ChatID]; ok && n <= before {
			r.t.Errorf("chat %s got %d after %d", s.ChatID, n, before)
		}
		last[s.ChatID] = n
	}
	r.t.Logf("%d ids in %d stored commands, %d publishes again, %d in doubt", len(p.ids), stored, p.again, dead)
	return dead
}

// stall is the longest time without a request after a moment.
func (r *rig) stall(from, to time.Time) time.Duration {
	longest, last := time.Duration(0), from
	for _, s := range r.sim.Sends() {
		if s.Time.Before(from) || s.Time.After(to) {
			continue
		}
		longest, last = max(longest, s.Time.Sub(last)), s.Time
	}
	return max(longest, to.Sub(last))
}

// Each node of the cluster in turn is killed under load and comes back.
func TestClusterLosesEachNode(t *testing.T) {
	channels := whatsapps(6)
	r := newClusterRig(t, simulator.Config{Channels: channels})
	if err := r.sim.AddRule(simulator.Rule{Delay: simulator.Duration(30 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	r.collect()
	w := runWorker(t, r.env()...)
	w.ready()
	defer func() {
		for line := range strings.Lines(w.log.String()) {
			if !strings.Contains(line, `"message":"call"`) {
				t.Log(line)
			}
		}
	}()
	load := r.produce(channels, 30, 250*time.Millisecond)
	r.waitFinals(100, time.Minute)
	var stalls []time.Duration
	for i := range r.cluster.Size() {
		r.cluster.CaughtUp(r.js)
		n := len(r.sim.Sends())
		killed := time.Now()
		t.Logf("%v node %d is killed; leaders: %s", time.Now().UTC(), i, r.leaders())
		r.cluster.Kill(i)
		if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return len(r.sim.Sends()) > n+500 }); err != nil {
			t.Fatal(err)
		}
		stalls = append(stalls, r.stall(killed, time.Now()))
		t.Logf("node %d lost: %v without a request", i, stalls[i])
		r.cluster.Start(i)
	}
	r.cluster.CaughtUp(r.js)
	load.end()
	r.checkCluster(load)
	t.Logf("longest time without a request after the loss of a node: %v", slices.Max(stalls))
}

func (r *rig) leaders() string {
	var text string
	streams := r.js.ListStreams(r.t.Context())
	for info := range streams.Info() {
		text += fmt.Sprintf("%s %s, ", info.Config.Name, info.Cluster.Leader)
	}
	return text
}
