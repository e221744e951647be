package sender_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Two workers and ten channels, all with more to send than the account may, and the
// account changes hands in the middle: no interval of the window's length holds more
// requests at the vendor than the limit, whatever they are for, and the limit is not
// wasted either.
func TestRateIsKeptAndUsed(t *testing.T) {
	t.Parallel()
	const channels, sends, least = 10, 600, 0.8
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
	cfg := r.config()
	cfg.Rate = limit
	first := r.start(cfg)
	r.finals(1) // it owns the account
	cfg.Worker = "worker-2"
	r.start(cfg)
	r.finals(sends / 2)
	first()
	for _, e := range r.finals(sends) {
		if e.State != schema.StateSent {
			t.Errorf("%s ended %s", e.ID, e.State)
		}
	}

	requests, messages := r.requestTimes()
	holdsTo(t, requests, limit)
	if len(messages) != sends {
		t.Fatalf("%d messages at the vendor, want %d", len(messages), sends)
	}
	// How long a window's worth takes, as a rule: the length of the window, and twice that
	// if each call waited for another window than it needs.
	took := make([]time.Duration, 0, sends)
	for i := limit.N; i < sends; i++ {
		took = append(took, messages[i].Sub(messages[i-limit.N]))
	}
	slices.Sort(took)
	used := limit.Per.Seconds() / took[len(took)/2].Seconds()
	t.Logf("%.0f %% of the limit were used", 100*used)
	if used < least {
		t.Errorf("%.0f %% of the limit were used, want at least %.0f %%", 100*used, 100*least)
	}
}

// holdsTo fails if any interval of the limit's length holds more requests than it
// allows. The requests are in order.
func holdsTo(t *testing.T, requests []time.Time, limit rate.Rate) {
	t.Helper()
	for i := limit.N; i < len(requests); i++ {
		if gap := requests[i].Sub(requests[i-limit.N]); gap < limit.Per {
			t.Fatalf("requests %d to %d came within %v: more than %v", i-limit.N+1, i+1, gap, limit)
		}
	}
}

// A new owner that does not know of the last calls assumes that the window is full,
// and that each paced lane has just called; one that was told of them goes on from
// there. The window is longer than it takes to find a new owner, and the spacing is
// longer than both together.
func TestRatesAcrossOwners(t *testing.T) {
	t.Parallel()
	const n = 12
	limit, longer, spacing := rate.Rate{N: n, Per: 4 * time.Second}, rate.Rate{N: n, Per: 6 * time.Second}, 8*time.Second
	for _, tt := range []struct {
		name  string
		limit rate.Rate // of the next owner
		blind bool      // the next owner is not told
	}{
		{"hand-over", limit, false},
		{"hand-over to a slower rate", longer, false},
		{"death", limit, true},
		{"lost lease", limit, false},
		{"removed by a reload, and named again", limit, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.Rate, cfg.BulkRate, cfg.ChannelsPoll = limit, rate.Rate{N: 1, Per: spacing}, time.Hour
			w, stop, kill := r.killable(cfg)
			r.channelsRead()
			r.backlog(schema.KindBulk, simulator.ChannelWhatsApp, 1)
			r.reached("the first paced message", func(v *simulator.View) bool { return v.Sends == 1 })
			r.backlog(schema.KindSend, simulator.ChannelWhatsApp2, n-3)
			r.reached("the window's limit but for one", func(v *simulator.View) bool { return v.Requests == n-1 })
			// By then a good part of the window is over, for those who know of it.
			r.send("last", phone, "x", `,"sendAt":"`+time.Now().Add(limit.Per*3/4).UTC().Format(time.RFC3339Nano)+`"`)
			r.reached("the window's limit", func(v *simulator.View) bool { return v.Requests == n })
			r.finals(n - 1) // nothing is in doubt
			former := r.ownedSince()
			cfg.Rate = tt.limit
			more := func() { // for the next owner
				r.backlog(schema.KindSend, simulator.ChannelWhatsApp2, 2)
				r.backlog(schema.KindBulk, simulator.ChannelWhatsApp, 1)
			}
			switch tt.name {
			case "death":
				kill()
				more()
				r.start(cfg)
			case "lost lease":
				r.loseLease()
				more()
			case "removed by a reload, and named again":
				reload(t, w)
				more()
				reload(t, w, cfg)
			default:
				stop()
				more()
				r.start(cfg)
			}
			r.finals(n + 2)

			requests, _ := r.requestTimes()
			owned := r.ownedSince()
			if !owned.After(former) {
				t.Fatal("nobody has taken the account over")
			}
			holdsTo(t, requests, limit)
			// What was over for the former owner does not count for another limit.
			holdsTo(t, slices.DeleteFunc(slices.Clone(requests), owned.Add(-limit.Per).After), tt.limit)
			var bulk []time.Time
			for _, s := range r.sim.Sends() {
				if s.Text == textBulk {
					bulk = append(bulk, s.Time)
				}
			}
			if gap := bulk[1].Sub(bulk[0]); gap < spacing {
				t.Errorf("the second paced message came after %v, want %v at least", gap, spacing)
			}
			// What is known of is not waited for twice.
			if next := requests[n]; tt.blind == next.Before(owned.Add(tt.limit.Per)) {
				t.Errorf("the next owner's first call came %v after it had the account", next.Sub(owned))
			}
		})
	}
}

// ownedSince is when the account's owner took its lease.
func (r *rig) ownedSince() time.Time {
	r.t.Helper()
	kv, err := r.js.KeyValue(r.t.Context(), "wazzup-owners")
	if err != nil {
		r.t.Fatal(err)
	}
	entry, err := kv.Get(r.t.Context(), "main")
	if err != nil {
		r.t.Fatal(err)
	}
	var lease struct{ Since time.Time }
	if err := json.Unmarshal(entry.Value(), &lease); err != nil {
		r.t.Fatal(err)
	}
	return lease.Since
}

// loseLease has the account's lease deleted, and waits until it is taken again.
func (r *rig) loseLease() {
	r.t.Helper()
	kv, err := r.js.KeyValue(r.t.Context(), "wazzup-owners")
	if err != nil {
		r.t.Fatal(err)
	}
	before, err := kv.Get(r.t.Context(), "main")
	if err != nil {
		r.t.Fatal(err)
	}
	if err := kv.Delete(r.t.Context(), "main"); err != nil {
		r.t.Fatal(err)
	}
	w, err := kv.Watch(r.t.Context(), "main")
	if err != nil {
		r.t.Fatal(err)
	}
	for e := range w.Updates() {
		if e != nil && e.Operation() == jetstream.KeyValuePut && e.Revision() > before.Revision() {
			break
		}
	}
	if err := w.Stop(); err != nil {
		r.t.Fatal(err)
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
