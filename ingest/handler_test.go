package ingest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/ingest"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	channelA = "3376e1c3-26a6-478b-b964-72bf01cc22cb"
	channelB = "b0a1d2c3-0000-4000-8000-0123456789ab"
)

func TestWebhooksBecomeEvents(t *testing.T) {
	t.Parallel()
	const evt = "wazzup.main.evt."
	tests := []struct {
		name string
		want []string
	}{
		{"messages", []string{
			evt + "message.in." + channelA + ".whatsapp.79124698489",
			evt + "message.in." + channelA + ".whatsgroup.79124698489-1611143663",
			evt + "message.in." + channelB + ".instagram.wazzuptest",
			evt + "message.out." + channelB + ".vk.146578",
			evt + "message.out." + channelB + ".telegram." + schema.Key("@ann.smith"),
		}},
		{"statuses", []string{
			evt + "status.processing", evt + "status.sent", evt + "status.delivered", evt + "status.read",
			evt + "status.failed", evt + "status.failed",
		}},
		{"channels", []string{
			evt + "channel." + channelA + ".qr", evt + "channel." + channelB + ".notEnoughMoney",
		}},
		{"channelslist", []string{evt + "channels"}},
		{"mixed", []string{
			evt + "status.delivered", evt + "quarantine.bad-item", evt + "channels",
			evt + "message.in." + channelA + ".whatsapp.79124698489",
			evt + "channel." + channelA + ".phoneUnavailable", evt + "channel." + channelA + ".active",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureConfig{})
			body := golden(t, tt.name)
			f.mustPost(body)
			first := f.all()
			if got := subjects(first); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("subjects:\ngot  %q\nwant %q", got, tt.want)
			}
			for _, m := range first {
				checkEvent(t, m)
				if !strings.Contains(m.Subject, ".quarantine.") && !strings.Contains(body, string(m.Data)) {
					t.Errorf("%s: the vendor's bytes were changed: %s", m.Subject, m.Data)
				}
			}

			// The vendor posts it again, byte for byte and serialised anew.
			f.mustPost(body)
			if tt.name != "mixed" { // what is in quarantine is kept byte for byte, so other bytes are news
				f.mustPost(reserialised(t, body))
			}
			if got := f.all(); len(got) != len(first) {
				t.Errorf("after replays: got %d events, want %d: %q", len(got), len(first), subjects(got))
			}
		})
	}
}

// checkEvent holds an event against the CloudEvents binary mode.
func checkEvent(t *testing.T, m *jetstream.RawStreamMsg) {
	t.Helper()
	if !json.Valid(m.Data) {
		t.Errorf("%s: body is not JSON", m.Subject)
	}
	id := m.Header.Get(schema.HeaderMsgID)
	if id == "" || id != m.Header.Get(schema.HeaderCEID) {
		t.Errorf("%s: Nats-Msg-Id %q, ce-id %q", m.Subject, id, m.Header.Get(schema.HeaderCEID))
	}
	if got := m.Header.Get(schema.HeaderCESpecVersion); got != "1.0" {
		t.Errorf("%s: ce-specversion %q", m.Subject, got)
	}
	if got := m.Header.Get(schema.HeaderCESource); got != "/wazzup/main" {
		t.Errorf("%s: ce-source %q", m.Subject, got)
	}
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get(schema.HeaderCETime))
	if err != nil || time.Since(at) > time.Hour || time.Since(at) < 0 {
		t.Errorf("%s: ce-time %v %v", m.Subject, at, err)
	}
	family := strings.Split(strings.TrimPrefix(m.Subject, "wazzup.main.evt."), ".")
	want := map[string]string{"channel": "wazzup.channel.state", "channels": "wazzup.channels"}[family[0]]
	if want == "" {
		want = "wazzup." + family[0] + "." + family[1]
	}
	if family[0] == "ops" {
		want = "wazzup." + strings.Join(family, ".")
	}
	if got := m.Header.Get(schema.HeaderCEType); got != want {
		t.Errorf("%s: ce-type %q, want %q", m.Subject, got, want)
	}
	for name, v := range m.Header {
		if strings.HasPrefix(name, "ce-") && strings.Contains(strings.Join(v, " "), "79124698489") {
			t.Errorf("%s: a phone number is in %s", m.Subject, name)
		}
	}
}

