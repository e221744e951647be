package schematest

import (
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
	consumer, err := js.OrderedConsumer(tb.Context(), queue.Names{Account: account}.Records(), jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{schema.EventSubjects(account)},
	})
	if err != nil {
		tb.Fatal(err)
	}
	info, err := consumer.Info(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	total := int(info.NumPending)
	for range total {
		m, err := consumer.Next(jetstream.FetchMaxWait(time.Minute))
		if err != nil {
			tb.Fatal(err)
		}
		if err := Event(m.Subject(), m.Headers(), m.Data()); err != nil {
			tb.Error(err)
		}
	}
	return total
}
