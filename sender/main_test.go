package sender_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing that a worker starts may outlive its Run. nats-server keeps a few
// goroutines of its own after a shutdown.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Server).startGoRoutine.func1"))
}
