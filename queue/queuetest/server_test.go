package queuetest_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

func TestMain(m *testing.M) {
	queuetest.MaybeServe()
	goleak.VerifyTestMain(m)
}

func newJetStream(t *testing.T, conn *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func createStream(t *testing.T, js jetstream.JetStream, replicas int) {
	t.Helper()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: replicas})
	if err != nil {
		t.Fatalf("create stream: %v", err)
	}
}

func publish(t *testing.T, js jetstream.JetStream, want uint64) {
	t.Helper()
	ack, err := js.Publish(t.Context(), "s", nil)
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	if ack.Sequence != want {
		t.Fatalf("sequence = %d, want %d", ack.Sequence, want)
	}
}

// reconnects is signalled each time the connection is back.
func reconnects() (<-chan struct{}, nats.Option) {
	c := make(chan struct{}, 10)
	return c, nats.ReconnectHandler(func(*nats.Conn) { c <- struct{}{} })
}

func TestServerRestart(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		opts []queuetest.Option
	}{
		{"open", nil},
		{"with credentials", []queuetest.Option{queuetest.WithCredentials("u", "p"), queuetest.WithSyncAlways()}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv := queuetest.Server(t, tc.opts...)
			back, onReconnect := reconnects()
			js := newJetStream(t, queuetest.Conn(t, srv, onReconnect))
			createStream(t, js, 1)
			publish(t, js, 1)
			url := srv.URL()
			srv.Restart()
			<-back
			publish(t, js, 2)
			if got := srv.URL(); got != url {
				t.Errorf("URL after restart = %s, want %s", got, url)
			}
			if srv.Embedded() == nil {
				t.Error("no server after restart")
			}
		})
	}
}

func TestServerStopped(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	srv.Stop()
	srv.Stop()
	if conn, err := nats.Connect(srv.URL()); err == nil {
		conn.Close()
		t.Error("a stopped server answers")
	}
	srv.Start()
	srv.Start()
	createStream(t, newJetStream(t, queuetest.Conn(t, srv)), 1)
}

func TestServerLimits(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t, queuetest.WithMaxStore(1<<20), queuetest.WithMaxPayload(100))
	conn := queuetest.Conn(t, srv)
	if got := conn.MaxPayload(); got != 100 {
		t.Errorf("max payload = %d, want 100", got)
	}
	_, err := newJetStream(t, conn).CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", MaxBytes: 2 << 20})
	if err == nil {
		t.Error("a stream larger than the store was made")
	}
}
