package sender_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// breakerBench drives breakers in a bubble and keeps what they told.
type breakerBench struct {
	t       *testing.T
	b       *sender.Breakers
	changes []sender.BreakerChange
}

func newBreakerBench(t *testing.T, cfg sender.BreakerConfig) *breakerBench {
	t.Helper()
	bench := &breakerBench{t: t}
	bench.b = sender.NewBreakers(cfg, func(c sender.BreakerChange) { bench.changes = append(bench.changes, c) })
	return bench
}

// allow asks for a send on a channel and fails the test if it is refused.
func (b *breakerBench) allow(channel string) func(bool, sender.Verdict) {
	b.t.Helper()
	done, retryAt, ok := b.b.Allow(sender.FamilySend, channel)
	if !ok {
		b.t.Fatalf("channel %s is refused until %v", channel, retryAt)
	}
	return done
}

// call makes a whole call.
func (b *breakerBench) call(channel string, effect sender.BreakerEffect) {
	b.t.Helper()
	b.allow(channel)(true, sender.Verdict{Breaker: effect})
}

func (b *breakerBench) calls(n int, channel string, effect sender.BreakerEffect) {
	b.t.Helper()
	for range n {
		b.call(channel, effect)
	}
}

// refused checks that a channel is refused for so long from now.
func (b *breakerBench) refused(channel string, want time.Duration) time.Time {
	b.t.Helper()
	done, retryAt, ok := b.b.Allow(sender.FamilySend, channel)
	if ok || done != nil {
		b.t.Fatalf("channel %s is allowed", channel)
	}
	if got := time.Until(retryAt).Truncate(time.Millisecond); got != want {
		b.t.Fatalf("channel %s: to be asked again in %v, want %v", channel, got, want)
	}
	peeked, blocked := b.b.Blocked(sender.FamilySend, channel)
	if !blocked || !peeked.Equal(retryAt) {
		b.t.Fatalf("channel %s: Blocked says %v, %v, and Allow %v", channel, peeked, blocked, retryAt)
	}
	return retryAt
}

// told checks the changes since it was last asked: "open c1", "close send".
func (b *breakerBench) told(want ...string) {
	b.t.Helper()
	got := make([]string, 0, len(b.changes))
	for _, c := range b.changes {
		name, word := c.Channel, "close"
		if name == "" {
			name = string(c.Family)
		}
		switch {
		case c.Again:
			word = "again"
		case c.Open:
			word = "open"
		}
		if c.Open == c.RetryAt.IsZero() || !c.At.Equal(time.Now()) {
			b.t.Errorf("change %+v is not of %v or does not say when probes begin", c, time.Now())
		}
		got = append(got, word+" "+name)
	}
	b.changes = nil
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("told %v, want %v", got, want)
	}
}

const (
	healthy = sender.BreakerHealthy
	ofChan  = sender.BreakerChannel
	ofWay   = sender.BreakerFamily
	nothing = sender.BreakerNothing
)

