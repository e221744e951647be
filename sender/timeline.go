package sender

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Timeline is what `command.get` answers: where a command stands and how it came
// there.
type Timeline struct {
	ID      string       `json:"id"`
	Account string       `json:"account"`
	Kind    schema.Kind  `json:"kind"`
	State   schema.State `json:"state"` // last published; "pending" before the first, and again once it is redriven
	Channel string       `json:"channelId,omitempty"`
	Seq     uint64       `json:"seq"`
	Waiting *Waiting     `json:"waiting,omitempty"` // nil: it is called at this moment, or has ended
	Steps   []Step       `json:"timeline"`
}

// Waiting is what a command that has not ended waits for now.
type Waiting struct {
	Gate     string     `json:"gate"`
	Why      string     `json:"why,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
	Position int        `json:"position,omitempty"` // in its chat, 1 = the next; 0 = not in hand
}

// Step is one line of a timeline, oldest first.
type Step struct {
	At         time.Time           `json:"at"`
	Step       string              `json:"step"` // stepStored, or of the record: see queue.Step
	State      schema.State        `json:"state,omitempty"`
	Attempt    int                 `json:"attempt,omitempty"`
	Generation int                 `json:"generation,omitempty"`
	Worker     string              `json:"worker,omitempty"`
	Waits      []queue.Wait        `json:"waits,omitempty"`      // gates before the step, how long and why
	HTTPStatus int                 `json:"httpStatus,omitempty"` // the vendor's answer
	Code       string              `json:"code,omitempty"`
	Phase      schema.Phase        `json:"phase,omitempty"`
	MessageID  string              `json:"messageId,omitempty"`
	Evidence   schema.EvidenceKind `json:"evidence,omitempty"` // what proved it, if no answer did
	RetryAt    *time.Time          `json:"retryAt,omitempty"`
	Event      json.RawMessage     `json:"event,omitempty"` // the public event that went with it
}

// stepStored is the first step: the command was stored in NATS.
const stepStored = "stored"

func (o *owner) commandGet(ctx context.Context, body []byte) (any, error) {
	var q named
	if err := q.decode(body); err != nil {
		return nil, err
	}
	records, err := o.ledger.Timeline(ctx, queue.LedgerKey(q.ID))
	if err != nil {
		return nil, err
	}
	if len(records) == 0 || unseen(records[len(records)-1]) {
		return o.unseenTimeline(ctx, q.ID, records)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	t := timeline(o.cfg.Account, q.ID, records)
	last := records[len(records)-1]
	c := o.inHand(func(c *command) bool { return c.id == q.ID && c.origin == last.Origin })
	switch {
	case c != nil && !last.Step.Ended():
		t.Waiting = o.waitingFor(c)
	case last.Step == queue.StepScheduled: // it is with the server's scheduler
		since := last.Stored.UTC()
		t.Waiting = &Waiting{Gate: gateSchedule.String(), Why: whySchedule, Since: &since}
	}
	if c != nil && t.Steps[0].Step != stepStored {
		t.Steps = slices.Insert(t.Steps, 0, Step{At: c.stored.UTC(), Step: stepStored})
	}
	return t, nil
}

// unseenTimeline is for a command that has not begun: it is in hand, in its lane
// on disk, or nowhere. What the ledger has under its id is of a cancel, or of
// another command that ended invalid.
func (o *owner) unseenTimeline(ctx context.Context, id string, records []*queue.Record) (any, error) {
	meant := func(c *command) bool {
		return c.id == id && (len(records) == 0 || records[len(records)-1].Origin != c.origin)
	}
	t, found := o.heldTimeline(id, meant)
	if !found {
		d, err := o.ledger.Find(ctx, func(d *queue.Delivery) bool { return o.named(d, id, meant) })
		if err != nil {
			return nil, err
		}
		if t, found = o.heldTimeline(id, meant); !found && d != nil {
			c := o.identify(d)
			t, found = o.beginTimeline(c, id), true
			t.Waiting = o.waitsOnDisk(c)
		}
	}
	switch {
	case !found && len(records) == 0:
		return nil, notFound("no command with this id is in the ledger or in a lane")
	case !found:
		return timeline(o.cfg.Account, id, records), nil
	}
	for _, r := range records {
		t.Steps = append(t.Steps, step(r))
	}
	return t, nil
}

// heldTimeline is of a command that the owner holds and has not claimed.
func (o *owner) heldTimeline(id string, meant func(*command) bool) (Timeline, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.inHand(meant)
	if c == nil {
		return Timeline{}, false
	}
	t := o.beginTimeline(c, id)
	t.Waiting = o.waitingFor(c)
	return t, true
}

func (o *owner) beginTimeline(c *command, id string) Timeline {
	return Timeline{
		ID: id, Account: o.cfg.Account, Kind: c.kind, State: schema.StatePending, Channel: c.channelID(), Seq: c.origin.Seq,
		Steps: []Step{{At: c.stored.UTC(), Step: stepStored}},
	}
}

// waitsOnDisk says what keeps a command in its stream: a gate that is closed, for then
// nothing is asked for, or the others of its lane.
func (o *owner) waitsOnDisk(c *command) *Waiting {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := func(g gate, why string, since time.Time) *Waiting {
		since = latest(since, c.stored).UTC()
		return &Waiting{Gate: g.String(), Why: why, Since: &since}
	}
	g := o.channels[c.channelID()]
	switch {
	case g != nil && g.closed != nil:
		return at(gateClosed, g.closed.code, g.closed.began)
	case o.closed != nil:
		return at(gateAccount, o.closed.code, o.closed.began)
	case g != nil && g.paused[string(c.kind)] != nil:
		p := g.paused[string(c.kind)]
		return at(gatePaused, p.by, p.since)
	}
	return &Waiting{Gate: gateBacklog.String(), Why: whyBacklog}
}

// inHand finds a command that the owner holds; nil when it does not.
func (o *owner) inHand(is func(*command) bool) *command {
	for _, c := range o.commands {
		if is(c) {
			return c
		}
	}
	return nil
}

// waitingFor says at which gate a command in hand stands now; nil: it is being
// called, or its outcome is being recorded. The owner's mutex is held.
func (o *owner) waitingFor(c *command) *Waiting {
	at := func(g gate, why string, since time.Time, position int) *Waiting {
		w := &Waiting{Gate: g.String(), Why: why, Position: position}
		if !since.IsZero() {
			since = since.UTC()
			w.Since = &since
		}
		return w
	}
	ch := c.chat
	switch {
	case c.doubt != nil:
		return at(gateEvidence, whyEvidence, c.doubt.since, 1)
	case c.shelved:
		return at(gateOrder, whyOrder, time.Time{}, 0)
	case ch == nil && c.timer != nil: // too large for the server's scheduler
		return at(gateSchedule, whySchedule, time.Time{}, 0)
	case ch == nil:
		return nil
	case c.timer != nil:
		return at(gateRetry, whyRetry, time.Time{}, 1)
	}
	position := slices.Index(ch.waiting.all(), c)
	if sync := ch.lane.sync; sync != nil && position == 0 && !ch.busy {
		switch {
		case !sync.order.free(c):
			return at(gateOrder, whyEntity, c.since, sync.order.position(c))
		case slices.Contains(sync.open.all(), c) && sync.first == nil:
			return at(gateGather, whyGather, c.ready, 1)
		}
	}
	switch {
	case position < 0:
		return nil
	case ch.busy: // by one that was taken from the queue
		return at(gateOrder, whyOrder, c.since, position+2)
	case position > 0:
		return at(gateOrder, whyOrder, c.since, position+1)
	}
	clock := &ch.lane.clock
	if clock.gate == gateNone {
		clock = ch.lane.line
	}
	if clock.gate == gateNone {
		return nil // its turn is now
	}
	return at(clock.gate, clock.why[clock.gate], latest(clock.since, c.ready), 1)
}

func timeline(account, id string, records []*queue.Record) Timeline {
	first, last := records[0], records[len(records)-1]
	t := Timeline{ID: id, Account: account, Kind: schema.Kind(last.Kind), State: schema.StatePending, Channel: last.Channel, Seq: last.Origin.Seq}
	if first.CommandStored > 0 {
		t.Steps = append(t.Steps, Step{At: time.UnixMilli(first.CommandStored).UTC(), Step: stepStored})
	}
	for _, r := range records {
		s := step(r)
		switch {
		case r.Step == queue.StepRedrive:
			t.State = schema.StatePending
		case s.State != "":
			t.State = s.State
		}
		t.Steps = append(t.Steps, s)
	}
	return t
}

// step is a record as a line of its command's timeline.
func step(r *queue.Record) Step {
	s := Step{
		At: r.Stored.UTC(), Step: string(r.Step), Attempt: r.Attempt, Generation: r.Generation,
		Worker: r.Worker, Waits: r.Waits, HTTPStatus: r.HTTPStatus, Code: r.Code, Phase: r.Phase,
		MessageID: r.MessageID, Evidence: schema.EvidenceKind(r.Evidence), Event: r.Event,
	}
	if r.RetryAt > 0 {
		at := time.UnixMilli(r.RetryAt).UTC()
		s.RetryAt = &at
	}
	if len(r.Event) == 0 {
		return s
	}
	s.State = stateOf(r)
	var e schema.CommandEvent
	if json.Unmarshal(r.Event, &e) != nil {
		return s // written by a later version; its state is known all the same
	}
	if e.MessageID != "" {
		s.MessageID = e.MessageID
	}
	if e.Evidence != nil {
		s.Evidence = e.Evidence.Kind
	}
	if e.Error != nil {
		s.Code, s.Phase = e.Error.Code, e.Error.Phase
		if e.Error.HTTPStatus != 0 {
			s.HTTPStatus = e.Error.HTTPStatus
		}
	}
	return s
}
