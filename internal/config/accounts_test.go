package config_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/rate"
)

const (
	both     = config.ReadAPIKeys | config.ReadWebhookSecrets
	channelA = "5b0a1f54-7b1c-4d0e-9d3a-0f6a2c9e1b11"
	channelB = "5b0a1f54-7b1c-4d0e-9d3a-0f6a2c9e1b22"
)

// accountsFile writes a YAML file among the secret files that the tests name,
// and returns its path. Every secret's text holds the canary.
func accountsFile(t *testing.T, text string) string {
	t.Helper()
	folder := t.TempDir()
	files := map[string]string{
		"a.key": canary + "-key-a\n", "b.key": canary + "-key-b\n", "a2.key": canary + "-key-a\n",
		"new.hook": canary + "-new\n", "old.hook": canary + "-old\n", "new2.hook": canary + "-new\n",
		"bad.hook": canary + "/slash\n", "empty": "\n", "accounts.yaml": text,
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(folder, "accounts.yaml")
}

func TestLoadAccounts(t *testing.T) {
	t.Parallel()
	path := accountsFile(t, `# two integrations
accounts:
  - name: main
    apiKeyFile: a.key
    webhookSecretFiles: [new.hook, old.hook]
    publicUrl: https://hooks.example.org
    rate: 500/5s
    counterUsers: [17, "18", maria, 007]
    channels:
      `+channelA+`: {sendRate: 0, bulkRate: 20/1m}
      `+channelB+`:
        bulkRate: 1/1h
  - name: 007
    apiKeyFile: b.key
    rate:
`)
	got, err := config.LoadAccounts(path, both)
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Account{
		{
			Name: "main", APIKey: canary + "-key-a", WebhookSecrets: []config.Secret{canary + "-new", canary + "-old"},
			PublicURL: "https://hooks.example.org", Rate: &rate.Rate{N: 500, Per: 5 * time.Second},
			CounterUsers: []json.RawMessage{json.RawMessage(`17`), json.RawMessage(`"18"`), json.RawMessage(`"maria"`), json.RawMessage(`"007"`)},
			Channels: map[string]config.ChannelRates{
				channelA: {Send: &rate.Rate{}, Bulk: &rate.Rate{N: 20, Per: time.Minute}},
				channelB: {Bulk: &rate.Rate{N: 1, Per: time.Hour}},
			},
		},
		{Name: "007", APIKey: canary + "-key-b", Channels: map[string]config.ChannelRates{}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// A program reads only the secrets that it needs, and need not be able to read
// the others.
func TestLoadAccountsReadsOnlyWhatIsNeeded(t *testing.T) {
	t.Parallel()
	path := accountsFile(t, `accounts: [{name: a, apiKeyFile: /nowhere/a.key, webhookSecretFiles: [new.hook], publicUrl: "http://h"}, {name: b}]`)
	tests := []struct {
		name  string
		reads config.Reads
		keys  []string // faults
		hooks int
	}{
		{"ingest", config.ReadWebhookSecrets, nil, 1},
		{"neither", 0, nil, 0},
		{"worker", config.ReadAPIKeys, []string{
			":1:34: accounts[0].apiKeyFile: the file that it names cannot be read: no such file or directory",
			": accounts[1].apiKeyFile: is missing",
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := config.LoadAccounts(path, tt.reads)
			if tt.keys != nil {
				assertFaults(t, path, err, tt.keys)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 2 || got[0].APIKey != "" || len(got[0].WebhookSecrets) != tt.hooks {
				t.Errorf("got %+v, want %d webhook secrets and no key", got, tt.hooks)
			}
		})
	}
}

func TestAccountFaults(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		yaml string
		want []string // each is the tail of a fault after the file's name
	}{
		{"nothing", "", []string{": the file is empty"}},
		{"a comment only", "# none\n", []string{": the file is empty"}},
		{"no YAML", "accounts: [", []string{":1:11: "}},
		{"a list at the top", "- name: a\n", []string{":1:1: must be a mapping (key: value)"}},
		{"a text at the top", canary, []string{":1:1: must be a mapping (key: value)"}},
		{"no accounts field", "acounts: []\n", []string{":1:1: acounts: is no field here; there are accounts"}},
		{"accounts left out", "accounts:\n", []string{": lists no accounts"}},
		{"an empty list", "accounts: []\n", []string{":1:11: accounts: is empty"}},
		{"a mapping for a list", "accounts: {name: a}\n", []string{": accounts: must be a list (- element)"}},
		{"two documents", "accounts: []\n---\naccounts: []\n", []string{": a second document begins here; there must be one"}},
		{"a text for an account", "accounts:\n  - " + canary + "\n", []string{":2:5: accounts[0]: must be a mapping (name: …)"}},
		{"a key pasted as a field", "accounts:\n  - name: a\n    apiKeyFile: a.key\n    apiKey: " + canary + "\n", []string{
			":4:5: accounts[0].apiKey: is no field here; there are apiKeyFile, channels, counterUsers, name, publicUrl, rate, webhookSecretFiles",
		}},
		{"a field twice", "accounts:\n  - name: a\n    name: b\n    apiKeyFile: " + canary + "\n", []string{`:3:5: mapping key "name" already defined at [2:5]`}},
		{"no name, no key", "accounts:\n  - rate: 0\n", []string{": accounts[0].name: is missing", ": accounts[0].apiKeyFile: is missing"}},
		{"bad names", "accounts:\n  - {name: Main, apiKeyFile: a.key}\n  - {name: a.b, apiKeyFile: b.key}\n", []string{
			`:2:12: accounts[0].name: "Main" is no account name: 1 to 32 of a-z, 0-9 and -`,
			`:3:12: accounts[1].name: "a.b" is no account name: 1 to 32 of a-z, 0-9 and -`,
		}},
		{"an empty name", "accounts:\n  - {name: \"\", apiKeyFile: a.key}\n", []string{":2:12: accounts[0].name: is empty"}},
		{"one name twice", "accounts:\n  - {name: a, apiKeyFile: a.key}\n  - {name: a, apiKeyFile: b.key}\n", []string{
			`:3:12: accounts[1].name: "a" is the name of the account on line 2 too`,
		}},
		{"one key twice", "accounts:\n  - {name: a, apiKeyFile: a.key}\n  - {name: b, apiKeyFile: a2.key}\n", []string{
			`:3:27: accounts[1].apiKeyFile: holds the API key of account "a" too; one integration is one account`,
		}},
		{"the key where its file belongs", "accounts:\n  - {name: a, apiKeyFile: " + canary + "}\n", []string{
			":2:27: accounts[0].apiKeyFile: the file that it names cannot be read: no such file or directory",
		}},
		{"an empty key", "accounts:\n  - {name: a, apiKeyFile: empty}\n", []string{":2:27: accounts[0].apiKeyFile: the file is empty"}},
		{"webhook secrets", "accounts:\n  - name: a\n    apiKeyFile: a.key\n    webhookSecretFiles: [new.hook, new2.hook, old.hook]\n", []string{
			":4:36: accounts[0].webhookSecretFiles[1]: holds the same secret as the one before it",
			":4:47: accounts[0].webhookSecretFiles[2]: is one too many: at most 2 secrets are valid at once",
		}},
		{"a webhook secret that no URL holds", "accounts:\n  - {name: a, apiKeyFile: a.key, webhookSecretFiles: [bad.hook]}\n", []string{
			":2:55: accounts[0].webhookSecretFiles[0]: the secret is part of a URL: only A-Z a-z 0-9 . _ ~ - may be in it",
		}},
		{"no webhook secrets in the list", "accounts:\n  - {name: a, apiKeyFile: a.key, webhookSecretFiles: []}\n", []string{
			": accounts[0].webhookSecretFiles: is empty",
		}},
		{"a public URL alone", "accounts:\n  - {name: a, apiKeyFile: a.key, publicUrl: \"https://h\"}\n", []string{
			": accounts[0].publicUrl: needs webhookSecretFiles: the secret is part of the registered URL",
		}},
		{"a public URL that is none", "accounts:\n  - {name: a, apiKeyFile: a.key, webhookSecretFiles: [new.hook], publicUrl: hooks.example.org}\n", []string{
			": accounts[0].publicUrl: must be an absolute http or https URL",
		}},
		{"rates", "accounts:\n  - name: a\n    apiKeyFile: a.key\n    rate: 500\n    channels:\n      " + channelA + ": {sendRate: x, bulkRate: [1]}\n", []string{
			`:4:11: accounts[0].rate: "500" is no rate: write 500/5s for 500 in any 5 seconds, or 0 for no limit`,
			`:6:56: accounts[0].channels.` + channelA + `.sendRate: "x" is no rate: write 500/5s for 500 in any 5 seconds, or 0 for no limit`,
			`: accounts[0].channels.` + channelA + `.bulkRate: must be a plain text or number (anchors, aliases and tags are not read)`,
		}},
		{"channels", "accounts:\n  - name: a\n    apiKeyFile: a.key\n    channels:\n      main: {}\n      " + strings.ToUpper(channelA) + ": {}\n      " + channelB + ": {rate: 0}\n", []string{
			":5:7: accounts[0].channels.main: is no channel id: a uuid in lower case",
			":6:7: accounts[0].channels." + strings.ToUpper(channelA) + ": is no channel id: a uuid in lower case",
			":7:46: accounts[0].channels." + channelB + ".rate: is no field here; there are bulkRate, sendRate",
		}},
		{"users", "accounts:\n  - name: a\n    apiKeyFile: a.key\n    counterUsers: [17, \"17\", " + strings.Repeat("u", 65) + ", {}]\n", []string{
			":4:24: accounts[0].counterUsers[1]: is listed twice",
			":4:30: accounts[0].counterUsers[2]: is longer than 64 characters",
			": accounts[0].counterUsers[3]: must be a plain text or number (anchors, aliases and tags are not read)",
		}},
		{"an alias", "accounts:\n  - &a {name: a, apiKeyFile: a.key}\n  - *a\n", []string{
			": accounts[0]: must be a mapping (name: …)",
			": accounts[1]: must be a mapping (name: …)",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := accountsFile(t, tt.yaml)
			accounts, err := config.LoadAccounts(path, both)
			if err == nil {
				t.Fatalf("got %+v, want faults", accounts)
			}
			assertFaults(t, path, err, tt.want)
		})
	}
}

// assertFaults compares faults by what follows the file's name; a want that
// begins with ": " leaves line and column open.
func assertFaults(t *testing.T, path string, err error, want []string) {
	t.Helper()
	got := faults(t, err)
	ok := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		tail, found := strings.CutPrefix(got[i], path)
		fits := strings.HasPrefix(tail, want[i])
		if strings.HasPrefix(want[i], ": ") {
			fits = strings.HasSuffix(tail, want[i])
		}
		ok = ok && found && fits
	}
	if !ok {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestAccountsFileUnreadable(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	large := filepath.Join(folder, "large")
	if err := os.WriteFile(large, []byte(strings.Repeat("#", 1<<20+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, path, want string }{
		{"missing", filepath.Join(folder, "none"), ": cannot be read: no such file or directory"},
		{"a folder", folder, ": cannot be read: is a directory"},
		{"too large", large, ": is larger than 1MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := config.LoadAccounts(tt.path, both)
			assertFaults(t, tt.path, err, []string{tt.want})
		})
	}
}

// FuzzAccounts: no text makes the reader panic, and what it takes obeys the
// rules that the programs rely on.
func FuzzAccounts(f *testing.F) {
	for _, seed := range []string{
		"accounts:\n  - name: a\n    rate: 500/5s\n    channels:\n      " + channelA + ": {sendRate: 0}\n",
		"accounts: [{name: a, counterUsers: [1, '1']}]", "accounts: [*a, &a {<<: *b}]", "a: !!int 1\n---\n...\n", "? {a: b}\n: c\n", "- |\n  x\n", "{", "\"\\", "accounts: [{name: a, publicUrl: 'http://h', webhookSecretFiles: [x]}]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "accounts.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		accounts, err := config.LoadAccounts(path, 0)
		if err != nil {
			if len(faults(t, err)) == 0 {
				t.Errorf("an error without a fault: %v", err)
			}
			return
		}
		if len(accounts) == 0 {
			t.Error("neither accounts nor a fault")
		}
		names := map[string]bool{}
		for _, account := range accounts {
			if account.Name == "" || names[account.Name] {
				t.Errorf("the names are not each its own: %v", slices.Collect(maps.Keys(names)))
			}
			names[account.Name] = true
		}
	})
}
