package queue_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// say publishes an event of a command where its producer listens, as the worker
// does.
func (a *account) say(t *testing.T, to string, e schema.CommandEvent) {
	t.Helper()
	body, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.nc.Publish(to, body); err != nil {
		t.Fatal(err)
	}
}

// onCommand calls back with each command that is published, in place of a worker.
func (a *account) onCommand(t *testing.T, do func(n int, replyTo string)) {
	t.Helper()
	n := 0
	if _, err := a.nc.Subscribe(schema.SendSubject("main", schema.KindSend, "*"), func(m *nats.Msg) {
		n++
		do(n, m.Header.Get(schema.HeaderReplyTo))
	}); err != nil {
		t.Fatal(err)
	}
	if err := a.nc.Flush(); err != nil { // before others publish
		t.Fatal(err)
	}
}

func TestPublishAndWait(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	a.onCommand(t, func(_ int, to string) {
		a.say(t, to, schema.CommandEvent{ID: "a", State: schema.StateRetrying, Seq: 1})
		if err := a.nc.Publish(to, []byte("noise")); err != nil {
			t.Error(err)
		}
		a.say(t, to, schema.CommandEvent{ID: "a", State: schema.StateRejected, Seq: 1, Error: &schema.Error{Code: "CHAT_WRONG_CHAT_TYPE"}})
	})
	var heard []schema.State
	got, err := newPublisher(t, queuetest.Conn(t, a.srv), "main").PublishAndWait(
		t.Context(), queue.Command{Kind: schema.KindSend, Message: text("a", "79998887766", "x")},
		queue.WithEvents(func(e *schema.CommandEvent) { heard = append(heard, e.State) }),
	)
	if err != nil {
		t.Fatal(err)
	}
	if got.Event.State != schema.StateRejected || got.Event.Error.Code != "CHAT_WRONG_CHAT_TYPE" || got.ID != "a" || got.Seq != 1 {
		t.Errorf("got %+v %+v", got.Receipt, got.Event)
	}
	if len(heard) != 2 || heard[0] != schema.StateRetrying || heard[1] != schema.StateRejected {
		t.Errorf("heard %q", heard)
	}
}

// A user whose inboxes have a form that no command may name waits elsewhere.
func TestPublishAndWaitInbox(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	named := make(chan string, 1)
	a.onCommand(t, func(_ int, to string) {
		named <- to
		a.say(t, to, schema.CommandEvent{ID: "a", State: schema.StateSent, Seq: 1})
	})
	for prefix, want := range map[string]string{"_INBOX.shop": "_INBOX.shop.", "_INBOX_shop": "wazzup.main.reply."} {
		nc := queuetest.Conn(t, a.srv, nats.CustomInboxPrefix(prefix))
		if _, err := newPublisher(t, nc, "main").PublishAndWait(bounded(t), queue.Command{Kind: schema.KindSend, Message: text("a", "79998887766", "x")}); err != nil {
			t.Fatal(err)
		}
		if got := <-named; !strings.HasPrefix(got, want) {
			t.Errorf("inboxes of %s: it named %s, want %s…", prefix, got, want)
		}
	}
}

// A command that has not ended in time is stored all the same, and the receipt
// says where.
func TestPublishAndWaitNotEnded(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	got, err := newPublisher(t, a.nc, "main").PublishAndWait(ctx, queue.Command{Kind: schema.KindSend, Message: text("a", "79998887766", "x")})
	if !errors.Is(err, queue.ErrNotEnded) || !errors.Is(err, context.DeadlineExceeded) || got.Seq != 1 || got.Event != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	if n := len(commands(t, a.js)); n != 1 {
		t.Errorf("%d commands are stored", n)
	}
	// Nobody takes it: that is another matter.
	if _, err := newPublisher(t, a.nc, "nobody").PublishAndWait(t.Context(), queue.Command{Kind: schema.KindSend, Message: text("a", "79998887766", "x")}); !errors.Is(err, queue.ErrNoStream) {
		t.Errorf("got %v, want ErrNoStream", err)
	}
}

