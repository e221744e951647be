package simulator_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

func TestSendMessage(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	id := messageID(t, s.do(http.MethodPost, "/v2/send_message", whatsApp("hello")))

	sends := s.Sends()
	if len(sends) != 1 {
		t.Fatalf("%d sends recorded, want 1", len(sends))
	}
	got := sends[0]
	if got.MessageID != id || !got.Accepted() || got.Text != "hello" || got.ChatID != "79998887766" ||
		got.ChannelID != simulator.ChannelWhatsApp || got.ChatType != "whatsapp" || got.Status != http.StatusCreated {
		t.Errorf("recorded %+v", got)
	}
	quote := fmt.Sprintf(`{"channelId":%q,"chatType":"whatsapp","chatId":"79998887766","text":"re","refMessageId":%q}`, simulator.ChannelWhatsApp, id)
	if second := messageID(t, s.do(http.MethodPost, "/v2/send_message", quote)); second == id {
		t.Error("two messages have the same id")
	}
}

func TestSendMessageRefusals(t *testing.T) {
	t.Parallel()
	const (
		unpaid   = "b0000000-0000-4000-8000-000000000001"
		disabled = "b0000000-0000-4000-8000-000000000002"
		noPhone  = "b0000000-0000-4000-8000-000000000003"
		strange  = "b0000000-0000-4000-8000-000000000004"
		nobody   = "b0000000-0000-4000-8000-000000000009"
	)
	s := start(t, simulator.Config{Channels: append(simulator.DefaultChannels(),
		simulator.Channel{ChannelID: unpaid, Transport: "whatsapp", State: simulator.StateNotEnoughMoney},
		simulator.Channel{ChannelID: disabled, Transport: "whatsapp", State: simulator.StateDisabled},
		simulator.Channel{ChannelID: noPhone, Transport: "whatsapp", State: simulator.StatePhoneUnavailable},
		simulator.Channel{ChannelID: strange, Transport: "whatsapp", State: "rejectedByTheMoon"},
	)})
	wa := simulator.ChannelWhatsApp
	body := func(pairs ...string) string { // name, JSON value, …
		members := make([]string, 0, len(pairs)/2)
		for i := 0; i < len(pairs); i += 2 {
			members = append(members, fmt.Sprintf("%q:%s", pairs[i], pairs[i+1]))
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	to := func(pairs ...string) string { // the same, behind a sound addressee
		return body(append([]string{"channelId", `"` + wa + `"`, "chatType", `"whatsapp"`, "chatId", `"79998887766"`}, pairs...)...)
	}
	tests := []struct {
		name, body, want string // want "" = 201
	}{
		{"text of 10,000 characters", whatsApp(strings.Repeat("ж", 10_000)), ""},
		{"text of 10,001 characters", whatsApp(strings.Repeat("ж", 10_001)), "MESSAGE_TEXT_TOO_LONG"},
		{"link", to("content", `"https://example.com/a.png"`), ""},
		{"unknown member", to("text", `"a"`, "crm", `1`), ""},
		{"null members", to("text", `"a"`, "content", `null`, "refMessageId", `null`), ""},
		{"nothing to send", to(), "MESSAGE_NOTHING_TO_SEND"},
		{"nulls to send", to("text", `null`, "content", `null`), "MESSAGE_NOTHING_TO_SEND"},
		{"blank text", to("text", `" \n"`), "MESSAGE_TEXT_CAN_NOT_BE_BLANK"},
		{"blank content", to("content", `""`), "MESSAGE_CONTENT_CAN_NOT_BE_BLANK"},
		{"text and content", to("text", `"a"`, "content", `"https://example.com/a.png"`), "MESSAGE_ONLY_TEXT_OR_CONTENT"},
		{"content no link", to("content", `"a.png"`), "VALIDATION_ERROR"},
		{"content no web link", to("content", `"ftp://example.com/a.png"`), "VALIDATION_ERROR"},
		{"text a number", to("text", `5`), "VALIDATION_ERROR"},
		{"chatId a number", body("channelId", `"`+wa+`"`, "chatType", `"whatsapp"`, "chatId", `79998887766`, "text", `"a"`), "VALIDATION_ERROR"},
		{"no channel", body("chatType", `"whatsapp"`, "chatId", `"79998887766"`, "text", `"a"`), "VALIDATION_ERROR"},
		{"channel no uuid", textTo("first", "whatsapp", "79998887766", "a"), "VALIDATION_ERROR"},
		{"unknown channel", textTo(nobody, "whatsapp", "79998887766", "a"), "CHANNEL_NOT_FOUND"},
		{"channel in capitals", textTo(strings.ToUpper(wa), "whatsapp", "79998887766", "a"), ""},
		{"unpaid channel", textTo(unpaid, "whatsapp", "79998887766", "a"), "CHANNEL_NO_MONEY"},
		{"disabled channel", textTo(disabled, "whatsapp", "79998887766", "a"), "CHANNEL_BLOCKED"},
		{"channel without its phone", textTo(noPhone, "whatsapp", "79998887766", "a"), "MESSAGE_CHANNEL_UNAVAILABLE"},
		{"channel in an unknown state", textTo(strange, "whatsapp", "79998887766", "a"), "MESSAGE_CHANNEL_UNAVAILABLE"},
		{"no chat type", body("channelId", `"`+wa+`"`, "chatId", `"79998887766"`, "text", `"a"`), "CHAT_MISSING_CHAT_TYPE"},
		{"unknown chat type", textTo(wa, "icq", "79998887766", "a"), "CHAT_WRONG_CHAT_TYPE"},
		{"group chat", textTo(wa, "whatsgroup", "79998887766-1611143663", "a"), "CHAT_WRONG_CHAT_TYPE"},
		{"no chat id", body("channelId", `"`+wa+`"`, "chatType", `"whatsapp"`, "text", `"a"`), "CHAT_MISSING_CHAT_ID"},
		{"8 digits", textTo(wa, "whatsapp", "12345678", "a"), "CHAT_INCORRECT_CHAT_ID_WHATSAPP"},
		{"9 digits", textTo(wa, "whatsapp", "123456789", "a"), ""},
		{"16 digits", textTo(wa, "whatsapp", "1234567890123456", "a"), ""},
		{"17 digits", textTo(wa, "whatsapp", "12345678901234567", "a"), "CHAT_INCORRECT_CHAT_ID_WHATSAPP"},
		{"plus sign", textTo(wa, "whatsapp", "+79998887766", "a"), "CHAT_INCORRECT_CHAT_ID_WHATSAPP"},
		{"Russian number with 8", textTo(wa, "whatsapp", "89998887766", "a"), "CHAT_INCORRECT_CHAT_ID_WHATSAPP"},
		{"Instagram account", textTo(simulator.ChannelInstagram, "instagram", "wazzuptest", "a"), ""},
		{"Instagram account with @", textTo(simulator.ChannelInstagram, "instagram", "@wazzuptest", "a"), "VALIDATION_ERROR"},
		{"Telegram text and content", fmt.Sprintf(`{"channelId":%q,"chatType":"telegram","chatId":"someone","text":"a","content":"https://example.com/a.pdf"}`, simulator.ChannelTelegram), ""},
		{"Instagram chat by WhatsApp channel", textTo(wa, "instagram", "wazzuptest", "a"), "MESSAGES_ABNORMAL_SEND"},
		{"WhatsApp chat by Instagram channel", textTo(simulator.ChannelInstagram, "whatsapp", "79998887766", "a"), "MESSAGES_INVALID_CONTACT_TYPE"},
		{"quote of nothing", to("text", `"a"`, "refMessageId", `"10d90130-38f6-421c-ada9-951f82884056"`), "REFERENCE_MESSAGE_NOT_FOUND"},
		{"array", `[]`, "VALIDATION_ERROR"},
		{"no JSON", `{"channelId":`, "VALIDATION_ERROR"},
		{"empty", ``, "VALIDATION_ERROR"},
	}
	accepted := 0
	for _, tt := range tests {
		r := s.do(http.MethodPost, "/v2/send_message", tt.body)
		if tt.want == "" {
			if r.status != http.StatusCreated {
				t.Errorf("%s: %d %s, want 201", tt.name, r.status, r.body)
			}
			accepted++
			continue
		}
		var shape struct {
			Errors []struct{ Code, Description string }
		}
		if err := json.Unmarshal([]byte(r.body), &shape); err != nil || len(shape.Errors) != 1 {
			t.Errorf("%s: %d %q is not the shape of an error", tt.name, r.status, r.body)
			continue
		}
		if e := shape.Errors[0]; r.status != http.StatusBadRequest || e.Code != tt.want || e.Description == "" {
			t.Errorf("%s: %d %+v, want 400 %s", tt.name, r.status, e, tt.want)
		}
	}
	if got := s.View().Accepted; got != accepted {
		t.Errorf("%d messages taken, want %d", got, accepted)
	}
}

func TestSendToGroupsWhenAllowed(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{Groups: true})
	messageID(t, s.do(http.MethodPost, "/v2/send_message", textTo(simulator.ChannelWhatsApp, "whatsgroup", "79998887766-1611143663", "a")))
}

func TestBodiesThatAreNotRead(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{MaxBody: 1000})
	big := whatsApp(strings.Repeat("a", 1000))
	if r := s.do(http.MethodPost, "/v2/send_message", big); r.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body over the limit: %d, want 413", r.status)
	}
	if r := s.do(http.MethodPost, "/_sim/inbound", big); r.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a control body over the limit: %d, want 413", r.status)
	}
	header := http.Header{"Authorization": {"Basic " + testKey}, "Content-Type": {"application/x-www-form-urlencoded"}}
	r, err := s.tryWith(t.Context(), http.MethodPost, "/v2/send_message", "text=a", header)
	if err != nil || r.status != http.StatusBadRequest || !strings.Contains(r.body, "VALIDATION_ERROR") {
		t.Errorf("a form: %d %s %v, want 400 VALIDATION_ERROR", r.status, r.body, err)
	}
	header.Set("Content-Type", "application/json; charset-utf-8") // the vendor's own malformed one
	r, err = s.tryWith(t.Context(), http.MethodPost, "/v2/send_message", whatsApp("a"), header)
	if err != nil || r.status != http.StatusCreated {
		t.Errorf("a malformed parameter of the type: %d %s %v, want 201", r.status, r.body, err)
	}
}

