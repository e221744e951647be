package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	main "github.com/wazzup-relay/wazzup-relay/cmd/wazzupctl"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/embedded"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

func TestMain(m *testing.M) {
	queuetest.MaybeServe()
	goleak.VerifyTestMain(m,
		// What nats-server keeps after a shutdown.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Server).startGoRoutine.func1"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"),
	)
}

// outcome is what a run of the program left.
type outcome struct {
	code   int
	stdout string
	text   string // everything that was said: output, log, error
}

// ctl runs the program to its end.
func ctl(t *testing.T, env map[string]string, stdin string, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	err := main.Run(t.Context(), args, relaytest.Env(env), strings.NewReader(stdin), &stdout, &stderr)
	out := outcome{stdout: stdout.String(), text: stdout.String() + stderr.String()}
	if err != nil {
		out.code = daemon.ExitFailed
		if coded, ok := err.(interface{ ExitCode() int }); ok {
			out.code = coded.ExitCode()
		}
		out.text += err.Error()
	}
	return out
}

// want fails unless the code is the given one and all the texts were said.
func (o outcome) want(t *testing.T, code int, says ...string) outcome {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code = %d, want %d:\n%s", o.code, code, o.text)
	}
	for _, text := range says {
		if !strings.Contains(o.text, text) {
			t.Errorf("it does not say %q:\n%s", text, o.text)
		}
	}
	return o
}

