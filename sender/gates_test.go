package sender_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// ops waits for the first operator event of a name.
func (r *rig) ops(name schema.OpsName) schema.OpsEvent {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := s.OrderedConsumer(r.t.Context(), jetstream.OrderedConsumerConfig{FilterSubjects: []string{schema.OpsEventSubject("main", name)}})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	m, err := c.Next(jetstream.FetchContext(ctx))
	if err != nil {
		r.t.Fatalf("no %s: %v", name, err)
	}
	var e schema.OpsEvent
	if err := json.Unmarshal(m.Data(), &e); err != nil {
		r.t.Fatal(err)
	}
	return e
}

// channelEvent changes a channel at the vendor and stores what ingest would for
// its `channels` webhook.
func (r *rig) channelEvent(state string) {
	r.t.Helper()
	if err := r.sim.SetChannel(simulator.Channel{ChannelID: simulator.ChannelWhatsApp, Transport: "whatsapp", PlainID: "1", State: state}); err != nil {
		r.t.Fatal(err)
	}
	body := fmt.Sprintf(`{"channelId":%q,"transport":"whatsapp","state":%q}`, simulator.ChannelWhatsApp, state)
	if _, err := r.js.Publish(r.t.Context(), schema.ChannelEventSubject("main", simulator.ChannelWhatsApp, state), []byte(body)); err != nil {
		r.t.Fatal(err)
	}
}

// A channel that a try opens starts slowly: with two calls in flight, and with twice as
// many after each round of answers.
func TestTriedChannelStartsSlowly(t *testing.T) {
	t.Parallel()
	const (
		total = 60
		delay = 200 * time.Millisecond
	)
	r := newRig(t)
	cfg := r.config()
	cfg.ChannelsPoll = time.Hour
	cfg.Backoff = sender.Backoff{Min: 500 * time.Millisecond, Max: time.Second}
	r.start(cfg)
	r.channelsRead()
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Status: 400, Code: "MESSAGE_CHANNEL_UNAVAILABLE"})
	r.backlog(schema.KindBulk, simulator.ChannelWhatsApp, total/2)
	r.backlog(schema.KindSend, simulator.ChannelWhatsApp, total/2)
	r.ops(schema.OpsLaneClosed)
	r.sim.ClearRules()
	r.slow(delay)
	r.finals(total)
	var taken []time.Time
	for _, s := range r.sim.Sends() {
		if s.Status == 201 {
			taken = append(taken, s.Time)
		}
	}
	slices.SortFunc(taken, time.Time.Compare)
	early := 0
	for _, at := range taken {
		if at.Sub(taken[0]) < delay*5/2 { // the try, two calls, four
			early++
		}
	}
	if early > 7 {
		t.Errorf("%d calls in the first three rounds, want 7 at most", early)
	}
	if took := taken[total-1].Sub(taken[0]); took > 10*delay { // 1 2 4 8 16 29
		t.Errorf("the last call came %v after the try, want some six rounds of %v", took, delay)
	}
}

// A channel's refusal closes its lanes: the command waits at its head, spends no
// attempt and publishes nothing; the channel's own word opens them.
func TestChannelClosesAndOpens(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.MaxAttempts = 1
	cfg.ChannelsPoll = time.Hour
	r.start(cfg)
	r.states(r.send("warm", phone, "up"))
	r.channelsRead()
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{ChannelID: simulator.ChannelWhatsApp}, Status: 400, Code: "CHANNEL_NO_MONEY"}); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		r.send(fmt.Sprint("held-", i), fmt.Sprintf("7900000%04d", i), "x")
	}
	closed := r.ops(schema.OpsLaneClosed)
	if closed.Reason != "CHANNEL_NO_MONEY" || closed.ChannelID != simulator.ChannelWhatsApp || closed.OpensOn == "" {
		t.Errorf("lane.closed: got %+v", closed)
	}
	// Another channel goes on meanwhile.
	other := fmt.Sprintf(`{"id":"other","chatType":"whatsapp","chatId":%q,"text":"x"}`, phone)
	if _, err := r.pub.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp2, []byte(other)); err != nil {
		t.Fatal(err)
	}
	r.event("other", schema.StateSent)

	r.sim.ClearRules()
	r.channelEvent(simulator.StateActive)
	for i := range 5 {
		id := fmt.Sprint("held-", i)
		if got := r.states(id); len(got) != 1 || got[0] != schema.StateSent {
			t.Errorf("%s: got %v, want only sent", id, got)
		}
	}
	r.ops(schema.OpsLaneOpened)
}

// A state other than active stops the channel before any call is refused.
func TestChannelStateStopsCalls(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.ChannelsPoll = time.Hour
	r.start(cfg)
	r.states(r.send("warm", phone, "up"))
	r.channelsRead()
	r.channelEvent(simulator.StateNotEnoughMoney)
	r.ops(schema.OpsLaneClosed)
	before := len(r.sim.Sends())
	r.send("held", phone, "x")
	other := fmt.Sprintf(`{"id":"other","chatType":"whatsapp","chatId":%q,"text":"x"}`, phone)
	if _, err := r.pub.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp2, []byte(other)); err != nil {
		t.Fatal(err)
	}
	r.event("other", schema.StateSent)
	if n := len(r.sim.Sends()) - before; n != 1 {
		t.Errorf("%d requests, want the other channel's only", n)
	}
	r.channelEvent(simulator.StateActive)
	r.event("held", schema.StateSent)
}

