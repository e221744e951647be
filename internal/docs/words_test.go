package docs_test

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	commandsPage = "docs/commands.md"
	eventsPage   = "docs/events.md"
)

func texts[T ~string](words []T) []string {
	var all []string
	for _, w := range words {
		all = append(all, string(w))
	}
	return all
}

// TestWords: the closed sets of words stand on the events' page, as far as this
// version uses them.
func TestWords(t *testing.T) {
	t.Parallel()
	for _, set := range []struct {
		name string
		want []string
	}{
		{"words", slices.Concat(texts(schema.Classes()), texts(schema.Phases()))},
		{"reasons", inUse(t, "state.go", "Reason")},
		{"quarantine", texts(schema.QuarantineReasons())},
		{"ops", inUse(t, "event.go", "Ops")},
	} {
		t.Run(set.name, func(t *testing.T) {
			t.Parallel()
			sameSet(t, eventsPage+", "+set.name, column(t, eventsPage, set.name), set.want)
		})
	}
}

// TestFields: every field of a body is on the page that explains it.
func TestFields(t *testing.T) {
	t.Parallel()
	for _, body := range []struct {
		page  string
		value any
		// later are fields that nothing fills in this version.
		later []string
	}{
		{commandsPage, schema.SendCommand{}, nil},
		{commandsPage, schema.SyncCommand{}, nil},
		{eventsPage, schema.CommandEvent{}, nil},
		{eventsPage, schema.Error{}, nil},
		{commandsPage, schema.Fault{}, nil},
		{eventsPage, schema.QuarantineEvent{}, nil},
		{eventsPage, schema.OpsEvent{}, []string{"class", "detail"}},
	} {
		kind := reflect.TypeOf(body.value)
		t.Run(kind.Name(), func(t *testing.T) {
			t.Parallel()
			page := read(t, body.page)
			for field := range kind.Fields() {
				name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
				named := regexp.MustCompile("[`\"]" + name + "[`\"]").MatchString(page)
				if !named && !slices.Contains(body.later, name) {
					t.Errorf("%s does not name the field %s", body.page, name)
				}
			}
		})
	}
}
