package queue_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

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
	// Most tests wait for time-outs rather than for a processor.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m,
		// What nats-server keeps after a shutdown.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Server).startGoRoutine.func1"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"),
		// nats.go 1.55.0: see the package sender's TestMain.
		goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"),
	)
}

// killable is the configuration of a consumer whose death is noticed soon.
func killable() queue.ConsumerConfig {
	return queue.ConsumerConfig{Name: "shop", Start: queue.StartAll(), AckWait: time.Second}
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
		_, err := fmt.Fprintln(os.Stdout, e.ID)
		return err
	})
}