// A wrong key closes the account after the first answer, tells it once, and goes
// on when the key works.
func TestAccountClosesOn401(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.Concurrency = 1
	cfg.ChannelsPoll = time.Hour
	r.start(cfg)
	r.states(r.send("warm", phone, "up"))
	r.channelsRead()
	if err := r.sim.AddRule(simulator.Rule{Status: 401, Times: 4}); err != nil {
		t.Fatal(err)
	}
	before := len(r.sim.Sends())
	for i := range 10 {
		r.send(fmt.Sprint("held-", i), fmt.Sprintf("7900000%04d", i), "x")
	}
	for i := range 10 {
		id := fmt.Sprint("held-", i)
		if got := r.states(id); len(got) != 1 || got[0] != schema.StateSent {
			t.Errorf("%s: got %v, want only sent", id, got)
		}
	}
	if n := len(r.sim.Sends()) - before; n != 11 {
		t.Errorf("%d send requests, want 10 and the one that was refused", n)
	}
	if got := r.ops(schema.OpsAccountClosed); got.Reason != "HTTP_401" {
		t.Errorf("account.closed: got %+v", got)
	}
	r.ops(schema.OpsAccountOpened)
}

// Two workers in turn never exceed the account's rate, as the vendor sees it.
func TestAccountRateAcrossHandOver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.Rate = rate.Rate{N: 20, Per: 500 * time.Millisecond}
	const total = 100
	for i := range total {
		r.send(fmt.Sprint("c-", i), fmt.Sprintf("7900000%04d", i), "x")
	}
	stop := r.start(cfg)
	r.finals(30)
	r.start(cfg)
	stop()
	r.finals(total)
	requests := r.sim.Requests()
	slices.SortFunc(requests, func(a, b simulator.Request) int { return a.Time.Compare(b.Time) }) // two that are read together are numbered either way
	for i := cfg.Rate.N; i < len(requests); i++ {
		if gap := requests[i].Time.Sub(requests[i-cfg.Rate.N].Time); gap < cfg.Rate.Per {
			t.Errorf("%d requests within %v, want at most %d in %v", cfg.Rate.N+1, gap, cfg.Rate.N, cfg.Rate.Per)
		}
	}
}

func (r *rig) request(name, body string) (*nats.Msg, error) {
	r.t.Helper()
	for {
		m, err := r.nc.Request(schema.APISubject("main", name), []byte(body), 10*time.Second)
		if errors.Is(err, nats.ErrNoResponders) && r.t.Context().Err() == nil {
			continue // no owner yet
		}
		if err == nil {
			r.byContract(name, body, m)
		}
		return m, err
	}
}

func TestAPI(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	r.states(r.send("a", phone, "secret text"))

	m, err := r.request("command.get", `{"id":"a"}`)
	if err != nil {
		t.Fatal(err)
	}
	var line sender.Timeline
	if err := json.Unmarshal(m.Data, &line); err != nil {
		t.Fatalf("%v: %s", err, m.Data)
	}
	if line.State != schema.StateSent || len(line.Steps) != 3 || line.Steps[0].Step != "stored" ||
		line.Steps[1].Step != "claim" || line.Steps[1].Worker != "worker-1" || line.Steps[2].Step != "final" {
		t.Errorf("timeline: got %+v", line)
	}
	for _, tt := range []struct{ name, endpoint, body, status, code string }{ //nolint:paralleltest // the rows share one rig
		{"unknown id", "command.get", `{"id":"nobody"}`, "404", "NOT_FOUND"},
		{"no id", "command.get", `{}`, "400", "REQUIRED"},
		{"unknown field", "command.get", `{"id":"a","x":1}`, "400", "UNKNOWN_FIELD"},
		{"no JSON", "command.get", `{`, "400", "BAD_REQUEST"},
		{"no url", "webhooks.set", `{}`, "400", "REQUIRED"},
		{"long url", "webhooks.set", `{"url":"http://x/` + strings.Repeat("a", 200) + `"}`, "400", "TOO_LONG"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := r.request(tt.endpoint, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			var body struct {
				Error schema.Error `json:"error"`
			}
			if err := json.Unmarshal(m.Data, &body); err != nil {
				t.Fatalf("%v: %s", err, m.Data)
			}
			if got := m.Header.Get("Nats-Service-Error-Code"); got != tt.status || body.Error.Code != tt.code {
				t.Errorf("got %s %+v, want %s %s", got, body.Error, tt.status, tt.code)
			}
		})
	}
	if m, err = r.request("channels.list", ""); err != nil || !strings.Contains(string(m.Data), simulator.ChannelTelegram) {
		t.Errorf("channels.list: got %v %s", err, m.Data)
	}
	if m, err = r.request("webhooks.get", ""); err != nil || string(m.Data) != `{"webhooksUrl":null}` {
		t.Errorf("webhooks.get: got %v %s", err, m.Data)
	}
}

func TestMaskURL(t *testing.T) {
	t.Parallel()
	a, b := sender.MaskURL("https://x/webhooks/main/one"), sender.MaskURL("https://x/webhooks/main/two")
	if a == b || strings.Contains(a, "one") || !strings.HasPrefix(a, "https://x/webhooks/main/***") {
		t.Errorf("got %s and %s", a, b)
	}
}
