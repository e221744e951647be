package docs_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// start is the drawing's name for what is not yet an event.
const start = "waiting"

// drawing is a state diagram as the page on concepts has it.
type drawing struct {
	groups map[string][]string
	edges  [][2]string
	ends   []string
}

func readDrawing(t *testing.T, text string) (d drawing) {
	t.Helper()
	d.groups = make(map[string][]string)
	group := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := regexp.MustCompile(`^state ".*" as (\w+) \{$`).FindStringSubmatch(line); m != nil {
			group = m[1]
		} else if line == "}" {
			group = ""
		} else if group != "" {
			d.groups[group] = append(d.groups[group], line)
		} else if from, to, ok := strings.Cut(line, " --> "); ok {
			to, _, _ = strings.Cut(to, " : ")
			d.edges = append(d.edges, [2]string{from, to})
		} else if names, ok := strings.CutPrefix(line, "class "); ok {
			d.ends = strings.Split(strings.TrimSuffix(names, " end"), ", ")
		}
	}
	return d
}

// members are the states of a group, or the state itself.
func (d drawing) members(name string) []string {
	if all, ok := d.groups[name]; ok {
		return all
	}
	return []string{name}
}

// next are the states that the drawing has follow one. A way back to the start
// leads on from there.
func (d drawing) next(state string) map[string]bool {
	found := make(map[string]bool)
	for _, e := range d.edges {
		if !slices.Contains(d.members(e[0]), state) {
			continue
		}
		for _, to := range d.members(e[1]) {
			if to == start {
				maps.Copy(found, d.next(start))
			} else {
				found[to] = true
			}
		}
	}
	return found
}

// The drawing of a command's states has the ways that the tests hold every stored
// event to, and no others.
func TestStateMachineIsDrawn(t *testing.T) {
	t.Parallel()
	const page = "docs/concepts.md"
	var d drawing
	for _, f := range fences(t, page) {
		if f.language == "mermaid" {
			d = readDrawing(t, f.text)
		}
	}
	for _, state := range append([]schema.State{""}, schema.States()...) {
		name := string(state)
		if state == "" {
			name = "[*]"
		}
		want := make(map[string]bool)
		for _, s := range schema.NextStates(state) {
			want[string(s)] = true
		}
		if got := d.next(name); !maps.Equal(got, want) {
			t.Errorf("after %s: drawn are %v, want %v", name, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
		if drawn := slices.Contains(d.ends, name); drawn != state.Final() {
			t.Errorf("%s is drawn as an end: %t", name, drawn)
		}
	}
}
