package main_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// owner answers one request of the account main as a worker would. It returns how
// to reach it, and what it was asked.
func owner(t *testing.T, request string, answer func(r micro.Request)) (env map[string]string, asked <-chan string) {
	t.Helper()
	srv := queuetest.Server(t)
	service, err := micro.AddService(queuetest.Conn(t, srv), micro.Config{Name: "wazzup", Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	bodies := make(chan string, 10)
	handler := micro.HandlerFunc(func(r micro.Request) {
		bodies <- string(r.Data())
		answer(r)
	})
	err = service.AddEndpoint("it", handler, micro.WithEndpointSubject(schema.APISubject("main", request)))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"NATS_URL": srv.URL()}, bodies
}

// refuse answers with a fault of the contract's form.
func refuse(t *testing.T, r micro.Request, status, code, description string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"error": map[string]string{"code": code, "class": "invalid", "description": description}})
	if err != nil {
		t.Error(err)
	}
	if err := r.Error(status, code, body); err != nil {
		t.Error(err)
	}
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	const cancelled = `{"id":"order 1","state":"cancelled"}`
	for _, tt := range []struct {
		name    string
		args    []string
		request string
		refusal string // code; "" = none
		status  string
		text    string // the answer, or the fault's description
		asked   string
		code    int
		says    []string
		stdout  string // all of it; "" = not compared
	}{
		{
			name: "cancel", args: []string{"cancel", "order 1"}, request: "command.cancel", text: cancelled,
			asked: `{"id":"order 1"}`, says: []string{`"order 1" cancelled`},
		},
		{
			name: "cancel for programs", args: []string{"cancel", "order 1", "--json"}, request: "command.cancel", text: cancelled,
			asked: `{"id":"order 1"}`, stdout: cancelled + "\n",
		},
		{
			name: "cancel what is not there", args: []string{"cancel", "x"}, request: "command.cancel",
			refusal: "NOT_FOUND", status: "404", text: "no such command", asked: `{"id":"x"}`, code: 1,
			says: []string{`no command "x" in account main`},
		},
		{
			name: "cancel what was sent", args: []string{"cancel", "x"}, request: "command.cancel",
			refusal: "CONFLICT", status: "409", text: "it is sent", asked: `{"id":"x"}`, code: 1,
			says: []string{`command "x" cannot be cancelled any more: it is sent`, "wazzupctl trace x"},
		},
		{
			name: "a refusal of another kind", args: []string{"cancel", "x", "--json"}, request: "command.cancel",
			refusal: "INTERNAL", status: "500", text: "the request failed here", asked: `{"id":"x"}`, code: 1,
			says: []string{"500 INTERNAL", "the request failed here"},
		},
		{
			name: "resolve", args: []string{"resolve", "x", "--as", "sent"}, request: "command.resolve", text: `{"id":"x","state":"sent"}`,
			asked: `{"as":"sent","id":"x"}`, says: []string{"x sent"},
		},
		{
			name: "resolve without a state", args: []string{"resolve", "x", "--as", "drop"}, request: "command.resolve", text: `{"id":"x"}`,
			asked: `{"as":"drop","id":"x"}`, says: []string{"x drop"},
		},
		{
			name: "resolve what is not in doubt", args: []string{"resolve", "x", "--as", "resend"}, request: "command.resolve",
			refusal: "CONFLICT", status: "409", text: "it is\x1b[31m sent", asked: `{"as":"resend","id":"x"}`, code: 1,
			says: []string{`command "x" has no unknown fate to decide about: "it is\x1b[31m sent"`},
		},
		{
			name: "resolve what is not there", args: []string{"resolve", "x", "--as", "resend"}, request: "command.resolve",
			refusal: "NOT_FOUND", status: "404", text: "no", asked: `{"as":"resend","id":"x"}`, code: 1, says: []string{`no command "x"`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env, asked := owner(t, tt.request, func(r micro.Request) {
				if tt.refusal != "" {
					refuse(t, r, tt.status, tt.refusal, tt.text)
				} else if err := r.Respond([]byte(tt.text)); err != nil {
					t.Error(err)
				}
			})
			got := ctl(t, env, "", tt.args...).want(t, tt.code, tt.says...)
			if body := <-asked; body != tt.asked {
				t.Errorf("it asked %s, want %s", body, tt.asked)
			}
			if tt.stdout != "" && got.stdout != tt.stdout {
				t.Errorf("it printed %q, want %q", got.stdout, tt.stdout)
			}
			if tt.code != daemon.ExitOK && got.stdout != "" {
				t.Errorf("a refusal printed %q", got.stdout)
			}
		})
	}
}

