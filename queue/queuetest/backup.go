package queuetest

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// Backup is one stream as `nats backup stream` would keep it.
type Backup struct {
	stream string
	header json.RawMessage // configuration and state
	chunks [][]byte
}

const (
	backupChunk = 64 << 10
	backupWait  = 10 * time.Second
)

// TakeBackup reads a stream through JetStream's own snapshot request, without its
// consumers (NATS, JetStream API, STREAM.SNAPSHOT).
func TakeBackup(tb testing.TB, conn *nats.Conn, stream string) Backup {
	tb.Helper()
	sub, err := conn.SubscribeSync(conn.NewInbox())
	if err != nil {
		tb.Fatalf("queuetest: %v", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	b := Backup{stream: stream}
	b.header = apiRequest(tb, conn, "STREAM.SNAPSHOT."+stream, map[string]any{
		"deliver_subject": sub.Subject, "no_consumers": true, "chunk_size": backupChunk,
	})
	for {
		m, err := sub.NextMsg(backupWait)
		if err != nil {
			tb.Fatalf("queuetest: backup of %s: %v", stream, err)
		}
		if len(m.Data) == 0 {
			if status := m.Header.Get("Status"); status != "" && status != "204" {
				tb.Fatalf("queuetest: backup of %s: %s %s", stream, status, m.Header.Get("Description"))
			}
			return b
		}
		b.chunks = append(b.chunks, m.Data)
		if m.Reply == "" { // small ones need no flow control
			continue
		}
		if err := m.Respond(nil); err != nil {
			tb.Fatalf("queuetest: backup of %s: %v", stream, err)
		}
	}
}

// Restore makes the stream of a backup, with what it held (STREAM.RESTORE).
func (b Backup) Restore(tb testing.TB, conn *nats.Conn) {
	tb.Helper()
	var header struct {
		Config json.RawMessage `json:"config"`
		State  json.RawMessage `json:"state"`
	}
	if err := json.Unmarshal(b.header, &header); err != nil {
		tb.Fatalf("queuetest: restore %s: %v", b.stream, err)
	}
	var target struct {
		DeliverSubject string `json:"deliver_subject"`
	}
	if err := json.Unmarshal(apiRequest(tb, conn, "STREAM.RESTORE."+b.stream, header), &target); err != nil {
		tb.Fatalf("queuetest: restore %s: %v", b.stream, err)
	}
	for _, chunk := range append(b.chunks, nil) { // an empty one is the end
		refused(tb, "restore "+b.stream, sendChunk(tb, conn, target.DeliverSubject, chunk))
	}
}

// sendChunk sends a part of a backup and returns the answer. In a cluster the node
// that takes it may be known to the others a moment late.
func sendChunk(tb testing.TB, conn *nats.Conn, subject string, chunk []byte) []byte {
	tb.Helper()
	tick := time.NewTicker(clusterPoll)
	defer tick.Stop()
	timeout := time.After(backupWait)
	for {
		answer, err := conn.Request(subject, chunk, backupWait)
		if err == nil {
			return answer.Data
		}
		if !errors.Is(err, nats.ErrNoResponders) {
			tb.Fatalf("queuetest: restore: %v", err)
		}
		select {
		case <-tick.C:
		case <-timeout:
			tb.Fatalf("queuetest: restore: %v", err)
		}
	}
}

func apiRequest(tb testing.TB, conn *nats.Conn, name string, body any) []byte {
	tb.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		tb.Fatalf("queuetest: %s: %v", name, err)
	}
	answer, err := conn.Request("$JS.API."+name, text, backupWait)
	if err != nil {
		tb.Fatalf("queuetest: %s: %v", name, err)
	}
	refused(tb, name, answer.Data)
	return answer.Data
}

func refused(tb testing.TB, what string, answer []byte) {
	tb.Helper()
	var body struct {
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if len(answer) > 0 && json.Unmarshal(answer, &body) == nil && body.Error != nil {
		tb.Fatalf("queuetest: %s: %s", what, body.Error.Description)
	}
}