// reserialised is the same JSON with other white space and order of members.
func reserialised(t *testing.T, body string) string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(body))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestChecksInTheirOrder(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{ingest: ingest.Config{MaxBody: 1 << 10}})
	long := strings.Repeat(" ", 2<<10)
	right := "/webhooks/" + account + "/" + secret
	tests := []struct {
		name, method, path string
		body               io.Reader
		want               int
	}{
		{"current secret", http.MethodPost, right, nil, 200},
		{"former secret", http.MethodPost, "/webhooks/" + account + "/" + former, nil, 200},
		{"wrong secret", http.MethodPost, right + "x", nil, 404},
		{"shorter secret", http.MethodPost, right[:len(right)-1], nil, 404},
		{"no secret", http.MethodPost, "/webhooks/" + account + "/", nil, 404},
		{"no account", http.MethodPost, "/webhooks/", nil, 404},
		{"wrong account", http.MethodPost, "/webhooks/other/" + secret, nil, 404},
		{"the stand-in for unknown accounts", http.MethodPost, "/webhooks/-/" + secret, nil, 404},
		{"more path", http.MethodPost, right + "/", nil, 404},
		{"another path", http.MethodPost, "/", nil, 404},
		{"wrong secret comes before the size", http.MethodPost, right + "x", strings.NewReader(long), 404},
		{"too large", http.MethodPost, right, strings.NewReader(long), 413},
		{"too large without a length", http.MethodPost, right, struct{ io.Reader }{strings.NewReader(long)}, 413},
		{"as large as may be", http.MethodPost, right, strings.NewReader(long[:1<<10]), 200},
		{"as large as may be, without a length", http.MethodPost, right, struct{ io.Reader }{strings.NewReader(long[:1<<10])}, 200},
	}
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch} {
		tests = append(tests,
			struct {
				name, method, path string
				body               io.Reader
				want               int
			}{method, method, right, nil, 405},
			struct {
				name, method, path string
				body               io.Reader
				want               int
			}{method + " comes before the secret", method, right + "x", nil, 405})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			status, header := f.request(tt.method, tt.path, tt.body)
			if status != tt.want {
				t.Errorf("got %d, want %d", status, tt.want)
			}
			if tt.want == 405 && header.Get("Allow") != "POST" {
				t.Errorf("Allow: got %q", header.Get("Allow"))
			}
		})
	}
}

// The vendor tests the URL when it is registered, whether NATS is up or not.
func TestTestBodiesNeedNoNATS(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{})
	f.node.Stop()
	for _, body := range []string{
		"", `{"test":true}`, `{"messages":[],"channels":[],"statuses":[]}`,
		`{"messages":[],"channels":[],"statuses":[],"channelsList":[]}`, `{}`, `[]`,
	} {
		if got := f.post(body); got != http.StatusOK {
			t.Errorf("%s: got %d, want 200", body, got)
		}
	}
}

func TestNATSAway(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{ingest: ingest.Config{StoreTimeout: 5 * time.Second}})
	f.node.Stop()
	for _, name := range []string{"messages", "statuses", "channels", "channelslist", "mixed"} {
		status, header := f.request(http.MethodPost, "/webhooks/"+account+"/"+secret, strings.NewReader(golden(t, name)))
		if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
			t.Errorf("%s: got %d, Retry-After %q, want 503 and a pause", name, status, header.Get("Retry-After"))
		}
	}
	for _, bad := range []string{"no json", `{"other":1}`} {
		if got := f.post(bad); got != http.StatusServiceUnavailable {
			t.Errorf("%q: got %d, want 503", bad, got)
		}
	}

	reconnected := f.nc.StatusChanged(connected()...)
	f.node.Start()
	for !f.nc.IsConnected() {
		<-reconnected
	}
	if got := f.all(); len(got) != 0 {
		t.Errorf("kept back in memory: %q", subjects(got))
	}
	f.mustPost(golden(t, "messages"))
	if got := f.all(); len(got) != 5 {
		t.Errorf("after the server is back: got %d events, want 5", len(got))
	}
}

