package sender_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// schemaOf reads a JSON Schema down to a place in it.
func schemaOf(t *testing.T, name string, path ...string) map[string]any {
	t.Helper()
	text, ok := schema.JSONSchema(name)
	if !ok {
		t.Fatalf("there is no schema %s", name)
	}
	var in map[string]any
	if err := json.Unmarshal(text, &in); err != nil {
		t.Fatal(err)
	}
	for _, key := range path {
		next, ok := in[key].(map[string]any)
		if !ok {
			t.Fatalf("%s has no %s", name, strings.Join(path, "/"))
		}
		in = next
	}
	return in
}

// fieldsOf are the names of a type's members, those of embedded types included,
// and which of them are always there.
func fieldsOf(typ reflect.Type) (names, always []string) {
	for field := range typ.Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.Anonymous && name == "" {
			more, required := fieldsOf(field.Type)
			names, always = append(names, more...), append(always, required...)
			continue
		}
		names = append(names, name)
		if !strings.Contains(options, "omit") {
			always = append(always, name)
		}
	}
	return names, always
}

// TestAnswerSchemas: the schemas of answers have the fields of our types.
func TestAnswerSchemas(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		path []string
		of   any
	}{
		{"answer-command-get", nil, sender.Timeline{}},
		{"answer-command-get", []string{"properties", "waiting"}, sender.Waiting{}},
		{"answer-command-get", []string{"properties", "timeline", "items"}, sender.Step{}},
		{"answer-command-get", []string{"$defs", "wait"}, queue.Wait{}},
		{"answer-lanes-list", nil, sender.LaneList{}},
		{"answer-lanes-list", []string{"$defs", "lane"}, sender.LaneItem{}},
		{"answer-dead-list", nil, sender.DeadList{}},
		{"answer-dead-list", []string{"$defs", "letter"}, sender.DeadItem{}},
		{"answer-dead-show", nil, sender.DeadDetail{}},
		{"answer-dead-redrive", nil, sender.RedriveAnswer{}},
		{"answer-dead-drop", nil, sender.DropAnswer{}},
		{"answer-iframe-open", nil, sender.ChatWindow{}},
		{"answer-users-list", nil, sender.List{}},
		{"answer-contacts-list", nil, sender.List{}},
		{"answer-fault", []string{"$defs", "error"}, schema.Error{}},
		{"answer-fault", []string{"$defs", "fault"}, schema.Fault{}},
	} {
		doc := schemaOf(t, tt.name, tt.path...)
		names, always := fieldsOf(reflect.TypeOf(tt.of))
		slices.Sort(names)
		slices.Sort(always)
		properties, _ := doc["properties"].(map[string]any)
		if got := slices.Sorted(maps.Keys(properties)); !slices.Equal(got, names) {
			t.Errorf("%s %v: the schema has %q, the type %q", tt.name, tt.path, got, names)
		}
		var required []string
		list, _ := doc["required"].([]any)
		for _, one := range list {
			text, _ := one.(string)
			required = append(required, text)
		}
		slices.Sort(required)
		if !slices.Equal(required, always) {
			t.Errorf("%s %v: the schema requires %q, the type always has %q", tt.name, tt.path, required, always)
		}
	}
}

// TestRequestExamples: every example of every request is understood, whatever is
// answered to it.
func TestRequestExamples(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	for _, name := range schema.Requests() {
		examples, _ := schemaOf(t, schema.RequestSchema(name))["examples"].([]any)
		for _, example := range examples {
			body, err := json.Marshal(example)
			if err != nil {
				t.Fatal(err)
			}
			if name == "webhooks.set" && !strings.Contains(string(body), "null") {
				continue // the vendor would call that address
			}
			got := r.ask(name, string(body))
			if len(got.Error.Faults) > 0 || got.Error.Code == "BAD_REQUEST" || got.Error.Code == "INTERNAL" {
				t.Errorf("%s %s: got %s %+v", name, body, got.Code, got.Error)
			}
		}
	}
}
