package daemon_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
)

func TestLoggerFormats(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, level, format string
		lines               int
		json                bool
	}{
		{"defaults, no terminal", "", "", 2, true},
		{"json", "info", "json", 2, true},
		{"console", "info", "console", 2, false},
		{"debug", "debug", "json", 3, true},
		{"error", "error", "json", 1, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				log, err := daemon.NewLogger(tc.level, tc.format, &out)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(1234567 * time.Nanosecond)
				log.Debug().Msg("a debug line")
				log.Info().Str("key", "value").Msg("an info line")
				log.Error().Msg("an error line")
				lines := strings.Split(strings.TrimSpace(out.String()), "\n")
				if got := len(lines); got != tc.lines {
					t.Fatalf("%d lines, want %d:\n%s", got, tc.lines, &out)
				}
				// The bubble's clock starts at this moment.
				const want = "2000-01-01T00:00:00.001234567Z"
				for _, line := range lines {
					if !strings.Contains(line, want) {
						t.Errorf("line %s has no time %s", line, want)
					}
					if got := json.Valid([]byte(line)); got != tc.json {
						t.Errorf("line %s: JSON = %t, want %t", line, got, tc.json)
					}
					if strings.Contains(line, "\x1b") {
						t.Errorf("colours, though this is no terminal: %q", line)
					}
				}
			})
		})
	}
}

func TestLoggerFaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, level, format string
		want                []string
	}{
		{"level", "loud", "json", []string{"LOG_LEVEL"}},
		{"level of zerolog's that we do not offer", "panic", "json", []string{"LOG_LEVEL"}},
		{"number", "3", "json", []string{"LOG_LEVEL"}},
		{"format", "info", "xml", []string{"LOG_FORMAT"}},
		{"both", "loud", "xml", []string{"LOG_LEVEL", "LOG_FORMAT"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := daemon.NewLogger(tc.level, tc.format, new(bytes.Buffer))
			checkFaults(t, err, tc.want)
		})
	}
}

// checkFaults wants one line for each variable, and exit code 2.
func checkFaults(t *testing.T, err error, variables []string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	lines := daemon.Faults(err)
	if len(lines) != len(variables) {
		t.Fatalf("faults = %q, want one for each of %q", lines, variables)
	}
	for i, variable := range variables {
		if !strings.HasPrefix(lines[i], variable) {
			t.Errorf("fault %q does not begin with %s", lines[i], variable)
		}
	}
	var stderr bytes.Buffer
	if got := daemon.RunMain(fails(err), nil, &stderr, nil, nil); got != daemon.ExitUsage {
		t.Errorf("exit code = %d, want %d", got, daemon.ExitUsage)
	}
}
