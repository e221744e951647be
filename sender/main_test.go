package sender_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Nothing that a worker starts may outlive its Run. nats-server keeps a few
// goroutines of its own after a shutdown. nats.go leaves one behind where a
// publisher is cleaned up just after its first publish, before the goroutine that
// follows the connection has looked which channel it is to read (nats.go 1.55.0,
// resetPendingAcksOnReconnect).
func TestMain(m *testing.M) {
	// Most tests wait for leases and time-outs rather than for a processor.
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Server).startGoRoutine.func1"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"),
	)
}
