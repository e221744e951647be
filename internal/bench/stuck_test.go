package bench_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const blockedChannels = 50

// layout is where the commands of blocked channels lie in the stream, as seen from
// those of the healthy one.
type layout string

const (
	alone       layout = "alone"       // there are none
	behind      layout = "behind"      // all are older
	interleaved layout = "interleaved" // evenly between, and more arrive all the time
)

// BenchmarkStuck measures a healthy channel beside fifty blocked ones with very
// many commands stuck behind them: its throughput, what a message costs worker and
// server together, its latency at 100/s, and the worker's memory, each beside what
// it is alone.
//
// Where the blocked commands lie between the healthy ones, the server reads past
// each of them once. So the fewer healthy ones share that pass, the more of it each
// of them bears.
func BenchmarkStuck(b *testing.B) {
	all := newTable(column{"msgs/s", "%.0f"}, column{"cpu-s/1k", "%.4f"}, column{"p50-ms", "%.2f"}, column{"p99-ms", "%.2f"},
		column{"MB-rss", "%.0f"}, column{"server-MB-rss", "%.0f"})
	n, healthy := number(b, "BENCH_BACKLOG", 100_000), number(b, "BENCH_MESSAGES", 20_000)
	limit := allowed(b, "BENCH_RATE")
	for round := range number(b, "BENCH_ROUNDS", 3) {
		for _, where := range []layout{alone, behind, interleaved} {
			b.Run(fmt.Sprintf("round=%d/%s", round+1, where), func(b *testing.B) {
				for b.Loop() {
					all.add(b, string(where), stuck(b, where, n, healthy, limit))
				}
			})
		}
	}
	all.print(fmt.Sprintf("A healthy channel with %d commands beside %d blocked ones with %d, rate %s: medians, and the ratio to it alone",
		healthy, blockedChannels, n, limit), string(alone))
}

func stuck(b *testing.B, where layout, n, healthy int, limit rate.Rate) []float64 {
	b.Helper()
	if where == alone {
		n = 0
	}
	pace := latencyPace
	if !limit.IsZero() {
		pace = 2 * latencyPace // within the rate, so that nothing queues up behind it
	}
	paced := int(duration(b, "BENCH_LATENCY", 5*time.Second) / pace)
	blocked := blockedChannels
	if where == alone {
		blocked = 0
	}
	s := newScene(b, spec{
		Rate:     limit,
		Accounts: 1, Messages: n + healthy + 2*paced,
		Listed: blocked + 1, Blocked: blocked, Stamped: true,
	})
	var told string
	s.vendor.tell("open")
	p := start(b, "worker", s.spec, &told)
	s.lane("pause") // until all is there
	s.store(n+healthy, func(i int) string {
		if where == interleaved && i*healthy/(n+healthy) < (i+1)*healthy/(n+healthy) || where != interleaved && i >= n {
			return healthySubject()
		}
		return blockedSubject(i)
	})
	if left := s.commands(); left != n+healthy {
		b.Fatalf("%d commands are stored, want %d", left, n+healthy)
	}
	s.asleep()
	s.untouched()
	s.lane("resume")

	var began int64
	s.vendor.ask("first", &began)
	before := p.usage().CPU + s.server.usage().CPU
	s.emptiedBut(uint64(n), healthy) //nolint:gosec // not negative
	took := time.Since(time.Unix(0, began)).Seconds()
	cpu := p.usage().CPU + s.server.usage().CPU - before

	time.Sleep(limit.Per) // the window that was just used up is what would be measured
	s.vendor.tell("reset")
	s.publishPaced(paced, pace, func(i int) string {
		if where == interleaved {
			s.publishAsync(blockedSubject(i))
		}
		return healthySubject()
	})
	s.until("the last events", func() bool { return s.sent() == healthy+paced })
	figures := []float64{float64(healthy) / took, cpu.Seconds() / float64(healthy) * 1000}
	figures = append(figures, s.latencies(paced)...)
	return append(figures, mebibytes(p.usage().RSS), mebibytes(s.server.usage().RSS))
}

func healthySubject() string {
	return schema.SendSubject(account(0), schema.KindSend, channelID(0))
}

func blockedSubject(i int) string {
	return schema.SendSubject(account(0), schema.KindSend, channelID(1+i%blockedChannels))
}

// lane pauses or resumes the healthy channel's lane.
func (s *scene) lane(what string) {
	s.b.Helper()
	request := fmt.Appendf(nil, `{"channelId":%q,"class":"send"}`, channelID(0))
	s.until("the lane to "+what, func() bool {
		reply, err := s.js.Conn().Request(schema.APISubject(account(0), "lane."+what), request, sceneWait)
		if errors.Is(err, nats.ErrNoResponders) { // the worker is on its way
			return false
		}
		if err != nil || reply.Header.Get(micro.ErrorCodeHeader) != "" {
			s.b.Fatalf("lane.%s: %v %v", what, err, reply)
		}
		return true
	})
}

// asleep waits until no lane of a channel has a consumer: all are closed, and have
// been for a while.
func (s *scene) asleep() {
	s.b.Helper()
	stream := queue.Names{Account: account(0)}.Commands()
	s.until("the closed lanes to sleep", func() bool { return s.info(stream).State.Consumers == syncLanes })
}
