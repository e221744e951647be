package docs_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// reachedBy are the subjects that reach a method of the manual.
func reachedBy(e wazzup.Endpoint) []string {
	const account = "<account>"
	request := func(name string) []string { return []string{schema.APISubject(account, name)} }
	switch method := e.Method + " " + e.Path; method {
	case "POST /send_message":
		return []string{schema.SendSubject(account, schema.KindSend, "<channelId>"), schema.SendSubject(account, schema.KindBulk, "<channelId>")}
	case "POST /iframe":
		return request("iframe.open")
	case "GET /channels":
		return request("channels.list")
	case "GET /webhooks":
		return request("webhooks.get")
	case "PUT /webhooks":
		return request("webhooks.set")
	default:
		entity, ofOne := strings.CutSuffix(strings.TrimPrefix(e.Path, "/"), "/{id}")
		verbs := map[string]schema.Verb{"PATCH": schema.VerbUpsert, "PUT": schema.VerbReplace, "DELETE": schema.VerbDelete}
		switch {
		case e.Method == "GET" && ofOne:
			return request(entity + ".get")
		case e.Method == "GET":
			return request(entity + ".list")
		default:
			return []string{schema.SyncSubject(account, schema.Entity(entity), verbs[e.Method])}
		}
	}
}

// endpoints is the table of the manual's methods.
func endpoints(testing.TB) string {
	var b strings.Builder
	b.WriteString("| method of the manual | what it does | subject that reaches it |\n| --- | --- | --- |\n")
	for _, e := range wazzup.Endpoints() {
		b.WriteString("| `" + e.Method + " /v2" + e.Path + "` | " + e.About + " | `" + strings.Join(reachedBy(e), "`, `") + "` |\n")
	}
	return b.String()
}

// TestEndpoints walks the README's table: each subject is published to with the
// last example of its JSON Schema, and the simulated vendor must receive the
// method that stands beside it.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{})
	worker, err := relay.BuildWorker(t.Context(), parsed(t, relay.NewWorkerSettings(), map[string]string{
		"WAZZUP_API_KEY": "key", "WAZZUP_API_URL": sim.URL(), "ADMIN_ADDR": free,
		"EMBEDDED_NATS": t.TempDir(), "NATS_URL": "nats://" + free,
	}), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	run(t, worker)
	relaytest.Readiness(t, worker.AdminAddr.String(), 200)
	nc, err := nats.Connect(worker.Embedded.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	requestSubjects(t, nc) // the owner is at work

	var walked []string
	for _, row := range rows(block(t, readme, "endpoints")) {
		endpoint := strings.Trim(row[0], "`")
		walked = append(walked, endpoint)
		for subject := range strings.SplitSeq(row[2], ", ") {
			before := len(sim.Requests())
			exercise(t, nc, strings.Trim(subject, "`"))
			if !slices.ContainsFunc(sim.Requests()[before:], func(q simulator.Request) bool { return isOf(endpoint, q.Method+" "+q.Path) }) {
				t.Errorf("%s did not reach %s: the vendor received %+v", subject, endpoint, sim.Requests()[before:])
			}
		}
	}
	var want []string
	for _, e := range wazzup.Endpoints() {
		want = append(want, e.Method+" /v2"+e.Path)
	}
	sameSet(t, "README's methods of the manual", walked, want)
}

// isOf reports whether what was received is the method of the manual.
func isOf(endpoint, received string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(endpoint), `\{id\}`, `[^/]+`)
	return regexp.MustCompile("^" + pattern + "$").MatchString(received)
}

// exercise publishes a command and waits for its end, or asks and waits for the
// answer, whatever it is.
func exercise(t *testing.T, nc *nats.Conn, template string) {
	t.Helper()
	subject := strings.NewReplacer("<account>", account, "<channelId>", simulator.ChannelWhatsApp).Replace(template)
	if name, ok := strings.CutPrefix(subject, schema.APISubject(account, "")); ok {
		m, err := nc.Request(subject, example(t, schema.RequestSchema(name)), time.Minute)
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		if code := m.Header.Get(micro.ErrorCodeHeader); code == "501" || code == "503" {
			t.Errorf("%s: %s", subject, m.Data)
		}
		return
	}
	kind, _, ok := schema.ParseCommandSubject(account, subject)
	if !ok {
		t.Fatalf("%s is no subject of a command", subject)
	}
	events, err := nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg(subject)
	m.Data = example(t, schema.CommandSchema(kind))
	m.Header.Set(schema.HeaderMsgID, string(kind))
	m.Header.Set(schema.HeaderReplyTo, events.Subject)
	if kind.IsMessage() { // the two classes share an example, and an id is used once
		m.Data = []byte(`{"chatType":"whatsapp","chatId":"79998887766","text":"hello"}`)
	}
	if _, err := nc.RequestMsg(m, time.Minute); err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	for {
		event, err := events.NextMsg(time.Minute)
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		var body schema.CommandEvent
		if err := json.Unmarshal(event.Data, &body); err != nil {
			t.Fatal(err)
		}
		if body.State.Final() {
			return
		}
	}
}

// example is the last one of a JSON Schema (that of webhooks.set calls nobody).
func example(t *testing.T, name string) []byte {
	t.Helper()
	text, _ := schema.JSONSchema(name)
	var doc struct {
		Examples []json.RawMessage `json:"examples"`
	}
	if err := json.Unmarshal(text, &doc); err != nil || len(doc.Examples) == 0 {
		t.Fatalf("schema %s has no example: %v", name, err)
	}
	return doc.Examples[len(doc.Examples)-1]
}
