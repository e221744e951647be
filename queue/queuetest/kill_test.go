//go:build system

package queuetest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

func TestProcessKill(t *testing.T) {
	t.Parallel()
	srv := queuetest.Process(t)
	back, onReconnect := reconnects()
	js := newJetStream(t, queuetest.Conn(t, srv, onReconnect))
	createStream(t, js, 1)
	for seq := uint64(1); seq <= 10; seq += 2 {
		publish(t, js, seq)
		pid := srv.PID()
		srv.Kill()
		srv.Start()
		<-back
		if srv.PID() == pid {
			t.Error("the same process after a kill")
		}
		publish(t, js, seq+1)
	}
	srv.Stop()
	srv.Kill() // harmless
}

func TestProcessFreeze(t *testing.T) {
	t.Parallel()
	srv := queuetest.Process(t, queuetest.WithCredentials("u", "p"))
	conn := queuetest.Conn(t, srv)
	js := newJetStream(t, conn)
	createStream(t, js, 1)
	srv.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := js.Publish(ctx, "s", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("publish to a frozen server: %v, want %v", err, context.DeadlineExceeded)
	}
	srv.Thaw()
	publish(t, js, 2) // what was written while it was frozen came first
}

func TestProcessKillWhileFrozen(t *testing.T) {
	t.Parallel()
	srv := queuetest.Process(t)
	srv.Freeze()
	srv.Kill()
	srv.Start()
	createStream(t, newJetStream(t, queuetest.Conn(t, srv)), 1)
	srv.Freeze() // the cleanup must end it all the same
}

func TestClusterLosesItsStreamsLeader(t *testing.T) {
	t.Parallel()
	cluster := queuetest.Cluster(t, 3)
	js := newJetStream(t, queuetest.Conn(t, cluster))
	createStream(t, js, cluster.Size())
	publish(t, js, 1)
	leader := cluster.StreamLeader("S")
	if leader < 0 {
		t.Fatal("the stream has no leader, though it took a message")
	}
	cluster.Stop(leader)
	if conn, err := nats.Connect(cluster.NodeURL(leader)); err == nil {
		conn.Close()
		t.Error("a stopped node answers")
	}
	seq := publishSoon(t, js, 1)
	if got := cluster.StreamLeader("S"); got == leader {
		t.Error("the stopped node leads the stream")
	}
	cluster.Start(leader)
	publishSoon(t, newJetStream(t, queuetest.Conn(t, cluster)), seq)
}

// publishSoon publishes until the stream has a leader again, and returns the
// sequence. A try that timed out may have been stored all the same.
func publishSoon(t *testing.T, js jetstream.JetStream, last uint64) uint64 {
	t.Helper()
	for t.Context().Err() == nil {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		ack, err := js.Publish(ctx, "s", nil)
		cancel()
		if err == nil {
			if ack.Sequence <= last {
				t.Fatalf("sequence = %d after %d: something was lost", ack.Sequence, last)
			}
			return ack.Sequence
		}
		t.Logf("publish: %v", err)
	}
	t.Fatal("no leader")
	return 0
}

func TestProcessClusterLosesEachNode(t *testing.T) {
	t.Parallel()
	cluster := queuetest.ProcessCluster(t, 3)
	js := newJetStream(t, queuetest.Conn(t, cluster))
	createStream(t, js, cluster.Size())
	publish(t, js, 1)
	seq := uint64(1)
	for i := range cluster.Size() {
		cluster.CaughtUp(js)
		cluster.Kill(i)
		cluster.Kill(i) // harmless
		if conn, err := nats.Connect(cluster.NodeURL(i)); err == nil {
			conn.Close()
			t.Errorf("node %d was killed and answers", i)
		}
		seq = publishSoon(t, js, seq)
		cluster.Start(i)
		cluster.Start(i)
	}
	cluster.CaughtUp(js)
	s, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().State.LastSeq; got < seq {
		t.Errorf("the last message is %d, want %d or later", got, seq)
	}
}
