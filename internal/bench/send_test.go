package bench_test

import (
	"fmt"
	"testing"
	"time"
)

// variant is one way to carry commands to the vendor.
type variant struct {
	name     string
	role     string
	accounts int
	scale    int // of the number of messages
}

const floor = "loop"

func variants() []variant {
	return []variant{
		{floor, "loop", 1, 1},
		{"watermill", "watermill", 1, 1},
		{"worker/1x64", "worker", 1, 1},
		{"worker/20x64", "worker", 20, 2},
	}
}

// channelsOf is the number of channels of each account.
func channelsOf(b *testing.B) int { b.Helper(); return number(b, "BENCH_CHANNELS", 64) }

// BenchmarkSend measures how fast a queue of commands is carried out, and what
// that costs. Everything is published, connected and its lanes are open before
// the clock starts, with the first request at the vendor; it runs until the last
// answer is stored and the last command acknowledged.
func BenchmarkSend(b *testing.B) {
	all := newTable(
		column{"msgs/s", "%.0f"}, column{"cpu-s/1k", "%.4f"}, column{"server-cpu-s/1k", "%.4f"}, column{"MB-rss", "%.0f"})
	for round := range number(b, "BENCH_ROUNDS", 3) {
		for _, v := range variants() {
			b.Run(fmt.Sprintf("round=%d/%s", round+1, v.name), func(b *testing.B) {
				for b.Loop() {
					all.add(b, v.name, send(b, v))
				}
			})
		}
	}
	all.print("Send: medians, and the ratio to the loop", floor)
}

func send(b *testing.B, v variant) []float64 {
	b.Helper()
	n := number(b, "BENCH_MESSAGES", 20_000) * v.scale
	s := newScene(b, spec{Accounts: v.accounts, Channels: channelsOf(b), Messages: n})
	var told string
	var p *process
	if v.role == "worker" {
		// It finds its lanes by the commands that wait; the vendor's refusal of
		// the key keeps it from pulling any.
		p = start(b, v.role, s.spec, &told)
		s.refused()
		s.publish(n)
		s.lanes(channelsOf(b))
		s.untouched()
	} else {
		s.publish(n)
		p = start(b, v.role, s.spec, &told)
	}
	s.vendor.tell("open")
	p.tell("go")

	var began int64
	s.vendor.ask("first", &began)
	before, serverBefore := p.usage(), s.server.usage()
	s.emptied(n)
	took := time.Since(time.Unix(0, began)).Seconds()
	after, serverAfter := p.usage(), s.server.usage()

	if requests := s.requests(); requests != n {
		b.Fatalf("%d requests at the vendor, want %d", requests, n)
	}
	per1k := func(from, to usage) float64 { return (to.CPU - from.CPU).Seconds() / float64(n) * 1000 }
	return []float64{float64(n) / took, per1k(before, after), per1k(serverBefore, serverAfter), mebibytes(after.MaxRSS)}
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }
