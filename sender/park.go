package sender

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// A chat waits while its head is retried or in doubt, and every command behind
// it with it. So that they do not fill their lane and stop its other chats, only
// a few of them are held; the rest is parked on disk, in order, and read back as
// the chat moves on. A chat that is merely busy may hold more before the same
// happens to it.
const (
	chatHoldWaiting = 4  // of a chat that waits, or has parked commands, its head included
	chatHoldShare   = 16 // a busy chat may hold this part of its lane's room
	// waitingMax bounds the commands in hand that a lane need not count because
	// their chats wait. Beyond it they count, and lanes stop instead of memory growing.
	waitingMax = 8192
)

// place is where a command stands among those of its chat: when it was stored in
// its lane by NATS's clock, and within one stream its sequence.
type place struct {
	at  int64 // Unix nanoseconds
	seq uint64
}

func placeOf(d *queue.Delivery) place { return place{d.Stored.UnixNano(), d.Seq} }

func (p place) before(other place) bool {
	return p.at < other.at || p.at == other.at && p.seq < other.seq
}

func (p place) String() string {
	return strconv.FormatInt(p.at, 10) + "." + strconv.FormatUint(p.seq, 10)
}

// parsePlace reads what String wrote; what does not parse is the first place.
func parsePlace(text string) place {
	at, seq, _ := strings.Cut(text, ".")
	var p place
	p.at, _ = strconv.ParseInt(at, 10, 64)
	p.seq, _ = strconv.ParseUint(seq, 10, 64)
	return p
}

// park is what a chat has on disk. Owned by the owner's mutex.
type park struct {
	subject string
	next    uint64 // sequence from which the next command is read
	last    uint64 // sequence of the last one that is on disk, as far as it is known
	read    int    // those that were read back and are still on disk
	first   place  // of the oldest unread one, as far as it is known
	reading bool
	// settled: what comes before the parked commands has all been delivered, so
	// that the first of them may follow what the chat holds. It always is, but
	// after an owner took over.
	settled bool
	asking  bool           // whether it is settled is being asked
	writing fifo[*command] // on their way to the disk, one at a time
	// large holds those that the disk does not take, too large with our headers or
	// for want of room: they stay in hand, in order with the others.
	large fifo[*command]
}

// unread reports whether commands are parked that were not read back. They are not
// counted: a write that was repeated after a lost PubAck may be there twice.
func (p *park) unread() bool { return p.next <= p.last }

// over reports whether nothing is left. As long as a single command is on disk,
// whatever comes later must follow it there: the next owner knows no other order.
func (p *park) over() bool {
	return !p.unread() && p.read == 0 && p.writing.len() == 0 && p.large.len() == 0 && !p.reading
}

// chatRoom is how many commands a chat may hold in memory.
func (o *owner) chatRoom(ch *chat) int {
	if ch.waits || ch.park != nil {
		return chatHoldWaiting
	}
	return max(o.laneRoom(ch.lane)/chatHoldShare, chatHoldWaiting)
}

// held is how many commands of the chat are in memory, the head included.
func (ch *chat) held() int {
	n := ch.waiting.len()
	if ch.busy {
		n++
	}
	return n
}

// mustPark decides whether a command that arrives must lie behind the chat's
// parked ones, or would be too many. A sync command has its chat to itself.
func (o *owner) mustPark(ch *chat, c *command) bool {
	switch {
	case c.feed.from == sourceParked || !c.kind.IsMessage():
		return false
	case ch.park != nil && !c.place.before(ch.park.first):
		return true
	case ch.park != nil: // before the parked ones: it was on its way when the owner changed
		return false
	}
	return ch.held() >= o.chatRoom(ch) && !o.deferredFull
}

// holdsLater reports whether the chat holds a command that comes after this one,
// which its source brought late: one that came due while nobody owned the account.
func (ch *chat) holdsLater(c *command) bool {
	waiting := ch.waiting.all()
	return len(waiting) > 0 && c.place.before(waiting[len(waiting)-1].place)
}

// parkLast parks the last command that the chat holds. What is parked must come
// after all that is in memory: the next owner puts whatever does not come before
// the first parked one behind them all.
func (o *owner) parkLast(ch *chat) {
	for _, c := range ch.waiting.cut(ch.waiting.len() - 1) {
		if ch.waits {
			o.discount(ch, -1)
		}
		o.parkCommand(ch, c)
	}
}