func TestAuthorization(t *testing.T) {
	t.Parallel()
	open := start(t, simulator.Config{})
	closed := start(t, simulator.Config{Keys: []string{testKey, "second"}})
	tests := []struct {
		name, header   string
		open, withKeys int
	}{
		{"none", "", 401, 401},
		{"empty key", "Basic ", 401, 401},
		{"no scheme", testKey, 401, 401},
		{"bearer", "Bearer " + testKey, 401, 401},
		{"any key", "Basic any", 200, 401},
		{"right key", "Basic " + testKey, 200, 200},
		{"second key", "Basic second", 200, 200},
	}
	for _, tt := range tests {
		for _, side := range []struct {
			sim  *sim
			want int
		}{{open, tt.open}, {closed, tt.withKeys}} {
			header := http.Header{}
			if tt.header != "" {
				header.Set("Authorization", tt.header)
			}
			r, err := side.sim.tryWith(t.Context(), http.MethodGet, "/v2/channels", "", header)
			if err != nil || r.status != side.want {
				t.Errorf("%s: %d %v, want %d", tt.name, r.status, err, side.want)
			}
			if side.want == 401 && !sameJSON(r.body, `{"error":{"code":"ACCOUNT_NOT_FOUND","description":"The API key is missing or not known."}}`) {
				t.Errorf("%s: body %s", tt.name, r.body)
			}
		}
	}
}

