package simulator_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

func TestControlRules(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	s.must("/_sim/rules", `{"match":{"path":"/v2/channels","method":"GET"},"times":1,"after":1,"status":503,"body":"<html>","headers":{"Retry-After":"1"},"delay":"1ms"}`)
	s.must("/_sim/rules", `[{"match":{"text":"a"},"code":"CHANNEL_NO_MONEY"},{"match":{"textContains":"b","channelId":"x","chatId":"y","chatType":"z","contentContains":"c"},"fault":"hang","for":"1s","accept":true,"statuses":[],"echo":false}]`)
	s.want(http.MethodGet, "/v2/channels", "", 200, "-")
	s.want(http.MethodGet, "/v2/channels", "", 503, "<html>")
	s.want(http.MethodPost, "/v2/send_message", whatsApp("a"), 400, `{"errors":[{"code":"CHANNEL_NO_MONEY","description":"The channel is not paid."}]}`)
	s.want(http.MethodGet, "/_sim/rules", "", 200, `{"rules":[
		{"match":{"path":"/v2/channels","method":"GET"},"times":1,"after":1,"status":503,"body":"<html>","headers":{"Retry-After":"1"},"delay":"1ms","seen":2,"acted":1},
		{"match":{"text":"a"},"code":"CHANNEL_NO_MONEY","seen":1,"acted":1},
		{"match":{"textContains":"b","channelId":"x","chatId":"y","chatType":"z","contentContains":"c"},"fault":"hang","for":"1s","accept":true,"statuses":[],"echo":false,"seen":0,"acted":0}
	]}`)
	s.want(http.MethodDelete, "/_sim/rules", "", 200, `{"rules":[]}`)
	s.want(http.MethodGet, "/v2/channels", "", 200, "-")
}

