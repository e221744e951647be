package queue_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

// consumeEnv makes the test binary a consumer of events, which is there to be
// killed.
const consumeEnv = "WAZZUP_QUEUE_TEST_CONSUME"

func TestMain(m *testing.M) {
	queuetest.MaybeServe()
	if url, ok := os.LookupEnv(consumeEnv); ok {
		if err := consumeAndTell(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// consumeAndTell writes the id of each event to standard output before it is
// acknowledged.
func consumeAndTell(url string) error {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer nc.Close()
	c, err := queue.NewConsumer(nc, "main", killable())
	if err != nil {
		return err
	}
	return c.Run(context.Background(), func(_ context.Context, e *queue.Received) error {
		_, err := fmt.Println(e.ID)
		return err
	})
}
