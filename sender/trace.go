package sender

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
)

// extract reads the producer's trace context from the command's headers (W3C
// Trace Context).
func (o *owner) extract(c *command) context.Context {
	return propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{
		"traceparent": c.traceparent, "tracestate": c.tracestate,
	})
}