// A server that is there but does not answer must not use up the vendor's patience.
//
//nolint:paralleltest // it starts a process, which for a moment inherits the locks of other tests' servers
func TestNATSFrozen(t *testing.T) {
	proc := queuetest.Process(t)
	nc := queuetest.Conn(t, proc, ingest.ConnOptions()...)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Ensure(t.Context(), js, account, queue.Limits{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"messages", "statuses", "channels"} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, nc, ingest.Config{StoreTimeout: 300 * time.Millisecond, LookupTimeout: 50 * time.Millisecond})
			proc.Freeze()
			defer proc.Thaw()
			for nc.FlushTimeout(20*time.Millisecond) == nil { // its threads stop one by one
			}
			begin := time.Now()
			if got := f.post(golden(t, name)); got != http.StatusServiceUnavailable {
				t.Errorf("got %d, want 503", got)
			}
			if took := time.Since(begin); took > 20*time.Second { // the vendor waits for 30
				t.Errorf("answered after %v", took)
			}
		})
	}
}

func TestNoStream(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{})
	if err := f.js.DeleteStream(t.Context(), queue.Names{Account: account}.Records()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"messages", "statuses", "channels"} {
		if got := f.post(golden(t, name)); got != http.StatusServiceUnavailable {
			t.Errorf("%s: got %d, want 503", name, got)
		}
	}
}

func TestFullStream(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{limits: queue.Limits{RecordBytes: 64 << 10}})
	status := http.StatusOK
	for i := 0; status == http.StatusOK && i < 1000; i++ {
		status = f.post(textMessage(i, strings.Repeat("x", 1<<10)))
	}
	if status != http.StatusServiceUnavailable {
		t.Fatalf("a full stream: got %d, want 503", status)
	}
	if !strings.Contains(f.logs.String(), `"outcome":"full"`) {
		t.Errorf("the log does not say that the stream is full:\n%s", f.logs)
	}
	stored := len(f.all())
	if got := f.post(golden(t, "mixed")); got != http.StatusServiceUnavailable {
		t.Errorf("with a full stream: got %d, want 503", got)
	}
	if got := len(f.all()); got < stored {
		t.Errorf("a full stream lost events: %d, then %d", stored, got)
	}
}

func textMessage(n int, text string) string {
	return fmt.Sprintf(`{"messages":[{"messageId":"message-%d","channelId":%q,"chatType":"whatsapp","chatId":"79124698489","status":99,"text":%q}]}`,
		n, channelA, text)
}

func TestMessageIdentity(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{})
	f.mustPost(textMessage(1, "a"))
	f.mustPost(textMessage(1, "a"))
	f.mustPost(textMessage(1, "edited"))
	f.mustPost(textMessage(2, "a"))
	if got := f.all(); len(got) != 3 {
		t.Errorf("got %d events, want 3: the message, its edit, another", len(got))
	}
}

func TestStatusIdentity(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{})
	f.mustPost(`{"statuses":[{"messageId":"m","status":1}]}`)
	f.putIndex(queue.Index{ID: "order-1", MessageID: "m"})
	f.mustPost(`{"statuses":[{"messageId":"m","status":"1","other":true}]}`) // the same news, now with a known command
	f.mustPost(`{"statuses":[{"messageId":"m","status":2},{"messageId":"m","status":13},{"messageId":"m","status":14}]}`)
	if got := len(f.all()); got != 4 {
		t.Errorf("got %d events, want 4", got)
	}
}

func TestStatusFindsItsCommand(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{})
	f.putIndex(queue.Index{ID: `order "1"`, MessageID: "known", Meta: json.RawMessage(`{"orderId":"1042","n":1.50}`)})
	f.putIndex(queue.Index{ID: "order-2", MessageID: "@odd id.*"})
	f.mustPost(`{"statuses":[{"messageId":"known","status":2},{"messageId":"unknown","status":2},` +
		`{"messageId":"@odd id.*","status":3},{"messageId":"known","status":3,"meta":"theirs"}]}`)
	var got []string
	for _, m := range f.events("wazzup.main.evt.status.>") {
		got = append(got, string(m.Data))
	}
	want := []string{
		`{"messageId":"known","status":2,"commandId":"order \"1\"","meta":{"orderId":"1042","n":1.50}}`,
		`{"messageId":"unknown","status":2}`,
		`{"messageId":"@odd id.*","status":3,"commandId":"order-2"}`,
		`{"messageId":"known","status":3,"commandId":"order \"1\"","meta":{"orderId":"1042","n":1.50}}`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// More statuses than the server answers lookups for in one request.
func TestManyStatuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{})
	const n = 1100
	var items []string
	for i := range n {
		id := fmt.Sprintf("m%d", i)
		if i%2 == 0 {
			f.putIndex(queue.Index{ID: "command-" + id, MessageID: id})
		}
		items = append(items, `{"messageId":"`+id+`","status":2}`)
	}
	f.mustPost(`{"statuses":[` + strings.Join(items, ",") + `]}`)
	events := f.events("wazzup.main.evt.status.>")
	if len(events) != n {
		t.Fatalf("got %d events, want %d", len(events), n)
	}
	for i, m := range events {
		if got, want := bytes.Contains(m.Data, []byte(`"commandId":"command-m`)), i%2 == 0; got != want {
			t.Fatalf("status %d: command known %v, want %v", i, got, want)
		}
	}
}

