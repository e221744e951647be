package relay

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/telemetry"
)

// telemetryGrace is how long the last spans may take to be sent.
const telemetryGrace = 5 * time.Second

// Program is a built program: tasks that wait to be run, and what was opened for
// them. It is a [daemon.Task] itself, so that several can be one process.
type Program struct {
	name    string
	log     zerolog.Logger
	group   *daemon.Group
	budget  time.Duration
	closers []func() // of a program that is never run; last opened, first closed
}

func newProgram(name string, log zerolog.Logger) *Program {
	return &Program{name: name, log: log, group: daemon.NewGroup(log)}
}

// add appends a task that others after it need.
func (p *Program) add(task daemon.Task, budget time.Duration) {
	p.group.Add(task, budget)
	p.budget += budget
}

// opened notes how to undo what was opened for a task.
func (p *Program) opened(undo func()) { p.closers = append(p.closers, undo) }

// Close frees what was opened for a program that will not be run.
func (p *Program) Close() {
	for _, undo := range slices.Backward(p.closers) {
		undo()
	}
	p.closers = nil
}

// Name is the program's name.
func (p *Program) Name() string { return p.name }

// Budget is how long stopping may take.
func (p *Program) Budget() time.Duration { return p.budget }

// Status tells of every task whether it is ready, in the order of their start.
func (p *Program) Status() []daemon.Status { return p.group.Status() }

// Ready is nil when every task is ready, or else the first reason.
func (p *Program) Ready() error {
	for _, s := range p.Status() {
		if !s.Ready {
			return errors.New(s.Name + ": " + s.Reason)
		}
	}
	return nil
}

// Run runs the tasks until ctx ends or one of them fails, and stops them in
// reverse order.
func (p *Program) Run(ctx context.Context) error {
	p.log.Info().Str("version", version()).Msg("starting")
	err := p.group.Run(ctx)
	p.log.Info().Msg("stopped")
	return err
}

// telemetryTask ends telemetry when everything that reports has stopped.
func telemetryTask(t *telemetry.Telemetry, log zerolog.Logger) daemon.Task {
	return daemon.NewTask("telemetry", func(ctx context.Context) error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), telemetryGrace)
		defer cancel()
		if err := t.Shutdown(grace); err != nil { // a collector that is away is no fault of ours
			log.Warn().Err(err).Msg("telemetry was not sent to the end")
		}
		return nil
	}, nil)
}

// version is the module's version, as the linker knows it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}

// addressFault makes a listen error name its setting.
type addressFault struct {
	variable string
	err      error
}

func (f *addressFault) Error() string { return f.variable + ": " + f.err.Error() }
func (f *addressFault) Unwrap() error { return f.err }
