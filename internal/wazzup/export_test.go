package wazzup

import (
	"net/http"
	"time"
)

// Parse reads an answer as if it had come whole.
func Parse(status int, body []byte, want Want) Answer {
	a := Answer{Method: http.MethodPost, Status: status, Body: body, Phase: "answered"}
	if err := a.parse(want); err != nil {
		a.fail("answered", FaultBadAnswer, err)
	}
	return a
}

// ParseRetryAfter reads the header at a time.
func ParseRetryAfter(header http.Header, now time.Time) (time.Duration, bool) {
	return parseRetryAfter(header, func() time.Time { return now })
}

// MessageJSON is the body of a send.
func MessageJSON(m *Message) []byte { return m.appendJSON(nil) }

// PooledProbe reports whether the pool of a client holds a used probe, and takes it.
func PooledProbe(c *Client) bool { return c.transport.probes.Get() != nil }
