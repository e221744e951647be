package queue_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// A producer stores a command and goes on with its life: on return the command
// is durable, and will end in exactly one final event.
func ExamplePublisher() {
	nc, err := nats.Connect(nats.DefaultURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	publisher, err := queue.NewPublisher(nc, "main")
	if err != nil {
		fmt.Println(err)
		return
	}
	const channel = "3376e1c3-26a6-478b-b964-72bf01cc22cb"
	command := schema.NewText("order-1042-shipped", channel, schema.ChatWhatsApp, "79998887766", "Your order is on its way")
	body, err := command.AppendJSON(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	receipt, err := publisher.Send(ctx, schema.KindSend, channel, body)
	switch {
	case errors.Is(err, queue.ErrNoStream):
		fmt.Println("nobody serves this account: is its name right, was its worker ever started?")
	case errors.Is(err, queue.ErrFull):
		fmt.Println("too much is waiting: try again later")
	case err != nil:
		fmt.Println("it may be stored: publish it again with the same id", err)
	default:
		fmt.Println("stored as", receipt.Seq)
	}
}
