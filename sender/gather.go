package sender

import (
	"sync"
	"time"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Bounds of a sync lane. It holds more than the others, since a request takes a
// hundred commands.
const (
	// maxBatch is the vendor's limit of entities a write.
	maxBatch = 100
	// maxBatchBytes bounds the body of a request of several items. A larger item
	// goes by itself.
	maxBatchBytes = 512 << 10
	// syncFlight is how many requests of a lane may be under way. They are about
	// different entities.
	syncFlight = 4
	// syncHold is how many commands a lane holds: the requests under way, and enough
	// for the next ones, so that a backlog makes full requests.
	syncHold = (syncFlight + 3) * maxBatch
	// syncHoldBytes is about how much the bodies of these may take: of larger ones
	// fewer are held.
	syncHoldBytes = 16 << 20
	// syncAhead is how many commands are asked for at a time, before the size of
	// any of them is known.
	syncAhead = 2 * maxBatch
	// gatherBacklog is how many times longer a request waits for commands that are
	// known to be on their way from a backlog.
	gatherBacklog = 5
)

// gathering is what a sync lane has beside the others: its commands have the chat
// to themselves that each has there, and the order of their entities instead.
// Upserts that may go wait a moment for others, so that they share a request.
type gathering struct {
	order entityOrder
	open  fifo[*command] // upserts that may go, the one that waits for the longest first
	items int            // of these
	first *command       // of them, the one that stands in the lane's line for all; it is not in open any more
	timer *time.Timer    // until the first of open has waited for long enough
	// called is when first was chosen: what others wait for since is no company.
	called time.Time
}

// syncReady offers a sync command that may go to the gates.
func (o *owner) syncReady(ch *chat) {
	l, c := ch.lane, ch.waiting.peek()
	if !l.sync.order.free(c) {
		return // its turn comes when those before it end
	}
	ch.headWaits(time.Now())
	if c.body.Sync.Verb != schema.VerbUpsert || o.goesAlone(c) {
		l.ready.push(ch)
		o.offer(l)
		return
	}
	l.sync.open.push(c)
	l.sync.items += c.work.left()
	o.gatherMore(l)
}

// goesAlone reports whether an upsert has its request to itself: if its next attempt
// is its last, so that none is dead because another one of its request makes the
// vendor fail.
func (o *owner) goesAlone(c *command) bool {
	return c.spent > 0 && c.spent == o.cfg.MaxAttempts-1
}

// gatherMore has the lane stand in line once there are enough items for a request, or
// the first has waited for others long enough. While it stands there, more may join.
func (o *owner) gatherMore(l *lane) {
	g := l.sync
	if g.first != nil || g.open.len() == 0 || o.stopping {
		return
	}
	patience := o.cfg.SyncGather
	if l.expectsMore() {
		patience *= gatherBacklog
	}
	// One that has waited for others of its entities has spent its patience then, but
	// those that waited with it come free one by one.
	first := g.open.peek()
	due := latest(first.since.Add(patience), first.ready.Add(patience/4))
	if wait := time.Until(due); g.items < maxBatch && wait > 0 {
		if g.timer == nil {
			wait = min(wait, max(o.cfg.SyncGather, time.Millisecond)) // what was expected may have come
			g.timer = time.AfterFunc(wait, func() {
				o.mu.Lock()
				defer o.mu.Unlock()
				g.timer = nil
				o.gatherMore(l)
				o.pump()
			})
		}
		return
	}
	g.first = g.open.pop()
	g.items -= g.first.work.left()
	g.called = time.Now()
	g.first.waited(gateGather, g.called.Sub(g.first.ready), whyGather)
	l.ready.push(g.first.chat)
	o.offer(l)
}

// expectsMore reports whether commands were left in the lane's streams when the last
// one was delivered, and have been asked for.
func (l *lane) expectsMore() bool {
	for _, f := range l.feeds {
		if f.more && f.source.Wanted() > 0 {
			return true
		}
	}
	return false
}

// syncEnded lets those go that waited for a command that has ended.
func (o *owner) syncEnded(l *lane, c *command) {
	for _, next := range l.sync.order.leave(c) {
		if ch := next.chat; ch != nil && !ch.busy {
			o.chatReady(ch)
		}
	}
}

// syncRoom is how many commands a sync lane may hold.
func (l *lane) syncRoom() int {
	e := &l.sync.order
	if n := e.held(); n > 0 && e.bytes > 0 {
		return min(syncHold, max(syncHoldBytes/(e.bytes/n+1), laneHoldMin))
	}
	return syncHold
}

// batch is commands that share their requests: upserts that were gathered, or one
// delete or replace by itself. It holds a slot from its claims to the end of its
// last request.
type batch struct {
	lane     *lane
	commands []*command
	items    coalesced
	room     int // entries that may be
	size     int // bytes of the entries' values

	claiming int // claims that are not durable

	mu      sync.Mutex // while its requests are made: guards these, and its commands' work
	ticket  ticket     // of its first request; nil: it is used
	jobs    []func()   // the requests that are left
	inOrder bool       // they must follow one another
}

// newBatch begins a batch with the command whose turn it is, and takes in whoever
// may go along. The owner's mutex is held.
func (o *owner) newBatch(c *command, now time.Time) *batch {
	l := c.lane
	b := &batch{lane: l, room: maxBatch}
	o.board(b, c)
	if c.body.Sync.Verb != schema.VerbUpsert {
		return b
	}
	g := l.sync
	if c == g.first {
		g.first = nil
	}
	b.items.add(c)
	b.room = max((len(b.items.entries)+maxBatch-1)/maxBatch*maxBatch, maxBatch)
	for i := range b.items.entries {
		b.size += len(b.items.entries[i].value()) + 1
	}
	if o.goesAlone(c) {
		return b
	}
	for range g.open.len() {
		other := g.open.pop()
		if !o.boardIfFits(b, other, now) {
			g.open.push(other)
			continue
		}
		g.items -= other.work.left()
	}
	// Those behind them, whose items take the place of theirs. A command that joins
	// brings those behind itself.
	for i := 0; i < len(b.commands); i++ {
		for _, next := range g.order.behindOf(b.commands[i]) {
			if o.mayFollow(b, next) {
				o.boardIfFits(b, next, now)
			}
		}
	}
	o.gatherMore(l)
	return b
}

// mayFollow reports whether a command waits for nobody but those of the batch.
func (o *owner) mayFollow(b *batch, c *command) bool {
	if c.work.batch != nil || c.chat == nil || o.goesAlone(c) || c.chat.busy || c.body.Sync.Verb != schema.VerbUpsert {
		return false
	}
	for _, other := range b.lane.sync.order.directlyBefore(c) {
		if other.work.batch != b {
			return false
		}
	}
	return true
}

// boardIfFits takes a command into the batch, unless that is full or the command's
// items cannot share its requests.
func (o *owner) boardIfFits(b *batch, c *command, now time.Time) bool {
	entries, size, fits := b.items.fresh(c)
	if !fits || len(b.items.entries)+entries > b.room || b.size+size > maxBatchBytes {
		return false
	}
	b.items.add(c)
	b.size += size
	if c.work.ahead > 0 { // it was not offered by itself
		c.chat.headWaits(now)
	} else {
		c.waited(gateGather, b.lane.sync.called.Sub(c.ready), whyGather)
	}
	c.chat.waiting.pop()
	c.chat.busy = true
	c.waitedAtGates(b.lane, now)
	o.board(b, c)
	return true
}

func (o *owner) board(b *batch, c *command) {
	w := c.work
	w.batch, w.late, w.failed, w.ended = b, nil, nil, nil
	w.before, w.after, w.awaits = w.before[:0], w.after[:0], 0
	for _, other := range b.lane.sync.order.directlyBefore(c) {
		if other.work.batch == b {
			w.before = append(w.before, other)
			other.work.after = append(other.work.after, c)
			w.awaits++
		}
	}
	b.commands = append(b.commands, c)
}

// entity is what the batch's commands are about.
func (b *batch) entity() schema.Entity { return b.commands[0].body.Sync.Entity }
