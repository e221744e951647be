package sender_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

const phone = "79998887766"

// patience is how long a test waits for what must come, on the slowest of machines.
const patience = 2 * time.Minute

// rig is a real NATS server, the simulated vendor and what a test wants of them.
type rig struct {
	t   *testing.T
	srv *queuetest.Node
	sim *simulator.Server
	nc  *nats.Conn
	js  jetstream.JetStream
	pub *queue.Publisher
	log zerolog.Logger
	// meter is that of the workers which are yet to start.
	meter  metric.Meter
	tracer trace.Tracer // the same; nil: they trace nothing

	mu     sync.Mutex
	events []schema.CommandEvent
	ids    map[string]int          // ce-id -> times stored
	latest map[string]schema.State // of each command, by its sequence
	change chan struct{}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigOf(t, simulator.Config{})
}

// newRigOf is a rig whose vendor is as configured.
func newRigOf(t *testing.T, vendor simulator.Config) *rig {
	t.Helper()
	r := &rig{
		t: t, srv: queuetest.Server(t), ids: make(map[string]int), latest: make(map[string]schema.State), change: make(chan struct{}),
		log: zerolog.Nop(), meter: metricnoop.Meter{},
	}
	if os.Getenv("TEST_LOG") != "" {
		r.log = zerolog.New(zerolog.NewTestWriter(t))
	}
	var err error
	if r.sim, err = simulator.New(vendor); err != nil {
		t.Fatal(err)
	}
	if err := r.sim.Start(context.WithoutCancel(t.Context()), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.sim.Close)
	r.nc = queuetest.Conn(t, r.srv)
	if r.js, err = jetstream.New(r.nc); err != nil {
		t.Fatal(err)
	}
	if _, err = queue.Ensure(t.Context(), r.js, "main", limits()); err != nil {
		t.Fatal(err)
	}
	if r.pub, err = queue.NewPublisher(r.nc, "main"); err != nil {
		t.Fatal(err)
	}
	r.collect("main")
	r.nothingIsNaked()
	return r
}

