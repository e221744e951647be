package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// campaign makes n bulk messages for so many chats, in mixed order; the text
// numbers the messages of a chat.
func campaign(n, chats int) []queue.Command {
	all := make([]queue.Command, n)
	next := make([]int, chats)
	for i := range all {
		chat := rand.IntN(chats)
		all[i] = queue.Command{Kind: schema.KindBulk, Message: text(fmt.Sprintf("c-%d", i), strconv.Itoa(79990000000+chat), strconv.Itoa(next[chat]))}
		next[chat]++
	}
	return all
}

// inOrder fails where the messages of a chat were first stored out of order, or
// not at all, and returns how many were stored.
func inOrder(t *testing.T, stored []*jetstream.RawStreamMsg, want []queue.Command) int {
	t.Helper()
	seen := make(map[string]bool)
	got := make(map[string][]string) // by chat
	for _, m := range stored {
		kind, channelID, _ := schema.ParseCommandSubject("main", m.Subject)
		c, faults := schema.Decode("main", kind, channelID, m.Data)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		if !seen[c.ID] {
			seen[c.ID] = true
			got[c.Message.ChatID] = append(got[c.Message.ChatID], c.Message.Text)
		}
	}
	wanted := make(map[string][]string)
	for _, c := range want {
		wanted[c.Message.ChatID] = append(wanted[c.Message.ChatID], c.Message.Text)
	}
	for chat, texts := range wanted {
		if !slices.Equal(got[chat], texts) {
			t.Errorf("chat %s: got %q, want %q", chat, got[chat], texts)
		}
	}
	return len(stored)
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Thousands are stored, each with a result of its own, and each chat in order.
func TestPublishAll(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	all := campaign(5000, 40)
	results, err := newPublisher(t, a.nc, "main").PublishAll(bounded(t), all, queue.WithInFlight(16))
	if err != nil {
		t.Fatal(err)
	}
	stored := commands(t, a.js)
	if n := inOrder(t, stored, all); n != len(all) {
		t.Errorf("%d are stored, want %d", n, len(all))
	}
	for i, r := range results {
		if r.Err != nil || r.ID != all[i].Message.ID || r.Tries != 1 || r.Seq == 0 || r.Stream != a.topology.Commands() {
			t.Fatalf("result %d is %+v", i, r)
		}
		c, _ := schema.Decode("main", schema.KindBulk, channel, stored[r.Seq-1].Data)
		if c.ID != r.ID {
			t.Fatalf("number %d is %s, its receipt says %s", r.Seq, c.ID, r.ID)
		}
	}
}

// Sync commands for one kind of entity keep their order, of whatever verb.
func TestPublishAllSync(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	all := make([]queue.Command, 0, 200)
	for i := range 100 {
		contact := map[string]any{"id": i, "name": "Anna"}
		all = append(
			all, queue.Command{Kind: schema.KindContactsUpsert, Sync: syncOf(t, contact)},
			queue.Command{Kind: schema.KindContactsDelete, Sync: syncOf(t, i)},
		)
	}
	results, err := newPublisher(t, a.nc, "main").PublishAll(bounded(t), all)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Seq != uint64(i+1) {
			t.Fatalf("command %d is number %d", i, r.Seq)
		}
	}
}

// One that breaks a rule keeps nobody back, and is not stored.
func TestPublishAllInvalid(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	all := campaign(30, 3)
	bad := all[7].Message.ID
	all[7].Message.ChatType = "fax"
	results, err := newPublisher(t, a.nc, "main").PublishAll(bounded(t), all)
	invalid, ok := errors.AsType[*schema.InvalidCommandError](results[7].Err)
	if !ok || invalid.Faults[0].Field != "chatType" || !errors.As(err, &invalid) {
		t.Errorf("got %v and %v", results[7].Err, err)
	}
	for i, r := range results {
		if i != 7 && r.Err != nil {
			t.Errorf("command %d: %v", i, r.Err)
		}
	}
	if n := inOrder(t, commands(t, a.js), slices.DeleteFunc(all, func(c queue.Command) bool { return c.Message.ID == bad })); n != 29 {
		t.Errorf("%d are stored, want 29", n)
	}
}

