package sender

import (
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Bounds of the work on statuses.
const (
	positionEvery = time.Second // how often the place in the event stream is noted
	statusesBusy  = 64          // messages whose statuses are led at the same time
	statusesHeld  = 100_000     // statuses in memory; beyond it the oldest that waits is given up
	lookAgainMax  = 10 * time.Second
)

// stateStatuses is where the owner notes up to where statuses are handled.
const stateStatuses = "statuses"

// status is a delivery status from a webhook.
type status struct {
	messageID string
	late      LateStatus
	sequence  uint64 // of its event
	stored    time.Time
}

// statuses leads the vendor's delivery statuses to their commands: forward only,
// once each. Those of one message go one after the other, those of many messages
// at the same time. Owned by the owner's mutex.
type statuses struct {
	boxes   map[string]*statusBox // by message id
	oldest  boxHeap               // the same, the one with the oldest status first
	held    int                   // statuses in all of them
	handled uint64                // sequence of the last status event that was taken in
	noted   uint64                // the position that is stored
	last    time.Time             // when the last status event was stored, NATS's clock; zero: none since the ownership began

	busy    chan struct{}    // a place for each box that is led
	ready   fifo[*statusBox] // boxes that want a place
	pending map[*statusBox]struct{}
}

// statusBox holds the statuses of one message that are not durable with its
// command yet, in the order in which they were stored.
type statusBox struct {
	queue   []status
	busy    bool      // it is led, or wants a place
	again   bool      // its command went on meanwhile: what was found out no longer counts
	looks   int       // in vain, of a command that is known and has not ended
	lookAt  time.Time // of such a one: when to look again
	ordinal int       // in the heap
}

func newStatuses() statuses {
	return statuses{
		boxes: make(map[string]*statusBox), busy: make(chan struct{}, statusesBusy), pending: make(map[*statusBox]struct{}),
	}
}

// boxHeap orders boxes by their oldest status (container/heap).
type boxHeap []*statusBox

func (h boxHeap) Len() int           { return len(h) }
func (h boxHeap) Less(i, j int) bool { return h[i].queue[0].sequence < h[j].queue[0].sequence }
func (h boxHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].ordinal, h[j].ordinal = i, j
}

// Push implements heap.Interface.
func (h *boxHeap) Push(x any) {
	b, _ := x.(*statusBox)
	b.ordinal = len(*h)
	*h = append(*h, b)
}

// Pop implements heap.Interface.
func (h *boxHeap) Pop() any {
	last := len(*h) - 1
	b := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return b
}

// add keeps a status until it is durable and returns its box.
func (s *statuses) add(one status) *statusBox {
	s.held++
	b := s.boxes[one.messageID]
	if b != nil {
		b.queue = append(b.queue, one)
		return b
	}
	b = &statusBox{queue: []status{one}}
	s.boxes[one.messageID] = b
	heap.Push(&s.oldest, b)
	return b
}

// drop forgets the oldest status of a box: it is durable, or given up.
func (s *statuses) drop(b *statusBox) {
	s.held--
	if len(b.queue) > 1 {
		b.queue = b.queue[1:]
		heap.Fix(&s.oldest, b.ordinal)
		return
	}
	delete(s.boxes, b.queue[0].messageID)
	delete(s.pending, b)
	heap.Remove(&s.oldest, b.ordinal)
}

// position is up to where every status is handled.
func (s *statuses) position() uint64 {
	if len(s.oldest) > 0 {
		return min(s.handled, s.oldest[0].queue[0].sequence-1)
	}
	return s.handled
}

// followStatuses reads status events from where the last owner stopped.
func (o *owner) followStatuses(ctx context.Context) error {
	from, err := o.statusPosition(ctx)
	if err != nil {
		return fmt.Errorf("follow statuses: %w", err)
	}
	o.statuses.handled, o.statuses.noted = from, from
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: []string{schema.StatusEventSubject(o.cfg.Account, "*")}}
	if from > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from+1
	}
	if _, err := o.follow(ctx, cfg, o.statusEvent); err != nil {
		return fmt.Errorf("follow statuses: %w", err)
	}
	return nil
}

func (o *owner) statusPosition(ctx context.Context) (uint64, error) {
	body, err := o.ledger.LastState(ctx, stateStatuses)
	if err != nil || body == nil {
		return 0, err
	}
	return strconv.ParseUint(string(body), 10, 64)
}

