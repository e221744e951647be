package bench_test

import (
	"fmt"
	"testing"
	"time"
)

// settle is how long a worker is left alone before its memory or its idleness
// is looked at.
const settle = 3 * time.Second

// BenchmarkIdleLanes measures a worker with many lanes and nothing to do.
func BenchmarkIdleLanes(b *testing.B) {
	lanes := number(b, "BENCH_LANES", 1000)
	idle := duration(b, "BENCH_IDLE", 10*time.Second)
	all := newTable(column{"worker-core-%", "%.2f"}, column{"server-core-%", "%.2f"}, column{"MB-rss", "%.0f"}, column{"server-MB-rss", "%.0f"})
	name := fmt.Sprintf("lanes=%d", lanes)
	b.Run(name, func(b *testing.B) {
		for b.Loop() {
			// Every listed channel has a transactional lane.
			s := newScene(b, spec{Accounts: 1, Channels: 1, Messages: 1, Listed: lanes})
			s.vendor.tell("open")
			var told string
			p := start(b, "worker", s.spec, &told)
			s.lanes(lanes)
			time.Sleep(settle) // what starting costs is not what idling does

			before, serverBefore, began := p.usage(), s.server.usage(), time.Now()
			time.Sleep(idle) // the interval that is measured
			after, serverAfter, took := p.usage(), s.server.usage(), time.Since(began)
			share := func(from, to usage) float64 { return 100 * (to.CPU - from.CPU).Seconds() / took.Seconds() }
			all.add(b, name, []float64{
				share(before, after), share(serverBefore, serverAfter), mebibytes(after.RSS), mebibytes(serverAfter.RSS),
			})
		}
	})
	all.print("Idle lanes: share of one core, and memory", "")
}
