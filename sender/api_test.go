package sender_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// byContract holds what was asked and answered to the contract: a request that
// breaks its schema must have been refused as one.
func (r *rig) byContract(name, body string, m *nats.Msg) {
	r.t.Helper()
	if err := schematest.Answer(name, []byte(body), m.Header, m.Data); err != nil {
		r.t.Error(err)
	}
}

// vendorHas stores entities at the vendor, a hundred at a time as it takes them.
func (r *rig) vendorHas(e schema.Entity, items []string) {
	r.t.Helper()
	client, err := wazzup.NewClient(wazzup.Config{BaseURL: r.sim.URL(), Key: func() string { return "key" }})
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	for batch := range slices.Chunk(items, wazzup.MaxBatch) {
		if a := client.Patch(r.t.Context(), e, json.RawMessage("["+strings.Join(batch, ",")+"]")); !a.OK() {
			r.t.Fatal(a.String())
		}
	}
}

// page asks for a part of a list.
func (r *rig) page(name, body string) sender.List {
	r.t.Helper()
	got := r.ask(name, body)
	var list sender.List
	if err := json.Unmarshal(got.Body, &list); got.Code != "" || err != nil {
		r.t.Fatalf("%s %s: %s %+v %v", name, body, got.Code, got.Error, err)
	}
	if len(got.Body) > int(r.nc.MaxPayload()) {
		r.t.Errorf("%s: %d bytes", name, len(got.Body))
	}
	return list
}

// wholeList follows next to the end and returns the items' ids.
func (r *rig) wholeList(t *testing.T, name, order string) (ids []string, pages int) {
	t.Helper()
	for offset := 0; ; pages++ {
		list := r.page(name, fmt.Sprintf(`{"offset":%d%s}`, offset, order))
		for _, item := range list.Items {
			var e struct {
				ID json.RawMessage `json:"id"`
			}
			if err := json.Unmarshal(item, &e); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, schema.EntityID(e.ID))
		}
		if list.Next == 0 {
			return ids, pages + 1
		}
		if list.Next <= offset && len(list.Items) > 0 {
			t.Fatalf("%s: next is %d after %d", name, list.Next, offset)
		}
		offset = list.Next
	}
}

func numbered(n int, format string) []string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(format, i)
	}
	return items
}

// Lists are read to their end: those that the vendor pages and those that it does
// not, in either direction, and none is ever larger than a message.
func TestLists(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	long := strings.Repeat("я", 100)
	r.vendorHas(schema.EntityUsers, numbered(9000, `{"id":"user-%05d","name":"`+long+`"}`))
	r.vendorHas(schema.EntityContacts, numbered(250, `{"id":"contact-%03d","name":"x"}`))
	r.vendorHas(schema.EntityDeals, numbered(250, `{"id":"deal-%03d","note":"`+strings.Repeat("x", 20_000)+`"}`))
	r.start(r.config())
	for _, tt := range []struct {
		list          string
		count, fewest int // of items, of pages
	}{
		{"users.list", 9000, 2}, {"contacts.list", 250, 3}, {"deals.list", 250, 5},
	} {
		ids, pages := r.wholeList(t, tt.list, "")
		if len(ids) != tt.count || !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != tt.count || pages < tt.fewest {
			t.Errorf("%s: got %d items in %d pages, want %d different in order, in %d or more", tt.list, len(ids), pages, tt.count, tt.fewest)
		}
		back, _ := r.wholeList(t, tt.list, `,"orderBy":"id","orderDirection":"desc"`)
		slices.Reverse(back)
		if !slices.Equal(back, ids) {
			t.Errorf("%s: the way back differs from the way there", tt.list)
		}
	}
	if list := r.page("users.list", `{"offset":10000}`); len(list.Items) != 0 || list.Next != 0 {
		t.Errorf("beyond the end: got %d items, next %d", len(list.Items), list.Next)
	}
	if list := r.page("channels.list", `{"orderBy":"state","orderDirection":"desc","offset":1}`); len(list.Items) != len(r.sim.Channels())-1 {
		t.Errorf("channels.list: got %d channels, want all but the first", len(list.Items))
	}
	asked := r.sim.Requests()
	if i := slices.IndexFunc(asked, func(q simulator.Request) bool {
		return q.Path == "/v2/contacts" && q.Query == "offset=100&orderBy=id&orderDirection=desc"
	}); i < 0 {
		t.Error("the vendor was not asked for the page that was wanted")
	}
}

