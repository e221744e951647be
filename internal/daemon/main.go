package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// Run is a whole program as a function, so that tests can call it. args come
// without the program's name. It returns nil once everything is stopped,
// whether by the end of ctx or because it was done.
type Run func(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error

// ErrSignal is the cause of a context that a signal has ended.
var ErrSignal = errors.New("told to stop")

// Main runs a program and returns its exit code, for os.Exit:
//
//   - ExitOK: run returned nil, or its context's own end after a signal.
//   - the error's `ExitCode() int`, where it has one: ExitUsage for faults of
//     the configuration, each of which is printed on a line of its own.
//   - ExitFailed: any other error.
//
// SIGTERM or SIGINT ends the context; a second one ends the process at once,
// with ExitFailed.
func Main(run Run) int {
	signals := make(chan os.Signal, 2) // room for both, so that none is missed
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	return (&program{
		run: run, args: os.Args, getenv: os.Getenv, stdout: os.Stdout, stderr: os.Stderr,
		signals: signals, exit: os.Exit,
	}).main()
}

// program is a Run with everything it takes from the process.
type program struct {
	run            Run
	args           []string // the program's name first
	getenv         func(string) string
	stdout, stderr io.Writer
	signals        <-chan os.Signal
	exit           func(code int)
}

func (p *program) main() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		p.watch(done, cancel)
	}()
	name, args := "", p.args
	if len(args) > 0 {
		name, args = programName(args[0]), args[1:]
	}
	err := p.run(ctx, args, p.getenv, p.stdout, p.stderr)
	stopped := errors.Is(context.Cause(ctx), ErrSignal)
	cancel(nil)
	close(done)
	<-watching
	if err == nil || stopped && errors.Is(err, context.Canceled) {
		return ExitOK
	}
	for _, line := range Faults(err) {
		if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, name+": ") {
			line = name + ": " + line // a list is indented under a line that has it
		}
		// There is nowhere left to tell of a standard error that is closed.
		_, _ = fmt.Fprintln(p.stderr, line)
	}
	return exitCode(err)
}

// watch ends the context on the first signal and the process on the second.
func (p *program) watch(done <-chan struct{}, cancel context.CancelCauseFunc) {
	for first := true; ; first = false {
		select {
		case <-done:
			return
		case sig := <-p.signals:
			if !first {
				p.exit(ExitFailed)
				return
			}
			cancel(fmt.Errorf("%w by %s", ErrSignal, sig))
		}
	}
}

func programName(path string) string {
	return strings.TrimSuffix(path[strings.LastIndexAny(path, `/\`)+1:], ".exe")
}

func exitCode(err error) int {
	if coded, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err); ok {
		return coded.ExitCode()
	}
	return ExitFailed
}

// Faults splits an error into lines: errors.Join, and every error that lists
// faults, puts each on a line of its own.
func Faults(err error) []string {
	return slices.DeleteFunc(strings.Split(err.Error(), "\n"), func(line string) bool {
		return strings.TrimSpace(line) == ""
	})
}
