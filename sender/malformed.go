package sender

import (
	"context"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Bounds of one search for commands on malformed channel tokens.
const (
	malformedAtOnce   = 100              // of one token
	malformedTogether = 10_000           // tokens; the next search takes others
	malformedTimeout  = 10 * time.Minute // a token may look like a wildcard, with millions of others behind it
)

// seekMalformed takes in commands whose channel token is no channel's id. They can
// only end invalid. A consumer for each token would let anybody who publishes
// nonsense fill the server with consumers, and one whose token looks like a
// wildcard would be handed the commands of every lane of its class. So each is
// read by its sequence, as a parked one is, and deleted when it has ended. They
// share a lane of each class, in which nothing waits. The search may be long, and
// nothing waits for it either. found has the class of each subject.
func (o *owner) seekMalformed(found map[string]string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(found) == 0 || o.seeking || o.stopping {
		return
	}
	o.seeking = true
	o.background.Go(func() {
		o.takeMalformed(found)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.seeking = false
	})
}

func (o *owner) takeMalformed(found map[string]string) {
	ctx, cancel := context.WithTimeout(o.ctx, malformedTimeout)
	defer cancel()
	for subject, class := range found {
		commands, err := o.ledger.FindAt(ctx, subject, malformedAtOnce)
		if err != nil {
			if o.ctx.Err() == nil {
				o.log.Warn().Err(err).Msg("malformed_commands_not_read") // the next second tries again
			}
			return
		}
		if !o.takeFound(laneKey{class, schema.NoChannel}, commands) {
			return
		}
	}
}

// takeFound takes in commands that were read by their sequence, but for those in
// hand already; false: there is no room for more now.
func (o *owner) takeFound(key laneKey, found []*queue.Delivery) bool {
	o.mu.Lock()
	room := len(o.commands) < allLanesHold
	l := o.laneOf(key)
	f := l.parkFeed()
	var fresh []*queue.Delivery
	for _, d := range found {
		if o.inHand(func(c *command) bool { return c.delivery.Same(d) }) == nil {
			fresh = append(fresh, d)
		}
	}
	o.mu.Unlock()
	for _, d := range fresh {
		o.receive(d, f, l)
	}
	return room
}
