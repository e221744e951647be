package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const anyPort = "127.0.0.1:0"

// install is worker, ingest and the simulated vendor on a guarded server.
type install struct {
	*guarded
	sim      *simulator.Server
	replicas int
	log      *relaytest.Output
}

// run runs a program until the returned function is called.
func run(t *testing.T, p daemon.Task) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stopped := false
	stop = func() {
		t.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s ended with %v", p.Name(), err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func parse(t *testing.T, s relay.Settings, env map[string]string) {
	t.Helper()
	if err := relay.Parse(s, nil, relaytest.Env(env), io.Discard); err != nil {
		t.Fatal(err)
	}
}

func (i *install) worker() (stop func()) {
	i.t.Helper()
	s := relay.NewWorkerSettings()
	parse(i.t, s, i.settings("worker", map[string]string{
		"WAZZUP_API_KEY": "key", "WAZZUP_API_URL": i.sim.URL(), "ADMIN_ADDR": anyPort, "WAZZUP_REPLICAS": strconv.Itoa(i.replicas),
		"WAZZUP_RECONCILE_WAIT": "100ms", "WAZZUP_BACKOFF": "10ms..200ms", "WAZZUP_BULK_RATE": "0",
		"WAZZUP_COMMAND_BYTES": "8MiB", "WAZZUP_RECORD_BYTES": "32MiB", "WAZZUP_DEFERRED_BYTES": "8MiB", "WAZZUP_DEAD_BYTES": "8MiB",
	}))
	w, err := relay.BuildWorker(i.t.Context(), s, zerolog.New(i.log))
	if err != nil {
		i.t.Fatal(err)
	}
	stop = run(i.t, w)
	relaytest.Readiness(i.t, w.AdminAddr.String(), 200)
	return stop
}

func (i *install) ingest() {
	i.t.Helper()
	listener, err := new(net.ListenConfig).Listen(i.t.Context(), "tcp", anyPort)
	if err != nil {
		i.t.Fatal(err)
	}
	s := relay.NewIngestSettings()
	parse(i.t, s, i.settings("ingest", map[string]string{
		"WEBHOOK_SECRET": "hook-secret", "PUBLIC_URL": "http://" + listener.Addr().String(), "ADMIN_ADDR": anyPort,
	}))
	program, err := relay.BuildIngest(i.t.Context(), s, listener, zerolog.New(i.log))
	if err != nil {
		i.t.Fatal(err)
	}
	run(i.t, program)
	relaytest.Readiness(i.t, program.AdminAddr.String(), 200)
	i.log.Logged(i.t, "webhook_url_registered", "")
}

// producer is a service that publishes commands and waits for their ends.
type producer struct {
	t       *testing.T
	nc      *nats.Conn
	publish *queue.Publisher
}

func (i *install) producer() *producer {
	i.t.Helper()
	nc := i.login("main-producer")
	publisher, err := queue.NewPublisher(nc, mine)
	if err != nil {
		i.t.Fatal(err)
	}
	return &producer{i.t, nc, publisher}
}

