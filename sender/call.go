package sender

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// maxBatch is the vendor's limit of entities a write.
const maxBatch = 100

// maxRefused bounds the refused items that one event lists; see also fitting.
const maxRefused = 500

// call makes the vendor's call of one attempt and judges the answer. It is the
// one place that decides what a call costs and means: it closes the gates, writes
// the call's one log line and ends its one span.
func (o *owner) call(c *command) outcome {
	ctx, span := o.startSpan(c)
	started := time.Now()
	var answer wazzup.Answer
	var items []schema.ItemError
	if m := c.body.Message; m != nil {
		answer = o.client.SendMessage(ctx, wazzup.Message{
			ChannelID: m.ChannelID, ChatType: m.ChatType, ChatID: m.ChatID,
			Text: m.Text, Content: m.Content, RefMessageID: m.RefMessageID,
		})
	} else {
		answer, items = o.callSync(ctx, c.body.Sync)
	}
	v := Classify(c.lane.family(), answer)
	out := o.judge(c, answer, v)
	if len(items) > 0 && (out.state == schema.StateDone || out.state == schema.StateRejected) {
		out = rejectedItems(fitting(items, int(o.nc.MaxPayload())/2))
	}
	out.answer.status = answer.Status
	o.settle(c, answer, v)
	o.reportCall(ctx, span, c, answer, v, out, time.Since(started))
	return out
}

// judge turns a verdict into what becomes of the command.
func (o *owner) judge(c *command, a wazzup.Answer, v Verdict) outcome {
	e := NewError(a, v)
	switch v.Action {
	case ActionAccept:
		if c.kind.IsMessage() {
			out := final(schema.StateSent)
			out.messageID = a.MessageID
			return out
		}
		return final(schema.StateDone)
	case ActionReject:
		out := final(schema.StateRejected)
		out.err = e
		return out
	case ActionRetryLimited:
		c.refused++
		if c.refused >= v.Limit {
			out := final(schema.StateRejected)
			out.err = e
			return out
		}
		return o.retry(c, e, true)
	case ActionRetry:
		return o.retry(c, e, v.SpendsAttempt)
	case ActionPauseAccount:
		o.mu.Lock()
		until := o.pauseAccount(a)
		o.mu.Unlock()
		out := o.retry(c, e, false)
		out.retryAt = until
		return out
	case ActionCloseChannel, ActionCloseAccount:
		// The lane closes and says so once; the command waits at its head.
		out := o.retry(c, e, false)
		out.state, out.retryAt = "", time.Time{}
		out.answer.err = e // it is told by no event
		return out
	case ActionUnknown:
		return unknown(e)
	}
	return unknown(e)
}

// settle gives the slot back with the verdict and closes the gates that the
// answer closed, before anything else of those lanes can start.
func (o *owner) settle(c *command, a wazzup.Answer, v Verdict) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refused(c, v, NewError(a, v))
	if v.Action == ActionAccept {
		o.refusals = 0
		if c.lane.channel != nil {
			c.lane.channel.refusals = 0
		}
	}
	if v.SpamBrake {
		o.ratedAsSpam(c.channelID())
	}
	if v.OpsUnknownCode {
		o.ops(schema.OpsVendorUnknownCode, c.channelID(), ErrorCode(a), "")
	}
	o.free(c, true, v)
	o.pump()
}

// callSync makes the requests of one sync command, in order, until one fails. An
// upsert goes in batches of the vendor's limit, a replace in one request
// whatever its size, since two would each delete the other's items; a delete is
// one request an id. All may be repeated, so a crash in the middle does no harm.
func (o *owner) callSync(ctx context.Context, s *schema.Sync) (a wazzup.Answer, refused []schema.ItemError) {
	switch s.Verb {
	case schema.VerbReplace:
		return o.client.Put(ctx, s.Entity, jsonArray(s.Items)), nil
	case schema.VerbUpsert:
		first := true
		for batch := range slices.Chunk(s.Items, maxBatch) {
			a = o.further(ctx, first, func() wazzup.Answer { return o.client.Patch(ctx, s.Entity, jsonArray(batch)) })
			if Classify(FamilySync, a).Action != ActionAccept {
				break
			}
			first = false
		}
	case schema.VerbDelete:
		for i, id := range s.IDs {
			a = o.further(ctx, i == 0, func() wazzup.Answer { return o.client.Delete(ctx, s.Entity, schema.EntityID(id)) })
			v := Classify(FamilySync, a)
			if v.Action == ActionReject && len(s.IDs) > 1 { // the others are still wanted
				if len(refused) < maxRefused {
					refused = append(refused, schema.ItemError{ID: id, Error: NewError(a, v)})
				}
				continue
			}
			if v.Action != ActionAccept {
				return a, nil
			}
		}
	}
	return a, refused
}

