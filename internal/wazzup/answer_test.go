package wazzup_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// answerCase is a body as the vendor, or what stands before it, may write it.
// The bodies also seed the fuzz target.
type answerCase struct {
	name        string
	status      int
	want        wazzup.Want
	body        string
	ok          bool
	fault       wazzup.Fault
	hasError    bool
	code        string
	rawCode     string
	description string
	messageID   string
}

func answerCases() []answerCase {
	const bad = wazzup.FaultBadAnswer
	send, list := wazzup.WantMessageID, wazzup.WantJSON
	return []answerCase{
		{name: "manual's answer to a send", status: 201, want: send, body: `{ "messageId": "10d90130-38f6-421c-ada9-951f82884056" }`, ok: true, messageID: "10d90130-38f6-421c-ada9-951f82884056"},
		{name: "tight", status: 201, want: send, body: `{"messageId":"10d90130-38f6"}`, ok: true, messageID: "10d90130-38f6"},
		{name: "more fields", status: 200, want: send, body: `{"chatId":"7","messageId":"m1"}`, ok: true, messageID: "m1"},
		{name: "escaped id", status: 201, want: send, body: `{"messageId":"a\u002db"}`, ok: true, messageID: "a-b"},
		{name: "number as id", status: 201, want: send, body: `{"messageId":12345678901234567890}`, ok: true, messageID: "12345678901234567890"},
		{name: "null error beside the id", status: 201, want: send, body: `{"messageId":"m1","error":null,"errors":[]}`, ok: true, messageID: "m1"},
		{name: "no id", status: 201, want: send, body: `{}`, fault: bad},
		{name: "empty id", status: 201, want: send, body: `{"messageId":""}`, fault: bad},
		{name: "endless id", status: 201, want: send, body: `{"messageId":"` + strings.Repeat("x", 257) + `"}`, fault: bad},
		{name: "endless id with a space", status: 201, want: send, body: `{"messageId": "` + strings.Repeat("x", 257) + `"}`, fault: bad},
		{name: "empty 201", status: 201, want: send, body: ``, fault: bad},
		{name: "204 to a send", status: 204, want: send, body: ``, fault: bad},
		{name: "HTML 200 to a send", status: 200, want: send, body: `<html>hello</html>`, fault: bad},
		{name: "cut JSON", status: 201, want: send, body: `{"messageId":"m`, fault: bad},
		{name: "list to a send", status: 200, want: send, body: `["m1"]`, fault: bad},
		{name: "error under 200", status: 200, want: send, body: `{"error":{"code":"CHANNEL_BLOCKED"}}`, hasError: true, code: "CHANNEL_BLOCKED", rawCode: "CHANNEL_BLOCKED"},
		{name: "error and id under 201", status: 201, want: send, body: `{"messageId":"m1","errors":[{"code":"X_Y"}]}`, hasError: true, code: "X_Y", rawCode: "X_Y", messageID: "m1"},
		{name: "error without code under 200", status: 200, want: send, body: `{"error":"something went wrong"}`, hasError: true, description: "something went wrong"},
		{name: "true under 200", status: 200, want: wazzup.WantAny, body: `{"error":true}`, hasError: true},
		{name: "false under 200", status: 200, want: wazzup.WantAny, body: `{"error":false}`, ok: true},
		{name: "zero under 200", status: 200, want: wazzup.WantAny, body: `{"error":0}`, ok: true},

		{name: "errors", status: 400, want: send, body: `{"errors":[{"code":"CHANNEL_NO_MONEY","description":"The channel is not paid"}]}`, hasError: true, code: "CHANNEL_NO_MONEY", rawCode: "CHANNEL_NO_MONEY", description: "The channel is not paid"},
		{name: "first of many errors", status: 400, want: send, body: `{"errors":[null,{"code":"VALIDATION_ERROR"},{"code":"CHANNEL_BLOCKED"}]}`, hasError: true, code: "VALIDATION_ERROR", rawCode: "VALIDATION_ERROR"},
		{name: "errors as words", status: 400, want: send, body: `{"errors":["CHANNEL_BLOCKED"]}`, hasError: true, code: "CHANNEL_BLOCKED", rawCode: "CHANNEL_BLOCKED"},
		{name: "errors as object", status: 400, want: send, body: `{"errors":{"code":"CHANNEL_BLOCKED"}}`, hasError: true, code: "CHANNEL_BLOCKED", rawCode: "CHANNEL_BLOCKED"},
		{name: "error object", status: 400, want: send, body: `{"error":{"code":"channelBlocked","message":"off"}}`, hasError: true, code: "CHANNEL_BLOCKED", rawCode: "channelBlocked", description: "off"},
		{name: "error within error", status: 400, want: send, body: `{"error":{"error":{"code":"CHANNEL_BLOCKED"}}}`, hasError: true, code: "CHANNEL_BLOCKED", rawCode: "CHANNEL_BLOCKED"},
		{name: "v3", status: 400, want: send, body: `{"error":"MESSAGE_IS_SPAM","description":"spam","data":{"x":1}}`, hasError: true, code: "MESSAGES_IS_SPAM", rawCode: "MESSAGE_IS_SPAM", description: "spam"},
		{name: "bare object", status: 400, want: send, body: `{"code":"CHAT_MISSING_CHAT_ID","description":"d"}`, hasError: true, code: "CHAT_MISSING_CHAT_ID", rawCode: "CHAT_MISSING_CHAT_ID", description: "d"},
		{name: "array", status: 400, want: send, body: `[{"code":"CHAT_MISSING_CHAT_ID"}]`, hasError: true, code: "CHAT_MISSING_CHAT_ID", rawCode: "CHAT_MISSING_CHAT_ID"},
		{name: "JSON string", status: 400, want: send, body: `"CHAT_MISSING_CHAT_ID"`, hasError: true, code: "CHAT_MISSING_CHAT_ID", rawCode: "CHAT_MISSING_CHAT_ID"},
		{name: "number as code", status: 400, want: send, body: `{"error":{"code":17}}`, hasError: true, rawCode: "17"},
		{name: "framework's 404", status: 404, want: send, body: `{"statusCode":404,"message":"Cannot POST /v2/x","error":"Not Found"}`, hasError: true, description: "Cannot POST /v2/x"},
		{name: "framework's 403", status: 403, want: send, body: `{"statusCode":403,"message":"Forbidden resource","error":"Forbidden"}`, hasError: true, rawCode: "Forbidden", description: "Forbidden resource"},
		{name: "framework's 400", status: 400, want: send, body: `{"message":["chatId must be a string","text is empty"],"error":"Bad Request"}`, hasError: true, description: "chatId must be a string; text is empty"},
		{name: "empty 400", status: 400, want: send, body: ``},
		{name: "empty object", status: 400, want: send, body: `{}`},
		{name: "empty array", status: 400, want: send, body: `[]`},
		{name: "HTML 502", status: 502, want: send, body: "\n<html><body>502 Bad Gateway</body></html>"},
		{name: "plain word", status: 400, want: send, body: `CHANNEL_BLOCKED`, hasError: true, code: "CHANNEL_BLOCKED", rawCode: "CHANNEL_BLOCKED"},
		{name: "plain sentence", status: 500, want: send, body: `upstream connect error`, hasError: true, description: "upstream connect error"},
		{name: "broken JSON", status: 400, want: send, body: `{"errors":[`, hasError: true, description: `{"errors":[`},
		{name: "binary", status: 500, want: send, body: "\xff\xfe\x00"},
		{name: "deep", status: 400, want: send, body: strings.Repeat(`{"error":`, 50) + `"X_Y"` + strings.Repeat(`}`, 50), hasError: true},
		{name: "no HTTP status at all", status: 799, want: send, body: ``, fault: bad},

		{name: "list", status: 200, want: list, body: `[{"channelId":"c"}]`, ok: true},
		{name: "empty list", status: 200, want: list, body: `[]`, ok: true},
		{name: "entity with a description", status: 200, want: list, body: `{"id":1,"description":"x","code":"Y"}`, ok: true},
		{name: "HTML for a list", status: 200, want: list, body: `<html>`, fault: bad},
		{name: "empty list body", status: 200, want: list, body: ``, fault: bad},
		{name: "cut list", status: 200, want: list, body: `[{"channelId":`, fault: bad},
		{name: "empty answer to a change", status: 200, want: wazzup.WantAny, body: ``, ok: true},
		{name: "word as answer to a change", status: 200, want: wazzup.WantAny, body: `OK`, ok: true},
		{name: "HTML as answer to a change", status: 200, want: wazzup.WantAny, body: ` <!doctype html>`, fault: bad},
	}
}

