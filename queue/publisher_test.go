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

func newPublisher(t *testing.T, nc *nats.Conn, account string) *queue.Publisher {
	t.Helper()
	p, err := queue.NewPublisher(nc, account)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func text(id, chat, text string) *schema.SendCommand {
	return schema.NewText(id, channel, schema.ChatWhatsApp, chat, text)
}

func syncOf(t *testing.T, items ...any) *schema.SyncCommand {
	t.Helper()
	c, err := schema.NewSync(items...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// commands reads what the account's command stream holds, in stored order.
func commands(t *testing.T, js jetstream.JetStream) []*jetstream.RawStreamMsg {
	t.Helper()
	stream, err := js.Stream(t.Context(), queue.Names{Account: "main"}.Commands())
	if err != nil {
		t.Fatal(err)
	}
	var all []*jetstream.RawStreamMsg
	state := stream.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// Every kind is stored where its worker looks for it, is valid there, and has an
// id that the receipt tells.
func TestPublish(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	p := newPublisher(t, a.nc, "main")
	user := map[string]any{"id": "5", "name": "Anna"}
	for name, publish := range map[string]struct {
		kind schema.Kind
		do   func() (queue.Receipt, error)
	}{
		"send": {schema.KindSend, func() (queue.Receipt, error) {
			return p.SendMessage(t.Context(), text("a", "79998887766", "hello"), queue.WithID("loses"))
		}},
		"bulk": {schema.KindBulk, func() (queue.Receipt, error) { return p.SendBulk(t.Context(), text("", "79998887766", "hello")) }},
		"upsert": {schema.KindUsersUpsert, func() (queue.Receipt, error) {
			return p.Upsert(t.Context(), schema.EntityUsers, syncOf(t, user), queue.WithID("users-v7"))
		}},
		"replace": {schema.KindUsersReplace, func() (queue.Receipt, error) { return p.ReplaceUsers(t.Context(), syncOf(t, user)) }},
		"delete":  {schema.KindDealsDelete, func() (queue.Receipt, error) { return p.Delete(t.Context(), schema.EntityDeals, syncOf(t, 17)) }},
	} {
		r, err := publish.do()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		stream, err := a.js.Stream(t.Context(), r.Stream)
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.GetMsg(t.Context(), r.Seq)
		if err != nil {
			t.Fatal(err)
		}
		kind, channelID, ok := schema.ParseCommandSubject("main", m.Subject)
		if !ok || kind != publish.kind {
			t.Errorf("%s was published to %s", name, m.Subject)
		}
		c, faults := schema.Decode("main", kind, channelID, m.Data)
		if len(faults) > 0 {
			t.Errorf("%s: %v", name, faults)
		}
		id := c.ID
		if id == "" {
			id = m.Header.Get(schema.HeaderMsgID)
		}
		if id == "" || id != r.ID || r.Tries != 1 {
			t.Errorf("%s has the id %q, its receipt is %+v", name, id, r)
		}
		if want := map[string]string{"send": "a", "upsert": "users-v7"}[name]; want != "" && id != want {
			t.Errorf("%s has the id %q, want %q", name, id, want)
		}
	}
}

// What breaks a rule is named by its field, and nothing is stored.
func TestPublishChecksFirst(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	p := newPublisher(t, a.nc, "main")
	for name, tt := range map[string]struct {
		command queue.Command
		field   string
		code    string
	}{
		"a phone number": {queue.Command{Kind: schema.KindSend, Message: text("", "89998887766", "x")}, "chatId", schema.FaultWhatsAppChatID},
		"a channel":      {queue.Command{Kind: schema.KindBulk, Message: schema.NewText("", "x.y", "whatsapp", "79998887766", "x")}, "channelId", schema.FaultNotAUUID},
		"nothing":        {queue.Command{Kind: schema.KindSend}, "", schema.FaultUnknownKind},
		"no kind":        {queue.Command{Message: text("", "79998887766", "x")}, "", schema.FaultUnknownKind},
		"a kind of sync": {queue.Command{Kind: schema.KindUsersDelete, Message: text("", "79998887766", "x")}, "", schema.FaultUnknownKind},
		"both":           {queue.Command{Kind: schema.KindSend, Message: text("", "79998887766", "x"), Sync: syncOf(t, 1)}, "", schema.FaultUnknownKind},
		"replace deals":  {queue.Command{Kind: schema.SyncKind(schema.EntityDeals, schema.VerbReplace), Sync: syncOf(t)}, "", schema.FaultUnknownKind},
		"an item":        {queue.Command{Kind: schema.KindContactsUpsert, Sync: syncOf(t, map[string]any{"name": "Anna"})}, "items[0].id", schema.FaultRequired},
	} {
		_, err := p.Publish(t.Context(), tt.command)
		invalid, ok := errors.AsType[*schema.InvalidCommandError](err)
		if !ok || invalid.Faults[0].Field != tt.field || invalid.Faults[0].Code != tt.code {
			t.Errorf("%s: got %v, want %s %s", name, err, tt.field, tt.code)
		}
		if _, waitErr := p.PublishAndWait(t.Context(), tt.command); !errors.As(waitErr, &invalid) {
			t.Errorf("%s, waiting: got %v", name, waitErr)
		}
	}
	if all := commands(t, a.js); len(all) > 0 {
		t.Errorf("%d commands were stored", len(all))
	}
}

// Each way in which publishing fails is an error of its own.
func TestPublishFaults(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t, queuetest.WithMaxPayload(4096)))
	p := newPublisher(t, a.nc, "main")
	one := text("one", "79998887766", "x")

	if _, err := newPublisher(t, a.nc, "nobody").SendMessage(t.Context(), one); !errors.Is(err, queue.ErrNoStream) {
		t.Errorf("another account: got %v, want ErrNoStream", err)
	}
	if _, err := p.SendMessage(t.Context(), text("long", "79998887766", strings.Repeat("x", 5000))); !errors.Is(err, queue.ErrTooLarge) {
		t.Errorf("a large payload: got %v, want ErrTooLarge", err)
	}

	// Somebody listens there and does not answer, as a server that dies does.
	if _, err := a.nc.Subscribe(schema.SendSubject("silent", schema.KindSend, "*"), func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := newPublisher(t, a.nc, "silent").SendMessage(ctx, one)
	if !errors.Is(err, queue.ErrUnconfirmed) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: got %v, want ErrUnconfirmed after the deadline", err)
	}

	a.limitCommands(t, 2000)
	var stored int
	for err = nil; err == nil; stored++ {
		_, err = p.SendMessage(t.Context(), one)
	}
	if !errors.Is(err, queue.ErrFull) || stored < 2 {
		t.Errorf("a full stream: got %v after %d, want ErrFull", err, stored)
	}

	a.nc.Close()
	if _, err := p.SendMessage(t.Context(), one); !errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, queue.ErrUnconfirmed) {
		t.Errorf("a closed connection: got %v", err)
	}
}

// limitCommands gives the command stream so many bytes.
func (a *account) limitCommands(t *testing.T, size int64) {
	t.Helper()
	stream, err := a.js.Stream(t.Context(), a.topology.Commands())
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxBytes = size
	if _, err := a.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// A NATS user without the right to publish is told so, and not that time is over.
func TestPublishForbidden(t *testing.T) {
	t.Parallel()
	srv := limitedServer(t, &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"wazzup.a.cmd.>"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	})
	nc := srv.login(t, "limited")
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	command := text("x", "79998887766", "x")
	if _, err := newPublisher(t, nc, "b").SendMessage(short(), command); !errors.Is(err, queue.ErrForbidden) {
		t.Errorf("the account b: got %v, want ErrForbidden", err)
	}
	if _, err := newPublisher(t, nc, "a").SendMessage(short(), command); !errors.Is(err, queue.ErrNoStream) {
		t.Errorf("the account a: got %v, want ErrNoStream", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	results, err := newPublisher(t, nc, "b").PublishAll(ctx, []queue.Command{
		{Kind: schema.KindSend, Message: command}, {Kind: schema.KindSend, Message: command},
	})
	if !errors.Is(err, queue.ErrForbidden) || !errors.Is(results[1].Err, queue.ErrForbidden) {
		t.Errorf("a batch: got %v", err)
	}
}

// limited is a server with the user "admin", who may do everything, and one with
// few rights.
type limited struct {
	url  string
	srv  *server.Server
	opts *server.Options
}

func limitedServer(t *testing.T, rights *server.Permissions) *limited {
	t.Helper()
	opts := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 1 << 30,
		Users: limitedUsers(rights),
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("the server did not start")
	}
	return &limited{srv.ClientURL(), srv, opts}
}

func limitedUsers(rights *server.Permissions) []*server.User {
	return []*server.User{
		{Username: "admin", Password: "secret"},
		{Username: "limited", Password: "secret", Permissions: rights},
	}
}

// give gives the user other rights while the server runs.
func (l *limited) give(t *testing.T, rights *server.Permissions) {
	t.Helper()
	opts := l.opts.Clone()
	opts.Users = limitedUsers(rights)
	if err := l.srv.ReloadOptions(opts); err != nil {
		t.Error(err)
	}
}

func (l *limited) login(t *testing.T, user string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	opts = append(opts, nats.UserInfo(user, "secret"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	nc, err := nats.Connect(l.url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// The options reach the message.
func TestPublishOptions(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	_, err := newPublisher(t, a.nc, "main").SendMessage(t.Context(), text("", "79998887766", "x"),
		queue.WithID("mine"), queue.WithReplyTo("wazzup.main.reply.shop"), queue.WithHeader("X-Shop", "1"))
	if err != nil {
		t.Fatal(err)
	}
	h := commands(t, a.js)[0].Header
	for name, want := range map[string]string{schema.HeaderMsgID: "mine", schema.HeaderReplyTo: "wazzup.main.reply.shop", "X-Shop": "1"} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