// A full stream slows a batch down: it goes on as room comes, in order.
func TestPublishAllWaitsForRoom(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	a.limitCommands(t, 40_000)
	all := campaign(600, 20) // some 200 bytes each
	var results []queue.Result
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		results, err = newPublisher(t, a.nc, "main").PublishAll(bounded(t), all)
	}()
	for full := false; !full; {
		stream, streamErr := a.js.Stream(t.Context(), a.topology.Commands())
		if streamErr != nil {
			t.Fatal(streamErr)
		}
		full = stream.CachedInfo().State.Bytes > 40_000-400
	}
	// What a worker does: it takes commands off the stream, and makes room.
	consumer, consumerErr := a.js.CreateConsumer(t.Context(), a.topology.Commands(), jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
	if consumerErr != nil {
		t.Fatal(consumerErr)
	}
	var taken []*jetstream.RawStreamMsg
	for len(taken) < len(all) {
		m, nextErr := consumer.Next(jetstream.FetchContext(bounded(t)))
		if nextErr != nil {
			t.Fatal(nextErr)
		}
		taken = append(taken, &jetstream.RawStreamMsg{Subject: m.Subject(), Data: m.Data()})
		if ackErr := m.Ack(); ackErr != nil {
			t.Fatal(ackErr)
		}
	}
	<-done
	if err != nil {
		t.Fatal(err)
	}
	waited := 0
	for _, r := range results {
		if r.Tries > 1 {
			waited++
		}
	}
	if inOrder(t, taken, all); waited == 0 {
		t.Error("the stream was never full")
	}
}

// What is left when the context ends is told, and another call stores it.
func TestPublishAllEnds(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	a.limitCommands(t, 10_000)
	all := campaign(200, 10)
	p := newPublisher(t, a.nc, "main")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	results, err := p.PublishAll(ctx, all)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the deadline", err)
	}
	var left []queue.Command
	full, unconfirmed := 0, 0
	for i, r := range results {
		if r.Err == nil {
			continue
		}
		left = append(left, all[i])
		if !errors.Is(r.Err, context.DeadlineExceeded) {
			t.Fatalf("command %d: %v", i, r.Err)
		}
		switch {
		case errors.Is(r.Err, queue.ErrUnconfirmed): // under way when the time was over
			unconfirmed++
		case errors.Is(r.Err, queue.ErrFull):
			full++
		}
	}
	if len(left) == 0 || len(left) == len(all) || full == 0 {
		t.Fatalf("%d are left, %d of them met a full stream", len(left), full)
	}
	a.limitCommands(t, 1<<20)
	if _, err := p.PublishAll(bounded(t), left); err != nil {
		t.Fatal(err)
	}
	if n := inOrder(t, commands(t, a.js), all); n < len(all) || n > len(all)+unconfirmed {
		t.Errorf("%d are stored, want %d and at most %d twice", n, len(all), unconfirmed)
	}
}

// A batch for nobody ends within seconds.
func TestPublishAllNoStream(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	results, err := newPublisher(t, a.nc, "nobody").PublishAll(bounded(t), campaign(2000, 1000))
	if !errors.Is(err, queue.ErrNoStream) {
		t.Fatalf("got %v, want ErrNoStream", err)
	}
	for i, r := range results {
		if !errors.Is(r.Err, queue.ErrNoStream) {
			t.Fatalf("command %d: %v", i, r.Err)
		}
	}
	if _, err := newPublisher(t, a.nc, "main").PublishAll(t.Context(), campaign(2, 2), queue.WithID("x")); err == nil {
		t.Error("one id for all commands was taken")
	}
}
