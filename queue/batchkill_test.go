//go:build system

package queue_test

import (
	"testing"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

// A server that is killed costs a batch nothing but time: nothing is lost, and
// what may have been stored twice has the same id.
func TestPublishAllThroughKills(t *testing.T) {
	t.Parallel()
	srv := queuetest.Process(t)
	a := newAccount(t, srv)
	all := campaign(20_000, 100)
	var results []queue.Result
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		results, err = newPublisher(t, a.nc, "main").PublishAll(bounded(t), all)
	}()
	for kill := range uint64(3) {
		for { // until the batch has got so far
			info, infoErr := a.js.Stream(t.Context(), a.topology.Commands())
			if infoErr != nil {
				continue // the server is on its way
			}
			if info.CachedInfo().State.Msgs > 3000*(kill+1) {
				break
			}
		}
		srv.Kill()
		srv.Start()
	}
	<-done
	if err != nil {
		t.Fatal(err)
	}
	again := 0
	for _, r := range results {
		if r.Tries > 1 {
			again++
		}
	}
	n := inOrder(t, commands(t, a.js), all)
	if again == 0 {
		t.Error("no kill met a publish")
	}
	t.Logf("%d commands, %d published again, %d stored", len(all), again, n)
}
