package sender_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// Whatever the calls' durations, and wherever between start and answer the
// vendor counts a request: no interval of the window's length holds more than
// the limit, nor more than their share of those that are not transactional.
// Simulated time, many seeds.
func TestWindowIsNeverExceeded(t *testing.T) {
	t.Parallel()
	limit := rate.Rate{N: 20, Per: time.Second}
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		w := sender.NewWindow(limit)
		now := time.Unix(0, 0)
		type call struct {
			arrival, answer time.Time
			by              sender.Window
		}
		var calls, open []call
		for len(calls) < 400 {
			by := w
			if random.Float64() < float64(seed%5)/4 { // of some seeds none, of others all
				by = w.Others()
			}
			if _, ok := by.Take(now); ok {
				took := time.Duration(random.IntN(300)) * time.Millisecond
				c := call{now.Add(time.Duration(random.Float64() * float64(took))), now.Add(took), by}
				calls, open = append(calls, c), append(open, c)
			}
			now = now.Add(time.Duration(random.IntN(20)) * time.Millisecond)
			open = slices.DeleteFunc(open, func(c call) bool {
				if c.answer.After(now) {
					return false
				}
				c.by.Answered(now)
				return true
			})
		}
		var all, others []time.Time
		for _, c := range calls {
			all = append(all, c.arrival)
			if c.by != w {
				others = append(others, c.arrival)
			}
		}
		for n, arrivals := range map[int][]time.Time{limit.N: all, 16: others} {
			slices.SortFunc(arrivals, time.Time.Compare)
			for i := n; i < len(arrivals); i++ {
				if gap := arrivals[i].Sub(arrivals[i-n]); gap < limit.Per {
					t.Fatalf("seed %d: %d requests within %v", seed, n+1, gap)
				}
			}
		}
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	start := time.Unix(100, 0)
	limit := rate.Rate{N: 2, Per: time.Second}

	t.Run("a token comes free one length after the answer", func(t *testing.T) {
		t.Parallel()
		w := sender.NewWindow(limit)
		w.Take(start)
		w.Take(start)
		if at, ok := w.Take(start); ok || !at.IsZero() {
			t.Errorf("third token while two calls run: got %v %v, want to wait for an answer", at, ok)
		}
		answered := start.Add(300 * time.Millisecond)
		w.Answered(answered)
		if at, ok := w.Take(answered); ok || !at.Equal(answered.Add(time.Second)) {
			t.Errorf("after an answer: got %v %v, want %v", at, ok, answered.Add(time.Second))
		}
		if _, ok := w.Take(answered.Add(time.Second)); !ok {
			t.Error("no token one length after the answer")
		}
	})
	t.Run("an unused token is free at once", func(t *testing.T) {
		t.Parallel()
		w := sender.NewWindow(limit)
		w.Take(start)
		w.Take(start)
		w.Unused()
		if _, ok := w.Take(start); !ok {
			t.Error("no token after one was given back unused")
		}
	})
	t.Run("others leave a share to the transactional class", func(t *testing.T) {
		t.Parallel()
		w := sender.NewWindow(rate.Rate{N: 10, Per: time.Second})
		for range 8 {
			if _, ok := w.Others().Take(start); !ok {
				t.Fatal("no token within the share")
			}
		}
		if _, ok := w.Others().Take(start); ok {
			t.Error("a ninth token for the others, want 8 of 10 at most")
		}
		if _, ok := w.Take(start); !ok {
			t.Error("no token left for the transactional class")
		}
	})
	t.Run("others have their least, whatever is left", func(t *testing.T) {
		t.Parallel()
		w := sender.NewWindow(rate.Rate{N: 40, Per: time.Second})
		for range 35 {
			w.Take(start)
		}
		for i, want := range []bool{true, true, false} { // a twentieth
			if _, ok := w.Others().Take(start); ok != want {
				t.Errorf("token %d for the others: got %v, want %v", i+1, ok, want)
			}
		}
		for i, want := range []bool{true, true, true, false} {
			if _, ok := w.Take(start); ok != want {
				t.Errorf("token %d of the rest: got %v, want %v", i+1, ok, want)
			}
		}
		w.Others().Answered(start)
		if _, ok := w.Others().Take(start.Add(time.Second)); !ok {
			t.Error("no token for the others when one of theirs came free")
		}
	})
	t.Run("a former owner's calls may have been the others'", func(t *testing.T) {
		t.Parallel()
		w := sender.NewWindow(rate.Rate{N: 40, Per: time.Second})
		w.Inherit(slices.Repeat([]time.Time{start.Add(time.Second)}, 33))
		if at, ok := w.Others().Take(start); ok || !at.Equal(start.Add(time.Second)) {
			t.Errorf("got %v %v, want to wait", at, ok)
		}
		if _, ok := w.Take(start); !ok {
			t.Error("no token for the transactional class")
		}
	})
	t.Run("a small limit is not divided", func(t *testing.T) {
		t.Parallel()
		w := sender.NewWindow(rate.Rate{N: 4, Per: time.Second})
		for range 3 {
			w.Take(start)
		}
		if _, ok := w.Others().Take(start); ok {
			t.Error("a token for the others beyond their share")
		}
	})
	t.Run("an unknown former owner counts as a full window", func(t *testing.T) {
		t.Parallel()
		w := sender.NewWindow(limit)
		w.AssumeFull(start)
		if at, ok := w.Take(start.Add(time.Second - 1)); ok || !at.Equal(start.Add(time.Second)) {
			t.Errorf("within the length: got %v %v", at, ok)
		}
		if _, ok := w.Take(start.Add(time.Second)); !ok {
			t.Error("no token when the length is over")
		}
	})
	t.Run("the hand-over passes the calls on", func(t *testing.T) {
		t.Parallel()
		former, w := sender.NewWindow(limit), sender.NewWindow(limit)
		former.Take(start)
		former.Take(start)
		former.Answered(start)
		former.Answered(start.Add(time.Millisecond))
		w.Inherit(former.Busy(start.Add(500 * time.Millisecond)))
		if at, ok := w.Take(start.Add(500 * time.Millisecond)); ok || !at.Equal(start.Add(time.Second)) {
			t.Errorf("got %v %v, want to wait until %v", at, ok, start.Add(time.Second))
		}
	})
	t.Run("no limit", func(t *testing.T) {
		t.Parallel()
		w := sender.NewWindow(rate.Rate{})
		w.AssumeFull(start)
		for range 1000 {
			if _, ok := w.Take(start); !ok {
				t.Fatal("refused without a limit")
			}
		}
	})
}