// further makes a request of a command whose first one used the attempt's token;
// each further one waits for a token of its own.
func (o *owner) further(ctx context.Context, first bool, do func() wazzup.Answer) wazzup.Answer {
	if first {
		return do()
	}
	if err := o.token(ctx); err != nil {
		return wazzup.Answer{Phase: schema.PhaseNotSent, Fault: wazzup.FaultCancelled}
	}
	defer o.tokenUsed()
	return do()
}

// fitting is as many of the refused items as take no more than room bytes, at least
// one: with the vendor's words about each they could exceed NATS's payload limit,
// and what cannot be recorded could never end.
func fitting(items []schema.ItemError, room int) []schema.ItemError {
	for i, item := range items {
		text, err := json.Marshal(item)
		if room -= len(text) + 1; i > 0 && (room < 0 || err != nil) {
			return items[:i]
		}
	}
	return items
}

func rejectedItems(items []schema.ItemError) outcome {
	out := final(schema.StateRejected)
	out.items = items
	first := *items[0].Error
	out.err = &first
	return out
}

func jsonArray(items []json.RawMessage) []byte {
	size := 2
	for _, it := range items {
		size += len(it) + 1
	}
	b := append(make([]byte, 0, size), '[')
	for i, it := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, it...)
	}
	return append(b, ']')
}

func unknown(e *schema.Error) outcome {
	return outcome{step: queue.StepUnknown, state: schema.StateUnknown, err: e}
}

// token waits for the account's window on behalf of a request that is no
// command's first.
func (o *owner) token(ctx context.Context) error {
	for {
		o.mu.Lock()
		at, ok := o.window.take(time.Now(), otherShare)
		if o.pausedUntil.After(time.Now()) && ok {
			o.window.unused()
			at, ok = o.pausedUntil, false
		}
		if ok && !time.Now().Before(o.leaseUntil()) { // another owner may count by now
			o.window.unused()
			at, ok = time.Time{}, false
		}
		o.mu.Unlock()
		if ok {
			return nil
		}
		wait := tokenPoll
		if !at.IsZero() {
			wait = min(max(time.Until(at), time.Millisecond), time.Second)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (o *owner) tokenUsed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.window.answered(time.Now())
	o.pump()
}

// startSpan links to the producer's span: a command may be carried out hours
// later and more than once, so it is no child of it (OpenTelemetry semantic
// conventions for messaging).
func (o *owner) startSpan(c *command) (context.Context, trace.Span) {
	if !o.tracing {
		return o.callCtx, trace.SpanFromContext(o.callCtx) // none: it does nothing
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient)}
	if c.traceparent != "" {
		producer := trace.SpanContextFromContext(o.extract(c))
		options = append(options, trace.WithLinks(trace.Link{SpanContext: producer}))
	}
	return o.tracer.Start(o.callCtx, "send "+string(c.kind), options...) //nolint:spancheck // reportCall ends it
}

// reportCall writes the call's log line, span and metrics.
func (o *owner) reportCall(ctx context.Context, span trace.Span, c *command, a wazzup.Answer, v Verdict, out outcome, took time.Duration) {
	code := ""
	if out.err != nil {
		code = out.err.Code
	}
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("messaging.system", "nats"),
			attribute.String("messaging.operation.type", "process"),
			attribute.String("wazzup.account", o.cfg.Account),
			attribute.String("wazzup.kind", string(c.kind)),
			attribute.String("wazzup.command", c.id),
			attribute.Int("wazzup.attempt", c.attempt),
			attribute.Int("http.response.status_code", a.Status),
			attribute.String("wazzup.phase", string(a.Phase)),
		)
		if code != "" {
			span.SetAttributes(attribute.String("error.type", code))
			span.SetStatus(codes.Error, code)
		}
	}
	span.End()
	o.metrics.called(ctx, c.lane.family(), v.Class, a.Phase, took)
	o.log.Info().
		Str("command", c.id).Str("kind", string(c.kind)).Str("channel", c.channel).Uint64("seq", c.origin.Seq).
		Int("attempt", c.attempt).Str("phase", string(a.Phase)).Int("status", a.Status).Str("code", code).
		Str("outcome", string(out.state)).Str("message_id", out.messageID).
		Dur("took", took).Dur("queued", started(c, took)).
		Msg("call")
}

// started is how long the command was stored before its call began.
func started(c *command, took time.Duration) time.Duration {
	return max(time.Since(c.stored)-took, 0)
}
