package simulator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

func TestScriptedAnswers(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	tests := []struct {
		name     string
		rule     simulator.Rule
		status   int
		body     string // "-" = 201's own
		accepted int
	}{
		{"code", simulator.Rule{Code: "CHANNEL_NO_MONEY"}, 400, `{"errors":[{"code":"CHANNEL_NO_MONEY","description":"The channel is not paid."}]}`, 0},
		{"code, status and description", simulator.Rule{Status: 403, Code: "X", Description: "y"}, 403, `{"errors":[{"code":"X","description":"y"}]}`, 0},
		{"status", simulator.Rule{Status: 503}, 503, ``, 0},
		{"raw body", simulator.Rule{Status: 502, Body: "<html>"}, 502, `<html>`, 0},
		{"success with a raw body", simulator.Rule{Status: 200, Body: `{"error":{}}`}, 200, `{"error":{}}`, 1},
		{"success with its own body", simulator.Rule{Status: 200}, 200, `-`, 1},
		{"refused although accepted", simulator.Rule{Status: 500, Accept: &yes}, 500, ``, 1},
		{"answered although not accepted", simulator.Rule{Status: 201, Body: `{"messageId":"x"}`, Accept: &no}, 201, `{"messageId":"x"}`, 0},
		{"nothing scripted", simulator.Rule{}, 201, `-`, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, simulator.Config{})
			tt.rule.Headers = map[string]string{"Retry-After": "1", "Content-Type": "text/x"}
			if err := s.AddRule(tt.rule); err != nil {
				t.Fatal(err)
			}
			r := s.do(http.MethodPost, "/v2/send_message", whatsApp("a"))
			if r.status != tt.status || (tt.body != "-" && !sameJSON(r.body, tt.body)) {
				t.Errorf("got %d %q, want %d %q", r.status, r.body, tt.status, tt.body)
			}
			if tt.body == "-" && !strings.Contains(r.body, "messageId") {
				t.Errorf("body %q, want the API's own", r.body)
			}
			if r.header.Get("Retry-After") != "1" || r.header.Get("Content-Type") != "text/x" {
				t.Errorf("headers %v", r.header)
			}
			if got := s.View().Accepted; got != tt.accepted {
				t.Errorf("%d accepted, want %d", got, tt.accepted)
			}
			if got := s.Sends()[0]; got.Status != tt.status || got.Code != tt.rule.Code || got.Accepted() != (tt.accepted == 1) {
				t.Errorf("recorded %+v", got)
			}
		})
	}
}

func TestScriptedErrorsHaveTheMethodsShape(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	if err := s.AddRule(simulator.Rule{Code: "X"}); err != nil {
		t.Fatal(err)
	}
	s.want(http.MethodGet, "/v2/channels", "", 400, `{"error":{"code":"X"}}`)
	s.want(http.MethodGet, "/v2/webhooks", "", 400, `{"error":{"code":"X"}}`)
	s.want(http.MethodGet, "/v2/users", "", 400, `{"errors":[{"code":"X"}]}`)
}

func TestRuleMatching(t *testing.T) {
	t.Parallel()
	file := `{"channelId":"` + simulator.ChannelTelegram + `","chatType":"telegram","chatId":"someone","text":"see","content":"https://example.com/price.pdf"}`
	tests := []struct {
		name               string
		match              simulator.Match
		method, path, body string
		want               bool
	}{
		{"empty", simulator.Match{}, "GET", "/v2/channels", "", true},
		{"method", simulator.Match{Method: "get"}, "GET", "/v2/channels", "", true},
		{"other method", simulator.Match{Method: "PUT"}, "GET", "/v2/channels", "", false},
		{"path", simulator.Match{Path: "/v2/users/a b"}, "GET", "/v2/users/a%20b", "", true},
		{"part of a path", simulator.Match{Path: "/v2/users"}, "GET", "/v2/users/1", "", false},
		{"prefix of a path", simulator.Match{Path: "/v2/users/*"}, "GET", "/v2/users/1", "", true},
		{"channel", simulator.Match{ChannelID: simulator.ChannelTelegram}, "POST", "/v2/send_message", file, true},
		{"other channel", simulator.Match{ChannelID: simulator.ChannelWhatsApp}, "POST", "/v2/send_message", file, false},
		{"chat", simulator.Match{ChatID: "someone", ChatType: "telegram"}, "POST", "/v2/send_message", file, true},
		{"other chat", simulator.Match{ChatID: "some"}, "POST", "/v2/send_message", file, false},
		{"other chat type", simulator.Match{ChatType: "vk"}, "POST", "/v2/send_message", file, false},
		{"text", simulator.Match{Text: "see"}, "POST", "/v2/send_message", file, true},
		{"part of the text as text", simulator.Match{Text: "se"}, "POST", "/v2/send_message", file, false},
		{"part of the body", simulator.Match{BodyContains: `"chatId"`}, "POST", "/v2/send_message", file, true},
		{"no part of the body", simulator.Match{BodyContains: "nobody"}, "POST", "/v2/send_message", file, false},
		{"part of the text", simulator.Match{TextContains: "e"}, "POST", "/v2/send_message", file, true},
		{"no part of the text", simulator.Match{TextContains: "x"}, "POST", "/v2/send_message", file, false},
		{"part of the content", simulator.Match{ContentContains: "price"}, "POST", "/v2/send_message", file, true},
		{"no part of the content", simulator.Match{ContentContains: "list"}, "POST", "/v2/send_message", file, false},
		{"chat of another method", simulator.Match{ChatID: "someone"}, "POST", "/v2/iframe", file, false},
		{"chat of an unreadable body", simulator.Match{ChatID: "someone"}, "POST", "/v2/send_message", "someone", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, simulator.Config{})
			if err := s.AddRule(simulator.Rule{Match: tt.match, Status: 418}); err != nil {
				t.Fatal(err)
			}
			if got := s.do(tt.method, tt.path, tt.body).status == 418; got != tt.want {
				t.Errorf("matched %v, want %v", got, tt.want)
			}
		})
	}
}

