package schema_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// compileSchemas compiles every schema with formats asserted, the strictest
// that a user's validator may be.
func compileSchemas(tb testing.TB) map[string]*jsonschema.Schema {
	tb.Helper()
	compiled := map[string]*jsonschema.Schema{}
	for _, name := range schema.JSONSchemas() {
		compiler := jsonschema.NewCompiler()
		compiler.DefaultDraft(jsonschema.Draft2020)
		compiler.AssertFormat()
		url := name + ".json"
		if err := compiler.AddResource(url, document(tb, name)); err != nil {
			tb.Fatal(err)
		}
		s, err := compiler.Compile(url)
		if err != nil {
			tb.Fatal(err)
		}
		compiled[name] = s
	}
	return compiled
}

// document is a schema as it is written.
func document(tb testing.TB, name string) map[string]any {
	tb.Helper()
	text, ok := schema.JSONSchema(name)
	if !ok {
		tb.Fatalf("no schema %s", name)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		tb.Fatal(err)
	}
	doc, ok := v.(map[string]any)
	if !ok {
		tb.Fatalf("schema %s is no object", name)
	}
	return doc
}

func TestJSONSchemaNames(t *testing.T) {
	t.Parallel()
	want := map[string]bool{
		"event-command": true, "event-message": true, "event-status": true, "event-channel": true,
		"event-channels": true, "event-counter": true, "event-quarantine": true, "event-ops": true,
	}
	for _, k := range schema.Kinds() {
		want[schema.CommandSchema(k)] = true
	}
	want[schema.AnswerFaultSchema] = true
	for _, name := range schema.Requests() {
		want[schema.RequestSchema(name)] = true
		if !strings.HasPrefix(name, "group.") { // nothing but a refusal
			want[schema.AnswerSchema(name)] = true
		}
	}
	if got := schema.JSONSchemas(); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Errorf("got %q, want %q", got, slices.Sorted(maps.Keys(want)))
	}
	if _, ok := schema.JSONSchema("event-nothing"); ok {
		t.Error("a schema that is not there was found")
	}
	if got := schema.CommandSchema("fax"); got != "" {
		t.Errorf("schema of no kind: got %q", got)
	}
}

func TestJSONSchemasAreDocuments(t *testing.T) {
	t.Parallel()
	metaschema, err := jsonschema.NewCompiler().Compile("https://json-schema.org/draft/2020-12/schema")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range schema.JSONSchemas() {
		doc := document(t, name)
		if err := metaschema.Validate(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if id, _ := doc["$id"].(string); !strings.HasSuffix(id, "/schema/json/"+name+".json") {
			t.Errorf("%s: $id is %q", name, id)
		}
		for _, key := range []string{"title", "description"} {
			if s, _ := doc[key].(string); s == "" {
				t.Errorf("%s: no %s", name, key)
			}
		}
		if examples, _ := doc["examples"].([]any); len(examples) == 0 {
			t.Errorf("%s: no examples", name)
		}
	}
}

func TestJSONSchemaExamples(t *testing.T) {
	t.Parallel()
	compiled := compileSchemas(t)
	for name, s := range compiled {
		examples, _ := document(t, name)["examples"].([]any)
		for i, example := range examples {
			if err := s.Validate(example); err != nil {
				t.Errorf("%s: example %d: %v", name, i, err)
			}
		}
		if event, ok := strings.CutPrefix(name, "event-"); ok {
			examplesDecode(t, event, examples)
			continue
		}
		for _, kind := range schema.Kinds() {
			if schema.CommandSchema(kind) != name {
				continue
			}
			for i, example := range examples {
				if _, faults := schema.Decode("main", kind, channelOf(kind), marshal(t, example)); len(faults) > 0 {
					t.Errorf("%s: example %d: %v", name, i, faults)
				}
			}
		}
	}
}

// examplesDecode reads each example into its Go type without meeting an unknown
// field, and finds it again when it is written.
func examplesDecode(t *testing.T, event string, examples []any) {
	t.Helper()
	into, ok := eventTypes()["event-"+event]
	if !ok {
		return // the vendor's own object
	}
	for i, example := range examples {
		v := reflect.New(reflect.TypeOf(into))
		decoder := json.NewDecoder(bytes.NewReader(marshal(t, example)))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(v.Interface()); err != nil {
			t.Errorf("%s: example %d: %v", event, i, err)
		}
		text := marshal(t, v.Interface())
		if e, ok := reflect.TypeAssert[appender](v); ok {
			var err error
			if text, err = e.AppendJSON(nil); err != nil {
				t.Fatal(err)
			}
		}
		again, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again, example) {
			t.Errorf("%s: example %d came back as %s", event, i, text)
		}
	}
}