func commands() [][]string {
	return [][]string{
		{"dev"},
		{"simulate"},
		{"send"},
		{"watch"},
		{"trace"},
		{"cancel"},
		{"resolve"},
		{"channels"},
		{"users", "list"},
		{"users", "get"},
		{"users", "upsert"},
		{"users", "replace"},
		{"users", "delete"},
		{"contacts", "list"},
		{"contacts", "get"},
		{"contacts", "upsert"},
		{"contacts", "delete"},
		{"deals", "list"},
		{"deals", "get"},
		{"deals", "upsert"},
		{"deals", "delete"},
		{"chat-window"},
		{"webhook", "get"},
		{"webhook", "set"},
		{"dead", "list"},
		{"dead", "show"},
		{"dead", "redrive"},
		{"dead", "drop"},
		{"lanes", "list"},
		{"lanes", "pause"},
		{"lanes", "resume"},
		{"contract"},
		{"doctor"},
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	all := ctl(t, nil, "", "--help").want(t, 0, "Usage: wazzupctl <command>")
	if bare := ctl(t, nil, "").want(t, 0); bare.text != all.text {
		t.Error("a bare call does not print the help")
	}
	for _, command := range commands() {
		t.Run(strings.Join(command, " "), func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(all.text, "  "+command[0]+" ") {
				t.Errorf("--help does not list %s", command[0])
			}
			got := ctl(t, nil, "", append(command, "--help")...).want(t, 0, "Usage: wazzupctl "+strings.Join(command, " "), "--json")
			if _, example, _ := strings.Cut(got.text, "Example"); !strings.Contains(example, "wazzupctl "+strings.Join(command, " ")) {
				t.Errorf("there is no example:\n%s", got.text)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	const canary = "canary-11aa"
	channel := "a0000000-0000-4000-8000-000000000001"
	for _, tt := range []struct {
		name  string
		args  []string
		env   map[string]string
		stdin string
		says  []string
	}{
		{"no such command", []string{"faxes"}, nil, "", []string{"faxes", "--help"}},
		{"no file", []string{"users", "upsert"}, nil, "", []string{"<file>"}},
		{"a file that is not there", []string{"users", "upsert", "no-such.csv"}, nil, "", []string{"no-such.csv"}},
		{"a batch of none", []string{"users", "upsert", "-", "--batch", "0", "--timeout", "0s"}, nil, "id\n1", []string{"--batch"}},
		{"a batch of too many", []string{"users", "upsert", "-", "--batch", "101"}, nil, "id\n1", []string{"--batch", "1 to 100"}},
		{"columns without an id", []string{"contacts", "upsert", "-"}, nil, "name,name,,chatType\n" + canary, []string{"line 1", "name", "twice", "no name", "no column id", "belong together"}},
		{"columns of a delete", []string{"deals", "delete", "--file", "-"}, nil, "id,name\n", []string{"name", "id alone"}},
		{"nothing to delete", []string{"deals", "delete"}, nil, "", []string{"--file"}},
		{"twice what to delete", []string{"deals", "delete", "1", "--file", "-"}, nil, "", []string{"--file"}},
		{"a list from nowhere", []string{"deals", "list", "--limit=-1"}, nil, "", []string{"--limit"}},
		{"a window for nobody", []string{"chat-window"}, nil, "", []string{"--user"}},
		{"a window's chats", []string{"chat-window", "--user", "1", "--chat", "79998887766", "--active", ":1"}, nil, "", []string{"--chat", "--active", "whatsapp:79998887766"}},
		{"a window twice", []string{"chat-window", "-", "--user", "1"}, nil, "{}", []string{"-: goes without"}},
		{"a window that is no JSON", []string{"chat-window", "-"}, nil, canary, []string{"no JSON"}},
		{"no such flag", []string{"send", "--colour"}, nil, "", []string{"--colour", "wazzupctl send --help"}},
		{"a flag without its value", []string{"watch", "--since"}, nil, "", []string{"--since"}},
		{"a missing argument", []string{"trace"}, nil, "", []string{"<id>"}},
		{"no decision", []string{"resolve", "x"}, nil, "", []string{"--as"}},
		{"another decision", []string{"resolve", "x", "--as", "maybe"}, nil, "", []string{"sent", "resend", "drop"}},
		{"nothing to cancel", []string{"cancel"}, nil, "", []string{"<id>"}},
		{"a missing subcommand", []string{"webhook"}, nil, "", []string{"get", "set"}},
		{"a password as a flag", []string{"channels", "--nats-password=" + canary}, nil, "", []string{"--nats-password-file"}},
		{
			"the connection's faults at once",
			[]string{"channels", "--account", "A B", "--nats-url", "http://u:" + canary + "@x"},
			map[string]string{"NATS_USER": "u"},
			"",
			[]string{"WAZZUP_ACCOUNT", "NATS_URL", "NATS_USER"},
		},
		{
			"a password twice",
			[]string{"channels"},
			map[string]string{"NATS_USER": "u", "NATS_PASSWORD": canary, "NATS_PASSWORD_FILE": canary},
			"",
			[]string{"NATS_PASSWORD", "twice"},
		},
		{
			"the message's faults at once",
			[]string{"send", "--chat", "89998887766", "--text", "a", "--content", "b", "--send-at", "soon", "--meta", "{", "--account", "A B"},
			nil, "",
			[]string{"WAZZUP_ACCOUNT", "--send-at", "--meta", "channelId", "CHAT_INCORRECT_CHAT_ID_WHATSAPP", "NOT_A_URL"},
		},
		{"a command's unknown field", []string{"send", "-"}, nil, `{"channelId":"` + channel + `","chatType":"whatsapp","chatId":"79998887766","txt":"` + canary + `"}`, []string{"UNKNOWN_FIELD", "MESSAGE_NOTHING_TO_SEND"}},
		{"a command that is no JSON", []string{"send", "-", "--channel", channel}, nil, canary, []string{"NOT_JSON"}},
		{"flags beside a command", []string{"send", "-", "--text", "a"}, nil, "{}", []string{"--text"}},
		{"an argument that is no -", []string{"send", "hello"}, nil, "", []string{"standard input"}},
		{"a channel that is a wildcard", []string{"send", "--unchecked", "--channel", "*", "--chat", "79998887766", "--text", "a"}, nil, "", []string{"channelId"}},
		{"watching what is not there", []string{"watch", "--kind", "letters", "--since", "yesterday", "--channel", "x"}, nil, "", []string{"letters", "--since", "--channel-id"}},
		{"a webhook nowhere", []string{"webhook", "set"}, nil, "", []string{"PUBLIC_URL"}},
		{"a webhook that is no URL", []string{"webhook", "set", canary}, nil, "", []string{"absolute"}},
		{"a webhook on and off", []string{"webhook", "set", "http://" + canary, "--off"}, nil, "", []string{"--off"}},
		{"a webhook with a bad base", []string{"webhook", "set", "--public-url", "x"}, map[string]string{"WEBHOOK_SECRET": canary}, "", []string{"PUBLIC_URL"}},
		{"letters of no fate", []string{"dead", "list", "--fate", "lost", "--before", "yesterday", "--channel", "x"}, nil, "", []string{"--fate", "--before", "--channel-id"}},
		{"letters by id and otherwise", []string{"dead", "redrive", "--id", "a", "--code", "b", "--rate", "fast"}, nil, "", []string{"--id", "--rate"}},
		{"no letters", []string{"dead", "redrive"}, nil, "", []string{"--all"}},
		{"dropping no letters", []string{"dead", "drop"}, nil, "", []string{"--all"}},
		{"dropping all letters of a kind", []string{"dead", "drop", "--all", "--code", "a"}, nil, "", []string{"--all"}},
		{"a rule that is none", []string{"simulate", "--rule", `{"stats":500}`, "--jitter=-1s"}, nil, "", []string{"--rule 1", "stats", "--jitter"}},
		{"a vendor's rate that is none", []string{"simulate", "--vendor-rate", "many"}, nil, "", []string{"--vendor-rate"}},
		{"a setting of the parts", []string{"dev"}, map[string]string{"WAZZUP_BULK_RATE": "many", "WEBHOOK_SECRET": canary + "/"}, "", []string{"WAZZUP_BULK_RATE"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := ctl(t, tt.env, tt.stdin, tt.args...).want(t, daemon.ExitUsage, tt.says...)
			if strings.Contains(got.text, canary) {
				t.Errorf("it shows a secret:\n%s", got.text)
			}
		})
	}
}

// TestWithoutNATS: what to do about it is part of the error.
func TestWithoutNATS(t *testing.T) {
	t.Parallel()
	env := map[string]string{"NATS_URL": "nats://u:canary-22bb@127.0.0.1:1"}
	for _, args := range [][]string{{"channels"}, {"trace", "x"}, {"cancel", "x"}, {"resolve", "x", "--as", "sent"}, {"webhook", "get"}, {"watch"}, {"webhook", "set", "--off"}} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			got := ctl(t, env, "", append(args, "--connect-timeout=50ms")...).want(t, daemon.ExitFailed, "127.0.0.1:1", "NATS_URL", "wazzupctl dev")
			if strings.Contains(got.text, "canary") {
				t.Errorf("it shows the password: %s", got.text)
			}
		})
	}
	ctl(t, env, "", "doctor", "--connect-timeout=50ms").want(t, daemon.ExitFailed, "broken", "nats-server -js")
}

// TestOnce is the whole system from the producer to the vendor and back. The
// same folder is used twice: ids, streams and the account outlive the process.
func TestOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "nats")
	ctl(t, nil, "", "dev", "--once", "--dir", dir).want(t, 0,
		"✔ inbound", "✔ text", "✔ file", "✔ quote", "✔ refused", "✔ invalid", "✔ limited", "✔ contacts", "all 8 came out right")
	got := ctl(t, map[string]string{"WAZZUP_ACCOUNT_RATE": "1/1h"}, "", "dev", "--once", "--dir", dir, "--json").want(t, 0)
	var report onceReport
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if !report.OK || len(report.Samples) != 8 || len(report.Problems) > 0 {
		t.Errorf("the report is not good: %s", got.stdout)
	}
	if n := storedIn(t, dir); n < 40 {
		t.Errorf("two runs stored %d events: the test looks in the wrong place", n)
	}
}

