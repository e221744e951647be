//go:build system

package systemtest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

// A thousand commands for one and the same second: none goes early, and the last
// not much later. The bound is generous, since the machine may be loaded; idle,
// two seconds are the promise.
func TestScheduledForOneSecond(t *testing.T) {
	for _, tc := range []struct {
		name   string
		ahead  time.Duration
		killed bool // worker and server, while all wait for their time
	}{
		{"quiet", 8 * time.Second, false},
		{"killed meanwhile", 15 * time.Second, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const total, latest = 1000, 20 * time.Second
			channels := whatsapps(10)
			r := newRig(t, simulator.Config{Channels: channels})
			r.collect()
			w := runWorker(t, r.env()...)
			w.ready()
			due := time.Now().Add(tc.ahead).Truncate(time.Second)
			for i := range total {
				body := fmt.Sprintf(`{"id":"cmd-%06d","chatType":"whatsapp","chatId":"7900%07d","text":"%d","sendAt":%q}`,
					i, i, i, due.Format(time.RFC3339))
				m := &nats.Msg{Subject: "wazzup.main.cmd.send." + channels[i%len(channels)].ChannelID, Data: []byte(body)}
				if _, err := r.js.PublishMsgAsync(m); err != nil {
					t.Fatal(err)
				}
			}
			r.waitDeferred(total)
			if tc.killed {
				w.kill()
				r.srv.Kill()
				r.srv.Start()
				w = runWorker(t, r.env()...)
				w.ready()
			}
			if !time.Now().Before(due) {
				t.Fatal("the machine is too slow: the commands were not scheduled in time")
			}
			r.check(total, r.waitFinals(total, time.Minute), "")
			var last time.Duration
			for _, s := range r.sim.Sends() {
				late := s.Time.Sub(due)
				if late < 0 {
					t.Errorf("message %s went %v early", s.Text, -late)
				}
				last = max(last, late)
			}
			t.Logf("the last of %d went %v late", total, last)
			if last > latest {
				t.Errorf("the last of %d went %v late, want at most %v", total, last, latest)
			}
			if code := w.stop(); code != 0 {
				t.Errorf("SIGTERM: exit %d, want 0", code)
			}
		})
	}
}

// waitDeferred waits until n commands wait for their time, and none is elsewhere.
func (r *rig) waitDeferred(n uint64) {
	r.t.Helper()
	r.waitEmpty()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Deferred())
	if err != nil {
		r.t.Fatal(err)
	}
	if got := s.CachedInfo().State.Msgs; got != n {
		r.t.Fatalf("%d commands wait for their time, want %d", got, n)
	}
}