func TestRuleAfterAndTimes(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	err := s.AddRule(
		simulator.Rule{Match: simulator.Match{Text: "b"}, Status: 410},
		simulator.Rule{After: 2, Times: 2, Status: 418},
		simulator.Rule{After: 1, Status: 419},
	)
	if err != nil {
		t.Fatal(err)
	}
	// The third rule sees only what the first two let pass.
	want := []int{201, 410, 419, 418, 418, 419, 410, 419}
	for i, text := range []string{"a", "b", "a", "a", "a", "a", "b", "a"} {
		if got := s.do(http.MethodPost, "/v2/send_message", whatsApp(text)).status; got != want[i] {
			t.Errorf("request %d: %d, want %d", i+1, got, want[i])
		}
	}
	rules := s.Rules()
	for i, want := range [][2]int{{2, 2}, {4, 2}, {4, 3}} {
		if rules[i].Seen != want[0] || rules[i].Acted != want[1] {
			t.Errorf("rule %d has seen %d and acted on %d, want %v", i, rules[i].Seen, rules[i].Acted, want)
		}
	}
	s.ClearRules()
	messageID(t, s.do(http.MethodPost, "/v2/send_message", whatsApp("b")))
}

func TestRulesComeAfterTheKey(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	if err := s.AddRule(simulator.Rule{Status: 418, Times: 1}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.tryWith(t.Context(), http.MethodGet, "/v2/channels", "", nil); err != nil || r.status != 401 {
		t.Errorf("without a key: %d %v, want 401", r.status, err)
	}
	s.want(http.MethodGet, "/v2/channels", "", 418, "")
}

func TestDroppedRequests(t *testing.T) {
	t.Parallel()
	tests := []struct {
		fault    simulator.Fault
		accepted int
		events   int // echo and three statuses
	}{
		{simulator.FaultDropBeforeRead, 0, 0},
		{simulator.FaultDropAfterAccept, 1, 4},
	}
	for _, tt := range tests {
		t.Run(string(tt.fault), func(t *testing.T) {
			t.Parallel()
			hooks := &receiver{}
			s := start(t, simulator.Config{WebhookURL: serveReceiver(t, hooks)})
			if err := s.AddRule(simulator.Rule{Fault: tt.fault, Times: 1}); err != nil {
				t.Fatal(err)
			}
			if r, err := s.try(http.MethodPost, "/v2/send_message", whatsApp("lost")); err == nil {
				t.Fatalf("answered %d %s, want a dropped connection", r.status, r.body)
			}
			s.wait(func(v *simulator.View) bool { return v.Idle() && v.Items == tt.events })
			if got := s.View().Accepted; got != tt.accepted {
				t.Errorf("%d accepted, want %d", got, tt.accepted)
			}
			got := s.Sends()[0]
			if got.Fault != tt.fault || got.Status != 0 || got.Accepted() != (tt.accepted == 1) {
				t.Errorf("recorded %+v", got)
			}
			if got := len(hooks.events(t)); got != tt.events {
				t.Errorf("%d events, want %d", got, tt.events)
			}
			messageID(t, s.do(http.MethodPost, "/v2/send_message", whatsApp("found")))
		})
	}
}

func TestHang(t *testing.T) {
	t.Parallel()
	for _, accept := range []bool{false, true} {
		s := start(t, simulator.Config{})
		if err := s.AddRule(simulator.Rule{Fault: simulator.FaultHang, Accept: &accept}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		impatient := errors.New("impatient")
		done := make(chan error, 1)
		go func() {
			_, err := s.tryWith(ctx, http.MethodPost, "/v2/send_message", whatsApp("a"), http.Header{"Authorization": {"Basic k"}, "Content-Type": {"application/json"}})
			done <- err
		}()
		s.wait(func(v *simulator.View) bool { return v.Requests == 1 })
		select {
		case err := <-done:
			t.Fatalf("ended by itself: %v", err)
		default:
		}
		cancel(impatient)
		if err := <-done; !errors.Is(err, impatient) {
			t.Errorf("ended with %v, want the client's own reason", err)
		}
		s.wait((*simulator.View).Idle)
		if got := s.Sends()[0]; got.Status != 0 || got.Fault != simulator.FaultHang || got.Accepted() != accept {
			t.Errorf("accept %v: recorded %+v", accept, got)
		}
	}
}

func TestHangForAWhile(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	if err := s.AddRule(simulator.Rule{Fault: simulator.FaultHang, For: simulator.Duration(20 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := s.try(http.MethodPost, "/v2/send_message", whatsApp("a")); err == nil || time.Since(began) < 20*time.Millisecond {
		t.Errorf("after %v: %v, want a drop after 20ms", time.Since(began), err)
	}
}

func TestCloseEndsWhatHangs(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	if err := s.AddRule(simulator.Rule{Fault: simulator.FaultHang}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.try(http.MethodPost, "/v2/send_message", whatsApp("a"))
		done <- err
	}()
	s.wait(func(v *simulator.View) bool { return v.Requests == 1 })
	s.Close()
	if err := <-done; err == nil {
		t.Error("a hanging request was answered")
	}
}

func TestDelayedAnswer(t *testing.T) {
	t.Parallel()
	hooks := &receiver{}
	s := start(t, simulator.Config{WebhookURL: serveReceiver(t, hooks)})
	// Long enough that the whole callback comes first, or the test times out.
	if err := s.AddRule(simulator.Rule{Delay: simulator.Duration(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.tryWith(ctx, http.MethodPost, "/v2/send_message", whatsApp("a"), http.Header{"Authorization": {"Basic k"}, "Content-Type": {"application/json"}})
		done <- err
	}()
	s.wait(func(v *simulator.View) bool { return v.Items == 4 })
	if got := s.View(); got.Finished != 0 {
		t.Error("the answer did not wait")
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	s.wait((*simulator.View).Idle)
	if got := s.Sends()[0]; got.Status != 0 || !got.Accepted() {
		t.Errorf("recorded %+v, want an accepted message without an answer", got)
	}

	s.ClearRules()
	if err := s.AddRule(simulator.Rule{Delay: simulator.Duration(30 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	messageID(t, s.do(http.MethodPost, "/v2/send_message", whatsApp("b")))
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Errorf("answered after %v, want 30ms at least", took)
	}
}

func TestRefusedConnections(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	s.want(http.MethodGet, "/v2/channels", "", 200, "-") // leaves an idle connection, which must not carry a request past the refusal
	began := time.Now()
	s.must("/_sim/rules", `{"fault":"refuse","for":"1500ms"}`)

	_, err := s.try(http.MethodGet, "/v2/channels", "")
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("got %v, want a refused connection", err)
	}
	s.untilTaken(t)
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("refused for %v, want 1.5s", took)
	}
	if got := len(s.Requests()); got != 2 {
		t.Errorf("%d requests recorded, want the two that were answered", got)
	}
	if got := s.Rules(); len(got) != 0 {
		t.Errorf("a refusal was kept as a rule: %+v", got)
	}
}

// untilTaken asks until a connection is taken; no other fault may come before.
func (s *sim) untilTaken(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := s.try(http.MethodGet, "/v2/channels", "")
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("got %v, want a refused connection", err)
		}
		<-tick.C
	}
}

// A refusal that is ended by hand is over a moment later, and the next one is whole.
func TestEndRefusal(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	for range 2 {
		s.must("/_sim/rules", `{"fault":"refuse","for":"1h"}`)
		_, err := s.try(http.MethodGet, "/v2/channels", "")
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("got %v, want a refused connection", err)
		}
		s.EndRefusal()
		s.EndRefusal() // again: nothing new
		s.untilTaken(t)
	}
}

func TestRefusalNeedsAListener(t *testing.T) {
	t.Parallel()
	s, err := simulator.New(simulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.AddRule(simulator.Rule{Status: 500}, simulator.Rule{Fault: simulator.FaultRefuse})
	if !errors.Is(err, simulator.ErrNoListener) || len(s.Rules()) != 0 {
		t.Errorf("got %v and %d rules, want ErrNoListener and none", err, len(s.Rules()))
	}
}

func TestCloseDuringARefusal(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	if err := s.AddRule(simulator.Rule{Fault: simulator.FaultRefuse, For: simulator.Duration(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	s.Close() // returns
	if err := s.AddRule(simulator.Rule{Fault: simulator.FaultRefuse}); !errors.Is(err, simulator.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

// A connection that was opened before a refusal and not used carries nothing past it.
func TestRefusalEndsUnusedConnections(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	// Another one that was accepted later has been used: so this one was accepted.
	if answer, err := s.client.Get(s.URL() + "/_sim/rules"); err != nil { //nolint:noctx // a moment
		t.Fatal(err)
	} else {
		_ = answer.Body.Close()
	}
	if err := s.AddRule(simulator.Rule{Fault: simulator.FaultRefuse}); err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintf(conn, "GET /v2/channels HTTP/1.1\r\nHost: x\r\nAuthorization: Basic key\r\n\r\n") // it may be closed by now
	if answer, err := io.ReadAll(conn); len(answer) > 0 {
		t.Errorf("answered %q (%v)", answer, err)
	}
}
