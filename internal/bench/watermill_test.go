package bench_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ThreeDotsLabs/watermill"
	wmjetstream "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/jetstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// watermillBatch: each of its subscriptions prefetches so much. Much smaller
// ones were seen to stall in nats.go's Consume.
const watermillBatch = 100

// mill is the loop as Watermill's router runs it. A subscription of it handles
// one message at a time, so there are as many as the loop has callers, on one
// consumer. Its publisher waits for each PubAck.
type mill struct {
	nc     *nats.Conn
	router *message.Router
	done   chan error
}

func newWatermill(s spec) (role, error) {
	nc, err := nats.Connect(s.NATS)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	consumer, err := commandConsumer(js)
	if err != nil {
		return nil, err
	}
	m := &mill{nc: nc, done: make(chan error, 1)}
	if m.router, err = message.NewRouter(message.RouterConfig{}, watermill.NopLogger{}); err != nil {
		return nil, err
	}
	pub, err := wmjetstream.NewPublisher(wmjetstream.PublisherConfig{Conn: nc, Logger: watermill.NopLogger{}})
	if err != nil {
		return nil, err
	}
	sub, err := wmjetstream.NewSubscriber(wmjetstream.SubscriberConfig{
		Conn: nc, Logger: watermill.NopLogger{}, AckAsync: true,
		ConsumeOptions: []jetstream.PullConsumeOpt{jetstream.PullMaxMessages(watermillBatch)},
		ResourceInitializer: func(context.Context, jetstream.JetStream, string) (jetstream.Consumer, func(context.Context, watermill.LoggerAdapter), error) {
			return consumer, nil, nil
		},
	})
	if err != nil {
		return nil, err
	}
	client, url := newClient(), s.Vendor+"/v2/send_message"
	for i := range loopCallers {
		m.router.AddHandler(fmt.Sprintf("send-%d", i), "commands", sub, sentSubject(), pub, carrier(client, url))
	}
	return m, nil
}

func carrier(client *http.Client, url string) message.HandlerFunc {
	return func(m *message.Message) ([]*message.Message, error) {
		answer, err := post(client, url, m.Payload)
		if err != nil {
			return nil, err
		}
		return message.Messages{message.NewMessage(watermill.NewUUID(), answer)}, nil
	}
}

func (m *mill) told() any { return "" }

func (m *mill) answer(question string) any {
	if question == "go" {
		go func() { m.done <- m.router.Run(context.Background()) }()
	}
	return nil
}

func (m *mill) stop() error {
	defer m.nc.Close()
	if err := m.router.Close(); err != nil {
		return err
	}
	return <-m.done
}