func TestBreakers(t *testing.T) {
	t.Parallel()
	const openFor = 5 * time.Second
	tests := []struct {
		name string
		cfg  sender.BreakerConfig
		run  func(b *breakerBench)
	}{
		{name: "a channel opens after faults in a row, others go on", run: func(b *breakerBench) {
			b.calls(4, "c1", ofChan)
			b.told()
			b.call("c1", ofChan)
			b.told("open c1")
			b.refused("c1", openFor)
			b.calls(20, "c2", healthy)
		}},
		{name: "a success starts the count anew", run: func(b *breakerBench) {
			for range 10 {
				b.calls(4, "c1", ofChan)
				b.call("c1", healthy)
			}
			b.told()
		}},
		{name: "refusals of messages never count", run: func(b *breakerBench) {
			b.calls(100, "c1", healthy)
			b.calls(100, "c1", nothing)
			b.told()
		}},
		{name: "what says nothing neither counts nor forgives", run: func(b *breakerBench) {
			b.calls(4, "c1", ofChan)
			b.calls(10, "c1", nothing)
			b.call("c1", ofChan)
			b.told("open c1")
		}},
		{name: "a call that was not made says nothing, whatever its verdict", run: func(b *breakerBench) {
			for range 20 {
				b.allow("c1")(false, sender.Verdict{Breaker: ofChan})
				b.allow("c1")(false, sender.Verdict{Breaker: ofWay})
			}
			b.told()
		}},
		{name: "one broken channel never opens the family", run: func(b *breakerBench) {
			dones := make([]func(bool, sender.Verdict), 0, 50)
			for range 50 {
				dones = append(dones, b.allow("c1"))
			}
			for _, done := range dones {
				done(true, sender.Verdict{Breaker: ofChan})
			}
			b.told("open c1")
			b.call("c2", healthy)
		}},
		{name: "faults of two channels open the family", run: func(b *breakerBench) {
			b.calls(5, "c1", ofChan)
			b.calls(4, "c2", ofChan)
			b.told("open c1")
			b.call("c2", ofChan)
			b.told("open send", "open c2")
			b.refused("c3", openFor)
		}},
		{name: "a success between them keeps the family closed", run: func(b *breakerBench) {
			for range 20 {
				b.calls(2, "c1", ofChan)
				b.calls(2, "c2", ofChan)
				b.call("c1", healthy)
				b.call("c2", healthy)
			}
			b.told()
		}},
		{name: "failures on the way open the family, even of one channel", run: func(b *breakerBench) {
			b.calls(4, "c1", ofWay)
			b.told()
			b.call("c1", ofWay)
			b.told("open send")
			b.refused("c2", openFor)
			if _, _, ok := b.b.Allow(sender.FamilySync, ""); !ok {
				b.t.Error("another family is refused")
			}
		}},
		{name: "a fault of a family without channels is one on the way", run: func(b *breakerBench) {
			for range 5 {
				done, _, ok := b.b.Allow(sender.FamilyQuery, "")
				if !ok {
					b.t.Fatal("refused")
				}
				done(true, sender.Verdict{Breaker: ofChan})
			}
			b.told("open query")
			b.call("c1", healthy)
		}},
		{name: "half-open, one probe at a time, then closed", run: func(b *breakerBench) {
			b.calls(5, "c1", ofChan)
			b.told("open c1")
			retryAt := b.refused("c1", openFor)
			time.Sleep(time.Until(retryAt) - time.Nanosecond)
			b.refused("c1", 0)
			time.Sleep(time.Nanosecond)
			probe := b.allow("c1")
			b.refused("c1", time.Second)
			b.told()
			probe(true, sender.Verdict{Breaker: healthy})
			b.told("close c1")
			b.calls(4, "c1", ofChan)
			b.told()
		}},
		{name: "a failed probe opens again, for twice as long, up to a limit", cfg: sender.BreakerConfig{OpenMax: 30 * time.Second}, run: func(b *breakerBench) {
			b.calls(5, "c1", ofChan)
			b.told("open c1")
			for _, want := range []time.Duration{openFor, 2 * openFor, 4 * openFor, 30 * time.Second, 30 * time.Second} {
				time.Sleep(time.Until(b.refused("c1", want)))
				b.call("c1", ofChan)
				b.told("again c1")
			}
			time.Sleep(time.Until(b.refused("c1", 30*time.Second)))
			b.call("c1", healthy)
			b.told("close c1")
			b.calls(5, "c1", ofChan)
			b.told("open c1")
			b.refused("c1", openFor)
		}},
		{name: "a probe that was not made frees its place", run: func(b *breakerBench) {
			b.calls(5, "c1", ofChan)
			time.Sleep(time.Until(b.refused("c1", openFor)))
			for range 10 {
				b.allow("c1")(false, sender.Verdict{})
			}
			b.call("c1", healthy)
			b.changes = b.changes[1:]
			b.told("close c1")
		}},
		{name: "done twice counts once", run: func(b *breakerBench) {
			done := b.allow("c1")
			for range 20 {
				done(true, sender.Verdict{Breaker: ofChan})
				done(true, sender.Verdict{Breaker: ofWay})
			}
			b.told()
		}},
		{name: "a channel that is refused takes no probe of the family", run: func(b *breakerBench) {
			b.calls(5, "c1", ofChan)
			b.calls(5, "c2", ofWay)
			b.told("open c1", "open send")
			time.Sleep(openFor / 2)
			time.Sleep(time.Until(b.refused("c2", openFor/2)))
			// Both are due. The channel's probe is the family's too.
			probe := b.allow("c1")
			b.refused("c1", time.Second)
			b.refused("c2", time.Second)
			probe(true, sender.Verdict{Breaker: healthy})
			b.told("close send", "close c1")
		}},
		{name: "a family that is refused takes no probe of the channel", run: func(b *breakerBench) {
			b.calls(5, "c1", ofChan)
			b.told("open c1")
			time.Sleep(time.Second)
			b.calls(5, "c2", ofWay)
			b.told("open send")
			time.Sleep(openFor - time.Second + time.Nanosecond)
			for range 10 { // the channel is due, the family is not
				b.refused("c1", time.Second)
			}
			time.Sleep(time.Second)
			b.call("c1", healthy)
			b.told("close send", "close c1")
		}},
		{name: "one channel's fault is no verdict on a half-open family", run: func(b *breakerBench) {
			b.calls(5, "c0", ofWay)
			b.told("open send")
			time.Sleep(time.Until(b.refused("c1", openFor)))
			b.call("c1", ofChan)
			b.told()
			b.call("c1", ofChan)
			b.told()
			b.call("c2", ofChan) // the second channel
			b.told("again send")
			time.Sleep(time.Until(b.refused("c1", 2*openFor)))
			b.call("c1", ofChan)
			b.call("c3", healthy)
			b.told("close send")
		}},
		{name: "answers of calls that began before it opened change nothing", run: func(b *breakerBench) {
			late := make([]func(bool, sender.Verdict), 0, 30)
			for range 10 {
				late = append(late, b.allow("c1"), b.allow("c2"), b.allow("c3"))
			}
			b.calls(5, "c1", ofChan)
			b.calls(5, "c2", ofWay)
			b.told("open c1", "open send")
			time.Sleep(openFor - 1) // gobreaker's own time is nearly over
			for i, done := range late {
				effects := []sender.BreakerEffect{healthy, ofChan, ofWay, nothing}
				done(true, sender.Verdict{Breaker: effects[i%len(effects)]})
			}
			for _, change := range b.changes {
				if change.Channel == "" || !change.Open {
					b.t.Errorf("a late answer caused %+v", change)
				}
			}
			b.refused("c1", 0)
		}},
		{name: "late answers while the wait is longer than gobreaker's", run: func(b *breakerBench) {
			b.call("c1", ofChan)
			late, later := b.allow("c1"), b.allow("c1")
			b.calls(4, "c1", ofChan)
			b.told("open c1")
			time.Sleep(time.Until(b.refused("c1", openFor)))
			b.call("c1", ofChan)
			b.told("again c1")
			time.Sleep(openFor + time.Second)
			late(true, sender.Verdict{Breaker: healthy})
			b.refused("c1", openFor-time.Second)
			later(true, sender.Verdict{Breaker: ofChan})
			b.refused("c1", openFor-time.Second)
			b.told()
		}},
		{name: "late answers while a family's wait is longer than gobreaker's", run: func(b *breakerBench) {
			late := b.allow("c1")
			b.calls(5, "c1", ofWay)
			b.told("open send")
			time.Sleep(time.Until(b.refused("c2", openFor)))
			b.call("c2", ofWay)
			b.told("again send")
			time.Sleep(openFor + time.Second)
			late(true, sender.Verdict{Breaker: healthy})
			b.told()
			b.refused("c2", openFor-time.Second)
		}},
		{name: "a fault counts although a success came between its call and its answer", run: func(b *breakerBench) {
			b.call("c1", ofChan)
			slow := b.allow("c1")
			b.call("c1", healthy)
			b.calls(4, "c1", ofChan)
			b.told()
			slow(true, sender.Verdict{Breaker: ofChan})
			b.told("open c1")
		}},
		{name: "more probes, all of which must succeed", cfg: sender.BreakerConfig{Probes: 2}, run: func(b *breakerBench) {
			b.calls(5, "c1", ofChan)
			time.Sleep(time.Until(b.refused("c1", openFor)))
			first, second := b.allow("c1"), b.allow("c1")
			b.refused("c1", time.Second)
			first(true, sender.Verdict{Breaker: healthy})
			b.refused("c1", time.Second)
			second(true, sender.Verdict{Breaker: healthy})
			b.call("c1", healthy)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tt.run(newBreakerBench(t, tt.cfg))
			})
		})
	}
}

