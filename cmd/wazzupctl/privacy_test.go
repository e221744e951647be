package main_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
)

// What must never show: each stands where the real thing would.
const (
	plantedPhone   = "79995551234"
	plantedText    = "planted-text-8c1d"
	plantedName    = "planted-name-2f7e"
	plantedUser    = "planted-user-90ab"
	plantedKey     = "planted-key-41d6"
	plantedSecret  = "planted-secret-b3f8"
	plantedMeta    = "planted-meta-77c0"
	plantedFile    = "planted-file-5ad2"
	plantedBad     = "planted-bad-e9c4"
	plantedMessage = "planted-words-of-the-vendor-13f2"
)

func planted() []string {
	return []string{
		plantedPhone, plantedText, plantedName, plantedUser, plantedKey, plantedSecret, plantedMeta, plantedFile, plantedBad, plantedMessage,
	}
}

// TestNothingPersonalShows drives every path that handles somebody's data, good
// and bad, at the most talkative level, and then looks for what was planted.
func TestNothingPersonalShows(t *testing.T) {
	t.Parallel()
	refuse := `{"match":{"textContains":"refuse"},"status":400,"code":"MESSAGES_NOT_TEXT_FIRST","description":"` + plantedMessage + " " + plantedPhone + `"}`
	unknown := `{"match":{"textContains":"strange"},"status":422,"code":"NEVER_SEEN","description":"` + plantedMessage + " " + plantedText + `"}`
	limit := `{"match":{"textContains":"limit"},"status":429,"times":1,"headers":{"Retry-After":"1"},"body":"` + plantedMessage + `"}`
	lost := `{"match":{"textContains":"lost"},"fault":"drop-after-accept","statuses":[18],"times":1}`
	garbled := `{"match":{"textContains":"garbled"},"status":502,"body":"<html>` + plantedMessage + `"}`
	contacts := `{"match":{"path":"/v2/contacts"},"status":400,"code":"VALIDATION_ERROR","description":"` + plantedName + `"}`
	s := dev(t, map[string]string{
		"LOG_LEVEL": "trace", "LOG_FORMAT": "json", "WAZZUP_API_KEY": plantedKey, "WEBHOOK_SECRET": plantedSecret,
		"WAZZUP_RECONCILE_WAIT": "100ms", "WAZZUP_EVIDENCE": "none",
	}, "--rule", refuse, "--rule", unknown, "--rule", limit, "--rule", lost, "--rule", garbled, "--rule", contacts)

	send := func(text string, code int, args ...string) {
		t.Helper()
		s.ctl(t, append([]string{
			"send", "--channel", whatsApp, "--chat", plantedPhone, "--text", plantedText + " " + text, "--meta", `{"x":"` + plantedMeta + `"}`, "--wait",
		}, args...)...).want(t, code)
	}
	send("good", 0)
	send("refuse", 1)
	send("strange", 1)
	send("limit", 0)
	send("lost", 1)
	send("garbled", 1)
	send("late", 1, "--expire-at", "2020-01-01T00:00:00Z")
	send("bad", 1, "--unchecked", "--on-unknown", plantedBad)
	s.ctl(t, "dead", "redrive", "--all", "--include-unknown").want(t, 0)
	s.ctl(t, "lanes", "pause", whatsApp, "--class", "bulk").want(t, 0)
	s.ctl(t, "send", "--channel", whatsApp, "--chat", plantedPhone, "--text", plantedText, "--send-at", "+1h", "--id", "cancelled").want(t, 0)
	s.ctl(t, "send", "--channel", whatsApp, "--chat", plantedPhone, "--text", plantedText, "--bulk", "--id", "unseen").want(t, 0)
	s.ctl(t, "cancel", "cancelled").want(t, 0)
	s.ctl(t, "cancel", "unseen").want(t, 0)
	s.ctl(t, "lanes", "resume", whatsApp).want(t, 0)
	s.ctl(t, "send", "--channel", telegram, "--chat-type", "telegram", "--chat", plantedUser, "--content", "https://files.example/"+plantedFile, "--wait").want(t, 0)
	s.ctl(t, "send", "--channel", telegram, "--chat-type", "telegram", "--chat", "@"+plantedUser, "--text", plantedText, "--unchecked", "--wait").want(t, 1)
	ctl(t, s.env, "{"+plantedBad, "send", "-", "--channel", whatsApp, "--unchecked", "--wait").want(t, 1)
	syncContacts(t, s)
	asks(t, s)
	webhooks(t, s)
	s.ctl(t, "webhook", "get").want(t, 0)
	s.ctl(t, "watch", "--since", "1h", "--kind", "quarantine", "--count", "1").want(t, 0)

	var shown strings.Builder
	for _, name := range []string{"workerAdmin", "ingestAdmin"} {
		for _, path := range []string{"/metrics", "/readyz"} {
			status, body := relaytest.Get(t, s.where[name]+path)
			if status != 200 {
				t.Errorf("%s%s = %d, want 200", name, path, status)
			}
			fmt.Fprintf(&shown, "%s%s\n%s\n", name, path, body)
		}
	}
	shown.WriteString(statistics(t, s))
	s.shutDown()
	shown.WriteString(s.log.String())
	for _, want := range []string{`"message":"call"`, `"message":"webhook"`, "wazzup_calls_total", "NEVER_SEEN", "400:VALIDATION_ERROR"} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("the traffic left no trace of %s: the test looks at the wrong thing", want)
		}
	}
	for _, secret := range planted() {
		for line := range strings.Lines(shown.String()) {
			if strings.Contains(line, secret) {
				t.Errorf("%s shows in: %s", secret, line)
			}
		}
	}
}

