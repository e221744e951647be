package wazzup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// DefaultTimeout is a call's time in all: connecting, writing, and reading
	// the whole answer.
	DefaultTimeout = 20 * time.Second
	// DefaultUserAgent is what the vendor sees when the caller names none.
	DefaultUserAgent = "wazzup-relay"

	// MaxSmallAnswer and MaxListAnswer bound how much of an answer is kept, in
	// bytes: of calls that change something, and of GET.
	MaxSmallAnswer = 64 << 10
	MaxListAnswer  = 8 << 20

	// maxDrain is how much of an answer beyond its bound is still read so that
	// the connection can be used again; for more, a new connection is cheaper.
	maxDrain = 64 << 10

	apiVersionPath = "/v2"
)

// Config says whom a [Client] calls, and as whom.
type Config struct {
	// BaseURL is the vendor's address without the version, such as
	// https://api.wazzup24.com: "/v2" is appended.
	BaseURL string
	// Key returns the account's API key. It is asked before every call, so that
	// a key can be replaced while calls are made; it must be cheap and safe for
	// concurrent use. The key is sent raw, not in base64 (manual: Obtaining the
	// API key).
	Key func() string
	// Timeout of one call; zero means DefaultTimeout.
	Timeout time.Duration
	// UserAgent; empty means DefaultUserAgent.
	UserAgent string
	// Transport holds the connections. One may be shared by many clients; nil
	// means one of its own with the defaults of NewTransport.
	Transport *Transport
}

// Client calls the vendor for one account. It is safe for concurrent use and
// starts no goroutines of its own; idle connections belong to its Transport.
type Client struct {
	transport *Transport
	base      *url.URL
	key       func() string
	timeout   time.Duration
	userAgent string
	send      *http.Request // template of the hot path
	headers   atomic.Pointer[headerSet]
}

// headerSet is what every request of one key carries. net/http only reads a
// request's header, so all calls share the two maps.
type headerSet struct {
	key      string
	withBody http.Header
	bodiless http.Header
}

// NewClient checks the configuration and names every fault at once. It does
// not connect.
func NewClient(cfg Config) (*Client, error) {
	base, faults := parseBase(cfg.BaseURL)
	if cfg.Key == nil {
		faults = append(faults, errors.New("wazzup: no API key given"))
	}
	if cfg.Timeout < 0 {
		faults = append(faults, errors.New("wazzup: the timeout is negative"))
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = DefaultUserAgent
	}
	if !fitForHeader(cfg.UserAgent) {
		faults = append(faults, errors.New("wazzup: the user agent does not fit into a header"))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Transport == nil {
		cfg.Transport = NewTransport(TransportConfig{})
	}
	c := &Client{
		transport: cfg.Transport,
		base:      base,
		key:       cfg.Key,
		timeout:   cfg.Timeout,
		userAgent: cfg.UserAgent,
	}
	c.send = newTemplate(http.MethodPost, base.JoinPath("send_message"))
	return c, nil
}

// parseBase never quotes the text: a base URL could hold a password.
func parseBase(text string) (*url.URL, []error) {
	base, err := url.Parse(strings.TrimRight(text, "/") + apiVersionPath)
	if err != nil {
		return nil, []error{errors.New("wazzup: the base URL cannot be parsed")}
	}
	var faults []error
	if base.Scheme != "http" && base.Scheme != "https" {
		faults = append(faults, errors.New("wazzup: the base URL is neither http nor https"))
	}
	if base.Host == "" {
		faults = append(faults, errors.New("wazzup: the base URL names no host"))
	}
	if base.User != nil || strings.ContainsAny(text, "?#") {
		faults = append(faults, errors.New("wazzup: the base URL may hold no user, query or fragment"))
	}
	return base, faults
}

// CloseIdleConnections closes what the Transport keeps open and nobody uses.
func (c *Client) CloseIdleConnections() { c.transport.CloseIdleConnections() }

// Want says what an answer with a 2xx status must hold to be an answer at all.
type Want int

const (
	// WantAny: any 2xx will do, an empty one included; only HTML, which speaks
	// of something between us and the vendor, will not.
	WantAny Want = iota
	// WantJSON: a JSON value.
	WantJSON
	// WantMessageID: an object with a messageId.
	WantMessageID
)

// Request is one call.
type Request struct {
	Method string
	// Path below /v2, percent-encoded, with a leading slash: "/users/17".
	Path  string
	Query url.Values
	// Body is JSON; empty means none. It must not change until Do returns, and
	// since net/http may still be writing it when an answer comes early, it
	// must not be reused after that either.
	Body []byte
	Want Want
	// MaxAnswer is how many bytes of the answer are kept; zero means
	// MaxListAnswer for GET and MaxSmallAnswer otherwise.
	MaxAnswer int64
}

// Do makes one call and always returns an [Answer] that tells what happened.
// Redirects are never followed: a 3xx is an answer like any other.
//
// A request with a body is written at most once. net/http (read in Go 1.26)
// repeats requests by itself in three places: Transport.roundTrip on another
// connection if nothing was written to a reused one or if the request is
// replayable, and the HTTP/2 transport after a refused stream, GOAWAY or a
// protocol error of the peer. Each of them needs Request.GetBody once a body
// was begun, and fails without it; a request is replayable only if its method
// is GET, HEAD, OPTIONS or TRACE, or if it has no body and an Idempotency-Key
// header. So Do sets neither GetBody nor such a header. DELETE without a body
// may be repeated over HTTP/2, which is harmless.
//
// ctx is honoured beside the client's timeout; a trace that it carries
// (httptrace) is not.
func (c *Client) Do(ctx context.Context, r Request) Answer {
	u, err := c.address(r.Path, r.Query)
	if err != nil {
		return notSent(r.Method, FaultRequest, err)
	}
	if r.MaxAnswer <= 0 {
		r.MaxAnswer = MaxSmallAnswer
		if r.Method == http.MethodGet {
			r.MaxAnswer = MaxListAnswer
		}
	}
	return c.call(ctx, newTemplate(r.Method, u), r.Body, r.Want, r.MaxAnswer)
}

// address builds the URL of a percent-encoded path without losing the encoding.
func (c *Client) address(path string, query url.Values) (*url.URL, error) {
	plain, err := url.PathUnescape(path)
	if err != nil || !isPlainPath(path) {
		return nil, errPath
	}
	u := *c.base
	u.RawPath = c.base.EscapedPath() + path
	u.Path = c.base.Path + plain
	if len(query) > 0 {
		u.RawQuery = query.Encode()
	}
	return &u, nil
}

// isPlainPath reports whether every segment of a path stays what it is on the
// way to the vendor. An empty id would name the whole list, and a segment of one
// dot or two would be taken out of the path, even percent-encoded (RFC 3986,
// 6.2.2.3), so that DELETE would hit something else.
func isPlainPath(path string) bool {
	rest, ok := strings.CutPrefix(path, "/")
	for ok {
		var segment string
		segment, rest, ok = strings.Cut(rest, "/")
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case "", ".", "..":
			return false
		}
	}
	return strings.HasPrefix(path, "/")
}