func TestAnswerShapes(t *testing.T) {
	t.Parallel()
	for _, tt := range answerCases() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := wazzup.Parse(tt.status, []byte(tt.body), tt.want)
			if got.OK() != tt.ok {
				t.Errorf("OK() = %v, want %v", got.OK(), tt.ok)
			}
			if got.Fault != tt.fault || (got.Err != nil) != (tt.fault != "") {
				t.Errorf("Fault = %q with error %v, want %q", got.Fault, got.Err, tt.fault)
			}
			if got.Phase != schema.PhaseAnswered {
				t.Errorf("Phase = %q, want answered", got.Phase)
			}
			if got.HasError != tt.hasError {
				t.Errorf("HasError = %v, want %v", got.HasError, tt.hasError)
			}
			if got.Code != tt.code || got.RawCode != tt.rawCode {
				t.Errorf("Code, RawCode = %q, %q, want %q, %q", got.Code, got.RawCode, tt.code, tt.rawCode)
			}
			if got.Description != tt.description {
				t.Errorf("Description = %q, want %q", got.Description, tt.description)
			}
			if got.MessageID != tt.messageID {
				t.Errorf("MessageID = %q, want %q", got.MessageID, tt.messageID)
			}
		})
	}
}

func TestDescriptionIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ы", 5000)
	got := wazzup.Parse(400, []byte(`{"error":{"code":"X_Y","description":"`+long+`"}}`), wazzup.WantAny)
	if len(got.Description) > 1<<10 || !utf8.ValidString(got.Description) || got.Description == "" {
		t.Errorf("description of %d bytes, valid %v", len(got.Description), utf8.ValidString(got.Description))
	}
}