// An event whose copy got lost is asked for.
func TestPublishAndWaitLostEvent(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		seq  uint64 // of the command that has the id
		ends bool
	}{
		"ours":            {1, true},
		"another command": {9, false},
	} {
		a := newAccount(t, queuetest.Server(t))
		asked := 0
		serve(t, a.nc, "command.get", func(r micro.Request) {
			asked++
			steps := []map[string]any{{"step": "stored"}, {"step": "claim"}}
			if asked > 1 { // it ends while its producer waits
				steps = append(
					steps, map[string]any{"event": schema.CommandEvent{ID: "a", State: schema.StateSent, Seq: tt.seq, MessageID: "m"}},
					map[string]any{"event": schema.CommandEvent{ID: "a", State: schema.StateRead, Seq: tt.seq}},
				)
			}
			if err := r.RespondJSON(map[string]any{"id": "a", "seq": tt.seq, "timeline": steps}); err != nil {
				t.Error(err)
			}
		})
		p := newPublisher(t, a.nc, "main")
		p.SetQuiet(20 * time.Millisecond)
		wait := time.Minute
		if !tt.ends {
			wait = 2 * time.Second
		}
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		got, err := p.PublishAndWait(ctx, queue.Command{Kind: schema.KindSend, Message: text("a", "79998887766", "x")})
		cancel()
		if ended := err == nil && got.Event.State == schema.StateSent && got.Event.MessageID == "m"; ended != tt.ends {
			t.Errorf("%s: got %+v, %v", name, got.Event, err)
		}
		if !tt.ends && !errors.Is(err, queue.ErrNotEnded) {
			t.Errorf("%s: got %v, want ErrNotEnded", name, err)
		}
	}
}

// A command that was published twice, since the first PubAck was lost, has the
// outcome of the one that is carried out, not that of its copy.
func TestPublishAndWaitTwice(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	pending := &schema.Original{State: schema.StatePending, Seq: 1}
	// The stream is away at first: somebody else takes the command and does not answer.
	if err := a.js.DeleteStream(t.Context(), a.topology.Commands()); err != nil {
		t.Fatal(err)
	}
	again := make(chan struct{})
	a.onCommand(t, func(n int, to string) {
		switch n {
		case 1:
			close(again)
		case 2:
			a.say(t, to, schema.CommandEvent{ID: "a", State: schema.StateDuplicate, Seq: 2, Original: pending})
			a.say(t, to, schema.CommandEvent{ID: "a", State: schema.StateSent, Seq: 1, MessageID: "m"})
		}
	})
	go func() {
		<-again
		if _, err := queue.Ensure(context.WithoutCancel(t.Context()), a.js, "main", small()); err != nil {
			t.Error(err)
		}
	}()
	got, err := newPublisher(t, a.nc, "main").PublishAndWait(bounded(t), queue.Command{Kind: schema.KindSend, Message: text("a", "79998887766", "x")})
	if err != nil {
		t.Fatal(err)
	}
	if got.Tries != 2 || got.Event.State != schema.StateSent || got.Event.MessageID != "m" {
		t.Errorf("got %+v %+v", got.Receipt, got.Event)
	}

	// A duplicate of somebody else's command is the outcome.
	var seq uint64
	a.onCommand(t, func(_ int, to string) {
		a.say(t, to, schema.CommandEvent{ID: "b", State: schema.StateDuplicate, Seq: seq, Original: pending})
	})
	got, err = newPublisher(t, a.nc, "main").PublishAndWait(bounded(t), queue.Command{Kind: schema.KindSend, Message: text("b", "79998887766", "x")})
	if err != nil || got.Event.State != schema.StateDuplicate {
		t.Errorf("got %+v, %v", got.Event, err)
	}
}

// The end is not kept waiting by a worker that is asked and does not answer.
func TestPublishAndWaitWhileAsking(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	inbox := make(chan string, 1)
	a.onCommand(t, func(_ int, to string) { inbox <- to })
	asked := make(chan time.Time, 1)
	if _, err := a.nc.Subscribe(schema.APISubject("main", "command.get"), func(*nats.Msg) {
		asked <- time.Now()
		a.say(t, <-inbox, schema.CommandEvent{ID: "a", State: schema.StateSent, Seq: 1})
	}); err != nil {
		t.Fatal(err)
	}
	p := newPublisher(t, a.nc, "main")
	const quiet = 6 * time.Second
	p.SetQuiet(quiet)
	got, err := p.PublishAndWait(bounded(t), queue.Command{Kind: schema.KindSend, Message: text("a", "79998887766", "x")})
	if err != nil || got.Event.State != schema.StateSent {
		t.Fatalf("got %+v, %v", got.Event, err)
	}
	if took := time.Since(<-asked); took > quiet-time.Second {
		t.Errorf("the event was looked at after %v", took)
	}
}
