package sender_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// A stop that comes while a claim is on its way waits for the call that follows
// from it, whatever the moment.
func TestStopBetweenClaimAndCall(t *testing.T) {
	t.Parallel()
	const stops = 40
	r := newRig(t)
	if err := r.sim.AddRule(simulator.Rule{Delay: simulator.Duration(5 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	for i := range stops {
		stop := r.start(r.config())
		r.states(r.send(fmt.Sprint("warm-", i), phone, "x"))
		r.send(fmt.Sprint("cmd-", i), phone, "x")
		<-time.After(time.Duration(i*25) * time.Microsecond) // one moment after the other, not a wait for anything
		stop()
	}
	r.start(r.config())
	r.finals(2 * stops)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.State != schema.StateSent {
			t.Errorf("%s: %s %+v, want only sent", e.ID, e.State, e.Error)
		}
	}
}
