package sender_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Two workers and ten channels, all with more to send than the account may: no
// interval of the window's length holds more requests at the vendor than the
// limit, whatever they are for, and the limit is not wasted either.
func TestRateIsKeptAndUsed(t *testing.T) {
	t.Parallel()
	const channels, sends, least = 10, 600, 0.6
	limit := rate.Rate{N: 50, Per: time.Second}
	vendor := simulator.Config{Channels: make([]simulator.Channel, channels)}
	for i := range vendor.Channels {
		vendor.Channels[i] = simulator.DefaultChannels()[0]
		vendor.Channels[i].ChannelID = fmt.Sprintf("a0000000-0000-4000-8000-%012d", i)
	}
	r := newRigOf(t, vendor)
	for i := range sends {
		body := fmt.Appendf(nil, `{"id":"s%d","chatType":"whatsapp","chatId":"7999%07d","text":"hello"}`, i, i)
		if _, err := r.pub.Send(t.Context(), schema.KindSend, vendor.Channels[i%channels].ChannelID, body); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"worker-1", "worker-2"} {
		cfg := r.config()
		cfg.Worker, cfg.Rate = name, limit
		r.start(cfg)
	}
	for _, e := range r.finals(sends) {
		if e.State != schema.StateSent {
			t.Errorf("%s ended %s", e.ID, e.State)
		}
	}

	requests, messages := r.requestTimes()
	for i := limit.N; i < len(requests); i++ {
		if gap := requests[i].Sub(requests[i-limit.N]); gap < limit.Per {
			t.Fatalf("%d requests within %v", limit.N+1, gap)
		}
	}
	if len(messages) != sends {
		t.Fatalf("%d messages at the vendor, want %d", len(messages), sends)
	}
	// The first window's worth may go at once; what it allows after that counts.
	busy := messages[sends-1].Sub(messages[0])
	used := float64(sends-limit.N) / (float64(limit.N) * busy.Seconds() / limit.Per.Seconds())
	t.Logf("%.0f %% of the limit were used", 100*used)
	if used < least {
		t.Errorf("%.0f %% of the limit were used, want at least %.0f %%", 100*used, 100*least)
	}
}

// requestTimes are when the vendor got all requests, and those of them that were
// messages, in order.
func (r *rig) requestTimes() (requests, messages []time.Time) {
	for _, q := range r.sim.Requests() {
		requests = append(requests, q.Time)
		if q.ChannelID != "" {
			messages = append(messages, q.Time)
		}
	}
	slices.SortFunc(requests, time.Time.Compare)
	slices.SortFunc(messages, time.Time.Compare)
	return requests, messages
}