// storedIn holds the events in a folder of dev's to the contract, and counts them.
func storedIn(t *testing.T, dir string) int {
	t.Helper()
	srv, err := embedded.Start(embedded.Config{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Shutdown()
	return heldToContract(t, srv.URL())
}

// heldToContract holds every event that is stored to the contract, and counts them.
func heldToContract(t *testing.T, url string) int {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	return schematest.Stored(t, nc, "main")
}

type onceReport struct {
	OK      bool `json:"ok"`
	Samples []struct {
		Name     string   `json:"name"`
		OK       bool     `json:"ok"`
		Problems []string `json:"problems"`
	} `json:"samples"`
	Problems []string `json:"problems"`
}

// TestOnceFails: each fault of the vendor must be noticed where it happened, and
// nowhere else.
func TestOnceFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		want map[string]string // sample: part of a problem
	}{
		{
			"a text is refused",
			[]string{"--rule", `{"match":{"chatId":"79990000002"},"status":400,"code":"CHAT_WRONG_CHAT_TYPE"}`},
			map[string]string{"text": "it ended rejected, want sent"},
		},
		{
			"a refusal with another code",
			[]string{"--rule", `{"match":{"chatId":"79990000005"},"status":400,"code":"MESSAGES_IS_SPAM"}`},
			map[string]string{"refused": "the error is MESSAGES_IS_SPAM"},
		},
		{
			"a refused message is taken",
			[]string{"--rule", `{"match":{"chatId":"79990000005"}}`},
			map[string]string{"refused": "it ended sent, want rejected"},
		},
		{
			"no 429 comes",
			[]string{"--rule", `{"match":{"chatId":"79990000007"}}`},
			map[string]string{"limited": "it ended at attempt 1, want 2"},
		},
		{
			"the contacts are refused",
			[]string{"--rule", `{"match":{"path":"/v2/contacts"},"status":400,"code":"VALIDATION_ERROR"}`},
			map[string]string{"contacts": "it ended rejected, want done"},
		},
		{
			"statuses in another order",
			[]string{"--rule", `{"match":{"chatId":"79990000003"},"statuses":[1,3,2]}`},
			nil, // they move forward only: delivered is skipped
		},
		{
			"no echo and no status",
			[]string{"--no-echo", "--no-statuses", "--timeout=15s"},
			map[string]string{"text": "not all of echo and statuses came", "file": "", "quote": "", "refused": "", "invalid": "", "limited": "", "contacts": ""},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code := daemon.ExitFailed
			if tt.want == nil {
				code = daemon.ExitOK
			}
			dir := filepath.Join(t.TempDir(), "nats")
			got := ctl(t, nil, "", append([]string{"dev", "--once", "--json", "--dir", dir}, tt.args...)...).want(t, code)
			var report onceReport
			if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
				t.Fatalf("%v:\n%s", err, got.text)
			}
			for _, s := range report.Samples {
				problem, bad := tt.want[s.Name]
				if s.OK == bad {
					t.Errorf("%s: ok = %t: %q", s.Name, s.OK, s.Problems)
				}
				if bad && !strings.Contains(strings.Join(s.Problems, "\n"), problem) {
					t.Errorf("%s: the problems are %q, want %q", s.Name, s.Problems, problem)
				}
			}
			storedIn(t, dir)
		})
	}
}

