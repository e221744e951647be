package schematest_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	channel = "a0000000-0000-4000-8000-000000000001"
	sent    = "wazzup.main.evt.command.sent.send." + channel
	body    = `{"id":"a","account":"main","kind":"send","state":"sent","at":"2026-11-22T10:00:00.123Z","channelId":"` + channel + `","messageId":"m","seq":1}`
)

// headers are those of an event, with some of them changed; "" takes one away.
func headers(changes ...string) map[string][]string {
	all := map[string]string{
		"Nats-Msg-Id": "id-1", "ce-specversion": "1.0", "ce-id": "id-1", "ce-source": "/wazzup/main",
		"ce-type": "wazzup.command.sent", "ce-time": "2026-11-22T10:00:00.123Z", "ce-subject": "a",
	}
	for i := 0; i < len(changes); i += 2 {
		all[changes[i]] = changes[i+1]
	}
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	h := make(map[string][]string)
	for name, value := range all {
		h[name] = []string{value}
	}
	return h
}

func TestEvent(t *testing.T) {
	t.Parallel()
	const (
		ops     = `{"name":"lane.closed","account":"main","at":"2026-11-22T10:00:00.123Z"}`
		status  = `{"messageId":"m","status":2}`
		number  = `{"messageId":"m","channelId":"` + channel + `","chatType":"vk","chatId":17}`
		strange = `{"messageId":"m","channelId":"` + channel + `","chatType":"new one","chatId":"a.b"}`
	)
	for _, tt := range []struct {
		name, subject string
		headers       map[string][]string
		body          string
		fault         string // "" = none
	}{
		{"a command's", sent, headers(), body, ""},
		{"an operator's, whose name has a dot", "wazzup.main.evt.ops.lane.closed", headers("ce-type", "wazzup.ops.lane.closed"), ops, ""},
		{"a status", "wazzup.main.evt.status.delivered", headers("ce-type", "wazzup.status.delivered"), status, ""},
		{"a chat id that is a number", "wazzup.main.evt.message.in." + channel + ".vk.17", headers("ce-type", "wazzup.message.in"), number, ""},
		{"keys", "wazzup.main.evt.message.in." + channel + "." + schema.Key("new one") + "." + schema.Key("a.b"), headers("ce-type", "wazzup.message.in"), strange, ""},
		{"a key of something else", "wazzup.main.evt.message.in." + channel + "." + schema.Key("new one") + "." + schema.Key("a.c"), headers("ce-type", "wazzup.message.in"), strange, "the subject's chatId"},
		{"a subject that no channel has", "wazzup.main.evt.command.lost.send." + channel, headers(), body, "no channel"},
		{"a token too many", sent + ".more", headers(), body, "no channel"},
		{"another state in the subject", strings.Replace(sent, ".sent.", ".dead.", 1), headers(), body, "not that of dead"},
		{"another kind in the subject", strings.Replace(sent, ".send.", ".bulk.", 1), headers(), body, "the subject's kind"},
		{"another channel in the subject", sent + "x", headers(), body, "the subject's channelId"},
		{"another account", strings.Replace(sent, ".main.", ".other.", 1), headers(), body, "ce-source"},
		{"another ce-type", sent, headers("ce-type", "wazzup.status.sent"), body, "no message"},
		{"no ce-type", sent, headers("ce-type", ""), body, "no message"},
		{"no ce-time", sent, headers("ce-time", ""), body, "ce-time"},
		{"a time without a zone", sent, headers("ce-time", "2026-11-22T10:00:00.123"), body, "ce-time"},
		{"a traceparent that is none", sent, headers("traceparent", "x"), body, "traceparent"},
		{"another Nats-Msg-Id", sent, headers("Nats-Msg-Id", "id-2"), body, "Nats-Msg-Id"},
		{"a body that breaks its schema", sent, headers(), strings.Replace(body, `"seq":1`, `"seq":"1"`, 1), "/seq"},
		{"a body that is no JSON", sent, headers(), "{", "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			wantFault(t, schematest.Event(tt.subject, tt.headers, []byte(tt.body)), tt.fault)
		})
	}
	wantFault(t, schematest.Reply(sent, headers("Nats-Msg-Id", ""), []byte(body)), "")
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	refusal := func(status, code string) map[string][]string {
		return map[string][]string{"Nats-Service-Error-Code": {status}, "Nats-Service-Error": {code}}
	}
	const (
		notFound = `{"error":{"code":"NOT_FOUND","class":"invalid"}}`
		theirs   = `{"error":{"code":"ANY_WORD","class":"terminal","phase":"answered","httpStatus":418}}`
	)
	for _, tt := range []struct {
		name, request, asked string
		headers              map[string][]string
		answer               string
		fault                string
	}{
		{"an answer", "dead.drop", `{"ids":["a"]}`, nil, `{"dropped":1}`, ""},
		{"an empty body", "webhooks.get", "", nil, `{"webhooksUrl":null}`, ""},
		{"a refusal", "command.get", `{"id":"a"}`, refusal("404", "NOT_FOUND"), notFound, ""},
		{"a refusal of Wazzup's", "users.get", `{"id":"a"}`, refusal("418", "ANY_WORD"), theirs, ""},
		{"Wazzup's words where it is not asked", "command.get", `{"id":"a"}`, refusal("418", "ANY_WORD"), theirs, "does not list 418 ANY_WORD"},
		{"a status that is not listed", "lanes.list", `{}`, refusal("404", "NOT_FOUND"), notFound, "does not list 404"},
		{"a refusal without its name", "command.get", `{"id":"a"}`, map[string][]string{"Nats-Service-Error-Code": {"404"}}, notFound, "Nats-Service-Error"},
		{"an answer that breaks its schema", "dead.drop", `{"ids":["a"]}`, nil, `{"dropped":"1"}`, "/dropped"},
		{"a request that should have been refused", "dead.drop", `{"id":"a"}`, nil, `{"dropped":1}`, "additional properties"},
		{"a wrong request that is refused", "command.get", `{"id":1}`, refusal("400", "WRONG_TYPE"), `{"error":{"code":"WRONG_TYPE","class":"invalid"}}`, ""},
		{"a wrong request that is refused for another reason", "command.get", `{"id":1}`, refusal("404", "NOT_FOUND"), notFound, "breaks its schema"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			wantFault(t, schematest.Answer(tt.request, []byte(tt.asked), tt.headers, []byte(tt.answer)), tt.fault)
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	wantFault(t, schematest.Validate("command-send", []byte(`{"chatType":"whatsapp","chatId":"79998887766","text":"x"}`)), "")
	wantFault(t, schematest.Validate("command-send", []byte(`{"chatType":"whatsapp","chatId":"89998887766","text":"x"}`)), "chatId")
	wantFault(t, schematest.Validate("command-fax", []byte(`{}`)), "command-fax")
}

func wantFault(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("got %v, want no fault", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want a fault that says %q", err, want)
	}
}