// keepStatuses is the chore of statuses: it gives up those whose time is over,
// looks again where a command had not ended, and notes the position.
func (o *owner) keepStatuses(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &o.statuses
	now := time.Now()
	for len(s.oldest) > 0 && !s.oldest[0].busy && now.Sub(s.oldest[0].queue[0].stored) > o.cfg.StatusWait {
		s.drop(s.oldest[0]) // of a message that is none of ours; it stays under evt.status
	}
	for b := range s.pending {
		if !now.Before(b.lookAt) {
			o.leadSoon(b)
		}
	}
	position := s.position()
	if position <= s.noted || o.stopping {
		return nil
	}
	s.noted = position
	o.enter()
	o.ledger.PutState(stateStatuses, strconv.AppendUint(nil, position, 10), func(error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.leave()
	})
	return nil
}

// statusEvent takes in one stored status. It blocks while too many are under
// way, so that what is not taken in yet stays on disk.
func (o *owner) statusEvent(m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil {
		return
	}
	one := readStatus(m.Data())
	one.sequence, one.stored = meta.Sequence.Stream, meta.Timestamp
	tells := one.late.State != "" && one.messageID != ""
	if tells {
		select {
		case o.statuses.busy <- struct{}{}:
		case <-o.ctx.Done():
			return
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.webhooks, o.statuses.last = true, one.stored
	switch {
	case o.stopping: // the next owner reads it again
	case tells:
		o.statuses.handled = one.sequence
		b := o.statuses.add(one)
		o.boundStatuses()
		if !b.busy {
			b.busy = true
			o.lead(b) // in the place that was taken
			return
		}
	default:
		o.statuses.handled = one.sequence
	}
	if tells {
		o.statusPlaceFree()
	}
}

// readStatus reads the vendor's status object; what is none says nothing.
func readStatus(data []byte) (s status) {
	var body struct {
		MessageID json.RawMessage `json:"messageId"`
		Status    json.RawMessage `json:"status"`
	}
	if json.Unmarshal(data, &body) != nil {
		return s
	}
	s.messageID = schema.EntityID(body.MessageID)
	if n, err := strconv.Atoi(schema.EntityID(body.Status)); err == nil {
		s.late, _ = ClassifyStatus(n)
	}
	return s
}

// boundStatuses gives up the oldest status that waits when there are too many:
// more statuses of strangers came within the wait than are worth their memory.
func (o *owner) boundStatuses() {
	s := &o.statuses
	if s.held > statusesHeld && !s.oldest[0].busy {
		s.drop(s.oldest[0])
	}
}

// earlyStatuses leads the statuses that waited for a message to its command,
// which has just ended. The owner's mutex is held.
func (o *owner) earlyStatuses(messageID string) {
	if b := o.statuses.boxes[messageID]; b != nil {
		o.leadSoon(b)
	}
}

// leadSoon leads a box as soon as there is a place. The owner's mutex is held.
func (o *owner) leadSoon(b *statusBox) {
	if b.busy {
		b.again = true
		return
	}
	b.busy = true
	select {
	case o.statuses.busy <- struct{}{}:
		o.lead(b)
	default:
		o.statuses.ready.push(b)
	}
}

// statusPlaceFree gives a place to the next box, or back. The owner's mutex is
// held.
func (o *owner) statusPlaceFree() {
	if o.statuses.ready.len() > 0 {
		o.lead(o.statuses.ready.pop())
		return
	}
	<-o.statuses.busy
}

// lead leads a box's statuses to their command, one after the other, until one
// must wait. The owner's mutex is held.
func (o *owner) lead(b *statusBox) {
	o.later(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		for !o.stopping && o.leadNext(b) {
		}
		b.busy = false
		o.statusPlaceFree()
	})
}

// leadNext leads the oldest status of a box. It reports whether another can
// follow at once. The owner's mutex is held, but not while NATS is asked.
func (o *owner) leadNext(b *statusBox) (more bool) {
	one := b.queue[0]
	b.again = false
	o.mu.Unlock()
	found := o.deliverStatus(one)
	o.mu.Lock()
	switch {
	case found == statusNotHandled:
		return false
	case found == statusDone:
		last := len(b.queue) == 1
		b.looks = 0
		delete(o.statuses.pending, b)
		o.statuses.drop(b)
		return !last
	case b.again:
		return true
	case found == statusTooEarly:
		b.looks++
		b.lookAt = time.Now().Add(min(positionEvery<<min(b.looks-1, 10), lookAgainMax))
		o.statuses.pending[b] = struct{}{}
	}
	return false
}

// ledOutcome is what became of leading a status to its command.
type ledOutcome int

const (
	statusNotHandled ledOutcome = iota // the owner ended first: the next one reads it again
	statusDone                         // it is durable, or has nothing to tell
	statusUnknown                      // nobody knows its message (yet)
	statusTooEarly                     // its command is known, and has not ended
)

// deliverStatus records a status with its command and publishes the command's
// event. It returns when both are durable, or when they cannot be yet.
func (o *owner) deliverStatus(s status) ledOutcome {
	for try := 1; ; try++ {
		found, err := o.tryStatus(s)
		switch {
		case err == nil:
			return found
		case errors.Is(err, queue.ErrConflict):
			continue // somebody else's record came first: judge again by that one
		case errors.Is(err, queue.ErrFenced), errors.Is(err, queue.ErrStopped):
			return statusNotHandled
		}
		o.log.Warn().Err(err).Msg("status_not_delivered")
		if errors.Is(err, queue.ErrTooLarge) {
			return statusDone // it never fits
		}
		if o.isStopping() || !o.pause(try) {
			return statusNotHandled
		}
	}
}

func (o *owner) isStopping() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stopping
}

