//go:build system

package systemtest_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDrift changes a source file as somebody might, and nothing else, and runs the
// tests of `make check` that must notice: the types, the JSON Schemas, the tables of
// requests and the documents cannot go apart unseen. The change is an overlay, which
// only the compiler sees.
func TestDrift(t *testing.T) {
	t.Parallel()
	const types, document, requests = "./schema", "./internal/asyncapi", "./sender"
	const tests = "JSONSchema|^TestGenerated$|^TestExamples$|^TestTypesOfRequests$|^TestDiscovery$"
	for _, tt := range []struct {
		name     string
		file     string
		old, new string // the first is replaced by the second
		tests    string // the package whose tests must fail; "" = all must pass
		says     string
	}{
		{"no change", "schema/state.go", "package schema", "package schema // as it was", "", ""},
		{"a state more", "schema/state.go", "StateDelivered, StateRead, StateFailed,\n\t}", "StateDelivered, StateRead, StateFailed, \"lost\",\n\t}", document, "no words for the state lost"},
		{"a state less", "schema/state.go", "StateDelivered, StateRead, StateFailed,\n\t}", "StateDelivered, StateRead,\n\t}", document, "is not what the code says"},
		{"a kind of command more", "schema/kind.go", "KindDealsUpsert, KindDealsDelete,\n\t}", "KindDealsUpsert, KindDealsDelete, \"fax\",\n\t}", document, "no words for the kind fax"},
		{"an operator event more", "schema/event.go", "OpsLateProof, OpsStorageHigh,\n\t}", "OpsLateProof, OpsStorageHigh, \"worker.tired\",\n\t}", document, "no words for the operator event worker.tired"},
		{"a class of errors more", "schema/state.go", "return []Class{", "return []Class{\"odd\", ", types, `["odd"`},
		{"a fault more", "schema/fault.go", "FaultContentBlank, FaultTextOrContent, FaultNothingToSend,\n\t}", "FaultContentBlank, FaultTextOrContent, FaultNothingToSend, \"ODD\",\n\t}", types, "ODD"},
		{"a field of an event more", "schema/event.go", "type CommandEvent struct {", "type CommandEvent struct {\n\tExtra string `json:\"extra,omitempty\"`", types, `"extra"`},
		{"a field of an event less", "schema/event.go", "\tSupersededBy string          `json:\"supersededBy,omitempty\"`\n", "\tSupersededBy string `json:\"-\"`\n", types, "supersededBy"},
		{"a field of a schema more", "schema/json/event-ops.json", `"opensOn": {`, `"extra": {"type": "string", "description": "More."}, "opensOn": {`, types, `"extra"`},
		{"a field of a vendor's object more", "schema/json/event-message.json", `"instPost": {`, `"extra": {"type": "string", "description": "More."}, "instPost": {`, document, "docs/contract.html is not what the code says"},
		{"another description", "schema/json/event-counter.json", "How many", "The number of", document, "docs/contract.html is not what the code says"},
		{"an example that is wrong", "schema/json/event-ops.json", `"class": "bulk"`, `"class": "fast"`, types, "example"},
		{"another subject", "schema/subject.go", `".evt.channels"`, `".evt.channellist"`, document, "is not what the code says"},
		{"a request in the list alone", "schema/request.go", `"contract.get",`, `"contract.get", "contract.set",`, document, "contract.set"},
		{"a request that is served alone", "sender/api.go", `"dead.list":       o.deadList,`, `"dead.list":       o.deadList, "dead.count": o.deadList,`, requests, "dead.count"},
		{"a field of a request more", "sender/lanesapi.go", "type laneChoice struct {", "type laneChoice struct {\n\tExtra string `json:\"extra\"`", requests, `"extra"`},
		{"a field of an answer more", "sender/lanesapi.go", "type LaneItem struct {", "type LaneItem struct {\n\tExtra string `json:\"extra,omitempty\"`", requests, `"extra"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			packages := []string{tt.tests}
			if tt.tests == "" {
				packages = []string{types, document, requests}
			}
			args := []string{"test", "-C", root, "-overlay", overlay(t, tt.file, tt.old, tt.new), "-run", tests}
			out, err := exec.CommandContext(t.Context(), "go", append(args, packages...)...).CombinedOutput()
			text := string(out)
			switch {
			case tt.tests == "" && err != nil:
				t.Fatalf("without a change: %v\n%s", err, text)
			case tt.tests != "" && (err == nil || !strings.Contains(text, "--- FAIL") || !strings.Contains(text, tt.says)):
				t.Errorf("the tests of %s do not say %q: %v\n%s", tt.tests, tt.says, err, text)
			}
		})
	}
}

// root is the project's folder.
const root = "../.."

// overlay writes what the compiler is to read in the place of a file.
func overlay(t *testing.T, file, old, changed string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(source), old, changed, 1)
	if text == string(source) {
		t.Fatalf("%s does not have %q", file, old)
	}
	folder := t.TempDir()
	replacement, list := filepath.Join(folder, filepath.Base(file)), filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(replacement, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	content, err := json.Marshal(map[string]any{"Replace": map[string]string{path: replacement}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return list
}
