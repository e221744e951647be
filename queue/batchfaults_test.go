package queue_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// listen takes an account's messages in place of its stream, and says nothing.
func listen(t *testing.T, nc *nats.Conn, account string, do func()) {
	t.Helper()
	if _, err := nc.Subscribe(schema.SendSubject(account, schema.KindSend, "*"), func(*nats.Msg) { do() }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil { // before others publish
		t.Fatal(err)
	}
}

// Where one of a line is not stored, what comes after it is not published: it would
// overtake.
func TestPublishAllStopsALine(t *testing.T) {
	t.Parallel()
	srv := limitedServer(t, &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{schema.SyncSubject("main", schema.EntityContacts, schema.VerbUpsert), "wazzup.main.cmd.sync.users.>"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	})
	js, err := jetstream.New(srv.login(t, "admin"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Ensure(t.Context(), js, "main", small()); err != nil {
		t.Fatal(err)
	}
	contact := map[string]any{"id": "5", "name": "Anna"}
	results, err := newPublisher(t, srv.login(t, "limited"), "main").PublishAll(bounded(t), []queue.Command{
		{Kind: schema.KindContactsUpsert, Sync: syncOf(t, contact)},
		{Kind: schema.KindContactsDelete, Sync: syncOf(t, "5")},
		{Kind: schema.KindContactsUpsert, Sync: syncOf(t, contact)},
		{Kind: schema.KindUsersUpsert, Sync: syncOf(t, contact)},
		{Kind: schema.KindContactsUpsert, Sync: syncOf(t, contact)},
	})
	if !errors.Is(err, queue.ErrForbidden) || !errors.Is(results[1].Err, queue.ErrForbidden) {
		t.Errorf("got %v and %v, want ErrForbidden", err, results[1].Err)
	}
	for _, i := range []int{2, 4} {
		if err := results[i].Err; err == nil || errors.Is(err, queue.ErrUnconfirmed) || results[i].Seq != 0 {
			t.Errorf("what comes after it: got %+v", results[i])
		}
	}
	if results[0].Err != nil || results[3].Err != nil {
		t.Errorf("what does not: got %v and %v", results[0].Err, results[3].Err)
	}
	if n := len(commands(t, js)); n != 2 {
		t.Errorf("%d are stored, want 2", n)
	}
}

// One that is too large never fits, and so keeps nobody back.
func TestPublishAllTooLarge(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t, queuetest.WithMaxPayload(4096)))
	results, err := newPublisher(t, a.nc, "main").PublishAll(bounded(t), []queue.Command{
		{Kind: schema.KindSend, Message: text("a", "79998887766", strings.Repeat("x", 5000))},
		{Kind: schema.KindSend, Message: text("b", "79998887766", "x")},
	})
	if !errors.Is(err, queue.ErrTooLarge) || !errors.Is(results[0].Err, queue.ErrTooLarge) || results[1].Err != nil {
		t.Errorf("got %v, %+v", err, results)
	}
}

// A connection that is closed does not come back: nothing waits for it, though the
// context has no end.
func TestPublishConnectionClosed(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	command := queue.Command{Kind: schema.KindSend, Message: text("a", "79998887766", "x")}
	finished := func(what string, do func() error) {
		done := make(chan error, 1)
		go func() { done <- do() }()
		select {
		case err := <-done:
			if !errors.Is(err, nats.ErrConnectionClosed) {
				t.Errorf("%s: got %v, want that the connection is closed", what, err)
			}
		case <-bounded(t).Done():
			t.Errorf("%s does not end", what)
		}
	}

	// What was on its way when the connection was closed may be stored, and is here.
	closes := queuetest.Conn(t, a.srv)
	listen(t, a.nc, "silent", closes.Close)
	_, err := newPublisher(t, closes, "silent").Publish(t.Context(), command)
	if !errors.Is(err, queue.ErrUnconfirmed) || !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("closed before the PubAck: got %v, want ErrUnconfirmed", err)
	}

	nc := queuetest.Conn(t, a.srv)
	waits := newPublisher(t, nc, "main")
	waits.SetQuiet(10 * time.Millisecond)
	a.onCommand(t, func(int, string) { nc.Close() })
	finished("waiting for the outcome", func() error {
		_, err := waits.PublishAndWait(context.WithoutCancel(t.Context()), command)
		return err
	})
	finished("a batch", func() error {
		results, err := waits.PublishAll(context.WithoutCancel(t.Context()), []queue.Command{command, command})
		if errors.Is(err, queue.ErrUnconfirmed) || !errors.Is(results[0].Err, nats.ErrConnectionClosed) {
			t.Errorf("got %v", results[0].Err)
		}
		return err
	})
}