func TestChannels(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{Channels: []simulator.Channel{
		{ChannelID: simulator.ChannelWhatsApp, Transport: "whatsapp", PlainID: "79865784457", State: "active"},
	}})
	s.want(http.MethodGet, "/v2/channels", "", 200,
		`[{"channelId":"`+simulator.ChannelWhatsApp+`","transport":"whatsapp","plainId":"79865784457","state":"active"}]`)
	none := start(t, simulator.Config{Channels: []simulator.Channel{}})
	none.want(http.MethodGet, "/v2/channels", "", 200, `[]`)
}

func TestUnknownRoutes(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	tests := []struct {
		method, path string
		status       int
		allow        string
	}{
		{http.MethodGet, "/v2/send_message", 405, "POST"},
		{http.MethodPost, "/v2/channels", 405, "GET"},
		{http.MethodDelete, "/v2/webhooks", 405, "GET, PUT"},
		{http.MethodGet, "/v2/iframe", 405, "POST"},
		{http.MethodPost, "/v2/users", 405, "GET, PATCH, PUT"},
		{http.MethodPut, "/v2/contacts", 405, "GET, PATCH"},
		{http.MethodPatch, "/v2/deals/1", 405, "GET, DELETE"},
		{http.MethodGet, "/v2/channels/1", 404, ""},
		{http.MethodGet, "/v2/templates", 404, ""},
		{http.MethodGet, "/v3/channels", 404, ""},
		{http.MethodGet, "/", 404, ""},
	}
	for _, tt := range tests {
		r := s.do(tt.method, tt.path, "")
		if r.status != tt.status || r.header.Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d, Allow %q, want %d, %q", tt.method, tt.path, r.status, r.header.Get("Allow"), tt.status, tt.allow)
		}
	}
	if got := len(s.Requests()); got != len(tests) {
		t.Errorf("%d requests recorded, want %d", got, len(tests))
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	s.want(http.MethodGet, "/v2/users", "", 200, `[]`)
	s.want(http.MethodPatch, "/v2/users", `[{"id":17,"name":"A"},{"id":"a/b ?","name":"B","team":{"x":1}}]`, 200, ``)
	s.want(http.MethodGet, "/v2/users", "", 200, `[{"id":17,"name":"A"},{"id":"a/b ?","name":"B","team":{"x":1}}]`)
	s.want(http.MethodGet, "/v2/users/17", "", 200, `{"id":17,"name":"A"}`)
	s.want(http.MethodGet, "/v2/users/a%2Fb%20%3F", "", 200, `{"id":"a/b ?","name":"B","team":{"x":1}}`)
	// The same id as text is the same user, kept as it came last; members that are not given stay.
	s.want(http.MethodPatch, "/v2/users", `[{"id":"17","phone":"1"}]`, 200, ``)
	s.want(http.MethodGet, "/v2/users/17", "", 200, `{"id":"17","name":"A","phone":"1"}`)
	s.want(http.MethodPut, "/v2/users", `[{"id":3,"name":"C"}]`, 200, ``)
	s.want(http.MethodGet, "/v2/users", "", 200, `[{"id":3,"name":"C"}]`)
	s.want(http.MethodDelete, "/v2/users/3", "", 200, ``)
	s.want(http.MethodDelete, "/v2/users/3", "", 404, `{"errors":[{"code":"USER_NOT_FOUND","description":"There is none with this id."}]}`)
	s.want(http.MethodGet, "/v2/users/3", "", 404, `-`)
	s.want(http.MethodPut, "/v2/users", `[]`, 200, ``)
	if got := s.Users(); len(got) != 0 {
		t.Errorf("users left: %s", got)
	}
}

