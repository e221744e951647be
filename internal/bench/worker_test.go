package bench_test

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// worker is the worker as its program runs it. Only rates are off, unless the spec
// has one.
type worker struct {
	nc     *nats.Conn
	seen   *observed
	free   func() // the heap that its program reserves
	cancel context.CancelFunc
	done   chan error
}

func newWorker(s spec) (role, error) {
	nc, err := nats.Connect(s.NATS)
	if err != nil {
		return nil, err
	}
	seen, err := observe()
	if err != nil {
		return nil, err
	}
	accounts := make([]sender.Config, s.Accounts)
	for i := range accounts {
		accounts[i] = sender.Config{
			Account: account(i), APIKey: "key of " + account(i), APIURL: s.Vendor, Worker: "bench", Limits: limits(s),
			Rate: s.Rate,
		}
	}
	run, err := sender.New(sender.Options{NATS: nc, Accounts: accounts, Log: seen.log, Meter: seen.Meter, Tracer: seen.Tracer})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &worker{nc: nc, seen: seen, free: daemon.ReserveHeap(), cancel: cancel, done: make(chan error, 1)}
	go func() { w.done <- run.Run(ctx) }() // stop waits for it
	return w, nil
}

// limits are as small as the run allows, since the server reserves them.
func limits(s spec) queue.Limits {
	n := int64(s.Messages)
	return queue.Limits{CommandBytes: 64<<20 + 1024*n, RecordBytes: 64<<20 + 4096*n, DeferredBytes: 64 << 20, DeadBytes: 64 << 20}
}

func (w *worker) told() any         { return "" }
func (w *worker) answer(string) any { return nil }

func (w *worker) stop() error {
	w.cancel()
	err := <-w.done
	w.nc.Close()
	w.free()
	return errors.Join(err, w.seen.close())
}