func TestPaceSpreadsCalls(t *testing.T) {
	t.Parallel()
	p := sender.NewPace(rate.Rate{N: 20, Per: time.Minute})
	now := time.Unix(0, 0)
	random := rand.New(rand.NewPCG(1, 1))
	var starts []time.Time
	for len(starts) < 100 {
		at, ok := p.Ready(now)
		if !ok {
			now = at
			continue
		}
		starts = append(starts, now)
		p.Started(now, random.Float64())
	}
	distinct := make(map[time.Duration]bool)
	for i := 1; i < len(starts); i++ {
		gap := starts[i].Sub(starts[i-1])
		if gap < 3*time.Second || gap > 3600*time.Millisecond {
			t.Fatalf("gap %d is %v, want 3s and up to a fifth more", i, gap)
		}
		distinct[gap] = true
	}
	if len(distinct) < 50 {
		t.Errorf("only %d different gaps in 99: no jitter", len(distinct))
	}
}

// A call that reaches the wire late moves the next one on, and none moves it back.
func TestPaceOfALateCall(t *testing.T) {
	t.Parallel()
	p := sender.NewPace(rate.Rate{N: 1, Per: 3 * time.Second})
	start := time.Unix(0, 0)
	p.Started(start, 0.01)
	for _, step := range []struct{ called, next time.Duration }{
		{5 * time.Millisecond, 3006 * time.Millisecond}, // within the jitter
		{500 * time.Millisecond, 3500 * time.Millisecond},
		{200 * time.Millisecond, 3500 * time.Millisecond},
	} {
		p.Called(start.Add(step.called))
		if at, ok := p.Ready(start); ok || at.Sub(start) != step.next {
			t.Errorf("called after %v: the next may come after %v, want %v", step.called, at.Sub(start), step.next)
		}
	}
}