// A breaker that a former owner left open lets one probe through after its first
// wait; its waits go on from where they were, and only its end is told.
func TestBreakersRestored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		former := newBreakerBench(t, sender.BreakerConfig{})
		former.calls(5, "c1", ofChan)
		since := time.Now()
		for _, wait := range []time.Duration{5 * time.Second, 10 * time.Second} { // two probes fail
			time.Sleep(wait + time.Nanosecond)
			former.call("c1", ofChan)
		}
		for i := range 3 { // the tenth fault in a row
			former.call(fmt.Sprint("c", 2+i%2), ofChan)
		}
		left := former.b.Broken()
		if len(left) != 2 {
			t.Fatalf("left: %+v, want the channel's and the family's", left)
		}

		b := newBreakerBench(t, sender.BreakerConfig{})
		for _, one := range left {
			b.b.Restore(one)
			b.b.Restore(one) // twice is once
		}
		b.told()
		b.refused("c1", 5*time.Second)
		b.refused("c9", 5*time.Second)
		if got := b.b.Since(sender.FamilySend, "c1"); !got.Equal(since) {
			t.Errorf("open since %v, want %v", got, since)
		}
		if !b.b.Opened(sender.FamilySend, "c9") || b.b.Opened(sender.FamilyQuery, "") {
			t.Error("not the family that was open is")
		}
		time.Sleep(5*time.Second + time.Nanosecond)
		probe := b.allow("c9")
		b.refused("c8", time.Second) // one probe
		probe(true, sender.Verdict{Breaker: healthy})
		b.told("close send")
		b.call("c1", ofChan)
		b.told("again c1")
		b.refused("c1", 40*time.Second) // its fourth wait
		if next := b.b.Broken(); len(next) != 1 || next[0].Channel != "c1" || next[0].Times != 4 {
			t.Errorf("left: %+v", next)
		}
		b.b.Restore(queue.Broken{Family: "another"})
	})
}

