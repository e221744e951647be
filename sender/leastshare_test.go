package sender_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// While the transactional class has more to do than the account may, bulk has exactly
// a twentieth, rounded down but never to nothing, of what holds both back: of the calls
// in flight, or of the window. Where both do, it has no more than that of either, and
// some. Limits below 5 are not divided. Simulated time; many limits, mixes of lanes and
// seeds.
func TestBulkHasATwentieth(t *testing.T) {
	t.Parallel()
	window := func(n int) rate.Rate { return rate.Rate{N: n, Per: time.Second} }
	for _, tt := range []struct {
		concurrency int
		window      rate.Rate
		inFlight    int // bulk's; 0: what is left of the window decides
		inWindow    int
		both        bool // no more than these
	}{
		{concurrency: 64, inFlight: 3},
		{concurrency: 20, inFlight: 1},
		{concurrency: 19, inFlight: 1},
		{concurrency: 5, inFlight: 1},
		{concurrency: 100, inFlight: 5},
		{concurrency: 4000, window: window(100), inWindow: 5},
		{concurrency: 4000, window: window(40), inWindow: 2},
		{concurrency: 4000, window: window(39), inWindow: 1},
		{concurrency: 4000, window: window(5), inWindow: 1},
		{concurrency: 64, window: window(40), inFlight: 3, inWindow: 2, both: true},
		{concurrency: 40, window: window(100), inFlight: 2, inWindow: 5, both: true},
		{concurrency: 10, window: window(200), inFlight: 1, inWindow: 10, both: true},
	} {
		t.Run(fmt.Sprint(tt.concurrency, " in flight, window ", tt.window), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(4) {
				synctest.Test(t, func(t *testing.T) {
					random := rand.New(rand.NewPCG(seed, 7))
					// One channel may use all; of several, four or more use all.
					lanes := map[string]int{"send": []int{1, 4, 5, 9}[seed%4], "bulk": 1}
					if lanes["send"] > 1 {
						lanes["bulk"] += random.IntN(lanes["send"])
					}
					cfg := sender.Config{Concurrency: tt.concurrency, Rate: tt.window}
					calls, bulk := 0, 0
					slowest := time.Duration(100+random.IntN(300)) * time.Millisecond
					p := sender.NewPicker(cfg, lanes, func(class string) time.Duration {
						calls++
						if class == textBulk {
							bulk++
						}
						return 1 + time.Duration(random.Int64N(int64(slowest)))
					})
					was, since := 0, time.Now() // bulk's calls a window ago
					p.Run(5*time.Second, func() {
						_, flying := p.InFlight()
						_, counted := p.InWindow()
						switch {
						case tt.both:
							if flying > tt.inFlight || counted > tt.inWindow {
								t.Fatalf("seed %d: bulk has %d calls in flight and %d in the window", seed, flying, counted)
							}
						case tt.inFlight > 0 && flying != tt.inFlight:
							t.Fatalf("seed %d: bulk has %d calls in flight, want %d", seed, flying, tt.inFlight)
						case tt.inWindow > 0 && counted != tt.inWindow:
							t.Fatalf("seed %d: bulk has %d calls in the window, want %d", seed, counted, tt.inWindow)
						}
						if span := time.Second + 2*slowest; time.Since(since) > span {
							if bulk == was {
								t.Fatalf("seed %d: bulk stood still for %v", seed, span)
							}
							was, since = bulk, time.Now()
						}
					})
					if part := float64(bulk) / float64(calls); part > 0.05*1.5 && tt.concurrency >= 20 && tt.window.N != 5 {
						t.Errorf("seed %d: %.1f %% of %d calls were bulk", seed, 100*part, calls)
					}
				})
			}
		})
	}
}

// A limit that is too small to be divided is the transactional class's alone for as
// long as that needs it.
func TestSmallLimitIsNotDivided(t *testing.T) {
	t.Parallel()
	for _, cfg := range []sender.Config{
		{Concurrency: 4},
		{Concurrency: 4000, Rate: rate.Rate{N: 4, Per: time.Second}},
	} {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			p := sender.NewPicker(cfg, map[string]int{"send": 1, "bulk": 1}, func(class string) time.Duration {
				calls++
				if class == textBulk {
					t.Errorf("%d in flight, window %v: bulk was called", cfg.Concurrency, cfg.Rate)
				}
				return 50 * time.Millisecond
			})
			p.Run(3*time.Second, func() {})
			if calls < 10 {
				t.Errorf("only %d calls were made", calls)
			}
		})
	}
}
