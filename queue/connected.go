package queue

import (
	"context"

	"github.com/nats-io/nats.go"
)

// WhileConnected derives a context that also ends when the connection breaks. What
// was asked before that is never answered, so that to wait on for its deadline
// would be in vain; to ask again is quick. The returned function must be called.
func WhileConnected(ctx context.Context, nc *nats.Conn) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	changes := nc.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	if !nc.IsConnected() {
		cancel()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-changes:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel()
		<-done
		nc.RemoveStatusListener(changes)
	}
}