func (o *owner) tryStatus(s status) (ledOutcome, error) {
	ctx, cancel := context.WithTimeout(o.ctx, requestTimeout)
	defer cancel()
	x, err := o.ledger.IndexOf(ctx, s.messageID)
	if err != nil {
		return 0, err
	}
	if x == nil {
		return statusUnknown, nil
	}
	last, err := o.ledger.Last(ctx, queue.LedgerKey(x.ID))
	if err != nil {
		return 0, err
	}
	switch judgeStatus(x, last, s.late.State) {
	case statusWaits:
		return statusTooEarly, nil
	case statusSaysNothing:
		return statusDone, nil
	case statusRecorded:
		at := s.stored
		if last.Stored.Before(at) {
			at = last.Stored // the vendor posted it again
		}
		o.lateWord(x.ChannelID, s, at) // a crash may have come first
		return statusDone, o.tellStatusAgain(ctx, x, last)
	case statusTold:
	}
	if told, err := o.endTold(ctx, x, last); err != nil || !told {
		return statusTooEarly, err
	}
	now := time.Now()
	body, err := statusEvent(o.cfg.Account, x, s.late, now).AppendJSON(nil)
	if err != nil {
		o.log.Error().Err(err).Str("command", x.ID).Msg("event_not_encoded") // it never will be
		return statusDone, nil
	}
	written := make(chan error, 1)
	o.ledger.Append(o.statusRecord(x, last, body, now), last.Sequence, func(_ uint64, err error) { written <- err })
	if err := <-written; err != nil {
		return 0, err
	}
	o.metrics.published(o.ctx, x.Kind, s.late.State)
	o.lateWord(x.ChannelID, s, s.stored)
	return statusDone, o.publishStatus(x, s.late.State, body)
}

// statusRecord goes on from the ledger's last record: whatever that generation
// of the command learned must still be there for whoever reads this one.
func (o *owner) statusRecord(x *queue.Index, last *queue.Record, event []byte, now time.Time) *queue.Record {
	return &queue.Record{
		Step: queue.StepStatus, Key: queue.LedgerKey(x.ID), ID: x.ID, Nonce: o.nonce(),
		Origin: last.Origin, Generation: last.Generation, Kind: last.Kind, Channel: last.Channel, Fingerprint: last.Fingerprint,
		Attempt: last.Attempt, Spent: last.Spent, Refused: last.Refused, Doubted: last.Doubted, DoubtSeq: last.DoubtSeq, DoubtAt: last.DoubtAt,
		Worker: o.cfg.Worker, At: now.UnixMilli(), Event: event,
	}
}

// statusNews is what a status means to the ledger of its command.
type statusNews int

const (
	statusSaysNothing statusNews = iota // it was told, or one beyond it, or the ledger is not its command's
	statusWaits                         // the command is under way: nothing may come between its records
	statusRecorded                      // it is the last record; its event may be missing
	statusTold                          // it is news
)

