package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/ingest"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

const (
	streamsSoon    = 500 * time.Millisecond // while one is missing
	streamsLater   = 15 * time.Second       // while all are there
	streamsTimeout = 5 * time.Second
)

// streamWatch is the part of the ingest's readiness that a connection does not
// show: events can be stored only where a worker has made the account's streams.
type streamWatch struct {
	conn    *daemon.NATS
	js      jetstream.JetStream
	changed chan struct{} // holds one token when the accounts changed

	mu       sync.Mutex // guards the rest
	accounts []string
	err      error
}

func newStreamWatch(conn *daemon.NATS, accounts []ingest.Account) (*streamWatch, error) {
	js, err := jetstream.New(conn.Conn())
	if err != nil {
		return nil, fmt.Errorf("watch streams: %w", err)
	}
	w := &streamWatch{conn: conn, js: js, changed: make(chan struct{}, 1), err: errors.New("not looked for yet")}
	w.watch(accounts)
	return w, nil
}

// watch puts another set of accounts in place of the present one, and has them
// looked at soon.
func (w *streamWatch) watch(accounts []ingest.Account) {
	names := make([]string, len(accounts))
	for i, a := range accounts {
		names[i] = a.Name
	}
	w.mu.Lock()
	w.accounts = names
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Name is the task's name.
func (w *streamWatch) Name() string { return "streams" }

// Ready is nil when every account's events have a stream.
func (w *streamWatch) Ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Run looks again and again, and at once when the connection is back.
func (w *streamWatch) Run(ctx context.Context) error {
	back := make(chan struct{}, 1)
	end := w.conn.Notify(func(event daemon.NATSEvent) {
		if event == daemon.NATSConnected || event == daemon.NATSReconnected {
			select {
			case back <- struct{}{}:
			default:
			}
		}
	})
	defer end()
	for {
		err := w.look(ctx)
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
		pause := streamsLater
		if err != nil {
			pause = streamsSoon
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-back:
			timer.Stop()
		case <-w.changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

func (w *streamWatch) look(ctx context.Context) error {
	if err := w.conn.Ready(); err != nil {
		return err
	}
	w.mu.Lock()
	accounts := w.accounts
	w.mu.Unlock()
	for _, account := range accounts {
		ask, cancel := context.WithTimeout(ctx, streamsTimeout)
		_, err := w.js.Stream(ask, queue.Names{Account: account}.Records())
		cancel()
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return fmt.Errorf("account %s has no stream for events yet: no worker has served it on this NATS server", account)
		case err != nil:
			return fmt.Errorf("account %s: the stream for events cannot be looked up: %w", account, queue.Explain(err))
		}
	}
	return nil
}
