//go:build system

package systemtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

// scripts are the examples of one language, which all take the same arguments and
// print the same.
type scripts struct {
	language string
	dir      string
	path     string // where its programs are
	run      func(script string) []string
}

func nodeScripts(t *testing.T) *scripts {
	t.Helper()
	return &scripts{"node", need(t, nodeExamples), os.Getenv("PATH"), func(s string) []string { return []string{"node", s + ".js"} }}
}

func shellScripts(t *testing.T) *scripts {
	t.Helper()
	path := need(t, natsTool) + string(filepath.ListSeparator) + os.Getenv("PATH")
	return &scripts{"shell", filepath.Join(examples, "shell"), path, func(s string) []string { return []string{"sh", s + ".sh"} }}
}

// pythonScripts are there where nats-py is installed; Debian has no package of it.
func pythonScripts(t *testing.T) *scripts {
	t.Helper()
	if err := command(".", "python3", "-c", "import nats"); err != nil {
		return nil
	}
	return &scripts{"python", filepath.Join(examples, "python"), os.Getenv("PATH"), func(s string) []string { return []string{"python3", s + ".py"} }}
}

func (s *scripts) env(r *rig, more ...string) []string {
	return append([]string{"PATH=" + s.path, "HOME=" + r.t.TempDir(), "NATS_URL=" + r.url}, more...)
}

