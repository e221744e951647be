package ingest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/ingest"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	good := ingest.Account{Name: "main", Secrets: []string{"abc"}, PublicURL: "https://hooks.example.com/base/"}
	with := func(change func(*ingest.Account)) []ingest.Account {
		a := good
		change(&a)
		return []ingest.Account{a}
	}
	tests := []struct {
		name     string
		accounts []ingest.Account
		want     []string // parts of the faults, in order; none = valid
	}{
		{"good", []ingest.Account{good}, nil},
		{"plain http", with(func(a *ingest.Account) { a.PublicURL = "http://hooks.example.com:8080" }), nil},
		{"nothing to register", with(func(a *ingest.Account) { a.PublicURL = "" }), nil},
		{"two secrets", with(func(a *ingest.Account) { a.Secrets = []string{"A.b-c_d~9", "x"} }), nil},
		{"none", nil, []string{"no account"}},
		{"name", with(func(a *ingest.Account) { a.Name = "Main" }), []string{"a-z"}},
		{"twice", []ingest.Account{good, good}, []string{"twice"}},
		{"no secret", with(func(a *ingest.Account) { a.Secrets = nil }), []string{"no webhook secret"}},
		{"empty secret", with(func(a *ingest.Account) { a.Secrets = []string{""} }), []string{"secret 1"}},
		{"slash in a secret", with(func(a *ingest.Account) { a.Secrets = []string{"ok", "hidden/secret"} }), []string{"secret 2"}},
		{"percent in a secret", with(func(a *ingest.Account) { a.Secrets = []string{"hidden%41"} }), []string{"secret 1"}},
		{"dots", with(func(a *ingest.Account) { a.Secrets = []string{".."} }), []string{"secret 1"}},
		{"no scheme", with(func(a *ingest.Account) { a.PublicURL = "hooks.example.com" }), []string{"http://"}},
		{"no host", with(func(a *ingest.Account) { a.PublicURL = "https:///x" }), []string{"host"}},
		{"no URL", with(func(a *ingest.Account) { a.PublicURL = "https://hidden:pw@[x" }), []string{"no URL"}},
		{"user", with(func(a *ingest.Account) { a.PublicURL = "https://hidden:pw@example.com" }), []string{"user"}},
		{"query", with(func(a *ingest.Account) { a.PublicURL = "https://example.com/?x" }), []string{"query"}},
		{
			"200 characters", with(func(a *ingest.Account) {
				a.PublicURL = "https://example.com/" + strings.Repeat("x", 200-len("https://example.com/")-len("/webhooks/main/abc"))
			}), nil,
		},
		{
			"201 characters", with(func(a *ingest.Account) {
				a.PublicURL = "https://example.com/" + strings.Repeat("x", 201-len("https://example.com/")-len("/webhooks/main/abc"))
			}), []string{"201 characters"},
		},
		{
			"every fault at once",
			[]ingest.Account{{Name: "A", PublicURL: "x"}, {Name: "b", Secrets: []string{"hidden secret"}}},
			[]string{"a-z", "no webhook secret", "http://", "secret 1"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := ingest.Validate(tt.accounts)
			if len(got) != len(tt.want) {
				t.Fatalf("got %v, want %d faults", got, len(tt.want))
			}
			for i, part := range tt.want {
				if !strings.Contains(got[i].Error(), part) {
					t.Errorf("fault %d: got %q, want it to say %q", i, got[i], part)
				}
			}
			if text := errors.Join(got...); text != nil && strings.Contains(text.Error(), "hidden") {
				t.Errorf("a secret shows: %v", text)
			}
		})
	}
}
