package sender

import (
	"context"
	"encoding/json"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// maxRefused bounds the refused items that one event lists; see also fitting.
const maxRefused = 500

// call makes the vendor's call of one attempt to send a message and judges the
// answer. It is the one place that decides what such a call costs and means: it
// closes the gates, writes the call's one log line and ends its one span. What it is
// to messages, request is to sync commands.
func (o *owner) call(c *command) outcome {
	ctx, span := o.startSpan([]*command{c})
	started := time.Now()
	m := c.body.Message
	answer := o.client.SendMessage(ctx, wazzup.Message{
		ChannelID: m.ChannelID, ChatType: m.ChatType, ChatID: m.ChatID,
		Text: m.Text, Content: m.Content, RefMessageID: m.RefMessageID,
	})
	v := Classify(FamilySend, answer)
	out := o.judge(c, answer, v)
	out.answer.status = answer.Status
	o.settle(c, answer, v, started)
	o.reportCall(ctx, span, []*command{c}, callReport{
		family: FamilySend, answer: answer, verdict: v, outcome: string(out.state), messageID: out.messageID, took: time.Since(started),
	})
	return out
}

// judge turns a verdict into what becomes of the command.
func (o *owner) judge(c *command, a wazzup.Answer, v Verdict) outcome {
	e := NewError(a, v)
	switch v.Action {
	case ActionAccept:
		out := final(schema.StateSent)
		out.messageID = a.MessageID
		return out
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

// settle closes the gates that the answer closed, before anything else of those lanes
// can start. The slot is given back when the outcome's record is on its way.
func (o *owner) settle(c *command, a wazzup.Answer, v Verdict, started time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c.lane.pace.called(started.Add(a.Timing.DNS + a.Timing.Connect + a.Timing.TLS))
	o.refused(c, v, NewError(a, v), started)
	if v.Action == ActionAccept {
		o.refusals = 0
		if c.lane.channel != nil {
			c.lane.channel.refusals = 0
		}
	}
	if v.SpamBrake {
		o.ratedAsSpam(c.channelID(), "", time.Now())
	}
	if v.OpsUnknownCode {
		o.unknownCode(c.channelID(), ErrorCode(a))
	}
	c.slot.judged(v)
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
		at, ok := o.window.take(time.Now(), true)
		if o.pausedUntil.After(time.Now()) && ok {
			o.window.unused(true)
			at, ok = o.pausedUntil, false
		}
		if ok && !time.Now().Before(o.leaseUntil()) { // another owner may count by now
			o.window.unused(true)
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
	o.window.answered(time.Now(), true)
	o.pump()
}

// startSpan links to the producers' spans: a command may be carried out hours
// later and more than once, so the call is no child of it (OpenTelemetry semantic
// conventions for messaging).
func (o *owner) startSpan(commands []*command) (context.Context, trace.Span) {
	if !o.tracing {
		return o.callCtx, trace.SpanFromContext(o.callCtx) // none: it does nothing
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient)}
	for _, c := range commands {
		if c.traceparent != "" {
			options = append(options, trace.WithLinks(trace.Link{SpanContext: trace.SpanContextFromContext(o.extract(c))}))
		}
	}
	return o.tracer.Start(o.callCtx, "send "+string(commands[0].kind), options...) //nolint:spancheck // reportCall ends it
}

// callReport is what came of a call.
type callReport struct {
	family    Family
	answer    wazzup.Answer
	verdict   Verdict
	outcome   string // what comes of the command, or of the request
	messageID string
	items     int // of a sync request
	took      time.Duration
}

// reportCall writes the call's log line, span and metrics. Several commands that
// share a request share these: each has its own claim, and its end.
func (o *owner) reportCall(ctx context.Context, span trace.Span, commands []*command, r callReport) {
	c, a := commands[0], &r.answer
	code := ""
	if r.verdict.Action != ActionAccept {
		code = ErrorCode(*a)
	}
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("messaging.system", "nats"),
			attribute.String("messaging.operation.type", "process"),
			attribute.String("wazzup.account", o.cfg.Account),
			attribute.String("wazzup.kind", string(c.kind)),
			attribute.Int("http.response.status_code", a.Status),
			attribute.String("wazzup.phase", string(a.Phase)),
		)
		if len(commands) == 1 {
			span.SetAttributes(attribute.String("wazzup.command", c.id), attribute.Int("wazzup.attempt", c.attempt))
		} else {
			span.SetAttributes(attribute.Int("messaging.batch.message_count", len(commands)))
		}
		if r.items > 0 {
			span.SetAttributes(attribute.Int("wazzup.items", r.items))
		}
		if code != "" {
			span.SetAttributes(attribute.String("error.type", code))
			span.SetStatus(codes.Error, code)
		}
	}
	span.End()
	o.metrics.called(ctx, r.family, r.verdict.Class, a.Phase, r.took)
	about(o.log.Info(), commands, r.items).
		AnErr("error", a.Err). // why no answer came: left out where one did
		Str("kind", string(c.kind)).Str("channel", c.channel).Uint64("seq", c.origin.Seq).
		Str("phase", string(a.Phase)).Int("status", a.Status).Str("code", code).
		Str("outcome", r.outcome).Str("message_id", r.messageID).
		Dur("took", r.took).Dur("queued", queued(c, r.took)).
		Msg("call")
}

// about says of a log line whose call it is.
func about(line *zerolog.Event, commands []*command, items int) *zerolog.Event {
	if items > 0 {
		line.Int("items", items)
	}
	if len(commands) > 1 {
		return line.Int("commands", len(commands))
	}
	return line.Str("command", commands[0].id).Int("attempt", commands[0].attempt)
}

// queued is how long the command was stored before its call began.
func queued(c *command, took time.Duration) time.Duration {
	return max(time.Since(c.stored)-took, 0)
}
