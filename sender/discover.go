package sender

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Where a lane's commands come from.
type sourceKind int

const (
	sourceCommands sourceKind = iota // what producers published
	sourceDue                        // what came back from the deferred stream
	sourceParked                     // what was parked because its chat waited
)

// discover opens a lane for every subject that holds commands, so that the first
// command of a channel nobody listed is found within a second. Lanes of channels that
// may be an invention are opened after the others, and a bounded number of them: see
// strangers.go.
func (o *owner) discover(ctx context.Context) error {
	if o.crowdRests() {
		return nil
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, o.cfg.timing.discover)
	defer cancel()
	f := finding{o: o, malformed: make(map[string]string), counts: [places]map[string]uint64{inCommands: {}, inDue: {}}}
	if err := o.intake.EachWaiting(ctx, o.topology.Commands(), ">", f.commands); err != nil {
		return err
	}
	o.seekMalformed(f.malformed)
	faults := o.checkDeferred(ctx)
	if err := o.intake.EachWaiting(ctx, o.topology.Deferred(), o.topology.DueFilter(), f.due); err != nil {
		return err
	}
	o.noteBacklog(f.counts)
	if err := errors.Join(faults, o.openLanes(ctx, f.known)); err != nil {
		return err
	}
	// A stranger's lane that cannot be opened is nothing that the others wait for: none
	// of them has parked commands.
	err := o.openLanes(ctx, o.admit(&f))
	o.foundAll()
	o.crowdSeen(time.Since(began))
	return err
}

// finding is what one round of discovery has met.
type finding struct {
	o         *owner
	known     []wantedLane              // sources that are to be opened
	strangers []wantedLane              // the same, of channels that may be an invention
	more      int                       // strangers beyond those
	malformed map[string]string         // the class of each subject
	counts    [places]map[string]uint64 // of commands, by class
}

// commands takes in a subject of the command stream, and how many it holds.
func (f *finding) commands(subject string, n uint64) {
	kind, channel, ok := schema.ParseCommandSubject(f.o.cfg.Account, subject)
	if ok {
		f.counts[inCommands][classOf(kind)] += n
	}
	switch {
	case !ok || !kind.IsMessage():
	case schema.ValidUUID(channel):
		f.source(wantedLane{laneKey{string(kind), channel}, sourceCommands}, n)
	case len(f.malformed) < malformedTogether:
		f.malformed[subject] = string(kind)
	}
}

// due takes in a subject on which deferred commands have come due.
func (f *finding) due(subject string, n uint64) {
	tokens := strings.Split(subject, ".")
	key := laneKey{tokens[len(tokens)-2], tokens[len(tokens)-1]}
	f.counts[inDue][key.class] += n
	f.source(wantedLane{key, sourceDue}, n)
}

func (f *finding) source(w wantedLane, n uint64) {
	switch {
	case f.o.foundLane(w, n):
	case f.o.knows(w.key):
		f.known = append(f.known, w)
	case len(f.strangers) < strangersTogether:
		f.strangers = append(f.strangers, w)
	default:
		f.more++
	}
}

// foundAll notes that every source with a command has a consumer: from now on a
// lane knows whether something comes before what a former owner parked.
func (o *owner) foundAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rounds++
	if o.discovered.IsZero() {
		o.discovered = time.Now()
	}
	o.moving = 0
	for _, l := range o.lanes {
		if l.unsettled > 0 {
			o.unparkAll(l)
		}
		if o.moves(l) {
			o.moving++
		}
		o.sleepIfShut(l)
	}
}

