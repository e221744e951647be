package relay_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/relay"
)

// A misspelt variable is named at start, its value is not, and what others set is
// passed over.
func TestWarnUnknown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		environ []string
		want    []string
	}{
		{"nothing", nil, nil},
		{"known ones", []string{
			"WAZZUP_BULK_RATE=1/1s", "WAZZUP_API_KEY_FILE=key", "WEBHOOK_SECRET=s", "WEBHOOK_SECRET_PREVIOUS_FILE=s",
			"EMBEDDED_NATS=x", "WAZZUP_RELAY_VERSION=1", "PATH=/bin", "NATS_PORT=4222",
		}, nil},
		{"misspelt", []string{"WEBHOOK_SECRETS=" + canary, "WAZZUP_BULKRATE=" + canary, "EMBEDDED_NAT=" + canary}, []string{
			"EMBEDDED_NAT", "WAZZUP_BULKRATE", "WEBHOOK_SECRETS",
		}},
		{"a file of what is no secret", []string{"WAZZUP_BULK_RATE_FILE=x"}, []string{"WAZZUP_BULK_RATE_FILE"}},
		{"empty, as unset", []string{"WAZZUP_BULKRATE="}, nil},
		{"of Kubernetes", []string{
			"WAZZUP_WORKER_SERVICE_HOST=10.0.0.1", "WAZZUP_WORKER_SERVICE_PORT=8081", "WAZZUP_WORKER_PORT=tcp://10.0.0.1:8081",
			"WAZZUP_WORKER_PORT_8081_TCP_ADDR=10.0.0.1",
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			relay.WarnUnknown(zerolog.New(&log), tt.environ)
			got := strings.Count(log.String(), "\n")
			if got != len(tt.want) || strings.Contains(log.String(), canary) {
				t.Errorf("want a line for each of %q, got\n%s", tt.want, &log)
			}
			for _, name := range tt.want {
				if !strings.Contains(log.String(), `"variable":"`+name+`"`) {
					t.Errorf("%s is not named:\n%s", name, &log)
				}
			}
		})
	}
}