// TestBreakersMayBeAskedByTheirListener: the lock is released before anybody is
// told.
func TestBreakersMayBeAskedByTheirListener(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b *sender.Breakers
		told := 0
		b = sender.NewBreakers(sender.BreakerConfig{ChannelFaults: 1}, func(c sender.BreakerChange) {
			told++
			if at, blocked := b.Blocked(c.Family, c.Channel); !blocked || !at.Equal(c.RetryAt) {
				t.Errorf("Blocked says %v, %v, and the change %v", at, blocked, c.RetryAt)
			}
		})
		done, _, _ := b.Allow(sender.FamilySend, "c1")
		done(true, sender.Verdict{Breaker: sender.BreakerChannel})
		if told != 1 {
			t.Errorf("told %d times, want once", told)
		}
	})
}

// TestBreakersNeverWedge: whatever happened, every call reported, all is open
// again once the vendor is well and time has passed.
func TestBreakersNeverWedge(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				b := sender.NewBreakers(sender.BreakerConfig{}, nil)
				effects := []sender.BreakerEffect{healthy, ofChan, ofChan, ofWay, nothing}
				var open []func(bool, sender.Verdict)
				for range 2000 {
					switch rnd.IntN(4) {
					case 0:
						time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
					case 1, 2:
						if done, _, ok := b.Allow(sender.FamilySend, strconv.Itoa(rnd.IntN(4))); ok {
							open = append(open, done)
						}
					default:
						if len(open) > 0 {
							i := rnd.IntN(len(open))
							open[i](rnd.IntN(5) > 0, sender.Verdict{Breaker: effects[rnd.IntN(len(effects))]})
							open[i] = open[len(open)-1]
							open = open[:len(open)-1]
						}
					}
				}
				for _, done := range open {
					done(false, sender.Verdict{})
				}
				for channel := range 4 {
					for range 3 { // wait for the channel, for the family, and go
						retryAt, blocked := b.Blocked(sender.FamilySend, strconv.Itoa(channel))
						if !blocked {
							break
						}
						time.Sleep(time.Until(retryAt))
					}
					done, retryAt, ok := b.Allow(sender.FamilySend, strconv.Itoa(channel))
					if !ok {
						t.Fatalf("channel %d is refused until %v, and now is %v", channel, retryAt, time.Now())
					}
					done(true, sender.Verdict{Breaker: healthy})
				}
			})
		})
	}
}

