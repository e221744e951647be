package docs_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// TestJSONExamples reads every example of JSON as what it shows: a command must
// be without fault, an event must have no field but those of the schema.
func TestJSONExamples(t *testing.T) {
	t.Parallel()
	const channel = "a0000000-0000-4000-8000-000000000001"
	read := make(map[string]int)
	for _, page := range pages(t) {
		for _, f := range fences(t, page) {
			if f.language != "json" {
				continue
			}
			body := []byte(f.text)
			switch what := kindOf(f.text); what {
			case "message":
				read[what]++
				if _, faults := schema.Decode("main", schema.KindSend, channel, body); len(faults) > 0 {
					t.Errorf("%s:%d: %+v", page, f.line, faults)
				}
			case "sync":
				read[what]++
				if _, faults := schema.Decode("main", schema.KindContactsUpsert, "", body); len(faults) > 0 {
					t.Errorf("%s:%d: %+v", page, f.line, faults)
				}
			case "event":
				read[what]++
				strictly(t, f, &schema.CommandEvent{})
			case "window":
				read[what]++
				bySchema(t, page, schema.RequestSchema("iframe.open"), body)
			case "refusal":
				read[what]++
				bySchema(t, page, schema.AnswerFaultSchema, body)
			case "fault":
				read[what]++
				fault := schema.Fault{}
				strictly(t, f, &fault)
				if want := schema.NewFault(fault.Field, fault.Code); fault != want {
					t.Errorf("%s:%d: got %+v, want %+v", page, f.line, fault, want)
				}
			}
		}
	}
	for _, what := range []string{"message", "sync", "event", "fault", "window", "refusal"} {
		if read[what] == 0 {
			t.Errorf("no page shows an example of a %s", what)
		}
	}
}

// kindOf tells what an example shows by a field that only its like has.
func kindOf(text string) string {
	switch {
	case strings.Contains(text, `"scope"`):
		return "window"
	case strings.HasPrefix(text, `{"error"`):
		return "refusal"
	case strings.Contains(text, `"state"`):
		return "event"
	case strings.Contains(text, `"field"`):
		return "fault"
	case strings.Contains(text, `"items"`), strings.HasPrefix(text, "["):
		return "sync"
	}
	return "message"
}

// bySchema holds an example to a JSON Schema.
func bySchema(t *testing.T, where, name string, body []byte) {
	t.Helper()
	source, ok := schema.JSONSchema(name)
	if !ok {
		t.Errorf("%s: there is no schema %s", where, name)
		return
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(source))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource(name, doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = compiled.Validate(value)
	}
	if err != nil {
		t.Errorf("%s: %v", where, err)
	}
}

func strictly(t *testing.T, f fence, into any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(f.text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Errorf("%s:%d: %v", f.page, f.line, err)
	}
}

// TestAccountsExample loads the accounts file of the page with the files that it
// names.
func TestAccountsExample(t *testing.T) {
	t.Parallel()
	text := block(t, "docs/configuration.md", "accounts")
	text = strings.TrimSuffix(strings.TrimPrefix(text, "```yaml\n"), "```\n")
	folder := t.TempDir()
	for name, content := range map[string]string{
		"accounts.yaml": text,
		"main.key":      "key-1", "main.hook": "hook-1",
		"second.key": "key-2", "second.hook": "hook-2",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	accounts, err := config.LoadAccounts(filepath.Join(folder, "accounts.yaml"), config.ReadAPIKeys|config.ReadWebhookSecrets)
	if err != nil {
		t.Fatal(err)
	}
	if len(accounts) != 2 || accounts[0].PublicURL == "" || len(accounts[0].Channels) != 1 || accounts[1].APIKey == "" {
		t.Errorf("the example was read as %+v", accounts)
	}
}
