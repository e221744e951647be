package queue_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		err  error
		says string // "" = nothing is added
	}{
		{"nothing", nil, ""},
		{"JetStream switched off", nats.ErrNoResponders, "switched on"},
		{"no room on the server", &jetstream.APIError{ErrorCode: 10047}, "max_file_store"},
		{"no room for the account", &jetstream.APIError{ErrorCode: 10002}, "max_file_store"},
		{"a full stream", &jetstream.APIError{ErrorCode: 10077}, ""},
		{"a time-out", context.DeadlineExceeded, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := queue.Explain(tt.err)
			if !errors.Is(got, tt.err) || tt.says == "" && got != tt.err || tt.says != "" && !strings.Contains(got.Error(), tt.says) {
				t.Errorf("got %v, want %v and %q", got, tt.err, tt.says)
			}
		})
	}
}

// Streams that the server has no room for say what to do.
func TestEnsureSaysWhatToDoWithoutRoom(t *testing.T) {
	t.Parallel()
	js, err := jetstream.New(queuetest.Conn(t, queuetest.Server(t)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = queue.Ensure(t.Context(), js, "main", queue.Limits{CommandBytes: 1 << 60})
	if err == nil || !strings.Contains(err.Error(), "wazzup-main-commands") || !strings.Contains(err.Error(), "max_file_store") {
		t.Errorf("got %v", err)
	}
}