// TestBreakersTogether is for the race detector.
func TestBreakersTogether(t *testing.T) {
	t.Parallel()
	var told sync.Map
	b := sender.NewBreakers(sender.BreakerConfig{OpenFor: time.Nanosecond, OpenMax: time.Nanosecond}, func(c sender.BreakerChange) {
		told.Store(c.Channel, c.Open)
	})
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(worker), 2))
			effects := []sender.BreakerEffect{healthy, ofChan, ofWay, nothing}
			for range 2000 {
				channel := strconv.Itoa(rnd.IntN(3))
				b.Blocked(sender.FamilySend, channel)
				if done, _, ok := b.Allow(sender.FamilySend, channel); ok {
					done(rnd.IntN(3) > 0, sender.Verdict{Breaker: effects[rnd.IntN(len(effects))]})
				}
			}
		})
	}
	wg.Wait()
	if _, ok := told.Load(""); !ok {
		t.Error("the family never changed")
	}
}

func BenchmarkBreakers(b *testing.B) {
	breakers := sender.NewBreakers(sender.BreakerConfig{}, nil)
	verdict := sender.Verdict{Breaker: healthy}
	b.ReportAllocs()
	for b.Loop() {
		done, _, ok := breakers.Allow(sender.FamilySend, "c1")
		if !ok {
			b.Fatal("refused")
		}
		done(true, verdict)
	}
}

// Since when a breaker is open does not depend on its failed probes.
func TestBreakerSince(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreakerBench(t, sender.BreakerConfig{ChannelFaults: 1, OpenFor: time.Second})
		if at := b.b.Since(sender.FamilySend, "c1"); !at.IsZero() {
			t.Errorf("closed: since %v", at)
		}
		opened := time.Now()
		b.call("c1", sender.BreakerChannel)
		time.Sleep(time.Second + time.Millisecond)
		b.call("c1", sender.BreakerChannel) // the probe fails
		b.refused("c1", 2*time.Second)
		if at := b.b.Since(sender.FamilySend, "c1"); !at.Equal(opened) {
			t.Errorf("open since %v, want %v", at, opened)
		}
		if at := b.b.Since(sender.FamilySend, "c2"); !at.IsZero() {
			t.Errorf("another channel: since %v", at)
		}
		time.Sleep(2*time.Second + time.Millisecond)
		b.call("c1", sender.BreakerHealthy)
		if at := b.b.Since(sender.FamilySend, "c1"); !at.IsZero() {
			t.Errorf("closed again: since %v", at)
		}
		opened = time.Now()
		b.call("c1", sender.BreakerChannel)
		if at := b.b.Since(sender.FamilySend, "c1"); !at.Equal(opened) {
			t.Errorf("open again since %v, want %v", at, opened)
		}
	})
}