func marshal(tb testing.TB, v any) []byte {
	tb.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func channelOf(kind schema.Kind) string {
	if kind.IsMessage() {
		return channel
	}
	return ""
}

// eventTypes are the events whose every field is ours.
func eventTypes() map[string]any {
	return map[string]any{
		"event-command":    schema.CommandEvent{},
		"event-status":     schema.StatusEvent{},
		"event-counter":    schema.CounterEvent{},
		"event-quarantine": schema.QuarantineEvent{},
		"event-ops":        schema.OpsEvent{},
	}
}

// TestJSONSchemasHaveTheFieldsOfTheTypes compares names, which of them are
// required, and JSON types, through all nested types.
func TestJSONSchemasHaveTheFieldsOfTheTypes(t *testing.T) {
	t.Parallel()
	types := eventTypes()
	types["command-send"] = schema.SendCommand{}
	for name, v := range types {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc := document(t, name)
			compareObject(t, name, doc, doc, reflect.TypeOf(v))
		})
	}
	t.Run("envelope", func(t *testing.T) {
		t.Parallel()
		for _, kind := range schema.Kinds() {
			if kind.IsMessage() {
				continue
			}
			doc := document(t, schema.CommandSchema(kind))
			compareObject(t, string(kind), doc, object(t, doc, "$defs", "envelope"), reflect.TypeFor[schema.SyncCommand]())
		}
	})
}

func object(t *testing.T, in map[string]any, keys ...string) map[string]any {
	t.Helper()
	for _, key := range keys {
		next, ok := in[key].(map[string]any)
		if !ok {
			t.Fatalf("no %s in the schema", strings.Join(keys, "/"))
		}
		in = next
	}
	return in
}

func compareObject(t *testing.T, at string, root, s map[string]any, typ reflect.Type) {
	t.Helper()
	var names, required []string
	properties := object(t, s, "properties")
	for field := range typ.Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
		if !strings.Contains(options, "omit") {
			required = append(required, name)
		}
		if property, ok := properties[name].(map[string]any); ok {
			compareValue(t, at+"."+name, root, property, field.Type)
		}
	}
	slices.Sort(names)
	if got := slices.Sorted(maps.Keys(properties)); !slices.Equal(got, names) {
		t.Errorf("%s: the schema has the fields %q, the type %q", at, got, names)
	}
	slices.Sort(required)
	var got []string
	list, _ := s["required"].([]any)
	for _, name := range list {
		text, _ := name.(string)
		got = append(got, text)
	}
	slices.Sort(got)
	if !slices.Equal(got, required) {
		t.Errorf("%s: the schema requires %q, the type %q", at, got, required)
	}
}

