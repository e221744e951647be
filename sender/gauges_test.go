package sender_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// series are the values of all series, each by its name and labels.
type series map[string]float64

func collected(t *testing.T, reader sdkmetric.Reader) series {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := make(series)
	add := func(name string, labels attribute.Set, value float64) {
		words := []string{name}
		for _, l := range labels.ToSlice() {
			words = append(words, l.Value.String())
		}
		got[strings.Join(words, " ")] = value
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Attributes, float64(p.Value))
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Attributes, p.Value)
				}
			}
		}
	}
	return got
}

// until waits for a reading that satisfies the condition.
func until(t *testing.T, reader sdkmetric.Reader, what string, cond func(series) bool) series {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		got := collected(t, reader)
		if cond(got) {
			return got
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("waited in vain for %s: %v", what, got)
		}
	}
}

// Every gauge has all its series from the start, and follows what happens.
func TestGauges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	reader := sdkmetric.NewManualReader()
	r.meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	cfg := sender.OpenFor(sender.Hasty(r.config(), time.Hour), time.Second)
	cfg.ChannelsPoll = time.Hour
	stop := r.start(cfg)
	send, sync := float64(len(simulator.DefaultChannels())), float64(len(schema.Entities()))
	got := until(t, reader, "the first lanes", func(s series) bool { return s["wazzup.lanes open"] == send+sync })
	want := []string{
		"wazzup.lanes closed", "wazzup.lanes paused", "wazzup.accounts.closed", "wazzup.commands.held hand", "wazzup.commands.held parked",
		"wazzup.calls.inflight send", "wazzup.calls.inflight bulk", "wazzup.calls.inflight sync", "wazzup.lanes unlisted",
	}
	for _, class := range []string{"send", "bulk", "sync"} {
		want = append(want, "wazzup.commands.queued main "+class, "wazzup.commands.oldest.age main "+class)
	}
	for _, f := range sender.Families() {
		want = append(want, "wazzup.breakers.open "+string(f)+" channel", "wazzup.breakers.open "+string(f)+" family")
	}
	for _, stream := range []string{"commands", "deferred", "dead"} {
		want = append(want, "wazzup.stream.fill main "+stream)
	}
	for _, name := range want {
		if value, ok := got[name]; !ok || value != 0 {
			t.Errorf("%s = %v (there: %t), want 0", name, value, ok)
		}
	}
	until(t, reader, "the records' size", func(s series) bool { fill := s["wazzup.stream.fill main records"]; return fill > 0 && fill < 0.1 })

	if err := r.sim.AddRule(simulator.Rule{Delay: simulator.Duration(2 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	r.send("slow", phone, "x")
	until(t, reader, "a call in flight", func(s series) bool {
		return s["wazzup.calls.inflight send"] == 1 && s["wazzup.calls.inflight bulk"] == 0 && s["wazzup.commands.held hand"] == 1
	})
	r.event("slow", schema.StateSent)
	until(t, reader, "its end", func(s series) bool {
		return s["wazzup.calls.inflight send"] == 0 && s["wazzup.commands.held hand"] == 0
	})
	r.sim.ClearRules()

	r.channelEvent(simulator.StateNotEnoughMoney)
	until(t, reader, "a closed lane", func(s series) bool {
		return s["wazzup.lanes closed"] == 1 && s["wazzup.lanes open"] == send+sync-1
	})
	r.channelEvent(simulator.StateActive)
	until(t, reader, "no closed lane", func(s series) bool { return s["wazzup.lanes closed"] == 0 })
	body := fmt.Sprintf(`{"channelId":%q,"class":"send"}`, simulator.ChannelWhatsApp2)
	if _, err := r.request("lane.pause", body); err != nil {
		t.Fatal(err)
	}
	until(t, reader, "a paused lane", func(s series) bool { return s["wazzup.lanes paused"] == 1 && s["wazzup.lanes closed"] == 0 })
	// Its other class has no lane yet, since nothing was sent there.
	if _, err := r.request("lane.pause", fmt.Sprintf(`{"channelId":%q,"class":"bulk"}`, simulator.ChannelWhatsApp2)); err != nil {
		t.Fatal(err)
	}
	until(t, reader, "a pause of a lane that is not open", func(s series) bool { return s["wazzup.lanes paused"] == 2 })
	if _, err := r.request("lane.resume", fmt.Sprintf(`{"channelId":%q}`, simulator.ChannelWhatsApp2)); err != nil {
		t.Fatal(err)
	}
	until(t, reader, "no paused lane", func(s series) bool { return s["wazzup.lanes paused"] == 0 })

	reachable := r.unreachable()
	for i := range 30 { // one chat: most of them are parked behind the first
		r.send(fmt.Sprint("c-", i), phone, "x")
	}
	until(t, reader, "a breaker and parked commands", func(s series) bool {
		return s["wazzup.breakers.open send family"] == 1 && s["wazzup.breakers.open sync family"] == 0 &&
			s["wazzup.commands.held parked"] > 0 && s["wazzup.commands.held parked"]+s["wazzup.commands.held hand"] >= 30 &&
			s["wazzup.commands.queued main send"] >= 30 && s["wazzup.commands.oldest.age main send"] > 0
	})
	reachable()
	r.finals(31)
	until(t, reader, "all well", func(s series) bool {
		return s["wazzup.breakers.open send family"] == 0 && s["wazzup.commands.held parked"] == 0 &&
			s["wazzup.commands.queued main send"] == 0 && s["wazzup.commands.oldest.age main send"] == 0
	})

	if err := r.sim.AddRule(simulator.Rule{Status: 401}); err != nil {
		t.Fatal(err)
	}
	r.send("refused", phone, "x")
	until(t, reader, "a closed account", func(s series) bool {
		return s["wazzup.accounts.closed"] == 1 && s["wazzup.lanes closed"] >= send+sync && s["wazzup.lanes open"] == 0
	})
	stop()
	if got := collected(t, reader); len(got) > 0 {
		t.Errorf("a worker that has ended is still read: %v", got)
	}
}

// How much waits, and since when, is told by class and by the account's owner alone. It
// is what lanes.list tells, whether it was published, came due or waits for its turn.
func TestBacklogGauges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.sim.AddRule(simulator.Rule{Status: 401}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r.backlog(schema.KindSend, simulator.ChannelWhatsApp, 3)
	r.backlog(schema.KindSend, simulator.ChannelWhatsApp2, 4)
	r.backlog(schema.KindBulk, simulator.ChannelWhatsApp, 2)
	r.sync(schema.EntityContacts, schema.VerbUpsert, contactsOf(1))
	r.sync(schema.EntityDeals, schema.VerbDelete, []int{1})
	readers := make([]sdkmetric.Reader, 2)
	cfg := sender.Hasty(r.config(), time.Hour)
	for i := range readers {
		reader := sdkmetric.NewManualReader()
		readers[i] = reader
		r.meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
		r.start(cfg)
		if i == 0 {
			until(t, reader, "an owner", func(s series) bool { return s["wazzup.lanes open"]+s["wazzup.lanes closed"] > 0 })
		}
	}
	due := time.Now().Add(time.Second)
	r.send("due", phone, "x", fmt.Sprintf(`,"sendAt":%q`, due.Format(time.RFC3339Nano)))
	got := until(t, readers[0], "the backlog", func(s series) bool {
		return time.Now().After(due) && s["wazzup.commands.queued main send"] == 8 && s["wazzup.commands.oldest.age main send"] > 1 &&
			s["wazzup.commands.oldest.age main bulk"] > 1 && s["wazzup.commands.oldest.age main sync"] > 1
	})
	if got["wazzup.commands.queued main bulk"] != 2 || got["wazzup.commands.queued main sync"] != 2 {
		t.Errorf("queued: %v", got)
	}
	for _, class := range []string{"send", "bulk", "sync"} {
		if age := got["wazzup.commands.oldest.age main "+class]; age > time.Since(began).Seconds() {
			t.Errorf("the oldest of %s waits for %vs, longer than it is there", class, age)
		}
	}
	var list sender.LaneList
	if err := json.Unmarshal(r.ask("lanes.list", `{}`).Body, &list); err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]uint64)
	for _, lane := range list.Items {
		listed[lane.Class] += lane.Backlog
	}
	for class, n := range listed {
		if got["wazzup.commands.queued main "+class] != float64(n) {
			t.Errorf("lanes.list has %d of %s, the metric %v", n, class, got["wazzup.commands.queued main "+class])
		}
	}
	for name := range collected(t, readers[1]) {
		if strings.HasPrefix(name, "wazzup.commands.queued") || strings.HasPrefix(name, "wazzup.commands.oldest") {
			t.Errorf("a standby worker tells %s", name)
		}
	}
	r.sim.ClearRules()
	until(t, readers[0], "nothing to wait", func(s series) bool {
		for _, class := range []string{"send", "bulk", "sync"} {
			if s["wazzup.commands.queued main "+class] != 0 || s["wazzup.commands.oldest.age main "+class] != 0 {
				return false
			}
		}
		return true
	})
}