// What no message can hold is named, and does not hide what stands beside it.
func TestListOfLargeItems(t *testing.T) {
	t.Parallel()
	r := newRigOf(t, simulator.Config{MaxBody: 8 << 20})
	huge := `{"id":"b","note":"` + strings.Repeat("x", 2<<20) + `"}`
	r.vendorHas(schema.EntityContacts, []string{`{"id":"a"}`, huge, `{"id":"c"}`})
	r.start(r.config())
	if list := r.page("contacts.list", ``); len(list.Items) != 1 || list.Next != 1 {
		t.Errorf("got %d items, next %d; want one, then 1", len(list.Items), list.Next)
	}
	got := r.ask("contacts.list", `{"offset":1}`)
	if got.Code != "413" || !strings.Contains(got.Error.Description, "offset 1") || !strings.Contains(got.Error.Description, "goes on at 2") {
		t.Errorf("the large one: got %s %+v", got.Code, got.Error)
	}
	if list := r.page("contacts.list", `{"offset":2}`); len(list.Items) != 1 || list.Next != 0 {
		t.Errorf("behind it: got %d items, next %d", len(list.Items), list.Next)
	}
	if got := r.ask("contacts.get", `{"id":"b"}`); got.Code != "413" || got.Error.Code != "TOO_LARGE" {
		t.Errorf("by its id: got %s %+v", got.Code, got.Error)
	}
}

// Any id that a command takes finds its entity, and everything of it comes back.
func TestGet(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, e := range schema.Entities() {
		r.vendorHas(e, []string{`{"id":17,"name":"number","extra":{"a":[1,2.50]}}`, `{"id":"a/b %2F?#ё","name":"text"}`})
	}
	r.start(r.config())
	for _, e := range schema.Entities() {
		for id, want := range map[string]string{
			`17`: `{"extra":{"a":[1,2.50]},"id":17,"name":"number"}`, `"17"`: `{"extra":{"a":[1,2.50]},"id":17,"name":"number"}`,
			`"a/b %2F?#ё"`: `{"id":"a/b %2F?#ё","name":"text"}`,
		} {
			if got := r.ask(string(e)+".get", `{"id":`+id+`}`); got.Code != "" || string(got.Body) != want {
				t.Errorf("%s %s: got %s %s", e, id, got.Code, got.Body)
			}
		}
		if got := r.ask(string(e)+".get", `{"id":"nobody"}`); got.Code != "404" || got.Error.HTTPStatus != 404 || !strings.HasSuffix(got.Error.Code, "_NOT_FOUND") {
			t.Errorf("%s: nobody: got %s %+v, want 404 and Wazzup's word", e, got.Code, got.Error)
		}
	}
}

const windowBody = `{"user":{"id":"222555","name":"User Name"},"scope":"card","filter":[{"chatType":"whatsapp","chatId":"79998887766","name":"Anna"}],` +
	`"activeChat":[{"chatType":"whatsapp","chatId":"79998887766"}]}`

