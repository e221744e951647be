//go:build system

package systemtest_test

import (
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

// A relay grows from the server that its worker embeds to a cluster of three, by a
// backup, in the middle of its work: what was done is not done again, what waited
// goes on in its order, and everything has three copies afterwards.
func TestFromOneServerToACluster(t *testing.T) {
	t.Parallel()
	const total, before = 2000, 400
	channels := whatsapps(4)
	r := newRig(t, simulator.Config{Channels: channels})
	r.latency(5 * time.Millisecond)
	r.load(channels, 40, total)
	r.collect()
	w := runWorker(t, r.env()...)
	r.waitFinals(before, time.Minute)
	if code := w.stop(); code != 0 {
		t.Fatalf("the worker ended with %d", code)
	}
	if _, left := r.stored(); left == 0 {
		t.Fatal("nothing is left to do after the move")
	}

	cluster := queuetest.ProcessCluster(t, 3)
	streams := accountStreams()
	to := queuetest.Conn(t, cluster)
	for _, stream := range streams {
		queuetest.TakeBackup(t, r.nc, stream).Restore(t, to)
	}
	r.srv.Kill()
	r.move(cluster)
	w = runWorker(t, r.env()...)
	w.ready()
	r.check(total, r.waitFinals(total, time.Minute), "")
	for _, stream := range append(streams, "KV_wazzup-owners", "KV_wazzup-workers") {
		s, err := r.js.Stream(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.CachedInfo().Config.Replicas; n != cluster.Size() {
			t.Errorf("stream %s has %d copies, want %d", stream, n, cluster.Size())
		}
	}
}