func compareValue(t *testing.T, at string, root, s map[string]any, typ reflect.Type) {
	t.Helper()
	if ref, ok := s["$ref"].(string); ok {
		s = object(t, root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if typ == reflect.TypeFor[json.RawMessage]() {
		return // of any type, or told by the schema alone
	}
	want := "object"
	switch {
	case typ.String() == "time.Time" || typ.Kind() == reflect.String:
		want = "string"
	case typ.Kind() == reflect.Slice:
		want = "array"
	case typ.Kind() != reflect.Struct:
		want = "integer"
	}
	if got := s["type"]; got != want {
		t.Errorf("%s: the schema says %v, the type %s", at, got, want)
	}
	compareEnum(t, at, s, typ)
	switch want {
	case "object":
		compareObject(t, at, root, s, typ)
	case "array":
		if typ.Elem() != reflect.TypeFor[json.RawMessage]() {
			compareValue(t, at+"[]", root, object(t, s, "items"), typ.Elem())
		}
	}
}

func words[W ~string](list []W) []string {
	all := make([]string, 0, len(list))
	for _, w := range list {
		all = append(all, string(w))
	}
	return all
}

// compareEnum holds every closed set to its function. A string type of this
// package that is not listed here fails, so that a new one is not forgotten.
func compareEnum(t *testing.T, at string, s map[string]any, typ reflect.Type) {
	t.Helper()
	var want []string
	switch typ {
	case reflect.TypeFor[schema.Kind]():
		want = words(schema.Kinds())
	case reflect.TypeFor[schema.State]():
		want = words(schema.States())
		if strings.HasSuffix(at, ".original.state") {
			want = append(want, string(schema.StatePending))
		}
	case reflect.TypeFor[schema.Class]():
		want = words(schema.Classes())
	case reflect.TypeFor[schema.Phase]():
		want = words(schema.Phases())
	case reflect.TypeFor[schema.Reason]():
		want = words(schema.Reasons())
	case reflect.TypeFor[schema.EvidenceKind]():
		want = words(schema.EvidenceKinds())
	case reflect.TypeFor[schema.QuarantineReason]():
		want = words(schema.QuarantineReasons())
	case reflect.TypeFor[schema.OpsName]():
		want = words(schema.OpsNames())
	case reflect.TypeFor[schema.OnUnknown]():
		want = words([]schema.OnUnknown{schema.OnUnknownReconcile, schema.OnUnknownResend})
	case reflect.TypeFor[string]():
		switch {
		case strings.HasSuffix(at, ".faults[].code"):
			want = schema.FaultCodes()
		case at == "command-send.chatType":
			want = schema.ChatTypes()
		default:
			return
		}
	default:
		if typ.Kind() == reflect.String {
			t.Errorf("%s: no list for %s", at, typ)
		}
		return
	}
	list, _ := s["enum"].([]any)
	var got []string
	for _, w := range list {
		text, _ := w.(string)
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: the schema allows %q, the type %q", at, got, want)
	}
}

// TestJSONSchemaLimits holds the numbers in the schemas to the constants.
func TestJSONSchemaLimits(t *testing.T) {
	t.Parallel()
	tests := []struct {
		schema string
		path   string
		want   int
	}{
		{"command-send", "properties/id/maxLength", schema.MaxIDLength},
		{"command-send", "properties/text/maxLength", schema.MaxTextLength},
		{"command-send", "properties/content/maxLength", schema.MaxContentLength},
		{"command-send", "properties/chatId/maxLength", schema.MaxChatIDLength},
		{"command-send", "properties/refMessageId/maxLength", schema.MaxRefMessageIDLength},
		{"command-users-upsert", "$defs/item/properties/name/maxLength", schema.MaxUserNameLength},
		{"command-users-upsert", "$defs/envelope/properties/id/maxLength", schema.MaxIDLength},
		{"event-command", "$defs/error/properties/faults/maxItems", schema.MaxFaults},
		{"event-command", "$defs/fault/properties/field/maxLength", schema.MaxFieldLength},
		{"request-iframe-open", "properties/user/properties/name/maxLength", schema.MaxUserNameLength},
		{"request-iframe-open", "$defs/chat/properties/chatId/maxLength", schema.MaxChatIDLength},
	}
	for _, tt := range tests {
		keys := strings.Split(tt.path, "/")
		in := object(t, document(t, tt.schema), keys[:len(keys)-1]...)
		if got, want := in[keys[len(keys)-1]], json.Number(string(marshal(t, tt.want))); got != want {
			t.Errorf("%s %s: got %v, want %v", tt.schema, tt.path, got, want)
		}
	}
}

// What is written in several schemas, since each must stand alone, must be
// equal everywhere.
func TestJSONSchemasRepeatThemselvesExactly(t *testing.T) {
	t.Parallel()
	same := [][]string{
		{"command-users-upsert/$defs/item", "command-users-replace/$defs/item"},
		{"command-contacts-delete/$defs/id", "command-deals-delete/$defs/id"},
		{
			"command-send/properties/meta", "command-users-upsert/$defs/envelope/properties/meta",
			"command-users-replace/$defs/envelope/properties/meta", "command-users-delete/$defs/envelope/properties/meta",
			"command-contacts-upsert/$defs/envelope/properties/meta", "command-contacts-delete/$defs/envelope/properties/meta",
			"command-deals-upsert/$defs/envelope/properties/meta", "command-deals-delete/$defs/envelope/properties/meta",
		},
		{
			"command-send/properties/group", "command-users-upsert/$defs/envelope/properties/group",
			"command-users-replace/$defs/envelope/properties/group", "command-users-delete/$defs/envelope/properties/group",
			"command-contacts-upsert/$defs/envelope/properties/group", "command-contacts-delete/$defs/envelope/properties/group",
			"command-deals-upsert/$defs/envelope/properties/group", "command-deals-delete/$defs/envelope/properties/group",
		},
		{"event-channel/properties", "event-channels/$defs/channel/properties", "answer-channels-list/$defs/channel/properties"},
		{"event-command/$defs/fault", "answer-fault/$defs/fault"},
		{"answer-lanes-list/$defs/lane", "answer-lane-pause/$defs/lane", "answer-lane-resume/$defs/lane"},
		{"request-dead-list/$defs/filter", "request-dead-redrive/$defs/filter", "request-dead-drop/$defs/filter"},
		{"answer-users-list/$defs/user/properties", "answer-users-get/properties"},
		{"answer-contacts-list/$defs/contact/properties", "answer-contacts-get/properties"},
		{"answer-deals-list/$defs/deal/properties", "answer-deals-get/properties"},
	}
	for _, group := range same {
		var first map[string]any
		for i, place := range group {
			keys := strings.Split(place, "/")
			got := object(t, document(t, keys[0]), keys[1:]...)
			if i == 0 {
				first = got
			} else if !reflect.DeepEqual(got, first) {
				t.Errorf("%s differs from %s", place, group[0])
			}
		}
	}
}
