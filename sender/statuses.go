package sender

import (
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

// Timing of statuses.
const (
	// earlyStatus is how long a status waits for a message id that is not known
	// yet: it may overtake the answer of its own call.
	earlyStatus   = 10 * time.Minute
	positionEvery = time.Second // how often the place in the event stream is noted
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
// once each. Owned by the owner's mutex, but for follow's own goroutine.
type statuses struct {
	early   map[string][]status // by message id: not known yet, or its command has not ended
	handled uint64              // sequence of the last status event that was taken in
	noted   uint64              // the position that is stored
}

// followStatuses reads status events from where the last owner stopped.
func (o *owner) followStatuses(ctx context.Context, s jetstream.Stream) error {
	from, err := o.statusPosition(ctx)
	if err != nil {
		return fmt.Errorf("follow statuses: %w", err)
	}
	o.statuses.handled, o.statuses.noted = from, from
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: []string{schema.StatusEventSubject(o.cfg.Account, "*")}}
	if from > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from+1
	}
	c, err := s.OrderedConsumer(ctx, cfg)
	if err != nil {
		return fmt.Errorf("follow statuses: %w", err)
	}
	following, err := c.Consume(o.statusEvent, jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		o.log.Debug().Err(err).Msg("status_watch_interrupted")
	}))
	if err != nil {
		return fmt.Errorf("follow statuses: %w", err)
	}
	o.onClose(func() {
		following.Stop()
		<-following.Closed()
	})
	return nil
}

func (o *owner) statusPosition(ctx context.Context) (uint64, error) {
	body, err := o.ledger.LastState(ctx, stateStatuses)
	if err != nil || body == nil {
		return 0, err
	}
	return strconv.ParseUint(string(body), 10, 64)
}

// notePosition stores up to where statuses are handled: before the oldest that
// still waits for its message.
func (o *owner) notePosition(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	position := o.statuses.handled
	for id, waiting := range o.statuses.early {
		if time.Since(waiting[0].stored) > earlyStatus {
			delete(o.statuses.early, id) // of a message that is none of ours; it stays under evt.status
			continue
		}
		position = min(position, waiting[0].sequence-1)
	}
	if position <= o.statuses.noted {
		return nil
	}
	o.statuses.noted = position
	o.enter()
	o.ledger.PutState(stateStatuses, strconv.AppendUint(nil, position, 10), func(error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.leave()
	})
	return nil
}

// statusEvent takes in one stored status.
func (o *owner) statusEvent(m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil {
		return
	}
	var body struct {
		MessageID json.RawMessage `json:"messageId"`
		Status    json.RawMessage `json:"status"`
	}
	s := status{sequence: meta.Sequence.Stream, stored: meta.Timestamp}
	if json.Unmarshal(m.Data(), &body) == nil {
		s.messageID = schema.EntityID(body.MessageID)
		if n, err := strconv.Atoi(schema.EntityID(body.Status)); err == nil {
			s.late, _ = ClassifyStatus(n)
		}
	}
	known := s.late.State == "" || s.messageID == "" // nothing to tell a command
	if !known {
		known = o.deliverStatus(s)
	}
	o.mu.Lock()
	o.webhooks = true
	o.statuses.handled = s.sequence
	if !known {
		o.statuses.early[s.messageID] = append(o.statuses.early[s.messageID], s)
	}
	o.mu.Unlock()
	if !known && o.deliverStatus(s) { // its command ended between the look and now
		o.mu.Lock()
		delete(o.statuses.early, s.messageID)
		o.mu.Unlock()
	}
}

// earlyStatuses hands the statuses that waited for a message to its command,
// which has just ended. The owner's mutex is held.
func (o *owner) earlyStatuses(messageID string) {
	waiting := o.statuses.early[messageID]
	if len(waiting) == 0 {
		return
	}
	delete(o.statuses.early, messageID)
	o.later(func() {
		for _, s := range waiting {
			o.deliverStatus(s)
		}
	})
}

// deliverStatus records a status with its command and publishes the command's
// event. It reports false when the message is not known, or its command has not
// ended yet: then the status must wait.
func (o *owner) deliverStatus(s status) bool {
	for try := 1; ; try++ {
		done, err := o.tryStatus(s)
		if err == nil {
			return done
		}
		if !errors.Is(err, queue.ErrConflict) {
			if errors.Is(err, queue.ErrFenced) || errors.Is(err, queue.ErrStopped) {
				return true // the next owner reads it again
			}
			o.log.Warn().Err(err).Msg("status_not_delivered")
		}
		if !o.pause(try) {
			return true
		}
	}
}

func (o *owner) tryStatus(s status) (done bool, err error) {
	ctx, cancel := context.WithTimeout(o.ctx, requestTimeout)
	defer cancel()
	x, err := o.ledger.IndexOf(ctx, s.messageID)
	if err != nil || x == nil {
		return false, err
	}
	last, err := o.ledger.Last(ctx, queue.LedgerKey(x.ID))
	if err != nil {
		return false, err
	}
	switch {
	case last == nil || last.Origin != x.Origin:
		return true, nil // forgotten, or the id's ledger is another command's
	case last.Step != queue.StepFinal && last.Step != queue.StepStatus:
		return false, nil // its answer is being recorded
	case !endedAs(last, s.messageID):
		return true, nil
	case last.Step == queue.StepStatus && stateOf(last) == s.late.State:
		// Recorded; whether its event was published before a crash, nobody knows.
		return true, o.publishStatus(x, s.late.State, last.Event)
	case statusRank(s.late.State) <= statusRank(stateOf(last)):
		return true, nil // forward only, once each
	}
	if told, err := o.endTold(ctx, x, last); err != nil || !told {
		return false, err
	}
	now := time.Now()
	body, err := statusEvent(o.cfg.Account, x, s.late, now).AppendJSON(nil)
	if err != nil {
		return true, nil // it cannot be told, and never will be
	}
	record := &queue.Record{
		Step: queue.StepStatus, Key: queue.LedgerKey(x.ID), ID: x.ID, Nonce: o.nonce(), Origin: x.Origin, Generation: x.Generation,
		Kind: string(x.Kind), Channel: x.ChannelID, Fingerprint: last.Fingerprint,
		Attempt: last.Attempt, Spent: last.Spent, Refused: last.Refused, Worker: o.cfg.Worker, At: now.UnixMilli(), Event: body,
	}
	written := make(chan error, 1)
	o.ledger.Append(record, last.Sequence, func(_ uint64, err error) { written <- err })
	if err := <-written; err != nil {
		return false, err
	}
	o.metrics.published(o.ctx, x.Kind, s.late.State)
	return true, o.publishStatus(x, s.late.State, body)
}

func (o *owner) publishStatus(x *queue.Index, state schema.State, body []byte) error {
	written := make(chan error, 1)
	o.ledger.Publish(queue.Event{
		Subject:   schema.CommandEventSubject(o.cfg.Account, state, x.Kind, x.ChannelID),
		ID:        x.Origin.CommandEventID(o.topology.Commands(), x.Generation, x.Attempt, state),
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
