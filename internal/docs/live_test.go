package docs_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	account = "main"
	free    = "127.0.0.1:0"
)

// run runs a program until the test ends.
func run(t *testing.T, p daemon.Task) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s ended with %v", p.Name(), err)
		}
	})
}

func parsed[S relay.Settings](t *testing.T, s S, env map[string]string) S {
	t.Helper()
	if err := relay.Parse(s, nil, func(name string) string { return env[name] }, io.Discard); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRunningSystem compares what a running system shows of itself with the
// pages: the metrics that it serves and the requests that it answers.
func TestRunningSystem(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{})
	worker, err := relay.BuildWorker(t.Context(), parsed(t, relay.NewWorkerSettings(), map[string]string{
		"WAZZUP_API_KEY": "key", "WAZZUP_API_URL": sim.URL(), "ADMIN_ADDR": free,
		"EMBEDDED_NATS": t.TempDir(), "NATS_URL": "nats://" + free,
	}), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	run(t, worker)
	url := worker.Embedded.URL()
	ingest, err := relay.BuildIngest(t.Context(), parsed(t, relay.NewIngestSettings(), map[string]string{
		"WEBHOOK_SECRET": "secret", "INGEST_ADDR": free, "ADMIN_ADDR": free, "NATS_URL": url,
	}), nil, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	run(t, ingest)
	relaytest.Readiness(t, worker.AdminAddr.String(), 200)
	relaytest.Readiness(t, ingest.AdminAddr.String(), 200)

	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	sendOne(t, nc)
	schematest.Stored(t, nc, account)
	relaytest.Get(t, "http://"+ingest.Addr.String()+"/webhooks") // counted, whatever it is

	var metrics []string
	for _, admin := range []string{worker.AdminAddr.String(), ingest.AdminAddr.String()} {
		_, text := relaytest.Get(t, "http://"+admin+"/metrics")
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (wazzup_\w+) `).FindAllStringSubmatch(text, -1) {
			metrics = append(metrics, m[1])
		}
	}
	sameSet(t, "the metrics of docs/operating.md", column(t, "docs/operating.md", "metrics"), metrics)

	var requests []string
	for _, subject := range column(t, readme, "subjects") {
		if strings.HasPrefix(subject, schema.APISubject("<account>", "")) {
			requests = append(requests, strings.Replace(subject, "<account>", account, 1))
		}
	}
	served := requestSubjects(t, nc)
	sameSet(t, "README's requests", requests, served)
	page := read(t, eventsPage)
	for _, subject := range served {
		if name := strings.TrimPrefix(subject, schema.APISubject(account, "")); !strings.Contains(page, "| `"+name+"` |") {
			t.Errorf("%s does not explain the request %s", eventsPage, name)
		}
	}
}

// sendOne sends a message and waits for its event, so that every metric has
// something to show.
func sendOne(t *testing.T, nc *nats.Conn) {
	t.Helper()
	reply, err := nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	publisher, err := queue.NewPublisher(nc, account)
	if err != nil {
		t.Fatal(err)
	}
	body, err := schema.NewText("docs-1", simulator.ChannelWhatsApp, schema.ChatWhatsApp, "79998887766", "hello").AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := publisher.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp, body, queue.WithReplyTo(reply.Subject)); err != nil {
		t.Fatal(err)
	}
	if _, err := reply.NextMsg(time.Minute); err != nil {
		t.Fatal(err)
	}
}

// requestSubjects asks the micro service for its endpoints, until it is there.
func requestSubjects(t *testing.T, nc *nats.Conn) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		answer, err := nc.RequestWithContext(ctx, "$SRV.INFO.wazzup", nil)
		if errors.Is(err, nats.ErrNoResponders) {
			<-again.C
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var info struct {
			Endpoints []struct {
				Subject string `json:"subject"`
			} `json:"endpoints"`
		}
		if err := json.Unmarshal(answer.Data, &info); err != nil {
			t.Fatal(err)
		}
		var subjects []string
		for _, e := range info.Endpoints {
			subjects = append(subjects, e.Subject)
		}
		return subjects
	}
}