// asks makes requests with somebody's data, good and bad.
func asks(t *testing.T, s *system) {
	t.Helper()
	s.ctl(t, "chat-window", "--user", plantedUser, "--user-name", plantedName, "--chat", "whatsapp:"+plantedPhone).want(t, 0)
	s.ctl(t, "chat-window", "--user", plantedUser, "--chat", "whatsapp:+"+plantedPhone).want(t, 1)
	ctl(t, s.env, `{"`+plantedBad+`":1}`, "chat-window", "-").want(t, 1)
	ctl(t, s.env, "id,name\n"+plantedUser+","+plantedName+"\n,"+plantedName+"\n", "users", "upsert", "-").want(t, 1)
	s.ctl(t, "users", "get", plantedUser).want(t, 0)
	s.ctl(t, "contacts", "get", plantedPhone).want(t, 1)
	s.ctl(t, "contacts", "list").want(t, 1) // the rule refuses it in the vendor's words
}

// statistics are those of the requests.
func statistics(t *testing.T, s *system) string {
	t.Helper()
	nc, err := nats.Connect(s.where["nats"])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	m, err := nc.RequestWithContext(t.Context(), "$SRV.STATS.wazzup", nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(m.Data) + "\n"
}

// syncContacts publishes contacts that the vendor refuses, and ones that break
// our own rules.
func syncContacts(t *testing.T, s *system) {
	t.Helper()
	nc, err := nats.Connect(s.where["nats"])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	inbox := nc.NewInbox()
	events, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{
		`[{"id":"1","name":"` + plantedName + `","chats":[{"chatType":"whatsapp","chatId":"` + plantedPhone + `"}]}]`,
		`[{"id":{"` + plantedBad + `":1},"name":"` + plantedName + `"}]`,
	} {
		m := &nats.Msg{Subject: "wazzup.main.cmd.sync.contacts.upsert", Header: nats.Header{"Wazzup-Reply-To": {inbox}}, Data: []byte(body)}
		if _, err := nc.RequestMsgWithContext(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if _, err := events.NextMsgWithContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// webhooks has customers write, and posts what nobody understands.
func webhooks(t *testing.T, s *system) {
	t.Helper()
	vendor := s.where["vendor"] + "/_sim/"
	post(t, vendor+"inbound", `{"channelId":"`+whatsApp+`","chatId":"`+plantedPhone+`","text":"`+plantedText+`","authorName":"`+plantedName+`"}`)
	hook := strings.TrimSuffix(s.where["webhooks"], "***")
	for _, one := range []struct {
		url, body string
		want      int
	}{
		{hook + plantedSecret, `{"messages":[{"messageId":7,"text":"` + plantedText + `","chatId":"` + plantedPhone + `"}]}`, 200},
		{hook + plantedSecret, `{"messages":"` + plantedText + `"}`, 200},
		{hook + plantedSecret, plantedBad, 200},
		{hook + plantedSecret, `{"statuses":[{"messageId":"` + plantedBad + `","status":4711}]}`, 200},
		{hook + plantedSecret + "x", `{"messages":[{"text":"` + plantedText + `"}]}`, 404},
		{strings.Replace(hook, "main", plantedName, 1) + plantedSecret, "{}", 404},
	} {
		if got := relaytest.Post(t, one.url, one.body); got != one.want {
			t.Errorf("POST of a webhook = %d, want %d", got, one.want)
		}
	}
}
