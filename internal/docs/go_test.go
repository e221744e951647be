package docs_test

import (
	"strings"
	"testing"
)

// TestGoExamples: a line of Go on a page stands in code that is compiled: an
// example of a package, or the example program.
func TestGoExamples(t *testing.T) {
	t.Parallel()
	compiled := make(map[string]bool)
	for _, path := range goFiles(t, true) {
		rel := strings.TrimPrefix(path, root+"/")
		if !strings.HasSuffix(rel, "/example_test.go") && !strings.HasPrefix(rel, "examples/") {
			continue
		}
		for line := range strings.Lines(read(t, rel)) {
			compiled[strings.TrimSpace(line)] = true
		}
	}
	lines := 0
	for _, page := range pages(t) {
		for _, f := range fences(t, page) {
			if f.language != "go" {
				continue
			}
			for line := range strings.Lines(f.text) {
				line = strings.TrimPrefix(strings.TrimSpace(line), "import ")
				if line == "" || line == "// …" {
					continue
				}
				if lines++; !compiled[line] {
					t.Errorf("%s:%d: no example has the line %s", page, f.line, line)
				}
			}
		}
	}
	if lines == 0 {
		t.Error("no page shows any Go")
	}
}
