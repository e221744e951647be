package sender

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// metrics are the instruments that this package moves. Every label comes from a
// closed set, and every series exists from the start.
type metrics struct {
	calls    metric.Int64Counter
	duration metric.Float64Histogram
	events   metric.Int64Counter
	owned    metric.Int64UpDownCounter
	// reconnects of connections to the vendor's counter
	reconnects metric.Int64Counter
	gauges     gauges

	// Options are kept as the slices that instruments take, so that none is made for
	// each measurement.
	callSets  map[callLabels][]metric.AddOption
	eventSets map[eventLabels][]metric.AddOption
}

type callLabels struct {
	family Family
	class  schema.Class // "" = taken
	phase  schema.Phase
}

type eventLabels struct {
	kind  schema.Kind
	state schema.State
}

func newMetrics(m metric.Meter) (*metrics, error) {
	var s metrics
	var err error
	if s.calls, err = m.Int64Counter("wazzup.calls", metric.WithDescription("Calls to the vendor, by what came of them.")); err != nil {
		return nil, fmt.Errorf("declare metrics: %w", err)
	}
	if s.duration, err = m.Float64Histogram("wazzup.call.duration", metric.WithUnit("s"),
		metric.WithDescription("From the start of a call to its answer or failure."),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)); err != nil {
		return nil, fmt.Errorf("declare metrics: %w", err)
	}
	if s.events, err = m.Int64Counter("wazzup.command.events", metric.WithDescription("Command events published, by kind and state.")); err != nil {
		return nil, fmt.Errorf("declare metrics: %w", err)
	}
	if s.owned, err = m.Int64UpDownCounter("wazzup.accounts.owned", metric.WithDescription("Accounts that this worker owns now.")); err != nil {
		return nil, fmt.Errorf("declare metrics: %w", err)
	}
	s.owned.Add(context.Background(), 0)
	if s.reconnects, err = m.Int64Counter("wazzup.counter.reconnects", metric.WithDescription("Connections to Wazzup's counter of unanswered messages that ended and were tried again.")); err != nil {
		return nil, fmt.Errorf("declare metrics: %w", err)
	}
	s.reconnects.Add(context.Background(), 0)
	if s.gauges, err = newGauges(m); err != nil {
		return nil, fmt.Errorf("declare metrics: %w", err)
	}
	s.callSets = make(map[callLabels][]metric.AddOption)
	for _, f := range Families() {
		for _, c := range append(schema.Classes(), "") {
			for _, p := range schema.Phases() {
				set := []metric.AddOption{metric.WithAttributes(
					attribute.String("family", string(f)), attribute.String("class", string(c)), attribute.String("phase", string(p)))}
				s.callSets[callLabels{f, c, p}] = set
				s.calls.Add(context.Background(), 0, set...)
			}
		}
	}
	s.eventSets = make(map[eventLabels][]metric.AddOption)
	for _, k := range schema.Kinds() {
		for _, st := range schema.States() {
			set := []metric.AddOption{metric.WithAttributes(attribute.String("kind", string(k)), attribute.String("state", string(st)))}
			s.eventSets[eventLabels{k, st}] = set
			s.events.Add(context.Background(), 0, set...)
		}
	}
	return &s, nil
}

func (s *metrics) called(ctx context.Context, f Family, c schema.Class, p schema.Phase, took time.Duration) {
	if set, ok := s.callSets[callLabels{f, c, p}]; ok {
		s.calls.Add(ctx, 1, set...)
	}
	s.duration.Record(ctx, took.Seconds())
}

func (s *metrics) published(ctx context.Context, k schema.Kind, st schema.State) {
	if set, ok := s.eventSets[eventLabels{k, st}]; ok {
		s.events.Add(ctx, 1, set...)
	}
}
