package bench_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	loopCallers = 64
	loopBatch   = 1024
)

// loop is the floor: pull → POST → publish the answer → ack, with one consumer
// and no promise. A lost answer, a crash, a refusal: it does not care.
type loop struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	messages jetstream.MessagesContext
	client   *http.Client
	url      string
	work     chan jetstream.Msg
	wg       sync.WaitGroup
	begin    func()
}

func newLoop(s spec) (role, error) {
	nc, err := nats.Connect(s.NATS)
	if err != nil {
		return nil, err
	}
	l := &loop{
		nc: nc, client: newClient(), url: s.Vendor + "/v2/send_message",
		work: make(chan jetstream.Msg),
	}
	if l.js, err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096)); err != nil {
		return nil, err
	}
	consumer, err := commandConsumer(l.js)
	if err != nil {
		return nil, err
	}
	l.begin = sync.OnceFunc(func() {
		if l.messages, err = consumer.Messages(jetstream.PullMaxMessages(loopBatch)); err != nil {
			panic(err)
		}
		l.wg.Go(l.pull)
		for range loopCallers {
			l.wg.Go(func() {
				for m := range l.work {
					l.carry(m)
				}
			})
		}
	})
	return l, nil
}

// commandConsumer is one consumer of all messages of the first account, with its
// state in memory, as the worker's have it.
func commandConsumer(js jetstream.JetStream) (jetstream.Consumer, error) {
	return js.CreateConsumer(context.Background(), queue.Names{Account: account(0)}.Commands(), jetstream.ConsumerConfig{
		Durable: "bare", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1, MemoryStorage: true,
		FilterSubject: schema.SendSubject(account(0), schema.KindSend, "*"),
	})
}

func newClient() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: loopCallers}}
}

func (l *loop) pull() {
	defer close(l.work)
	for {
		m, err := l.messages.Next()
		if err != nil {
			return // stopped
		}
		l.work <- m
	}
}

func (l *loop) carry(m jetstream.Msg) {
	answer, err := post(l.client, l.url, m.Data())
	if err != nil {
		panic(err)
	}
	if _, err := l.js.PublishAsync(sentSubject(), answer, jetstream.WithStallWait(sceneWait)); err != nil {
		panic(err)
	}
	if err := m.Ack(); err != nil {
		panic(err)
	}
}

// post makes the vendor's call with the command as its body.
func post(client *http.Client, url string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Basic key")
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(resp.Body)
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return answer, err
}

// sentSubject is where the answers of the first account go that promise nothing.
func sentSubject() string {
	return schema.CommandEventSubject(account(0), schema.StateSent, schema.KindSend, channelID(0))
}

func (l *loop) told() any { return "" }

func (l *loop) answer(question string) any {
	if question == "go" {
		l.begin()
	}
	return nil
}

func (l *loop) stop() error {
	l.begin()
	l.messages.Stop()
	l.wg.Wait()
	l.nc.Close()
	return nil
}
