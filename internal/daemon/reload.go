package daemon

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Reload is a task that calls a function for each SIGHUP, one at a time. Signals
// that come while it is under way are one.
type Reload struct {
	signals chan os.Signal
	reload  func()
}

// NewReload makes the task. From now on SIGHUP no longer ends the process, which
// would be its way: neither before the task runs nor, since a program that stops
// in order must not be cut off, after it has ended.
func NewReload(reload func()) *Reload {
	r := &Reload{signals: make(chan os.Signal, 1), reload: reload}
	signal.Notify(r.signals, syscall.SIGHUP)
	return r
}

// Close has SIGHUP end the process again, for a task that will not be run.
func (r *Reload) Close() { signal.Stop(r.signals) }

// Name is the task's name.
func (r *Reload) Name() string { return "reload" }

// Ready is always nil: a configuration that was refused leaves the one before.
func (r *Reload) Ready() error { return nil }

// Run reloads whenever it is told to, until ctx ends.
func (r *Reload) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.signals:
			r.reload()
		}
	}
}