// chatWaits notes that the chat's head waits, and parks what is too many behind it.
// The owner's mutex is held.
func (o *owner) chatWaits(ch *chat) {
	if ch == nil || ch.waits || ch.lane.sync != nil { // a sync lane's other commands do not wait with it
		return
	}
	ch.waits = true
	if ch.park == nil && !o.deferredFull {
		for _, c := range ch.waiting.cut(chatHoldWaiting - 1) {
			o.parkCommand(ch, c)
		}
	}
	o.discount(ch, 1+ch.waiting.len())
	o.fill(ch.lane)
}

// chatMoves ends what chatWaits began.
func (o *owner) chatMoves(ch *chat) {
	if ch == nil || !ch.waits {
		return
	}
	o.discount(ch, -1-ch.waiting.len())
	ch.waits = false
}

// discount counts commands that wait with their chat and leave their lane's room
// to others.
func (o *owner) discount(ch *chat, n int) {
	ch.lane.waiting += n
	o.waiting += n
}

// parkCommand puts a command behind the chat's parked ones. It stays in hand until it
// is on disk.
func (o *owner) parkCommand(ch *chat, c *command) {
	c.chat, c.shelved = nil, true
	p := ch.park
	if p == nil {
		p = &park{
			subject: o.topology.ParkSubject(c.kind, c.channel, ch.key),
			next:    1,
			first:   c.place, settled: true,
		}
		ch.park = p
		ch.lane.parks[p.subject] = ch
	}
	p.writing.push(c)
	if p.writing.len() == 1 {
		o.writeParked(ch)
	}
}

// writeParked stores the first of the commands that are to be parked. One is
// stored at a time, because a write that is repeated must not overtake another.
func (o *owner) writeParked(ch *chat) {
	p := ch.park
	for o.deferredFull && p.writing.len() > 0 {
		p.large.push(p.writing.pop())
	}
	if p.writing.len() == 0 {
		return
	}
	c := p.writing.peek()
	about := o.replicaOf(c)
	about.place = c.place
	o.enter()
	o.ledger.Park(p.subject, about.header(c.delivery.Header), c.delivery.Data, func(seq uint64, err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.leave()
		switch {
		case errors.Is(err, queue.ErrFenced):
			o.lost(err)
			return // as below
		case errors.Is(err, queue.ErrStopped):
			return // the next owner gets it again from where it was
		}
		p.writing.pop()
		if err != nil {
			p.large.push(c)
		} else {
			o.parked(p, c, seq)
		}
		if !o.stopping {
			o.writeParked(ch)
		}
		o.unpark(ch)
		o.pump()
	})
}

// parked lets go of a command that is durable where it was parked.
func (o *owner) parked(p *park, c *command, seq uint64) {
	if !p.unread() {
		p.first = c.place
	}
	p.last = max(p.last, seq)
	o.ackAll(c)
	o.forget(c)
}