func TestControlFaults(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	tests := []struct {
		name, path, body string
		status           int
		field            string
	}{
		{"no JSON", "/_sim/rules", `{`, 400, "body"},
		{"empty", "/_sim/rules", ``, 400, "body"},
		{"a string", "/_sim/rules", `"x"`, 400, "body"},
		{"trailing bytes", "/_sim/rules", `{} {}`, 400, "body"},
		{"unknown field", "/_sim/rules", `{"statsu":500}`, 400, "statsu"},
		{"unknown field inside", "/_sim/rules", `[{},{"match":{"chat":"1"}}]`, 400, "[1].match.chat"},
		{"wrong type", "/_sim/rules", `{"times":"1"}`, 400, "times"},
		{"wrong type in a list", "/_sim/rules", `[{"statuses":["x"]}]`, 400, "[0].statuses[0]"},
		{"repeated field", "/_sim/rules", `{"times":1,"times":2}`, 400, "times"},
		{"delay no duration", "/_sim/rules", `{"delay":"soon"}`, 400, "delay"},
		{"delay a number", "/_sim/rules", `{"delay":50}`, 400, "delay"},
		{"negative delay", "/_sim/rules", `{"delay":"-1s"}`, 400, "delay"},
		{"negative times", "/_sim/rules", `{"times":-1}`, 400, "times"},
		{"negative after", "/_sim/rules", `[{"after":-1}]`, 400, "[0].after"},
		{"status out of range", "/_sim/rules", `{"status":99}`, 400, "status"},
		{"second of two", "/_sim/rules", `[{"status":500},{"status":600}]`, 400, "[1].status"},
		{"code and body", "/_sim/rules", `{"code":"X","body":"y"}`, 400, "body"},
		{"description alone", "/_sim/rules", `{"description":"x"}`, 400, "description"},
		{"header name", "/_sim/rules", `{"headers":{"Retry After":"1"}}`, 400, "headers"},
		{"header value", "/_sim/rules", `{"headers":{"X":"a\nb"}}`, 400, "headers"},
		{"unknown fault", "/_sim/rules", `{"fault":"explode"}`, 400, "fault"},
		{"fault and status", "/_sim/rules", `{"fault":"hang","status":500}`, 400, "fault"},
		{"refusal with a match", "/_sim/rules", `{"fault":"refuse","match":{"chatId":"1"}}`, 400, "match"},
		{"for of an answer", "/_sim/rules", `{"status":500,"for":"1s"}`, 400, "for"},
		{"for of a drop", "/_sim/rules", `{"fault":"drop-after-accept","for":"1s"}`, 400, "for"},
		{"accepting what is not read", "/_sim/rules", `{"fault":"drop-before-read","accept":true}`, 400, "accept"},
		{"not accepting what is accepted", "/_sim/rules", `{"fault":"drop-after-accept","accept":false}`, 400, "accept"},
		{"inbound without a channel", "/_sim/inbound", `{"chatId":"1","text":"a"}`, 400, "channelId"},
		{"inbound without a chat", "/_sim/inbound", `{"channelId":"` + simulator.ChannelWhatsApp + `","text":"a"}`, 400, "chatId"},
		{"inbound without content", "/_sim/inbound", `{"channelId":"` + simulator.ChannelWhatsApp + `","chatId":"1"}`, 400, "text"},
		{"inbound with a number", "/_sim/inbound", `{"channelId":"` + simulator.ChannelWhatsApp + `","chatId":1,"text":"a"}`, 400, "chatId"},
		{"channel without an id", "/_sim/channel", `{"state":"qr"}`, 400, "channelId"},
		{"channel id in capitals", "/_sim/channel", `{"channelId":"` + strings.ToUpper(simulator.ChannelWhatsApp) + `","transport":"vk"}`, 400, "channelId"},
		{"new channel without transport", "/_sim/channel", `{"channelId":"c0000000-0000-4000-8000-000000000001"}`, 400, "transport"},
		{"removal of nothing", "/_sim/channel", `{"channelId":"c0000000-0000-4000-8000-000000000001","remove":true}`, 400, "channelId"},
		{"removal and change", "/_sim/channel", `{"channelId":"` + simulator.ChannelWhatsApp + `","state":"qr","remove":true}`, 400, "remove"},
		{"no webhook", "/_sim/webhook", `{}`, 409, ""},
		{"rate", "/_sim/config", `{"rate":"fast"}`, 400, "rate"},
		{"rate of nothing", "/_sim/config", `{"rate":"0/5s"}`, 400, "rate"},
		{"batch size", "/_sim/config", `{"batchSize":0}`, 400, "batchSize"},
		{"retries", "/_sim/config", `{"retries":-1}`, 400, "retries"},
		{"unknown setting", "/_sim/config", `{"keys":["a"]}`, 400, "keys"},
		{"unknown path", "/_sim/rule", `{}`, 404, ""},
		{"method", "/_sim/state", `{}`, 405, ""},
	}
	for _, tt := range tests {
		r := s.do(http.MethodPost, tt.path, tt.body)
		var body struct {
			Error struct{ Field, Description string }
		}
		if err := json.Unmarshal([]byte(r.body), &body); err != nil || r.status != tt.status || body.Error.Field != tt.field || body.Error.Description == "" {
			t.Errorf("%s: %d %s, want %d and field %q", tt.name, r.status, strings.TrimSpace(r.body), tt.status, tt.field)
		}
	}
	if len(s.Rules()) != 0 || len(s.Requests()) != 0 {
		t.Errorf("refused controls left %d rules and %d requests", len(s.Rules()), len(s.Requests()))
	}
	if r := s.do(http.MethodPost, "/_sim/state", `{}`); r.header.Get("Allow") != "GET" {
		t.Errorf("Allow is %q", r.header.Get("Allow"))
	}
}