// judgeStatus decides by the last record of the command's ledger; x says which
// of the command's calls the message came from.
func judgeStatus(x *queue.Index, last *queue.Record, state schema.State) statusNews {
	if last == nil || last.Origin != x.Origin {
		return statusSaysNothing // forgotten, or the id's ledger is another command's
	}
	told, messageID := toldBy(last)
	switch {
	case !last.Step.Ended() || last.Generation < x.Generation:
		// Its answer is being recorded, or the command was redriven and goes on: a
		// record between that one's claim and final would break their chain.
		return statusWaits
	case last.Step == queue.StepInvalid:
		return statusSaysNothing // the id is free
	case isDead(last, told) && last.Generation == x.Generation:
		return statusWaits // whoever learned the message id is about to record what it proves
	case last.Step == queue.StepStatus && told == state && messageID == x.MessageID:
		return statusRecorded
	case messageID != "" && messageID != x.MessageID && carriedOut(told):
		return statusSaysNothing // the command is told by the message that was sent since
	case statusRank(state) <= statusRank(told):
		return statusSaysNothing // forward only, once each
	}
	return statusTold
}

// toldBy is the state that a record's event told last, and of which message.
func toldBy(r *queue.Record) (schema.State, string) {
	var e struct {
		State     schema.State `json:"state"`
		MessageID string       `json:"messageId"`
	}
	if len(r.Event) > 0 && json.Unmarshal(r.Event, &e) != nil {
		return schema.StatePending, ""
	}
	return e.State, e.MessageID
}

// isDead reports whether a record ends a command that nothing has proven yet.
func isDead(r *queue.Record, told schema.State) bool {
	return r.Step == queue.StepFinal && told == schema.StateDead || r.Step == queue.StepDropped
}

// carriedOut reports whether a command in this state has a message of its own.
func carriedOut(s schema.State) bool { return s == schema.StateSent || statusRank(s) > 0 }

// tellStatusAgain publishes the event of a status that is recorded: whether that
// was done before a crash, nobody knows. Beyond the server's duplicate window it
// looks first.
func (o *owner) tellStatusAgain(ctx context.Context, x *queue.Index, last *queue.Record) error {
	state := stateOf(last)
	if time.Since(last.Stored) >= o.topology.Limits.DedupeWindow*9/10 {
		subject := schema.CommandEventSubject(o.cfg.Account, state, x.Kind, x.ChannelID)
		stored, err := o.ledger.EventStored(ctx, subject, o.statusEventID(x, state), last.Sequence)
		if err != nil || stored {
			return err
		}
	}
	return o.publishStatus(x, state, last.Event)
}

func (o *owner) statusEventID(x *queue.Index, state schema.State) string {
	return x.Origin.CommandEventID(o.topology.Commands(), x.Generation, x.Attempt, state)
}

func (o *owner) publishStatus(x *queue.Index, state schema.State, body []byte) error {
	written := make(chan error, 1)
	o.ledger.Publish(queue.Event{
		Subject:   schema.CommandEventSubject(o.cfg.Account, state, x.Kind, x.ChannelID),
		ID:        o.statusEventID(x, state),
		Account:   o.cfg.Account,
		Type:      "wazzup.command." + string(state),
		CESubject: x.ID,
		Time:      time.Now(),
		Body:      body,
	}, func(err error) { written <- err })
	return <-written
}

func statusEvent(account string, x *queue.Index, late LateStatus, now time.Time) *schema.CommandEvent {
	return &schema.CommandEvent{
		ID: x.ID, Account: account, Kind: x.Kind, State: late.State, At: now.UTC(), Attempt: x.Attempt,
		ChannelID: x.ChannelID, ChatType: x.ChatType, ChatID: x.ChatID, MessageID: x.MessageID,
		Error: NewLateError(late), Group: x.Group, Seq: x.Origin.Seq, Meta: x.Meta,
	}
}

// statusRank orders what follows a sent: failed is final.
func statusRank(s schema.State) int {
	switch s {
	case schema.StateDelivered:
		return 1
	case schema.StateRead:
		return 2
	case schema.StateFailed:
		return 3
	case schema.StatePending, schema.StateRetrying, schema.StateUnknown, schema.StateSent, schema.StateDone, schema.StateRejected,
		schema.StateInvalid, schema.StateDuplicate, schema.StateExpired, schema.StateCancelled, schema.StateDead:
	}
	return 0
}
