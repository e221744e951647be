package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// event is a customer's message, as ingest stores it.
func event(id string) *nats.Msg {
	return queue.Event{
		Subject: schema.MessageEventSubject("main", schema.DirectionIn, channel, schema.ChatWhatsApp, "79998887766"),
		ID:      id, Account: "main", Type: "wazzup.message.in", Time: time.Unix(1, 0),
		Body: fmt.Appendf(nil, `{"messageId":%q,"chatId":"79998887766","text":"hello"}`, id),
	}.Msg()
}

// store stores events with the ids e-<from> to e-<to-1>.
func store(t *testing.T, js jetstream.JetStream, from, to int) (ids []string) {
	t.Helper()
	for i := from; i < to; i++ {
		ids = append(ids, fmt.Sprintf("e-%d", i))
		if _, err := js.PublishMsgAsync(event(ids[len(ids)-1])); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-bounded(t).Done():
		t.Fatal("the events were not stored")
	}
	return ids
}

// running is a consumer that runs.
type running struct {
	t    *testing.T
	stop context.CancelFunc
	done chan error

	mu      sync.Mutex
	got     []string // ids of what was dealt with; guarded by mu
	errs    []error  // guarded by mu
	changed chan struct{}
}

// consume runs a consumer; handle may be nil. The test ends what runs.
func consume(t *testing.T, nc *nats.Conn, cfg queue.ConsumerConfig, handle queue.Handler) *running {
	t.Helper()
	r := &running{t: t, done: make(chan error, 1), changed: make(chan struct{})}
	cfg.OnError = func(_ *queue.Received, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.errs = append(r.errs, err)
		r.change()
	}
	c, err := queue.NewConsumer(nc, "main", cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	if err := c.Ensure(ctx); err != nil {
		stop()
		t.Fatal(err)
	}
	r.stop = stop
	go func() {
		r.done <- c.Run(ctx, func(ctx context.Context, e *queue.Received) error {
			if handle != nil {
				if err := handle(ctx, e); err != nil {
					return err
				}
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.got = append(r.got, e.ID)
			r.change()
			return nil
		})
	}()
	t.Cleanup(stop)
	return r
}

// next is closed with the next change.
func (r *running) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *running) change() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// wait waits until something holds of what was dealt with and of the errors.
func (r *running) wait(enough func(got []string, errs []error) bool) ([]string, []error) {
	r.t.Helper()
	ctx := bounded(r.t)
	for {
		r.mu.Lock()
		got, errs, changed := slices.Clone(r.got), slices.Clone(r.errs), r.changed
		r.mu.Unlock()
		if enough(got, errs) {
			return got, errs
		}
		select {
		case <-changed:
		case <-ctx.Done():
			r.t.Fatalf("it did not come; there are %d events and the errors %v", len(got), errs)
		}
	}
}

func (r *running) dealt(n int) []string {
	r.t.Helper()
	got, _ := r.wait(func(got []string, _ []error) bool { return len(got) >= n })
	return got
}

// end stops it and returns what Run returned.
func (r *running) end() error {
	r.t.Helper()
	r.stop()
	return r.ended()
}

func (r *running) ended() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-bounded(r.t).Done():
		r.t.Fatal("the consumer does not end")
		return nil
	}
}

