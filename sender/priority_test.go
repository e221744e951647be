package sender_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// backlog publishes n commands of a class to a channel, each to a chat of its own.
// Their texts are the class's name.
func (r *rig) backlog(kind schema.Kind, channel string, n int) {
	r.t.Helper()
	for i := range n {
		body := fmt.Appendf(nil, `{"chatType":"whatsapp","chatId":"7900%07d","text":%q}`, i, kind)
		if _, err := r.pub.Send(r.t.Context(), kind, channel, body); err != nil {
			r.t.Fatal(err)
		}
	}
}

// reached waits until the vendor's record satisfies the condition.
func (r *rig) reached(what string, cond func(*simulator.View) bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if err := r.sim.Wait(ctx, cond); err != nil {
		r.t.Fatalf("waited in vain for %s: %v; the vendor has %+v", what, err, r.sim.View())
	}
}

// sentTexts are the texts of the messages at the vendor, in the order of arrival.
func (r *rig) sentTexts() (texts []string) {
	for _, s := range r.sim.Sends() {
		texts = append(texts, s.Text)
	}
	return texts
}

func count(texts []string, text string) (n int) {
	for _, t := range texts {
		if t == text {
			n++
		}
	}
	return n
}

// slow has every message answered after a while.
func (r *rig) slow(d time.Duration) {
	r.t.Helper()
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Delay: simulator.Duration(d)}); err != nil {
		r.t.Fatal(err)
	}
}

const (
	textSend = string(schema.KindSend)
	textBulk = string(schema.KindBulk)
)

// However much bulk waits, a fifth of the calls in flight and of the account's
// window is kept for the transactional class: it goes at once, on the channel that
// bulk keeps busy, too.
func TestBulkLeavesAFifth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		delay       time.Duration
		limit       rate.Rate
		concurrency int
		bulk        int // messages that may be under way, or sent
	}{
		{"of the calls in flight", patience, rate.Rate{}, 10, 8},
		{"of the window", 0, rate.Rate{N: 11, Per: time.Hour}, 64, 7}, // one went for the channel list
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.Rate, cfg.Concurrency, cfg.ChannelsPoll, cfg.Timeout = tt.limit, tt.concurrency, time.Hour, time.Hour
			r.start(cfg)
			r.channelsRead()
			r.slow(tt.delay)
			r.backlog(schema.KindBulk, simulator.ChannelWhatsApp, 30)
			r.reached("bulk's share", func(v *simulator.View) bool { return v.Sends >= tt.bulk })
			r.backlog(schema.KindSend, simulator.ChannelWhatsApp, 2)
			r.reached("the transactional messages", func(*simulator.View) bool { return count(r.sentTexts(), textSend) == 2 })
			sends := r.sim.Sends()
			if n := count(r.sentTexts(), textBulk); n != tt.bulk {
				t.Errorf("%d bulk messages of 30 at the vendor, want %d", n, tt.bulk)
			}
			if gap := sends[len(sends)-1].Time.Sub(sends[0].Time); tt.delay > 0 && gap >= tt.delay {
				t.Errorf("the transactional messages came %v after the first one, when that had been answered", gap)
			}
			r.sim.Close() // nobody waits for the answers
		})
	}
}

// Where there is one call at a time, every transactional command that is there
// goes before any bulk one, of its own channel and of another.
func TestTransactionalGoesFirst(t *testing.T) {
	t.Parallel()
	for name, channel := range map[string]string{"of its channel": simulator.ChannelWhatsApp, "of its account": simulator.ChannelWhatsApp2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const bulk, codes = 20, 5
			r := newRig(t)
			cfg := r.config()
			cfg.Concurrency = 1
			r.start(cfg)
			r.channelsRead()
			r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Delay: simulator.Duration(2 * time.Second), Times: 1}) // until the others are there
			r.slow(50 * time.Millisecond)
			r.backlog(schema.KindBulk, simulator.ChannelWhatsApp, bulk)
			r.reached("the first one", func(v *simulator.View) bool { return v.Sends > 0 })
			r.backlog(schema.KindSend, channel, codes)
			r.finals(bulk + codes)
			texts := r.sentTexts()
			first := slices.Index(texts, textSend)
			if first > bulk/2 {
				t.Errorf("%d bulk messages went before the first transactional one", first)
			}
			if got := texts[first : first+codes]; count(got, textSend) != codes {
				t.Errorf("from the first transactional one on the vendor got %v", got)
			}
		})
	}
}

