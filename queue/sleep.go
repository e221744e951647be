package queue

import (
	"context"
)

// A source sleeps while its lane is closed: it has no consumer until something is
// wanted of it. At each acknowledgement the server asks every consumer of the stream
// whether it needs the message, so those of closed lanes would cost the open ones.

// OpenAsleep is Open for a lane that is closed: its consumer is made when something
// is wanted, see [Source.Sleep].
func (in *Intake) OpenAsleep(stream, filter string) (*Source, error) {
	s, err := in.newSource(stream, filter)
	if err != nil {
		return nil, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	s.asleep.Store(true)
	in.sources[s.token] = s
	return s, nil
}

// Sleep deletes the consumer until the next Want, and forgets what was wanted: the
// server asks every consumer of the stream at each acknowledgement, and a lane that
// is closed for long would cost the others that. What is in hand then comes again
// after the next Want, as after every change of the consumer.
func (s *Source) Sleep() {
	in := s.in
	in.mu.Lock()
	defer in.mu.Unlock()
	if s.asleep.Load() || s.resetting || s.closed || in.closed {
		return
	}
	s.asleep.Store(true)
	s.wanted, s.outstanding, s.quiet, s.ended = 0, 0, 0, nil
	delete(in.byName, s.consumer)
	old := s.consumer
	in.wg.Go(func() {
		ctx, cancel := context.WithTimeout(in.ctx, replaceWait)
		defer cancel()
		if err := in.remove(ctx, s.stream, old); err != nil && in.ctx.Err() == nil {
			in.log.Warn().Err(err).Str("stream", s.stream).Msg("lane_consumer_not_deleted") // it is when the lane opens
		}
	})
}

// delete removes a message whose source sleeps: there is no consumer that could be
// told. It looks first whether the message is the one that was delivered, for an
// acknowledgement could not touch another one either.
func (in *Intake) delete(d *Delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed { // it comes again, to the next owner
		return
	}
	in.wg.Go(func() {
		ctx, cancel := context.WithTimeout(in.ctx, requestWait)
		defer cancel()
		stream := d.Source.stream
		m, err := leaderGet(ctx, in.nc, stream, msgGet{Seq: d.Seq})
		if err == nil && m != nil && m.Subject == d.Subject && m.Time.Equal(d.Stored) {
			_, err = in.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.DELETE."+stream, deleteRequest(d.Seq))
		}
		if err != nil && in.ctx.Err() == nil {
			in.log.Warn().Err(err).Str("stream", stream).Msg("ended_command_not_deleted") // it comes again when its lane opens
		}
	})
}

// wakeLocked makes the consumer that Sleep deleted.
func (s *Source) wakeLocked() {
	if s.closed || s.in.closed {
		return
	}
	s.asleep.Store(false)
	s.resetting = true
	old := s.consumer
	s.in.wg.Go(func() { s.in.replace(s, old, whyAwake) })
}
