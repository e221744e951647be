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
	report *report
	cancel context.CancelFunc
	ended  chan error // of the follower

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
	consumer, err := c.js.OrderedConsumer(ctx, records, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{schema.CommandEventSubject(c.account, anyState, kind, "")},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy, OptStartSeq: stream.CachedInfo().State.LastSeq + 1,
	})
	if err != nil {
		return nil, fmt.Errorf("follow events: %w", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return nil, fmt.Errorf("follow events: %w", err)
	}
	o := &outcomes{report: r, ended: make(chan error, 1), waiting: make(map[string]*batch), changed: make(chan struct{})}
	following, cancel := context.WithCancel(ctx)
	o.cancel = cancel
	stop := context.AfterFunc(following, messages.Stop)
	go func() {
		defer stop()
		o.ended <- o.follow(following, messages)
	}()
	return o, nil
}

const anyState schema.State = "*"

func (o *outcomes) follow(ctx context.Context, messages jetstream.MessagesContext) error {
	defer messages.Stop()
	for {
		m, err := messages.Next()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("follow events: %w", err)
		}
		var e schema.CommandEvent
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			return fmt.Errorf("read event: %w", err)
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
		case err := <-o.ended:
			o.ended <- err
			if err == nil {
				err = context.Cause(ctx)
			}
			return err
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
	<-o.ended
}