func FuzzAnswer(f *testing.F) {
	for _, c := range answerCases() {
		f.Add(c.status, []byte(c.body), int(c.want))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte, want int) {
		want &= 3
		got := wazzup.Parse(status, body, wazzup.Want(want))
		if again := wazzup.NormalizeCode(got.Code); again != got.Code {
			t.Errorf("code %q normalises to %q", got.Code, again)
		}
		for name, text := range map[string]string{"code": got.Code, "raw code": got.RawCode, "description": got.Description} {
			if !utf8.ValidString(text) || len(text) > 1<<10 {
				t.Errorf("%s is not valid or too long: %q", name, text)
			}
		}
		if got.Code != "" && !got.HasError {
			t.Error("a code without an error")
		}
		if wazzup.Want(want) == wazzup.WantMessageID && got.OK() && got.MessageID == "" {
			t.Error("a send is OK without a message id")
		}
		if wazzup.Want(want) == wazzup.WantJSON && got.OK() && !json.Valid(body) {
			t.Error("a list is OK without JSON")
		}
		if got.OK() != (got.Fault == "" && status >= 200 && status < 300 && !got.HasError) {
			t.Error("OK contradicts the rest")
		}
	})
}

func TestNormalizeCode(t *testing.T) {
	t.Parallel()
	for _, code := range wazzup.Codes() {
		camel := camelCase(code)
		for _, spelled := range []string{
			code, camel, strings.ToUpper(camel[:1]) + camel[1:],
			strings.ReplaceAll(strings.ToLower(code), "_", "-"),
			strings.ReplaceAll(code, "_", "."), " " + code + "\n",
			swapPlural(code), camelCase(swapPlural(code)),
		} {
			if got := wazzup.NormalizeCode(spelled); got != code {
				t.Errorf("NormalizeCode(%q) = %q, want %q", spelled, got, code)
			}
		}
	}
	for spelled, want := range map[string]string{
		"":                            "",
		"invalidAPIKey":               "INVALID_API_KEY",
		"INVALID_API_KEY":             "INVALID_API_KEY",
		"chatIncorrectWhatsApp":       "CHAT_INCORRECT_WHATS_APP",
		"Not Found":                   "",
		"ошибка":                      "",
		"17":                          "",
		"x2Y":                         "X2Y",
		"A__B_":                       "A_B",
		"MESSAGES_CANNOT_ADD":         "MESSAGES_CAN_NOT_ADD",
		strings.Repeat("A", 65):       "",
		"MESSAGE_SOMETHING_NEW":       "MESSAGE_SOMETHING_NEW",
		"chatIncorrectChatIdWhatsApp": "CHAT_INCORRECT_CHAT_ID_WHATSAPP",
	} {
		if got := wazzup.NormalizeCode(spelled); got != want {
			t.Errorf("NormalizeCode(%q) = %q, want %q", spelled, got, want)
		}
	}
}

