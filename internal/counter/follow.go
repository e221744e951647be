package counter

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"time"
)

// Pauses between connections.
const (
	retryMin = time.Second
	retryMax = time.Minute
	// A connection was good if it lasted. One that brought a counter and ended need not
	// be: a server may end each, as where two clients of one user drive each other out.
	goodAfter = 10 * time.Second
)

// Config is one user's counter. Functions are called by one goroutine at a time, and
// should not block for long.
type Config struct {
	URL  string          // of the vendor's server, http or https, without a path
	Key  string          // the account's API key
	User json.RawMessage // the user's id, a JSON string or number

	// Counter gets every value that the server sends; first is true for the first of
	// a connection.
	Counter func(n int64, first bool)
	// Connected hears when a connection stands, and when it does not any more; nil:
	// nobody does.
	Connected func(bool)
	// Retrying hears why a connection ended before the next is tried, in a text that
	// may be logged; nil: nobody does.
	Retrying func(reason error)

	// Transport makes the connections; nil: http.DefaultTransport.
	Transport http.RoundTripper
}

func (c *Config) connected(is bool) {
	if c.Connected != nil {
		c.Connected(is)
	}
}

// Follow keeps a connection up until ctx ends, and returns when it is closed. After
// each that ends it waits a while, which grows with every one in a row that was no
// good, with full jitter: many clients must not come back in step.
func Follow(ctx context.Context, cfg Config) {
	for bad := 0; ctx.Err() == nil; bad++ {
		began := time.Now()
		c := &conn{cfg: &cfg}
		err := c.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if c.joined && time.Since(began) >= goodAfter {
			bad = 0
		}
		if cfg.Retrying != nil {
			cfg.Retrying(err)
		}
		timer := time.NewTimer(rand.N(retryPause(bad)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// retryPause is the longest pause after so many bad connections in a row.
func retryPause(bad int) time.Duration { return min(retryMin<<min(bad, 10), retryMax) }
