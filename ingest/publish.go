package ingest

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

const (
	// publishTimeout bounds how long nats.go remembers a publish whose PubAck
	// does not come.
	publishTimeout = 15 * time.Second
	// maxPending is far above what the budget of bodies lets through at once;
	// nats.go would otherwise stall for 200 ms and give up.
	maxPending = 1 << 20
)

// publisher publishes batches of events. PubAcks come by callback and are
// counted, which costs less than a future with two channels for each event.
type publisher struct {
	js jetstream.JetStream // its async publisher is ours alone

	mu      sync.Mutex
	pending map[*nats.Msg]*batch
}

// batch is the events of one webhook that wait for their PubAcks. Its fields are
// guarded by the publisher's lock.
type batch struct {
	left       int // PubAcks to come
	duplicates int
	err        error         // the first failure
	done       chan struct{} // closed with the last PubAck or the first failure
}

func newPublisher(nc *nats.Conn) (*publisher, error) {
	p := &publisher{pending: make(map[*nats.Msg]*batch)}
	js, err := jetstream.New(nc,
		jetstream.WithPublishAsyncMaxPending(maxPending),
		jetstream.WithPublishAsyncTimeout(publishTimeout),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, m *nats.Msg, ack *jetstream.PubAck) {
			p.settle(m, ack.Duplicate, nil)
		}),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, m *nats.Msg, err error) {
			p.settle(m, false, err)
		}))
	p.js = js
	return p, err
}

// publish returns after the last PubAck, the first failure, or when ctx ends.
// The error is NATS's own.
func (p *publisher) publish(ctx context.Context, events []queue.Event) (duplicates int, err error) {
	if len(events) == 0 {
		return 0, nil
	}
	b := &batch{left: len(events), done: make(chan struct{})}
	messages := make([]*nats.Msg, len(events))
	for i := range events {
		messages[i] = events[i].Msg()
	}
	p.mu.Lock()
	for _, m := range messages {
		p.pending[m] = b
	}
	p.mu.Unlock()
	for _, m := range messages {
		if _, err := p.js.PublishMsgAsync(m); err != nil {
			p.forget(messages)
			return 0, err
		}
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		p.forget(messages)
		return 0, ctx.Err()
	}
	p.mu.Lock()
	duplicates, err = b.duplicates, b.err
	p.mu.Unlock()
	if err != nil {
		p.forget(messages)
	}
	return duplicates, err
}

// settle may run under nats.go's own lock, so it must not call back into it.
func (p *publisher) settle(m *nats.Msg, duplicate bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.pending[m]
	if b == nil {
		return // given up
	}
	delete(p.pending, m)
	b.left--
	if duplicate {
		b.duplicates++
	}
	finished := b.err == nil && (err != nil || b.left == 0)
	if b.err == nil {
		b.err = err
	}
	if finished {
		close(b.done)
	}
}

// forget makes sure that nothing of a batch is kept.
func (p *publisher) forget(messages []*nats.Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range messages {
		delete(p.pending, m)
	}
}