func TestContactsAndDeals(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	contact := `{"id":9007199254740993,"responsibleUserId":"u","name":"A","chats":[{"chatType":"whatsapp","chatId":79998887766}],"deals":[1,"2"]}`
	s.want(http.MethodPatch, "/v2/contacts", "["+contact+"]", 200, ``)
	s.want(http.MethodGet, "/v2/contacts/9007199254740993", "", 200, contact) // beyond a double's integers
	s.want(http.MethodGet, "/v2/contacts/1", "", 404, `{"errors":[{"code":"CONTACT_NOT_FOUND","description":"There is none with this id."}]}`)
	deal := `{"id":1,"responsibleUserId":7,"name":"D","closed":false,"contacts":[9007199254740993]}`
	s.want(http.MethodPatch, "/v2/deals", "["+deal+"]", 200, ``)
	s.want(http.MethodGet, "/v2/deals", "", 200, "["+deal+"]")
	if got := s.Deals(); len(got) != 1 || !sameJSON(string(got[0]), deal) {
		t.Errorf("deals: %s", got)
	}
	s.want(http.MethodDelete, "/v2/deals/1", "", 200, ``)
	s.want(http.MethodDelete, "/v2/deals/1", "", 404, `{"errors":[{"code":"DEAL_NOT_FOUND","description":"There is none with this id."}]}`)
	s.want(http.MethodDelete, "/v2/contacts/9007199254740993", "", 200, ``)
	if got := s.Contacts(); len(got) != 0 {
		t.Errorf("contacts left: %s", got)
	}
}

func TestEntityRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	tooMany := "[" + strings.Repeat(`{"id":1},`, 100) + `{"id":1}]`
	tests := []struct{ name, method, path, body, want string }{
		{"object", "PATCH", "/v2/users", `{"id":1}`, "The body must be an array of objects."},
		{"null", "PATCH", "/v2/users", `null`, "The body must be an array of objects."},
		{"item no object", "PATCH", "/v2/users", `[1]`, "The body must be an array of objects."},
		{"101 items", "PATCH", "/v2/contacts", tooMany, "At most 100 at once."},
		{"101 users replaced", "PUT", "/v2/users", tooMany, "At most 100 at once."},
		{"no id", "PATCH", "/v2/users", `[{"name":"A"}]`, "[0].id is missing."},
		{"second without id", "PATCH", "/v2/users", `[{"id":1},{"id":null}]`, "[1].id is missing."},
		{"empty id", "PATCH", "/v2/deals", `[{"id":""}]`, "[0].id must be a string that is not empty, or a number."},
		{"id a boolean", "PATCH", "/v2/contacts", `[{"id":true}]`, "[0].id must be a string that is not empty, or a number."},
		{"user id a fraction", "PATCH", "/v2/users", `[{"id":1.5}]`, "[0].id must be a string or an integer."},
		{"user id too long", "PATCH", "/v2/users", `[{"id":"` + strings.Repeat("ж", 65) + `"}]`, "[0].id must not be longer than 64 characters."},
		{"user name too long", "PATCH", "/v2/users", `[{"id":1,"name":"` + strings.Repeat("ж", 151) + `"}]`, "[0].name must not be longer than 150 characters."},
		{"name a number", "PATCH", "/v2/deals", `[{"id":1,"name":5}]`, "[0].name must be a string."},
		{"responsible user an object", "PATCH", "/v2/contacts", `[{"id":1,"responsibleUserId":{}}]`, "[0].responsibleUserId must be a string or a number."},
		{"closed a string", "PATCH", "/v2/deals", `[{"id":1,"closed":"no"}]`, "[0].closed must be a boolean."},
		{"contacts no array", "PATCH", "/v2/deals", `[{"id":1,"contacts":1}]`, "[0].contacts must be an array."},
		{"contact of a deal a boolean", "PATCH", "/v2/deals", `[{"id":1,"contacts":[1,false]}]`, "[0].contacts[1] must be a string or a number."},
		{"chats no array", "PATCH", "/v2/contacts", `[{"id":1,"chats":{}}]`, "[0].chats must be an array of objects."},
		{"chat without type", "PATCH", "/v2/contacts", `[{"id":1,"chats":[{"chatId":1}]}]`, "[0].chats[0].chatType must be a string."},
		{"chat without id", "PATCH", "/v2/contacts", `[{"id":1,"chats":[{"chatType":"vk"}]}]`, "[0].chats[0].chatId must be a string or a number."},
		{"negative offset", "GET", "/v2/contacts?offset=-1", ``, "offset must be a non-negative integer."},
		{"offset no number", "GET", "/v2/deals?offset=x", ``, "offset must be a non-negative integer."},
		{"unknown order", "GET", "/v2/deals?orderBy=closed", ``, "orderBy must be id, name or responsibleUserId."},
		{"unknown direction", "GET", "/v2/contacts?orderDirection=up", ``, "orderDirection must be asc or desc."},
	}
	for _, tt := range tests {
		r := s.do(tt.method, tt.path, tt.body)
		want, _ := json.Marshal(map[string]any{"errors": []any{map[string]any{"code": "VALIDATION_ERROR", "description": tt.want}}})
		if r.status != http.StatusBadRequest || !sameJSON(r.body, string(want)) {
			t.Errorf("%s: %d %s, want 400 %s", tt.name, r.status, r.body, want)
		}
	}
	if u, c, d := s.Users(), s.Contacts(), s.Deals(); len(u)+len(c)+len(d) != 0 {
		t.Errorf("a refused write left users %s, contacts %s, deals %s", u, c, d)
	}
}

