package main_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// The document of the worker that runs, in one line and for people, is that of the
// program itself where both are of one version.
func toolContract(t *testing.T, s *system) {
	t.Helper()
	want, err := schema.Contract()
	if err != nil {
		t.Fatal(err)
	}
	if got := s.ctl(t, "contract", "--json").want(t, 0); got.stdout != string(want)+"\n" {
		t.Errorf("the worker's document has %d bytes, want %d", len(got.stdout), len(want))
	}
	var compact bytes.Buffer
	if got := s.ctl(t, "contract").want(t, 0, "{\n  \"asyncapi\": \"3.0.0\","); json.Compact(&compact, []byte(got.stdout)) != nil || compact.String() != string(want) {
		t.Errorf("for people it prints another document, which begins with %.100s", got.stdout)
	}
}

// The program's own document needs no NATS.
func TestContractBuiltIn(t *testing.T) {
	t.Parallel()
	want, err := schema.Contract()
	if err != nil {
		t.Fatal(err)
	}
	nowhere := map[string]string{"NATS_URL": "nats://127.0.0.1:1"}
	if got := ctl(t, nowhere, "", "contract", "--built-in", "--json").want(t, 0); got.stdout != string(want)+"\n" {
		t.Errorf("it prints %d bytes, want %d", len(got.stdout), len(want))
	}
	ctl(t, nowhere, "", "contract", "--connect-timeout=50ms").want(t, 1, "NATS does not answer")
}
