package daemon_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
)

// asProgram makes the test binary a program whose main function is
// daemon.Main, so that signals meet a real process.
const asProgram = "WAZZUP_DAEMON_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if mode, ok := os.LookupEnv(asProgram); ok {
		os.Exit(daemon.Main(func(ctx context.Context, _ []string, _ func(string) string, stdout, _ io.Writer) error {
			_, _ = fmt.Fprintln(stdout, "started")
			<-ctx.Done()
			_, _ = fmt.Fprintln(stdout, context.Cause(ctx))
			if mode == "stubborn" {
				select {}
			}
			return nil
		}))
	}
	goleak.VerifyTestMain(m)
}

func TestMainExitCode(t *testing.T) {
	t.Parallel()
	configFaults := errors.Join(
		&daemon.ConfigFault{Variable: "NATS_CA", Err: errors.New("not there")},
		&daemon.ConfigFault{Variable: "NATS_KEY", Err: errors.New("missing")},
	)
	for _, tc := range []struct {
		name   string
		signal bool
		err    error
		code   int
		stderr string
	}{
		{name: "done", code: 0},
		{name: "failed", err: errors.New("no luck"), code: 1, stderr: "relay: no luck\n"},
		{name: "signal", signal: true, code: 0},
		{name: "signal, context's end passed on", signal: true, err: context.Canceled, code: 0},
		{name: "signal, then failed", signal: true, err: errors.New("no luck"), code: 1, stderr: "relay: no luck\n"},
		{name: "cancelled for another reason", err: context.Canceled, code: 1, stderr: "relay: context canceled\n"},
		{name: "configuration", err: configFaults, code: 2, stderr: "relay: NATS_CA: not there\nrelay: NATS_KEY: missing\n"},
		{name: "wrapped configuration", err: fmt.Errorf("start: %w", configFaults), code: 2, stderr: "relay: start: NATS_CA: not there\nrelay: NATS_KEY: missing\n"},
		{name: "a list", err: errors.New("relay: 2 faults:\n  A: x\n  B: y"), code: 1, stderr: "relay: 2 faults:\n  A: x\n  B: y\n"},
		{name: "own exit code", err: exitCode(3), code: 3, stderr: "relay: exit\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			signals := make(chan os.Signal, 1)
			run := func(ctx context.Context, args []string, _ func(string) string, _, _ io.Writer) error {
				if got, want := strings.Join(args, " "), "a b"; got != want {
					t.Errorf("args = %q, want %q", got, want)
				}
				if tc.signal {
					signals <- syscall.SIGTERM
					<-ctx.Done()
					if cause := context.Cause(ctx); !errors.Is(cause, daemon.ErrSignal) {
						t.Errorf("cause = %v, want %v", cause, daemon.ErrSignal)
					}
				}
				return tc.err
			}
			var stderr bytes.Buffer
			got := daemon.RunMain(run, []string{"/usr/bin/relay", "a", "b"}, &stderr, signals, func(code int) {
				t.Errorf("exit(%d) in the middle", code)
			})
			if got != tc.code {
				t.Errorf("code = %d, want %d", got, tc.code)
			}
			if stderr.String() != tc.stderr {
				t.Errorf("stderr = %q, want %q", &stderr, tc.stderr)
			}
		})
	}
}

type exitCode int

func (exitCode) Error() string   { return "exit" }
func (c exitCode) ExitCode() int { return int(c) }

func TestSecondSignalEndsTheProcess(t *testing.T) {
	t.Parallel()
	signals := make(chan os.Signal, 2)
	signals <- os.Interrupt
	signals <- os.Interrupt
	exited := make(chan int)
	daemon.RunMain(func(context.Context, []string, func(string) string, io.Writer, io.Writer) error {
		if got := <-exited; got != daemon.ExitFailed {
			t.Errorf("exit code = %d, want %d", got, daemon.ExitFailed)
		}
		return nil
	}, nil, io.Discard, signals, func(code int) { exited <- code })
}

func TestSignalsOfAProcess(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, mode string
		signals    []os.Signal
		code       int
	}{
		{"SIGTERM", "polite", []os.Signal{syscall.SIGTERM}, 0},
		{"SIGINT", "polite", []os.Signal{os.Interrupt}, 0},
		{"SIGTERM twice", "stubborn", []os.Signal{syscall.SIGTERM, syscall.SIGTERM}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), asProgram+"="+tc.mode)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stdout)
			for _, sig := range tc.signals { // one for each line that it says
				if !lines.Scan() {
					t.Fatalf("the program said nothing: %v", lines.Err())
				}
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			for lines.Scan() {
			}
			_ = cmd.Wait() // the code says it
			if got := cmd.ProcessState.ExitCode(); got != tc.code {
				t.Errorf("exit code = %d, want %d", got, tc.code)
			}
		})
	}
}
