package sender

import (
	"context"
	"encoding/json"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Whoever may publish commands can invent channels: a subject for each costs them
// nothing, and a lane costs us a consumer, memory, a call that is refused, and a gate
// to remember. So of the lanes whose channel neither the channel list nor a word of
// the vendor has ever named, and to which no call was ever taken, strangers, only so
// many are open at the same time. That is more than enough for channels that are newer
// than the list. What is beyond it waits on disk without a lane until the list holds its
// channel, as the commands of a channel wait that the vendor refused because its list
// does not. While they do, nothing depends on finding a lane among them: all lanes of
// listed channels are open.

const (
	// strangersMax is how many lanes of strangers are open: far fewer than the server
	// makes consumers for. Each may cost the account one call.
	strangersMax = 4096
	// strangersTogether bounds those of one round of discovery, so that it does not
	// keep others from being found in time.
	strangersTogether = 1024
	// crowdOver is for how many rounds nothing must wait for the list before that is
	// told to be over.
	crowdOver = 60
	// crowdSlow is how long a round of discovery among very many subjects may take
	// before the server is given a rest of three times as long.
	crowdSlow = discoverEvery / 2
	// sweepEvery is how long after a sweep through all commands the next one begins.
	sweepEvery = time.Minute
)

// reasonUnlisted is why lanes are closed that nobody has opened: the channel list does
// not hold their channels, nor those of many others.
const reasonUnlisted = "NOT_LISTED"

// crowd is the lanes of strangers that wait for the channel list. Owned by the owner's
// mutex.
type crowd struct {
	waiting int       // in the last round of discovery
	since   time.Time // when operators were told of them; zero: they were not
	quiet   int       // rounds since with none
	rests   time.Time // no round of discovery before

	sweeping bool
	swept    uint64    // sequence up to which the commands have been looked through
	sweepAt  time.Time // when the next sweep may begin
}

// crowdRests reports whether the server is given a rest.
func (o *owner) crowdRests() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Now().Before(o.crowd.rests)
}

// unlisted reports whether nothing but commands has ever named the channel, nor a call
// to it was taken. The owner's mutex is held.
func (o *owner) unlisted(channel string) bool {
	if channel == schema.NoChannel || o.listed[channel] {
		return false
	}
	g := o.channels[channel]
	return g == nil || g.state == "" && !g.taken
}

// knows reports whether a lane is opened in any case: its channel is real as far as can
// be known, or there is a lane or a gate already.
func (o *owner) knows(key laneKey) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if key.class == classSync || o.lanes[key] != nil || !o.unlisted(key.channel) {
		return true
	}
	g := o.channels[key.channel]
	return g != nil && (g.closed != nil || len(g.paused) > 0)
}

// admit chooses which strangers' lanes are opened in this round, and counts those that
// wait for the list.
func (o *owner) admit(f *finding) []wantedLane {
	o.mu.Lock()
	defer o.mu.Unlock()
	open := 0
	if len(f.strangers) > 0 {
		for key := range o.lanes {
			if key.class != classSync && o.unlisted(key.channel) {
				open++
			}
		}
	}
	room := max(o.cfg.timing.strangers-open, 0)
	o.crowd.waiting = max(len(f.strangers)+f.more-room, 0) // the rest only for the next round
	n := min(room, len(f.strangers))
	lanes := f.strangers[:n:n]
	if o.crowd.waiting > 0 {
		lanes = append(lanes, o.listedLanes()...)
	}
	return lanes
}

// listedLanes are the lanes of listed channels that are not open. The owner's mutex is
// held.
func (o *owner) listedLanes() []wantedLane {
	var lanes []wantedLane
	for channel := range o.listed {
		for _, class := range []string{classSend, classBulk} {
			key := laneKey{class, channel}
			if l := o.lanes[key]; schema.ValidUUID(channel) && (l == nil || l.feed(sourceCommands) == nil) {
				lanes = append(lanes, wantedLane{key, sourceCommands})
			}
		}
	}
	return lanes
}

// crowdSeen ends a round of discovery: it tells operators of what waits for the
// channel list, once, and of the end of that, and has what can end without a call end.
func (o *owner) crowdSeen(took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := &o.crowd
	if o.stopping {
		return
	}
	if c.waiting == 0 {
		if c.quiet++; c.quiet >= o.cfg.timing.crowdOver && !c.since.IsZero() {
			c.since = time.Time{}
			o.noteOps(&o.keeper, schema.OpsEvent{Name: schema.OpsLaneOpened, Reason: reasonUnlisted})
			o.keepGate(&o.keeper, nil)
		}
		return
	}
	c.quiet = 0
	if took > crowdSlow {
		c.rests = time.Now().Add(3 * took)
	}
	if o.listed == nil { // nobody can know yet who is real
		return
	}
	if c.since.IsZero() {
		c.since = time.Now()
		o.tellCrowd()
		o.pollSoon() // some may be newer than the list
	}
	o.sweep()
}

// tellCrowd tells operators that lanes wait for the channel list. The owner's mutex is
// held.
func (o *owner) tellCrowd() {
	detail, err := json.Marshal(map[string]int{"lanes": o.crowd.waiting})
	if err != nil {
		o.log.Error().Err(err).Msg("ops_event_not_encoded")
		return
	}
	o.noteOps(&o.keeper, schema.OpsEvent{
		Name: schema.OpsLaneClosed, Reason: reasonUnlisted, OpensOn: ReopenOnList, Detail: detail,
	})
	o.keepGate(&o.keeper, nil)
}

// sweep looks through the next portion of all stored commands for those of strangers
// without a lane that can end without a call: they break a rule, are too old, or their
// expireAt has passed. Nothing waits for it. The owner's mutex is held.
func (o *owner) sweep() {
	c := &o.crowd
	if c.sweeping || time.Now().Before(c.sweepAt) {
		return
	}
	c.sweeping = true
	from := c.swept + 1
	o.background.Go(func() {
		last, err := o.sweepFrom(from)
		if err != nil && o.ctx.Err() == nil {
			o.log.Warn().Err(err).Msg("commands_not_swept") // the next second tries again
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		c.sweeping = false
		switch {
		case err != nil:
		case last == 0:
			c.swept, c.sweepAt = 0, time.Now().Add(sweepEvery)
		default:
			c.swept = last
		}
	})
}

// sweepFrom returns the sequence up to which it has looked; 0: there is nothing more.
func (o *owner) sweepFrom(from uint64) (last uint64, err error) {
	ctx, cancel := context.WithTimeout(o.ctx, scanTimeout)
	defer cancel()
	ended := make(map[string][]*queue.Delivery) // by class
	last, err = o.ledger.Sweep(ctx, from, func(d *queue.Delivery) {
		kind, channel, ok := schema.ParseCommandSubject(o.cfg.Account, d.Subject)
		if !ok || !kind.IsMessage() || !schema.ValidUUID(channel) || o.knows(laneKey{string(kind), channel}) {
			return
		}
		if o.endsUncalled(d) {
			ended[string(kind)] = append(ended[string(kind)], d)
		}
	})
	if err != nil {
		return 0, err
	}
	for class, found := range ended {
		if !o.takeFound(laneKey{class, schema.NoChannel}, found) {
			return from - 1, nil // no room now: the same portion again
		}
	}
	return last, nil
}

// endsUncalled reports whether a command ends by what it says of itself.
func (o *owner) endsUncalled(d *queue.Delivery) bool {
	c := o.identify(d)
	if o.check(c) != nil {
		return true
	}
	m := c.body.Message
	return m != nil && !m.ExpireAt.IsZero() && time.Now().After(m.ExpireAt)
}
