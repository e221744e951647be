package simulator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testKey = "32a817cbc1594bd5885574d8f0290cd3"

// sim is a started simulator and a client of it.
type sim struct {
	*simulator.Server
	t      *testing.T
	client *http.Client
}

func start(t *testing.T, cfg simulator.Config) *sim {
	t.Helper()
	server, err := simulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	if err := server.Start(t.Context(), ":0"); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &sim{Server: server, t: t, client: &http.Client{Transport: transport, Timeout: time.Minute}}
}

// reply is an answer as the client sees it.
type reply struct {
	status int
	header http.Header
	body   string
}

// try calls a method of the API with the test key.
func (s *sim) try(method, path, body string) (reply, error) {
	return s.tryWith(s.t.Context(), method, path, body, http.Header{
		"Authorization": {"Basic " + testKey},
		"Content-Type":  {"application/json"},
	})
}

func (s *sim) tryWith(ctx context.Context, method, path, body string, header http.Header) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.URL()+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	req.Header = header
	resp, err := s.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(text)}, err
}

func (s *sim) do(method, path, body string) reply {
	s.t.Helper()
	r, err := s.try(method, path, body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// want calls and compares status and, unless it is "-", the body as JSON.
func (s *sim) want(method, path, body string, status int, want string) {
	s.t.Helper()
	got := s.do(method, path, body)
	if got.status != status {
		s.t.Errorf("%s %s: status %d, want %d; body %s", method, path, got.status, status, got.body)
	}
	if want != "-" && !sameJSON(got.body, want) {
		s.t.Errorf("%s %s: body %s, want %s", method, path, got.body, want)
	}
}

// must is a control call that has to succeed.
func (s *sim) must(path, body string) reply {
	s.t.Helper()
	r := s.do(http.MethodPost, path, body)
	if r.status != http.StatusOK {
		s.t.Fatalf("POST %s: %d %s", path, r.status, r.body)
	}
	return r
}

func (s *sim) wait(cond func(*simulator.View) bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	if err := s.Wait(ctx, cond); err != nil {
		v := s.View()
		s.t.Fatalf("%v; counters: %+v", err, v)
	}
}

func sameJSON(a, b string) bool {
	if a == b {
		return true
	}
	x, errX := canonical(a)
	y, errY := canonical(b)
	return errX == nil && errY == nil && x == y
}

func canonical(text string) (string, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return "", err
	}
	out, err := json.Marshal(v)
	return string(out), err
}

// text is a send_message body with a text.
func textTo(channelID, chatType, chatID, text string) string {
	return fmt.Sprintf(`{"channelId":%q,"chatType":%q,"chatId":%q,"text":%q}`, channelID, chatType, chatID, text)
}

func whatsApp(text string) string {
	return textTo(simulator.ChannelWhatsApp, "whatsapp", "79998887766", text)
}

func messageID(t *testing.T, r reply) string {
	t.Helper()
	var body struct{ MessageID string }
	if err := json.Unmarshal([]byte(r.body), &body); err != nil || r.status != http.StatusCreated || body.MessageID == "" {
		t.Fatalf("got %d %q, want 201 with a messageId", r.status, r.body)
	}
	return body.MessageID
}

// hookBody is a webhook's body with the fields that the tests look at.
type hookBody struct {
	Messages []struct {
		MessageID, ChannelID, ChatType, ChatID, Text, Content, AuthorName string
		DateTime                                                          int64
		Type, Status, AuthorType                                          int
	}
	Statuses []struct {
		MessageID string
		Status    json.RawMessage
	}
	Channels     []simulator.Channel
	ChannelsList []simulator.Channel
}

// receiver is where webhooks arrive, as a server or as a transport.
type receiver struct {
	mu     sync.Mutex
	bodies []string
	paths  []string
	times  []time.Time
	answer func(n int) int // the status of the n-th webhook, from 1; nil = 200
}

func (r *receiver) take(req *http.Request) (status int) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies = append(r.bodies, string(body))
	r.paths = append(r.paths, req.URL.Path)
	r.times = append(r.times, time.Now())
	if r.answer == nil {
		return http.StatusOK
	}
	return r.answer(len(r.bodies))
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.WriteHeader(r.take(req))
}

// RoundTrip lets a receiver stand in a synctest bubble, where there is no network.
func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	status := r.take(req)
	if status == 0 {
		return nil, errors.New("nobody there")
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(nil)), Header: http.Header{}, Request: req}, nil
}

func (r *receiver) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.bodies...)
}

// parsed returns the bodies decoded.
func (r *receiver) parsed(t *testing.T) []hookBody {
	t.Helper()
	bodies := r.all()
	parsed := make([]hookBody, len(bodies))
	for i, b := range bodies {
		if err := json.Unmarshal([]byte(b), &parsed[i]); err != nil {
			t.Fatalf("webhook %d is no JSON: %v", i, err)
		}
	}
	return parsed
}

// events tells every item in the order of its arrival: "echo" or "3".
func (r *receiver) events(t *testing.T) []string {
	t.Helper()
	var events []string
	for _, b := range r.parsed(t) {
		for range b.Messages {
			events = append(events, "echo")
		}
		for _, s := range b.Statuses {
			events = append(events, string(s.Status))
		}
	}
	return events
}

func serveReceiver(t *testing.T, r *receiver) string {
	t.Helper()
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return server.URL + "/webhooks/main/secret"
}