func TestPagesOfContacts(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	for batch := range 3 {
		items := make([]string, 100) // c199, c298 and c299 are left out
		for i := range items {
			n := batch*100 + i
			items[i] = fmt.Sprintf(`{"id":"c%03d","name":"n%03d","responsibleUserId":%d}`, n, 299-n, n%2)
		}
		s.want(http.MethodPatch, "/v2/contacts", "["+strings.Join(items[:len(items)-batch], ",")+"]", 200, ``)
	}
	tests := []struct {
		query       string
		length      int
		first, last string
	}{
		{"", 100, "c000", "c099"},
		{"?offset=100", 100, "c100", "c200"},
		{"?offset=200", 97, "c201", "c297"},
		{"?offset=297", 0, "", ""},
		{"?offset=5000", 0, "", ""},
		{"?orderDirection=desc", 100, "c297", "c197"},
		{"?orderBy=name", 100, "c297", "c197"},
		{"?orderBy=name&orderDirection=desc&offset=290", 7, "c291", "c297"},
		{"?orderBy=responsibleUserId&offset=200", 97, "c103", "c297"},
	}
	for _, tt := range tests {
		var page []struct{ ID string }
		if err := json.Unmarshal([]byte(s.do(http.MethodGet, "/v2/contacts"+tt.query, "").body), &page); err != nil {
			t.Fatal(err)
		}
		first, last := "", ""
		if len(page) > 0 {
			first, last = page[0].ID, page[len(page)-1].ID
		}
		if len(page) != tt.length || first != tt.first || last != tt.last {
			t.Errorf("%q: %d from %s to %s, want %d from %s to %s", tt.query, len(page), first, last, tt.length, tt.first, tt.last)
		}
	}
}

func TestIframe(t *testing.T) {
	t.Parallel()
	s := start(t, simulator.Config{})
	tests := []struct {
		name, body string
		status     int
	}{
		{"global", `{"user":{"id":"222555","name":"User Name"},"scope":"global"}`, 200},
		{"card", `{"user":{"id":1,"name":"N"},"scope":"card","filter":[{"chatType":"whatsapp","chatId":"79998887766","name":"C"}],"activeChat":{"chatType":"whatsapp","chatId":79998887766}}`, 200},
		{"active chat in an array", `{"user":{"id":1},"scope":"card","filter":[{"chatType":"vk","chatId":"1"}],"activeChat":[{"chatType":"vk","chatId":"1"}]}`, 200},
		{"no user", `{"scope":"global"}`, 400},
		{"user without id", `{"user":{"name":"N"},"scope":"global"}`, 400},
		{"no scope", `{"user":{"id":1}}`, 400},
		{"unknown scope", `{"user":{"id":1},"scope":"all"}`, 400},
		{"card without filter", `{"user":{"id":1},"scope":"card"}`, 400},
		{"filter no array", `{"user":{"id":1},"scope":"card","filter":{"chatType":"vk","chatId":"1"}}`, 400},
		{"unknown chat type", `{"user":{"id":1},"scope":"card","filter":[{"chatType":"icq","chatId":"1"}]}`, 400},
		{"active chat a string", `{"user":{"id":1},"scope":"global","activeChat":"vk"}`, 400},
		{"no JSON", `user`, 400},
	}
	for _, tt := range tests {
		r := s.do(http.MethodPost, "/v2/iframe", tt.body)
		if r.status != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.name, r.status, r.body, tt.status)
		}
		var body struct{ URL string }
		if err := json.Unmarshal([]byte(r.body), &body); err != nil || (tt.status == 200) != strings.HasPrefix(body.URL, "https://") {
			t.Errorf("%s: body %s", tt.name, r.body)
		}
	}
}