// An event reaches the handler read, with all that a consumer needs.
func TestConsumer(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	events := make(chan *queue.Received, 4)
	traces := make(chan string, 4)
	r := consume(t, a.nc, queue.ConsumerConfig{Name: "shop"}, func(ctx context.Context, e *queue.Received) error {
		events <- e
		traces <- trace.SpanContextFromContext(ctx).TraceID().String()
		return nil
	})
	first := event("e-0")
	first.Header.Set(schema.HeaderTraceparent, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if _, err := a.js.PublishMsg(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := a.js.Publish(t.Context(), "wazzup.main.evt.channels", []byte(`{"not":"a list"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.js.Publish(t.Context(), "wz.main.x.internal", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	store(t, a.js, 1, 2)
	r.dealt(3)
	e := <-events
	e.Header = nil
	want := &queue.Received{
		ID: "e-0", Subject: "wazzup.main.evt.message.in." + channel + ".whatsapp.79998887766", Type: "wazzup.message.in",
		Time: time.Unix(1, 0).UTC(), Seq: e.Seq, Attempt: 1,
		Data: &schema.MessageEvent{Direction: "in", MessageID: "e-0", ChatID: "79998887766", Text: "hello"},
		Body: []byte(`{"messageId":"e-0","chatId":"79998887766","text":"hello"}`),
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
	if got := <-traces; got != "4bf92f3577b34da6a3ce929d0e0e4736" {
		t.Errorf("the handler's context has the trace %s", got)
	}
	// What cannot be read is passed on as it is.
	if e := <-events; e.Data != nil || string(e.Body) != `{"not":"a list"}` {
		t.Errorf("got %+v", e)
	}
	// What is not public is not passed on at all.
	if e := <-events; e.ID != "e-1" {
		t.Errorf("got %s, want e-1", e.ID)
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

// A consumer begins where it was told to, and later goes on where it was.
func TestConsumerStart(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	store(t, a.js, 0, 3)
	stream, err := a.js.Stream(t.Context(), a.topology.Records())
	if err != nil {
		t.Fatal(err)
	}
	second, err := stream.GetMsg(t.Context(), stream.CachedInfo().State.LastSeq-1)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		start queue.Start
		first int
	}{
		"new": {queue.StartNew(), 3}, "all": {queue.StartAll(), 0}, "since": {queue.StartSince(second.Time), 1},
	} {
		c, err := queue.NewConsumer(a.nc, "main", queue.ConsumerConfig{Name: name, Start: tt.start})
		if err != nil || c.Ensure(t.Context()) != nil {
			t.Fatal("no consumer", err)
		}
	}
	store(t, a.js, 3, 5)
	for name, first := range map[string]int{"new": 3, "all": 0, "since": 1} {
		// The policy of a later start, and other settings, change nothing.
		r := consume(t, a.nc, queue.ConsumerConfig{Name: name, Start: queue.StartAll(), AckWait: time.Minute}, nil)
		got := r.dealt(5 - first)
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if got[0] != fmt.Sprintf("e-%d", first) || len(got) != 5-first {
			t.Errorf("%s: got %q", name, got)
		}
	}
	store(t, a.js, 5, 6)
	if got := consume(t, a.nc, queue.ConsumerConfig{Name: "all"}, nil).dealt(1); !slices.Equal(got, []string{"e-5"}) {
		t.Errorf("after a stop: got %q", got)
	}
}

// Ten thousand events come in order, none twice and none too late, though many
// handlers fail. nats.go has lost wake-ups with small pull requests: such a stall
// lasts for ten seconds.
func TestConsumerOrder(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	start := time.Now()
	r := consume(t, a.nc, queue.ConsumerConfig{Name: "shop", RetryMin: time.Millisecond, RetryMax: 2 * time.Millisecond},
		func(context.Context, *queue.Received) error {
			if rand.IntN(100) == 0 {
				return errors.New("not now")
			}
			return nil
		})
	var want []string
	for i := range 10 { // while it reads
		want = append(want, store(t, a.js, 1000*i, 1000*(i+1))...)
	}
	got := r.dealt(len(want))
	t.Logf("%d events and %d failures took %v", len(got), len(r.errs), time.Since(start))
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if !slices.Equal(got, want) {
		t.Error("the events are not those that were stored, in their order")
	}
	if len(r.errs) == 0 {
		t.Error("no handler failed")
	}
}

// Several processes of one name share the events; the order stays.
func TestConsumerShared(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	a := newAccount(t, srv)
	var mu sync.Mutex
	var got []string
	together := func(_ context.Context, e *queue.Received) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, e.ID)
		return nil
	}
	one := consume(t, queuetest.Conn(t, srv), queue.ConsumerConfig{Name: "shop"}, together)
	two := consume(t, queuetest.Conn(t, srv), queue.ConsumerConfig{Name: "shop"}, together)
	want := store(t, a.js, 0, 500)
	one.dealt(1)
	if err := one.end(); err != nil {
		t.Error(err)
	}
	two.dealt(len(want) - len(one.got))
	if err := two.end(); err != nil {
		t.Error(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d events, or not in order", len(got))
	}
}

// In parallel, so many are dealt with at once, and no more.
func TestConsumerParallel(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	inside, release := make(chan struct{}, 100), make(chan struct{})
	r := consume(t, a.nc, queue.ConsumerConfig{Name: "shop", Parallel: 4}, func(context.Context, *queue.Received) error {
		inside <- struct{}{}
		<-release
		return nil
	})
	want := store(t, a.js, 0, 100)
	for range 4 {
		<-inside
	}
	info, err := a.js.Consumer(t.Context(), a.topology.Records(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	if n := info.CachedInfo().NumAckPending; n != 4 || len(inside) != 0 {
		t.Errorf("%d are under way, want 4", n)
	}
	close(release)
	got := r.dealt(100)
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("got %d events", len(got))
	}
}

// Each way in which a handler fails has its consequence, and is heard of.
func TestConsumerFailures(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	broken := errors.New("broken")
	attempts := make(map[string]int)
	var waited []time.Duration
	var last time.Time
	r := consume(t, a.nc, queue.ConsumerConfig{Name: "shop", RetryMin: 20 * time.Millisecond, RetryMax: 40 * time.Millisecond, MaxAttempts: 4},
		func(_ context.Context, e *queue.Received) error {
			attempts[e.ID]++
			if attempts[e.ID] != e.Attempt {
				t.Errorf("%s: attempt %d says that it is %d", e.ID, attempts[e.ID], e.Attempt)
			}
			switch e.ID {
			case "e-0": // fails for ever
				waited = append(waited, time.Since(last))
				last = time.Now()
				return broken
			case "e-1": // is not wanted
				return fmt.Errorf("unknown: %w", queue.ErrSkip)
			case "e-2": // panics once
				if e.Attempt == 1 {
					panic("ouch")
				}
			}
			return nil
		})
	store(t, a.js, 0, 4)
	got := r.dealt(2)
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if !slices.Equal(got, []string{"e-2", "e-3"}) {
		t.Errorf("got %q", got)
	}
	if diff := cmp.Diff(map[string]int{"e-0": 4, "e-1": 1, "e-2": 2, "e-3": 1}, attempts); diff != "" {
		t.Error(diff)
	}
	for i, least := range []time.Duration{0, 20 * time.Millisecond, 40 * time.Millisecond, 40 * time.Millisecond} {
		if waited[i] < least {
			t.Errorf("attempt %d came after %v, want at least %v", i+1, waited[i], least)
		}
	}
	if len(r.errs) != 6 {
		t.Fatalf("heard %v", r.errs)
	}
	for i, err := range r.errs[:4] {
		if !errors.Is(err, broken) || errors.Is(err, queue.ErrGaveUp) != (i == 3) {
			t.Errorf("error %d is %v", i, err)
		}
	}
	panicked, ok := errors.AsType[*queue.PanicError](r.errs[5])
	if !errors.Is(r.errs[4], queue.ErrSkip) || !ok || panicked.Value != "ouch" || len(panicked.Stack) == 0 {
		t.Errorf("heard %v", r.errs[4:])
	}
}

// A handler that takes longer than AckWait keeps its event.
func TestConsumerProgress(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	a := newAccount(t, srv)
	cfg := queue.ConsumerConfig{Name: "shop", AckWait: 2 * time.Second}
	slow := func(context.Context, *queue.Received) error {
		<-time.After(5 * time.Second)
		return nil
	}
	one := consume(t, a.nc, cfg, slow)
	two := consume(t, queuetest.Conn(t, srv), cfg, slow)
	store(t, a.js, 0, 1)
	select {
	case <-one.next():
	case <-two.next():
	}
	if err := errors.Join(one.end(), two.end()); err != nil {
		t.Error(err)
	}
	if got := append(one.got, two.got...); len(got) != 1 {
		t.Errorf("it was dealt with %d times", len(got))
	}
}

// A consumer that is told to stop lets its handler finish, and acknowledges; what
// it holds besides comes to the next one at once.
func TestConsumerStops(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	cfg := queue.ConsumerConfig{Name: "shop", AckWait: time.Hour}
	inside, release := make(chan struct{}), make(chan struct{})
	one := consume(t, a.nc, cfg, func(ctx context.Context, _ *queue.Received) error {
		close(inside)
		<-release
		return ctx.Err()
	})
	store(t, a.js, 0, 3)
	<-inside
	one.stop()
	close(release)
	if err := one.ended(); err != nil || !slices.Equal(one.got, []string{"e-0"}) {
		t.Errorf("got %q, %v", one.got, err)
	}

	// One whose handler does not end in its grace is told so, and the event is not lost.
	cfg.Grace = 10 * time.Millisecond
	inside = make(chan struct{})
	two := consume(t, a.nc, cfg, func(ctx context.Context, _ *queue.Received) error {
		close(inside)
		<-ctx.Done()
		return ctx.Err()
	})
	<-inside
	if err := two.end(); err != nil || len(two.got) != 0 {
		t.Errorf("got %q, %v", two.got, err)
	}
	three := consume(t, a.nc, cfg, nil)
	if got := three.dealt(2); !slices.Equal(got, []string{"e-1", "e-2"}) {
		t.Errorf("got %q", got)
	}
	// One that is told before it begins does nothing.
	c, err := queue.NewConsumer(a.nc, "main", cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx, nil); err != nil {
		t.Error(err)
	}
}

// A durable consumer that is deleted is not made anew behind its user's back.
func TestConsumerGone(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	r := consume(t, a.nc, queue.ConsumerConfig{Name: "shop", AckWait: time.Second}, nil)
	store(t, a.js, 0, 1)
	r.dealt(1)
	if err := a.js.DeleteConsumer(t.Context(), a.topology.Records(), "shop"); err != nil {
		t.Fatal(err)
	}
	if err := r.ended(); !errors.Is(err, queue.ErrConsumerGone) {
		t.Errorf("got %v, want ErrConsumerGone", err)
	}
	if _, err := a.js.Consumer(t.Context(), a.topology.Records(), "shop"); !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.Errorf("got %v, want that there is none", err)
	}
}

func TestConsumerConfig(t *testing.T) {
	t.Parallel()
	nc := queuetest.Conn(t, queuetest.Server(t))
	for name, cfg := range map[string]queue.ConsumerConfig{
		"no name":           {},
		"a dot":             {Name: "shop.1"},
		"internal subjects": {Name: "shop", Subjects: []string{"wz.main.>"}},
		"another account":   {Name: "shop", Subjects: []string{"wazzup.second.evt.>"}},
		"everything":        {Name: "shop", Subjects: []string{">"}},
		"a chat's subject":  {Name: "shop", Subjects: []string{"wazzup.second.evt.message.in.x.whatsapp.79998887766"}},
		"no subject":        {Name: "shop", Subjects: []string{"wazzup.main.evt..>"}},
		"white space":       {Name: "shop", Subjects: []string{"wazzup.main.evt.message.in.x y"}},
		"negative":          {Name: "shop", Parallel: -1},
	} {
		if _, err := queue.NewConsumer(nc, "main", cfg); err == nil || strings.Contains(err.Error(), "7999") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	c, err := queue.NewConsumer(nc, "main", queue.ConsumerConfig{Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(t.Context(), nil); !errors.Is(err, queue.ErrNoStream) {
		t.Errorf("without a stream: got %v, want ErrNoStream", err)
	}
}

// A NATS user who may do no more than read with consumers of certain names reads
// with those, and is told where it may not.
func TestConsumerRights(t *testing.T) {
	t.Parallel()
	const records = "wazzup-main-records"
	srv := limitedServer(t, &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			"$JS.API.CONSUMER.INFO." + records + ".shop", "$JS.API.CONSUMER.CREATE." + records + ".shop.wazzup.main.evt.message.>",
			"$JS.API.CONSUMER.MSG.NEXT." + records + ".shop", "$JS.ACK." + records + ".shop.>",
			"$JS.API.CONSUMER.INFO." + records + ".made", "$JS.API.CONSUMER.MSG.NEXT." + records + ".made", "$JS.ACK." + records + ".made.>",
			"$JS.API.CONSUMER.INFO." + records + ".unread",
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	})
	admin, limited := srv.login(t, "admin"), srv.login(t, "limited")
	js, err := jetstream.New(admin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Ensure(t.Context(), js, "main", small()); err != nil {
		t.Fatal(err)
	}
	messages := []string{schema.FamilySubjects("main", schema.FamilyMessage)}
	for _, name := range []string{"made", "unread"} {
		c, err := queue.NewConsumer(admin, "main", queue.ConsumerConfig{Name: name})
		if err != nil || c.Ensure(t.Context()) != nil {
			t.Fatal("not made", err)
		}
	}
	own := consume(t, limited, queue.ConsumerConfig{Name: "shop", Subjects: messages}, nil)
	made := consume(t, limited, queue.ConsumerConfig{Name: "made"}, nil)
	store(t, js, 0, 10)
	own.dealt(10)
	made.dealt(10)
	for name, cfg := range map[string]queue.ConsumerConfig{
		"another name":     {Name: "other"},
		"other subjects":   {Name: "shop"},
		"another's config": {Name: "made", Parallel: 2},
	} {
		c, err := queue.NewConsumer(limited, "main", cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Ensure(bounded(t)); !errors.Is(err, queue.ErrForbidden) {
			t.Errorf("%s: got %v, want ErrForbidden", name, err)
		}
	}
	if err := consume(t, limited, queue.ConsumerConfig{Name: "unread"}, nil).ended(); !errors.Is(err, queue.ErrForbidden) {
		t.Errorf("without the right to read: got %v, want ErrForbidden", err)
	}
	if err := errors.Join(own.end(), made.end()); err != nil {
		t.Error(err)
	}
}
