package config_test

import (
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
)

func TestWebhookURL(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, base, want string }{
		{"host", "https://hooks.example.org", "https://hooks.example.org/webhooks/main/" + canary},
		{"slash at the end", "https://hooks.example.org/", "https://hooks.example.org/webhooks/main/" + canary},
		{"path", "https://example.org/relay/", "https://example.org/relay/webhooks/main/" + canary},
		{"http and a port", "http://127.0.0.1:8080", "http://127.0.0.1:8080/webhooks/main/" + canary},
		{"IPv6", "http://[::1]:8080", "http://[::1]:8080/webhooks/main/" + canary},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := config.WebhookURL(tt.base, "main", canary)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got %s, want %s", string(got), tt.want)
			}
		})
	}
}

func TestWebhookURLRefuses(t *testing.T) {
	t.Parallel()
	const base = "https://hooks.example.org"
	tests := []struct {
		name, base string
		secret     config.Secret
		says       string
	}{
		{"nothing", "", canary, "absolute"},
		{"no scheme", "hooks.example.org", canary, "absolute"},
		{"another scheme", "ftp://hooks.example.org", canary, "absolute"},
		{"no host", "https://", canary, "absolute"},
		{"a port alone", "https://:443", canary, "absolute"},
		{"no URL", "https://a b/" + canary, canary, "no URL"},
		{"a password", "https://u:" + canary + "@h", canary, "no user"},
		{"a query", base + "?a=b", canary, "no user, query"},
		{"a bare question mark", base + "?", canary, "no user, query"},
		{"a fragment", base + "#a", canary, "fragment"},
		{"too long", base + "/" + strings.Repeat("a", 150), canary, "Wazzup takes 200"},
		{"no secret", base, "", "empty"},
		{"a slash in the secret", base, canary + "/x", "part of a URL"},
		{"a percent sign", base, canary + "%41", "part of a URL"},
		{"not ASCII", base, canary + "é", "part of a URL"},
		{"a parent folder", base, "..", "dots"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := config.WebhookURL(tt.base, "main", tt.secret)
			if err == nil {
				t.Fatalf("got %q, want an error", string(got))
			}
			if !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), canary) {
				t.Errorf("%q does not say %q, or shows the secret", err, tt.says)
			}
		})
	}
}

// The longest address is 200 characters, not one less.
func TestWebhookURLAtTheLimit(t *testing.T) {
	t.Parallel()
	fixed := "https://h//webhooks/main/s"
	base := "https://h/" + strings.Repeat("a", 200-len(fixed))
	got, err := config.WebhookURL(base, "main", "s")
	if err != nil || len(got) != 200 {
		t.Errorf("got %d characters, %v; want 200", len(got), err)
	}
	if _, err := config.WebhookURL(base+"a", "main", "s"); err == nil {
		t.Error("201 characters were taken")
	}
}
