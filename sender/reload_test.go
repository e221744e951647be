package sender_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// call is one of a simulated account: the vendor counts it when it arrives, some
// time between its start and its answer.
type call struct{ start, arrival, answer time.Time }

// change is a limit from a moment on, and the calls that were under way then.
type change struct {
	at      time.Time
	limit   rate.Rate
	present int
}

// TestWindowChangesUnderLoad: whatever limits follow one another, no interval that
// begins at a change or later holds more calls than the limit, as the vendor sees
// them; those that were under way at the change can be the only exception.
func TestWindowChangesUnderLoad(t *testing.T) {
	t.Parallel()
	limits := []rate.Rate{
		{N: 20, Per: time.Second},
		{N: 5, Per: time.Second},
		{N: 5, Per: 4 * time.Second},
		{},
		{N: 50, Per: 500 * time.Millisecond},
		{N: 2, Per: 300 * time.Millisecond},
	}
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			calls, changes := simulateWindow(rand.New(rand.NewPCG(seed, 1)), limits)
			for i, c := range changes {
				if c.limit.N == 0 {
					continue
				}
				end := time.Unix(1<<40, 0)
				if i+1 < len(changes) {
					end = changes[i+1].at
				}
				checkInterval(t, calls, c, end)
			}
		})
	}
}

// simulateWindow has as many calls as the window lets through, in simulated time.
func simulateWindow(random *rand.Rand, limits []rate.Rate) (calls []call, changes []change) {
	now := time.Unix(0, 0)
	w := sender.NewWindow(limits[0])
	changes = []change{{at: now, limit: limits[0]}}
	var open []call
	for step := range 20_000 {
		now = now.Add(time.Duration(random.IntN(4000)) * time.Microsecond)
		for len(open) > 0 && !open[0].answer.After(now) {
			w.Answered(open[0].answer)
			open = open[1:]
		}
		if step%1500 == 1499 {
			limit := limits[random.IntN(len(limits))]
			w.Change(limit)
			changes = append(changes, change{now, limit, len(open)})
		}
		if _, ok := w.Take(now); !ok {
			continue
		}
		if random.IntN(10) == 0 {
			w.Unused()
			continue
		}
		took := time.Duration(random.IntN(200)) * time.Millisecond
		c := call{now, now.Add(time.Duration(random.Float64() * float64(took))), now.Add(took)}
		calls, open = append(calls, c), append(open, c)
		slices.SortFunc(open, func(a, b call) int { return a.answer.Compare(b.answer) })
	}
	return calls, changes
}

func checkInterval(t *testing.T, calls []call, c change, end time.Time) {
	t.Helper()
	var arrivals []time.Time
	for _, one := range calls {
		if !one.arrival.Before(c.at) && one.arrival.Before(end) {
			arrivals = append(arrivals, one.arrival)
		}
	}
	slices.SortFunc(arrivals, time.Time.Compare)
	limit := max(c.limit.N, c.present)
	for i := limit; i < len(arrivals); i++ {
		if gap := arrivals[i].Sub(arrivals[i-limit]); gap < c.limit.Per {
			t.Fatalf("%d calls within %v of %v, limit %v", limit+1, gap, arrivals[i].Sub(c.at), c.limit)
		}
	}
	if len(arrivals) == 0 && end.Sub(c.at) < time.Hour && end.Sub(c.at) > 10*time.Second {
		t.Errorf("no call in %v under %v", end.Sub(c.at), c.limit)
	}
}

// A slower pace is kept from the next call on; a faster one need not wait for the
// old one's end.
func TestPaceChanges(t *testing.T) {
	t.Parallel()
	start := time.Unix(0, 0)
	hourly, secondly := rate.Rate{N: 1, Per: time.Hour}, rate.Rate{N: 60, Per: time.Minute}
	for _, tt := range []struct {
		name          string
		before, after rate.Rate
		want          time.Duration // from the call to the next, the change coming 300 ms after it
	}{
		{"slower", secondly, hourly, time.Second},
		{"faster", hourly, secondly, 1300 * time.Millisecond},
		{"none", hourly, rate.Rate{}, 300 * time.Millisecond},
		{"the first", rate.Rate{}, hourly, 300 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := sender.NewPace(tt.before)
			p.Started(start, 0)
			now := start.Add(300 * time.Millisecond)
			p.Change(tt.after, now)
			at, ok := p.Ready(now)
			if ok {
				at = now
			}
			if got := at.Sub(start); got != tt.want {
				t.Errorf("the next call may come after %v, want %v", got, tt.want)
			}
			p.Started(at, 0)
			if next, _ := p.Ready(at); tt.after.N > 0 && next.Sub(at) != tt.after.Per/time.Duration(tt.after.N) {
				t.Errorf("the one after it comes %v later, want the new spacing", next.Sub(at))
			}
		})
	}
}

