//go:build system

package systemtest_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// accountStreams are the streams that a backup must have.
func accountStreams() []string {
	names := queue.Names{Account: "main"}
	return []string{names.Commands(), names.Records(), names.Deferred(), names.Dead()}
}

// pageCommands are the command lines of a page that begin with these words, as they
// stand there.
func pageCommands(t *testing.T, page, words string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, words) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// typed has a shell carry out command lines in a folder, with the nats tool on its
// path.
func typed(t *testing.T, folder string, srv queuetest.Endpoint, lines ...string) {
	t.Helper()
	path := need(t, natsTool) + string(filepath.ListSeparator) + os.Getenv("PATH")
	for _, line := range lines {
		output(t, folder, "", "env", "PATH="+path, "HOME="+folder, "NATS_URL="+srv.URL(), "sh", "-c", line)
	}
}

// restored types lines that restore streams, each anew while the server cannot take it
// yet, as the page says: a part of the answer goes to another node of a cluster than the
// tool is connected to, and may not be known there at once.
func restored(t *testing.T, folder string, srv queuetest.Endpoint, lines ...string) {
	t.Helper()
	path := need(t, natsTool) + string(filepath.ListSeparator) + os.Getenv("PATH")
	deadline := time.Now().Add(time.Minute)
	for _, line := range lines {
		for {
			cmd := exec.CommandContext(t.Context(), "env", "PATH="+path, "HOME="+folder, "NATS_URL="+srv.URL(), "sh", "-c", line)
			cmd.Dir = folder
			out, err := cmd.CombinedOutput()
			if err == nil {
				break
			}
			if time.Now().After(deadline) || !bytes.Contains(out, []byte("no responders available")) {
				t.Fatalf("%s: %v\n%s", line, err, out)
			}
		}
	}
}

// with adds words to each line.
func with(words string, lines []string) (longer []string) {
	for _, line := range lines {
		longer = append(longer, line+words)
	}
	return longer
}

// A relay in the midst of its work is moved by the very commands of the page: to
// another server, and to a cluster. What was done is not done again, what waited
// and what was scheduled goes on, and dead letters are there.
func TestClientBackup(t *testing.T) {
	const page = "../../docs/operating.md"
	save := pageCommands(t, page, "nats backup stream ")
	restore := pageCommands(t, page, "nats backup restore stream ")
	purge := pageCommands(t, page, "nats stream purge ")
	if n := len(accountStreams()); len(save) != n || len(restore) != n || len(purge) == 0 {
		t.Fatalf("the page has %q, %q and %q; want one for each of %d streams", save, restore, purge, n)
	}
	for _, to := range []struct {
		name   string
		server func() (queuetest.Endpoint, int) // and how many copies it can hold
		more   string
	}{
		{"to another server", func() (queuetest.Endpoint, int) { return queuetest.Process(t), 1 }, ""},
		{"to a cluster", func() (queuetest.Endpoint, int) { return queuetest.ProcessCluster(t, 3), 3 }, " --replicas 3"},
	} {
		t.Run(to.name, func(t *testing.T) {
			const load, before = 600, 150
			const total = load + 2
			r := newRig(t, simulator.Config{Channels: whatsapps(4)})
			due := r.halfDone(load, before)

			folder := t.TempDir()
			typed(t, folder, r.srv, save...)
			r.srv.Kill()
			target, size := to.server()
			restored(t, folder, target, with(to.more, restore)...)
			r.moveTo(target, size)
			for _, name := range accountStreams() {
				s, err := r.js.Stream(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				if n := s.CachedInfo().Config.Replicas; n != size {
					t.Errorf("stream %s has %d copies, want %d", name, n, size)
				}
				if n := s.CachedInfo().State.Msgs; n == 0 {
					t.Errorf("stream %s is empty: the test shows nothing of it", name)
				}
			}
			w := runWorker(t, r.env()...)
			finals := r.waitFinals(total, time.Minute)
			if dead := r.check(total, finals, schema.ReasonNoWebhooks); dead != 1 {
				t.Errorf("%d are dead, want 1", dead)
			}
			for _, s := range r.sim.Sends() {
				if s.Text == scheduledText && s.Time.Before(due) {
					t.Errorf("it was sent at %v, scheduled for %v", s.Time, due)
				}
			}
			if code := w.stop(); code != 0 {
				t.Errorf("SIGTERM: exit %d, want 0", code)
			}
			t.Logf("%d commands, %d of them before the move, by %q and its like", total, before, restore[0]+to.more)
			typed(t, folder, target, with(" --force", purge)...) // the page's ask before they do it
		})
	}
}

const (
	scheduledText = "900000"
	lostText      = "900001"
)

// halfDone has a worker do the first part of a load and stop. One command is dead
// then, and one is scheduled.
func (r *rig) halfDone(load, before int) (due time.Time) {
	r.t.Helper()
	channels := whatsapps(4)
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Text: lostText}, Fault: simulator.FaultDropAfterAccept}); err != nil {
		r.t.Fatal(err)
	}
	r.latency(50 * time.Millisecond) // of all others
	due = time.Now().Add(10 * time.Second)
	for chat, more := range map[string]string{
		"79011111111": fmt.Sprintf(`"id":"cmd-%s","text":"%s","sendAt":"%s"`, scheduledText, scheduledText, due.Format(time.RFC3339Nano)),
		"79012222222": fmt.Sprintf(`"id":"cmd-%s","text":"%s"`, lostText, lostText),
	} {
		body := `{"chatType":"whatsapp","chatId":"` + chat + `",` + more + `}`
		if _, err := r.js.PublishMsg(r.t.Context(), &nats.Msg{Subject: "wazzup.main.cmd.send." + channels[0].ChannelID, Data: []byte(body)}); err != nil {
			r.t.Fatal(err)
		}
	}
	r.collect()
	w := runWorker(r.t, r.env()...)
	r.waitFinals(1, time.Minute) // it is dead
	r.load(channels, 40, load)
	r.waitFinals(before, time.Minute)
	if code := w.stop(); code != 0 {
		r.t.Fatalf("the worker ended with %d", code)
	}
	return due
}
