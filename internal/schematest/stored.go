package schematest

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Stored holds every event that an account has stored so far to the contract, and
// returns how many there are.
func Stored(tb testing.TB, nc *nats.Conn, account string) int {
	tb.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	// In a cluster the consumer's node may be known to the others a moment late.
	var consumer jetstream.Consumer
	var info *jetstream.ConsumerInfo
	if err := queue.Ask(ctx, func(context.Context) error {
		consumer, err = js.OrderedConsumer(ctx, queue.Names{Account: account}.Records(), jetstream.OrderedConsumerConfig{
			FilterSubjects: []string{schema.EventSubjects(account)},
		})
		if err == nil {
			info, err = consumer.Info(ctx)
		}
		return err
	}); err != nil {
		tb.Fatal(err)
	}
	total := int(info.NumPending)
	for range total {
		var m jetstream.Msg
		if err := queue.Ask(ctx, func(context.Context) error {
			m, err = consumer.Next(jetstream.FetchMaxWait(time.Minute))
			return err
		}); err != nil {
			tb.Fatal(err)
		}
		if err := Event(m.Subject(), m.Headers(), m.Data()); err != nil {
			tb.Error(err)
		}
	}
	return total
}
