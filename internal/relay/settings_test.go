package relay_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
)

const (
	canary  = "canary-5f1e"
	channel = "5b0a1f54-7b1c-4d0e-9d3a-0f6a2c9e1b11"
)

// TestDefaults holds every setting to what is promised: name and default. The
// flag follows from the name.
func TestDefaults(t *testing.T) {
	t.Parallel()
	nats := []string{
		"NATS_URL=nats://127.0.0.1:4222", "NATS_CREDS=", "NATS_USER=", "NATS_PASSWORD=", "NATS_CA=", "NATS_CERT=", "NATS_KEY=",
		"NATS_INBOX_PREFIX=_INBOX",
	}
	for _, tt := range []struct {
		name  string
		table *config.Set
		want  []string
	}{
		{"worker", relay.NewWorkerSettings().Table(), slices.Concat([]string{
			"WAZZUP_ACCOUNT=main", "WAZZUP_API_KEY=", "WAZZUP_API_URL=https://api.wazzup24.com", "WAZZUP_API_INSECURE=false",
			"WAZZUP_ACCOUNTS_FILE=", "WAZZUP_COUNTER_USERS=", "WAZZUP_WS_URL=https://api-ws.wazzup24.com",
			"WAZZUP_ACCOUNT_RATE=500/5s", "WAZZUP_SEND_RATE=0", "WAZZUP_BULK_RATE=20/1m", "WAZZUP_CONCURRENCY=64",
			"WAZZUP_MAX_ATTEMPTS=8", "WAZZUP_TIMEOUT=20s", "WAZZUP_BACKOFF=1s..5m", "WAZZUP_EVIDENCE=echo",
			"WAZZUP_RECONCILE_WAIT=2m", "WAZZUP_CHANNELS_POLL=1m", "WAZZUP_STATUS_WAIT=10m", "WAZZUP_SYNC_GATHER=200ms", "WEBHOOK_SILENCE=15m", "WAZZUP_FLOOD_PAUSE=1h",
			"WAZZUP_SPAM_LIMIT=3", "WAZZUP_SPAM_WINDOW=1h",
		}, nats, []string{
			"EMBEDDED_NATS=", "EMBEDDED_SYNC_ALWAYS=false", "EMBEDDED_CERT=", "EMBEDDED_KEY=",
			"WAZZUP_RETENTION=168h", "WAZZUP_DEAD_RETENTION=720h", "WAZZUP_DEDUPE_WINDOW=1h", "WAZZUP_REPLICAS=1",
			"WAZZUP_COMMAND_BYTES=2GiB", "WAZZUP_RECORD_BYTES=4GiB", "WAZZUP_DEFERRED_BYTES=1GiB", "WAZZUP_DEAD_BYTES=512MiB",
			"ADMIN_ADDR=127.0.0.1:8081", "LOG_LEVEL=info", "LOG_FORMAT=",
		})},
		{"ingest", relay.NewIngestSettings().Table(), slices.Concat([]string{
			"INGEST_ADDR=127.0.0.1:8080", "WAZZUP_ACCOUNT=main", "WEBHOOK_SECRET=", "WEBHOOK_SECRET_PREVIOUS=", "PUBLIC_URL=",
			"WEBHOOK_POLL=5m", "WEBHOOK_MAX_BODY=8MiB", "WAZZUP_ACCOUNTS_FILE=",
		}, nats, []string{"ADMIN_ADDR=127.0.0.1:8082", "LOG_LEVEL=info", "LOG_FORMAT="})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, s := range tt.table.Settings() {
				got = append(got, s.Name+"="+s.Default)
				if secret := s.Name == "WAZZUP_API_KEY" || s.Name == "NATS_PASSWORD" || strings.HasPrefix(s.Name, "WEBHOOK_SECRET"); secret != s.Secret {
					t.Errorf("%s: secret = %t, want %t", s.Name, s.Secret, secret)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "))
			}
		})
	}
}

func worker(args []string, env map[string]string) (*relay.WorkerSettings, error) {
	s := relay.NewWorkerSettings()
	return s, relay.Parse(s, args, relaytest.Env(env), io.Discard)
}

