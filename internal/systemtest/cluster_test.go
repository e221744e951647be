//go:build system

package systemtest_test

import (
	"context"
	"fmt"
	"slices"
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

// stalls waits until every channel goes on after a moment, and returns the longest
// time without a request: of all channels together, and of one of them.
func (r *rig) stalls(from time.Time, channels []simulator.Channel) (all, one time.Duration) {
	r.t.Helper()
	const goesOn = 100 // requests of a channel
	last := make(map[string]time.Time)
	if err := r.sim.Wait(r.t.Context(), func(*simulator.View) bool {
		all, one = 0, 0
		clear(last)
		count := make(map[string]int)
		latest := from
		for _, s := range r.sim.Sends() {
			if s.Time.Before(from) {
				continue
			}
			before, ok := last[s.ChannelID]
			if !ok {
				before = from
			}
			all, one = max(all, s.Time.Sub(latest)), max(one, s.Time.Sub(before))
			latest, last[s.ChannelID] = s.Time, s.Time
			count[s.ChannelID]++
		}
		for _, ch := range channels {
			if count[ch.ChannelID] < goesOn {
				return false
			}
		}
		return true
	}); err != nil {
		r.t.Fatal(err)
	}
	return all, one
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
	load := r.produce(channels, 30, 250*time.Millisecond)
	r.waitFinals(100, time.Minute)
	var stalls []time.Duration
	for i := range r.cluster.Size() {
		r.cluster.CaughtUp(r.js)
		killed := time.Now()
		r.cluster.Kill(i)
		all, one := r.stalls(killed, channels)
		t.Logf("without a request after the loss of node %d: %v, and one channel %v", i, all, one)
		stalls = append(stalls, one)
		r.cluster.Start(i)
	}
	r.cluster.CaughtUp(r.js)
	load.end()
	r.checkCluster(load)
	t.Logf("longest time without a request after the loss of a node: %v", slices.Max(stalls))
}