func reload(t *testing.T, w *sender.Worker, cfgs ...sender.Config) sender.Changes {
	t.Helper()
	changes, err := w.Reload(cfgs)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

// The account's rate changes while a backlog drains: the vendor sees no more than
// the new one from then on, and without a limit the rest goes at once.
func TestReloadedRateUnderLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.Rate = rate.Rate{N: 40, Per: 500 * time.Millisecond}
	cfg.ChannelsPoll = time.Hour
	reader := sdkmetric.NewManualReader()
	r.meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	const total = 400
	for i := range total {
		r.send(fmt.Sprint("c-", i), fmt.Sprintf("7900000%04d", i), "x")
	}
	w, _ := r.worker(cfg)
	r.finals(60)
	cfg.Rate = rate.Rate{N: 10, Per: time.Second}
	if got := reload(t, w, cfg); !slices.Equal(got.Changed, []string{"main"}) || len(got.Added)+len(got.Removed) > 0 {
		t.Errorf("changes: %+v", got)
	}
	// Calls that were under way at the change still arrive, and count for nothing.
	until(t, reader, "the end of those calls", func(s series) bool { return s["wazzup.calls.inflight send"] == 0 })
	slower := time.Now()
	if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return r.requestsSince(slower) >= 20 }); err != nil {
		t.Fatal(err)
	}
	cfg.Rate = rate.Rate{}
	unlimited := time.Now()
	reload(t, w, cfg)
	r.finals(total)
	if took := time.Since(unlimited); took > 20*time.Second { // at the slower rate it would take half a minute
		t.Errorf("without a limit the rest took %v", took)
	}
	var times []time.Time
	for _, q := range r.sim.Requests() {
		if q.Time.After(slower) && q.Time.Before(unlimited) {
			times = append(times, q.Time)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	for i := 10; i < len(times); i++ {
		if gap := times[i].Sub(times[i-10]); gap < time.Second {
			t.Errorf("11 requests within %v after the reload, want at most 10 in 1s", gap)
		}
	}
	if len(times) < 15 {
		t.Errorf("%d requests under the slower rate: it shows nothing", len(times))
	}
}

func (r *rig) requestsSince(at time.Time) (n int) {
	for _, q := range r.sim.Requests() {
		if q.Time.After(at) {
			n++
		}
	}
	return n
}

// A lane that waits for its pace goes on at once when a reload makes it faster, of
// the channel or of all.
func TestReloadedPace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.BulkRate = rate.Rate{N: 1, Per: time.Hour}
	w, _ := r.worker(cfg)
	for _, id := range []string{"first", "second", "third"} {
		r.publish(schema.KindBulk, id, fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":%q,"text":"x"}`, id, phone))
	}
	r.event("first", schema.StateSent)
	r.waiting("second", "pace")
	cfg.Channels = map[string]sender.ChannelConfig{simulator.ChannelWhatsApp: {BulkRate: &rate.Rate{N: 2, Per: 2 * time.Second}}}
	reload(t, w, cfg)
	r.event("third", schema.StateSent)
	sends := r.sim.Sends()
	if gap := sends[2].Time.Sub(sends[1].Time); gap < time.Second {
		t.Errorf("the third came %v after the second, want the new spacing of 1s at least", gap)
	}
	if got := reload(t, w, cfg); len(got.Changed) > 0 {
		t.Errorf("the same configuration changed %v", got.Changed)
	}
}

// A key that is refused closes the account; another one is tried at once, however
// long the old one had to wait.
func TestReloadedKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.sim.AddRule(simulator.Rule{Status: 401, Times: 3}); err != nil {
		t.Fatal(err)
	}
	cfg := r.config()
	cfg.ChannelsPoll = time.Hour
	cfg.Backoff = sender.Backoff{Min: time.Hour, Max: time.Hour}
	w, _ := r.worker(cfg)
	r.ops(schema.OpsAccountClosed)
	r.send("a", phone, "x")
	r.sim.ClearRules()
	cfg.APIKey = "another"
	if got := reload(t, w, cfg); !slices.Equal(got.Changed, []string{"main"}) {
		t.Errorf("changes: %+v", got)
	}
	r.event("a", schema.StateSent)
	r.ops(schema.OpsAccountOpened)
}

