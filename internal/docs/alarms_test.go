package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// TestAlarms: the list of alarms names nothing that there is not, and leaves out no
// operator event.
func TestAlarms(t *testing.T) {
	t.Parallel()
	const page = "docs/operating.md"
	list := block(t, page, "alarms")
	metrics := column(t, page, "metrics")
	events := texts(schema.OpsNames())
	for _, m := range regexp.MustCompile("`(wazzup_\\w+)").FindAllStringSubmatch(list, -1) {
		if !slices.Contains(metrics, m[1]) {
			t.Errorf("there is no metric %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile("`([a-z]+\\.[a-z_0-9]+)`").FindAllStringSubmatch(list, -1) {
		if !slices.Contains(events, m[1]) {
			t.Errorf("there is no operator event %s", m[1])
		}
	}
	for _, event := range events {
		if !strings.Contains(list, "`"+event+"`") {
			t.Errorf("the operator event %s is on no row", event)
		}
	}
	for _, state := range []schema.State{schema.StateDead, schema.StateUnknown, schema.StateRejected, schema.StateInvalid} {
		if !strings.Contains(list, "`"+string(state)+"`") && !strings.Contains(list, `"`+string(state)+`"`) {
			t.Errorf("nothing is said about %s", state)
		}
	}
	for line := range strings.Lines(list) {
		if strings.HasPrefix(line, "| ") && strings.Count(line, "|") != 4 {
			t.Errorf("a row needs three cells: %s", line)
		}
	}
}
