package main_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	main "github.com/wazzup-relay/wazzup-relay/cmd/worker"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// What nats-server keeps after a shutdown.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Server).startGoRoutine.func1"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"),
	)
}

const canary = "canary-77ab"

// code is the exit code that an error makes.
func code(err error) int {
	if err == nil {
		return daemon.ExitOK
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return daemon.ExitFailed
}

func TestHelpAndFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		env  map[string]string
		code int
		says []string // on standard output, or in the error
	}{
		{"help", []string{"--help"}, map[string]string{"WAZZUP_API_KEY": canary}, 0, []string{"Usage: worker", "WAZZUP_ACCOUNT_RATE", "500/5s"}},
		{"every fault at once", []string{"--wazzup-timeout", "soon"}, map[string]string{"WAZZUP_ACCOUNT": "A B"}, 2, []string{"3 faults", "--wazzup-timeout", "WAZZUP_ACCOUNT", "WAZZUP_API_KEY"}},
		{"a key as a flag", []string{"--wazzup-api-key=" + canary}, nil, 2, []string{"--wazzup-api-key: is no flag"}},
		{"a key with a line break", nil, map[string]string{"WAZZUP_API_KEY": canary + "\n"}, 2, []string{"line break"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			err := main.Run(t.Context(), tt.args, relaytest.Env(tt.env), &stdout, &stderr)
			if got := code(err); got != tt.code {
				t.Fatalf("exit code = %d, want %d: %v", got, tt.code, err)
			}
			text := stdout.String() + stderr.String()
			if err != nil {
				text += err.Error()
			}
			for _, want := range tt.says {
				if !strings.Contains(text, want) {
					t.Errorf("it does not say %q:\n%s", want, text)
				}
			}
			if strings.Contains(text, canary) {
				t.Errorf("it shows the key:\n%s", text)
			}
		})
	}
}

// TestLife: a worker with a server inside comes up, answers its probes, and ends
// well when it is told to.
func TestLife(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{Keys: []string{canary}})
	ctx, cancel := context.WithCancel(t.Context())
	log := relaytest.NewOutput()
	var stdout bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- main.Run(ctx, []string{"--nats-url=nats://127.0.0.1:0", "--admin-addr", "127.0.0.1:0"}, relaytest.Env(map[string]string{
			"WAZZUP_API_KEY": canary, "WAZZUP_API_URL": sim.URL(), "EMBEDDED_NATS": filepath.Join(t.TempDir(), "nats"), "LOG_LEVEL": "debug",
		}), &stdout, log)
	}()
	addr, _ := log.Logged(t, "admin server is listening", "")["address"].(string)
	relaytest.Readiness(t, addr, 200)
	// The first thing that a worker does with its key is to read the channels.
	if err := sim.Wait(t.Context(), func(v *simulator.View) bool { return v.Finished > 0 }); err != nil {
		t.Fatal(err)
	}
	status, metrics := relaytest.Get(t, "http://"+addr+"/metrics")
	if status != 200 || !strings.Contains(metrics, "wazzup_calls_total") || !strings.Contains(metrics, "go_goroutines") {
		t.Errorf("/metrics = %d without calls or goroutines", status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v, want nil", err)
	}
	if stdout.Len() > 0 {
		t.Errorf("standard output = %q, want nothing", &stdout)
	}
	for _, want := range []string{"account_owned", "account_released", "stopped"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	if strings.Contains(log.String()+metrics, canary) {
		t.Errorf("the key shows:\n%s", log)
	}
	if got := sim.Requests()[0].Status; got != 200 {
		t.Errorf("the vendor answered %d, want 200: the key was not the given one", got)
	}
}
