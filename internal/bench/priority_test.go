package bench_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// vendorDelay is what the vendor usually takes to answer.
const vendorDelay = 20 * time.Millisecond

// BenchmarkPriority measures transactional commands of a channel at 100/s, while
// very many bulk commands of the same channel are carried out as fast as the
// account's calls in flight allow, beside what they are alone.
func BenchmarkPriority(b *testing.B) {
	all := newTable(column{"p50-ms", "%.2f"}, column{"p99-ms", "%.2f"}, column{"bulk/s", "%.0f"})
	n := number(b, "BENCH_BULK", 20_000)
	for round := range number(b, "BENCH_ROUNDS", 3) {
		for _, bulk := range []int{0, n} {
			name := fmt.Sprintf("bulk=%d", bulk)
			b.Run(fmt.Sprintf("round=%d/%s", round+1, name), func(b *testing.B) {
				for b.Loop() {
					all.add(b, name, beside(b, bulk))
				}
			})
		}
	}
	all.print("Transactional commands beside bulk ones of their channel, publish → request at the vendor: medians, and the ratio to them alone", "bulk=0")
}

func beside(b *testing.B, bulk int) []float64 {
	b.Helper()
	n := int(duration(b, "BENCH_LATENCY", 5*time.Second) / latencyPace)
	s := newScene(b, spec{Accounts: 1, Messages: bulk + n + 1, Listed: 1, Delay: vendorDelay, Stamped: true})
	s.vendor.tell("open")
	var told string
	start(b, "worker", s.spec, &told)
	subject := func(k schema.Kind) func(int) string {
		return func(int) string { return schema.SendSubject(account(0), k, channelID(0)) }
	}
	s.store(1, subject(schema.KindSend)) // the lane is open once it was sent
	s.emptied(1)
	s.vendor.tell("reset")

	s.store(bulk, subject(schema.KindBulk))
	before, began := s.requests(), time.Now()
	s.publishPaced(n, latencyPace, subject(schema.KindSend))
	s.until("the last transactional event", func() bool { return s.sent() == n+1 })
	took := time.Since(began).Seconds()
	if bulk > 0 && s.commands() == 0 {
		b.Fatalf("%d bulk commands were carried out before the transactional ones: more are needed", bulk)
	}
	return append(s.latencies(n), float64(s.requests()-before-n)/took)
}