// TestOnceWithoutWebhooks: a system that does not come up is told as such.
func TestOnceWithoutWebhooks(t *testing.T) {
	t.Parallel()
	ctl(t, nil, "", "dev", "--once", "--timeout=2s", "--rule", `{"match":{"path":"/v2/webhooks"},"status":503}`).
		want(t, daemon.ExitFailed, "did not come up")
}

// system is a development system that runs beside the test.
type system struct {
	env      map[string]string // to reach it
	where    map[string]string
	log      *relaytest.Output
	shutDown func()
}

// dev starts one on free ports and waits until it is up.
func dev(t *testing.T, env map[string]string, args ...string) *system {
	t.Helper()
	s := &system{log: relaytest.NewOutput()}
	out := relaytest.NewOutput()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	args = append([]string{"dev", "--json", "--nats-addr=127.0.0.1:0", "--vendor-addr=127.0.0.1:0", "--ingest-addr=127.0.0.1:0", "--worker-admin-addr=127.0.0.1:0", "--ingest-admin-addr=127.0.0.1:0"}, args...)
	go func() {
		err := main.Run(ctx, args, relaytest.Env(env), strings.NewReader(""), out, s.log)
		if err != nil && ctx.Err() == nil { // or the test waits for ever
			_, _ = io.WriteString(out, `{"failed":"`+err.Error()+"\"}\n")
		}
		ended <- err
	}()
	stopped := false
	s.shutDown = func() {
		t.Helper()
		if stopped {
			return
		}
		stopped = true
		if s.where["nats"] != "" {
			heldToContract(t, s.where["nats"])
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the system ended with %v, want nil", err)
		}
	}
	t.Cleanup(s.shutDown)
	line := out.Line(t, func(string) bool { return true })
	if err := json.Unmarshal([]byte(line), &s.where); err != nil || s.where["failed"] != "" {
		t.Fatalf("the system did not come up: %s\n%s", line, s.log)
	}
	s.env = map[string]string{"NATS_URL": s.where["nats"]}
	return s
}

