package main_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	main "github.com/wazzup-relay/wazzup-relay/examples/go"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// What nats-server keeps after a shutdown.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Server).startGoRoutine.func1"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"),
	)
}

const free = "127.0.0.1:0"

// system is the whole of it: NATS and a worker in one, ingest, a simulated Wazzup.
type system struct {
	sim *simulator.Server
	url string
}

func newSystem(t *testing.T) *system {
	t.Helper()
	s := &system{sim: relaytest.Vendor(t, simulator.Config{})}
	worker, err := relay.BuildWorker(t.Context(), settings(t, relay.NewWorkerSettings(), map[string]string{
		"WAZZUP_API_KEY": "key", "WAZZUP_API_URL": s.sim.URL(), "ADMIN_ADDR": free,
		"EMBEDDED_NATS": t.TempDir(), "NATS_URL": "nats://" + free, "WAZZUP_TIMEOUT": "2s",
	}), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	serve(t, worker)
	s.url = worker.Embedded.URL()
	ingest, err := relay.BuildIngest(t.Context(), settings(t, relay.NewIngestSettings(), map[string]string{
		"WEBHOOK_SECRET": "secret", "INGEST_ADDR": free, "ADMIN_ADDR": free, "NATS_URL": s.url,
	}), nil, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	serve(t, ingest)
	relaytest.Readiness(t, worker.AdminAddr.String(), 200)
	relaytest.Readiness(t, ingest.AdminAddr.String(), 200)
	if err := s.sim.SetWebhookURL("http://" + ingest.Addr.String() + "/webhooks/main/secret"); err != nil {
		t.Fatal(err)
	}
	return s
}

func settings[S relay.Settings](t *testing.T, s S, env map[string]string) S {
	t.Helper()
	if err := relay.Parse(s, nil, relaytest.Env(env), io.Discard); err != nil {
		t.Fatal(err)
	}
	return s
}

func serve(t *testing.T, p daemon.Task) {
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

// shop runs the example.
func (s *system) shop(t *testing.T, account string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out strings.Builder
	err := main.Run(ctx, args, relaytest.Env(map[string]string{"NATS_URL": s.url, "WAZZUP_ACCOUNT": account}), &out)
	return strings.TrimSpace(out.String()), err
}

const channel = simulator.ChannelWhatsApp

// TestExample runs every command of the example against the whole system.
func TestExample(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, tt := range []struct {
		what string
		args []string
		want string
	}{
		{"sends", []string{"send", channel, "79998887766", "order-1", "hello"}, "sent as "},
		{"sends once", []string{"cancel", "order-1"}, "too late: it is "},
		{"has nothing to cancel", []string{"cancel", "order-2"}, "there is no such message"},
		{"campaigns", []string{"campaign", channel, "sale", "79990000001", "79990000002", "79990000003"}, "stored 3"},
		{"syncs", []string{"contact", "17", "Anna", "79998887766"}, "stored as number "},
	} {
		if got, err := s.shop(t, "", tt.args...); err != nil || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: got %q, %v, want %q", tt.what, got, err, tt.want)
		}
	}
	if err := s.sim.Wait(t.Context(), func(v *simulator.View) bool { return v.Sends >= 4 && len(s.sim.Contacts()) == 1 }); err != nil {
		t.Errorf("the vendor got %d messages and %d contacts: %v", len(s.sim.Sends()), len(s.sim.Contacts()), err)
	}
}

// TestExampleFaults meets every error that the example explains, but the lack of
// rights, which the library's own tests show.
func TestExampleFaults(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	if err := s.sim.AddRule(simulator.Rule{
		Match: simulator.Match{TextContains: "refuse"}, Status: 400, Code: "MESSAGES_NOT_TEXT_FIRST",
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.shop(t, "", "send", channel, "79998887766", "refused", "refuse this"); err != nil || !strings.HasPrefix(got, "was not sent: rejected MESSAGES_NOT_TEXT_FIRST") {
		t.Errorf("refused by Wazzup: got %q, %v", got, err)
	}
	_, err := s.shop(t, "", "send", channel, "89998887766", "bad", "hello")
	if _, ok := errors.AsType[*schema.InvalidCommandError](err); !ok || !strings.Contains(err.Error(), "chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP") {
		t.Errorf("an invalid number: got %v", err)
	}
	got, err := s.shop(t, "", "campaign", channel, "sale", "79990000001", "8999")
	if err == nil || !strings.Contains(got, "number 2 of the list is no phone number") {
		t.Errorf("an invalid number of a campaign: got %q, %v", got, err)
	}
	if _, err := s.shop(t, "nobody", "contact", "17", "Anna", "79998887766"); !errors.Is(err, queue.ErrNoStream) || !strings.Contains(err.Error(), "is its name right") {
		t.Errorf("another account: got %v", err)
	}
	if _, err := s.shop(t, "", "fax"); err == nil || !strings.Contains(err.Error(), "usage") {
		t.Errorf("no such command: got %v", err)
	}

	// A command that came too late, of the same program.
	nc, err := nats.Connect(s.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	publisher, err := queue.NewPublisher(nc, "main")
	if err != nil {
		t.Fatal(err)
	}
	late := schema.NewText("late", channel, schema.ChatWhatsApp, "79998887766", "hello")
	late.ExpireAt = time.Now().Add(-time.Minute)
	outcome, err := publisher.PublishAndWait(t.Context(), queue.Command{Kind: schema.KindSend, Message: late})
	if err != nil || outcome.Event.State != schema.StateExpired {
		t.Errorf("a late command: got %+v, %v", outcome.Event, err)
	}

	// A stream without room.
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), queue.Names{Account: "main"}.Commands())
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxBytes = 1
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := s.shop(t, "", "contact", "17", "Anna", "79998887766"); !errors.Is(err, queue.ErrFull) || !strings.Contains(err.Error(), "try again later") {
		t.Errorf("a full stream: got %v", err)
	}
}

// TestExampleListens stops the consumer and starts it again: what customers wrote
// meanwhile is not missed.
func TestExampleListens(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	listen := func() (out *relaytest.Output, stop func()) {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		out = relaytest.NewOutput()
		ended := make(chan error, 1)
		go func() {
			ended <- main.Run(ctx, []string{"listen"}, relaytest.Env(map[string]string{"NATS_URL": s.url}), out)
		}()
		return out, func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("it ended with %v", err)
			}
		}
	}
	write := func(text string) {
		if _, err := s.sim.Inbound(simulator.Inbound{ChannelID: channel, ChatID: "79998887766", Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	out, stop := listen()
	write("one")
	out.Line(t, func(line string) bool { return line == "in 79998887766 one\n" })
	stop()
	write("two")
	out, stop = listen()
	out.Line(t, func(line string) bool { return line == "in 79998887766 two\n" })
	stop()
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("it heard\n%s", out)
	}
}
