package schema_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

func fullEvent() schema.CommandEvent {
	retry := time.Date(2026, 11, 22, 10, 0, 4, 0, time.FixedZone("", 3*3600))
	return schema.CommandEvent{
		ID: "order-1042 \"<&>\" \u2028 я", Account: "main", Kind: schema.KindSend, State: schema.StateDead,
		At: time.Date(2026, 11, 22, 10, 0, 0, 123_400_000, time.UTC), Attempt: 3,
		ChannelID: channel, ChatType: "whatsapp", ChatID: "79998887766", MessageID: "m",
		Error: &schema.Error{
			Code: "TIMEOUT", Class: schema.ClassUnknown, Description: "no answer\n", HTTPStatus: 504,
			Phase: schema.PhaseWritten, Reason: schema.ReasonNoEvidence,
			Faults: []schema.Fault{{Field: "a", Code: "EMPTY", Description: "d"}, {Field: "", Code: "TOO_DEEP"}},
		},
		Evidence: &schema.Evidence{Kind: schema.EvidenceEcho, MessageID: "m2"},
		Original: &schema.Original{State: schema.StatePending, Seq: 1 << 63},
		Items: []schema.ItemError{
			{ID: json.RawMessage(`17`), Error: &schema.Error{Code: "X", Class: schema.ClassTerminal}},
			{ID: json.RawMessage(` "a\u0062" `), Error: &schema.Error{Code: "Y", Class: schema.ClassTerminal}},
		},
		RetryAt: &retry, SupersededBy: "s", Group: "g", Seq: 4711,
		Meta: json.RawMessage("{ \"a\" : [ 1.0, null ],\n \"b\":\"<\\u0041>\" }"),
	}
}

type appender interface {
	AppendJSON(dst []byte) ([]byte, error)
}

// TestAppendJSONSaysWhatEncodingJSONSays compares the two as JSON values, and
// both as the types that they are read back into.
func TestAppendJSONSaysWhatEncodingJSONSays(t *testing.T) {
	t.Parallel()
	full := fullEvent()
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	tests := map[string]appender{
		"full event":                   &full,
		"zero event":                   &schema.CommandEvent{},
		"event with empty parts":       &schema.CommandEvent{Error: &schema.Error{}, Evidence: &schema.Evidence{}, Original: &schema.Original{}, Items: []schema.ItemError{{}}, Meta: json.RawMessage(`null`)},
		"event with bad UTF-8":         &schema.CommandEvent{ID: "a\xffb", ChatID: "\xed\xa0\x80"},
		"event with control bytes":     &schema.CommandEvent{ID: "\x00\x1f\x7f\"\\/"},
		"event with duplicates inside": &schema.CommandEvent{Meta: json.RawMessage(`{"a":1,"a":2}`)},
		"full operator event":          &schema.OpsEvent{Name: schema.OpsLaneClosed, Account: "main", At: at, ChannelID: channel, Class: "send", Reason: "r", OpensOn: "o", Detail: json.RawMessage(`{"a": 1}`)},
		"zero operator event":          &schema.OpsEvent{},
		"full send":                    &schema.SendCommand{ID: "i", ChannelID: channel, ChatType: "vk", ChatID: "1", Text: "t", Content: "c", RefMessageID: "r", SendAt: at, ExpireAt: at, OnUnknown: schema.OnUnknownResend, Meta: json.RawMessage(`[1]`), Group: "g"},
		"zero send":                    &schema.SendCommand{},
		"full sync":                    &schema.SyncCommand{ID: "i", Meta: json.RawMessage(`{}`), Group: "g", Items: []json.RawMessage{[]byte(`{"id": 1}`), []byte(`2`)}},
		"empty sync":                   &schema.SyncCommand{Items: []json.RawMessage{}},
	}
	for name, v := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := v.AppendJSON([]byte("before"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(got, []byte("before{")) {
				t.Fatalf("got %s", got)
			}
			sameJSON(t, got[len("before"):], marshal(t, v), v)
		})
	}
}

// sameJSON compares two texts of v, but for the way in which times are written.
func sameJSON(t *testing.T, got, want []byte, v any) {
	t.Helper()
	if bytes.ContainsAny(got, "\n\t") {
		t.Errorf("not compact: %s", got)
	}
	read := func(text []byte) (object map[string]any, typed any) {
		if err := json.Unmarshal(text, &object); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		for _, name := range []string{"at", "retryAt", "sendAt", "expireAt"} {
			if s, ok := object[name].(string); ok {
				instant, err := time.Parse(time.RFC3339Nano, s)
				if err != nil {
					t.Fatal(err)
				}
				object[name] = instant.UTC()
			}
		}
		to := reflect.New(reflect.TypeOf(v).Elem())
		if err := json.Unmarshal(text, to.Interface()); err != nil {
			t.Fatal(err)
		}
		return object, to.Interface()
	}
	gotObject, gotTyped := read(got)
	wantObject, _ := read(want)
	if !reflect.DeepEqual(gotObject, wantObject) {
		t.Errorf("got %s, want %s", got, want)
	}
	// What was read back says the same once more.
	again, _ := read(marshal(t, gotTyped))
	if !reflect.DeepEqual(again, wantObject) {
		t.Errorf("after a round trip: got %v, want %v", again, wantObject)
	}
}

