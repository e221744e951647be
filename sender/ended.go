package sender

import (
	"context"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// endTold reports whether the event of a command's end, which its last record
// holds, is stored, so that a status or a proof may follow it. Of an end that this
// owner recorded it is as soon as the owner has let go of the command; then what
// waits for it is looked at again. A former owner may have died between the two,
// and a person may have settled a command that is not in hand: then its event is
// stored now, unless it is.
func (o *owner) endTold(ctx context.Context, x *queue.Index, last *queue.Record) (bool, error) {
	if last.Step != queue.StepFinal {
		return true, nil // something has followed it
	}
	state := stateOf(last)
	if last.Sequence > o.answers.until {
		o.mu.Lock()
		held := o.commands[identity{x.Origin, last.Generation}] != nil
		o.mu.Unlock()
		if held || state == schema.StateSent {
			return !held, nil
		}
	}
	end := queue.Event{
		Subject:   schema.CommandEventSubject(o.cfg.Account, state, x.Kind, x.ChannelID),
		ID:        x.Origin.CommandEventID(o.topology.Commands(), last.Generation, last.Attempt, state),
		Account:   o.cfg.Account,
		Type:      "wazzup.command." + string(state),
		CESubject: x.ID,
		Time:      time.Now(),
		Body:      last.Event,
	}
	if time.Since(last.Stored) > o.topology.Limits.DedupeWindow*9/10 {
		stored, err := o.ledger.EventStored(ctx, end.Subject, end.ID, last.Sequence)
		if err != nil || stored {
			return stored, err
		}
	}
	written := make(chan error, 1)
	o.ledger.Publish(end, func(err error) { written <- err })
	err := <-written
	return err == nil, err
}