// unpark reads parked commands back while the chat has room. The owner's mutex
// is held.
func (o *owner) unpark(ch *chat) {
	p := ch.park
	if p == nil || p.reading || o.stopping {
		return
	}
	if p.over() {
		ch.park = nil
		delete(ch.lane.parks, p.subject)
		o.dropIdle(ch)
		return
	}
	if !o.laneOpen(ch.lane) || ch.held() >= chatHoldWaiting || !o.parkSettled(ch) {
		return
	}
	if p.large.len() > 0 && (!p.unread() || p.large.peek().place.before(p.first)) {
		c := p.large.pop()
		c.shelved = false
		o.join(ch, c)
		o.unpark(ch)
		return
	}
	if !p.unread() {
		return // the next one is on its way to the disk
	}
	p.reading = true // until it has joined its chat, so that the next one follows it
	last := p.last
	o.later(func() {
		d, ok := o.readParked(p)
		if ok && d != nil {
			o.receiveParked(ch, d)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if !ok {
			return
		}
		if d == nil { // it had ended, and its deletion came late
			p.next = last + 1
		}
		p.reading = false
		o.unpark(ch)
		o.pump()
	})
}

// receiveParked takes in a command that was read back.
func (o *owner) receiveParked(ch *chat, d *queue.Delivery) {
	o.mu.Lock()
	p := ch.park
	p.read++
	p.next = d.Seq + 1
	p.first = parsePlace(header(d, headerPlace))
	for p.large.len() > 0 && p.large.peek().place.before(p.first) { // it may be the chat's next otherwise
		c := p.large.pop()
		c.shelved = false
		o.join(ch, c)
	}
	f := ch.lane.parkFeed()
	o.mu.Unlock()
	o.receive(d, f, ch.lane)
}

// readParked reads the next parked command, for as long as the owner lives.
func (o *owner) readParked(p *park) (d *queue.Delivery, ok bool) {
	for try := 1; ; try++ {
		d, err := o.ledger.NextParked(o.ctx, p.subject, p.next)
		if err == nil {
			return d, true
		}
		o.log.Warn().Err(err).Msg("parked_command_not_read")
		o.mu.Lock()
		stopping := o.stopping
		o.mu.Unlock()
		if stopping || !o.pause(try) {
			return nil, false
		}
	}
}

// unparked deletes a parked command that has ended, and lets its chat go on. The
// owner's mutex is held.
func (o *owner) unparked(l *lane, d *queue.Delivery) {
	o.later(func() {
		for try := 1; ; try++ {
			err := o.ledger.Unpark(o.ctx, d)
			if err == nil {
				break
			}
			o.log.Warn().Err(err).Msg("parked_command_not_deleted")
			if !o.pause(try) {
				return // the next owner finds it, and its ledger knows
			}
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if ch := l.parks[d.Subject]; ch != nil {
			ch.park.read--
			o.unpark(ch)
		}
	})
}

// parkSettled reports whether everything that comes before the chat's parked
// commands has been delivered. While it is not known, it is asked for.
func (o *owner) parkSettled(ch *chat) bool {
	if p := ch.park; !p.settled && !o.discovered.IsZero() && !p.asking {
		p.asking = true
		before := make(map[sourceKind]uint64, 2)
		for _, f := range ch.lane.feeds {
			before[f.from] = f.last
		}
		first := p.first
		o.later(func() { o.settlePark(ch, first, before) })
	}
	return ch.park.settled
}

// settlePark asks the leader whether a message of the lane lies behind what its
// sources have delivered and before the parked commands; last is the sequence that
// each source delivered last.
func (o *owner) settlePark(ch *chat, first place, last map[sourceKind]uint64) {
	settled, err := true, error(nil)
	for _, from := range []sourceKind{sourceCommands, sourceDue} {
		stream, filter := o.sourceOf(wantedLane{ch.lane.key, from})
		var at place
		var some bool
		if at, some, err = o.placeAfter(stream, filter, last[from]); err != nil {
			break
		}
		settled = settled && (!some || !at.before(first))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	p := ch.park
	p.asking = false
	switch {
	case err != nil:
		o.log.Warn().Err(err).Msg("parked_commands_wait") // the next delivery, or the next second, asks again
	case settled:
		p.settled = true
		ch.lane.unsettled--
		o.unpark(ch)
	}
}

// placeAfter is the place of the first message after a sequence.
func (o *owner) placeAfter(stream, filter string, sequence uint64) (p place, some bool, err error) {
	ctx, cancel := context.WithTimeout(o.ctx, requestTimeout)
	defer cancel()
	at, seq, err := o.ledger.StoredAfter(ctx, stream, filter, sequence)
	return place{at.UnixNano(), seq}, seq > 0, err
}

// unparkAll goes on with the lane's chats that have parked commands.
func (o *owner) unparkAll(l *lane) {
	for _, ch := range l.parks {
		o.unpark(ch)
	}
}

// findParked takes over what former owners parked, before any lane is opened: a
// command must not overtake those of its chat that are parked.
func (o *owner) findParked(ctx context.Context) error {
	parked, err := o.intake.Waiting(ctx, o.topology.Deferred(), o.topology.ParkFilter())
	if err != nil {
		return err
	}
	subjects := slices.Collect(maps.Keys(parked))
	return together(ctx, len(subjects), func(ctx context.Context, i int) error {
		d, err := o.ledger.NextParked(ctx, subjects[i], 0)
		if err != nil {
			return err
		}
		last, err := o.ledger.LastParked(ctx, subjects[i])
		if err == nil && d != nil {
			o.adoptPark(subjects[i], max(last, d.Seq), d)
		}
		return err
	})
}

// adoptPark gives a chat what a former owner parked: d is the first of it, and last
// the sequence of the last.
func (o *owner) adoptPark(subject string, last uint64, d *queue.Delivery) {
	c := o.identify(d)
	body, faults := schema.Decode(o.cfg.Account, c.kind, c.channel, d.Data)
	if body.Message == nil || len(faults) > 0 {
		o.log.Error().Uint64("sequence", d.Seq).Msg("parked_command_not_readable") // only valid ones are parked
		return
	}
	c.body = body
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.laneOf(laneKey{string(c.kind), c.channel})
	ch := l.chatOf(chatKey(c))
	ch.park = &park{subject: subject, next: d.Seq, last: last, first: c.place}
	l.parks[subject] = ch
	l.unsettled++
}
