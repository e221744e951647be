package wazzup

import (
	"net"
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

// PooledProbe reports whether the client's pool holds a probe, and takes it.
func PooledProbe(c *Client) bool { return c.transport.probes.Get() != nil }

// Counted is a connection as a transport dials it.
func Counted(conn net.Conn) net.Conn { return &countedConn{Conn: conn} }

// RequestWrites tells how often what may be a part of a request was written; exact
// is false if the connection is not one request's alone.
func RequestWrites(conn net.Conn) (n uint64, exact bool) {
	counter := writeCounter(conn)
	if counter == nil {
		return 0, false
	}
	return counter.Load(), true
}
