package bench_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

const latencyPace = 10 * time.Millisecond // 100/s

// BenchmarkLatency measures from just before a command is published to its
// request at the vendor, at the pace that the vendor allows an account.
func BenchmarkLatency(b *testing.B) {
	all := newTable(column{"p50-ms", "%.2f"}, column{"p99-ms", "%.2f"})
	for round := range number(b, "BENCH_ROUNDS", 3) {
		for _, v := range []variant{{floor, "loop", 1, 1}, {"worker", "worker", 1, 1}} {
			b.Run(fmt.Sprintf("round=%d/%s", round+1, v.name), func(b *testing.B) {
				for b.Loop() {
					all.add(b, v.name, latency(b, v))
				}
			})
		}
	}
	all.print("Latency, publish → request at the vendor, 100/s: medians, and the ratio to the loop", floor)
}

func latency(b *testing.B, v variant) []float64 {
	b.Helper()
	n := int(duration(b, "BENCH_LATENCY", 5*time.Second) / latencyPace)
	channels := channelsOf(b)
	s := newScene(b, spec{Accounts: 1, Channels: channels, Messages: n + channels, Stamped: true})
	s.vendor.tell("open")
	s.publish(channels) // opens lanes and connections
	var told string
	p := start(b, v.role, s.spec, &told)
	p.tell("go")
	s.emptied(channels)
	s.vendor.tell("reset")

	s.publishPaced(n, latencyPace, func(i int) string {
		return schema.SendSubject(account(0), schema.KindSend, channelID(i%channels))
	})
	s.emptied(channels + n)
	return s.latencies(n)
}

// latencies are p50 and p99, in milliseconds, of the n commands that were published
// with their time since the vendor was reset.
func (s *scene) latencies(n int) []float64 {
	s.b.Helper()
	var taken []time.Duration
	s.vendor.ask("latency", &taken)
	if len(taken) != n {
		s.b.Fatalf("%d requests at the vendor, want %d", len(taken), n)
	}
	slices.Sort(taken)
	milliseconds := func(percent int) float64 { return float64(taken[(n-1)*percent/100]) / float64(time.Millisecond) }
	return []float64{milliseconds(50), milliseconds(99)}
}

// publishPaced publishes n commands more, one each pace, each with its time.
func (s *scene) publishPaced(n int, pace time.Duration, subject func(i int) string) {
	s.b.Helper()
	ctx, cancel := context.WithTimeout(s.b.Context(), sceneWait)
	defer cancel()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for i := range n {
		<-tick.C
		stamped := fmt.Sprintf("%s%d %s", stampPrefix, time.Now().UnixNano(), text())
		if _, err := s.js.Publish(ctx, subject(i), s.command(stamped)); err != nil {
			s.b.Fatal(err)
		}
	}
}
