package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
)

// journal notes what tasks do, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) check(t *testing.T, want ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Equal(j.lines, want) {
		t.Errorf("journal = %q, want %q", j.lines, want)
	}
}

// obedient is a task that stops after a while when it is told to.
func (j *journal) obedient(name string, after time.Duration, err error) daemon.Task {
	return daemon.NewTask(name, func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(after)
		j.note(name + " stopped")
		return err
	}, nil)
}

// inBackground runs the group in a bubble; the channel has its result.
func inBackground(ctx context.Context, g *daemon.Group) <-chan error {
	result := make(chan error, 1)
	go func() { result <- g.Run(ctx) }()
	synctest.Wait()
	return result
}

func TestGroupStopsInReverseOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := daemon.NewGroup(zerolog.Nop())
		g.Add(j.obedient("first", time.Second, nil), 0)
		g.Add(j.obedient("second", 5*time.Second, nil), 0)
		g.Add(j.obedient("third", 9*time.Second, context.Canceled), 0)
		ctx, cancel := context.WithCancel(t.Context())
		result := inBackground(ctx, g)
		begin := time.Now()
		cancel()
		if err := <-result; err != nil {
			t.Errorf("Run: %v", err)
		}
		j.check(t, "third stopped", "second stopped", "first stopped")
		if got, want := time.Since(begin), 15*time.Second; got != want {
			t.Errorf("stopping took %v, want %v: one after the other", got, want)
		}
	})
}

func TestGroupEndsWithItsFirstTask(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, tc := range []struct {
		name string
		run  func() error
		want error
	}{
		{"failed", func() error { return broken }, broken},
		{"done", func() error { return nil }, nil},
		{"cancelled, but not by us", func() error { return context.Canceled }, context.Canceled},
		{"panicked", func() error { panic("canary") }, daemon.ErrPanic},
		{"panicked in the runtime", func() error { var s []int; return errors.New(string(rune(s[0]))) }, daemon.ErrPanic},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				var j journal
				g := daemon.NewGroup(zerolog.New(&log))
				g.Add(j.obedient("first", 0, errors.New("a later error")), 0)
				g.Add(daemon.NewTask("odd", func(context.Context) error {
					time.Sleep(time.Minute)
					return tc.run()
				}, nil), 0)
				g.Add(j.obedient("third", 0, nil), 0)
				err := g.Run(t.Context())
				if tc.want == nil {
					if err == nil || err.Error() != "first: a later error" {
						t.Errorf("Run: %v, want that of the task that stopped badly", err)
					}
				} else if !errors.Is(err, tc.want) || !strings.HasPrefix(err.Error(), "odd: ") {
					t.Errorf("Run: %v, want odd: %v", err, tc.want)
				}
				j.check(t, "third stopped", "first stopped")
				if strings.Contains(log.String()+err.Error(), "canary") {
					t.Error("the panic's value is told")
				}
				if got, want := strings.Contains(log.String(), `"stack"`), errors.Is(tc.want, daemon.ErrPanic); got != want {
					t.Errorf("stack in the log = %t, want %t", got, want)
				}
			})
		})
	}
}

func TestGroupGivesUpOnAStubbornTask(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var j journal
		g := daemon.NewGroup(zerolog.Nop())
		g.Add(j.obedient("first", 0, nil), 0)
		g.Add(daemon.NewTask("stubborn", func(context.Context) error {
			<-release
			return nil
		}, nil), 3*time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		result := inBackground(ctx, g)
		begin := time.Now()
		cancel()
		err := <-result
		if !errors.Is(err, daemon.ErrBudget) || !strings.Contains(err.Error(), "stubborn") {
			t.Errorf("Run: %v, want %v of the stubborn task", err, daemon.ErrBudget)
		}
		if got, want := time.Since(begin), 3*time.Second; got != want {
			t.Errorf("gave up after %v, want %v", got, want)
		}
		j.check(t, "first stopped")
		close(release)
	})
}

func TestGroupStoppedBeforeStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g := daemon.NewGroup(zerolog.Nop())
	g.Add(daemon.NewTask("never", func(context.Context) error {
		t.Error("the task ran")
		return nil
	}, nil), 0)
	if err := g.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := g.Run(t.Context()); !errors.Is(err, daemon.ErrReused) {
		t.Errorf("second Run: %v, want %v", err, daemon.ErrReused)
	}
}

func TestGroupRunsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := daemon.NewGroup(zerolog.Nop())
		g.Add(new(journal).obedient("only", 0, nil), 0)
		ctx, cancel := context.WithCancel(t.Context())
		result := inBackground(ctx, g)
		if err := g.Run(ctx); !errors.Is(err, daemon.ErrReused) {
			t.Errorf("Run while running: %v, want %v", err, daemon.ErrReused)
		}
		cancel()
		if err := <-result; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestGroupKeepsTheContextsValues(t *testing.T) {
	t.Parallel()
	type key struct{}
	g := daemon.NewGroup(zerolog.Nop())
	g.Add(daemon.NewTask("only", func(ctx context.Context) error {
		if ctx.Value(key{}) != "value" {
			t.Error("the context's value is gone")
		}
		return nil
	}, nil), 0)
	if err := g.Run(context.WithValue(t.Context(), key{}, "value")); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestGroupStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		waiting := errors.New("waiting for NATS")
		g := daemon.NewGroup(zerolog.Nop())
		g.Add(new(journal).obedient("plain", time.Second, nil), 0)
		g.Add(daemon.NewTask("slow", func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		}, func() error {
			mu.Lock()
			defer mu.Unlock()
			return waiting
		}), 0)
		check := func(when string, plain, slow string) {
			t.Helper()
			want := []daemon.Status{
				{Name: "plain", Ready: plain == "", Reason: plain},
				{Name: "slow", Ready: slow == "", Reason: slow},
			}
			if got := g.Status(); !slices.Equal(got, want) {
				t.Errorf("%s: status = %v, want %v", when, got, want)
			}
		}
		check("before", "not started", "not started")
		ctx, cancel := context.WithCancel(t.Context())
		result := inBackground(ctx, g)
		check("while one waits", "", "waiting for NATS")
		mu.Lock()
		waiting = nil
		mu.Unlock()
		check("running", "", "")
		cancel()
		synctest.Wait()
		check("stopping", "stopping", "stopping")
		if err := <-result; err != nil {
			t.Errorf("Run: %v", err)
		}
		check("stopped", "stopping", "stopping")
	})
}

func TestGroupStopsAtAnyMoment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for moment := range 12 {
			var j journal
			g := daemon.NewGroup(zerolog.Nop())
			g.Add(j.obedient("first", 2*time.Second, nil), 0)
			g.Add(daemon.NewTask("waits in steps", func(ctx context.Context) error {
				for {
					select {
					case <-ctx.Done():
						j.note("waits in steps stopped")
						return ctx.Err()
					case <-time.After(time.Second):
					}
				}
			}, nil), 0)
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(moment)*500*time.Millisecond)
			if err := g.Run(ctx); err != nil {
				t.Errorf("after %d half seconds: %v", moment, err)
			}
			cancel()
			if moment == 0 {
				j.check(t)
			} else {
				j.check(t, "waits in steps stopped", "first stopped")
			}
		}
	})
}
