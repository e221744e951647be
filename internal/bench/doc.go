// Package bench measures the worker beside a loop that promises nothing, on
// the same machine, in the same minutes. It is a module of its own, so that
// what it is compared with is no dependency of the project.
//
//	make bench                                    # everything, about four minutes
//	go test -run '^$' -bench Send -benchtime 1x   # one of them
//
// Every part is a process of its own (this test binary once more), so that its
// CPU time and memory are its own: the NATS server, a vendor that answers at
// once, and what is measured. Nothing is pinned to cores; on a machine with
// more than two, `taskset -c 0,1 make bench` gives figures like a small one's.
//
// Figures of two runs of this program are not comparable, since machines
// drift. What counts is the ratio to the loop of the same run, as the median of
// several rounds that take turns.
//
// Sizes come from the environment:
//
//	BENCH_ROUNDS    3        rounds of Send, Latency and Webhooks
//	BENCH_MESSAGES  20000    commands of one run of Send (twice that for 20 accounts)
//	BENCH_LATENCY   5s       of publishing 100/s, in each round
//	BENCH_EVENTS    10000    webhook items of one run of Webhooks
//	BENCH_LANES     1000     idle lanes
//	BENCH_IDLE      10s      of watching them
//	BENCH_BACKLOG   100000   commands queued behind blocked channels
//	BENCH_PROFILE   (none)   a folder for CPU and allocation profiles of every process
package bench