// Members come in the order of the fields, which is that of the documentation.
func TestAppendJSONOrder(t *testing.T) {
	t.Parallel()
	e := fullEvent()
	got, err := e.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	if order, want := topNames(t, got), topNames(t, marshal(t, e)); !reflect.DeepEqual(order, want) {
		t.Errorf("got %q, want %q", order, want)
	}
}

func topNames(t *testing.T, text []byte) (names []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		s, _ := name.(string)
		names = append(names, s)
		var skip json.RawMessage
		if err := d.Decode(&skip); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

func TestAppendJSONFails(t *testing.T) {
	t.Parallel()
	tooLate := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	// Year 9999 here, but not in UTC.
	justTooLate := time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -3*3600))
	tests := map[string]appender{
		"meta":      &schema.CommandEvent{Meta: json.RawMessage(`{"secret"`)},
		"two metas": &schema.CommandEvent{Meta: json.RawMessage(`1 2`)},
		"item id":   &schema.CommandEvent{Items: []schema.ItemError{{ID: json.RawMessage(`secret`)}}},
		"at":        &schema.CommandEvent{At: tooLate},
		"at in UTC": &schema.CommandEvent{At: justTooLate},
		"retryAt":   &schema.CommandEvent{RetryAt: &tooLate},
		"detail":    &schema.OpsEvent{Detail: json.RawMessage(`secret`)},
		"sendAt":    &schema.SendCommand{SendAt: tooLate},
		"send meta": &schema.SendCommand{Meta: json.RawMessage(`secret`)},
		"sync item": &schema.SyncCommand{Items: []json.RawMessage{nil}},
	}
	for name, v := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := v.AppendJSON([]byte("before"))
			if err == nil || string(got) != "before" {
				t.Errorf("got %s, %v", got, err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error holds the value: %v", err)
			}
		})
	}
}

func TestFormatTime(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,9}Z$`)
	base := time.Date(2026, 11, 22, 13, 0, 0, 0, time.FixedZone("", 3*3600))
	for nanos, want := range map[time.Duration]string{
		0:           "2026-11-22T10:00:00.000Z",
		100_000_000: "2026-11-22T10:00:00.100Z",
		120_000_000: "2026-11-22T10:00:00.120Z",
		123_000_000: "2026-11-22T10:00:00.123Z",
		123_400_000: "2026-11-22T10:00:00.1234Z",
		1:           "2026-11-22T10:00:00.000000001Z",
	} {
		got := schema.FormatTime(base.Add(nanos))
		if got != want || !pattern.MatchString(got) {
			t.Errorf("%d: got %s, want %s", nanos, got, want)
		}
	}
	if got, want := schema.FormatTime(time.Time{}), "0001-01-01T00:00:00.000Z"; got != want {
		t.Errorf("zero: got %s, want %s", got, want)
	}
}

// Every event that the encoder writes meets the published schema.
func TestEventsMeetTheirSchema(t *testing.T) {
	t.Parallel()
	compiled := compileSchemas(t)
	full := fullEvent()
	events := []*schema.CommandEvent{&full}
	for _, kind := range schema.Kinds() {
		for _, state := range schema.States() {
			events = append(events, &schema.CommandEvent{
				ID: "a", Account: "main", Kind: kind, State: state, At: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Seq: 1,
			})
		}
	}
	_, faults := schema.Decode("main", schema.KindSend, "x", []byte(`{"chatId":"@","text":"","foo":1,"meta":{"a":1,"a":1}}`))
	invalid := *events[1]
	invalid.Error = schema.InvalidError(faults)
	events = append(events, &invalid)
	for _, e := range events {
		text, err := e.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(compiled["event-command"], text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	wrong, err := jsonschema.UnmarshalJSON(strings.NewReader(`{"id":"a","account":"main","kind":"send","state":"pending","at":"2026-11-22T10:00:00Z","seq":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if compiled["event-command"].Validate(wrong) == nil {
		t.Error("the schema accepts a state that is never published and a time without a fraction")
	}
}