// send publishes a message and returns the way to wait for a state of it.
func (p *producer) send(id, chat string, change func(*schema.SendCommand)) (wait func(schema.State)) {
	p.t.Helper()
	command := schema.NewText(id, channel, schema.ChatWhatsApp, chat, "Hello "+id)
	if change != nil {
		change(command)
	}
	body, err := command.AppendJSON(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.await(id, func(reply queue.PublishOption) error {
		_, err := p.publish.Send(p.t.Context(), schema.KindSend, channel, body, reply)
		return err
	})
}

func (p *producer) await(what string, publish func(queue.PublishOption) error) (wait func(schema.State)) {
	p.t.Helper()
	inbox := p.nc.NewInbox()
	events, err := p.nc.SubscribeSync(inbox)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	p.t.Cleanup(cancel)
	if err := publish(queue.WithReplyTo(inbox)); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
	return func(want schema.State) {
		p.t.Helper()
		for {
			m, err := events.NextMsgWithContext(ctx)
			if err != nil {
				p.t.Fatalf("%s: waiting for %s: %v", what, want, err)
			}
			var event schema.CommandEvent
			if err := json.Unmarshal(m.Data, &event); err != nil {
				p.t.Fatal(err)
			}
			if event.State == want {
				return
			}
			if event.State.Final() {
				p.t.Fatalf("%s ended %s, want %s: %s", what, event.State, want, m.Data)
			}
		}
	}
}

// ask makes a request and returns the answer.
func (p *producer) ask(name, body string) string {
	p.t.Helper()
	m, err := p.nc.Request(schema.APISubject(mine, name), []byte(body), time.Minute)
	if err != nil {
		p.t.Fatalf("%s: %v", name, err)
	}
	if code := m.Header.Get("Nats-Service-Error-Code"); code != "" {
		p.t.Fatalf("%s: %s %s", name, code, m.Data)
	}
	return string(m.Data)
}

// reader is a service that reads events with its durable consumer.
type reader struct {
	t    *testing.T
	feed jetstream.MessagesContext
}

func (i *install) reader() *reader {
	i.t.Helper()
	js, err := jetstream.New(i.login("main-consumer"))
	if err != nil {
		i.t.Fatal(err)
	}
	c, err := js.Consumer(i.t.Context(), "wazzup-main-records", "main-consumer")
	if err != nil {
		i.t.Fatal(err)
	}
	feed, err := c.Messages()
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(feed.Stop)
	return &reader{i.t, feed}
}

// until reads and acknowledges events, up to the first on such a subject.
func (r *reader) until(subject string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	for {
		m, err := r.feed.Next(jetstream.NextContext(ctx))
		if err != nil {
			r.t.Fatalf("waiting for %s: %v", subject, err)
		}
		if err := m.DoubleAck(ctx); err != nil {
			r.t.Fatalf("acknowledge: %v", err)
		}
		if within(m.Subject(), subject) {
			return
		}
	}
}

// wazzupctl is the built program, run as the operator.
type wazzupctl struct {
	t    *testing.T
	path string
	env  []string
}

func (i *install) wazzupctl() *wazzupctl {
	i.t.Helper()
	path := filepath.Join(i.t.TempDir(), "wazzupctl")
	if out, err := exec.CommandContext(i.t.Context(), "go", "build", "-o", path, "../cmd/wazzupctl").CombinedOutput(); err != nil {
		i.t.Fatalf("build wazzupctl: %v: %s", err, out)
	}
	w := &wazzupctl{t: i.t, path: path, env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + i.t.TempDir()}}
	for name, value := range i.settings("main-operator", map[string]string{"PUBLIC_URL": strings.TrimSuffix(i.sim.WebhookURL(), "/webhooks/main/hook-secret"), "WEBHOOK_SECRET": "hook-secret"}) {
		w.env = append(w.env, name+"="+value)
	}
	return w
}

// says runs a command, and fails unless it ends with the code and says the words.
func (w *wazzupctl) says(code int, words string, args ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.path, args...)
	cmd.Env = w.env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	exit, ended := errors.AsType[*exec.ExitError](err)
	if got := cmd.ProcessState.ExitCode(); err != nil && !ended || ended && exit.ExitCode() != got || got != code || !strings.Contains(out.String(), words) {
		w.t.Errorf("wazzupctl %s: %v, exit code %d, want %d and %q:\n%s", strings.Join(args, " "), err, cmd.ProcessState.ExitCode(), code, words, out.String())
	}
}

// TestRolesCanDoTheirJobs takes the whole way, each role as its own user: nothing
// of it may be refused.
func TestRolesCanDoTheirJobs(t *testing.T) {
	t.Parallel()
	i := &install{guarded: guard(t, 1), sim: relaytest.Vendor(t, simulator.Config{}), replicas: 1, log: relaytest.NewOutput()}
	i.jobs()
}