func (s *system) ctl(t *testing.T, args ...string) outcome {
	t.Helper()
	return ctl(t, s.env, "", args...)
}

func lines(text string) []map[string]any {
	var all []map[string]any
	for line := range strings.Lines(text) {
		var one map[string]any
		if json.Unmarshal([]byte(line), &one) == nil {
			all = append(all, one)
		}
	}
	return all
}

const (
	whatsApp = "a0000000-0000-4000-8000-000000000001"
	telegram = "a0000000-0000-4000-8000-000000000003"
)

// TestTools uses every other command on one running system.
func TestTools(t *testing.T) {
	t.Parallel()
	secret := "hook-secret"
	s := dev(t, map[string]string{"WEBHOOK_SECRET": secret, "WAZZUP_RECONCILE_WAIT": "100ms"},
		"--rule", `{"match":{"chatId":"79990001111"},"status":400,"code":"MESSAGES_NOT_TEXT_FIRST"}`,
		"--rule", `{"match":{"chatId":"79990002222"},"times":1,"fault":"drop-after-accept","echo":false}`)
	// One after the other: each looks at what the ones before it left.
	toolSend(t, s)
	toolSendInput(t, s)
	toolTrace(t, s)
	toolWatch(t, s, secret)
	toolChannels(t, s)
	toolEntities(t, s)
	toolBulk(t, s)
	toolReplace(t, s)
	toolWithoutWorker(t, s)
	toolChatWindow(t, s)
	toolDead(t, s)
	toolLanes(t, s)
	toolWebhook(t, s, secret)
	toolContract(t, s)
	toolDoctor(t, s)
	s.shutDown()
}

func toolSend(t *testing.T, s *system) {
	t.Helper()
	s.ctl(t, "send", "--channel", whatsApp, "--chat", "79998887766", "--text", "Hello", "--id", "one", "--wait", "--meta", `{"a":1}`, "--group", "g").
		want(t, 0, "one", "stored as number", "sent")
	s.ctl(t, "send", "--channel", whatsApp, "--chat", "79998887766", "--text", "Hello", "--id", "one", "--wait", "--meta", `{"a":1}`, "--group", "g").
		want(t, 1, "duplicate", "its id was used before")
	s.ctl(t, "send", "--channel", whatsApp, "--chat", "79990001111", "--text", "Hello", "--wait").
		want(t, 1, "rejected", "MESSAGES_NOT_TEXT_FIRST")
	s.ctl(t, "send", "--channel", whatsApp, "--chat", "89998887766", "--text", "Hello", "--wait", "--unchecked", "--id", "bad").
		want(t, 1, "invalid", "CHAT_INCORRECT_CHAT_ID_WHATSAPP")
	s.ctl(t, "send", "--channel", whatsApp, "--chat", "79998887766", "--text", "Late", "--expire-at", "2020-01-01T00:00:00Z", "--wait").
		want(t, 1, "expired")
	s.ctl(t, "send", "--channel", whatsApp, "--chat", "79998887766", "--text", "Later", "--send-at", "+1h", "--wait", "--timeout", "200ms", "--id", "later").
		want(t, 1, "has not ended", "wazzupctl trace later")
	s.ctl(t, "send", "--channel", whatsApp, "--chat", "79998887766", "--text", "Hello", "--account", "other").
		want(t, 1, "account other takes no commands")
}

