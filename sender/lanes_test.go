package sender_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// inventChannels gives the vendor n channels more, which the worker has not heard of.
func (r *rig) inventChannels(n int) []string {
	r.t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("b0000000-0000-4000-8000-%012d", i)
		if err := r.sim.SetChannel(simulator.Channel{ChannelID: ids[i], Transport: "whatsapp", PlainID: strconv.Itoa(i), State: simulator.StateActive}); err != nil {
			r.t.Fatal(err)
		}
	}
	return ids
}

// The first command of a lane that nobody knew is found within a second, whenever it
// comes, in either class, as a rule even on a loaded machine.
func TestLaneIsFoundWithinASecond(t *testing.T) {
	t.Parallel()
	const most = time.Second
	r := newRig(t)
	cfg := r.config()
	cfg.ChannelsPoll = time.Hour
	r.start(cfg)
	r.channelsRead()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var took []time.Duration
	for i, channel := range r.inventChannels(8) {
		kind := []schema.Kind{schema.KindSend, schema.KindBulk}[i%2]
		wait := time.NewTimer(time.Duration(random.IntN(50)) * time.Millisecond) // just missed: the one before was found by the last search
		<-wait.C
		r.backlog(kind, channel, 1)
		stored := time.Now()
		r.finals(i + 1)
		sends := r.sim.Sends()
		took = append(took, sends[i].Time.Sub(stored))
	}
	slices.Sort(took)
	t.Logf("found after %v", took)
	if median := took[len(took)/2]; median > most {
		t.Errorf("a lane that just missed a search was found %v after its first command, want %v at most", median, most)
	}
}

// flood publishes very many commands without waiting for each, as backlog does.
func (r *rig) flood(kind schema.Kind, channel string, n int) {
	r.t.Helper()
	for i := range n {
		body := fmt.Appendf(nil, `{"chatType":"whatsapp","chatId":"7900%07d","text":%q}`, i, kind)
		if _, err := r.js.PublishMsgAsync(&nats.Msg{Subject: schema.SendSubject("main", kind, channel), Data: body}, jetstream.WithStallWait(patience)); err != nil {
			r.t.Fatal(err)
		}
	}
	select {
	case <-r.js.PublishAsyncComplete():
	case <-time.After(patience):
		r.t.Fatal("publishing was not acknowledged")
	}
}

// A paced lane pulls what its rate allows and a few more: the rest stays on disk.
func TestPacedLanePullsWhatItsRateAllows(t *testing.T) {
	t.Parallel()
	const many = 2000
	r := newRig(t)
	cfg := r.config()
	cfg.BulkRate = rate.Rate{N: 20, Per: time.Minute}
	r.start(cfg)
	r.channelsRead()
	r.flood(schema.KindBulk, simulator.ChannelWhatsApp, many)
	r.finals(2) // one spacing later
	r.consumers("a few to be pulled", func(all map[string]*jetstream.ConsumerInfo) bool {
		lane := all[laneOf(schema.KindBulk, simulator.ChannelWhatsApp)]
		if lane.Delivered.Consumer > 12 {
			t.Fatalf("%d commands were pulled while two went", lane.Delivered.Consumer)
		}
		return lane.NumPending >= many-12
	})
}

// However many commands a lane has, and however many lanes there are, what is in
// hand is bounded: the backlog stays on disk.
func TestBacklogStaysOnDisk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		lanes, each int
		most        int // in hand, of all lanes together
	}{
		{"one lane", 1, 5000, 300},
		{"many lanes", 200, 256, 200 * 128}, // those that come first ask for more than their part
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.Rate, cfg.ChannelsPoll = rate.Rate{N: 1, Per: time.Hour}, time.Hour // the channel list was all
			for _, channel := range r.inventChannels(tt.lanes) {
				r.flood(schema.KindBulk, channel, tt.each)
			}
			r.start(cfg)
			inHand := func(lanes map[string]*jetstream.ConsumerInfo) (n int) {
				for _, lane := range lanes {
					n += lane.NumAckPending
				}
				if n > tt.most {
					t.Fatalf("%d commands of %d are in hand, want at most %d", n, tt.lanes*tt.each, tt.most)
				}
				return n
			}
			filled := 0 // rounds in which every lane held something, and no more came
			before := 0
			r.consumers("the lanes to hold what they may", func(all map[string]*jetstream.ConsumerInfo) bool {
				n := inHand(all)
				if n == before && n >= tt.lanes {
					filled++
				}
				before = n
				return filled > 20
			})
			t.Logf("%d of %d in hand", before, tt.lanes*tt.each)
		})
	}
}

// A pace that is faster than the vendor answers is used: what is under way does not
// keep the next commands on disk.
func TestPaceIsUsedHoweverSlowTheVendor(t *testing.T) {
	t.Parallel()
	const n, delay = 60, 600 * time.Millisecond
	pace := rate.Rate{N: 40, Per: time.Second}
	r := newRig(t)
	cfg := r.config()
	cfg.SendRate = pace
	r.slow(delay)
	r.backlog(schema.KindSend, simulator.ChannelWhatsApp, n)
	r.start(cfg)
	r.finals(n)
	_, messages := r.requestTimes()
	// As many as the pace allows while one is answered, less the jitter, would be 21.
	together := 0
	for i, at := range messages {
		for before := i; before >= 0 && at.Sub(messages[before]) < delay; before-- {
			together = max(together, i-before+1)
		}
	}
	if together < 12 {
		t.Errorf("at most %d calls were under way together, want the pace to be used", together)
	}
}

// One worker has more lanes than a stream has consumers by default, and all of them
// have something to do.
func TestVeryManyLanes(t *testing.T) {
	t.Parallel()
	const many = 1200
	r := newRig(t)
	r.start(r.config())
	r.channelsRead()
	for _, channel := range r.inventChannels(many) {
		r.flood(schema.KindBulk, channel, 1)
	}
	for _, e := range r.finals(many) {
		if e.State != schema.StateSent {
			t.Fatalf("%s ended %s %+v", e.ChannelID, e.State, e.Error)
		}
	}
	r.emptied()
}
