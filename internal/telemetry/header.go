package telemetry

import (
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
)

// HeaderCarrier lets a propagator read and write the headers of a NATS message:
//
//	ctx = t.Propagator.Extract(ctx, telemetry.HeaderCarrier(msg.Header))
//
// NATS keeps the case of a name, and clients that treat headers as HTTP ones
// write Traceparent; both are read, and W3C's lower case is written.
type HeaderCarrier nats.Header

// Get returns the first value of the name in any case, or "".
func (c HeaderCarrier) Get(name string) string {
	if values := c[name]; len(values) > 0 {
		return values[0]
	}
	for other, values := range c {
		if len(values) > 0 && strings.EqualFold(other, name) {
			return values[0]
		}
	}
	return ""
}

// Set replaces the name in every case.
func (c HeaderCarrier) Set(name, value string) {
	maps.DeleteFunc(c, func(other string, _ []string) bool { return strings.EqualFold(other, name) })
	c[name] = []string{value}
}

// Keys returns the names, sorted.
func (c HeaderCarrier) Keys() []string { return slices.Sorted(maps.Keys(c)) }