// While the transactional class alone has more to do than the account's window, or
// its calls in flight, allow, bulk still moves; and it takes but a little of them.
func TestBulkStillMoves(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		limit       rate.Rate
		concurrency int
		delay       time.Duration
		codes       int
	}{
		{"in the window", rate.Rate{N: 40, Per: 500 * time.Millisecond}, 64, 0, 400},
		{"in the calls in flight", rate.Rate{}, 20, 100 * time.Millisecond, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.slow(tt.delay)
			r.backlog(schema.KindBulk, simulator.ChannelWhatsApp, tt.codes/2)
			r.backlog(schema.KindSend, simulator.ChannelWhatsApp, tt.codes)
			cfg := r.config()
			cfg.Rate, cfg.Concurrency = tt.limit, tt.concurrency
			r.start(cfg)
			r.finals(tt.codes * 3 / 2)
			// Both lanes have commands from the first to the last of the transactional
			// ones; at the edges either may be read a moment before the other.
			texts := r.sentTexts()
			texts = texts[len(texts)/5 : lastIndex(texts, textSend)]
			bulk := float64(count(texts, textBulk)) / float64(len(texts))
			t.Logf("%.1f %% of %d were bulk", 100*bulk, len(texts))
			if bulk < 0.02 {
				t.Errorf("%.1f %% of what was sent meanwhile was bulk: it stands still", 100*bulk)
			}
			if bulk > 0.2 { // a fifth would be what it takes where nobody else wants more
				t.Errorf("%.1f %% of what was sent meanwhile was bulk, want about a twentieth", 100*bulk)
			}
		})
	}
}

func lastIndex(texts []string, text string) int {
	for i, t := range slices.Backward(texts) {
		if t == text {
			return i
		}
	}
	return -1
}

// A channel's bulk class leaves a part of the channel's quarter to the transactional
// one, so that a code waits for none of a campaign's slow calls: neither where others
// want calls in flight as well, nor where they began to after bulk had more than the
// quarter.
func TestBulkLeavesAPartOfTheQuarter(t *testing.T) {
	t.Parallel()
	const (
		concurrency = 16
		share       = 12 // four fifths: what bulk may have of them
		delay       = time.Second
	)
	for _, tt := range []struct {
		name          string
		bulk, other   int // commands of the code's channel, and of another
		before, first int // calls of bulk before the other's come, and before the code
	}{
		{"others want some", 20, 20, 0, share + 8},
		{"bulk was alone", share, share, share, share},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.Concurrency, cfg.ChannelsPoll = concurrency, time.Hour
			r.start(cfg)
			r.channelsRead()
			r.backlog(schema.KindBulk, simulator.ChannelWhatsApp2, 1) // its lane is known
			r.finals(1)
			r.slow(delay)
			calls := func(n int) func(*simulator.View) bool {
				return func(v *simulator.View) bool { return v.Sends >= 1+n }
			}
			r.backlog(schema.KindBulk, simulator.ChannelWhatsApp, tt.bulk)
			r.reached("bulk calls before the other's", calls(tt.before))
			r.backlog(schema.KindBulk, simulator.ChannelWhatsApp2, tt.other)
			r.reached("bulk calls before the code", calls(tt.first))
			r.backlog(schema.KindSend, simulator.ChannelWhatsApp, 1)
			stored := time.Now()
			r.finals(1 + tt.bulk + tt.other + 1)
			code := r.sim.Sends()[slices.Index(r.sentTexts(), textSend)]
			if took := code.Time.Sub(stored); took > delay/2 {
				t.Errorf("the code was called %v after it was stored, behind bulk calls of %v", took, delay)
			}
		})
	}
}

// A channel alone may use all calls in flight. From when another one wants some,
// none has more than a quarter of them, of both its classes together.
func TestChannelTakesAQuarter(t *testing.T) {
	t.Parallel()
	const (
		concurrency, quarter = 8, 2
		delay                = 200 * time.Millisecond
	)
	r := newRig(t)
	cfg := r.config()
	cfg.Concurrency, cfg.ChannelsPoll = concurrency, time.Hour
	r.start(cfg)
	r.channelsRead()
	r.slow(delay)
	r.backlog(schema.KindSend, simulator.ChannelWhatsApp, 30)
	r.reached("all calls in flight", func(v *simulator.View) bool { return v.Requests-v.Finished == concurrency })
	r.backlog(schema.KindBulk, simulator.ChannelWhatsApp, 30)
	r.backlog(schema.KindSend, simulator.ChannelWhatsApp2, 20)
	r.finals(80)
	sends := r.sim.Sends()
	slices.SortFunc(sends, func(a, b simulator.Send) int { return a.Time.Compare(b.Time) })
	other := func(s simulator.Send) bool { return s.ChannelID == simulator.ChannelWhatsApp2 }
	first := slices.IndexFunc(sends, other)
	last := first
	for i := range sends {
		if other(sends[i]) {
			last = i
		}
	}
	// The calls from before end within one delay, and the other channel's last ones
	// do not stand in line any more.
	shared := 0
	for i := first; i < last; i++ {
		s := sends[i]
		if s.Time.Sub(sends[first].Time) < 2*delay || sends[last].Time.Sub(s.Time) < 2*delay {
			continue
		}
		shared++
		together := 0
		for _, before := range sends[:i+1] {
			if before.ChannelID == s.ChannelID && s.Time.Sub(before.Time) < delay {
				together++
			}
		}
		if together > quarter {
			t.Fatalf("channel %s has %d calls in flight while another wants some, want at most %d", s.ChannelID, together, quarter)
		}
	}
	if shared < 10 {
		t.Errorf("only %d calls were made while both channels had more: it shows nothing", shared)
	}
}
