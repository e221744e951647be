package sender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// A cancel is a record in the command's ledger: a claim, which expects the
// record before it, is then refused, whoever makes it and whenever. So whichever
// comes first wins, and a cancel that was stored means that the command will
// never be called. The command meets the record at its turn and ends `cancelled`.

// named is the request of a command by its id.
type named struct {
	ID string `json:"id"`
}

func (q *named) decode(body []byte) error {
	if err := decodeRequest(body, q); err != nil {
		return err
	}
	if q.ID == "" {
		return badField("id", schema.FaultRequired, "is required")
	}
	return nil
}

// standing answers where a command stands after a request about it.
type standing struct {
	ID    string       `json:"id"`
	State schema.State `json:"state"`
}

// conflict refuses a request that comes too late, or too early.
func conflict(state schema.State, description string) error {
	return &fault{status: 409, state: state, err: schema.Error{
		Code: "CONFLICT", Class: schema.ClassInvalid, Description: description + "; its state is " + string(state),
	}}
}

// commandCancel answers `command.cancel`. Success means that the command will
// never be sent; its `cancelled` event comes at its turn.
func (o *owner) commandCancel(ctx context.Context, body []byte) (any, error) {
	var q named
	if err := q.decode(body); err != nil {
		return nil, err
	}
	for {
		last, err := o.ledger.Last(ctx, queue.LedgerKey(q.ID))
		if err != nil {
			return nil, err
		}
		if unseen(last) {
			err = o.cancelUnseen(ctx, q.ID, last)
		} else {
			err = o.cancelSeen(ctx, last)
		}
		if err == nil {
			return standing{q.ID, schema.StateCancelled}, nil
		}
		if !errors.Is(err, queue.ErrConflict) { // else it went on meanwhile: look again
			return nil, err
		}
	}
}

// unseen reports whether the ledger knows nothing of a command that could still
// be carried out under its id.
func unseen(last *queue.Record) bool {
	return last == nil || last.Step == queue.StepInvalid || last.Step == queue.StepCancel && last.Origin == (queue.Origin{})
}

// cancelUnseen cancels a command that stands in its lane: in hand, on disk, or
// nowhere, which only a search tells. The record comes first, so that the command
// cannot be claimed during the search; it is about what is stored by now, so that
// it does no harm to a command that is published later.
func (o *owner) cancelUnseen(ctx context.Context, id string, last *queue.Record) error {
	until, err := o.ledger.LastCommand(ctx)
	if err != nil {
		return err
	}
	r := o.cancelRecord(id)
	r.Until = until
	expect := uint64(0)
	if last != nil {
		expect = last.Sequence
	}
	if err := o.append(r, expect); err != nil {
		return err
	}
	meant := func(c *command) bool { return c.id == id && c.origin.Seq <= until }
	if o.holds(meant) {
		return nil
	}
	d, err := o.ledger.Find(ctx, func(d *queue.Delivery) bool { return o.named(d, id, meant) })
	if err != nil || d != nil || o.holds(meant) {
		return err
	}
	// It may have met the record, and ended, during the search.
	now, err := o.ledger.Last(ctx, r.Key)
	switch {
	case err != nil:
		return err
	case now != nil && now.Nonce != r.Nonce && stateOf(now) == schema.StateCancelled:
		return nil
	case now != nil && now.Nonce != r.Nonce:
		return queue.ErrConflict
	case last != nil && last.Step == queue.StepInvalid:
		return conflict(schema.StateInvalid, "the command has ended")
	}
	return notFound("no command with this id is in the ledger or in a lane")
}

