package sender_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// A field of a request or an answer that its JSON Schema does not have, or the
// other way round, is found here.
func TestTypesOfRequests(t *testing.T) {
	t.Parallel()
	requests, answers := sender.RequestTypes(), sender.AnswerTypes()
	schematest.Requests(t, requests)
	schematest.Answers(t, answers)
	for _, name := range schema.Requests() {
		_, known := requests[schema.RequestSchema(name)]
		if group := strings.HasPrefix(name, "group."); known == group {
			t.Errorf("%s: a type for its body: %t, want %t", name, known, !group)
		}
		own := name != "contract.get" && !strings.HasSuffix(name, "s.get") || name == "webhooks.get"
		if _, known := answers[schema.AnswerSchema(name)]; known != (own && !strings.HasPrefix(name, "group.")) {
			t.Errorf("%s: a type for its answer: %t", name, known)
		}
	}
}

// contract.get answers with the document of this version, whole.
func TestContractGet(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	want, err := schema.Contract()
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{``, `{}`} {
		if got := r.ask("contract.get", body); got.Code != "" || string(got.Body) != string(want) {
			t.Errorf("%q: got %s and %d bytes, want %d", body, got.Code, len(got.Body), len(want))
		}
	}
	if got := r.ask("contract.get", `{"format":"yaml"}`); got.Code != "400" || got.Error.Code != schema.FaultUnknownField {
		t.Errorf("a field that it does not take: got %s %+v", got.Code, got.Error)
	}
}

// What JetStream answers to a command is of the contract, stored or not.
func TestAcknowledgements(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stream, err := r.js.Stream(t.Context(), queue.Names{Account: "main"}.Commands())
	if err != nil {
		t.Fatal(err)
	}
	small := stream.CachedInfo().Config
	small.MaxBytes = 4 << 10
	if _, err := r.js.UpdateStream(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	subject := schema.SendSubject("main", schema.KindSend, simulator.ChannelWhatsApp)
	stored, refused := 0, 0
	for i := range 8 {
		body := fmt.Appendf(nil, `{"id":"%d","chatType":"whatsapp","chatId":%q,"text":%q}`, i, phone, strings.Repeat("x", 1000))
		m, err := r.nc.Request(subject, body, patience)
		if err != nil {
			t.Fatal(err)
		}
		if err := schematest.Validate(schema.PubAckSchema, m.Data); err != nil {
			t.Errorf("%v\n%s", err, m.Data)
		}
		if strings.Contains(string(m.Data), `"err_code":10077`) {
			refused++
		} else {
			stored++
		}
	}
	if stored == 0 || refused == 0 {
		t.Errorf("%d commands were stored, %d were refused by the full stream: want some of both", stored, refused)
	}
}