// A status whose lookup fails is stored all the same.
func TestLookupFailure(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{})
	if _, err := f.js.Publish(t.Context(), queue.Names{Account: account}.IndexSubject("m"), []byte("no record")); err != nil {
		t.Fatal(err)
	}
	f.mustPost(`{"statuses":[{"messageId":"m","status":2}]}`)
	if got := f.events("wazzup.main.evt.status.delivered"); len(got) != 1 || string(got[0].Data) != `{"messageId":"m","status":2}` {
		t.Errorf("got %q", subjects(got))
	}
	if !strings.Contains(f.logs.String(), `"lookup_failed":true`) {
		t.Error("the log does not tell")
	}
}

func channelBody(states ...string) string {
	var items []string
	for _, s := range states {
		items = append(items, fmt.Sprintf(`{"channelId":%q,"transport":"whatsapp","state":%q}`, channelA, s))
	}
	return `{"channels":[` + strings.Join(items, ",") + `]}`
}

func TestChannelStates(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		bodies []string
		want   []string // states of the stored events
	}{
		{"each change counts", []string{channelBody("qr"), channelBody("active"), channelBody("qr")}, []string{"qr", "active", "qr"}},
		{"no change adds nothing", []string{channelBody("qr"), channelBody("qr"), channelBody("qr")}, []string{"qr"}},
		{"several in one body", []string{channelBody("qr", "active", "qr")}, []string{"qr", "active", "qr"}},
		{"equal neighbours in one body", []string{channelBody("qr", "qr", "active", "active")}, []string{"qr", "active"}},
		{"replay of several", []string{channelBody("qr", "active", "qr"), channelBody("qr", "active", "qr")}, []string{"qr", "active", "qr"}},
		{
			"replay of several after the first was known",
			[]string{channelBody("qr"), channelBody("qr", "active"), channelBody("qr", "active")},
			[]string{"qr", "active"},
		},
		{
			"several that end as it was",
			[]string{channelBody("active"), channelBody("qr", "active")},
			[]string{"active", "qr", "active"},
		},
		{
			"the same flap twice, with another change between",
			[]string{channelBody("qr", "active"), channelBody("disabled"), channelBody("qr", "active")},
			[]string{"qr", "active", "disabled", "qr", "active"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureConfig{})
			for _, b := range tt.bodies {
				f.mustPost(b)
			}
			var got []string
			for _, m := range f.all() {
				got = append(got, m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestChannelLists(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{})
	one := `{"channelsList":[{"channelId":"a","state":"qr"}]}`
	two := `{"channelsList":[{"channelId":"a","state":"qr"},{"channelId":"b","state":"active"}]}`
	for _, body := range []string{one, one, two, one, `{"channelsList":[{"state":"qr","channelId":"a"}]}`} {
		f.mustPost(body)
	}
	var got []string
	for _, m := range f.all() {
		got = append(got, string(m.Data))
	}
	if want := []string{one[16 : len(one)-1], two[16 : len(two)-1], one[16 : len(one)-1]}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Two posts of one change at once are one event.
func TestConcurrentPosts(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{})
	f.mustPost(channelBody("disabled"))
	var posts sync.WaitGroup
	for i := range 32 {
		posts.Go(func() {
			f.mustPost(channelBody("qr", "active"))
			f.mustPost(textMessage(i%4, "x"))
			f.mustPost("no json " + strconv.Itoa(i%4))
		})
	}
	posts.Wait()
	counts := make(map[string]int)
	for _, m := range f.all() {
		counts[strings.Split(m.Subject, ".")[3]]++
	}
	if counts["message"] != 4 || counts["quarantine"] != 4 || counts["channel"] != 3 {
		t.Errorf("got %v, want 4 messages, 4 in quarantine, 3 channel states", counts)
	}
}

func TestQuarantine(t *testing.T) {
	t.Parallel()
	v3 := `{"messages":[{"messageId":"m","channelId":"c","chatType":"whatsapp","chatId":"1","status":"inbound","isEcho":false}]}`
	tests := []struct {
		name, body string
		reason     schema.QuarantineReason
		kept       string
		encoding   string
	}{
		{"not JSON", "a=1&b=2", schema.QuarantineNotJSON, "a=1&b=2", "utf-8"},
		{"not text", "\x00\xff\xfe", schema.QuarantineNotJSON, "\x00\xff\xfe", "base64"},
		{"another shape", `{"foo": [1,  2]}`, schema.QuarantineShape, `{"foo": [1,  2]}`, "utf-8"},
		{"bad item", `{"statuses":[{"status":  1}]}`, schema.QuarantineBadItem, `{"status":  1}`, "utf-8"},
		{"unknown status", `{"statuses":[{"messageId":"m","status":5}]}`, schema.QuarantineUnknownStatus, `{"messageId":"m","status":5}`, "utf-8"},
		{"successor", v3, schema.QuarantineV3, v3, "utf-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureConfig{})
			f.mustPost(tt.body)
			f.mustPost(tt.body)
			events := f.events("wazzup.main.evt.quarantine.>")
			if len(events) != 1 || events[0].Subject != "wazzup.main.evt.quarantine."+string(tt.reason) {
				t.Fatalf("got %q", subjects(events))
			}
			checkEvent(t, events[0])
			if got := string(reassembled(t, events)); got != tt.kept {
				t.Errorf("got %q, want %q", got, tt.kept)
			}
			var q schema.QuarantineEvent
			if err := json.Unmarshal(events[0].Data, &q); err != nil {
				t.Fatal(err)
			}
			if q.Encoding != tt.encoding || q.Reason != tt.reason || q.Part != 1 || q.Parts != 1 {
				t.Errorf("got %+v", q)
			}
			ops := f.events("wazzup.main.evt.ops.>")
			if tt.reason != schema.QuarantineV3 {
				if len(ops) != 0 {
					t.Errorf("operator events: %q", subjects(ops))
				}
				return
			}
			if len(ops) != 1 || ops[0].Subject != "wazzup.main.evt.ops.webhook.v3" {
				t.Fatalf("operator events: got %q", subjects(ops))
			}
			checkEvent(t, ops[0])
			var o schema.OpsEvent
			if err := json.Unmarshal(ops[0].Data, &o); err != nil || o.Name != schema.OpsWebhookV3 || o.Account != account || o.At.IsZero() {
				t.Errorf("got %+v, %v", o, err)
			}
		})
	}
}

// Webhooks of the successor API are told of once an hour, also where the server
// forgets ids sooner.
func TestV3IsToldOnceAnHour(t *testing.T) {
	t.Parallel()
	const window = 100 * time.Millisecond
	f := newFixture(t, fixtureConfig{limits: queue.Limits{DedupeWindow: window}})
	hour := time.Now().UTC().Hour()
	for i := range 3 {
		f.mustPost(fmt.Sprintf(`{"statuses":[{"messageId":"m-%d","status":"delivered"}]}`, i))
		<-time.After(3 * window) // in which the server forgets
	}
	if kept := f.events("wazzup.main.evt.quarantine.v3"); len(kept) != 3 {
		t.Errorf("%d bodies are kept, want 3", len(kept))
	}
	told, most := len(f.events("wazzup.main.evt.ops.webhook.v3")), 1
	if time.Now().UTC().Hour() != hour {
		most = 2 // the next hour has begun
	}
	if told < 1 || told > most {
		t.Errorf("it is told %d times", told)
	}
}

// reassembled puts the parts of one quarantined body together, as a consumer
// would, and checks the hash.
func reassembled(t *testing.T, events []*jetstream.RawStreamMsg) []byte {
	t.Helper()
	var out []byte
	for i, m := range events {
		var q schema.QuarantineEvent
		if err := json.Unmarshal(m.Data, &q); err != nil {
			t.Fatal(err)
		}
		if q.Part != i+1 || q.Parts != len(events) {
			t.Fatalf("part %d of %d: got %d of %d", i+1, len(events), q.Part, q.Parts)
		}
		switch q.Encoding {
		case "utf-8":
			out = append(out, q.Body...)
		case "base64":
			b, err := base64.StdEncoding.DecodeString(q.Body)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, b...)
		default:
			t.Fatalf("encoding %q", q.Encoding)
		}
		if i == len(events)-1 {
			if sum := sha256.Sum256(out); q.SHA256 != hex.EncodeToString(sum[:]) {
				t.Error("the hash is not that of the whole")
			}
		}
	}
	return out
}

func TestBeyondThePayloadLimit(t *testing.T) {
	t.Parallel()
	const limit = 8 << 10
	text := strings.Repeat(`ж"\`+"\u2028<", 5<<10)
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	longItem := `{"messageId":"long","channelId":"c","chatType":"vk","chatId":"1","status":99,"text":` + string(quoted) + `}`
	tests := []struct {
		name, body, kept string
		reason           schema.QuarantineReason
		others           int
	}{
		{"text", text, text, schema.QuarantineNotJSON, 0},
		{"bytes", strings.Repeat("\xff\x00a", 9<<10), strings.Repeat("\xff\x00a", 9<<10), schema.QuarantineNotJSON, 0},
		{"one long item among others", `{"messages":[` + textIn + `,` + longItem + `],"statuses":[{"messageId":"m","status":1}]}`, longItem, schema.QuarantineBadItem, 2},
		{
			"a long channel list", `{"channelsList":[{"channelId":` + string(quoted) + `}]}`,
			`[{"channelId":` + string(quoted) + `}]`, schema.QuarantineBadItem, 0,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureConfig{nats: []queuetest.Option{queuetest.WithMaxPayload(limit)}})
			f.mustPost(tt.body)
			f.mustPost(tt.body)
			parts := f.events("wazzup.main.evt.quarantine.>")
			if len(parts) < 3 {
				t.Errorf("got %d parts", len(parts))
			}
			if got := string(reassembled(t, parts)); got != tt.kept {
				t.Errorf("got %d bytes, want the %d that were posted", len(got), len(tt.kept))
			}
			if want := "wazzup.main.evt.quarantine." + string(tt.reason); parts[0].Subject != want {
				t.Errorf("subject: got %s, want %s", parts[0].Subject, want)
			}
			if got := len(f.all()) - len(parts); got != tt.others {
				t.Errorf("others: got %d, want %d", got, tt.others)
			}
		})
	}
}

// An item as long as fits travels as it is, whatever is added to it.
func TestJustBelowThePayloadLimit(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{nats: []queuetest.Option{queuetest.WithMaxPayload(8 << 10)}})
	f.putIndex(queue.Index{ID: "order-1", MessageID: "m", Meta: json.RawMessage(`"` + strings.Repeat("x", 4<<10) + `"`)})
	const head, tail = `{"messageId":"m","status":2,"x":"`, `"}`
	item := head + strings.Repeat("x", f.store.MaxBody()-len(head)-len(tail)) + tail
	f.mustPost(`{"statuses":[` + item + `]}`)
	events := f.events("wazzup.main.evt.status.>")
	if len(events) != 1 || string(events[0].Data) != item {
		t.Errorf("got %q", subjects(f.all()))
	}
}

func TestLogsCarryNothingPersonal(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{limits: queue.Limits{RecordBytes: 256 << 10}})
	canaries := []string{
		"79991112233", "canary-chat", "Canary Name", "canary text", "canary-message", "canary-channel", "canary-status",
		secret, former, "wrong-secret-canary",
	}
	bodies := []string{
		`{"messages":[{"messageId":"canary-message","channelId":"canary-channel","chatType":"whatsapp","chatId":"79991112233","status":99,"text":"canary text","authorName":"Canary Name"}]}`,
		`{"messages":[{"chatId":"canary-chat 79991112233"}],"statuses":[{"messageId":"canary-message","status":"canary-status"},{"messageId":"canary-message","status":4}]}`,
		`{"channels":[{"channelId":"canary-channel","plainId":"79991112233","state":"canary-status"}]}`,
		`canary text`, `{"canary text":["79991112233"]}`,
	}
	for _, b := range bodies {
		f.mustPost(b)
	}
	f.request(http.MethodPost, "/webhooks/main/wrong-secret-canary", strings.NewReader(bodies[0]))
	f.request(http.MethodGet, "/webhooks/main/"+former, nil)
	for i := 0; f.post(textMessage(i, strings.Repeat("canary text 79991112233", 1000))) == http.StatusOK; i++ {
		if i > 100 {
			t.Fatal("the stream does not fill")
		}
	}
	f.node.Stop()
	f.post(bodies[0])
	logs := f.logs.String()
	for _, c := range canaries {
		if strings.Contains(logs, c) {
			t.Errorf("the log holds %q", c)
		}
	}
	for _, o := range []string{"stored", "not_found", "method", "full", "unavailable"} {
		if !strings.Contains(logs, `"outcome":"`+o+`"`) {
			t.Errorf("no line with outcome %s", o)
		}
	}
}

// A body that is still on its way keeps its place in the budget; others wait for
// room, then are told to come later.
func TestBodiesInMemoryAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureConfig{ingest: ingest.Config{MaxBody: 1 << 20, MaxInFlight: 1, AdmitTimeout: 20 * time.Millisecond}})
	body := &heldBody{read: make(chan struct{}), rest: make(chan struct{}), Reader: strings.NewReader(textMessage(1, "x"))}
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/webhooks/"+account+"/"+secret, body)
	answer := httptest.NewRecorder()
	var first sync.WaitGroup
	first.Go(func() { f.server.ServeHTTP(answer, request) })
	<-body.read // so it was admitted, and its length is unknown
	if got := f.post(textMessage(2, "x")); got != http.StatusServiceUnavailable {
		t.Errorf("beyond the budget: got %d, want 503", got)
	}
	close(body.rest)
	first.Wait()
	if answer.Code != http.StatusOK {
		t.Errorf("the slow one: got %d, want 200", answer.Code)
	}
	f.mustPost(textMessage(3, "x"))
}

// heldBody tells when it is first read, and gives nothing until it may.
type heldBody struct {
	io.Reader
	once       sync.Once
	read, rest chan struct{}
}

func (b *heldBody) Read(p []byte) (int, error) {
	b.once.Do(func() { close(b.read) })
	<-b.rest
	return b.Reader.Read(p)
}

func TestEventTypesAreCounted(t *testing.T) {
	t.Parallel()
	f, read := newMeteredFixture(t)
	zero := read()
	for _, o := range ingest.Outcomes() {
		if v, ok := zero["wazzup.ingest.requests account=main outcome="+o]; !ok || v != 0 {
			t.Errorf("series of outcome %s at start: %d, %v", o, v, ok)
		}
	}
	f.mustPost(golden(t, "mixed"))
	f.mustPost(golden(t, "mixed"))
	f.mustPost("")
	f.request(http.MethodGet, "/", nil)
	got := read()
	want := map[string]int64{
		"wazzup.ingest.requests account=main outcome=stored":         2,
		"wazzup.ingest.requests account=main outcome=test":           1,
		"wazzup.ingest.requests account=- outcome=method":            1,
		"wazzup.ingest.events account=main type=message.in":          2,
		"wazzup.ingest.events account=main type=status.delivered":    2,
		"wazzup.ingest.events account=main type=quarantine.bad-item": 2,
		"wazzup.ingest.events account=main type=channel.state":       2,
		"wazzup.ingest.events account=main type=channels":            1,
		"wazzup.ingest.events account=main type=quarantine.not-json": 0,
		"wazzup.ingest.duplicates":                                   3,
		"wazzup.ingest.lookups result=unknown":                       2,
		"wazzup.ingest.body.size":                                    int64(2 * len(golden(t, "mixed"))),
	}
	for name, n := range want {
		if v, ok := got[name]; !ok || v != n {
			t.Errorf("%s: got %d (%v), want %d", name, v, ok, n)
		}
	}
	if t.Failed() {
		names := make([]string, 0, len(got))
		for n := range got {
			names = append(names, n)
		}
		slices.Sort(names)
		t.Log(strings.Join(names, "\n"))
	}
}