// nothingIsNaked fails the test if a command is refused to wait: it would come back
// behind others, and be delivered again and again.
func (r *rig) nothingIsNaked() {
	r.t.Helper()
	const advisories = "$JS.EVENT.ADVISORY.CONSUMER.MSG_NAKED."
	_, err := r.nc.Subscribe(advisories+">", func(m *nats.Msg) {
		r.t.Errorf("a command was nak'd: %s", strings.TrimPrefix(m.Subject, advisories))
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// limits are small, so that a test never depends on the machine's disk.
func limits() queue.Limits {
	return queue.Limits{CommandBytes: 64 << 20, RecordBytes: 256 << 20, DeferredBytes: 16 << 20, DeadBytes: 16 << 20}
}

// collect holds every event that the account's owner stores to the contract, and
// keeps those of commands. Those of webhooks a test writes itself; what ingest
// writes is held to the contract by its own tests.
func (r *rig) collect(account string) {
	r.t.Helper()
	prefix := strings.TrimSuffix(schema.EventSubjects(account), ">")
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: account}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := s.OrderedConsumer(r.t.Context(), jetstream.OrderedConsumerConfig{FilterSubjects: []string{prefix + "command.>", prefix + "counter.>", prefix + "ops.>"}})
	if err != nil {
		r.t.Fatal(err)
	}
	consuming, err := c.Consume(func(m jetstream.Msg) {
		if err := schematest.Event(m.Subject(), m.Headers(), m.Data()); err != nil {
			r.t.Error(err)
		}
		if !strings.HasPrefix(m.Subject(), prefix+"command.") {
			return
		}
		var e schema.CommandEvent
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			r.t.Errorf("event is no JSON: %v", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
		r.follows(&e, m.Headers().Get(schema.HeaderCEID))
		r.ids[m.Headers().Get(schema.HeaderCEID)]++
		close(r.change)
		r.change = make(chan struct{})
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(consuming.Stop)
}

// follows holds the order of a command's states to schema.NextStates. A repeat of
// the same event is none of its own.
func (r *rig) follows(e *schema.CommandEvent, ceID string) {
	if r.latest == nil || r.ids[ceID] > 0 {
		return
	}
	key := fmt.Sprint(e.Account, " ", e.Seq)
	if before := r.latest[key]; !slices.Contains(schema.NextStates(before), e.State) {
		r.t.Errorf("%s is %s after %q", e.ID, e.State, before)
	}
	r.latest[key] = e.State
}

// config is an account's with a short backoff and no limits, so that tests are
// quick; each test sets what it is about.
func (r *rig) config() sender.Config {
	return sender.Config{
		Account: "main", APIKey: "key", APIURL: r.sim.URL(), Worker: "worker-1",
		Backoff: sender.Backoff{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond},
		Timeout: 5 * time.Second, ReconcileWait: 50 * time.Millisecond, Limits: limits(), SyncGather: 5 * time.Millisecond,
	}
}

// start runs a worker until the returned function is called, or the test ends.
func (r *rig) start(cfgs ...sender.Config) (stop func()) {
	r.t.Helper()
	_, stop = r.worker(cfgs...)
	return stop
}

// startOn runs a worker over a connection that the test may break.
func (r *rig) startOn(nc *nats.Conn, cfg sender.Config) (stop func()) {
	r.t.Helper()
	_, stop = r.workerOn(nc, cfg)
	return stop
}

func (r *rig) worker(cfgs ...sender.Config) (w *sender.Worker, stop func()) {
	r.t.Helper()
	return r.workerOn(queuetest.Conn(r.t, r.srv), cfgs...)
}

func (r *rig) workerOn(nc *nats.Conn, cfgs ...sender.Config) (w *sender.Worker, stop func()) {
	r.t.Helper()
	tracer, tracing := r.tracer, r.tracer != nil
	if !tracing {
		tracer = tracenoop.Tracer{}
	}
	w, err := sender.New(sender.Options{
		NATS: nc, Accounts: cfgs, Log: r.log,
		Meter: r.meter, Tracer: tracer, Tracing: tracing,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Errorf("worker ended with %v", err)
			}
		})
	}
	r.t.Cleanup(stop)
	return w, stop
}

// send publishes a text and returns its id.
func (r *rig) send(id, chat, text string, more ...string) string {
	r.t.Helper()
	return r.publish(schema.KindSend, id, fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":%q,"text":%q%s}`, id, chat, text, strings.Join(more, "")))
}

func (r *rig) publish(kind schema.Kind, id, body string, opts ...queue.PublishOption) string {
	r.t.Helper()
	if _, err := r.pub.Send(r.t.Context(), kind, simulator.ChannelWhatsApp, []byte(body), opts...); err != nil {
		r.t.Fatal(err)
	}
	return id
}

// wait blocks until the collected events satisfy the condition. It gives up when
// nothing has come for long: what goes on may take its time.
func (r *rig) wait(what string, cond func([]schema.CommandEvent) bool) {
	r.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		r.mu.Lock()
		ok, change := cond(r.events), r.change
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-change:
			timeout.Reset(patience)
		case <-timeout.C:
			r.t.Fatalf("waited in vain for %s; events: %s", what, r.summary())
		}
	}
}

func (r *rig) summary() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, e := range r.events[max(len(r.events)-20, 0):] {
		code := ""
		if e.Error != nil {
			code = e.Error.Code
		}
		all = append(all, fmt.Sprintf("%s:%s:%s", e.ID, e.State, code))
	}
	return fmt.Sprintf("%d, the last: %v", len(r.events), all)
}

// finals waits until n commands have ended.
func (r *rig) finals(n int) []schema.CommandEvent {
	r.t.Helper()
	var out []schema.CommandEvent
	r.wait(fmt.Sprintf("%d final events", n), func(all []schema.CommandEvent) bool {
		out = out[:0]
		for _, e := range all {
			if e.State.Final() {
				out = append(out, e)
			}
		}
		return len(out) >= n
	})
	return out
}

// states waits for the final event of an id and returns all its states.
func (r *rig) states(id string) []schema.State {
	r.t.Helper()
	var states []schema.State
	r.wait("the end of "+id, func(all []schema.CommandEvent) bool {
		states = states[:0]
		final := false
		for _, e := range all {
			if e.ID == id {
				states = append(states, e.State)
				final = final || e.State.Final()
			}
		}
		return final
	})
	return states
}

func (r *rig) event(id string, s schema.State) schema.CommandEvent {
	r.t.Helper()
	var found schema.CommandEvent
	r.wait(fmt.Sprintf("%s of %s", s, id), func(all []schema.CommandEvent) bool {
		i := slices.IndexFunc(all, func(e schema.CommandEvent) bool { return e.ID == id && e.State == s })
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}

// emptied waits until no command is left in the stream.
func (r *rig) emptied() {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Commands())
	if err != nil {
		r.t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		info, err := s.Info(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		if info.State.Msgs == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("%d commands are left in the queue", info.State.Msgs)
		}
	}
}

// channelsRead waits until the worker has read the channel list, which it does
// right after it has begun: from then on only what a test does changes a gate.
func (r *rig) channelsRead() {
	r.t.Helper()
	err := r.sim.Wait(r.t.Context(), func(*simulator.View) bool {
		return slices.ContainsFunc(r.sim.Requests(), func(q simulator.Request) bool { return q.Path == "/v2/channels" && q.Status != 0 })
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// asFormerOwner owns the account as a worker would, to write what one left that
// died in the middle.
func (r *rig) asFormerOwner(write func(l *queue.Ledger)) {
	r.t.Helper()
	ctx := r.t.Context()
	topology, err := queue.Ensure(ctx, r.js, "main", limits())
	if err != nil {
		r.t.Fatal(err)
	}
	leases, err := queue.OpenLeases(ctx, r.js, "test", 1)
	if err != nil {
		r.t.Fatal(err)
	}
	lease, err := leases.Acquire(ctx, "main")
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := lease.Raise(ctx, topology); err != nil {
		r.t.Fatal(err)
	}
	l, err := queue.NewLedger(r.nc, topology, lease.Epoch, nil, zerolog.Nop())
	if err != nil {
		r.t.Fatal(err)
	}
	write(l)
	l.Close()
	if err := lease.Release(ctx); err != nil && !errors.Is(err, queue.ErrLeaseLost) { // on a slow machine it has run out
		r.t.Fatal(err)
	}
}
