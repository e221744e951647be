package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// outcomes hears how commands end. It reads the stored events rather than the
// copies that Wazzup-Reply-To brings: those are lost while the connection is.
type outcomes struct {
	*client

	report *report
	filter string
	next   uint64 // where to read on; the follower's own
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu      sync.Mutex
	waiting map[string]*batch // by the command's id
	changed chan struct{}
}

// listen follows the final events of a kind of command, from now on.
func (c *client) listen(ctx context.Context, kind schema.Kind, r *report) (*outcomes, error) {
	records := queue.Names{Account: c.account}.Records()
	stream, err := c.js.Stream(ctx, records)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, noCommands(c.account)
	}
	if err != nil {
		return nil, fmt.Errorf("follow events: %w", err)
	}
	o := &outcomes{
		client: c, report: r, filter: schema.CommandEventSubject(c.account, anyState, kind, ""),
		next: stream.CachedInfo().State.LastSeq + 1, waiting: make(map[string]*batch), changed: make(chan struct{}),
	}
	following, cancel := context.WithCancel(ctx)
	o.cancel = cancel
	o.ended.Go(func() { o.follow(following) })
	return o, nil
}

const anyState schema.State = "*"

// follow reads until ctx ends. A server that goes away does not end it: it goes on
// behind the last event that it read.
func (o *outcomes) follow(ctx context.Context) {
	for ctx.Err() == nil {
		if err := o.read(ctx); err != nil && pauseFor(ctx, publishPause) != nil {
			return
		}
	}
}

func (o *outcomes) read(ctx context.Context) error {
	consumer, err := o.js.OrderedConsumer(ctx, queue.Names{Account: o.account}.Records(), jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{o.filter}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: o.next,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	for {
		m, err := messages.Next()
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		o.next = meta.Sequence.Stream + 1
		var e schema.CommandEvent
		if json.Unmarshal(m.Data(), &e) != nil {
			continue // none of ours
		}
		// A duplicate is a second try of a publish: the first one goes on.
		if e.State.Final() && e.State != schema.StateDuplicate {
			o.settle(&e)
		}
	}
}

func (o *outcomes) settle(e *schema.CommandEvent) {
	o.mu.Lock()
	one := o.waiting[e.ID]
	o.mu.Unlock()
	if one == nil {
		return // another's
	}
	o.report.ended(one, e)
	o.forget(e.ID)
}

func (o *outcomes) forget(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.waiting, id)
	close(o.changed)
	o.changed = make(chan struct{})
}

// expect adds a command, before it is published. It waits while too many are under
// way.
func (o *outcomes) expect(ctx context.Context, one *batch, patience time.Duration) error {
	if err := o.until(ctx, patience, func() bool { return len(o.waiting) < maxUnderWay }); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting[one.id] = one
	return nil
}

// wait returns when all have ended.
func (o *outcomes) wait(ctx context.Context, patience time.Duration) error {
	return o.until(ctx, patience, func() bool { return len(o.waiting) == 0 })
}

// until waits for a condition on what is awaited, for as long as something ends
// within the patience.
func (o *outcomes) until(ctx context.Context, patience time.Duration, ok func() bool) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		o.mu.Lock()
		good, changed, left := ok(), o.changed, len(o.waiting)
		o.mu.Unlock()
		if good {
			return nil
		}
		select {
		case <-changed:
			timer.Reset(patience)
		case <-timer.C:
			return fmt.Errorf("nothing ended within %v, and %d commands have not: they are stored and go on; is a worker running? `wazzupctl doctor` tells more", patience, left)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// stop ends the follower and waits for it.
func (o *outcomes) stop() {
	o.cancel()
	o.ended.Wait()
}
