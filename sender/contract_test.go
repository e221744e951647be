package sender_test

import (
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
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
