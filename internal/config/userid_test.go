package config_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
)

func TestParseUserIDs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want, fault string }{
		{"none", " ", "null", ""},
		{"numbers and texts", `17, "18",maria , 007,-5,1.5,"a b"`, `[17,"18","maria","007",-5,"1.5","a b"]`, ""},
		{"a number beyond every float", "123456789012345678901234567890", "[123456789012345678901234567890]", ""},
		{"twice", `17,"17"`, "", "id 2 is listed twice"},
		{"empty", "17,,18", "", "id 2 is empty"},
		{"half a quotation", `"17`, "", "id 1 begins with a quotation mark and does not end with one"},
		{"a lone mark", `"`, "", "id 1 begins with a quotation mark and does not end with one"},
		{"too long", strings.Repeat("u", 65), "", "id 1 is longer than 64 characters"},
		{"no text", "\xff", "", "id 1 is no UTF-8 text"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ids, err := config.ParseUserIDs(tt.text)
			if tt.fault != "" {
				if err == nil || err.Error() != tt.fault {
					t.Errorf("got %v, want %q", err, tt.fault)
				}
				return
			}
			got, encodeErr := json.Marshal(ids)
			if err != nil || encodeErr != nil || string(got) != tt.want {
				t.Errorf("got %s (%v, %v), want %s", got, err, encodeErr, tt.want)
			}
		})
	}
}