// The window's body reaches the vendor as it was written.
func TestChatWindow(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	bodies := []string{
		windowBody,
		`{"user":{"id":17},"scope":"global"}`,
		`{"scope":"global","user":{"id":"u","name":""},"activeChat":{"chatType":"telegram","chatId":4242},"filter":[]}`,
		`{"user":{"id":1},"scope":"card","filter":[{"chatType":"instagram","chatId":"name"},{"chatType":"vk","chatId":7}]}`,
	}
	for _, body := range bodies {
		got := r.ask("iframe.open", body)
		var window sender.ChatWindow
		if err := json.Unmarshal(got.Body, &window); err != nil || got.Code != "" || !strings.HasPrefix(window.URL, "https://") {
			t.Errorf("%s: got %s %s", body, got.Code, got.Body)
		}
	}
	var reached []string
	for _, q := range r.sim.Requests() {
		if q.Path == "/v2/iframe" {
			reached = append(reached, string(q.Body))
		}
	}
	if !slices.Equal(reached, bodies) {
		t.Errorf("the vendor got %q", reached)
	}
}

// Whatever is wrong with a request is named by its field and never reaches the
// vendor. Each body breaks its JSON Schema too, except where that cannot say it.
func TestRequestFaults(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	r.channelsRead()
	before := len(r.sim.Requests())
	for _, tt := range []struct{ request, body, field, code string }{
		{"users.list", `{"limit":1}`, "limit", "UNKNOWN_FIELD"},
		{"users.list", `{"offset":-1}`, "offset", "NOT_ALLOWED"},
		{"users.list", `{"offset":"1"}`, "offset", "WRONG_TYPE"},
		{"users.list", `{"offset":1.5}`, "offset", "WRONG_TYPE"},
		{"users.list", `{"offset":1,"offset":2}`, "offset", "DUPLICATE_NAME"},
		{"users.list", `{"orderBy":"responsibleUserId"}`, "orderBy", "NOT_ALLOWED"},
		{"contacts.list", `{"orderBy":"chats"}`, "orderBy", "NOT_ALLOWED"},
		{"contacts.list", `{"orderBy":["id"]}`, "orderBy", "WRONG_TYPE"},
		{"deals.list", `{"orderDirection":"up"}`, "orderDirection", "NOT_ALLOWED"},
		{"channels.list", `{"orderBy":"name"}`, "orderBy", "NOT_ALLOWED"},
		{"channels.list", `[]`, "", "BAD_REQUEST"},
		{"channels.list", ` null`, "", "BAD_REQUEST"},
		{"deals.list", `{"offset":1`, "", "BAD_REQUEST"},
		{"deals.list", `{} {}`, "", "BAD_REQUEST"},
		{"users.get", ``, "id", "REQUIRED"},
		{"users.get", `{"id":""}`, "id", "EMPTY"},
		{"users.get", `{"id":true}`, "id", "WRONG_TYPE"},
		{"users.get", `{"id":"` + strings.Repeat("a", 65) + `"}`, "id", "TOO_LONG"},
		{"contacts.get", `{"id":".."}`, "id", "NOT_ALLOWED"},
		{"contacts.get", `{"id":"a","name":"b"}`, "name", "UNKNOWN_FIELD"},
		{"deals.get", `{"id":{"id":1}}`, "id", "WRONG_TYPE"},
		{"webhooks.get", `{"url":null}`, "url", "UNKNOWN_FIELD"},
		{"webhooks.set", `{"url":17}`, "url", "WRONG_TYPE"},
		{"webhooks.set", `{"url":"example.org"}`, "url", "NOT_A_URL"},
		{"webhooks.set", `{"url":"ftp://example.org/x"}`, "url", "NOT_A_URL"},
		{"iframe.open", `{"scope":"global"}`, "user", "REQUIRED"},
		{"iframe.open", `{"user":"17","scope":"global"}`, "user", "WRONG_TYPE"},
		{"iframe.open", `{"user":{},"scope":"global"}`, "user.id", "REQUIRED"},
		{"iframe.open", `{"user":{"id":1.5},"scope":"global"}`, "user.id", "WRONG_TYPE"},
		{"iframe.open", `{"user":{"id":1,"name":7},"scope":"global"}`, "user.name", "WRONG_TYPE"},
		{"iframe.open", `{"user":{"id":1,"name":"` + strings.Repeat("я", 151) + `"},"scope":"global"}`, "user.name", "TOO_LONG"},
		{"iframe.open", `{"user":{"id":1,"email":"x"},"scope":"global"}`, "user.email", "UNKNOWN_FIELD"},
		{"iframe.open", `{"user":{"id":1}}`, "scope", "REQUIRED"},
		{"iframe.open", `{"user":{"id":1},"scope":"all"}`, "scope", "NOT_ALLOWED"},
		{"iframe.open", `{"user":{"id":1},"scope":"card"}`, "filter", "REQUIRED"},
		{"iframe.open", `{"user":{"id":1},"scope":"card","filter":[]}`, "filter", "REQUIRED"},
		{"iframe.open", `{"user":{"id":1},"scope":"card","filter":{"chatType":"vk"}}`, "filter", "WRONG_TYPE"},
		{"iframe.open", `{"user":{"id":1},"scope":"card","filter":[{"chatType":"vk","chatId":"a"},{"chatId":"1"}]}`, "filter[1].chatType", "CHAT_MISSING_CHAT_TYPE"},
		{"iframe.open", `{"user":{"id":1},"scope":"card","filter":[{"chatType":"whatsgroup","chatId":"1"}]}`, "filter[0].chatType", "CHAT_WRONG_CHAT_TYPE"},
		{"iframe.open", `{"user":{"id":1},"scope":"card","filter":[{"chatType":"whatsapp","chatId":"+7 999"}]}`, "filter[0].chatId", "CHAT_INCORRECT_CHAT_ID_WHATSAPP"},
		{"iframe.open", `{"user":{"id":1},"scope":"card","filter":[{"chatType":"vk"}]}`, "filter[0].chatId", "CHAT_MISSING_CHAT_ID"},
		{"iframe.open", `{"user":{"id":1},"scope":"card","filter":[{"chatType":"vk","chatId":"a","phone":"1"}]}`, "filter[0].phone", "UNKNOWN_FIELD"},
		{"iframe.open", `{"user":{"id":1},"scope":"global","activeChat":"79998887766"}`, "activeChat", "WRONG_TYPE"},
		{"iframe.open", `{"user":{"id":1},"scope":"global","activeChat":{"chatType":"instagram","chatId":"@a"}}`, "activeChat.chatId", "LEADING_AT"},
		{"iframe.open", `{"user":{"id":1},"scope":"global","activeChat":{"chatType":"vk","chatId":true}}`, "activeChat.chatId", "WRONG_TYPE"},
		{"iframe.open", `{"user":{"id":1},"scope":"global","activeChat":[{"chatType":"vk","chatId":"a","x":1}]}`, "activeChat[0].x", "UNKNOWN_FIELD"},
		{"iframe.open", `{"user":{"id":1},"scope":"global","options":{}}`, "options", "UNKNOWN_FIELD"},
		{"lane.pause", `{}`, "channelId", "REQUIRED"},
		{"command.resolve", `{"id":"a","as":"lost"}`, "as", "NOT_ALLOWED"},
		{"dead.list", `{"filter":{"colour":"red"}}`, "filter.colour", "UNKNOWN_FIELD"},
	} {
		got := r.ask(tt.request, tt.body)
		field := ""
		if len(got.Error.Faults) > 0 {
			field = got.Error.Faults[0].Field
		}
		if got.Code != "400" || got.Error.Code != tt.code || field != tt.field || !strings.HasPrefix(got.Error.Description, tt.field) {
			t.Errorf("%s %s: got %s %+v, want %s of %q", tt.request, tt.body, got.Code, got.Error, tt.code, tt.field)
		}
	}
	for _, name := range []string{"group.get", "group.cancel", "group.pause", "group.resume"} {
		if got := r.ask(name, `{"id":"spring-sale"}`); got.Code != "501" || got.Error.Code != "NOT_IMPLEMENTED" {
			t.Errorf("%s: got %s %+v, want 501", name, got.Code, got.Error)
		}
	}
	if n := len(r.sim.Requests()) - before; n != 0 {
		t.Errorf("%d requests reached the vendor", n)
	}
}

