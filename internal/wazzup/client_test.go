package wazzup_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	testKey  = "32a817cbc1594bd5885574d8f0290cd3"
	testText = "canary text"
	testChat = "79998887766"
)

func testMessage() wazzup.Message {
	return wazzup.Message{ChannelID: "3376e1c3-26a6-478b-b964-72bf01cc22cb", ChatType: "whatsapp", ChatID: testChat, Text: testText}
}

func newClient(t *testing.T, base string, transport wazzup.TransportConfig) *wazzup.Client {
	t.Helper()
	c, err := wazzup.NewClient(wazzup.Config{
		BaseURL:   base,
		Key:       func() string { return testKey },
		Transport: wazzup.NewTransport(transport),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// trusting makes a transport's configuration trust a test server.
func trusting(server *httptest.Server) wazzup.TransportConfig {
	transport, ok := server.Client().Transport.(*http.Transport)
	if !ok {
		return wazzup.TransportConfig{}
	}
	return wazzup.TransportConfig{TLS: transport.TLSClientConfig}
}

func TestNewClientNamesEveryFault(t *testing.T) {
	t.Parallel()
	key := func() string { return testKey }
	tests := []struct {
		name   string
		cfg    wazzup.Config
		faults []string
	}{
		{"good", wazzup.Config{BaseURL: "https://api.wazzup24.com/", Key: key}, nil},
		{"nothing", wazzup.Config{}, []string{"neither http nor https", "no host", "no API key"}},
		{"much", wazzup.Config{BaseURL: "ftp://u:secret@h/?q=secret", Timeout: -1, UserAgent: "a\nb"}, []string{"neither", "user, query", "no API key", "timeout", "user agent"}},
		{"unparsable", wazzup.Config{BaseURL: "http://secret%zz", Key: key}, []string{"cannot be parsed"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := wazzup.NewClient(tt.cfg)
			if (err == nil) != (len(tt.faults) == 0) {
				t.Fatalf("error %v, want %d faults", err, len(tt.faults))
			}
			for _, fault := range tt.faults {
				if !strings.Contains(err.Error(), fault) {
					t.Errorf("%q is not in: %v", fault, err)
				}
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

// TestMethods checks what each of the manual's methods puts on the wire.
func TestMethods(t *testing.T) {
	t.Parallel()
	type seen struct{ method, uri, auth, contentType, agent, body string }
	address := "https://example.com/w?a=\"b\""
	tests := []struct {
		name string
		call func(*wazzup.Client, context.Context) wazzup.Answer
		want string // method, path, body
	}{
		{"send", func(c *wazzup.Client, ctx context.Context) wazzup.Answer { return c.SendMessage(ctx, testMessage()) }, `POST /send_message {"channelId":"3376e1c3-26a6-478b-b964-72bf01cc22cb","chatType":"whatsapp","chatId":"79998887766","text":"canary text"}`},
		{"channels", (*wazzup.Client).Channels, `GET /channels `},
		{"webhooks", (*wazzup.Client).GetWebhooks, `GET /webhooks `},
		{"set webhooks", func(c *wazzup.Client, ctx context.Context) wazzup.Answer { return c.SetWebhooks(ctx, &address) }, `PUT /webhooks {"url":"https://example.com/w?a=\"b\""}`},
		{"unset webhooks", func(c *wazzup.Client, ctx context.Context) wazzup.Answer { return c.SetWebhooks(ctx, nil) }, `PUT /webhooks {"url":null}`},
		{"iframe", func(c *wazzup.Client, ctx context.Context) wazzup.Answer {
			return c.Iframe(ctx, json.RawMessage(`{"scope":"global"}`))
		}, `POST /iframe {"scope":"global"}`},
		{"list users", (*wazzup.Client).ListUsers, `GET /users `},
		{"get user", func(c *wazzup.Client, ctx context.Context) wazzup.Answer { return c.GetUser(ctx, "a/b c?d#e%") }, `GET /users/a%2Fb%20c%3Fd%23e%25 `},
		{"patch users", func(c *wazzup.Client, ctx context.Context) wazzup.Answer {
			return c.PatchUsers(ctx, json.RawMessage(`[{"id":1,"x":2}]`))
		}, `PATCH /users [{"id":1,"x":2}]`},
		{"put users", func(c *wazzup.Client, ctx context.Context) wazzup.Answer {
			return c.PutUsers(ctx, json.RawMessage(`[]`))
		}, `PUT /users []`},
		{"delete user", func(c *wazzup.Client, ctx context.Context) wazzup.Answer { return c.DeleteUser(ctx, "ы..") }, `DELETE /users/%D1%8B.. `},
		{"list contacts", func(c *wazzup.Client, ctx context.Context) wazzup.Answer {
			return c.ListContacts(ctx, wazzup.Page{Offset: 100, OrderBy: "name", OrderDirection: "desc"})
		}, `GET /contacts?offset=100&orderBy=name&orderDirection=desc `},
		{"list contacts from the start", func(c *wazzup.Client, ctx context.Context) wazzup.Answer { return c.ListContacts(ctx, wazzup.Page{}) }, `GET /contacts `},
		{"get contact", func(c *wazzup.Client, ctx context.Context) wazzup.Answer { return c.GetContact(ctx, "17") }, `GET /contacts/17 `},
		{"patch contacts", func(c *wazzup.Client, ctx context.Context) wazzup.Answer {
			return c.PatchContacts(ctx, json.RawMessage(`[1]`))
		}, `PATCH /contacts [1]`},
		{"delete contact", func(c *wazzup.Client, ctx context.Context) wazzup.Answer { return c.DeleteContact(ctx, "17") }, `DELETE /contacts/17 `},
		{"list deals", func(c *wazzup.Client, ctx context.Context) wazzup.Answer {
			return c.ListDeals(ctx, wazzup.Page{Offset: 7})
		}, `GET /deals?offset=7 `},
		{"get deal", func(c *wazzup.Client, ctx context.Context) wazzup.Answer { return c.GetDeal(ctx, "17") }, `GET /deals/17 `},
		{"patch deals", func(c *wazzup.Client, ctx context.Context) wazzup.Answer {
			return c.PatchDeals(ctx, json.RawMessage(`[2]`))
		}, `PATCH /deals [2]`},
		{"delete deal", func(c *wazzup.Client, ctx context.Context) wazzup.Answer { return c.DeleteDeal(ctx, "...") }, `DELETE /deals/... `},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			requests := make(chan seen, 1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				for _, header := range []string{"Traceparent", "Idempotency-Key", "Accept-Encoding"} {
					if value := r.Header.Get(header); value != "" {
						t.Errorf("header %s: %s", header, value)
					}
				}
				requests <- seen{r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), r.Header.Get("User-Agent"), string(body)}
				_, _ = io.WriteString(w, `{"messageId":"m1"}`)
			}))
			t.Cleanup(server.Close)
			c := newClient(t, server.URL+"/base//", wazzup.TransportConfig{})
			answer := tt.call(c, t.Context())
			if !answer.OK() {
				t.Fatalf("answer: %+v", answer)
			}
			got := <-requests
			if line := got.method + " " + strings.TrimPrefix(got.uri, "/base/v2") + " " + got.body; line != tt.want {
				t.Errorf("got  %s\nwant %s", line, tt.want)
			}
			if got.auth != "Basic "+testKey || got.agent != wazzup.DefaultUserAgent {
				t.Errorf("authorization %q, user agent %q", got.auth, got.agent)
			}
			if (got.contentType == "application/json") != (got.body != "") {
				t.Errorf("content type %q with body %q", got.contentType, got.body)
			}
			if answer.Method != got.method {
				t.Errorf("the answer's method is %s, the request's %s", answer.Method, got.method)
			}
		})
	}
}

// TestCallsThatCannotBeMade: nothing reaches the vendor.
func TestCallsThatCannotBeMade(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a request arrived: %s %s", r.Method, r.RequestURI)
	}))
	t.Cleanup(server.Close)
	c := newClient(t, server.URL, wazzup.TransportConfig{})
	check := func(t *testing.T, answer wazzup.Answer, want wazzup.Fault) {
		t.Helper()
		if answer.Phase != schema.PhaseNotSent || answer.Fault != want || answer.Err == nil || answer.OK() {
			t.Errorf("got %s, error %v, want not sent, %s", answer.String(), answer.Err, want)
		}
	}
	for _, id := range []string{"", ".", ".."} {
		check(t, c.DeleteUser(t.Context(), id), wazzup.FaultRequest)
	}
	for _, path := range []string{"", "users", "/", "//", "/users/", "/users//", "/users/../x", "/users/%2e%2E", "/users/%zz", "/users/./1"} {
		check(t, c.Do(t.Context(), wazzup.Request{Method: http.MethodDelete, Path: path}), wazzup.FaultRequest)
	}
	for _, key := range []string{"", " ", "a\r\nX: y", "ключ"} {
		c, err := wazzup.NewClient(wazzup.Config{BaseURL: server.URL, Key: func() string { return key }})
		if err != nil {
			t.Fatal(err)
		}
		check(t, c.SendMessage(t.Context(), testMessage()), wazzup.FaultKey)
	}
}

