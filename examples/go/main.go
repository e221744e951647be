// The program go shows a shop that talks to its customers through wazzup-relay:
//
//	go run ./examples/go send <channelId> <phone> <id> <text>   # sends, and waits for the outcome
//	go run ./examples/go campaign <channelId> <id> <phone>…     # sends to many
//	go run ./examples/go contact <id> <name> <phone>            # keeps a contact in step
//	go run ./examples/go cancel <id>                            # takes a message back
//	go run ./examples/go listen                                 # reads what customers write, and what failed
//
// NATS_URL and WAZZUP_ACCOUNT say where; the defaults are those of `wazzupctl dev`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, out io.Writer) error {
	s := &shop{account: "main", out: out}
	url := nats.DefaultURL
	if v := getenv("NATS_URL"); v != "" {
		url = v
	}
	if v := getenv("WAZZUP_ACCOUNT"); v != "" {
		s.account = v
	}
	var err error
	// It goes on through restarts of NATS, however long they take.
	if s.nc, err = nats.Connect(url, nats.Name("shop"), nats.MaxReconnects(-1)); err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer s.nc.Close()
	if s.publisher, err = queue.NewPublisher(s.nc, s.account); err != nil {
		return err
	}
	switch {
	case len(args) == 5 && args[0] == "send":
		return s.send(ctx, schema.NewText(args[3], args[1], schema.ChatWhatsApp, args[2], args[4]))
	case len(args) > 3 && args[0] == "campaign":
		return s.campaign(ctx, args[1], args[2], args[3:])
	case len(args) == 4 && args[0] == "contact":
		return s.contact(ctx, args[1], args[2], args[3])
	case len(args) == 2 && args[0] == "cancel":
		return s.cancel(ctx, args[1])
	case len(args) == 1 && args[0] == "listen":
		return s.listen(ctx)
	}
	return errors.New("usage: send <channelId> <phone> <id> <text> | campaign <channelId> <id> <phone>… | contact <id> <name> <phone> | cancel <id> | listen")
}

type shop struct {
	account   string
	nc        *nats.Conn
	publisher *queue.Publisher
	out       io.Writer
}

func (s *shop) say(what ...any) { _, _ = fmt.Fprintln(s.out, what...) }

// send sends a text, which is of no use after a quarter of an hour, and waits for
// what becomes of it.
func (s *shop) send(ctx context.Context, c *schema.SendCommand) error {
	c.ExpireAt = time.Now().Add(15 * time.Minute)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	outcome, err := s.publisher.PublishAndWait(ctx, queue.Command{Kind: schema.KindSend, Message: c})
	if err != nil {
		return s.advise(err)
	}
	switch e := outcome.Event; e.State {
	case schema.StateSent:
		s.say("sent as", e.MessageID)
	case schema.StateDuplicate: // the same message, published before: nothing to do
		s.say("was published before, and is", e.Original.State)
	case schema.StateExpired:
		s.say("came too late, and was not sent")
	default: // rejected, dead, cancelled
		s.say("was not sent:", e.State, e.Error)
	}
	return nil
}

// campaign sends one text to many. Run again with the same id after a failure, it
// sends to those that are left.
func (s *shop) campaign(ctx context.Context, channelID, id string, phones []string) error {
	commands := make([]queue.Command, 0, len(phones))
	for _, phone := range phones {
		c := schema.NewText(id+"-"+phone, channelID, schema.ChatWhatsApp, phone, "Everything is half price today")
		c.Group = id
		commands = append(commands, queue.Command{Kind: schema.KindBulk, Message: c})
	}
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	results, err := s.publisher.PublishAll(ctx, commands)
	for i, r := range results {
		if invalid, ok := errors.AsType[*schema.InvalidCommandError](r.Err); ok {
			s.say("number", i+1, "of the list is no phone number:", invalid)
		}
	}
	if err != nil {
		return s.advise(err)
	}
	s.say("stored", len(results))
	return nil
}

// contact keeps a contact in step. It has no id: each update is to be carried out,
// and to repeat one does no harm.
func (s *shop) contact(ctx context.Context, id, name, phone string) error {
	c, err := schema.NewSync(map[string]any{
		"id": id, "name": name, "responsibleUserId": "1",
		"chats": []map[string]string{{"chatType": schema.ChatWhatsApp, "chatId": phone}},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	receipt, err := s.publisher.Upsert(ctx, schema.EntityContacts, c)
	if err != nil {
		return s.advise(err)
	}
	s.say("stored as number", receipt.Seq)
	return nil
}

// cancel takes a message back that has not been sent yet.
func (s *shop) cancel(ctx context.Context, id string) error {
	requests, err := queue.NewRequests(s.nc, s.account)
	if err != nil {
		return err
	}
	err = requests.Cancel(ctx, id)
	refused, isRefused := errors.AsType[*queue.RequestError](err)
	switch {
	case err == nil:
		s.say("will never be sent")
	case isRefused && refused.Status == 409:
		s.say("too late: it is", refused.State)
	case isRefused && refused.Status == 404:
		s.say("there is no such message")
	default:
		return err
	}
	return nil
}

// listen reads events until it is interrupted. Started again it goes on where it
// was: nothing is missed in between.
func (s *shop) listen(ctx context.Context) error {
	consumer, err := queue.NewConsumer(s.nc, s.account, queue.ConsumerConfig{
		Name: "example-go",
		Subjects: []string{
			schema.MessageEventFilter(s.account, schema.DirectionIn, "", "", ""),
			schema.CommandEventFilter(s.account, schema.StateDead, "", ""),
		},
		Start:   queue.StartAll(),
		OnError: func(_ *queue.Received, err error) { fmt.Fprintln(os.Stderr, err) },
	})
	if err != nil {
		return err
	}
	return s.advise(consumer.Run(ctx, func(_ context.Context, e *queue.Received) error {
		// To do something that must not be done twice, such as a booking, keep e.ID in
		// the same transaction.
		switch event := e.Data.(type) {
		case *schema.MessageEvent:
			s.say(event.Direction, event.ChatID, event.Text)
		case *schema.CommandEvent:
			s.say(event.ID, event.State, event.Error)
		}
		return nil // an error would have the event come again
	}))
}

// advise says what to do about an error of the library.
func (s *shop) advise(err error) error {
	if invalid, ok := errors.AsType[*schema.InvalidCommandError](err); ok {
		return fmt.Errorf("a fault of this program, and nothing was stored: %w", invalid)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, queue.ErrNoStream):
		return fmt.Errorf("nobody serves the account %s: is its name right, was its worker ever started? %w", s.account, err)
	case errors.Is(err, queue.ErrForbidden):
		return fmt.Errorf("this NATS user lacks rights: %w", err)
	case errors.Is(err, queue.ErrFull):
		return fmt.Errorf("too much is waiting, and this was not stored; try again later: %w", err)
	case errors.Is(err, queue.ErrUnconfirmed):
		return fmt.Errorf("it may be stored; publish it again under the same id: %w", err)
	case errors.Is(err, queue.ErrNotEnded):
		return fmt.Errorf("it is stored and goes on; its event will come: %w", err)
	}
	return err
}
