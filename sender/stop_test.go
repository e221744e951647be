package sender_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// A worker that is told to stop finishes what it has claimed, at whatever moment
// of a command's path the word comes.
func TestStopLeavesNoDoubt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const rounds = 40
	for i := range rounds {
		stop := r.start(r.config())
		r.event(r.send(fmt.Sprint("before-", i), phone, "x"), schema.StateSent)
		r.send(fmt.Sprint("during-", i), "79990000002", "x")
		<-time.After(time.Duration(i) * 50 * time.Microsecond)
		stop()
	}
	r.start(r.config())
	for _, e := range r.finals(2 * rounds) {
		if e.State != schema.StateSent {
			t.Errorf("%s: got %s %+v, want sent", e.ID, e.State, e.Error)
		}
	}
	if n := len(r.sim.Sends()); n != 2*rounds {
		t.Errorf("the vendor got %d requests, want %d", n, 2*rounds)
	}
}