func TestControlRequests(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	id := messageID(t, s.do(http.MethodPost, "/v2/send_message", whatsApp("a")))
	s.do(http.MethodPost, "/v2/send_message", textTo(simulator.ChannelWhatsApp2, "whatsapp", "79998887755", "b"))
	s.do(http.MethodPost, "/v2/send_message", `{"broken`)
	s.do(http.MethodGet, "/v2/contacts?offset=5", "")

	list := func(query string) []simulator.Request {
		t.Helper()
		var requests []simulator.Request
		if err := json.Unmarshal([]byte(s.do(http.MethodGet, "/_sim/requests"+query, "").body), &requests); err != nil {
			t.Fatal(err)
		}
		return requests
	}
	all := list("")
	if len(all) != 4 {
		t.Fatalf("%d requests, want 4", len(all))
	}
	first := all[0]
	if first.Seq != 1 || first.Time.IsZero() || first.Method != "POST" || first.Path != "/v2/send_message" || first.Status != 201 ||
		first.MessageID != id || !sameJSON(string(first.Body), whatsApp("a")) || first.Header.Get("Content-Type") != "application/json" {
		t.Errorf("first request %+v", first)
	}
	if string(all[2].Body) != `"{\"broken"` || all[2].Code != "VALIDATION_ERROR" || all[2].Status != 400 {
		t.Errorf("a broken body is recorded as %+v", all[2])
	}
	if all[3].Query != "offset=5" || all[3].Body != nil {
		t.Errorf("fourth request %+v", all[3])
	}
	for _, r := range s.Requests() {
		if r.Header.Get("Authorization") != "" {
			t.Error("the key is recorded")
		}
	}
	for query, want := range map[string]int{
		"?path=/v2/send_message":                                          3,
		"?path=/v2/users":                                                 0,
		"?channelId=" + simulator.ChannelWhatsApp:                         1,
		"?chatId=79998887755":                                             1,
		"?chatId=79998887755&channelId=" + simulator.ChannelWhatsApp:      0,
		"?path=/v2/send_message&last=2":                                   2,
		"?last=0":                                                         0,
		"?path=/v2/contacts&channelId=" + simulator.ChannelWhatsApp:       0,
		"?path=/v2/send_message&chatId=79998887766&last=10":               1,
		"?path=/v2/send_message&channelId=" + simulator.ChannelWhatsApp2:  1,
		"?path=/v2/contacts":                                              1,
		"?count=0":                                                        4,
		"?channelId=" + simulator.ChannelTelegram + "&chatId=79998887755": 0,
	} {
		if got := len(list(query)); got != want {
			t.Errorf("%s: %d requests, want %d", query, got, want)
		}
	}
	s.want(http.MethodGet, "/_sim/requests?count=1", "", 200, `{"count":4}`)
	s.want(http.MethodGet, "/_sim/requests?count=1&chatId=79998887755", "", 200, `{"count":1}`)
	s.want(http.MethodGet, "/_sim/requests?chat=1", "", 400, `-`)
	s.want(http.MethodGet, "/_sim/requests?last=x", "", 400, `-`)
	s.want(http.MethodPost, "/_sim/reset", "", 200, `{}`)
	s.want(http.MethodGet, "/_sim/requests", "", 200, `[]`)
}

