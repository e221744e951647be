package simulator

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Request is one request to the vendor's API as it was received.
type Request struct {
	Seq       int             `json:"seq"` // from 1, in the order of arrival
	Time      time.Time       `json:"time"`
	Method    string          `json:"method"`
	Path      string          `json:"path"`
	Query     string          `json:"query,omitzero"`
	Header    http.Header     `json:"headers"`            // without Authorization
	Body      json.RawMessage `json:"body,omitzero"`      // what is no JSON stands here as a JSON string
	Status    int             `json:"status"`             // of the answer; 0 = none was given, or none yet
	Code      string          `json:"code,omitzero"`      // of an error answer
	Fault     Fault           `json:"fault,omitzero"`     // that the request met
	MessageID string          `json:"messageId,omitzero"` // of the message that was accepted, whether or not it was answered

	ChannelID string `json:"channelId,omitzero"` // of a send_message
	ChatID    string `json:"chatId,omitzero"`    // of a send_message
}

// Send is one send_message request that could be read, parsed.
type Send struct {
	Seq          int // of its Request
	Time         time.Time
	ChannelID    string
	ChatType     string
	ChatID       string
	Text         string
	Content      string
	RefMessageID string
	MessageID    string // "" = not accepted
	Status       int    // of the answer; 0 = none was given, or none yet
	Code         string // of an error answer
	Fault        Fault
}

// Accepted reports whether the message was taken, answered or not.
func (s *Send) Accepted() bool { return s.MessageID != "" }

// View counts what has happened since the start or the last reset.
type View struct {
	Requests  int `json:"requests"`  // received for the vendor's API
	Finished  int `json:"finished"`  // of these, answered or dropped
	Sends     int `json:"sends"`     // of these, send_message
	Accepted  int `json:"accepted"`  // messages taken
	Delivered int `json:"delivered"` // webhooks answered 200
	Items     int `json:"items"`     // items in them
	Failed    int `json:"failed"`    // attempts at a webhook that were not answered 200
	GivenUp   int `json:"givenUp"`   // webhooks dropped after their last attempt
	Pending   int `json:"pending"`   // webhook items waiting, or under way
}

// Idle reports whether no request and no webhook is waiting or under way.
func (v *View) Idle() bool { return v.Requests == v.Finished && v.Pending == 0 }

// entry is a request as it is kept; Server.mu guards what follows the answer's line.
type entry struct {
	seq    int
	time   time.Time
	method string
	path   string
	query  string
	header http.Header
	body   []byte
	send   *sendBody // nil = no send_message that could be read

	status    int
	code      string
	fault     Fault
	messageID string
}

func (e *entry) request() Request {
	r := Request{
		Seq: e.seq, Time: e.time, Method: e.method, Path: e.path, Query: e.query,
		Header: make(http.Header, len(e.header)), Body: asJSON(e.body),
		Status: e.status, Code: e.code, Fault: e.fault, MessageID: e.messageID,
	}
	for name, values := range e.header {
		if name != "Authorization" {
			r.Header[name] = values
		}
	}
	if e.send != nil {
		r.ChannelID, r.ChatID = e.send.ChannelID.text, e.send.ChatID.text
	}
	return r
}

func (e *entry) sent() Send {
	b := e.send
	return Send{
		Seq: e.seq, Time: e.time,
		ChannelID: b.ChannelID.text, ChatType: b.ChatType.text, ChatID: b.ChatID.text,
		Text: b.Text.text, Content: b.Content.text, RefMessageID: b.RefMessageID.text,
		MessageID: e.messageID, Status: e.status, Code: e.code, Fault: e.fault,
	}
}

// asJSON is a body as JSON: itself if it is, otherwise a string of its text.
func asJSON(body []byte) json.RawMessage {
	if len(body) == 0 {
		return nil
	}
	if jsontext.Value(body).IsValid(jsontext.AllowDuplicateNames(true)) {
		return json.RawMessage(body)
	}
	return json.RawMessage(encode(string(body)))
}

// ring keeps the last items of a sequence; its zero capacity keeps none.
type ring[T any] struct {
	items []T
	next  int // where the next one goes once the ring is full
	size  int
}

// add keeps the item and returns the one that it drove out.
func (r *ring[T]) add(item T) (old T, full bool) {
	switch {
	case r.size == 0:
		return item, true
	case len(r.items) < r.size:
		r.items = append(r.items, item)
		return old, false
	}
	old, r.items[r.next] = r.items[r.next], item
	r.next = (r.next + 1) % r.size
	return old, true
}

// all calls f for each item, oldest first.
func (r *ring[T]) all(f func(T)) {
	for i := range r.items {
		f(r.items[(r.next+i)%len(r.items)])
	}
}

// signal wakes whoever waits for a change. With nobody waiting it costs a lock.
type signal struct {
	mu sync.Mutex
	ch chan struct{} // nil = nobody waits
}

func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// View returns the counters.
func (s *Server) View() View {
	s.mu.Lock()
	v := s.view
	s.mu.Unlock()
	s.out.count(&v)
	return v
}

// Wait returns as soon as cond is true, which it asks at once and after every
// change: a request that arrives or ends, a webhook that is delivered or given
// up. cond may call any method of the Server. The error is the context's, or
// ErrClosed.
func (s *Server) Wait(ctx context.Context, cond func(*View) bool) error {
	for {
		changed := s.changed.next()
		if v := s.View(); cond(&v) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("simulator: waiting: %w", context.Cause(ctx))
		case <-s.done:
			return fmt.Errorf("simulator: waiting: %w", ErrClosed)
		}
	}
}

// Requests returns the requests to the vendor's API in the order of their
// arrival, as far as they are kept (Config.KeepRequests).
func (s *Server) Requests() []Request {
	return s.filter(func(*entry) bool { return true })
}

func (s *Server) filter(keep func(*entry) bool) []Request {
	entries := s.entries(keep)
	requests := make([]Request, len(entries))
	for i := range entries {
		requests[i] = entries[i].request()
	}
	return requests
}

// entries copies what it returns, since entries change until they are answered.
func (s *Server) entries(keep func(*entry) bool) []entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept []entry
	s.requests.all(func(e *entry) {
		if keep(e) {
			kept = append(kept, *e)
		}
	})
	return kept
}

// Sends returns the send_message requests whose body was a JSON object,
// carried out or not, in the order of their arrival, as far as they are kept.
func (s *Server) Sends() []Send {
	entries := s.entries(func(e *entry) bool { return e.send != nil })
	sends := make([]Send, len(entries))
	for i := range entries {
		sends[i] = entries[i].sent()
	}
	return sends
}

// arrive records a request. Callers hold s.mu.
func (s *Server) arrive(c *call) *entry {
	s.view.Requests++
	if c.isSend() {
		s.view.Sends++
	}
	e := &entry{
		seq: s.view.Requests, time: c.time, method: c.method, path: c.path, query: c.query,
		header: c.header, body: c.body, send: c.send,
	}
	s.requests.add(e)
	c.run = s.run
	return e
}