func toolSendInput(t *testing.T, s *system) {
	t.Helper()
	got := ctl(t, s.env, `{"channelId":"`+telegram+`","chatType":"telegram","chatId":"someone","text":"Hi","meta":{"n":1}}`,
		"send", "-", "--bulk", "--wait", "--json").want(t, 0)
	all := lines(got.stdout)
	if len(all) != 2 || all[0]["id"] != all[1]["id"] || all[1]["kind"] != "bulk" || all[1]["state"] != "sent" {
		t.Errorf("it printed %s", got.stdout)
	}
}

func toolTrace(t *testing.T, s *system) {
	t.Helper()
	s.ctl(t, "trace", "one").want(t, 0, "stored", "claim", "attempt 1", "worker=", "final", "sent", "http=201", "message ", "status", "read")
	got := s.ctl(t, "trace", "bad", "--json").want(t, 0)
	if all := lines(got.stdout); len(all) != 1 || all[0]["state"] != "invalid" {
		t.Errorf("it printed %s", got.stdout)
	}
	s.ctl(t, "trace", "nobody").want(t, 1, `no command "nobody"`)
}

func toolWatch(t *testing.T, s *system, secret string) {
	t.Helper()
	got := s.ctl(t, "watch", "--since", "1h", "--id", "one", "--kind", "send", "--state", "sent,dead", "--count", "1", "--json").want(t, 0)
	all := lines(got.stdout)
	if len(all) != 1 || all[0]["subject"] != "wazzup.main.evt.command.sent.send."+whatsApp {
		t.Errorf("it printed %s", got.stdout)
	}
	// A status that comes after the answer is known to be the command's; those that
	// the simulated Wazzup sends by itself may be faster.
	var sent struct {
		Body schema.CommandEvent `json:"body"`
	}
	if err := json.Unmarshal([]byte(got.stdout), &sent); err != nil || sent.Body.MessageID == "" {
		t.Fatalf("%v: it printed %s", err, got.stdout)
	}
	post(t, strings.TrimSuffix(s.where["webhooks"], "***")+secret, fmt.Sprintf(`{"statuses":[{"messageId":%q,"status":13}]}`, sent.Body.MessageID))
	s.ctl(t, "watch", "--since", "1h", "--kind", "status", "--state", "failed", "--id", "one", "--count", "1").want(t, 0, "status", "failed", "command=one")
	s.ctl(t, "watch", "--since", "1h", "--kind", "message", "--state", "out", "--channel", telegram, "--count", "1").want(t, 0, `text="Hi"`, "telegram someone")
	s.ctl(t, "watch", "--since", "1h", "--kind", "bulk", "--count", "1").want(t, 0, "sent", "bulk")
	if got := s.ctl(t, "watch", "--since", "1h", "--id", "nobody", "--for", "100ms").want(t, 0); got.stdout != "" {
		t.Errorf("it printed %s", got.stdout)
	}
	s.ctl(t, "watch", "--account", "other").want(t, 1, "account other has no events")
}

func toolChannels(t *testing.T, s *system) {
	t.Helper()
	s.ctl(t, "channels").want(t, 0, whatsApp, telegram, "active")
	if got := s.ctl(t, "channels", "--json").want(t, 0); strings.Count(got.stdout, `"channelId"`) != 4 || len(lines(got.stdout)) != 1 {
		t.Errorf("it printed %s", got.stdout)
	}
	s.ctl(t, "channels", "--account", "other").want(t, 1, "no worker serves this account")
}