func newTemplate(method string, u *url.URL) *http.Request {
	return &http.Request{
		Method:     method,
		URL:        u,
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Host:       u.Host,
	}
}

// call is the path of every call: it needs no http.Client, which would follow
// redirects and turn a 3xx with an odd Location into an error.
func (c *Client) call(ctx context.Context, template *http.Request, body []byte, want Want, maxAnswer int64) Answer {
	headers := c.currentHeaders()
	if headers == nil {
		return notSent(template.Method, FaultKey, errKey)
	}
	p := c.transport.takeProbe()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()

	req := template.WithContext(&callContext{Context: ctx, trace: p.ctx}) //nolint:contextcheck // it inherits from ctx
	req.Header = headers.bodiless
	if len(body) > 0 {
		req.Header = headers.withBody
		req.ContentLength = int64(len(body))
		req.Body = io.NopCloser(bytes.NewReader(body))
	}

	answer := Answer{Method: template.Method}
	response, err := c.transport.http.RoundTrip(req) //nolint:bodyclose // Answer.read closes it
	if err == nil {
		err = answer.read(response, want, maxAnswer)
	}
	if err != nil {
		answer.fail(p.phaseOfFailure(), p.faultOf(ctx, err), err)
	}
	answer.Timing = p.timing()
	c.transport.putProbe(p, err == nil)
	return answer
}

// currentHeaders returns nil if the key cannot be sent.
func (c *Client) currentHeaders() *headerSet {
	key := strings.TrimSpace(c.key())
	if set := c.headers.Load(); set != nil && set.key == key {
		return set
	}
	if key == "" || !fitForHeader(key) {
		return nil
	}
	authorization := []string{"Basic " + key}
	userAgent := []string{c.userAgent}
	set := &headerSet{
		key: key,
		withBody: http.Header{
			"Accept":        {"application/json"},
			"Authorization": authorization,
			"Content-Type":  {"application/json"},
			"User-Agent":    userAgent,
		},
		bodiless: http.Header{
			"Accept":        {"application/json"},
			"Authorization": authorization,
			"User-Agent":    userAgent,
		},
	}
	c.headers.Store(set)
	return set
}

// fitForHeader is stricter than HTTP: no key of the vendor holds anything but
// visible ASCII.
func fitForHeader(value string) bool {
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return false
		}
	}
	return true
}

// callContext ends when its context does and carries the trace of a pooled
// probe. httptrace.WithClientTrace would build both anew for every call, at
// more than a dozen allocations.
type callContext struct {
	context.Context //nolint:containedctx // this type is a context

	trace context.Context //nolint:containedctx // only its values are used, and they are built once
}

func (c *callContext) Value(key any) any {
	if value := c.trace.Value(key); value != nil {
		return value
	}
	return c.Context.Value(key)
}

// readBounded reads at most limit bytes; more tells that there was more.
func readBounded(r io.Reader, announced, limit int64) (body []byte, more bool, err error) {
	size := announced
	if size < 0 || size > limit {
		size = min(limit, 1<<10)
	}
	body = make([]byte, 0, size+1) // one more, so that the end is seen without growing
	for {
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
		n, err := r.Read(body[len(body):min(int64(cap(body)), limit+1)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > limit:
			return body[:limit], true, nil
		case errors.Is(err, io.EOF):
			return body, false, nil
		case err != nil:
			return body, false, fmt.Errorf("reading the answer: %w", err)
		}
	}
}