func camelCase(code string) string {
	words := strings.Split(strings.ToLower(code), "_")
	for i, w := range words[1:] {
		words[i+1] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}

func swapPlural(code string) string {
	if rest, ok := strings.CutPrefix(code, "MESSAGES_"); ok {
		return "MESSAGE_" + rest
	}
	if rest, ok := strings.CutPrefix(code, "MESSAGE_"); ok {
		return "MESSAGES_" + rest
	}
	return code
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	tests := []struct {
		name, value, date string
		want              time.Duration
		ok                bool
	}{
		{name: "none"},
		{name: "seconds", value: "7", want: 7 * time.Second, ok: true},
		{name: "zero", value: "0", ok: true},
		{name: "spaces", value: " 7 ", want: 7 * time.Second, ok: true},
		{name: "negative", value: "-7"},
		{name: "fraction", value: "1.5", want: 1500 * time.Millisecond, ok: true},
		{name: "fraction without end", value: strings.Repeat("9", 400) + ".5", want: 24 * time.Hour, ok: true},
		{name: "no digits", value: "."},
		{name: "negative fraction", value: "-1.5"},
		{name: "not a number", value: "NaN"},
		{name: "infinite", value: "Inf"},
		{name: "word", value: "soon"},
		{name: "year", value: "31536000", want: 24 * time.Hour, ok: true},
		{name: "no number fits", value: strings.Repeat("9", 40), want: 24 * time.Hour, ok: true},
		{name: "date by our clock", value: "Sun, 22 Nov 2026 10:00:30 GMT", want: 30 * time.Second, ok: true},
		{name: "date by the vendor's clock", value: "Sun, 22 Nov 2026 11:00:30 GMT", date: "Sun, 22 Nov 2026 11:00:10 GMT", want: 20 * time.Second, ok: true},
		{name: "past date", value: "Sun, 22 Nov 2026 09:00:30 GMT", ok: true},
		{name: "far date", value: "Sun, 22 Nov 2099 09:00:30 GMT", want: 24 * time.Hour, ok: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			if tt.value != "" {
				header.Set("Retry-After", tt.value)
			}
			if tt.date != "" {
				header.Set("Date", tt.date)
			}
			got, ok := wazzup.ParseRetryAfter(header, now)
			if got != tt.want || ok != tt.ok {
				t.Errorf("got %v, %v, want %v, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

// The states that matter are known in whatever case they come; others stay as they are.
func TestChannelStates(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"active": wazzup.ChannelActive, "ACTIVE": wazzup.ChannelActive, " Active ": wazzup.ChannelActive,
		"NOT_ENOUGH_MONEY": wazzup.ChannelNotEnoughMoney, "phone_unavailable": wazzup.ChannelPhoneUnavailable,
		"QR": wazzup.ChannelQR, "openelsewhere": wazzup.ChannelOpenElsewhere, "Disabled": wazzup.ChannelDisabled,
		"inactive": "inactive", "Not_Active": "Not_Active", "": "",
	} {
		body, err := json.Marshal([]map[string]string{{"channelId": "a", "state": text}})
		if err != nil {
			t.Fatal(err)
		}
		channels, err := wazzup.DecodeChannels(body)
		if err != nil {
			t.Fatal(err)
		}
		if got := channels[0].State; got != want {
			t.Errorf("state %q is read as %q, want %q", text, got, want)
		}
	}
}

func TestMessageJSON(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		m    wazzup.Message
		want string
	}{
		{"manual's example", wazzup.Message{ChannelID: "3376e1c3", ChatType: "whatsapp", ChatID: "79998887766", Content: "https://example.com/images/img_01.png"}, `{"channelId":"3376e1c3","chatType":"whatsapp","chatId":"79998887766","content":"https://example.com/images/img_01.png"}`},
		{"quotes, controls, html, emoji", wazzup.Message{ChannelID: "c", ChatType: "vk", ChatID: "1", Text: "a\"b\\c\n\x01<&>\u2028😀", RefMessageID: "r"}, `{"channelId":"c","chatType":"vk","chatId":"1","text":"a\"b\\c\n\u0001<&>` + "\u2028" + `😀","refMessageId":"r"}`},
		{"nothing", wazzup.Message{}, `{}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := wazzup.MessageJSON(&tt.m)
			if string(got) != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if !json.Valid(got) {
				t.Error("not JSON")
			}
		})
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	channels, err := wazzup.DecodeChannels([]byte(`[{"channelId":"3376E1C3","transport":"whatsapp","plainId":79865784457,"state":"active","new":1}]`))
	want := wazzup.Channel{ChannelID: "3376e1c3", Transport: "whatsapp", PlainID: "79865784457", State: wazzup.ChannelActive}
	if err != nil || len(channels) != 1 || channels[0] != want {
		t.Errorf("channels = %+v, %v, want %+v", channels, err, want)
	}
	if channels, err := wazzup.DecodeChannels([]byte(`[]`)); err != nil || len(channels) != 0 {
		t.Errorf("no channels = %+v, %v", channels, err)
	}
	for _, bad := range []string{``, `null`, `{}`, `[{}]`, `[1]`, `{"channels":[]}`} {
		if got, err := wazzup.DecodeChannels([]byte(bad)); err == nil {
			t.Errorf("DecodeChannels(%s) = %v without an error", bad, got)
		}
	}
	w, err := wazzup.DecodeWebhooks([]byte(`{"webhooksUrl":"https://example.com/webhooks","webhooksUrlChanged":true}`))
	if err != nil || w.URL != "https://example.com/webhooks" || !w.Changed {
		t.Errorf("webhooks = %+v, %v", w, err)
	}
	if w, err := wazzup.DecodeWebhooks([]byte(`{"webhooksUrl":null}`)); err != nil || w.URL != "" {
		t.Errorf("webhooks off = %+v, %v", w, err)
	}
	if _, err := wazzup.DecodeWebhooks([]byte(`[`)); err == nil {
		t.Error("DecodeWebhooks([) without an error")
	}
	if u, err := wazzup.DecodeIframe([]byte(`{"url":"https://x"}`)); err != nil || u != "https://x" {
		t.Errorf("iframe = %q, %v", u, err)
	}
	if _, err := wazzup.DecodeIframe([]byte(`{}`)); err == nil {
		t.Error("DecodeIframe({}) without an error")
	}
}
