//go:build system

package systemtest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

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
	t.Parallel()
	channels := whatsapps(6)
	r := newClusterRig(t, simulator.Config{Channels: channels})
	r.latency(30 * time.Millisecond)
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
	r.checkPublished(load, nil)
	// An election takes 4 to 9 s, and several may have to follow one another.
	if longest, limit := slices.Max(stalls), 45*time.Second; longest > limit {
		t.Errorf("a channel waited %v after the loss of a node, want at most %v", longest, limit)
	}
}

// The owner is killed while a node of the cluster is away: the other worker goes
// on, and no call is made twice.
func TestClusterTakeOverWhileANodeIsDown(t *testing.T) {
	t.Parallel()
	channels := whatsapps(6)
	r := newClusterRig(t, simulator.Config{Channels: channels})
	r.latency(30 * time.Millisecond)
	r.collect()
	first := runWorker(t, r.env()...)
	first.ready()
	second := runWorker(t, r.env()...)
	second.ready()
	load := r.produce(channels, 30, 250*time.Millisecond)
	r.waitFinals(100, time.Minute)
	r.cluster.CaughtUp(r.js)
	r.cluster.Kill(0)
	r.busy(5)
	first.kill()
	all, one := r.stalls(time.Now(), channels)
	t.Logf("without a request after the loss of owner and node: %v, and one channel %v", all, one)
	if limit := 30 * time.Second; one > limit {
		t.Errorf("a channel waited %v for the take-over, want at most %v", one, limit)
	}
	r.cluster.Start(0)
	r.cluster.CaughtUp(r.js)
	load.end()
	r.checkPublished(load, nil)
}
