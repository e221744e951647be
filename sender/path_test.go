package sender_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

func TestSentOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	r.send("order-1", phone, "hello", `,"meta":{"orderId":17},"group":"g1"`)
	if got, want := r.states("order-1"), []schema.State{schema.StateSent}; !slices.Equal(got, want) {
		t.Fatalf("states: got %v, want %v", got, want)
	}
	e := r.event("order-1", schema.StateSent)
	sends := r.sim.Sends()
	if len(sends) != 1 || sends[0].Text != "hello" || sends[0].ChatID != phone {
		t.Fatalf("the vendor got %+v, want the one message", sends)
	}
	if e.MessageID == "" || e.Attempt != 1 || e.Seq != 1 || string(e.Meta) != `{"orderId":17}` || e.Group != "g1" || e.ChatID != phone || e.ChannelID != simulator.ChannelWhatsApp {
		t.Errorf("event: got %+v", e)
	}
	r.emptied()
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	rule := func(text string, rule simulator.Rule) {
		t.Helper()
		rule.Match.Text = text
		if err := r.sim.AddRule(rule); err != nil {
			t.Fatal(err)
		}
	}
	rule("refused", simulator.Rule{Status: 400, Code: "MESSAGES_NOT_TEXT_FIRST"})
	rule("download", simulator.Rule{Status: 400, Code: "MESSAGE_DOWNLOAD_CONTENT_ERROR"})
	rule("later", simulator.Rule{Status: 400, Code: "MESSAGES_CAN_NOT_ADD", Times: 1})
	rule("429", simulator.Rule{Status: 429, Times: 1, Headers: map[string]string{"Retry-After": "0"}})
	rule("500", simulator.Rule{Status: 500})
	rule("dropped", simulator.Rule{Fault: simulator.FaultDropAfterAccept})
	rule("resent", simulator.Rule{Fault: simulator.FaultDropAfterAccept, Times: 1})

	tests := []struct {
		name, body string
		want       []schema.State
		code       string
		requests   int
	}{
		{"refused", `"text":"refused"`, []schema.State{schema.StateRejected}, "MESSAGES_NOT_TEXT_FIRST", 1},
		{"download", `"text":"download"`, []schema.State{schema.StateRetrying, schema.StateRetrying, schema.StateRejected}, "MESSAGE_DOWNLOAD_CONTENT_ERROR", 3},
		{"later", `"text":"later"`, []schema.State{schema.StateRetrying, schema.StateSent}, "", 2},
		{"429", `"text":"429"`, []schema.State{schema.StateRetrying, schema.StateSent}, "", 2},
		{"500", `"text":"500"`, []schema.State{schema.StateUnknown, schema.StateDead}, "HTTP_500", 1},
		{"dropped", `"text":"dropped"`, []schema.State{schema.StateUnknown, schema.StateDead}, "CONNECTION", 1},
		{"resent", `"text":"resent","onUnknown":"resend"`, []schema.State{schema.StateUnknown, schema.StateRetrying, schema.StateSent}, "", 2},
		{"expired", `"text":"expired","expireAt":"2020-01-01T00:00:00Z"`, []schema.State{schema.StateExpired}, "", 0},
		{"invalid", `"text":"","content":"x","surprise":1`, []schema.State{schema.StateInvalid}, "INVALID", 0},
		{"blank", `"text":" "`, []schema.State{schema.StateInvalid}, "INVALID", 0},
	}
	for i, tt := range tests {
		// A chat each, since a chat waits for a command in doubt.
		chat := fmt.Sprintf("7900000%04d", i)
		r.publish(schema.KindSend, tt.name, fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":%q,%s}`, tt.name, chat, tt.body))
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := r.states(tt.name)
			if !slices.Equal(got, tt.want) {
				t.Errorf("states: got %v, want %v", got, tt.want)
			}
			last := r.event(tt.name, got[len(got)-1])
			code := ""
			if last.Error != nil {
				code = last.Error.Code
			}
			if code != tt.code {
				t.Errorf("code: got %q, want %q", code, tt.code)
			}
			requests := 0
			for _, q := range r.sim.Sends() {
				if q.ChatID == fmt.Sprintf("7900000%04d", i) {
					requests++
				}
			}
			if requests != tt.requests {
				t.Errorf("the vendor got %d requests, want %d", requests, tt.requests)
			}
		})
	}
	r.emptied()
	for id, n := range r.ids { //nolint:paralleltest // the rows above share one rig
		if n != 1 {
			t.Errorf("event %s is stored %d times", id, n)
		}
	}
}