func (i *install) jobs() {
	i.t.Helper()
	i.t.Cleanup(func() {
		if i.t.Failed() {
			i.t.Logf("the server refused %q, and the programs said\n%s", i.refused(), i.log)
		}
	})
	first := i.worker()
	i.ingest()
	i.durable(mine)
	p, r := i.producer(), i.reader()
	i.produce(p)
	i.abuse(p)
	i.read(r)
	i.operate(i.wazzupctl())

	// Another worker takes over. What it finds is scheduled, parked and dead.
	soon := p.send("soon", "79990000005", func(c *schema.SendCommand) { c.SendAt = time.Now().Add(3 * time.Second) })
	i.worker()
	first()
	p.send("after", "79990000005", nil)(schema.StateSent)
	soon(schema.StateSent)
	r.until("wazzup.main.evt.command.sent.send.*")
	if _, err := i.login("admin").Request("$SRV.PING.wazzup", nil, time.Minute); err != nil {
		i.t.Errorf("the worker's service is not found: %v", err)
	}
	if refused := i.refused(); len(refused) > 0 {
		i.t.Errorf("the server refused\n  %s", strings.Join(refused, "\n  "))
	}
	schematest.Stored(i.t, i.login("admin"), mine) // each event is one of the contract's
}

func (i *install) produce(p *producer) {
	i.t.Helper()
	rule := func(r simulator.Rule) {
		i.t.Helper()
		if err := i.sim.AddRule(r); err != nil {
			i.t.Fatal(err)
		}
	}
	p.send("one", "79990000001", nil)(schema.StateSent)
	p.send("bad", "89990000001", nil)(schema.StateInvalid)
	never := p.send("never", "79990000001", func(c *schema.SendCommand) { c.SendAt = time.Now().Add(time.Hour) })
	later := p.send("later", "79990000001", func(c *schema.SendCommand) { c.SendAt = time.Now().Add(time.Second) })
	// The other is with the server's scheduler by now: a cancel that comes earlier
	// may have its event at the command's turn only.
	later(schema.StateSent)
	p.ask("command.cancel", `{"id":"never"}`)
	never(schema.StateCancelled)
	if timeline := p.ask("command.get", `{"id":"one"}`); !strings.Contains(timeline, `"sent"`) {
		i.t.Errorf("the timeline is %s", timeline)
	}
	p.await("contacts", func(reply queue.PublishOption) error {
		_, err := p.publish.Sync(i.t.Context(), schema.EntityContacts, schema.VerbUpsert, json.RawMessage(
			`[{"id":"17","name":"Anna","responsibleUserId":"1","contactData":[{"chatType":"whatsapp","chatId":"79990000001"}]}]`), reply)
		return err
	})(schema.StateDone)

	// A chat that waits: those behind its first one are parked.
	rule(simulator.Rule{Match: simulator.Match{ChatID: "79990000002"}, Times: 2, Code: "MESSAGES_CAN_NOT_ADD"})
	var last func(schema.State)
	for n := range 30 {
		last = p.send(fmt.Sprintf("parked-%d", n), "79990000002", nil)
	}
	last(schema.StateSent)

	// One that dies in doubt.
	no := false
	rule(simulator.Rule{Match: simulator.Match{ChatID: "79990000003"}, Times: 2, Fault: "drop-after-accept", Echo: &no})
	p.send("lost", "79990000003", nil)(schema.StateDead)
	p.send("lost-too", "79990000003", nil)(schema.StateDead)

	// A subject of our own in place of an inbox.
	subject := schema.ReplySubjectPrefix(mine) + "main-producer.x"
	events, err := p.nc.SubscribeSync(subject)
	if err != nil {
		i.t.Fatal(err)
	}
	if err := p.nc.Flush(); err != nil {
		i.t.Fatal(err)
	}
	if _, err := p.publish.Send(i.t.Context(), schema.KindBulk, channel, []byte(`{"chatType":"whatsapp","chatId":"79990000004","text":"Hi"}`), queue.WithReplyTo(subject)); err != nil {
		i.t.Fatal(err)
	}
	if _, err := events.NextMsg(time.Minute); err != nil {
		i.t.Errorf("nothing came to %s: %v", subject, err)
	}
}