// What the vendor does wrong becomes a fault with its code, in time.
func TestRequestsMeetTheVendorsFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		rule         simulator.Rule
		status, code string
	}{
		{"refused", simulator.Rule{Status: 400, Code: "VALIDATION_ERROR"}, "400", "VALIDATION_ERROR"},
		{"not open", simulator.Rule{Status: 403}, "403", "HTTP_403"},
		{"too many", simulator.Rule{Status: 429, Headers: map[string]string{"Retry-After": "1"}}, "429", "HTTP_429"},
		{"broken", simulator.Rule{Status: 500, Code: "UNKNOWN_ERROR"}, "500", "UNKNOWN_ERROR"},
		{"an error under 200", simulator.Rule{Status: 200, Body: `{"error":{"code":"VALIDATION_ERROR"}}`}, "502", "VALIDATION_ERROR"},
		{"no list", simulator.Rule{Status: 200, Body: `{"items":[]}`}, "502", "BAD_ANSWER"},
		{"nothing", simulator.Rule{Status: 200, Body: `null`}, "502", "BAD_ANSWER"},
		{"a page", simulator.Rule{Status: 200, Body: `<html>`}, "502", "BAD_ANSWER"},
		{"elsewhere", simulator.Rule{Status: 302}, "502", "HTTP_302"},
		{"dropped", simulator.Rule{Fault: simulator.FaultDropBeforeRead}, "502", "CONNECTION"},
		{"silent", simulator.Rule{Fault: simulator.FaultHang}, "504", "TIMEOUT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			if tt.rule.Fault == simulator.FaultHang {
				cfg.Timeout = 500 * time.Millisecond
			}
			tt.rule.Match.Path = "/v2/contacts"
			if err := r.sim.AddRule(tt.rule); err != nil {
				t.Fatal(err)
			}
			r.start(cfg)
			if got := r.ask("contacts.list", ``); got.Code != tt.status || got.Error.Code != tt.code || got.Error.Description == "" {
				t.Errorf("got %s %+v, want %s %s", got.Code, got.Error, tt.status, tt.code)
			}
		})
	}
}

