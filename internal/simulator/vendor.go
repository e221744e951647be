package simulator

import (
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// call is one request to the vendor's API on its way through the simulator.
type call struct {
	time     time.Time
	method   string
	path     string // decoded
	query    string
	header   http.Header
	resource string // the path's segment after /v2/: send_message, channels, …
	id       string // what follows it, decoded
	hasID    bool
	body     []byte
	tooLarge bool

	send *sendBody // of a send_message whose body is a JSON object

	// Set by admit, under Server.mu.
	entry *entry
	rule  *Rule
	run   int // Server.run at its arrival
}

// answer is what goes back.
type answer struct {
	status int
	code   string // of the vendor's error, for the record
	body   []byte // JSON, or the scripted body
	allow  string // Allow header of a 405
}

func (c *call) isSend() bool {
	return c.resource == "send_message" && !c.hasID && c.method == http.MethodPost
}

// serveVendor carries one request through: record, key, rate limit, rule, the
// method itself, answer.
func (s *Server) serveVendor(w http.ResponseWriter, r *http.Request) {
	c, err := newCall(r, s.cfg.MaxBody)
	if err != nil {
		panic(http.ErrAbortHandler) // the client went away in the middle of its body
	}
	refusal := s.admit(c)
	defer s.finish(c)
	if refusal != nil {
		s.reply(w, r, c, *refusal)
		return
	}
	var real answer
	if c.rule.accepts() {
		real = s.perform(r.Context(), c)
	}
	s.reply(w, r, c, c.rule.answer(c, real))
}

func newCall(r *http.Request, maxBody int64) (*call, error) {
	c := &call{time: time.Now(), method: r.Method, path: r.URL.Path, query: r.URL.RawQuery, header: r.Header}
	// The escaped path is split, so that an id may hold a slash (%2F).
	rest := strings.TrimPrefix(r.URL.EscapedPath(), "/v2/")
	resource, id, hasID := strings.Cut(rest, "/")
	id, err := url.PathUnescape(id)
	if err != nil {
		return nil, err
	}
	c.resource, c.id, c.hasID = resource, id, hasID
	c.body, c.tooLarge, err = readBody(r, maxBody)
	if err != nil {
		return nil, err
	}
	if c.isSend() && len(c.body) > 0 && !c.tooLarge {
		var b sendBody
		if decode(c.body, &b) == nil {
			c.send = &b
		}
	}
	return c, nil
}

// readBody reads at most limit bytes; tooLarge tells that there was more.
func readBody(r *http.Request, limit int64) (body []byte, tooLarge bool, err error) {
	if r.ContentLength > limit {
		return nil, true, nil
	}
	if n := r.ContentLength; n > 0 {
		body = make([]byte, n)
		_, err = io.ReadFull(r.Body, body)
		return body, false, err
	}
	body, err = io.ReadAll(io.LimitReader(r.Body, limit+1))
	if int64(len(body)) > limit {
		return nil, true, nil
	}
	return body, false, err
}

// admit records the call and picks the rule that acts on it. What it returns
// is the answer to a request that the vendor would not even look at.
func (s *Server) admit(c *call) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed.broadcast()
	c.entry = s.arrive(c)
	if !s.letsIn(c.header.Get("Authorization")) {
		// The manual gives no body for it; ACCOUNT_NOT_FOUND is its one code
		// about the account.
		return new(fail(c.resource, http.StatusUnauthorized, codeAccountNotFound, "The API key is missing or not known."))
	}
	if !s.withinRate(c.time) {
		return &answer{status: http.StatusTooManyRequests} // no header and no body are documented
	}
	c.rule = pick(s.rules, c)
	if c.rule != nil {
		c.entry.fault = c.rule.Fault
	}
	return nil
}

// letsIn checks the raw key behind `Basic `.
func (s *Server) letsIn(authorization string) bool {
	scheme, key, _ := strings.Cut(authorization, " ")
	key = strings.TrimSpace(key)
	if !strings.EqualFold(scheme, "Basic") || key == "" {
		return false
	}
	return len(s.keys) == 0 || s.keys[key]
}

// withinRate counts a request in its window. Callers hold s.mu.
func (s *Server) withinRate(now time.Time) bool {
	if s.live.Rate.Requests == 0 {
		return true
	}
	if now.Sub(s.windowStart) >= s.live.Rate.Window {
		s.windowStart, s.windowUsed = now, 0
	}
	s.windowUsed++
	return s.windowUsed <= s.live.Rate.Requests
}

// reply ends the request as the rule wants it: after the delay, with the
// answer, with a drop, or never.
func (s *Server) reply(w http.ResponseWriter, r *http.Request, c *call, a answer) {
	fault := Fault("")
	if c.rule != nil {
		fault = c.rule.Fault
	}
	if fault == "" {
		// Recorded before it is written, so that a client that has its answer
		// finds it in the record.
		s.recordAnswer(c, a.status, a.code)
	}
	if c.rule != nil && c.rule.Delay > 0 && !s.pause(r, time.Duration(c.rule.Delay)) {
		s.recordAnswer(c, 0, "")
		panic(http.ErrAbortHandler)
	}
	switch fault {
	case FaultHang:
		s.pause(r, time.Duration(c.rule.For))
		panic(http.ErrAbortHandler)
	case FaultDropBeforeRead, FaultDropAfterAccept:
		panic(http.ErrAbortHandler)
	case FaultRefuse: // never a stored rule
	}
	s.write(w, c, a)
}

func (s *Server) write(w http.ResponseWriter, c *call, a answer) {
	h := w.Header()
	if len(a.body) > 0 {
		h.Set("Content-Type", "application/json; charset=utf-8")
	}
	if a.allow != "" {
		h.Set("Allow", a.allow)
	}
	if c.tooLarge {
		h.Set("Connection", "close") // the rest of the body was not read
	}
	if c.rule != nil {
		for name, value := range c.rule.Headers {
			h.Set(name, value)
		}
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // a client that is gone has its reasons
}

// pause waits; d = 0 means for ever. It is false if the client or the server
// went away meanwhile.
func (s *Server) pause(r *http.Request, d time.Duration) bool {
	var over <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
		return true
	case <-r.Context().Done():
	case <-s.done:
	}
	return false
}

func (s *Server) recordAnswer(c *call, status int, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.entry.status, c.entry.code = status, code
}

// finish counts the request's end, whether it was answered or dropped.
func (s *Server) finish(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.run == s.run { // not of before a reset
		s.view.Finished++
	}
	s.changed.broadcast()
}

// methodNotAllowed is the answer to a method that the manual does not have.
func methodNotAllowed(allow string) answer {
	return answer{status: http.StatusMethodNotAllowed, allow: allow}
}

// readable checks what every writing method needs of a body before it is looked at.
func (c *call) readable() *answer {
	if c.tooLarge {
		return &answer{status: http.StatusRequestEntityTooLarge}
	}
	// A form, which many HTTP libraries send by default, is what the vendor's
	// server reads as an empty body.
	// Only the type counts; a malformed parameter behind it is let pass.
	if kind, _, _ := mime.ParseMediaType(c.header.Get("Content-Type")); kind != "application/json" {
		return new(c.invalid("The body must be sent with Content-Type application/json."))
	}
	return nil
}

func (c *call) invalid(description string) answer {
	return fail(c.resource, http.StatusBadRequest, codeValidation, description)
}