func toolDead(t *testing.T, s *system) {
	t.Helper()
	s.ctl(t, "dead", "list").want(t, 0, "no dead letters")
	s.ctl(t, "dead", "show", "lost").want(t, 1, "no dead letter")
	s.ctl(t, "dead", "redrive", "--id", "lost").want(t, 1, "404")
	s.ctl(t, "send", "--channel", whatsApp, "--chat", "79990002222", "--text", "Lost", "--wait", "--id", "lost", "--group", "g").
		want(t, 1, "dead", "no_evidence")
	s.ctl(t, "dead", "list", "--group", "g", "--after", "1h").want(t, 0, "lost", "unknown", "1 dead letters: 0 proven unsent, 1 in doubt")
	s.ctl(t, "dead", "list", "--fate", "unsent").want(t, 0, "no dead letters")
	got := s.ctl(t, "dead", "list", "--json").want(t, 0)
	if all := lines(got.stdout); len(all) != 1 || all[0]["id"] != "lost" || all[0]["fate"] != "unknown" || strings.Contains(got.stdout, "Lost") {
		t.Errorf("it printed %s", got.stdout)
	}
	s.ctl(t, "dead", "show", "lost").want(t, 0, "lost send died", "unknown", `"text":"Lost"`, "wazzup.main.cmd.send."+whatsApp)
	got = s.ctl(t, "dead", "redrive", "--id", "lost", "--dry-run", "--json").want(t, 0)
	if all := lines(got.stdout); len(all) != 1 || all[0]["redriven"] != 0.0 || all[0]["unknown"] != 1.0 {
		t.Errorf("it printed %s", got.stdout)
	}
	s.ctl(t, "dead", "redrive", "--all").want(t, 1, "1 in doubt", "--include-unknown")
	s.ctl(t, "dead", "redrive", "--group", "g", "--include-unknown", "--rate", "10/1s").want(t, 0, "1 in doubt", "1 redriven")
	s.ctl(t, "watch", "--since", "1h", "--id", "lost", "--state", "sent", "--count", "1").want(t, 0, "sent")
	s.ctl(t, "trace", "lost").want(t, 0, "redrive", "attempt 2", "sent")
	s.ctl(t, "dead", "redrive", "--id", "lost").want(t, 1, "409")
	s.ctl(t, "dead", "drop", "--all").want(t, 1, "409")
}

func toolLanes(t *testing.T, s *system) {
	t.Helper()
	s.ctl(t, "lanes").want(t, 0, whatsApp, "send", "open")
	s.ctl(t, "lanes", "pause", "nonsense").want(t, 2, "uuid")
	s.ctl(t, "lanes", "pause", whatsApp, "--class", "sync").want(t, 2, "--class")
	s.ctl(t, "lanes", "pause", whatsApp, "--class", "bulk").want(t, 0, "bulk", "paused", "operator", "until lane.resume")
	s.ctl(t, "send", "--channel", whatsApp, "--chat", "79990003333", "--text", "Held", "--id", "held", "--bulk").want(t, 0)
	s.ctl(t, "watch", "--since", "1h", "--kind", "ops", "--count", "1").want(t, 0, "lane.paused", "operator")
	got := s.ctl(t, "lanes", "list", "--order-by", "backlog", "--desc", "--json").want(t, 0)
	if all := lines(got.stdout); len(all) == 0 || all[0]["class"] != "bulk" || all[0]["state"] != "paused" || all[0]["backlog"] != 1.0 {
		t.Errorf("it printed %s", got.stdout)
	}
	s.ctl(t, "lanes", "resume", whatsApp).want(t, 0, "bulk", "open")
	s.ctl(t, "watch", "--since", "1h", "--id", "held", "--state", "sent", "--count", "1").want(t, 0, "sent")
}