// do runs a script to its end.
func (s *scripts) do(r *rig, env []string, script string, args ...string) (stdout, stderr string, exit int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	line := append(s.run(script), args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, env, &out, &errs
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			r.t.Fatal(err)
		}
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// The examples of each language that runs here, as their pages tell to run them:
// every end of a command, what is not stored, a sync, the requests.
func TestClientScripts(t *testing.T) {
	channels := whatsapps(2)
	r := newRig(t, simulator.Config{Channels: channels})
	if err := r.sim.AddRule(simulator.Rule{
		Match: simulator.Match{TextContains: "no reply yet"}, Status: 400, Code: "MESSAGES_NOT_TEXT_FIRST",
	}); err != nil {
		t.Fatal(err)
	}
	runWorker(t, r.env()...).ready()
	r.runIngest()
	r.fill("full")

	languages := []*scripts{nodeScripts(t), shellScripts(t)}
	if python := pythonScripts(t); python != nil {
		languages = append(languages, python)
	} else {
		t.Log("examples/python is not run here: nats-py is not installed")
	}
	for _, s := range languages {
		t.Run(s.language, func(t *testing.T) {
			inner := &rig{t: t, url: r.url, sim: r.sim, js: r.js}
			ran := inner.walkScripts(s, channels)
			handled := inner.consumeKilled(s, channels[1].ChannelID)
			t.Logf("examples/%s: %d runs as expected; %d messages of customers through a consumer that was killed", s.language, ran, handled)
		})
	}
}

func (r *rig) walkScripts(s *scripts, channels []simulator.Channel) (ran int) {
	r.t.Helper()
	const chat = "79998887766"
	channel, id := channels[0].ChannelID, s.language+"-1"
	first := `Your "code" by ` + s.language + ` is {{1234}}`
	past := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	bad := filepath.Join(r.t.TempDir(), "contacts.json")
	if err := os.WriteFile(bad, []byte(`[{"id":"19"}, {"name":"nobody"}]`), 0o600); err != nil {
		r.t.Fatal(err)
	}
	const uuid = `[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`
	for _, run := range []struct {
		name   string
		env    []string
		line   []string
		exit   int
		stdout string
		stderr string
	}{
		{"sent", nil, []string{"send", channel, chat, first, id}, 0, `^stored as \d+\nsent ` + uuid + `\n$`, `^$`},
		{"sent again", nil, []string{"send", channel, chat, first, id}, 0, `^stored as \d+\nduplicate of one that is (sent|delivered|read)\n$`, `^$`},
		{"another body under that id", nil, []string{"send", channel, chat, "Hello", id}, 1, `^stored as \d+\ninvalid id: ID_REUSED: .+\n$`, `^$`},
		{"an id is made", nil, []string{"send", channel, chat, "Hello"}, 0, `^stored as \d+\nsent ` + uuid + `\n$`, `^$`},
		{"invalid", nil, []string{"send", channel, "89998887766", "Hello"}, 1, `^stored as \d+\ninvalid chatId: CHAT_INCORRECT_CHAT_ID_WHATSAPP: .+\n$`, `^$`},
		{"expired", nil, []string{"send", channel, chat, "Hello", id + "-late", past}, 1, `^stored as \d+\nexpired\n$`, `^$`},
		{"rejected", nil, []string{"send", channel, chat, "no reply yet"}, 1, `^stored as \d+\nrejected MESSAGES_NOT_TEXT_FIRST`, `^$`},
		{"no such account", []string{"WAZZUP_ACCOUNT=nobody"}, []string{"send", channel, chat, "Hello"}, 1, `^$`, `^not stored: there is no send\.` + channel + ` of account nobody`},
		{"a full stream", []string{"WAZZUP_ACCOUNT=full", "PATIENCE=0"}, []string{"send", channel, chat, "Hello"}, 75, `^$`, `^not stored: maximum bytes exceeded\n$`},
		{"no arguments", nil, []string{"send"}, 2, `^$`, `^usage: .*CHANNEL CHAT_ID TEXT`},
		{"contacts", nil, []string{"contacts"}, 0, `^stored as \d+\n2 contacts: done\nWazzup knows 2\n$`, `^$`},
		{"bad contacts", nil, []string{"contacts", bad}, 1, `^stored as \d+\n2 contacts: invalid\n  .+: REQUIRED\nWazzup knows 2\n$`, `^$`},
		{"the chat window", nil, []string{"window", "222555", "Ann", chat}, 0, `^https://\S+\n$`, `^$`},
		{"no such chat", nil, []string{"window", "222555", "Ann", "12ab"}, 1, `^$`, `CHAT_INCORRECT_CHAT_ID_WHATSAPP`},
	} {
		stdout, stderr, exit := s.do(r, s.env(r, run.env...), run.line[0], run.line[1:]...)
		if exit != run.exit || !regexp.MustCompile(run.stdout).MatchString(stdout) || !regexp.MustCompile(run.stderr).MatchString(stderr) {
			r.t.Errorf("%s: exit %d, printed %q and %q; want %d, %s and %s", run.name, exit, stdout, stderr, run.exit, run.stdout, run.stderr)
		}
		ran++
	}
	got := 0
	for _, send := range r.sim.Sends() {
		if send.Text == first {
			got++
		}
	}
	if got != 1 {
		r.t.Errorf("the vendor got %q %d times, want once", first, got)
	}
	return ran
}

// fill gives an account without a worker a command stream, and fills it.
func (r *rig) fill(account string) {
	r.t.Helper()
	limits := r.limits
	limits.CommandBytes = 64 << 10
	if _, err := queue.Ensure(r.t.Context(), r.js, account, limits); err != nil {
		r.t.Fatal(err)
	}
	subject := "wazzup." + account + ".cmd.send.b0000000-0000-4000-8000-000000000000"
	for _, size := range []int{4 << 10, 1} {
		for {
			_, err := r.js.Publish(r.t.Context(), subject, bytes.Repeat([]byte("x"), size))
			if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.ErrorCode == 10077 {
				break
			}
			if err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// consumeKilled has customers write to a consumer that is killed in the midst of
// them, and to one that is not there; it must print all.
func (r *rig) consumeKilled(s *scripts, channel string) (handled int) {
	r.t.Helper()
	const total = 60
	durable := s.language + "-inbound"
	line := append(s.run("inbound"), durable)
	ask := regexp.MustCompile(`^whatsapp 79998887766: ` + s.language + ` asks (\d+)$`)
	seen := make(map[int]bool)
	take := func(lines []string) int {
		for _, l := range lines {
			if m := ask.FindStringSubmatch(l); m != nil {
				n, err := strconv.Atoi(m[1])
				if err != nil {
					r.t.Fatal(err)
				}
				seen[n] = true
			}
		}
		return len(seen)
	}
	write := func(from, to int) {
		for n := from; n < to; n++ {
			text := fmt.Sprintf("%s asks %d", s.language, n)
			if _, err := r.sim.Inbound(simulator.Inbound{ChannelID: channel, ChatID: "79998887766", Text: text}); err != nil {
				r.t.Fatal(err)
			}
		}
	}

	c := startClient(r.t, s.dir, s.env(r), line[0], line[1:]...)
	write(0, total/2)
	c.wait("messages of customers", func(lines []string) bool { return take(lines) >= total/6 })
	c.kill()
	lines, _ := c.printed()
	take(lines)
	r.soonAgain(durable)
	write(total/2, total)
	c = startClient(r.t, s.dir, s.env(r), line[0], line[1:]...)
	c.wait("all messages of customers", func(lines []string) bool { return take(lines) == total })
	c.stop(syscall.SIGINT) // the nats tool leaves its end to the signal: no exit code
	return len(seen)
}
