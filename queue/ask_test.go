package queue_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

func TestAskRepeatsWhatMayPass(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		err   error
		tries int
	}{
		{"answered", nil, 1},
		{"nobody listens", nats.ErrNoResponders, 3},
		{"nobody leads", &jetstream.APIError{Code: 503, ErrorCode: 10008}, 3},
		{"disconnected", nats.ErrReconnectBufExceeded, 3},
		{"refused", jetstream.ErrStreamNotFound, 1},
		{"closed", nats.ErrConnectionClosed, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				err := queue.Ask(t.Context(), func(context.Context) error {
					if tries++; tries == 3 {
						return nil
					}
					return tc.err
				})
				if tries != tc.tries {
					t.Errorf("%d tries, want %d", tries, tc.tries)
				}
				if want := tc.err; tc.tries == 1 && !errors.Is(err, want) || tc.tries > 1 && err != nil {
					t.Errorf("got %v after %d tries", err, tries)
				}
			})
		})
	}
}

// Where nobody answers, each try is given up in time for another, and longer than
// the one before; the caller's own patience ends them all.
func TestAskGivesUpSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var waits []time.Duration
		err := queue.Ask(ctx, func(ctx context.Context) error {
			began := time.Now()
			<-ctx.Done()
			waits = append(waits, time.Since(began))
			return ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() == nil {
			t.Errorf("got %v before the caller's patience ended", err)
		}
		if len(waits) < 5 || waits[0] != time.Second {
			t.Fatalf("tries were given %v, want five or more, the first one second", waits)
		}
		for i := 1; i < len(waits)-1; i++ { // the last is cut off
			if waits[i] < waits[i-1] || waits[i] > 5*time.Second {
				t.Errorf("tries were given %v, want ever longer ones of at most 5s", waits)
			}
		}
	})
}
