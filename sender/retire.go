package sender

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

const (
	// laneIdleMax is after how long without work a lane is retired.
	laneIdleMax = 10 * time.Minute
	// idleRounds is how often within that time it is looked at.
	idleRounds = 60
	// retiredTogether bounds the lanes of one round, for while they are retired
	// none can be opened.
	retiredTogether = 256
)

// retireIdle forgets the lanes that have had nothing to do for long: consumers,
// chats, clocks. What must outlive them is elsewhere: the channel's gate, and the
// pace in the owner's memory.
//
// Some stay. The transactional lanes of the channels in the channel list do,
// since their first command must not wait to be discovered, so do those for which
// a scheduled command is to come due, and the sync lanes, which are few. An idle lane that stays costs a consumer in the
// server's memory and one pull request in five minutes.
func (o *owner) retireIdle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, discoverTimeout)
	defer cancel()
	o.opening.Lock() // no source of a lane is opened while it goes
	defer o.opening.Unlock()
	return closeSources(ctx, o.takeIdle(time.Now()))
}

// takeIdle takes the lanes that are to be retired out of the owner's hand. What
// arrives from their sources from now on is dropped unacknowledged, so it stays
// in its stream, where discovery finds it within a second: all of it, in order,
// comes through a new consumer.
func (o *owner) takeIdle(now time.Time) []*queue.Source {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopping {
		return nil
	}
	o.paces.forget(now)
	var sources []*queue.Source
	for key, l := range o.lanes {
		if !o.idleLong(l, now) || len(sources) >= retiredTogether {
			continue
		}
		for _, f := range l.feeds {
			f.retired = true
			if f.source != nil {
				sources = append(sources, f.source)
				delete(o.feeds, f.source)
			}
		}
		o.paces.keep(key, l.pace.next)
		delete(o.lanes, key)
		o.log.Debug().Str("class", key.class).Str("channel", key.channel).Msg("lane_retired")
	}
	return sources
}

// idleLong notes whether the lane has work, and reports whether it has had none
// for long enough.
func (o *owner) idleLong(l *lane, now time.Time) bool {
	seen := uint64(0)
	for _, f := range l.feeds {
		seen += f.last // each only grows
	}
	// A lane that is closed has its commands on disk: without it they would only
	// have it opened again.
	onDisk := l.foundIn >= o.rounds
	if o.staysOpen(l.key) || l.busy() || onDisk || seen != l.lastSeen || now.Before(l.dueLast) {
		l.idleSince, l.lastSeen = time.Time{}, seen
		return false
	}
	if l.idleSince.IsZero() {
		l.idleSince = now
	}
	return now.Sub(l.idleSince) >= o.cfg.timing.laneIdle
}

func (o *owner) staysOpen(key laneKey) bool {
	return key.class == classSync || o.listed[key.channel] && (key.class == classSend || o.crowd.waiting > 0)
}

// busy reports whether the lane has anything in hand, on the way, or parked.
func (l *lane) busy() bool {
	if l.queued || l.parked != nil || l.flight > 0 || l.waiting > 0 || l.unsettled > 0 || len(l.chats) > 0 || len(l.parks) > 0 {
		return true
	}
	for _, f := range l.feeds {
		if f.held > 0 {
			return true
		}
	}
	return false
}

// closeSources deletes the consumers of retired lanes.
func closeSources(ctx context.Context, sources []*queue.Source) error {
	var wg sync.WaitGroup
	errs := make([]error, len(sources))
	slots := make(chan struct{}, opensTogether)
	for i, s := range sources {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = s.Close(ctx)
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
