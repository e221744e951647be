package sender

import (
	"strconv"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Lane classes. The transactional class goes first; all others share what it
// leaves.
const (
	classSend = string(schema.KindSend)
	classBulk = string(schema.KindBulk)
	classSync = "sync"
)

// classOf is the class of the lanes of a kind of commands.
func classOf(kind schema.Kind) string {
	if kind.IsMessage() {
		return string(kind)
	}
	return classSync
}

// laneKey names a lane: class and channel, or for sync class and entity.
type laneKey struct{ class, channel string }

// Bounds of what a lane holds in memory; the rest stays on disk.
const (
	laneHoldMax   = 256
	laneHoldMin   = 16
	laneHoldPaced = 4    // of a lane with a pace, beside what it may call while one call is answered
	allLanesHold  = 4096 // of all lanes together, as long as each may hold laneHoldMin
)

// lane is one class of one channel: a pull consumer, the chats it brings, and
// the gates of its own. Owned by the owner's mutex.
type lane struct {
	key    laneKey
	feeds  []*feed
	chats  map[string]*chat
	ready  fifo[*chat] // chats whose head may go
	flight int         // attempts that hold a slot
	pace   pace

	waiting   int              // commands in hand whose chats wait
	parks     map[string]*chat // chats that have parked commands, by the subject of these
	unsettled int              // of them, those of a former owner that may not be read yet

	idleSince time.Time // when it was first seen without work; zero: it was not
	lastSeen  uint64    // the sum of its feeds' sequences then
	foundIn   uint64    // the last round of discovery in which a stream held commands of it
	dueLast   time.Time // the latest sendAt of those that it had scheduled

	shutFor int // rounds of discovery in a row in which it was closed

	queued    bool        // it stands in the owner's queue of runnable lanes
	parked    *time.Timer // until a gate of its own opens
	parkedAt  gate
	parkedWhy string
	channel   *channelGate
	sync      *gathering // nil: it is no sync lane

	clock   gateClock  // of its own gates
	line    *gateClock // of its rank's line, where it stands while queued
	joined  gateTimes  // the line's, when it was last looked at
	paceWhy string
}

// feed is one source of a lane: its commands, those that came due, or those
// that were parked.
type feed struct {
	from   sourceKind
	lane   *lane
	source *queue.Source // nil: parked commands, which no consumer brings
	held   int           // deliveries in hand

	last    uint64 // sequence of the latest delivery that is where it belongs
	more    bool   // of a sync lane: its stream held more when that was delivered
	latest  int64  // its place in time, Unix nanoseconds
	retired bool   // its consumer is gone: what still comes from it will come again through another
}

// chat is the queue of one chat within a lane: its commands go one at a time, in
// the order in which they were stored.
type chat struct {
	key     string
	lane    *lane
	waiting fifo[*command]
	busy    bool  // its head is under way, waits for a retry, or is in doubt
	waits   bool  // its head waits for a retry or is in doubt
	park    *park // what it has on disk; nil: nothing
}

// chatKey tells which commands must keep their order. A sync command has a chat to
// itself: its lane keeps the order of what it is about.
func chatKey(c *command) string {
	if m := c.body.Message; m != nil {
		return m.ChatType + "\x00" + m.ChatID
	}
	return c.origin.LedgerKey() + "." + strconv.Itoa(c.generation)
}

// chatOf is the lane's chat with the key, made where it is missing.
func (l *lane) chatOf(key string) *chat {
	ch := l.chats[key]
	if ch == nil {
		ch = &chat{key: key, lane: l}
		l.chats[key] = ch
	}
	return ch
}

// enqueue puts a command into its chat, or onto disk where the chat holds
// enough.
func (o *owner) enqueue(c *command) {
	ch := c.lane.chatOf(chatKey(c))
	switch {
	case !o.mustPark(ch, c):
		o.join(ch, c)
	case ch.park == nil && ch.holdsLater(c):
		o.join(ch, c)
		o.parkLast(ch)
	default:
		o.parkCommand(ch, c)
	}
}

// join puts a command in its place in its chat: nearly always the end, but two
// sources of a lane may bring theirs out of order.
func (o *owner) join(ch *chat, c *command) {
	c.chat, c.since = ch, time.Now()
	o.waitedOnDisk(c, c.since)
	ch.waiting.insert(c, func(other *command) bool { return c.place.before(other.place) })
	if ch.waits {
		o.discount(ch, 1)
	}
	switch {
	case ch.lane.sync != nil:
		if c.work = newSyncWork(c.body.Sync); ch.lane.sync.order.enter(c) {
			o.chatReady(ch)
		}
	case ch.busy || ch.waiting.peek() != c:
	case ch.waiting.len() == 1:
		o.chatReady(ch)
	default: // the chat is offered already, by the one that was its head until now
		ch.headWaits(time.Now())
	}
}

// headWaits notes that the chat's head waits at the lane's gates from now on.
func (ch *chat) headWaits(now time.Time) {
	c := ch.waiting.peek()
	c.ready = now
	c.waited(gateOrder, c.ready.Sub(c.since), ch.lane.whyOrder())
	c.gatesBefore = ch.lane.gateTimes(c.ready)
}

// whyOrder is why a command of the lane waits for another.
func (l *lane) whyOrder() string {
	if l.sync != nil {
		return whyEntity
	}
	return whyOrder
}

// chatReady offers a chat's head to the gates.
func (o *owner) chatReady(ch *chat) {
	if ch.lane.sync != nil {
		o.syncReady(ch)
		return
	}
	if o.evidenceFirst(ch) {
		return
	}
	ch.headWaits(time.Now())
	ch.lane.ready.push(ch)
	o.offer(ch.lane)
}

// again puts a command back at the head of its chat, which it still occupies.
func (o *owner) again(c *command) {
	ch := c.chat
	if !ch.busy { // it was never taken: a refused claim of another kind
		return
	}
	o.chatMoves(ch)
	ch.busy = false
	c.since = time.Now()
	ch.waiting.pushFront(c)
	o.chatReady(ch)
	o.pump()
}

// evidenceBefore takes the lane's next chats out of the line whose head has to have
// its evidence looked for first: one that came ahead of the head that was offered.
func (o *owner) evidenceBefore(l *lane) {
	for l.ready.len() > 0 && o.evidenceFirst(l.ready.peek()) {
		l.ready.pop()
	}
}

// release lets the next command of the chat go.
func (o *owner) release(c *command) {
	ch := c.chat
	if ch == nil {
		return
	}
	c.chat = nil
	o.chatMoves(ch)
	ch.busy = false
	if ch.lane.sync != nil {
		o.syncEnded(ch.lane, c)
	}
	if ch.waiting.len() > 0 {
		o.chatReady(ch)
	}
	o.unpark(ch)
	o.dropIdle(ch)
}

// dropIdle forgets a chat that has nothing left.
func (o *owner) dropIdle(ch *chat) {
	if !ch.busy && ch.waiting.len() == 0 && ch.park == nil {
		delete(ch.lane.chats, ch.key)
	}
}

// family is the breaker that the lane's calls count for.
func (l *lane) family() Family {
	if l.key.class == classSync {
		return FamilySync
	}
	return FamilySend
}

// channelID is the channel whose breaker counts; a sync lane has none.
func (l *lane) channelID() string {
	if l.key.class == classSync {
		return ""
	}
	return l.key.channel
}

// offer makes the lane stand in line for a slot, if it has a command that may go
// and no gate of its own is closed.
func (o *owner) offer(l *lane) {
	if l.queued || l.parked != nil || l.ready.len() == 0 || !o.laneOpen(l) || l.sync != nil && l.flight >= syncFlight {
		return
	}
	l.join(time.Now())
	o.runnable[l.rank()].push(l)
}

// rank orders the classes.
func (l *lane) rank() int {
	if l.key.class == classSend {
		return 0
	}
	return 1
}

// fill asks for more commands where half of the lane's room is free, or nothing in
// it moves: one at a time, each would cost the server a request of its own. A lane
// that is closed, or whose breaker is open, is not asked: its backlog stays on disk.
func (o *owner) fill(l *lane) {
	if o.stopping || !o.laneOpen(l) || o.awaitsBreaker(l) {
		return
	}
	room := o.laneRoom(l)
	if l.channel != nil && l.channel.trying {
		room = 1 // one call at a time
	}
	held := o.laneHeld(l)
	still := l.held() == l.waiting
	enough, most := room/2, room
	if l.sync != nil {
		enough, most = min(enough, maxBatch), syncAhead
	}
	for _, f := range l.feeds {
		if f.source == nil {
			continue
		}
		wanted := f.source.Wanted()
		if n := min(room-held, most) - wanted; n > 0 && (n >= enough || still && wanted == 0) {
			f.source.Want(n)
		}
	}
}

// awaitsBreaker reports whether a breaker refuses the lane's calls. A lane that has
// nothing to be refused is parked until the breaker may let it through, so that it
// asks for commands then.
func (o *owner) awaitsBreaker(l *lane) bool {
	if l.parked != nil && l.parkedAt == gateBreaker {
		return true
	}
	retryAt, blocked := o.breakers.Blocked(l.family(), l.channelID())
	if blocked && l.parked == nil && !l.queued && l.ready.len() == 0 {
		o.park(l, block{gateBreaker, o.whyBreaker(l), retryAt}, time.Now())
	}
	return blocked
}

// held is how many of the lane's commands are in hand.
func (l *lane) held() int {
	held := 0
	for _, f := range l.feeds {
		held += f.held
	}
	return held
}

// laneHeld is how much of its room the lane uses: what waits with its chat does
// not count, so that it does not stop the others, unless there is too much of it.
func (o *owner) laneHeld(l *lane) int {
	held := l.held()
	if o.waiting <= waitingMax {
		held -= l.waiting
	}
	return held
}

// laneRoom is how many commands a lane may hold. What holds nothing asks for the
// share that is left if all lanes wake at once; the others share among those that
// move, so that a lane beside many closed ones has the room that it has alone:
// without it, it would wait whenever the server reads past their commands.
func (o *owner) laneRoom(l *lane) int {
	if l.sync != nil {
		return l.syncRoom()
	}
	sharing := len(o.lanes)
	if l.held() > 0 && len(o.commands) < 2*allLanesHold {
		sharing = o.moving
	}
	room := min(max(allLanesHold/max(sharing, 1), laneHoldMin), laneHoldMax)
	if l.pace.limit.N > 0 {
		return min(room, laneHoldPaced+l.pace.limit.In(o.cfg.Timeout))
	}
	return room
}

// moves reports whether the lane shares the room: it is open and has commands in
// hand. The owner's mutex is held.
func (o *owner) moves(l *lane) bool { return l.held() > 0 && o.laneOpen(l) }

func (o *owner) forget(c *command) {
	if o.commands[c.identity()] == c {
		delete(o.commands, c.identity())
	}
	c.feed.held--
	o.fill(c.lane)
}
