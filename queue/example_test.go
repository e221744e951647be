package queue_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// A producer stores a command and goes on with its life: on return the command
// is durable, and will end in exactly one final event.
func ExamplePublisher() {
	nc, closeAll := connect() // nats.Connect(url)
	defer closeAll()
	publisher, err := queue.NewPublisher(nc, "main")
	if err != nil {
		fmt.Println(err)
		return
	}
	const channel = "3376e1c3-26a6-478b-b964-72bf01cc22cb"
	command := schema.NewText("order-1042-shipped", channel, schema.ChatWhatsApp, "79998887766", "Your order is on its way")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	receipt, err := publisher.SendMessage(ctx, command)
	switch {
	case errors.Is(err, queue.ErrNoStream):
		fmt.Println("nobody serves this account: is its name right, was its worker ever started?")
	case errors.Is(err, queue.ErrFull):
		fmt.Println("too much is waiting: try again later")
	case errors.Is(err, queue.ErrUnconfirmed):
		fmt.Println("it may be stored: publish it again with the same id", err)
	case err != nil: // it breaks a rule, above all
		fmt.Println(err)
	default:
		fmt.Println(receipt.ID, "is number", receipt.Seq)
	}
	// Output: order-1042-shipped is number 1
}

// A command that breaks a rule is refused before it is published.
func ExamplePublisher_Publish() {
	nc, closeAll := connect() // nats.Connect(url)
	defer closeAll()
	publisher, err := queue.NewPublisher(nc, "main")
	if err != nil {
		fmt.Println(err)
		return
	}
	command := schema.NewText("", "3376e1c3-26a6-478b-b964-72bf01cc22cb", schema.ChatWhatsApp, "89998887766", "")
	_, err = publisher.Publish(context.Background(), queue.Command{Kind: schema.KindBulk, Message: command})
	if invalid, ok := errors.AsType[*schema.InvalidCommandError](err); ok {
		for _, fault := range invalid.Faults {
			fmt.Println(fault.Field, fault.Code)
		}
	}
	// Output:
	// chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP
	// text MESSAGE_NOTHING_TO_SEND
}

// A campaign: each command has a result of its own, and what failed can be
// published again under the same id.
func ExamplePublisher_PublishAll() {
	nc, closeAll := connect() // nats.Connect(url)
	defer closeAll()
	publisher, err := queue.NewPublisher(nc, "main")
	if err != nil {
		fmt.Println(err)
		return
	}
	var commands []queue.Command
	for _, phone := range []string{"79990000001", "12", "79990000003"} {
		c := schema.NewText("sale-2026-"+phone, "3376e1c3-26a6-478b-b964-72bf01cc22cb", schema.ChatWhatsApp, phone, "Half price today")
		c.Group = "sale-2026"
		commands = append(commands, queue.Command{Kind: schema.KindBulk, Message: c})
	}
	// A full stream slows it down; this is how long it may take in all.
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	results, err := publisher.PublishAll(ctx, commands)
	for i, r := range results {
		if r.Err != nil {
			fmt.Println(commands[i].Message.ID, r.Err)
		}
	}
	fmt.Println(err)
	// Output:
	// sale-2026-12 publish command: invalid command: chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP
	// publish batch: 1 of 3 are not stored, the first: publish command: invalid command: chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP
}

// A login code: whoever sends it wants to know whether it went out.
func ExamplePublisher_PublishAndWait() {
	nc, closeAll := connect() // nats.Connect(url)
	defer closeAll()
	publisher, err := queue.NewPublisher(nc, "main")
	if err != nil {
		fmt.Println(err)
		return
	}
	command := schema.NewText("login-7", "3376e1c3-26a6-478b-b964-72bf01cc22cb", schema.ChatWhatsApp, "79998887766", "Your code is 1234")
	command.ExpireAt = time.Now().Add(5 * time.Minute) // later it is worthless
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	outcome, err := publisher.PublishAndWait(ctx, queue.Command{Kind: schema.KindSend, Message: command})
	switch {
	case errors.Is(err, queue.ErrNotEnded): // as here, where no worker runs
		fmt.Println("stored as number", outcome.Seq, "and still waiting")
	case err != nil:
		fmt.Println(err)
	case outcome.Event.State == schema.StateSent:
		fmt.Println("sent as", outcome.Event.MessageID)
	default: // rejected, expired, dead, …
		fmt.Println(outcome.Event.State, outcome.Event.Error)
	}
	// Output: stored as number 1 and still waiting
}

// A service that reads what customers write, and misses nothing while it is down.
func ExampleConsumer() {
	nc, closeAll := connect() // nats.Connect(url)
	defer closeAll()
	if err := nc.PublishMsg(event("m-1")); err != nil { // as ingest does
		fmt.Println(err)
		return
	}
	consumer, err := queue.NewConsumer(nc, "main", queue.ConsumerConfig{
		Name:     "support-desk",
		Subjects: []string{schema.MessageEventFilter("main", schema.DirectionIn, "", "", "")},
		Start:    queue.StartAll(),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background()) // or signal.NotifyContext
	defer stop()
	err = consumer.Run(ctx, func(_ context.Context, e *queue.Received) error {
		if message, ok := e.Data.(*schema.MessageEvent); ok {
			fmt.Println(message.ChatID, "writes:", message.Text)
		}
		stop()
		return nil // acknowledged; an error would have it come again
	})
	fmt.Println(err)
	// Output:
	// 79998887766 writes: hello
	// <nil>
}

// A message is taken back that waits for its time.
func ExampleRequests_Cancel() {
	nc, closeAll := connect() // nats.Connect(url)
	defer closeAll()
	requests, err := queue.NewRequests(nc, "main")
	if err != nil {
		fmt.Println(err)
		return
	}
	requests.HandOver = time.Second // how long to wait for a worker, if none serves the account
	err = requests.Cancel(context.Background(), "reminder-17")
	refused, isRefused := errors.AsType[*queue.RequestError](err)
	switch {
	case err == nil:
		fmt.Println("it will never be sent")
	case isRefused && refused.Status == 409:
		fmt.Println("too late: it is", refused.State)
	case errors.Is(err, queue.ErrNoOwner): // as here
		fmt.Println("no worker serves this account now")
	default:
		fmt.Println(err)
	}
	// Output: no worker serves this account now
}

// Every other request: its name, its body, and where its answer goes.
func ExampleRequests_Do() {
	nc, closeAll := connect() // nats.Connect(url)
	defer closeAll()
	requests, err := queue.NewRequests(nc, "main")
	if err != nil {
		fmt.Println(err)
		return
	}
	requests.HandOver = time.Second // how long to wait for a worker, if none serves the account
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var channels struct {
		Items []struct {
			ChannelID string `json:"channelId"`
			State     string `json:"state"`
		} `json:"items"`
	}
	if err := requests.Do(ctx, "channels.list", struct{}{}, &channels); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(channels.Items))
	// Output: request channels.list of account main: no worker serves this account
}
