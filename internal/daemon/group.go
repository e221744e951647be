package daemon

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// DefaultBudget is how long a task may take to stop if [Group.Add] was told
// nothing else.
const DefaultBudget = 10 * time.Second

var (
	// ErrBudget: a task was told to stop and did not within its budget.
	ErrBudget = errors.New("task did not stop within its budget")
	// ErrPanic: a task panicked.
	ErrPanic = errors.New("task panicked")
	// ErrReused: a group runs once.
	ErrReused = errors.New("group was run before")
)

// Task is a part of a program that runs as long as the program does.
type Task interface {
	// Name is one word for logs and /readyz.
	Name() string
	// Run works until ctx ends, then stops in an orderly way and returns nil.
	// Returning before that, with or without an error, ends the whole group.
	Run(ctx context.Context) error
	// Ready returns nil when the task does its work, or else why it cannot: a
	// text for operators, without secrets or personal data. It is called from
	// any goroutine while Run runs, and must not block.
	Ready() error
}

// NewTask makes a task of two functions; ready may be nil for one that is
// ready as soon as it runs.
func NewTask(name string, run func(ctx context.Context) error, ready func() error) Task {
	return funcTask{name: name, run: run, ready: ready}
}

type funcTask struct {
	name  string
	run   func(ctx context.Context) error
	ready func() error
}

func (t funcTask) Name() string                  { return t.name }
func (t funcTask) Run(ctx context.Context) error { return t.run(ctx) }

func (t funcTask) Ready() error {
	if t.ready == nil {
		return nil
	}
	return t.ready()
}

// Group runs tasks together. Tasks that others need are added first, so that
// they stop last.
type Group struct {
	log   zerolog.Logger
	tasks []*member

	mu    sync.Mutex
	phase phase // guarded by mu
}

type phase int

const (
	notStarted phase = iota
	running
	stopping
)

// member is a task in its group.
type member struct {
	Task
	budget time.Duration
	cancel context.CancelFunc
	ended  chan struct{} // closed when Run has returned
	err    error         // of Run; written before ended is closed
}

// NewGroup makes an empty group.
func NewGroup(log zerolog.Logger) *Group { return &Group{log: log} }

// Add appends a task that may take budget to stop; 0 = [DefaultBudget]. All
// tasks are added before Run.
func (g *Group) Add(task Task, budget time.Duration) {
	if budget == 0 {
		budget = DefaultBudget
	}
	g.tasks = append(g.tasks, &member{Task: task, budget: budget, ended: make(chan struct{})})
}

// Run starts all tasks at once and blocks until ctx ends or a task returns;
// then it stops them one after the other, the last one first, each within its
// budget. It returns the first error; a task that outlives its budget is given
// up, since the process is about to end. The end of ctx is no error. A group
// whose ctx has ended already starts nothing.
func (g *Group) Run(ctx context.Context) error {
	if !g.enter(running) {
		return ErrReused
	}
	select {
	case <-ctx.Done():
		g.enter(stopping)
		return nil
	default:
	}
	first := make(chan *member, len(g.tasks))
	for _, m := range g.tasks {
		g.start(ctx, m, first)
	}
	var errs errorList
	select {
	case <-ctx.Done():
	case m := <-first:
		errs.add(m.result())
		g.log.Info().Str("task", m.Name()).Msg("task has ended, stopping the others")
	}
	g.enter(stopping)
	for _, m := range slices.Backward(g.tasks) {
		errs.add(g.stop(m))
	}
	return errs.first
}

// errorList keeps the first error.
type errorList struct{ first error }

func (l *errorList) add(err error) {
	if l.first == nil {
		l.first = err
	}
}

func (g *Group) enter(next phase) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if next <= g.phase {
		return false
	}
	g.phase = next
	return true
}

// start gives the task a context that keeps the values of ctx but not its end:
// the order of stopping is the group's.
func (g *Group) start(ctx context.Context, m *member, first chan<- *member) {
	ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer func() {
			close(m.ended)
			first <- m
		}()
		m.err = g.guard(ctx, m)
	}()
}

// guard runs the task and turns a panic into an error, so that the others can
// stop in order. The value may quote a message, so only one that the runtime
// made is told.
func (g *Group) guard(ctx context.Context, m *member) (err error) {
	defer func() {
		switch value := recover().(type) {
		case nil:
		case runtime.Error:
			err = fmt.Errorf("%w: %w", ErrPanic, value)
		default:
			err = fmt.Errorf("%w with a value of type %T", ErrPanic, value)
		}
		if errors.Is(err, ErrPanic) {
			g.log.Error().Str("task", m.Name()).Bytes("stack", debug.Stack()).Msg("task panicked")
		}
	}()
	return m.Run(ctx)
}

// stop ends one task and waits for it.
func (g *Group) stop(m *member) error {
	m.cancel()
	budget := time.NewTimer(m.budget)
	defer budget.Stop()
	select {
	case <-m.ended:
		if errors.Is(m.err, context.Canceled) {
			return nil // it passes on the end of its own context
		}
		return m.result()
	case <-budget.C:
		return fmt.Errorf("%s: %w of %v", m.Name(), ErrBudget, m.budget)
	}
}

// result is the task's error, once it has ended.
func (m *member) result() error {
	if m.err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", m.Name(), m.err)
}

// Status is one task's readiness.
type Status struct {
	Name   string `json:"name"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"` // why it is not
}

// Status tells of every task whether it is ready, in the order of Add. While
// the group stops, none is: whoever sends us work should stop.
func (g *Group) Status() []Status {
	g.mu.Lock()
	phase := g.phase
	g.mu.Unlock()
	all := make([]Status, len(g.tasks))
	for i, m := range g.tasks {
		reason := m.reason(phase)
		all[i] = Status{Name: m.Name(), Ready: reason == "", Reason: reason}
	}
	return all
}

func (m *member) reason(p phase) string {
	switch p {
	case notStarted:
		return "not started"
	case stopping:
		return "stopping"
	case running:
	}
	select {
	case <-m.ended:
		return "ended"
	default:
	}
	if err := m.Ready(); err != nil {
		return err.Error()
	}
	return ""
}