func ingestSettings(env map[string]string) (*relay.IngestSettings, error) {
	s := relay.NewIngestSettings()
	return s, relay.Parse(s, nil, relaytest.Env(env), io.Discard)
}

// faults are the places that an error of usage names, in order.
func faults(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	usage, ok := errors.AsType[*relay.UsageError](err)
	if !ok || usage.ExitCode() != daemon.ExitUsage {
		t.Fatalf("got %v, want an error with exit code 2", err)
	}
	all, ok := errors.AsType[*config.Error](err)
	if !ok {
		t.Fatalf("got %v, want a list of faults", err)
	}
	var places []string
	for _, f := range all.Faults {
		name, _, _ := strings.Cut(f.Where, " (")
		places = append(places, name)
	}
	return places
}

// TestWorkerFaults: whatever is wrong, all of it is named at once, and what
// could not be read is not judged a second time.
func TestWorkerFaults(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	key := map[string]string{"WAZZUP_API_KEY": canary}
	for _, tt := range []struct {
		name string
		args []string
		env  map[string]string
		want []string
	}{
		{"nothing given", nil, nil, []string{"WAZZUP_API_KEY"}},
		{"only the key", nil, key, nil},
		{
			"everything at once",
			[]string{"--wazzup-account-rate=x", "--admin-addr=8081", "--nope"},
			map[string]string{
				"WAZZUP_ACCOUNT": "Main", "WAZZUP_API_URL": "http://vendor.example", "WAZZUP_TIMEOUT": "0s", "WAZZUP_CONCURRENCY": "0",
				"WAZZUP_MAX_ATTEMPTS": "0", "WAZZUP_BACKOFF": "1s", "WAZZUP_EVIDENCE": "hope", "WAZZUP_RETENTION": "1h",
				"WAZZUP_DEDUPE_WINDOW": "2h", "WAZZUP_REPLICAS": "6", "WAZZUP_RECORD_BYTES": "0", "NATS_URL": "http://nats",
				"NATS_USER": "u", "WAZZUP_CHANNELS_POLL": "0s", "WAZZUP_RECONCILE_WAIT": "0s", "WAZZUP_STATUS_WAIT": "0s", "LOG_LEVEL": "loud",
				"WAZZUP_WS_URL": "ws://socket", "WAZZUP_COUNTER_USERS": "1,1", "WEBHOOK_SILENCE": "1ms",
			},
			[]string{
				"--nope", "--wazzup-account-rate", "WAZZUP_BACKOFF", "WAZZUP_EVIDENCE", "LOG_LEVEL",
				"WAZZUP_API_URL", "WAZZUP_WS_URL", "WAZZUP_COUNTER_USERS", "WAZZUP_ACCOUNT", "WAZZUP_API_KEY", "WAZZUP_CONCURRENCY", "WAZZUP_MAX_ATTEMPTS", "WAZZUP_TIMEOUT",
				"WAZZUP_RECONCILE_WAIT", "WAZZUP_CHANNELS_POLL", "WAZZUP_STATUS_WAIT", "WEBHOOK_SILENCE", "WAZZUP_RETENTION", "WAZZUP_DEDUPE_WINDOW", "WAZZUP_REPLICAS",
				"WAZZUP_RECORD_BYTES", "NATS_URL", "NATS_USER", "ADMIN_ADDR",
			},
		},
		{"a key that cannot be read is not missing too", nil, map[string]string{"WAZZUP_API_KEY_FILE": missing}, []string{"WAZZUP_API_KEY_FILE"}},
		{"a password that cannot be read is not missing too", []string{"--nats-password-file", missing}, map[string]string{"WAZZUP_API_KEY": canary, "NATS_USER": "u"}, []string{"--nats-password-file"}},
		{"an accounts file that is not there", nil, map[string]string{"WAZZUP_ACCOUNTS_FILE": missing}, []string{"WAZZUP_ACCOUNTS_FILE"}},
		{"an address without port", nil, map[string]string{"WAZZUP_API_KEY": canary, "ADMIN_ADDR": "127.0.0.1"}, []string{"ADMIN_ADDR"}},
		{"inboxes outside of _INBOX", nil, map[string]string{"WAZZUP_API_KEY": canary, "NATS_INBOX_PREFIX": "worker"}, []string{"NATS_INBOX_PREFIX"}},
		{"certificate without key", nil, map[string]string{"WAZZUP_API_KEY": canary, "NATS_CERT": missing}, []string{"NATS_KEY"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := worker(tt.args, tt.env)
			if got := faults(t, err); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q\n%v", got, tt.want, err)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestEmbeddedFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		env  map[string]string
		want []string
	}{
		{"default address", nil, nil},
		{"loopback name", map[string]string{"NATS_URL": "nats://localhost:4333"}, nil},
		{"another interface", map[string]string{"NATS_URL": "nats://0.0.0.0:4222"}, []string{"NATS_URL"}},
		{"another interface with credentials", map[string]string{"NATS_URL": "nats://0.0.0.0:4222", "NATS_USER": "u", "NATS_PASSWORD": "p"}, nil},
		{"a name that may be any interface", map[string]string{"NATS_URL": "nats://nats.example:4222"}, []string{"NATS_URL"}},
		{"user alone", map[string]string{"NATS_USER": "u"}, []string{"NATS_USER"}},
		{"a cluster", map[string]string{"NATS_URL": "nats://127.0.0.1:4222,nats://127.0.0.1:4223"}, []string{"NATS_URL"}},
		{"credentials in the URL", map[string]string{"NATS_URL": "nats://u:" + canary + "@127.0.0.1:4222"}, []string{"NATS_URL"}},
		{"web socket", map[string]string{"NATS_URL": "ws://127.0.0.1:4222"}, []string{"NATS_URL"}},
		{"creds and client certificate", map[string]string{"NATS_CREDS": "x", "NATS_CA": "y"}, []string{"NATS_CREDS", "NATS_CA"}},
		{"replicas", map[string]string{"WAZZUP_REPLICAS": "3"}, []string{"WAZZUP_REPLICAS"}},
		{"half a certificate", map[string]string{"EMBEDDED_CERT": "x"}, []string{"EMBEDDED_CERT"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{"WAZZUP_API_KEY": canary, "EMBEDDED_NATS": t.TempDir()}
			maps.Copy(env, tt.env)
			_, err := worker(nil, env)
			if got := faults(t, err); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q\n%v", got, tt.want, err)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestVendorAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, url, insecure string
		ok, warned          bool
	}{
		{"https", "https://api.wazzup24.com", "", true, false},
		{"http on this machine", "http://127.0.0.1:8090", "", true, false},
		{"http on this machine, IPv6", "http://[::1]:8090", "", true, false},
		{"http on localhost", "http://localhost:8090", "", true, false},
		{"http elsewhere", "http://vendor.example", "", false, true},
		{"http elsewhere, allowed", "http://vendor.example", "true", true, true},
		{"https, allowed for nothing", "https://vendor.example", "true", true, false},
		{"a name that begins like loopback", "http://127.0.0.1.example", "", false, true},
		{"another scheme", "ftp://vendor.example", "", false, false},
		{"no scheme", "vendor.example", "", false, false},
		{"a password", "https://u:" + canary + "@vendor.example", "", false, false},
		{"a query", "https://vendor.example?key=" + canary, "", false, false},
		{"a path", "https://proxy.example/wazzup", "", true, false},
		{"the version", "https://api.wazzup24.com/v2/", "", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := worker(nil, map[string]string{
				"WAZZUP_API_KEY": canary, "WAZZUP_API_URL": tt.url, "WAZZUP_WS_URL": tt.url, "WAZZUP_API_INSECURE": tt.insecure,
			})
			if (err == nil) != tt.ok {
				t.Fatalf("got %v, want it taken: %t", err, tt.ok)
			}
			both := []string{"WAZZUP_API_URL", "WAZZUP_WS_URL"}
			if err != nil {
				if got := faults(t, err); !slices.Equal(got, both) || strings.Contains(err.Error(), canary) {
					t.Errorf("got %v", err)
				}
				return
			}
			if warned := slices.Equal(s.Insecure, both); warned != tt.warned || !warned && len(s.Insecure) > 0 {
				t.Errorf("insecure = %q, want both: %t", s.Insecure, tt.warned)
			}
			if s.Accounts[0].APIURL != tt.url || s.Accounts[0].CounterURL != tt.url {
				t.Errorf("the worker calls %q and %q, want %q", s.Accounts[0].APIURL, s.Accounts[0].CounterURL, tt.url)
			}
		})
	}
}

func TestIngestFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		env  map[string]string
		want []string
	}{
		{"nothing given", nil, []string{"WEBHOOK_SECRET"}},
		{"only the secret", map[string]string{"WEBHOOK_SECRET": canary}, nil},
		{
			"everything at once",
			map[string]string{
				"WEBHOOK_SECRET": canary + "/slash", "WEBHOOK_SECRET_PREVIOUS": canary + "?", "PUBLIC_URL": "ftp://x", "WAZZUP_ACCOUNT": "a b",
				"INGEST_ADDR": "8080", "ADMIN_ADDR": "x:y", "WEBHOOK_MAX_BODY": "0", "WEBHOOK_POLL": "1ms", "NATS_URL": "", "NATS_CREDS": "/nowhere",
			},
			[]string{
				"INGEST_ADDR", "ADMIN_ADDR", "WEBHOOK_POLL", "WEBHOOK_MAX_BODY", "WAZZUP_ACCOUNT", "WEBHOOK_SECRET", "PUBLIC_URL",
				"WEBHOOK_SECRET_PREVIOUS", "NATS_CREDS",
			},
		},
		{"a public URL without a secret", map[string]string{"PUBLIC_URL": "x"}, []string{"WEBHOOK_SECRET", "PUBLIC_URL"}},
		{"a public URL that is too long", map[string]string{"WEBHOOK_SECRET": canary, "PUBLIC_URL": "https://h/" + strings.Repeat("x", 200)}, []string{"PUBLIC_URL"}},
		{"public http", map[string]string{"WEBHOOK_SECRET": canary, "PUBLIC_URL": "http://hooks.example"}, nil},
		{"the same secret twice", map[string]string{"WEBHOOK_SECRET": canary, "WEBHOOK_SECRET_PREVIOUS": canary}, []string{"WEBHOOK_SECRET_PREVIOUS"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := ingestSettings(tt.env)
			if got := faults(t, err); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q\n%v", got, tt.want, err)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestOneAccount(t *testing.T) {
	t.Parallel()
	s, err := worker([]string{"--wazzup-account=shop", "--wazzup-bulk-rate", "0", "--wazzup-evidence=none", "--wazzup-retention=24h"},
		map[string]string{
			"WAZZUP_API_KEY": "the-key", "WAZZUP_ACCOUNT": "other", "WAZZUP_SEND_RATE": "5/1s", "WAZZUP_COUNTER_USERS": `17, "18", maria`, "WEBHOOK_SILENCE": "0",
		})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Accounts) != 1 {
		t.Fatalf("got %d accounts, want 1", len(s.Accounts))
	}
	a := s.Accounts[0]
	if a.Account != "shop" || a.APIKey != "the-key" || a.Evidence != "none" || a.Worker == "" ||
		a.Rate != (rate.Rate{N: 500, Per: 5 * time.Second}) || a.SendRate != (rate.Rate{N: 5, Per: time.Second}) || !a.BulkRate.IsZero() ||
		a.Limits.Retention != 24*time.Hour || a.Limits.Replicas != 1 || a.Concurrency != 64 || a.MaxAttempts != 8 || a.Timeout != 20*time.Second ||
		a.Silence >= 0 || fmt.Sprintf("%s", a.CounterUsers) != `[17 "18" "maria"]` || a.CounterURL != "https://api-ws.wazzup24.com" {
		t.Error("the account is not what flags, environment and defaults say") // it holds a key: not printed
	}
	i, err := ingestSettings(map[string]string{"WEBHOOK_SECRET": "new", "WEBHOOK_SECRET_PREVIOUS": "old", "PUBLIC_URL": "https://h"})
	if err != nil {
		t.Fatal(err)
	}
	if got := i.Accounts[0]; got.Name != "main" || !slices.Equal(got.Secrets, []string{"new", "old"}) || got.PublicURL != "https://h" {
		t.Error("the ingest's account is not what the environment says")
	}
}

func TestManyAccounts(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for name, text := range map[string]string{
		"a.key": "key-a\n", "b.key": "key-b\n", "a.hook": "hook-a\n", "b.hook": "hook-b\n",
		"accounts.yaml": `
accounts:
  - name: a
    apiKeyFile: a.key
    webhookSecretFiles: [a.hook]
    publicUrl: https://hooks.example
    rate: 10/1s
    counterUsers: [17, "18"]
    channels: {` + channel + `: {sendRate: 1/1s}}
  - name: b
    apiKeyFile: b.key
    webhookSecretFiles: [b.hook]
`,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{
		"WAZZUP_ACCOUNTS_FILE": filepath.Join(folder, "accounts.yaml"), "WAZZUP_ACCOUNT_RATE": "20/1s",
		"WAZZUP_API_KEY": "unused", "WEBHOOK_SECRET": "unused", "WAZZUP_COUNTER_USERS": "unused",
	}
	s, err := worker(nil, env)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Accounts) != 2 {
		t.Fatalf("got %d accounts, want 2", len(s.Accounts))
	}
	a, b := s.Accounts[0], s.Accounts[1]
	if a.Account != "a" || a.APIKey != "key-a" || a.Rate.N != 10 || a.Channels[channel].SendRate.N != 1 || a.Channels[channel].BulkRate != nil ||
		b.Account != "b" || b.APIKey != "key-b" || b.Rate.N != 20 || len(b.Channels) != 0 || b.BulkRate.N != 20 ||
		fmt.Sprintf("%s", a.CounterUsers) != `[17 "18"]` || len(b.CounterUsers) != 0 || b.Silence != 15*time.Minute {
		t.Error("the accounts are not those of the file over the program's own settings")
	}
	if !slices.Equal(s.Ignored, []string{"WAZZUP_API_KEY", "WAZZUP_COUNTER_USERS"}) {
		t.Errorf("ignored = %q, want the API key and the users", s.Ignored)
	}
	i, err := ingestSettings(env)
	if err != nil {
		t.Fatal(err)
	}
	if len(i.Accounts) != 2 || i.Accounts[0].URL() != "https://hooks.example/webhooks/a/hook-a" || i.Accounts[1].PublicURL != "" || i.Accounts[1].Secrets[0] != "hook-b" {
		t.Error("the ingest's accounts are not those of the file")
	}
}

func TestAccountsFileWithoutSecrets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "accounts.yaml")
	if err := os.WriteFile(file, []byte("accounts: [{name: a, apiKeyFile: a.key}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ingestSettings(map[string]string{"WAZZUP_ACCOUNTS_FILE": file})
	if got := faults(t, err); !slices.Equal(got, []string{file}) || !strings.Contains(err.Error(), "accounts[0].webhookSecretFiles: is missing") {
		t.Errorf("got %v", err)
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, s := range []relay.Settings{relay.NewWorkerSettings(), relay.NewIngestSettings()} {
		var out bytes.Buffer
		err := relay.Parse(s, []string{"--help"}, relaytest.Env(map[string]string{"WAZZUP_API_KEY": canary, "WEBHOOK_SECRET": canary}), &out)
		if !errors.Is(err, config.ErrHelp) {
			t.Errorf("got %v, want ErrHelp", err)
		}
		for _, row := range s.Table().Settings() {
			if !strings.Contains(out.String(), "  "+row.Name+", "+row.Flag+" <") {
				t.Errorf("--help does not list %s", row.Name)
			}
		}
		if strings.Contains(out.String(), canary) {
			t.Error("--help shows a secret")
		}
	}
}