// checkDeferred keeps the deferred stream within its limit: the server cannot,
// since on a stream with schedules it could only discard the oldest.
func (o *owner) checkDeferred(ctx context.Context) error {
	var size uint64
	err := queue.Ask(ctx, func(ctx context.Context) error {
		s, err := o.js.Stream(ctx, o.topology.Deferred())
		if err == nil {
			size = s.CachedInfo().State.Bytes
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("size of the deferred stream: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deferredFull = size >= uint64(max(o.topology.Limits.DeferredBytes, 0)) //nolint:gosec // not negative
	return nil
}

// wantedLane names one source of a lane.
type wantedLane struct {
	key  laneKey
	from sourceKind
}

// foundLane has the watchdog look at a source that holds messages; false: there
// is no such source yet.
func (o *owner) foundLane(w wantedLane, waiting uint64) bool {
	o.mu.Lock()
	var f *feed
	if l := o.lanes[w.key]; l != nil {
		f = l.feed(w.from)
	}
	held := 0
	if f != nil {
		held = f.held
		f.lane.foundIn = o.rounds + 1
	}
	o.mu.Unlock()
	if f != nil {
		f.source.Check(int(waiting) - held) //nolint:gosec // a stream holds fewer than 2^63 messages
	}
	return f != nil
}

// parkFeed is the lane's feed of parked commands.
func (l *lane) parkFeed() *feed {
	f := l.feed(sourceParked)
	if f == nil {
		f = &feed{from: sourceParked, lane: l}
		l.feeds = append(l.feeds, f)
	}
	return f
}

func (l *lane) feed(from sourceKind) *feed {
	for _, f := range l.feeds {
		if f.from == from {
			return f
		}
	}
	return nil
}

// openLanes opens sources, several at a time: in a cluster that has just lost a
// node each may have to wait for the election of its consumer's leader.
func (o *owner) openLanes(ctx context.Context, lanes []wantedLane) error {
	o.opening.Lock() // one caller at a time, so that no source is opened twice
	defer o.opening.Unlock()
	var wg sync.WaitGroup
	errs := make([]error, len(lanes))
	slots := make(chan struct{}, opensTogether)
	seen := make(map[wantedLane]bool, len(lanes))
	for i, w := range lanes {
		if seen[w] {
			continue
		}
		seen[w] = true
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = o.openLane(ctx, w)
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// openLane makes the consumer of a lane's source and asks for its first messages,
// unless it is open. The consumer of a closed lane is made when it opens.
func (o *owner) openLane(ctx context.Context, w wantedLane) error {
	key, from := w.key, w.from
	o.mu.Lock()
	l := o.laneOf(key)
	known, shut := l.feed(from) != nil, l.shut()
	o.mu.Unlock()
	if known {
		return nil
	}
	stream, filter := o.sourceOf(w)
	var source *queue.Source
	var err error
	if shut {
		source, err = o.intake.OpenAsleep(stream, filter)
	} else {
		source, err = o.intake.Open(ctx, stream, filter)
	}
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	f := &feed{from: from, source: source, lane: l}
	l.feeds = append(l.feeds, f)
	o.feeds[source] = f
	o.fill(l)
	return nil
}

// sourceOf is where the commands of a lane's source are stored.
func (o *owner) sourceOf(w wantedLane) (stream, filter string) {
	switch {
	case w.from == sourceDue:
		return o.topology.Deferred(), o.dueSubject(w.key)
	case w.key.class == classSync:
		return o.topology.Commands(), schema.SyncSubject(o.cfg.Account, schema.Entity(w.key.channel), "*")
	}
	return o.topology.Commands(), schema.SendSubject(o.cfg.Account, schema.Kind(w.key.class), w.key.channel)
}

// laneOf is the lane with the key, made where it is missing. The owner's mutex is
// held.
func (o *owner) laneOf(key laneKey) *lane {
	l := o.lanes[key]
	if l == nil {
		l = &lane{key: key, chats: make(map[string]*chat), parks: make(map[string]*chat), pace: pace{limit: o.cfg.paceOf(key)}, foundIn: o.rounds + 1}
		l.pace.next = o.paces.from(key, l.pace.limit, time.Now())
		l.line, l.paceWhy = &o.lines[l.rank()], paceWhy(l.pace.limit)
		if key.class == classSync {
			l.sync = &gathering{}
		} else {
			l.channel = o.channel(key.channel)
		}
		o.shut(l, time.Now())
		o.lanes[key] = l
	}
	return l
}

// delivered takes a message from the intake to its lane.
func (o *owner) delivered(d *queue.Delivery) {
	o.mu.Lock()
	f := o.feeds[d.Source]
	o.mu.Unlock()
	if f != nil {
		o.receive(d, f, f.lane)
	}
}

// pollChannels reads the channel list at start, then on a schedule and when an
// account must be probed. It is a cross-check of what webhooks say, it knows the
// lanes before their first command, and it opens a closed account.
func (o *owner) pollChannels(ctx context.Context) {
	failures := 0
	for {
		err := o.pollOnce(ctx)
		wait := o.cfg.ChannelsPoll
		if err != nil {
			failures++
			wait = min(wait, o.cfg.Backoff.Delay(failures, o.random)+time.Second)
			if failures == 1 && ctx.Err() == nil {
				o.log.Warn().Err(err).Msg("channel_list_not_read")
			}
		} else {
			failures = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-o.keys:
			timer.Stop()
			failures = 0
		case <-o.polls:
			timer.Stop()
			if failures > 0 { // a closed account asks; do not hammer it
				select {
				case <-ctx.Done():
					return
				case <-o.keys:
					failures = 0
				case <-time.After(o.cfg.Backoff.Delay(failures, o.random)):
				}
			}
		case <-timer.C:
		}
	}
}

func (o *owner) pollSoon() {
	select {
	case o.polls <- struct{}{}:
	default:
	}
}

func (o *owner) pollOnce(ctx context.Context) error {
	asked := time.Now()
	o.mu.Lock()
	closings := o.closings
	o.mu.Unlock()
	if err := o.token(ctx); err != nil {
		return err
	}
	answer := o.client.Channels(ctx)
	o.tokenUsed()
	o.vendorAway(answer.Status == 0 || answer.Status >= 500)
	v := Classify(FamilyQuery, answer)
	if v.Action != ActionAccept {
		o.refusedQuery(answer, v, asked)
		if answer.Err != nil {
			return fmt.Errorf("read channel list: %w", answer.Err)
		}
		return fmt.Errorf("read channel list: %s", NewError(answer, v).Code)
	}
	channels, err := wazzup.DecodeChannels(answer.Body)
	if err != nil {
		return err
	}
	o.mu.Lock()
	o.listed = make(map[string]bool, len(channels))
	for _, ch := range channels {
		o.listed[ch.ChannelID] = true
		o.channelState(ch.ChannelID, ch.State, asked)
	}
	// After the channels, so that nothing is asked for that cannot be sent. What was
	// read before the account closed says nothing of it.
	if closings == o.closings {
		o.accountAnswers()
	}
	var lanes []wantedLane
	if o.crowd.waiting > 0 {
		lanes = o.listedLanes()
	}
	o.mu.Unlock()
	for _, ch := range channels {
		// Only the transactional lane, whose first command must not wait to be
		// discovered: the server asks every consumer at each acknowledgement.
		if schema.ValidUUID(ch.ChannelID) {
			lanes = append(lanes, wantedLane{laneKey{classSend, ch.ChannelID}, sourceCommands})
		}
	}
	return o.openLanes(ctx, lanes)
}

// refusedQuery closes what the answer to a call says that is no command's.
func (o *owner) refusedQuery(a wazzup.Answer, v Verdict, began time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch v.Action {
	case ActionPauseAccount:
		o.pauseAccount(a)
	case ActionCloseAccount:
		if !began.Before(o.lastClosed.until) { // see refused
			o.shutAccount(NewError(a, v).Code)
		}
	case ActionAccept, ActionReject, ActionRetry, ActionRetryLimited, ActionCloseChannel, ActionUnknown:
	}
}