// abuse names subjects for Wazzup-Reply-To to which the worker might publish, and
// the producer may not. Each such command ends invalid, and nothing is published.
func (i *install) abuse(p *producer) {
	i.t.Helper()
	admin := i.login("admin")
	targets := []string{
		"wazzup.shop-eu.cmd.send." + channel, "wazzup.shop-eu.reply.x", "wazzup.main.evt.channels.x", "wz.main.x.abused",
		"$JS.API.STREAM.PURGE.wazzup-main-abused", "$KV.wazzup-owners.abused", "_R_.abused", "_INBOX.*.abused", "wazzup.main.reply.>",
	}
	heard := make(chan *nats.Msg, 100)
	for _, subject := range []string{"wazzup.shop-eu.>", "wazzup.main.evt.channels.x", "wz.main.x.abused", "$JS.API.STREAM.PURGE.>", "$KV.wazzup-owners.abused", "_R_.abused", "_INBOX.*.abused", "wazzup.main.reply.>"} {
		if _, err := admin.ChanSubscribe(subject, heard); err != nil {
			i.t.Fatal(err)
		}
	}
	if err := admin.Flush(); err != nil {
		i.t.Fatal(err)
	}
	for n, target := range targets {
		body := fmt.Appendf(nil, `{"id":"abuse-%d","chatType":"whatsapp","chatId":"79990000007","text":"Hi"}`, n)
		if _, err := p.publish.Send(i.t.Context(), schema.KindSend, channel, body, queue.WithReplyTo(target)); err != nil {
			i.t.Fatal(err)
		}
	}
	// Commands of one chat end in their order.
	p.send("after-abuse", "79990000007", nil)(schema.StateSent)
	for n, target := range targets {
		if timeline := p.ask("command.get", fmt.Sprintf(`{"id":"abuse-%d"}`, n)); !strings.Contains(timeline, `"state":"invalid"`) {
			i.t.Errorf("Wazzup-Reply-To %s: %s", target, timeline)
		}
	}
	for len(heard) > 0 {
		i.t.Errorf("something was published to %s", (<-heard).Subject)
	}
}

func (i *install) read(r *reader) {
	i.t.Helper()
	r.until("wazzup.main.evt.command.dead.send." + channel)
	if _, err := i.sim.Inbound(simulator.Inbound{ChannelID: channel, ChatID: "79990000001", Text: "Thanks"}); err != nil {
		i.t.Fatal(err)
	}
	r.until("wazzup.main.evt.message.in.>")
	if status, err := i.sim.SendWebhook(i.t.Context(), []byte(`{"what":"is this"}`)); err != nil || status != 200 {
		i.t.Fatalf("a webhook was answered %d, %v", status, err)
	}
	r.until("wazzup.main.evt.quarantine.*")
}

func (i *install) operate(ctl *wazzupctl) {
	i.t.Helper()
	ctl.says(0, "ok       webhook", "doctor")
	ctl.says(0, "sent", "send", "--channel", channel, "--chat", "79990000006", "--text", "Hello", "--id", "ctl", "--wait")
	ctl.says(0, "sent", "watch", "--since", "1h", "--id", "ctl", "--state", "sent", "--count", "1")
	ctl.says(0, "claim", "trace", "one")
	ctl.says(0, "seq", "send", "--channel", channel, "--chat", "79990000006", "--text", "Later", "--id", "held", "--send-at", "+1h", "--json")
	ctl.says(0, "held", "cancel", "held")
	ctl.says(1, "no unknown fate", "resolve", "one", "--as", "drop")
	ctl.says(0, channel, "channels")
	ctl.says(0, "open", "lanes", "list")
	ctl.says(0, "paused", "lanes", "pause", channel, "--class", "bulk")
	ctl.says(0, "open", "lanes", "resume", channel)
	ctl.says(0, "2 in doubt", "dead", "list")
	ctl.says(0, "Hello lost", "dead", "show", "lost")
	ctl.says(0, "1 redriven", "dead", "redrive", "--id", "lost", "--include-unknown")
	ctl.says(0, "sent", "watch", "--since", "1h", "--id", "lost", "--state", "sent", "--count", "1")
	ctl.says(0, "", "dead", "drop", "--id", "lost-too")
	ctl.says(0, "/webhooks/main/", "webhook", "get")
	ctl.says(0, "/webhooks/main/", "webhook", "set", i.sim.WebhookURL())
}