func TestKeyIsAskedForBeforeEveryCall(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Authorization")
	}))
	t.Cleanup(server.Close)
	var calls atomic.Int32
	c, err := wazzup.NewClient(wazzup.Config{BaseURL: server.URL, Key: func() string {
		return fmt.Sprintf("key%d\n", calls.Add(1)/2) // from a file, with its end of line
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Basic key0", "Basic key1", "Basic key1", "Basic key2"} {
		c.Channels(t.Context())
		if header := <-got; header != want {
			t.Errorf("got %q, want %q", header, want)
		}
	}
}

func TestAnswersOverHTTP(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100<<10)
	tests := []struct {
		name    string
		handler http.HandlerFunc
		check   func(t *testing.T, a wazzup.Answer)
	}{
		{"redirects are answers", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/v2/elsewhere")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, func(t *testing.T, a wazzup.Answer) {
			t.Helper()
			if a.Status != 307 || a.Phase != schema.PhaseAnswered || a.Fault != "" {
				t.Errorf("got %s", a.String())
			}
		}},
		{"a redirect to nowhere is an answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://[::bad")
			w.WriteHeader(http.StatusMovedPermanently)
		}, func(t *testing.T, a wazzup.Answer) {
			t.Helper()
			if a.Status != 301 || a.Phase != schema.PhaseAnswered || a.Fault != "" {
				t.Errorf("got %s", a.String())
			}
		}},
		{"429 with a hint", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(http.StatusTooManyRequests)
		}, func(t *testing.T, a wazzup.Answer) {
			t.Helper()
			if a.Status != 429 || !a.HasRetryAfter || a.RetryAfter != 3*time.Second {
				t.Errorf("got %s, %v, %v", a.String(), a.RetryAfter, a.HasRetryAfter)
			}
		}},
		{"an error's body is bounded", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, long)
		}, func(t *testing.T, a wazzup.Answer) {
			t.Helper()
			if a.Phase != schema.PhaseAnswered || len(a.Body) != wazzup.MaxSmallAnswer || !a.Truncated || a.Fault != "" {
				t.Errorf("got %s, %d bytes, truncated %v", a.String(), len(a.Body), a.Truncated)
			}
		}},
		{"an endless 200 is a bad answer", func(w http.ResponseWriter, _ *http.Request) {
			for range 20 {
				if _, err := io.WriteString(w, long); err != nil {
					return
				}
			}
		}, func(t *testing.T, a wazzup.Answer) {
			t.Helper()
			if a.Fault != wazzup.FaultBadAnswer || a.Phase != schema.PhaseAnswered || !a.Truncated {
				t.Errorf("got %s", a.String())
			}
		}},
		{"in pieces", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			for _, piece := range []string{`{"mess`, `ageId":`, `"m1"}`} {
				_, _ = io.WriteString(w, piece)
				_ = http.NewResponseController(w).Flush()
			}
		}, func(t *testing.T, a wazzup.Answer) {
			t.Helper()
			if !a.OK() || a.MessageID != "m1" {
				t.Errorf("got %s", a.String())
			}
		}},
		{"early hints come first", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"messageId":"m1"}`)
		}, func(t *testing.T, a wazzup.Answer) {
			t.Helper()
			if !a.OK() || a.Status != 201 {
				t.Errorf("got %s", a.String())
			}
		}},
	}
	for _, tt := range tests {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(tt.name+" "+proto, func(t *testing.T) {
				t.Parallel()
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Proto != proto {
						t.Errorf("spoke %s, want %s", r.Proto, proto)
					}
					tt.handler(w, r)
				}))
				server.EnableHTTP2 = proto == "HTTP/2.0"
				server.StartTLS()
				t.Cleanup(server.Close)
				c := newClient(t, server.URL, trusting(server))
				for range 3 {
					tt.check(t, c.SendMessage(t.Context(), testMessage()))
				}
			})
		}
	}
}

func TestListsMayBeLong(t *testing.T) {
	t.Parallel()
	list := "[" + strings.Repeat(`{"id":1},`, 50_000) + "{}]"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, list) }))
	t.Cleanup(server.Close)
	a := newClient(t, server.URL, wazzup.TransportConfig{}).ListUsers(t.Context())
	if !a.OK() || string(a.Body) != list {
		t.Errorf("got %s with %d bytes, want %d", a.String(), len(a.Body), len(list))
	}
}

// TestConnectionsAreReused, also after answers that were longer than what is
// kept, and tells where the time went.
func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, strings.Repeat("x", wazzup.MaxSmallAnswer+1000))
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	c := newClient(t, server.URL, trusting(server))
	first := c.SendMessage(t.Context(), testMessage())
	if first.Timing.Reused || first.Timing.Connect <= 0 || first.Timing.TLS <= 0 {
		t.Errorf("timing of the first call: %+v", first.Timing)
	}
	for range 20 {
		a := c.SendMessage(t.Context(), testMessage())
		if !a.Timing.Reused || a.Timing.Connect != 0 || a.Timing.TLS != 0 {
			t.Errorf("timing of a later call: %+v", a.Timing)
		}
		if a.Timing.FirstByte <= 0 || a.Timing.FirstByte > a.Timing.Total {
			t.Errorf("first byte after %v of %v", a.Timing.FirstByte, a.Timing.Total)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// rawServer serves each connection that comes, and closes it.
func rawServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	acceptEach(t, listener, serve)
	return "http://" + listener.Addr().String()
}

// acceptEach serves connections side by side until the test is over. It is called
// before the client is made, so that the client has closed its idle connections
// when it is waited for.
func acceptEach(t *testing.T, listener net.Listener, serve func(net.Conn)) {
	t.Helper()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				serve(conn)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
}

// readRequest reads one request to its end; nil if there is none.
func readRequest(r *bufio.Reader) *http.Request {
	request, err := http.ReadRequest(r)
	if err != nil {
		return nil
	}
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return nil
	}
	return request
}

// TestPhases: how far the request got, for every way in which a call can fail on
// a real connection.
func TestPhases(t *testing.T) {
	t.Parallel()
	answerWith := func(text string) func(net.Conn) {
		return func(conn net.Conn) {
			if readRequest(bufio.NewReader(conn)) != nil {
				_, _ = io.WriteString(conn, text)
			}
		}
	}
	tests := []struct {
		name   string
		serve  func(net.Conn)
		phase  schema.Phase
		fault  wazzup.Fault
		status int
	}{
		{"request read, then closed", answerWith(""), schema.PhaseWritten, wazzup.FaultReset, 0},
		{"request read, then reset", func(conn net.Conn) {
			readRequest(bufio.NewReader(conn))
			resetOnClose(conn)
		}, schema.PhaseWritten, wazzup.FaultReset, 0},
		{"half of the request read, then reset", func(conn net.Conn) {
			_, _ = io.ReadFull(conn, make([]byte, 40))
			resetOnClose(conn)
		}, schema.PhaseWritten, wazzup.FaultReset, 0},
		{"status line cut", answerWith("HTTP/1.1 20"), schema.PhaseWritten, wazzup.FaultBadAnswer, 0},
		{"header cut within a line", answerWith("HTTP/1.1 201 Created\r\nContent-Le"), schema.PhaseWritten, wazzup.FaultBadAnswer, 0},
		{"header cut between lines", answerWith("HTTP/1.1 201 Created\r\nContent-Length: 18\r\n"), schema.PhaseWritten, wazzup.FaultReset, 0},
		{"body cut", answerWith("HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{\"messageId\":"), schema.PhaseWritten, wazzup.FaultReset, 201},
		{"chunk cut", answerWith("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"mess"), schema.PhaseWritten, wazzup.FaultReset, 201},
		{"last chunk missing", answerWith("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), schema.PhaseWritten, wazzup.FaultReset, 201},
		{"bad chunk", answerWith("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\ncanary text\r\n"), schema.PhaseWritten, wazzup.FaultBadAnswer, 201},
		{"no HTTP", answerWith("220 canary text ESMTP\r\n\r\n"), schema.PhaseWritten, wazzup.FaultBadAnswer, 0},
		{"bad status", answerWith("HTTP/1.1 canary text\r\n\r\n"), schema.PhaseWritten, wazzup.FaultBadAnswer, 0},
		{"bad header", answerWith("HTTP/1.1 201 Created\r\ncanary text\r\n\r\n"), schema.PhaseWritten, wazzup.FaultBadAnswer, 0},
		{"endless header", answerWith("HTTP/1.1 201 Created\r\nX: " + strings.Repeat("canary text", 20_000) + "\r\n\r\n"), schema.PhaseWritten, wazzup.FaultBadAnswer, 0},
		{"another protocol", answerWith("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), schema.PhaseAnswered, wazzup.FaultBadAnswer, 101},
		{"no HTTP status", answerWith("HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n"), schema.PhaseAnswered, wazzup.FaultBadAnswer, 799},
		{"body until the end", answerWith("HTTP/1.1 201 Created\r\nConnection: close\r\n\r\n{\"messageId\":\"m1\"}"), schema.PhaseAnswered, wazzup.FaultNone, 201},
		{"HTTP/1.0", answerWith("HTTP/1.0 201 Created\r\n\r\n{\"messageId\":\"m1\"}"), schema.PhaseAnswered, wazzup.FaultNone, 201},
		{"answered before the request was read", func(conn net.Conn) {
			_, _ = io.ReadFull(conn, make([]byte, 1))
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			readRequest(bufio.NewReader(conn))
		}, schema.PhaseAnswered, wazzup.FaultNone, 400},
	}
	certificate := httptest.NewTLSServer(nil)
	certificate.Close()
	for _, tt := range tests {
		for _, encrypted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, tls %v", tt.name, encrypted), func(t *testing.T) {
				t.Parallel()
				transport := wazzup.TransportConfig{}
				base := rawServer(t, func(conn net.Conn) {
					if encrypted {
						conn = tls.Server(conn, certificate.TLS)
					}
					tt.serve(conn)
				})
				if encrypted {
					base = strings.Replace(base, "http", "https", 1)
					transport = trusting(certificate)
				}
				a := newClient(t, base, transport).SendMessage(t.Context(), testMessage())
				if a.Phase != tt.phase || a.Fault != tt.fault || a.Status != tt.status {
					t.Errorf("got %s (%v), want %s, status %d, fault %q", a.String(), a.Err, tt.phase, tt.status, tt.fault)
				}
				checkError(t, a)
			})
		}
	}
}

// resetOnClose makes the end of a connection an abrupt one.
func resetOnClose(conn net.Conn) {
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

// checkError: there is an error exactly if there is a fault, and it tells nothing
// of request or answer.
func checkError(t *testing.T, a wazzup.Answer) {
	t.Helper()
	if (a.Err != nil) != (a.Fault != wazzup.FaultNone) {
		t.Errorf("fault %q with error %v", a.Fault, a.Err)
		return
	}
	if a.Err == nil {
		return
	}
	failure, ok := errors.AsType[*wazzup.CallError](a.Err)
	if !ok || failure.Fault != a.Fault || failure.Phase != a.Phase {
		t.Errorf("error %#v does not tell %s", a.Err, a.String())
	}
	for _, secret := range []string{testKey, testText, testChat, "canary"} {
		if strings.Contains(a.Err.Error(), secret) {
			t.Errorf("the error tells %q: %v", secret, a.Err)
		}
	}
}

func TestNoConnection(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	encrypted := httptest.NewUnstartedServer(http.NotFoundHandler())
	encrypted.Config.ErrorLog = log.New(io.Discard, "", 0) // failing handshakes are what is wanted
	encrypted.StartTLS()
	t.Cleanup(encrypted.Close)
	plain := rawServer(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1))
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
	})
	silent := rawServer(t, func(conn net.Conn) { _, _ = io.ReadFull(conn, make([]byte, 100)) })
	noName := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "api.test", IsNotFound: true}}
	}
	old := trusting(encrypted)
	old.TLS = old.TLS.Clone()
	old.TLS.MaxVersion = tls.VersionTLS11
	tests := []struct {
		name      string
		base      string
		transport wazzup.TransportConfig
		fault     wazzup.Fault
		says      string
	}{
		{"refused", "http://" + nobody, wazzup.TransportConfig{}, wazzup.FaultDial, "connection refused"},
		{"no such name", "http://api.test", wazzup.TransportConfig{Dial: noName}, wazzup.FaultDNS, "no such host"},
		{"unknown authority", encrypted.URL, wazzup.TransportConfig{}, wazzup.FaultTLS, "certificate"},
		{"TLS 1.1", encrypted.URL, old, wazzup.FaultTLS, ""},
		{"no TLS there", strings.Replace(plain, "http", "https", 1), wazzup.TransportConfig{}, wazzup.FaultTLS, ""},
		{"hangs up in the handshake", strings.Replace(silent, "http", "https", 1), wazzup.TransportConfig{}, wazzup.FaultTLS, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := newClient(t, tt.base, tt.transport).SendMessage(t.Context(), testMessage())
			if a.Phase != schema.PhaseNotSent || a.Fault != tt.fault {
				t.Errorf("got %s (%v), want %s", a.String(), a.Err, tt.fault)
			}
			if a.Err == nil || !strings.Contains(a.Err.Error(), tt.says) {
				t.Errorf("error %v does not say %q", a.Err, tt.says)
			}
			checkError(t, a)
		})
	}
}

// TestTimeouts and cancellations, in time that passes by itself.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	hangs := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	// pipeTo dials a server in memory that reads the request, says something and
	// then nothing more.
	pipeTo := func(says string) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				reader := bufio.NewReader(theirs)
				readRequest(reader)
				_, _ = io.WriteString(theirs, says)
				_, _ = reader.ReadByte() // until the client hangs up
				_ = theirs.Close()
			}()
			return ours, nil
		}
	}
	// mute reads and says nothing.
	mute := func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		return ours, nil
	}
	// deaf never reads: the first byte cannot be written, but writing was begun.
	deaf := func(context.Context, string, string) (net.Conn, error) {
		ours, _ := net.Pipe()
		return ours, nil
	}
	tests := []struct {
		name   string
		dial   func(context.Context, string, string) (net.Conn, error)
		base   string
		phase  schema.Phase
		status int
	}{
		{name: "no connection", dial: hangs, phase: schema.PhaseNotSent},
		{name: "no handshake", dial: mute, base: "https://api.test", phase: schema.PhaseNotSent},
		{name: "nobody reads", dial: deaf, phase: schema.PhaseWritten},
		{name: "no answer", dial: pipeTo(""), phase: schema.PhaseWritten},
		{name: "half a header", dial: pipeTo("HTTP/1.1 201 Cr"), phase: schema.PhaseWritten},
		{name: "half a body", dial: pipeTo("HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{"), phase: schema.PhaseWritten, status: 201},
	}
	ends := []struct {
		name  string
		fault wazzup.Fault
		after time.Duration
		call  func(context.Context) (context.Context, context.CancelFunc)
	}{
		{"by the client's timeout", wazzup.FaultTimeout, 20 * time.Second, context.WithCancel},
		{"by the caller's deadline", wazzup.FaultTimeout, 3 * time.Second, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 3*time.Second)
		}},
		{"cancelled", wazzup.FaultCancelled, 2 * time.Second, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(2*time.Second, func() { cancel(errors.New("a cause of its own")) })
			return ctx, func() { cancel(nil) }
		}},
	}
	for _, tt := range tests {
		for _, end := range ends {
			t.Run(tt.name+" "+end.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					base := tt.base
					if base == "" {
						base = "http://api.test"
					}
					c := newClient(t, base, wazzup.TransportConfig{Dial: tt.dial, DialTimeout: time.Minute})
					ctx, cancel := end.call(t.Context())
					defer cancel()
					started := time.Now()
					a := c.SendMessage(ctx, testMessage())
					if a.Phase != tt.phase || a.Fault != end.fault || a.Status != tt.status {
						t.Errorf("got %s (%v), want %s, status %d, fault %q", a.String(), a.Err, tt.phase, tt.status, end.fault)
					}
					if took := time.Since(started); took != end.after || a.Timing.Total != end.after {
						t.Errorf("took %v, told %v, want %v", took, a.Timing.Total, end.after)
					}
					checkError(t, a)
				})
			})
		}
	}
}

// TestIdleConnectionsAreClosedSoon: before a usual server would.
func TestIdleConnectionsAreClosedSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var closed atomic.Int64
		started := time.Now()
		dial := func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				reader := bufio.NewReader(theirs)
				for readRequest(reader) != nil {
					_, _ = io.WriteString(theirs, "HTTP/1.1 201 Created\r\nContent-Length: 18\r\n\r\n{\"messageId\":\"m1\"}")
				}
				closed.Store(int64(time.Since(started)))
				_ = theirs.Close()
			}()
			return ours, nil
		}
		c := newClient(t, "http://api.test", wazzup.TransportConfig{Dial: dial})
		for range 2 {
			if a := c.SendMessage(t.Context(), testMessage()); !a.OK() {
				t.Errorf("got %s (%v)", a.String(), a.Err)
			}
		}
		time.Sleep(time.Minute)
		if got := time.Duration(closed.Load()); got != 4*time.Second {
			t.Errorf("closed after %v, want 4s", got)
		}
	})
}

func TestEarlyCancelMakesNoCall(t *testing.T) {
	t.Parallel()
	c := newClient(t, rawServer(t, func(conn net.Conn) {
		if readRequest(bufio.NewReader(conn)) != nil {
			t.Error("a request arrived")
		}
	}), wazzup.TransportConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := c.SendMessage(ctx, testMessage())
	if a.Phase != schema.PhaseNotSent || a.Fault != wazzup.FaultCancelled {
		t.Errorf("got %s (%v)", a.String(), a.Err)
	}
	checkError(t, a)
}
