package simulator_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

func TestConfigFaultsAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := simulator.New(simulator.Config{
		Channels: []simulator.Channel{
			{ChannelID: "x", Transport: "vk", State: "active"},
			{ChannelID: simulator.ChannelInstagram, State: "active"},
			{ChannelID: simulator.ChannelWhatsApp, Transport: "whatsapp"},
			{ChannelID: simulator.ChannelTelegram, Transport: "telegram", State: "active"},
			{ChannelID: simulator.ChannelTelegram, Transport: "telegram", State: "active"},
		},
		Keys: []string{"a", " "}, WebhookURL: "here", StoreURL: "there", Jitter: -1, BatchSize: -1,
		Rate: simulator.Rate{Requests: 5},
	})
	if err == nil {
		t.Fatal("a faulty configuration was taken")
	}
	for _, want := range []string{
		"Channels[0]: channelId", "Channels[1]: transport", "Channels[2]: state", "Channels[4]", "Keys[1]",
		"WebhookURL", "StoreURL", "Jitter", "BatchSize", "Rate",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	if !strings.HasPrefix(s.URL(), "http://127.0.0.1:") {
		t.Errorf("URL %s, want a loopback one", s.URL())
	}
	if err := s.Start(t.Context(), ":0"); err == nil {
		t.Error("it started twice")
	}
	other, err := simulator.New(simulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(t.Context(), s.Addr()); err == nil {
		t.Error("it started on a port in use")
	}
	if err := other.Start(t.Context(), "nowhere"); err == nil {
		t.Error("it started on an address without a port")
	}
	other.Close()
	if err := other.Start(t.Context(), ":0"); !errors.Is(err, simulator.ErrClosed) {
		t.Errorf("started after Close: %v", err)
	}
	other.Close() // again
}

func TestTheContextOfStartEndsIt(t *testing.T) {
	t.Parallel()
	s, err := simulator.New(simulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Start(ctx, ":0"); err != nil {
		t.Fatal(err)
	}
	cancel()
	// Nothing was ever requested, so only its end can end the wait.
	if err := s.Wait(t.Context(), func(v *simulator.View) bool { return v.Requests > 0 }); !errors.Is(err, simulator.ErrClosed) {
		t.Errorf("waiting ended with %v, want ErrClosed", err)
	}
	s.Close()
}

func TestWait(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	done := make(chan error, 1)
	go func() {
		done <- s.Wait(t.Context(), func(v *simulator.View) bool { return v.Requests == 3 && len(s.Sends()) == 3 })
	}()
	for range 3 {
		s.do(http.MethodPost, "/v2/send_message", whatsApp("a"))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if err := s.Wait(ctx, func(*simulator.View) bool { return false }); !errors.Is(err, enough) {
		t.Errorf("got %v, want the context's cause", err)
	}
}

func TestCloseForgetsWebhooksThatWait(t *testing.T) {
	t.Parallel()
	inBubble(t, simulator.Config{EchoDelay: time.Hour}, func(b *bubble) {
		b.send(whatsApp("a"))
		b.Close()
		if took := time.Since(b.began); took != 0 {
			b.t.Errorf("closing took %v", took)
		}
	})
}

// A receiver that never answers must not hold Close up.
func TestCloseEndsWebhooksUnderWay(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // net/http sees a client leave only once the body is read
		close(arrived)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	s := start(t, simulator.Config{WebhookURL: server.URL, NoStatuses: true})
	messageID(t, s.do(http.MethodPost, "/v2/send_message", whatsApp("a")))
	<-arrived
	s.Close()
}

// The test call of a registration must not hold Close up either.
func TestCloseEndsARegistration(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	s := start(t, simulator.Config{})
	done := make(chan int, 1)
	go func() {
		r, _ := s.try(http.MethodPut, "/v2/webhooks", `{"url":"`+server.URL+`"}`)
		done <- r.status // 0 if the connection was closed first
	}()
	<-arrived
	s.Close()
	if got := <-done; got == http.StatusOK {
		t.Error("a URL was registered whose test call was never answered")
	}
}

func TestWithoutAReceiverNothingRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// Never closed: the bubble would complain of any goroutine left.
		s, err := simulator.New(simulator.Config{})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v2/send_message", strings.NewReader(whatsApp("a")))
		r.Header.Set("Authorization", "Basic k")
		r.Header.Set("Content-Type", "application/json")
		s.Handler().ServeHTTP(w, r)
		if v := s.View(); w.Code != http.StatusCreated || !v.Idle() || v.Accepted != 1 {
			t.Errorf("%d %s, counters %+v", w.Code, w.Body, v)
		}
	})
}

func TestRateText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]simulator.Rate{
		"0":      {},
		"500/5s": {Requests: 500, Window: 5 * time.Second},
		"1/1m":   {Requests: 1, Window: time.Minute},
	} {
		got, err := simulator.ParseRate(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
		if again, err := simulator.ParseRate(got.String()); err != nil || again != want {
			t.Errorf("%q: written as %q, read as %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "500", "/5s", "500/", "x/5s", "500/x", "-1/5s", "1/-5s", "0/0s"} {
		if got, err := simulator.ParseRate(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}