func toolWebhook(t *testing.T, s *system, secret string) {
	t.Helper()
	hook := strings.TrimSuffix(s.where["webhooks"], "***") + secret
	masked := s.ctl(t, "webhook", "get").want(t, 0, strings.TrimSuffix(s.where["webhooks"], "***")).stdout
	env := maps.Clone(s.env)
	env["PUBLIC_URL"], env["WEBHOOK_SECRET"] = strings.TrimSuffix(hook, "/webhooks/main/"+secret), secret
	ctl(t, env, "", "doctor").want(t, 0, "ok       webhook")
	env["WEBHOOK_SECRET"] = "another"
	ctl(t, env, "", "doctor").want(t, 1, "another secret")
	env["PUBLIC_URL"] = "https://hooks.example"
	ctl(t, env, "", "doctor").want(t, 1, "not at https://hooks.example/webhooks/main/")

	ctl(t, s.env, "", "doctor").want(t, 0, "ok       webhook guard")

	s.ctl(t, "webhook", "set", "--off").want(t, 0, "no address is registered")
	s.ctl(t, "webhook", "get").want(t, 0, "no address is registered", "the guard does not keep", "suspended")
	s.ctl(t, "doctor").want(t, 0, "warning  webhook", "warning  webhook guard", "restart ingest")
	env["PUBLIC_URL"], env["WEBHOOK_SECRET"] = strings.TrimSuffix(hook, "/webhooks/main/"+secret), secret
	ctl(t, env, "", "doctor").want(t, 1, "broken   webhook", "no address is registered")
	ctl(t, env, "", "webhook", "set").want(t, 0)
	s.ctl(t, "webhook", "set", "--off", "--json").want(t, 0, "webhooksUrlChanged")
	ctl(t, s.env, hook+"\n", "webhook", "set", "-").want(t, 0, masked)
}

func toolDoctor(t *testing.T, s *system) {
	t.Helper()
	s.ctl(t, "doctor").want(t, 0, "ok       nats", "ok       jetstream", "ok       stream wazzup-main-records", "ok       worker", "ok       key", "ok       channel "+whatsApp)
	got := s.ctl(t, "doctor", "--account", "other", "--json").want(t, 1, "wazzup-other-commands", "nobody answers")
	if all := lines(got.stdout); len(all) != 1 || all[0]["ok"] != false {
		t.Errorf("it printed %s", got.stdout)
	}
	post(t, s.where["vendor"]+"/_sim/channel", `{"channelId":"`+telegram+`","state":"qr"}`)
	s.ctl(t, "doctor").want(t, 1, "broken   channel "+telegram, "scan the QR code")
	post(t, s.where["vendor"]+"/_sim/rules", `{"match":{"path":"/v2/channels"},"status":401}`)
	s.ctl(t, "doctor").want(t, 1, "broken   key", "WAZZUP_API_KEY")
}

func post(t *testing.T, url, body string) {
	t.Helper()
	if got := relaytest.Post(t, url, body); got != 200 {
		t.Fatalf("POST %s = %d, want 200", url, got)
	}
}

// TestDevFolder: a folder that was named stays, a temporary one goes.
func TestDevFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "kept")
	s := dev(t, nil, "--dir", dir)
	s.shutDown()
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("the folder is gone: %v", err)
	}
	s = dev(t, nil)
	if _, err := os.Stat(s.where["dir"]); err != nil {
		t.Fatalf("there is no folder: %v", err)
	}
	s.shutDown()
	if _, err := os.Stat(s.where["dir"]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary folder is still there: %v", err)
	}
}

func TestSimulate(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	out := relaytest.NewOutput()
	ended := make(chan error, 1)
	go func() {
		ended <- main.Run(ctx, []string{"simulate", "--json", "--addr=127.0.0.1:0", "--seed=7", "--vendor-rate=5/1s", "--status-delay=1h"},
			relaytest.Env(map[string]string{"WAZZUP_API_KEY": "the-key", "LOG_LEVEL": "error"}), strings.NewReader(""), out, io.Discard)
	}()
	var at struct {
		URL      string           `json:"url"`
		Channels []map[string]any `json:"channels"`
	}
	if err := json.Unmarshal([]byte(out.Line(t, func(string) bool { return true })), &at); err != nil {
		t.Fatal(err)
	}
	if len(at.Channels) != 4 {
		t.Errorf("got %d channels, want 4", len(at.Channels))
	}
	status, body := relaytest.Get(t, at.URL+"/_sim/state")
	if status != 200 || !strings.Contains(body, `"seed":7`) || !strings.Contains(body, `"rate":"5/1s"`) || !strings.Contains(body, `"statusDelay":"1h0m0s"`) {
		t.Errorf("the state is %d %s", status, body)
	}
	if status, _ := relaytest.Get(t, at.URL+"/v2/channels"); status != 401 && status != 403 {
		t.Errorf("without the key: %d, want a refusal", status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v, want nil", err)
	}
}