// While the account is closed, requests say at once why and what opens it; the
// channel list, which does, is always asked for.
func TestRequestsOfAClosedAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/*"}, Status: 401}); err != nil {
		t.Fatal(err)
	}
	r.start(r.config())
	r.ops(schema.OpsAccountClosed)
	for _, name := range []string{"users.list", "webhooks.get", "iframe.open"} {
		body := map[string]string{"iframe.open": windowBody}[name]
		got := r.ask(name, body)
		if got.Code != "503" || got.Error.Code != "HTTP_401" || got.Error.Class != schema.ClassAccount || !strings.Contains(got.Error.Description, sender.ReopenOnAccount) {
			t.Errorf("%s: got %s %+v", name, got.Code, got.Error)
		}
	}
	for _, q := range r.sim.Requests() {
		if q.Path != "/v2/channels" {
			t.Errorf("%s reached the vendor", q.Path)
		}
	}
	if got := r.ask("channels.list", ``); got.Code != "401" {
		t.Errorf("channels.list: got %s %+v, want the vendor's own answer", got.Code, got.Error)
	}
	r.sim.ClearRules()
	r.page("channels.list", ``)
	r.ops(schema.OpsAccountOpened)
	r.page("users.list", ``)
}

// When calls keep failing, requests are refused without a call until the breaker
// lets one try; sends go on.
func TestRequestsBreaker(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/users"}, Status: 503}); err != nil {
		t.Fatal(err)
	}
	r.start(sender.OpenFor(r.config(), time.Hour))
	r.channelsRead() // it would forgive the faults
	for range 5 {
		if got := r.ask("users.list", ``); got.Code != "503" || got.Error.Code != "HTTP_503" {
			t.Fatalf("got %s %+v", got.Code, got.Error)
		}
	}
	before := len(r.sim.Requests())
	got := r.ask("contacts.list", ``)
	if got.Code != "503" || got.Error.Code != "BREAKER_OPEN" || !strings.Contains(got.Error.Description, "probe at 20") {
		t.Errorf("got %s %+v, want the breaker's word", got.Code, got.Error)
	}
	if n := len(r.sim.Requests()); n != before {
		t.Errorf("%d requests reached the vendor", n-before)
	}
	r.event(r.send("a", phone, "x"), schema.StateSent)
}

// Requests take at most their share of the account's rate, and of its calls in
// flight; what cannot be in time is refused at once, and sends go on.
func TestRequestsTakeTheirShare(t *testing.T) {
	t.Parallel()
	t.Run("rate", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		cfg := r.config()
		cfg.Rate = rate.Rate{N: 10, Per: time.Hour}
		r.start(cfg)
		r.channelsRead() // one of the eight
		codes := map[string]int{}
		for range 9 {
			got := r.ask("users.list", ``)
			codes[got.Error.Code]++
			if got.Code != "" && (got.Code != "503" || !strings.Contains(got.Error.Description, "opens at 20")) {
				t.Errorf("got %s %+v", got.Code, got.Error)
			}
		}
		if want := map[string]int{"": 7, "RATE_WAIT": 2}; !maps.Equal(codes, want) {
			t.Errorf("got %v, want %v", codes, want)
		}
		r.event(r.send("a", phone, "x"), schema.StateSent)
	})
	t.Run("calls in flight", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		cfg := r.config()
		cfg.Concurrency, cfg.Timeout = 5, time.Minute
		if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/iframe"}, Fault: simulator.FaultHang}); err != nil {
			t.Fatal(err)
		}
		r.start(cfg)
		r.channelsRead()
		opened := func() (n int) {
			for _, q := range r.sim.Requests() {
				if q.Path == "/v2/iframe" {
					n++
				}
			}
			return n
		}
		var all sync.WaitGroup
		defer all.Wait()
		for range 6 {
			all.Go(func() {
				if got := r.ask("iframe.open", windowBody); got.Code != "502" && got.Error.Code != "BREAKER_OPEN" {
					t.Errorf("got %s %+v", got.Code, got.Error)
				}
			})
		}
		if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return opened() == 4 }); err != nil {
			t.Fatal(err)
		}
		r.event(r.send("a", phone, "x"), schema.StateSent)
		if n := opened(); n != 4 {
			t.Errorf("%d calls under way, want 4 of 5", n)
		}
		r.sim.Close() // nobody waits for the time-out
	})
}

// A request that still waits for its turn when the owner leaves is told to ask
// again, and the next owner answers it.
func TestRequestMeetsAHandOver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.Concurrency, cfg.Timeout = 1, time.Minute
	address, release := r.holdAnswers("/v2/iframe", 0)
	cfg.APIURL = address
	stop := r.start(cfg)
	r.channelsRead()
	answers, err := r.nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	publish := func(name, body string) {
		if err := r.nc.PublishRequest(schema.APISubject("main", name), answers.Subject, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	publish("iframe.open", windowBody)
	if err := r.sim.Wait(t.Context(), func(*simulator.View) bool {
		return slices.ContainsFunc(r.sim.Requests(), func(q simulator.Request) bool { return q.Path == "/v2/iframe" })
	}); err != nil {
		t.Fatal(err)
	}
	publish("users.list", "")
	r.ask("users.list", `{"x":1}`) // it is refused at once, behind the other
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	for _, want := range []string{"HAND_OVER", ""} { // the one that waits is told at once, the other when it is answered
		m, err := answers.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Header.Get(micro.ErrorHeader); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		release()
	}
	<-stopped
	r.start(cfg)
	r.page("users.list", ``)
}

// The service is found and counted as every NATS micro service is.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	r.ask("users.get", `{"id":"nobody"}`)
	r.ask("users.get", `{}`)
	r.ask("users.list", ``)

	var ping micro.Ping
	r.srvRequest("PING.wazzup", &ping)
	if ping.Name != "wazzup" || ping.ID == "" || ping.Version == "" || ping.Metadata["account"] != "main" || ping.Type != micro.PingResponseType {
		t.Errorf("ping: got %+v", ping)
	}
	var info micro.Info
	r.srvRequest("INFO.wazzup."+ping.ID, &info)
	var subjects, want []string
	for _, e := range info.Endpoints {
		subjects = append(subjects, e.Subject)
		if e.QueueGroup == "" || e.Metadata["account"] != "main" {
			t.Errorf("endpoint: got %+v", e)
		}
	}
	for _, name := range schema.Requests() {
		want = append(want, schema.APISubject("main", name))
	}
	slices.Sort(subjects)
	slices.Sort(want)
	if !slices.Equal(subjects, want) || info.Type != micro.InfoResponseType {
		t.Errorf("info: got %+v, want the endpoints %v", info, want)
	}
	var stats micro.Stats
	r.srvRequest("STATS", &stats)
	seen := make(map[string]*micro.EndpointStats)
	for _, e := range stats.Endpoints {
		seen[e.Subject] = e
	}
	get, list := seen["wazzup.main.api.users.get"], seen["wazzup.main.api.users.list"]
	if get == nil || get.NumRequests != 2 || get.NumErrors != 2 || get.LastError != "400:REQUIRED" {
		t.Errorf("users.get: got %+v", get)
	}
	if list == nil || list.NumRequests != 1 || list.NumErrors != 0 || list.LastError != "" || list.ProcessingTime <= 0 || list.AverageProcessingTime != list.ProcessingTime {
		t.Errorf("users.list: got %+v", list)
	}
	if stats.Started.IsZero() || stats.ID != ping.ID || stats.Type != micro.StatsResponseType {
		t.Errorf("stats: got %+v", stats.ServiceIdentity)
	}
}

func (r *rig) srvRequest(what string, into any) {
	r.t.Helper()
	m, err := r.nc.Request("$SRV."+what, nil, patience)
	if err == nil {
		err = json.Unmarshal(m.Data, into)
	}
	if err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
}

// Webhooks are switched off by null, and only by null.
func TestWebhooksOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hooks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/404" {
			http.NotFound(w, q)
		}
	}))
	t.Cleanup(hooks.Close)
	r.start(r.config())
	if got := r.ask("webhooks.set", `{"url":"`+hooks.URL+`/webhooks/main/secret-1"}`); got.Code != "" || !strings.Contains(string(got.Body), `"webhooksUrlChanged":true`) || strings.Contains(string(got.Body), "secret-1") {
		t.Errorf("set: got %s %s", got.Code, got.Body)
	}
	if got := r.ask("webhooks.set", `{}`); got.Code != "400" || r.sim.WebhookURL() == "" {
		t.Errorf("without an address: got %s, registered %q", got.Code, r.sim.WebhookURL())
	}
	if got := r.ask("webhooks.set", `{"url":null}`); string(got.Body) != `{"webhooksUrl":null,"webhooksUrlChanged":true}` || r.sim.WebhookURL() != "" {
		t.Errorf("off: got %s %s", got.Code, got.Body)
	}
	if got := r.ask("webhooks.set", `{"url":"`+hooks.URL+`/404"}`); got.Code != "400" || got.Error.Code == "" || got.Error.HTTPStatus != http.StatusBadRequest {
		t.Errorf("an address that does not answer: got %s %+v", got.Code, got.Error)
	}
}
