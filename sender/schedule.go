package sender

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

// deferAgain is how soon it is tried again to defer a command for which the deferred
// stream had no room.
const deferAgain = time.Second

// defers reports whether the command must wait for its sendAt on the server. One
// that comes back from there is due, whatever this machine's clock says.
func (o *owner) defers(c *command) bool {
	m := c.body.Message
	return m != nil && m.SendAt.After(time.Now()) && !o.isCopy(c.delivery)
}

// isCopy reports whether a delivery is our own copy of a command rather than
// what a producer published.
func (o *owner) isCopy(d *queue.Delivery) bool { return d.Stream() != o.topology.Commands() }

// schedule records that the id is taken and the command waits, then hands it to
// the server's scheduler, and only then lets go of the original.
func (o *owner) schedule(c *command) {
	o.conclude(c, outcome{step: queue.StepScheduled})
}

// scheduled goes on when the record is durable, or was found after a crash. The
// owner's mutex is held.
func (o *owner) scheduled(c *command) {
	if c.cancelled { // its claim meets the cancel
		c.timer = nil
		o.enqueue(c)
		o.pump()
		return
	}
	if o.deferredFull {
		c.timer = time.AfterFunc(deferAgain, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			if !o.stopping {
				o.scheduled(c)
			}
		})
		return
	}
	c.lane.dueLast = latest(c.lane.dueLast, c.body.Message.SendAt)
	about := o.replicaOf(c)
	key := dueLane(c.kind, c.channel)
	o.enter()
	o.ledger.Defer(&queue.Deferred{
		Schedule: o.topology.ScheduleSubject(c.id, strconv.Itoa(c.generation)),
		Target:   o.dueSubject(key),
		At:       c.body.Message.SendAt,
		Header:   about.header(c.delivery.Header),
		Body:     c.delivery.Data,
	}, func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		defer o.leave()
		if errors.Is(err, queue.ErrTooLarge) {
			o.holdUntilDue(c)
			return
		}
		if err != nil {
			return // stopped: the next owner finds the record and schedules it again
		}
		// What came due meanwhile is not of this message: only the original goes.
		due, cancelled := c.copies, c.cancelled
		c.copies = nil
		o.release(c)
		o.finish(c)
		o.later(func() {
			if cancelled { // whoever did it may have looked before it was there
				ctx, cancel := context.WithTimeout(o.ctx, requestTimeout)
				defer cancel()
				o.hasten(ctx, c.id, c.generation)
			}
			for _, d := range due {
				o.receive(d.delivery, d.feed, d.feed.lane)
			}
		})
	})
	o.later(func() { // so that its lane is there when it comes due
		ctx, cancel := context.WithTimeout(o.ctx, requestTimeout)
		defer cancel()
		if err := o.openLanes(ctx, []wantedLane{{key, sourceDue}}); err != nil {
			o.log.Warn().Err(err).Msg("due_lane_not_opened") // discovery tries again
		}
	})
}

// holdUntilDue keeps a command in hand that the server's scheduler does not take,
// because it is too large with our headers. It uses none of its lane's room.
func (o *owner) holdUntilDue(c *command) {
	o.waiting++
	c.lane.waiting++
	wait := time.Until(c.body.Message.SendAt)
	if c.cancelled {
		wait = 0
	}
	c.timer = time.AfterFunc(wait, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		c.timer = nil
		o.waiting--
		c.lane.waiting--
		if !o.stopping {
			o.enqueue(c)
			o.pump()
		}
	})
	o.fill(c.lane)
}
