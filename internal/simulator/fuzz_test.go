package simulator_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

// serve asks a simulator without a listener of its own.
func serve(t *testing.T, s *simulator.Server, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Basic "+testKey)
	r.Header.Set("Content-Type", "application/json")
	s.Handler().ServeHTTP(w, r)
	return w
}

func fuzzed(t *testing.T) *simulator.Server {
	t.Helper()
	s, err := simulator.New(simulator.Config{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// FuzzControl: a control body is taken (and then shows as JSON) or refused
// with an error that names a field, and changes nothing.
func FuzzControl(f *testing.F) {
	paths := []string{"rules", "inbound", "channel", "config"}
	for i, seeds := range [][]string{
		{
			`{"match":{"path":"/v2/channels"},"times":1,"after":1,"status":503,"body":"x","headers":{"Retry-After":"1"},"delay":"1ms"}`,
			`[{"fault":"hang","for":"1s","accept":true},{"fault":"drop-after-accept","statuses":[1,66],"echo":false}]`,
			`{"fault":"refuse","for":"2s"}`, `[]`, `{"code":"X","description":"y"}`,
		},
		{`{"channelId":"` + simulator.ChannelWhatsApp + `","chatId":"1","text":"a","type":1,"dateTime":-5}`},
		{`{"channelId":"` + simulator.ChannelWhatsApp + `","state":"qr"}`, `{"channelId":"` + simulator.ChannelWhatsApp + `","remove":true}`},
		{`{"echo":false,"statuses":[1],"echoDelay":"1s","rate":"500/5s","batchSize":5}`},
	} {
		for _, body := range append(seeds, ``, `null`, `{"x":1}`, `[1]`, `"\ud800"`) {
			f.Add(i, body)
		}
	}
	f.Fuzz(func(t *testing.T, which int, body string) {
		s := fuzzed(t)
		path := "/_sim/" + paths[uint(which)%uint(len(paths))]
		before := serve(t, s, http.MethodGet, "/_sim/state", "").Body.String()
		w := serve(t, s, http.MethodPost, path, body)
		after := serve(t, s, http.MethodGet, "/_sim/state", "").Body.String()
		if !json.Valid(w.Body.Bytes()) || !json.Valid([]byte(after)) {
			t.Fatalf("%s %q: no JSON: %q, state %q", path, body, w.Body, after)
		}
		switch w.Code {
		case http.StatusOK:
		case http.StatusBadRequest, http.StatusConflict: // 409: a refusal without a listener
			var refusal struct {
				Error struct{ Field, Description string }
			}
			if err := json.Unmarshal(w.Body.Bytes(), &refusal); err != nil || refusal.Error.Description == "" ||
				(w.Code == http.StatusBadRequest && refusal.Error.Field == "") {
				t.Errorf("%s %q: refused with %s", path, body, w.Body)
			}
			if before != after {
				t.Errorf("%s %q: refused, but the state went from %s to %s", path, body, before, after)
			}
		default:
			t.Errorf("%s %q: %d %s", path, body, w.Code, w.Body)
		}
	})
}

// FuzzVendor: whatever body a method of the API gets, it answers by the manual.
func FuzzVendor(f *testing.F) {
	methods := []struct{ method, path string }{
		{http.MethodPost, "/v2/send_message"},
		{http.MethodPatch, "/v2/users"},
		{http.MethodPut, "/v2/users"},
		{http.MethodPatch, "/v2/contacts"},
		{http.MethodPatch, "/v2/deals"},
		{http.MethodPost, "/v2/iframe"},
	}
	for i := range methods {
		for _, body := range []string{
			whatsApp("a"), `[{"id":1,"name":"a","responsibleUserId":"u","chats":[{"chatType":"vk","chatId":1}],"deals":[1]}]`,
			`[{"id":"a","closed":true,"contacts":["x",1]},{"id":null}]`, `{"user":{"id":1},"scope":"card","filter":[]}`, `null`, `[null]`, ``, `{`,
			`{"channelId":null,"channelId":"x","text":"\ud800"}`,
		} {
			f.Add(i, body)
		}
	}
	f.Fuzz(func(t *testing.T, which int, body string) {
		s := fuzzed(t)
		m := methods[uint(which)%uint(len(methods))]
		w := serve(t, s, m.method, m.path, body)
		switch {
		case w.Code == http.StatusCreated && m.path == "/v2/send_message":
			if s.View().Accepted != 1 || len(s.Sends()) != 1 || !s.Sends()[0].Accepted() {
				t.Errorf("%q: 201, but it is not recorded as accepted", body)
			}
		case w.Code == http.StatusOK && m.path != "/v2/send_message":
		case w.Code == http.StatusBadRequest:
			var refusal struct {
				Errors []struct{ Code, Description string }
			}
			if err := json.Unmarshal(w.Body.Bytes(), &refusal); err != nil || len(refusal.Errors) == 0 || refusal.Errors[0].Code == "" || refusal.Errors[0].Description == "" {
				t.Errorf("%s %q: refused with %s", m.path, body, w.Body)
			}
			if s.View().Accepted+len(s.Users())+len(s.Contacts())+len(s.Deals()) != 0 {
				t.Errorf("%s %q: refused, but carried out", m.path, body)
			}
		default:
			t.Errorf("%s %q: %d %s", m.path, body, w.Code, w.Body)
		}
		for _, path := range []string{"/v2/users", "/v2/contacts", "/v2/deals", "/_sim/state", "/_sim/requests"} {
			if w := serve(t, s, http.MethodGet, path, ""); w.Code != http.StatusOK || !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s after %q: %d %s", path, body, w.Code, w.Body)
			}
		}
	})
}