// Under load an account is added and another removed, and comes back: everything
// that was published is sent once, in order, and nothing is in doubt.
func TestReloadedAccounts(t *testing.T) {
	t.Parallel()
	r := newSpreadRig(t, "kept", "removed", "added")
	if err := r.sim.AddRule(simulator.Rule{Delay: simulator.Duration(20 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	end := r.traffic()
	w, _ := r.worker(r.configs("kept", "removed")...)
	r.finals(50)
	got := reload(t, w, r.configs("kept", "added")...)
	if !slices.Equal(got.Added, []string{"added"}) || !slices.Equal(got.Removed, []string{"removed"}) || len(got.Changed) > 0 {
		t.Errorf("changes: %+v", got)
	}
	r.until(time.Now(), "the new account to be owned and the removed one to be free", func(byWorker map[string][]string) bool {
		for _, owns := range byWorker {
			slices.Sort(owns)
			return len(byWorker) == 1 && slices.Equal(owns, []string{"added", "kept"})
		}
		return false
	})
	members, err := r.members.List(t.Context())
	if err != nil || len(members) != 1 || slices.Contains(members[0].Accounts, "removed") {
		t.Errorf("offered: %+v %v", members, err)
	}
	r.wait("the new account's first message", func(all []schema.CommandEvent) bool {
		return slices.ContainsFunc(all, func(e schema.CommandEvent) bool { return e.Account == "added" && e.State == schema.StateSent })
	})
	before := r.sentOf("removed")
	r.wait("more of the others", func(all []schema.CommandEvent) bool { return len(all) > before+100 })
	if after := r.sentOf("removed"); after != before {
		t.Errorf("%d requests of the removed account after it was given up", after-before)
	}
	reload(t, w, r.configs(r.accounts...)...)
	r.owned(3)
	r.sentOnce(end())
}

// sentOf counts the requests of an account.
func (r *spreadRig) sentOf(account string) int {
	n := 0
	for _, s := range r.sim.Sends() {
		if strings.HasPrefix(s.Text, account+" ") {
			n++
		}
	}
	return n
}

// One that is removed and named again at once is served again when it has been
// given up, with the rates of the second time.
func TestReloadedTwiceInARow(t *testing.T) {
	t.Parallel()
	r := newSpreadRig(t, "one", "two")
	if err := r.sim.AddRule(simulator.Rule{Delay: simulator.Duration(50 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	end := r.traffic()
	w, _ := r.worker(r.configs("one", "two")...)
	r.finals(20)
	for range 5 {
		reload(t, w, r.configs("one")...)
		reload(t, w, r.configs("one", "two")...)
	}
	r.owned(2)
	r.sentOnce(end())
}

// A set with faults changes nothing, and each is named.
func TestReloadRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	w, _ := r.worker(cfg)
	r.states(r.send("warm", phone, "up"))
	bad, twice := cfg, cfg
	bad.Account, bad.APIURL = "bad", "ftp://nowhere"
	twice.APIKey = "other"
	_, err := w.Reload([]sender.Config{cfg, bad, twice})
	if err == nil || !strings.Contains(err.Error(), "account bad") || !strings.Contains(err.Error(), "account main: is configured twice") {
		t.Errorf("got %v, want both faults", err)
	}
	r.states(r.send("after", phone, "still up"))
	if got := reload(t, w, cfg); len(got.Added)+len(got.Removed)+len(got.Changed) > 0 {
		t.Errorf("the refused set left changes: %+v", got)
	}
}

// What the window has counted before a change counts after it, for the new length.
func TestWindowKeepsWhatItCounts(t *testing.T) {
	t.Parallel()
	start := time.Unix(0, 0)
	for _, tt := range []struct {
		name string
		to   rate.Rate
		want time.Duration // until the next call
	}{
		{"fewer", rate.Rate{N: 2, Per: time.Second}, 1300 * time.Millisecond},
		{"longer", rate.Rate{N: 5, Per: 4 * time.Second}, 4 * time.Second},
		{"fewer and longer", rate.Rate{N: 1, Per: 4 * time.Second}, 4400 * time.Millisecond},
		{"shorter", rate.Rate{N: 2, Per: 700 * time.Millisecond}, time.Second},
		{"more", rate.Rate{N: 6, Per: time.Second}, 500 * time.Millisecond},
		{"none", rate.Rate{}, 500 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := sender.NewWindow(rate.Rate{N: 5, Per: time.Second})
			now := start.Add(500 * time.Millisecond)
			for i := range 5 { // the last one is answered after the change
				w.Take(start)
				if i < 4 {
					w.Answered(start.Add(time.Duration(i) * 100 * time.Millisecond))
				}
			}
			w.Change(tt.to)
			w.Answered(start.Add(400 * time.Millisecond))
			for at, ok := w.Take(now); !ok; at, ok = w.Take(now) {
				if !at.After(now) {
					t.Fatalf("refused at %v until %v", now.Sub(start), at.Sub(start))
				}
				now = at
			}
			if got := now.Sub(start); got != tt.want {
				t.Errorf("the next call may come after %v, want %v", got, tt.want)
			}
		})
	}
}
