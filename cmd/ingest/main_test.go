package main_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	main "github.com/wazzup-relay/wazzup-relay/cmd/ingest"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// What nats-server keeps after a shutdown.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Server).startGoRoutine.func1"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"),
	)
}

const canary = "canary-91cd"

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
		says []string
	}{
		{"help", []string{"-h"}, map[string]string{"WEBHOOK_SECRET": canary}, 0, []string{"Usage: ingest", "WEBHOOK_MAX_BODY", "8MiB"}},
		{"every fault at once", []string{"--ingest-addr", "8080"}, map[string]string{"PUBLIC_URL": "hooks"}, 2, []string{"3 faults", "INGEST_ADDR", "WEBHOOK_SECRET", "PUBLIC_URL"}},
		{"a secret that fits no URL", nil, map[string]string{"WEBHOOK_SECRET": canary + "/x"}, 2, []string{"WEBHOOK_SECRET"}},
		{"a secret as a flag", []string{"--webhook-secret", canary}, nil, 2, []string{"--webhook-secret: is no flag"}},
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
				t.Errorf("it shows the secret:\n%s", text)
			}
		})
	}
}

// TestLife: webhooks are 503 while NATS is away and 200 when it is there, and the
// program ends well when it is told to.
func TestLife(t *testing.T) {
	t.Parallel()
	node := queuetest.Server(t)
	js, err := jetstream.New(queuetest.Conn(t, node))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Ensure(t.Context(), js, "main", queue.Limits{}); err != nil {
		t.Fatal(err)
	}
	node.Stop()
	ctx, cancel := context.WithCancel(t.Context())
	log := relaytest.NewOutput()
	var stdout bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- main.Run(ctx, []string{"--admin-addr=127.0.0.1:0", "--ingest-addr=127.0.0.1:0"}, relaytest.Env(map[string]string{
			"WEBHOOK_SECRET": canary, "NATS_URL": node.URL(), "LOG_LEVEL": "debug",
		}), &stdout, log)
	}()
	admin, _ := log.Logged(t, "admin server is listening", "")["address"].(string)
	addr, _ := log.Logged(t, "webhooks are listened for", "")["address"].(string)
	const body = `{"statuses":[{"messageId":"0f0f6fd0-4a4b-4a3f-9b6b-5c8f5e3f0001","status":2}]}`

	relaytest.Readiness(t, admin, http.StatusServiceUnavailable)
	if got := relaytest.Post(t, "http://"+addr+"/webhooks/main/"+canary, body); got != http.StatusServiceUnavailable {
		t.Errorf("without NATS: %d, want 503", got)
	}
	node.Start()
	relaytest.Readiness(t, admin, http.StatusOK)
	for _, tt := range []struct {
		name, path string
		want       int
	}{
		{"with NATS", "/webhooks/main/" + canary, http.StatusOK},
		{"wrong secret", "/webhooks/main/" + canary + "x", http.StatusNotFound},
		{"wrong account", "/webhooks/other/" + canary, http.StatusNotFound},
	} {
		if got := relaytest.Post(t, "http://"+addr+tt.path, body); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	_, metrics := relaytest.Get(t, "http://"+admin+"/metrics")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v, want nil", err)
	}
	if strings.Contains(log.String()+metrics+stdout.String(), canary) {
		t.Errorf("the secret shows:\n%s", log)
	}
}