func TestControlStateInboundChannelWebhookConfig(t *testing.T) {
	t.Parallel()
	hooks := &receiver{}
	url := serveReceiver(t, hooks)
	s := start(t, simulator.Config{WebhookURL: url, Seed: 11})
	s.do(http.MethodPatch, "/v2/users", `[{"id":17,"name":"A"}]`)

	var in struct{ MessageID string }
	if err := json.Unmarshal([]byte(s.must("/_sim/inbound", `{"channelId":"`+simulator.ChannelTelegram+`","chatId":"1","text":"hi","authorName":"Anna"}`).body), &in); err != nil || in.MessageID == "" {
		t.Fatalf("inbound: %v, id %q", err, in.MessageID)
	}
	s.wait((*simulator.View).Idle)
	if m := hooks.parsed(t)[0].Messages[0]; m.MessageID != in.MessageID || m.ChatType != "telegram" || m.AuthorName != "Anna" {
		t.Errorf("inbound webhook %+v", m)
	}

	s.must("/_sim/channel", `{"channelId":"`+simulator.ChannelTelegram+`","state":"qr"}`)
	s.must("/_sim/channel", `{"channelId":"`+simulator.ChannelInstagram+`","remove":true}`)
	s.wait(func(v *simulator.View) bool { return v.Delivered == 3 })

	raw := `{ "messages": [1],  "odd": "` + strings.Repeat("x", 10) + `"`
	s.want(http.MethodPost, "/_sim/webhook", raw, 200, `{"status":200}`)
	if got := hooks.all(); got[len(got)-1] != raw {
		t.Errorf("the raw webhook arrived as %q", got[len(got)-1])
	}

	s.want(http.MethodPost, "/_sim/config", `{"echo":false,"statuses":[1],"echoDelay":"1s","statusDelay":"2s","jitter":"3s","shuffle":true,"statusText":true,"batchWindow":"4s","batchSize":5,"mixed":true,"retries":0,"retryDelay":"6s","rate":"500/5s"}`, 200,
		`{"echo":false,"statuses":[1],"echoDelay":"1s","statusDelay":"2s","jitter":"3s","shuffle":true,"statusText":true,"batchWindow":"4s","batchSize":5,"mixed":true,"retries":0,"retryDelay":"6s","rate":"500/5s"}`)
	s.must("/_sim/config", `{"rate":"0","statuses":[]}`)

	r := s.do(http.MethodGet, "/_sim/state", "")
	var shown struct {
		Seed       uint64
		WebhookURL string
		Channels   []simulator.Channel
		Users      []json.RawMessage
		Contacts   []json.RawMessage
		Webhooks   []simulator.Delivery
		Counters   simulator.View
		Config     struct {
			Rate     string
			Statuses []int
		}
	}
	if err := json.Unmarshal([]byte(r.body), &shown); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	state := s.State()
	if shown.Seed != 11 || shown.WebhookURL != url || len(shown.Channels) != 3 || len(shown.Users) != 1 || shown.Contacts == nil ||
		len(shown.Webhooks) != 3 || shown.Counters != state.Counters || shown.Config.Rate != "0" || len(shown.Config.Statuses) != 0 {
		t.Errorf("state %s", r.body)
	}
	if !sameJSON(string(shown.Webhooks[0].Body), hooks.all()[0]) {
		t.Errorf("delivery %+v", shown.Webhooks[0])
	}
}

func TestRawWebhookNeedsAReceiver(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	if _, err := s.SendWebhook(t.Context(), []byte(`{}`)); !errors.Is(err, simulator.ErrNoWebhook) {
		t.Errorf("got %v, want ErrNoWebhook", err)
	}
	if err := s.SetWebhookURL("http://127.0.0.1:1/webhooks/main/secret"); err != nil {
		t.Fatal(err)
	}
	r := s.do(http.MethodPost, "/_sim/webhook", `{}`)
	if r.status != http.StatusBadGateway || strings.Contains(r.body, "secret") {
		t.Errorf("nobody there: %d %s, want 502 without the URL", r.status, r.body)
	}
	if err := s.SetWebhookURL("nowhere"); err == nil {
		t.Error("a URL without a host was registered")
	}
}

func TestRecordIsBounded(t *testing.T) {
	t.Parallel()
	for keep, want := range map[int][]string{3: {"c", "d", "e"}, -1: nil, 10: {"a", "b", "c", "d", "e"}} {
		s := start(t, simulator.Config{KeepRequests: keep})
		for _, text := range []string{"a", "b", "c", "d", "e"} {
			messageID(t, s.do(http.MethodPost, "/v2/send_message", whatsApp(text)))
		}
		var got []string
		for i, send := range s.Sends() {
			got = append(got, send.Text)
			if want := 5 - len(want) + i + 1; send.Seq != want {
				t.Errorf("keep %d: request %d has number %d, want %d", keep, i, send.Seq, want)
			}
		}
		if strings.Join(got, "") != strings.Join(want, "") {
			t.Errorf("keep %d: kept %v, want %v", keep, got, want)
		}
		if v := s.View(); v.Requests != 5 || v.Accepted != 5 {
			t.Errorf("keep %d: counters %+v", keep, v)
		}
		s.want(http.MethodGet, "/_sim/requests?count=1", "", 200, `{"count":5}`)
	}
}