// A right that was missing and is given is not missing any more: no PubAck then means
// that the command may be stored.
func TestPublishRightGiven(t *testing.T) {
	t.Parallel()
	rights := func(subjects ...string) *server.Permissions {
		return &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: subjects},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}
	}
	srv := limitedServer(t, rights("wazzup.a.cmd.>"))
	nc := srv.login(t, "limited")
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	// Somebody takes the command, and says nothing.
	listen(t, srv.login(t, "admin"), "b", func() {})
	p := newPublisher(t, nc, "b")
	if _, err := p.SendMessage(short(), text("x", "79998887766", "x")); !errors.Is(err, queue.ErrForbidden) {
		t.Fatalf("got %v, want ErrForbidden", err)
	}
	srv.give(t, rights("wazzup.b.cmd.>"))
	if _, err := p.SendMessage(short(), text("x", "79998887766", "x")); !errors.Is(err, queue.ErrUnconfirmed) {
		t.Errorf("got %v, want ErrUnconfirmed", err)
	}
}

// An id that a header cannot carry as it is is refused, as the worker would or worse:
// the command would have another id than its receipt says.
func TestPublishIDInHeader(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	p := newPublisher(t, a.nc, "main")
	for name, id := range map[string]string{
		"too long": strings.Repeat("x", 257), "no UTF-8": "\xff", "a line break": "a\r\nWazzup-Reply-To: x", "white space around it": " a",
	} {
		_, err := p.SendMessage(t.Context(), text("", "79998887766", "x"), queue.WithID(id))
		invalid, ok := errors.AsType[*schema.InvalidCommandError](err)
		if !ok || invalid.Faults[0].Field != schema.HeaderMsgID || strings.Contains(err.Error(), id) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if n := len(commands(t, a.js)); n != 0 {
		t.Errorf("%d are stored", n)
	}
	if _, err := p.SendMessage(t.Context(), text("a", "79998887766", "x"), queue.WithID(" b")); err != nil {
		t.Errorf("an id that does not count: %v", err)
	}
}

// What may be stored by a first try is not said to be unstored because a later one is
// forbidden; what was never tried is.
func TestPublishAllForbiddenLater(t *testing.T) {
	t.Parallel()
	inboxes := &server.SubjectPermission{Allow: []string{"_INBOX.>"}}
	srv := limitedServer(t, &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{"wazzup.b.cmd.>"}}, Subscribe: inboxes})
	w := new(wire)
	nc := srv.login(t, "limited", nats.SetCustomDialer(w), nats.ReconnectWait(10*time.Millisecond))
	taken := make(chan struct{}, 1)
	listen(t, srv.login(t, "admin"), "b", func() { taken <- struct{}{} })
	go func() {
		<-taken
		srv.give(t, &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{"nothing"}}, Subscribe: inboxes})
		w.set(true)
		w.set(false)
	}()
	results, err := newPublisher(t, nc, "b").PublishAll(bounded(t), []queue.Command{
		{Kind: schema.KindSend, Message: text("x", "79998887766", "x")}, {Kind: schema.KindSend, Message: text("y", "79998887766", "y")},
	})
	if !errors.Is(err, queue.ErrForbidden) || !errors.Is(err, queue.ErrUnconfirmed) {
		t.Errorf("got %v, want ErrForbidden and ErrUnconfirmed", err)
	}
	if err := results[1].Err; !errors.Is(err, queue.ErrForbidden) || errors.Is(err, queue.ErrUnconfirmed) {
		t.Errorf("the next: got %v, want ErrForbidden alone", err)
	}
}

// A stream that is missing for a moment is waited for, however often a command was
// published before for other reasons.
func TestPublishAllStreamComesBack(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	a.limitCommands(t, 10) // nothing fits
	publishes := make(chan struct{}, 100)
	nc := queuetest.Conn(t, a.srv)
	sub, err := a.nc.Subscribe(schema.SendSubject("main", schema.KindSend, "*"), func(*nats.Msg) { publishes <- struct{}{} })
	if err != nil || a.nc.Flush() != nil {
		t.Fatal("not subscribed", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := newPublisher(t, nc, "main").PublishAll(bounded(t), []queue.Command{{Kind: schema.KindSend, Message: text("a", "79998887766", "x")}})
		done <- err
	}()
	for range 5 {
		<-publishes
	}
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	if err := a.js.DeleteStream(t.Context(), a.topology.Commands()); err != nil {
		t.Fatal(err)
	}
	sent := nc.Stats().OutMsgs
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	const asks = 3 // of one try: nats.go repeats what meets nobody
	for nc.Stats().OutMsgs <= sent+asks {
		select {
		case err := <-done:
			t.Fatalf("got %v", err)
		case <-tick.C:
		}
	}
	if _, err := queue.Ensure(t.Context(), a.js, "main", small()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