func TestWebhookRegistration(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	hooks := &receiver{answer: func(int) int { return status }}
	url := serveReceiver(t, hooks)
	s := start(t, simulator.Config{Retries: -1})
	put := func(url string) reply { return s.do(http.MethodPut, "/v2/webhooks", `{"url":`+url+`}`) }

	s.want(http.MethodGet, "/v2/webhooks", "", 200, `{"webhooksUrl":null}`)
	s.want(http.MethodPut, "/v2/webhooks", `{"url":"`+url+`"}`, 200, `{"webhooksUrl":"`+url+`","webhooksUrlChanged":true}`)
	s.want(http.MethodPut, "/v2/webhooks", `{"url":"`+url+`"}`, 200, `{"webhooksUrl":"`+url+`","webhooksUrlChanged":false}`)
	s.want(http.MethodGet, "/v2/webhooks", "", 200, `{"webhooksUrl":"`+url+`"}`)
	if got := hooks.all(); len(got) != 2 || got[0] != `{"messages":[],"channels":[],"statuses":[]}` {
		t.Errorf("test calls: %q", got)
	}

	// A receiver that does not answer 200 is not registered; the one before stays.
	status = http.StatusNoContent
	s.want(http.MethodPut, "/v2/webhooks", `{"url":"`+url+`/other"}`, 400,
		`{"error":{"code":"testPostNotPassed","description":"URI does not return 200 OK on test request","data":{"status":204}}}`)
	if got := put(`"http://127.0.0.1:1/"`); got.status != 400 || !strings.Contains(got.body, "testPostNotPassed") {
		t.Errorf("nobody there: %d %s", got.status, got.body)
	}
	for name, bad := range map[string]string{
		"no URL": `"example"`, "no web URL": `"ftp://example.com"`, "too long": `"https://example.com/` + strings.Repeat("a", 200) + `"`,
	} {
		if got := put(bad); got.status != 400 || !strings.Contains(got.body, "uriNotValid") {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	for name, bad := range map[string]string{"a number": `{"url":5}`, "nothing": `{}`, "no object": `[]`} {
		if got := s.do(http.MethodPut, "/v2/webhooks", bad); got.status != 400 || !strings.Contains(got.body, "VALIDATION_ERROR") {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if got := s.WebhookURL(); got != url {
		t.Errorf("registered is %q, want the first one", got)
	}
	s.want(http.MethodPut, "/v2/webhooks", `{"url":null}`, 200, `{"webhooksUrl":null,"webhooksUrlChanged":true}`)
	s.want(http.MethodPut, "/v2/webhooks", `{"url":null}`, 200, `{"webhooksUrl":null,"webhooksUrlChanged":false}`)
	s.want(http.MethodGet, "/v2/webhooks", "", 200, `{"webhooksUrl":null}`)
}

func TestRateLimitIsAFixedWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := simulator.New(simulator.Config{Rate: simulator.Rate{Requests: 3, Window: 5 * time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		get := func() int {
			w := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/channels", nil)
			r.Header.Set("Authorization", "Basic "+testKey)
			s.Handler().ServeHTTP(w, r)
			return w.Code
		}
		wait := func(d time.Duration) { <-time.After(d) }
		for i, step := range []struct {
			after time.Duration
			want  int
		}{
			{0, 200},
			{4 * time.Second, 200},
			{0, 200},
			{999 * time.Millisecond, 429}, // the window began with the first request
			{time.Millisecond, 200},
			{0, 200},
			{0, 200},
			{0, 429},
		} {
			wait(step.after)
			if got := get(); got != step.want {
				t.Errorf("request %d: %d, want %d", i+1, got, step.want)
			}
		}
	})
}
