package simulator_test

import (
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

func readPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/simulator.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// Every control call that the page shows works.
func TestThePagesExamples(t *testing.T) {
	t.Parallel()
	page := strings.ReplaceAll(readPage(t), "\\\n", " ")
	s := start(t, simulator.Config{WebhookURL: serveReceiver(t, &receiver{})})
	call := regexp.MustCompile(`(?m)^    curl (-X \w+ )?"?\$SIM(/_sim/[^ "\n]+)"?(?: -d '(.*)')?$`)
	seen := make(map[string]bool)
	for _, m := range call.FindAllStringSubmatch(page, -1) {
		method, path, body := strings.TrimSpace(strings.TrimPrefix(m[1], "-X ")), m[2], m[3]
		switch {
		case method != "":
		case body != "":
			method = http.MethodPost
		default:
			method = http.MethodGet
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(path, "/_sim/"), "?")
		seen[method+" "+name] = true
		if strings.Contains(body, "refuse") {
			// Its effect has a test of its own, and would refuse the calls that follow.
			if _, err := simulator.ParseRules([]byte(body)); err != nil {
				t.Errorf("%s: %v", body, err)
			}
			continue
		}
		if r := s.do(method, path, body); r.status != http.StatusOK {
			t.Errorf("%s %s %s: %d %s", method, path, body, r.status, r.body)
		}
	}
	for _, want := range []string{
		"POST rules", "GET rules", "DELETE rules", "GET requests", "GET state", "POST inbound", "POST channel", "POST webhook", "POST config", "POST reset",
	} {
		if !seen[want] {
			t.Errorf("the page shows no call of %s", want)
		}
	}
}

// Every field and every default channel is on the page.
func TestThePageNamesAll(t *testing.T) {
	t.Parallel()
	page := readPage(t)
	for _, v := range []any{simulator.Rule{}, simulator.Match{}, simulator.Tuning{}, simulator.Inbound{}} {
		for field := range reflect.TypeOf(v).Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if _, isMatch := v.(simulator.Match); isMatch {
				name = "match." + name
			}
			if name != "match" && !strings.Contains(page, "`"+name+"`") {
				t.Errorf("the page does not name %s", name)
			}
		}
	}
	for _, ch := range simulator.DefaultChannels() {
		if !strings.Contains(page, "| `"+ch.ChannelID+"` | `"+ch.Transport+"` |") {
			t.Errorf("the page does not name the channel %s", ch.ChannelID)
		}
	}
	for _, fault := range []simulator.Fault{simulator.FaultRefuse, simulator.FaultDropBeforeRead, simulator.FaultDropAfterAccept, simulator.FaultHang} {
		if !strings.Contains(page, "| `"+string(fault)+"` |") {
			t.Errorf("the page does not name the fault %s", fault)
		}
	}
}
