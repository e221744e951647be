// Package bench measures the worker beside a loop that promises nothing, on
// the same machine, in the same minutes. It is a module of its own, so that
// what it is compared with is no dependency of the project.
//
//	make bench                                    # everything, about six minutes
//	go test -run '^$' -bench Send -benchtime 1x   # one of them
//
// What they show, each beside what it is compared with:
//
//	Send        throughput and CPU of a queue of commands: the worker, the loop, Watermill
//	Latency     publish → request at the vendor, at 100/s: the worker, the loop
//	Webhooks    items stored: ingest, a bare handler
//	Stuck       a healthy channel alone, and beside 50 blocked ones with very many
//	            commands, all older or between its own: throughput, latency, memory
//	Priority    latency of transactional commands alone, and while bulk commands of the
//	            same channel are carried out as fast as may be, by a vendor that takes 20 ms
//	IdleLanes   CPU and memory of a worker with many lanes and nothing to do
//
// Stuck with a million commands (`make bench-million`) takes about six minutes and
// 1 GB of disk in the system's folder for temporary files. It runs twice: as fast as
// the machine can, with 100,000 commands of the healthy channel, and at the rate
// that the vendor allows. Where the blocked commands lie between the healthy ones, the
// server reads past each of them once, less than a second of CPU for a million: what a
// message bears of it depends on how many healthy ones share it.
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
//	BENCH_ROUNDS    3        rounds of all but IdleLanes
//	BENCH_MESSAGES  20000    commands of one run of Send (twice that for 20 accounts),
//	                         and those of the healthy channel of Stuck
//	BENCH_CHANNELS  64       channels of each account, in Send and Latency
//	BENCH_LATENCY   5s       of publishing 100/s, in each round of Latency, Stuck and Priority
//	BENCH_EVENTS    10000    webhook items of one run of Webhooks
//	BENCH_LANES     1000     idle lanes
//	BENCH_IDLE      10s      of watching them
//	BENCH_BACKLOG   100000   commands of the blocked channels of Stuck
//	BENCH_RATE      (none)   of the account in Stuck, such as 500/5s
//	BENCH_BULK      20000    bulk commands of Priority
//	BENCH_PROFILE   (none)   a folder for CPU and allocation profiles of every process
package bench
