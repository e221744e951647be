package asyncapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/wazzup-relay/wazzup-relay/internal/asyncapi"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// contract is the document that stands alone.
func contract(t *testing.T) map[string]any {
	t.Helper()
	text, err := schema.Contract()
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, text)
}

func decode(t *testing.T, text []byte) map[string]any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return object(t, v)
}

func object(t *testing.T, v any) map[string]any {
	t.Helper()
	o, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("no object: %v", v)
	}
	return o
}

// walk visits every object of a document with its place.
func walk(v any, at string, visit func(at string, o map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		visit(at, v)
		for name, member := range v {
			walk(member, at+"/"+name, visit)
		}
	case []any:
		for i, item := range v {
			walk(item, fmt.Sprintf("%s/%d", at, i), visit)
		}
	}
}

// The document in the repository references the JSON Schemas: each once, by its
// file, and none of it is repeated.
func TestSchemasAreReferenced(t *testing.T) {
	t.Parallel()
	doc := decode(t, schema.AsyncAPI())
	components := object(t, doc["components"])
	schemas := object(t, components["schemas"])
	if got := slices.Sorted(maps.Keys(schemas)); !slices.Equal(got, schema.JSONSchemas()) {
		t.Errorf("components: got the schemas %q, want %q", got, schema.JSONSchemas())
	}
	used := make(map[string]bool)
	for name, s := range schemas {
		if want := "json/" + name + ".json"; object(t, s)["$ref"] != want {
			t.Errorf("schema %s: got %v, want a reference to %s", name, s, want)
		}
	}
	for name, m := range object(t, components["messages"]) {
		message := object(t, m)
		to, _ := object(t, message["payload"])["$ref"].(string)
		used[strings.TrimPrefix(to, "#/components/schemas/")] = true
		walk(message["headers"], "", func(_ string, o map[string]any) {
			to, _ := o["$ref"].(string)
			used[strings.TrimPrefix(to, "#/components/schemas/")] = true
			if o["description"] != nil || o["pattern"] != nil {
				t.Errorf("message %s has a schema of its own for its headers", name)
			}
		})
	}
	for _, name := range schema.JSONSchemas() {
		if !used[name] {
			t.Errorf("no message is of the schema %s", name)
		}
	}
}

// What contract.get answers stands alone: every reference leads somewhere within
// it, and every schema is whole.
func TestContractStandsAlone(t *testing.T) {
	t.Parallel()
	doc := contract(t)
	references := 0
	walk(doc, "", func(at string, o map[string]any) {
		to, ok := o["$ref"].(string)
		if !ok || strings.Contains(at, "/examples/") {
			return
		}
		references++
		var in any = doc
		for name := range strings.SplitSeq(strings.TrimPrefix(to, "#/"), "/") {
			members, _ := in.(map[string]any)
			in = members[name]
		}
		if in == nil || !strings.HasPrefix(to, "#/") {
			t.Errorf("%s leads to %s, where nothing is", at, to)
		}
	})
	if references < 500 {
		t.Errorf("found %d references: the test looks in the wrong place", references)
	}
	for _, name := range schema.JSONSchemas() {
		text, _ := schema.JSONSchema(name)
		want := decode(t, text)
		delete(want, "$schema")
		delete(want, "$id")
		got := object(t, object(t, object(t, doc["components"])["schemas"])[name])
		if len(got) != len(want) || got["title"] != want["title"] {
			t.Errorf("schema %s: got the members %q, want %q", name, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
	}
}

// The answer of contract.get fits into a message with NATS's usual limit, with room
// for more.
func TestContractFits(t *testing.T) {
	t.Parallel()
	text, err := schema.Contract()
	if err != nil {
		t.Fatal(err)
	}
	if limit := 512 << 10; len(text) > limit {
		t.Errorf("the document has %d bytes, want at most %d: NATS takes 1 MiB unless configured otherwise", len(text), limit)
	}
}

// Every example of every message is valid, headers and body.
func TestExamples(t *testing.T) {
	t.Parallel()
	doc := contract(t)
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource("contract.json", doc); err != nil {
		t.Fatal(err)
	}
	validate := func(message, part string, value any) {
		s, err := compiler.Compile("contract.json#/components/messages/" + message + "/" + part)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(value); err != nil {
			t.Errorf("message %s: an example's %s: %v", message, part, err)
		}
	}
	for name, m := range object(t, object(t, doc["components"])["messages"]) {
		message := object(t, m)
		examples, _ := message["examples"].([]any)
		if len(examples) == 0 {
			t.Errorf("message %s has no example", name)
		}
		for _, e := range examples {
			example := object(t, e)
			validate(name, "payload", example["payload"])
			if headers, ok := example["headers"]; ok {
				validate(name, "headers", headers)
			} else if strings.HasPrefix(name, "evt.") || name == "fault" {
				t.Errorf("message %s: an example without headers", name)
			}
		}
	}
}

// TestEverySet: what the code knows, the document has.
func TestEverySet(t *testing.T) {
	t.Parallel()
	doc := decode(t, schema.AsyncAPI())
	channels, components := object(t, doc["channels"]), object(t, doc["components"])
	addresses := make(map[string]bool)
	for _, c := range channels {
		if address, ok := object(t, c)["address"].(string); ok {
			addresses[address] = true
		}
	}
	want := func(address string) {
		if !addresses[address] {
			t.Errorf("no channel has the address %s", address)
		}
		delete(addresses, address)
	}
	for _, k := range schema.Kinds() {
		want(schema.CommandSubject("{account}", k, "{channelId}"))
	}
	for _, name := range schema.Requests() {
		want(schema.APISubject("{account}", name))
	}
	for address := range addresses {
		if !strings.HasPrefix(address, "wazzup.{account}.evt.") {
			t.Errorf("nothing is served at %s", address)
		}
	}
	messages := object(t, components["messages"])
	for _, s := range schema.States() {
		if messages["evt.command."+string(s)] == nil {
			t.Errorf("no message for the state %s", s)
		}
	}
	for _, n := range schema.OpsNames() {
		if messages["evt.ops."+string(n)] == nil {
			t.Errorf("no message for the operator event %s", n)
		}
	}
	if got := object(t, doc["info"])["version"]; got != schema.ContractVersion {
		t.Errorf("version: got %v, want %s", got, schema.ContractVersion)
	}
}

// The document is plain JSON, in the order in which it was thought.
func TestDocument(t *testing.T) {
	t.Parallel()
	text, err := asyncapi.Document()
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) || !bytes.HasPrefix(text, []byte("{\n  \"asyncapi\": \"3.0.0\",\n  \"id\": ")) {
		t.Errorf("it begins with %.60s", text)
	}
}
