package relay_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// TestGuardOfWholePrograms: an ingest has its address registered, and registered
// again when somebody takes it over; what is set by hand it leaves alone until it
// starts anew.
func TestGuardOfWholePrograms(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{})
	node := queuetest.Server(t)
	start(t, buildWorker(t, workerEnv(sim, map[string]string{"NATS_URL": node.URL()}), io.Discard))
	ingest := func() (base string, log *relaytest.Output, stop func()) {
		t.Helper()
		l, err := net.Listen("tcp", free) //nolint:noctx // closed by the program
		if err != nil {
			t.Fatal(err)
		}
		base = "http://" + l.Addr().String()
		s, err := ingestSettings(map[string]string{
			"WEBHOOK_SECRET": canary, "ADMIN_ADDR": free, "NATS_URL": node.URL(), "PUBLIC_URL": base, "WEBHOOK_POLL": "1s",
		})
		if err != nil {
			t.Fatal(err)
		}
		log = relaytest.NewOutput()
		i, err := relay.BuildIngest(t.Context(), s, l, zerolog.New(log))
		if err != nil {
			t.Fatal(err)
		}
		return base, log, start(t, i)
	}
	says := func(log *relaytest.Output, texts ...string) {
		t.Helper()
		log.Line(t, func(line string) bool {
			for _, text := range texts {
				if !strings.Contains(line, text) {
					return false
				}
			}
			return true
		})
	}

	base, log, stop := ingest()
	says(log, "webhook_url_registered")
	if err := sim.SetWebhookURL("https://other.example/hook"); err != nil {
		t.Fatal(err)
	}
	says(log, "webhook_url_repaired")
	if sim.WebhookURL() != base+"/webhooks/main/"+canary {
		t.Error("the address is not registered again")
	}
	if _, err := queuetest.Conn(t, node).Request(schema.APISubject("main", "webhooks.set"), []byte(`{"url":null}`), time.Minute); err != nil {
		t.Fatal(err)
	}
	says(log, "webhook_url_not_guarded", "suspended")
	if sim.WebhookURL() != "" {
		t.Error("what was set by hand is undone")
	}
	stop()
	base, log, _ = ingest()
	says(log, "webhook_url_registered")
	if sim.WebhookURL() != base+"/webhooks/main/"+canary {
		t.Error("an ingest that starts does not register its address")
	}
}