// cancelSeen cancels a command that the ledger knows, where it is surely not sent.
func (o *owner) cancelSeen(ctx context.Context, last *queue.Record) error {
	switch state := stateOf(last); last.Step {
	case queue.StepCancel: // for the second time: the first may have ended before it brought it forward
		o.bringForward(ctx, last)
		return nil
	case queue.StepClaim:
		return conflict(state, "the command is being called")
	case queue.StepUnknown:
		return conflict(state, "whether the command was carried out is not known")
	case queue.StepRetry, queue.StepRedrive:
		if last.Doubted || !schema.Kind(last.Kind).IsMessage() {
			return conflict(state, "an earlier call may have been carried out")
		}
	case queue.StepScheduled:
	case queue.StepFinal, queue.StepInvalid, queue.StepStatus, queue.StepProof, queue.StepDropped:
		return conflict(state, "the command has ended")
	}
	r := o.cancelRecord(last.ID)
	r.Key, r.Origin, r.Generation, r.Kind, r.Channel = queue.LedgerKey(last.ID), last.Origin, last.Generation, last.Kind, last.Channel
	r.Fingerprint, r.Attempt, r.Spent, r.Refused = last.Fingerprint, last.Attempt, last.Spent, last.Refused
	if err := o.append(r, last.Sequence); err != nil {
		return err
	}
	if last.Step == queue.StepScheduled {
		o.bringForward(ctx, last)
	}
	return nil
}

func (o *owner) cancelRecord(id string) *queue.Record {
	return &queue.Record{
		Step: queue.StepCancel, Key: queue.LedgerKey(id), ID: id, Nonce: o.nonce(),
		Worker: o.cfg.Worker, At: time.Now().UnixMilli(),
	}
}

// append writes a record on behalf of a request and waits until it is durable.
func (o *owner) append(r *queue.Record, expect uint64) error {
	done := make(chan error, 1)
	o.ledger.Append(r, expect, func(_ uint64, err error) { done <- err })
	return <-done
}

// bringForward has a cancelled command that waits for its time come due now, so
// that its event need not wait for that. It only saves time: if it fails, the
// command meets its cancel when it comes due. The command may still be on its way
// to the scheduler, which then is told first.
func (o *owner) bringForward(ctx context.Context, last *queue.Record) {
	o.cancelledInHand(identity{last.Origin, last.Generation})
	o.hasten(ctx, last.ID, last.Generation)
}

func (o *owner) hasten(ctx context.Context, id string, generation int) {
	if err := o.ledger.Hasten(ctx, id, generation); err != nil {
		o.log.Warn().Err(err).Str("command", id).Msg("cancelled_command_not_brought_forward")
	}
}

// cancelledInHand tells a command in hand that waits for its time, or is on its way
// to where it will, that it was cancelled: it has nothing to wait for.
func (o *owner) cancelledInHand(which identity) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.commands[which]
	if c == nil || c.chat != nil { // on the server, or due
		return
	}
	c.cancelled = true
	if c.timer != nil && c.timer.Stop() {
		c.timer.Reset(0)
	}
}

// holds reports whether such a command is held by this owner.
func (o *owner) holds(is func(*command) bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.inHand(is) != nil
}

// named reports whether a stored message is a command that is meant, however it
// came by its id.
func (o *owner) named(d *queue.Delivery, id string, meant func(*command) bool) bool {
	c := o.identify(d)
	// Nearly all that are asked about are others: most bodies need not be decoded.
	// An escape in the body could hide the id.
	if !bytes.Contains(d.Data, []byte(id)) && bytes.IndexByte(d.Data, '\\') < 0 && header(d, schema.HeaderMsgID) != id &&
		header(d, headerID) != id && c.origin.ID(o.topology.Commands()) != id {
		return false
	}
	o.check(c)
	return meant(c)
}

// resolveQuery is the body of `command.resolve`.
type resolveQuery struct {
	named
	As string `json:"as"`
}

// commandResolve answers `command.resolve`: a person settles a command whose fate
// is unknown.
func (o *owner) commandResolve(ctx context.Context, body []byte) (any, error) {
	var q resolveQuery
	if err := decodeRequest(body, &q); err != nil {
		return nil, err
	}
	if q.ID == "" {
		return nil, badField("id", schema.FaultRequired, "is required")
	}
	settle, err := settlementOf(q.As)
	if err != nil {
		return nil, err
	}
	for {
		state, err := o.settleUnknown(ctx, q.ID, settle)
		if err == nil {
			return standing{q.ID, state}, nil
		}
		if !errors.Is(err, queue.ErrConflict) {
			return nil, err
		}
	}
}

