package bench_test

import (
	"context"
	"errors"
	"os"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/telemetry"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// worker is the worker as its program runs it: every promise on, its metrics
// counted, its log line of each call written (to nowhere). Only rates are off.
type worker struct {
	nc     *nats.Conn
	log    *os.File
	cancel context.CancelFunc
	done   chan error
}

func newWorker(s spec) (role, error) {
	nc, err := nats.Connect(s.NATS)
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	log, err := daemon.NewLogger("info", daemon.FormatJSON, null)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	tel, err := telemetry.Setup(ctx, telemetry.Config{Service: "bench", Log: log})
	if err != nil {
		cancel()
		return nil, err
	}
	accounts := make([]sender.Config, s.Accounts)
	for i := range accounts {
		accounts[i] = sender.Config{
			Account: account(i), APIKey: "key of " + account(i), APIURL: s.Vendor, Worker: "bench", Limits: limits(s),
		}
	}
	run, err := sender.New(sender.Options{NATS: nc, Accounts: accounts, Log: log, Meter: tel.Meter, Tracer: tel.Tracer})
	if err != nil {
		cancel()
		return nil, err
	}
	w := &worker{nc: nc, log: null, cancel: cancel, done: make(chan error, 1)}
	go func() { w.done <- run.Run(ctx) }()
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
	return errors.Join(err, w.log.Close())
}
