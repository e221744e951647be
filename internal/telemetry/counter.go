package telemetry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Other stands for a value that is not in its label's set, in OpenTelemetry's
// own spelling. Seeing it means that a set is incomplete.
const Other = "_OTHER"

// Label is a name with the closed set of values that it may take.
type Label struct {
	Name   string
	Values []string
}

// NewLabel makes a label of any kind of strings.
func NewLabel[V ~string](name string, values ...V) Label {
	label := Label{Name: name}
	for _, value := range values {
		label.Values = append(label.Values, string(value))
	}
	return label
}

// CounterConfig declares a counter.
type CounterConfig struct {
	// Name in OpenTelemetry's form: `wazzup.commands.ended`. At /metrics it is
	// wazzup_commands_ended_total.
	Name string
	// Description is a sentence; Unit is UCUM, such as "{command}" or "By".
	Description, Unit string
	// Labels span the series; all combinations exist at zero from the start,
	// so that a rate is right from the first count on. Mind their product.
	Labels []Label
}

// Counter counts by closed sets of labels.
type Counter struct {
	labels []Label
	series map[string]Series // by seriesKey
	other  metric.Int64Counter
}

// Series is one series of a Counter, for places where counting must be cheap.
type Series struct {
	counter metric.Int64Counter
	opts    []metric.AddOption
}

// NewCounter declares a counter with all its series at zero. Declaring it again
// with other label values adds their series: an account that appears later has
// its own.
func NewCounter(meter metric.Meter, cfg CounterConfig) (*Counter, error) {
	counter, err := meter.Int64Counter(cfg.Name, metric.WithDescription(cfg.Description), metric.WithUnit(cfg.Unit))
	if err != nil {
		return nil, fmt.Errorf("counter %s: %w", cfg.Name, err)
	}
	c := &Counter{labels: cfg.Labels, series: make(map[string]Series), other: counter}
	for _, values := range combinations(cfg.Labels) {
		series := newSeries(counter, cfg.Labels, values)
		series.Add(context.Background(), 0)
		c.series[seriesKey(values)] = series
	}
	return c, nil
}

// combinations of one value of each label, in order.
func combinations(labels []Label) [][]string {
	all := [][]string{nil}
	for _, label := range labels {
		var next [][]string
		for _, head := range all {
			for _, value := range label.Values {
				next = append(next, append(slices.Clone(head), value))
			}
		}
		all = next
	}
	return all
}

func newSeries(counter metric.Int64Counter, labels []Label, values []string) Series {
	attrs := make([]attribute.KeyValue, len(labels))
	for i, label := range labels {
		attrs[i] = attribute.String(label.Name, values[i])
	}
	return Series{
		counter: counter,
		opts:    []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attrs...))},
	}
}

// seriesKey joins by a byte that is in no label value.
func seriesKey(values []string) string { return strings.Join(values, "\xff") }

// With finds the series of one value for each label, in the order of the
// declaration. A value that is not in its set, or is missing, counts as
// [Other].
func (c *Counter) With(values ...string) Series {
	if series, ok := c.series[seriesKey(values)]; ok {
		return series
	}
	known := make([]string, len(c.labels))
	for i, label := range c.labels {
		known[i] = Other
		if i < len(values) && slices.Contains(label.Values, values[i]) {
			known[i] = values[i]
		}
	}
	return newSeries(c.other, c.labels, known)
}

// Add counts n more; ctx is for exemplars only.
func (s Series) Add(ctx context.Context, n int64) {
	if s.counter != nil {
		s.counter.Add(ctx, n, s.opts...)
	}
}