// TestTraceTellsAll: every kind of step, what a command in hand waits for, and
// none of its text.
func TestTraceTellsAll(t *testing.T) {
	t.Parallel()
	const canary = "canary-33cc"
	at := func(s int) time.Time { return time.Date(2026, 11, 22, 10, 0, s, 0, time.UTC) }
	again := at(9)
	told := sender.Timeline{
		ID: "order-1", Account: "main", Kind: schema.KindSend, State: schema.StateUnknown, Seq: 7,
		Waiting: &sender.Waiting{Gate: "evidence", Why: "whether the call was carried out is not known", Since: new(at(8)), Position: 1},
		Steps: []sender.Step{
			{At: at(0), Step: "stored"},
			{
				At: at(1), Step: "claim", Attempt: 1, Worker: "box-1",
				Waits: []queue.Wait{{Gate: "closed", Millis: 61_000, Why: "CHANNEL_NO_MONEY"}, {Gate: "pace", Millis: 20, Why: "20/1m"}},
			},
			{At: at(2), Step: "retry", Attempt: 1, HTTPStatus: 400, Code: "CHANNEL_NO_MONEY", Phase: schema.PhaseAnswered, RetryAt: &again},
			{At: at(3), Step: "unknown", State: schema.StateUnknown, Attempt: 2, Code: "TIMEOUT", Phase: schema.PhaseWritten},
			{
				At: at(4), Step: "final", State: schema.StateDead, Attempt: 2,
				Event: json.RawMessage(`{"id":"order-1","error":{"code":"TIMEOUT","reason":"no_evidence"},"text":"` + canary + `"}`),
			},
			{At: at(5), Step: "redrive", Generation: 1},
			{At: at(6), Step: "proof", MessageID: "m-1", Evidence: schema.EvidenceEcho},
			{At: at(7), Step: "status", State: schema.StateRead, Attempt: 2, MessageID: "m-1"},
		},
	}
	body, err := json.Marshal(told)
	if err != nil {
		t.Fatal(err)
	}
	env, _ := owner(t, "command.get", func(r micro.Request) {
		if err := r.Respond(body); err != nil {
			t.Error(err)
		}
	})
	got := ctl(t, env, "", "trace", "order-1").want(
		t, 0, "order-1 send unknown", "stored", "worker=box-1", "waited: closed 1m1s (CHANNEL_NO_MONEY), pace 20ms (20/1m)",
		"CHANNEL_NO_MONEY  http=400  again ", "TIMEOUT  phase=written", "reason=no_evidence", "redrive 1",
		"proof", "proven_by=echo  message m-1", "status", "read",
		"now waiting at evidence (whether the call was carried out is not known), for ", "number 1 of its chat",
	)
	if strings.Contains(got.text, canary) {
		t.Errorf("it shows the message:\n%s", got.text)
	}
	var back sender.Timeline
	if err := json.Unmarshal([]byte(ctl(t, env, "", "trace", "order-1", "--json").want(t, 0).stdout), &back); err != nil || len(back.Steps) != len(told.Steps) {
		t.Errorf("--json: got %+v (%v)", back, err)
	}
}
