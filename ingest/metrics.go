package ingest

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// noAccount is the account label of requests that belong to none.
const noAccount = "-"

// outcome is how a request ended: a closed set, and the label of its metrics.
type outcome string

const (
	outcomeStored      outcome = "stored"      // every event is durable
	outcomeTest        outcome = "test"        // the body carried nothing
	outcomeMethod      outcome = "method"      // not POST
	outcomeNotFound    outcome = "not_found"   // wrong path, account or secret
	outcomeTooLarge    outcome = "too_large"   // beyond the body limit
	outcomeAborted     outcome = "aborted"     // the body did not arrive whole
	outcomeBusy        outcome = "busy"        // no room for another body
	outcomeUnavailable outcome = "unavailable" // NATS does not answer
	outcomeFull        outcome = "full"        // NATS has no room left
	outcomeFailed      outcome = "failed"      // a fault of ours
)

func outcomes() []outcome {
	return []outcome{
		outcomeStored, outcomeTest, outcomeMethod, outcomeNotFound, outcomeTooLarge,
		outcomeAborted, outcomeBusy, outcomeUnavailable, outcomeFull, outcomeFailed,
	}
}

// eventTypes are the ce-types of this package, without their prefix.
func eventTypes() []string {
	types := []string{
		"message.in", "message.out",
		"status.processing", "status.sent", "status.delivered", "status.read", "status.failed",
		"channel.state", "channels", "ops." + string(schema.OpsWebhookV3),
	}
	for _, r := range schema.QuarantineReasons() {
		types = append(types, "quarantine."+string(r))
	}
	return types
}

// label prepares the account's attributes, so that a request builds none.
func (a *liveAccount) label() {
	account := attribute.String("account", a.name)
	a.series = make(map[string]metric.MeasurementOption)
	for _, t := range eventTypes() {
		a.series[typePrefix+t] = metric.WithAttributeSet(attribute.NewSet(account, attribute.String("type", t)))
	}
	a.labels = make(map[outcome]metric.MeasurementOption)
	for _, o := range outcomes() {
		a.labels[o] = metric.WithAttributeSet(attribute.NewSet(account, attribute.String("outcome", string(o))))
	}
}

// metrics are this package's instruments.
type metrics struct {
	requests   metric.Int64Counter     // by account and outcome
	duration   metric.Float64Histogram // seconds, by account and outcome
	bytes      metric.Int64Counter     // of bodies that were read
	events     metric.Int64Counter     // stored, by account and type; replays included
	duplicates metric.Int64Counter     // events that the server had already
	lookups    metric.Int64Counter     // commands of statuses, by result
}

// Results of a lookup.
const (
	lookupFound   = "found"
	lookupUnknown = "unknown"
	lookupFailed  = "failed"
)

func newMetrics(m metric.Meter) (*metrics, error) {
	var out metrics
	var errs [6]error
	out.requests, errs[0] = m.Int64Counter("wazzup.ingest.requests",
		metric.WithDescription("Webhook requests, by outcome"), metric.WithUnit("{request}"))
	out.duration, errs[1] = m.Float64Histogram("wazzup.ingest.request.duration",
		metric.WithDescription("From the first check of a webhook request to its answer"), metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	out.bytes, errs[2] = m.Int64Counter("wazzup.ingest.body.size",
		metric.WithDescription("Bytes of webhook bodies that were read"), metric.WithUnit("By"))
	out.events, errs[3] = m.Int64Counter("wazzup.ingest.events",
		metric.WithDescription("Events of webhooks that are stored, replays included"), metric.WithUnit("{event}"))
	out.duplicates, errs[4] = m.Int64Counter("wazzup.ingest.duplicates",
		metric.WithDescription("Events of webhooks that were stored before, and so were not stored again"), metric.WithUnit("{event}"))
	out.lookups, errs[5] = m.Int64Counter("wazzup.ingest.lookups",
		metric.WithDescription("Lookups of the commands behind statuses, by result"), metric.WithUnit("{status}"))
	return &out, errors.Join(errs[:]...)
}

// start puts every series at zero, so that a rate has a first point.
func (m *metrics) start(ctx context.Context, set *accountSet) {
	for _, r := range []string{lookupFound, lookupUnknown, lookupFailed} {
		m.lookups.Add(ctx, 0, lookupLabel(r))
	}
	for _, o := range outcomes() {
		m.requests.Add(ctx, 0, set.none.labels[o])
	}
	m.bytes.Add(ctx, 0)
	m.duplicates.Add(ctx, 0)
	for _, a := range set.byName {
		for _, o := range outcomes() {
			m.requests.Add(ctx, 0, a.labels[o])
		}
		for _, s := range a.series {
			m.events.Add(ctx, 0, s)
		}
	}
}

func lookupLabel(result string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String("result", result)))
}

// finish counts a request.
func (m *metrics) finish(ctx context.Context, r *record, o outcome, took time.Duration) {
	label := r.account.labels[o]
	m.requests.Add(ctx, 1, label)
	m.duration.Record(ctx, took.Seconds(), label)
	if r.bytes > 0 {
		m.bytes.Add(ctx, int64(r.bytes))
	}
	if o != outcomeStored {
		return
	}
	counts := make(map[string]int64, 4)
	for i := range r.events {
		counts[r.events[i].Type]++
	}
	for t, n := range counts {
		m.events.Add(ctx, n, r.account.series[t])
	}
	if r.duplicates > 0 {
		m.duplicates.Add(ctx, int64(r.duplicates))
	}
}
