package queue_test

import (
	"context"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/embedded"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

// connect stands in the examples for nats.Connect: it starts a server with the
// streams that a worker makes. Nobody reads an example's error here: its output
// would not be what it should.
func connect() (nc *nats.Conn, closeAll func()) {
	dir, err := os.MkdirTemp("", "wazzup-example-")
	if err != nil {
		panic(err)
	}
	srv, err := embedded.Start(embedded.Config{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		panic(err)
	}
	if nc, err = nats.Connect(srv.URL()); err != nil {
		panic(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		panic(err)
	}
	if _, err := queue.Ensure(context.Background(), js, "main", small()); err != nil {
		panic(err)
	}
	return nc, func() {
		nc.Close()
		srv.Shutdown()
		if err := os.RemoveAll(dir); err != nil {
			panic(err)
		}
	}
}