// settlement turns the event of an unknown into the one that settles it, and says
// which record that is.
type settlement func(e *schema.CommandEvent, now time.Time) queue.Step

// settlementOf knows the choices of `command.resolve`.
func settlementOf(as string) (settlement, error) {
	switch as {
	case "sent":
		return settleSent, nil
	case "resend":
		return settleResend, nil
	case "drop":
		return settleDrop, nil
	}
	return nil, badField("as", schema.FaultNotAllowed, "must be sent, resend or drop")
}

func settleSent(e *schema.CommandEvent, _ time.Time) queue.Step {
	e.State, e.Error = schema.StateSent, nil
	e.Evidence = &schema.Evidence{Kind: schema.EvidenceOperator}
	return queue.StepFinal
}

func settleResend(e *schema.CommandEvent, now time.Time) queue.Step {
	at := now.UTC()
	e.State, e.RetryAt = schema.StateRetrying, &at
	return queue.StepRetry
}

func settleDrop(e *schema.CommandEvent, _ time.Time) queue.Step {
	e.State = schema.StateDead
	if e.Error == nil {
		e.Error = &schema.Error{Code: CodeConnection, Class: schema.ClassUnknown, Phase: schema.PhaseClaimed}
	}
	e.Error.Reason = schema.ReasonDropped
	return queue.StepFinal
}

// settleUnknown records what a person says of an unknown, has the command in
// hand go on by it, and tells the world. ErrConflict means that evidence, or
// another person, was faster.
func (o *owner) settleUnknown(ctx context.Context, id string, settle settlement) (schema.State, error) {
	last, err := o.ledger.Last(ctx, queue.LedgerKey(id))
	switch {
	case err != nil:
		return "", err
	case last == nil && o.holds(func(c *command) bool { return c.id == id }):
		return "", conflict(schema.StatePending, "nothing about the command is in doubt")
	case last == nil:
		return "", notFound("no command with this id is in the ledger")
	case last.Step != queue.StepUnknown:
		return "", conflict(stateOf(last), "nothing about the command is in doubt")
	}
	var e schema.CommandEvent
	if err := json.Unmarshal(last.Event, &e); err != nil {
		return "", err
	}
	now := time.Now()
	r := *last
	r.Step = settle(&e, now)
	e.At = now.UTC()
	if r.Event, err = e.AppendJSON(nil); err != nil {
		return "", err
	}
	r.Key, r.Nonce, r.Worker, r.At = queue.LedgerKey(id), o.nonce(), o.cfg.Worker, now.UnixMilli()
	if r.Step == queue.StepRetry {
		r.RetryAt, r.Doubted = now.UnixMilli(), true
		if r.DoubtSeq == 0 {
			r.DoubtSeq, r.DoubtAt = r.Claim, r.ClaimAt
		}
	}
	done := make(chan error, 1)
	o.ledger.Append(&r, last.Sequence, func(seq uint64, err error) {
		r.Sequence, r.Stored = seq, now
		done <- err
	})
	if err := <-done; err != nil {
		return "", err
	}
	o.settledByHand(&r)
	return e.State, nil
}

// settledByHand has a command in hand go on by a record that a person's word has
// added to its ledger. One that is not in hand meets the record at its turn.
func (o *owner) settledByHand(r *queue.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.commands[identity{r.Origin, r.Generation}]
	switch {
	case c == nil:
		return
	case c.doubt == nil: // its unknown is durable, but not confirmed here yet
		c.byHand = r
		return
	}
	o.endDoubt(c)
	c.unsettled = false
	o.resume(c, nil, r)
}
