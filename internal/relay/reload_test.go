package relay_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// folder is where a test keeps an accounts file and what it names.
type folder struct {
	t    *testing.T
	path string
}

func newFolder(t *testing.T, files map[string]string) *folder {
	t.Helper()
	f := &folder{t, t.TempDir()}
	for name, text := range files {
		f.write(name, text)
	}
	return f
}

func (f *folder) file(name string) string { return filepath.Join(f.path, name) }

func (f *folder) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(f.file(name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// texts is a list of a log line's field.
func texts(line map[string]any, field string) (all []string) {
	list, _ := line[field].([]any)
	for _, v := range list {
		text, _ := v.(string)
		all = append(all, text)
	}
	return all
}

// TestWorkerReloads: accounts come and go while the worker runs; a file with
// faults is refused with all of them, and changes nothing.
func TestWorkerReloads(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{})
	f := newFolder(t, map[string]string{
		"accounts.yaml": "accounts: [{name: one, apiKeyFile: one.key}, {name: two, apiKeyFile: two.key, rate: 10/1s}]",
		"one.key":       canary + "-1", "two.key": canary + "-2", "three.key": canary + "-3",
	})
	log := relaytest.NewOutput()
	w := buildWorker(t, map[string]string{
		"WAZZUP_ACCOUNTS_FILE": f.file("accounts.yaml"), "WAZZUP_API_URL": sim.URL(), "ADMIN_ADDR": free,
		"NATS_URL": queuetest.Server(t).URL(), "WAZZUP_RECORD_BYTES": "64MiB", "WAZZUP_COMMAND_BYTES": "64MiB", "WAZZUP_DEAD_BYTES": "64MiB",
	}, log)
	start(t, w)
	about := func(message, account string) {
		t.Helper()
		log.Line(t, func(line string) bool {
			return strings.Contains(line, `"`+message+`"`) && strings.Contains(line, `"account":"`+account+`"`)
		})
	}
	about("account_owned", "one")
	about("account_owned", "two")

	f.write("accounts.yaml", "accounts: [{name: one, apiKeyFile: none.key}, {name: Two, apiKeyFile: two.key, rate: fast}]")
	if err := w.Reload(); err == nil {
		t.Fatal("a file with faults was taken")
	}
	refused := texts(log.Logged(t, "configuration_not_reloaded", ""), "faults")
	for _, want := range []string{"accounts[0].apiKeyFile", "accounts[1].name", "accounts[1].rate"} {
		if !slices.ContainsFunc(refused, func(text string) bool { return strings.Contains(text, want) }) {
			t.Errorf("the log does not name %s: %q", want, refused)
		}
	}
	if len(refused) != 3 {
		t.Errorf("%d faults are logged, want 3: %q", len(refused), refused)
	}
	relaytest.Readiness(t, w.AdminAddr.String(), 200)

	f.write("accounts.yaml", "accounts: [{name: two, apiKeyFile: two.key, rate: 20/1s}, {name: three, apiKeyFile: three.key}]")
	if err := w.Reload(); err != nil {
		t.Fatal(err)
	}
	line := log.Logged(t, "configuration_reloaded", "")
	for field, want := range map[string]string{"added": "three", "removed": "one", "changed": "two"} {
		if got := texts(line, field); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: got %q, want %q", field, got, want)
		}
	}
	about("account_released", "one")
	about("account_owned", "three")
	relaytest.Readiness(t, w.AdminAddr.String(), 200)
	if strings.Contains(log.String(), canary) || strings.Contains(log.String(), "account_given_up") {
		t.Errorf("the log shows a key, or an account that went to nobody:\n%s", log)
	}
}

// TestWorkerReloadsItsKey: a single account's key is read from its file again.
func TestWorkerReloadsItsKey(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{Keys: []string{canary + "-new"}})
	f := newFolder(t, map[string]string{"key": canary + "-old\n"})
	log := relaytest.NewOutput()
	w := buildWorker(t, map[string]string{
		"WAZZUP_API_KEY_FILE": f.file("key"), "WAZZUP_API_URL": sim.URL(), "ADMIN_ADDR": free, "NATS_URL": queuetest.Server(t).URL(),
	}, log)
	start(t, w)
	log.Line(t, func(line string) bool { return strings.Contains(line, `"account.closed"`) })
	f.write("key", "")
	if err := w.Reload(); err == nil {
		t.Fatal("an empty key was taken")
	}
	if got := texts(log.Logged(t, "configuration_not_reloaded", ""), "faults"); len(got) == 0 || !strings.Contains(got[0], "WAZZUP_API_KEY_FILE: the file is empty") {
		t.Errorf("faults: %q", got)
	}
	f.write("key", canary+"-new\n")
	if err := w.Reload(); err != nil {
		t.Fatal(err)
	}
	line := log.Logged(t, "configuration_reloaded", "")
	if read, _ := line["read"].(string); !slices.Equal(texts(line, "changed"), []string{"main"}) || !strings.Contains(read, "files of secrets") {
		t.Errorf("the log says %v", line)
	}
	log.Line(t, func(line string) bool { return strings.Contains(line, `"account.opened"`) })
	if strings.Contains(log.String(), canary) {
		t.Errorf("the log shows a key:\n%s", log)
	}
}

// TestWorkerReloadsKeysAndRates: of an account that stays, the file's key, the rate
// and the paces of its channels take effect. A file that is not there, or a key's
// that is not, changes nothing, and what was running goes on.
func TestWorkerReloadsKeysAndRates(t *testing.T) {
	t.Parallel()
	const channel = simulator.ChannelWhatsApp
	sim := relaytest.Vendor(t, simulator.Config{Keys: []string{canary + "-new"}})
	account := func(rest string) string { return "accounts: [{name: main, apiKeyFile: main.key" + rest + "}]" }
	f := newFolder(t, map[string]string{
		"accounts.yaml": account(", rate: 3/24h, channels: {" + channel + ": {bulkRate: 1/24h}}"), "main.key": canary + "-old",
	})
	log := relaytest.NewOutput()
	node := queuetest.Server(t)
	w := buildWorker(t, map[string]string{
		"WAZZUP_ACCOUNTS_FILE": f.file("accounts.yaml"), "WAZZUP_API_URL": sim.URL(), "ADMIN_ADDR": free, "NATS_URL": node.URL(),
		"WAZZUP_CHANNELS_POLL": "24h", "WAZZUP_BULK_RATE": "0", // each reading of the list is a request
	}, log)
	start(t, w)
	log.Line(t, func(line string) bool { return strings.Contains(line, `"account.closed"`) })
	refused := 0
	refuse := func(want string) {
		t.Helper()
		refused++
		if err := w.Reload(); err == nil {
			t.Fatal("it was taken")
		}
		log.Line(t, func(string) bool { return strings.Count(log.String(), `"configuration_not_reloaded"`) >= refused })
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	reload := func() {
		t.Helper()
		if err := w.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(name string) {
		t.Helper()
		if err := os.Remove(f.file(name)); err != nil {
			t.Fatal(err)
		}
	}
	sent := func(n int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := sim.Wait(ctx, func(v *simulator.View) bool { return v.Accepted >= n }); err != nil {
			t.Fatalf("waited in vain for %d messages: %+v", n, sim.View())
		}
	}

	// The key: the account goes on with the new one.
	file := account(", rate: 3/24h, channels: {" + channel + ": {bulkRate: 1/24h}}")
	gone("accounts.yaml")
	refuse("cannot be read: no such file or directory")
	f.write("accounts.yaml", file)
	gone("main.key")
	refuse("accounts[0].apiKeyFile")
	f.write("main.key", canary+"-new")
	reload()
	log.Line(t, func(line string) bool { return strings.Contains(line, `"account.opened"`) })

	nc := queuetest.Conn(t, node)
	publisher, err := queue.NewPublisher(nc, "main")
	if err != nil {
		t.Fatal(err)
	}
	// waits until a lane's next command waits at a gate.
	waits := func(gate string) {
		t.Helper()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for timeout := time.After(time.Minute); ; {
			answer, err := nc.Request(schema.APISubject("main", "lanes.list"), nil, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(answer.Data), `"gate":"`+gate+`"`) {
				return
			}
			select {
			case <-tick.C:
			case <-timeout:
				t.Fatalf("nothing waits at the gate %s: %s", gate, answer.Data)
			}
		}
	}
	publish := func(kind schema.Kind, channel string) {
		t.Helper()
		if _, err := publisher.Send(t.Context(), kind, channel, []byte(`{"chatType":"whatsapp","chatId":"79998887766","text":"x"}`)); err != nil {
			t.Fatal(err)
		}
	}
	// The rate: two readings of the channel list and a message were all.
	publish(schema.KindSend, channel)
	publish(schema.KindSend, channel)
	sent(1)
	waits("window")
	f.write("accounts.yaml", account(", rate: 100/1s, channels: {"+channel+": {bulkRate: 1/24h}}"))
	reload()
	sent(2)
	// The pace of one channel; the others have the program's own.
	publish(schema.KindBulk, channel)
	sent(3)
	publish(schema.KindBulk, channel)
	publish(schema.KindBulk, simulator.ChannelWhatsApp2)
	sent(4)
	waits("pace")
	f.write("accounts.yaml", account(", rate: 100/1s, channels: {"+channel+": {bulkRate: 1/1s}}"))
	gone("main.key")
	refuse("accounts[0].apiKeyFile")
	sends := sim.Sends()
	if last := sends[len(sends)-1]; len(sends) != 4 || last.ChannelID != simulator.ChannelWhatsApp2 {
		t.Errorf("the paced channel has sent again: %+v", sends)
	}
	f.write("main.key", canary+"-new")
	reload()
	sent(5)
	if strings.Contains(log.String(), canary) {
		t.Errorf("the log shows a key:\n%s", log)
	}
}

// TestIngestReloads: a secret is rotated through a time in which both are taken;
// accounts come and go, and a file with faults changes nothing.
func TestIngestReloads(t *testing.T) {
	t.Parallel()
	node := queuetest.Server(t)
	js, err := jetstream.New(queuetest.Conn(t, node))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Ensure(t.Context(), js, "one", queue.Limits{CommandBytes: 1 << 20, RecordBytes: 1 << 20, DeadBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	f := newFolder(t, map[string]string{
		"accounts.yaml": "accounts: [{name: one, webhookSecretFiles: [old]}]",
		"old":           canary + "-old", "new": canary + "-new", "two": canary + "-two",
	})
	log := relaytest.NewOutput()
	i := buildIngest(t, map[string]string{
		"WAZZUP_ACCOUNTS_FILE": f.file("accounts.yaml"), "INGEST_ADDR": free, "ADMIN_ADDR": free, "NATS_URL": node.URL(),
	}, log)
	start(t, i)
	relaytest.Readiness(t, i.AdminAddr.String(), http.StatusOK)
	check := func(when string, want map[string]int) {
		t.Helper()
		for path, status := range want {
			account, secret, _ := strings.Cut(path, "/")
			url := "http://" + i.Addr.String() + "/webhooks/" + account + "/" + canary + "-" + secret
			if got := relaytest.Post(t, url, `{"test":true}`); got != status {
				t.Errorf("%s: %s is answered %d, want %d", when, path, got, status)
			}
		}
	}
	load := func(text string) error {
		t.Helper()
		f.write("accounts.yaml", text)
		return i.Reload()
	}
	check("at first", map[string]int{"one/old": 200, "one/new": 404, "two/two": 404})
	if err := load("accounts: [{name: one, webhookSecretFiles: [new, old]}]"); err != nil {
		t.Fatal(err)
	}
	check("while it is rotated", map[string]int{"one/old": 200, "one/new": 200})
	if got := texts(log.Logged(t, "configuration_reloaded", ""), "changed"); !slices.Equal(got, []string{"one"}) {
		t.Errorf("changed: %q", got)
	}
	if err := load("accounts: [{name: One, webhookSecretFiles: [old]}, {name: two, webhookSecretFiles: [two], publicUrl: nowhere}]"); err == nil {
		t.Error("a file with faults was taken")
	}
	if got := texts(log.Logged(t, "configuration_not_reloaded", ""), "faults"); len(got) != 2 {
		t.Errorf("faults: %q, want both", got)
	}
	check("after a refusal", map[string]int{"one/old": 200, "one/new": 200, "two/two": 404})
	if err := load("accounts: [{name: one, webhookSecretFiles: [new]}, {name: two, webhookSecretFiles: [two]}]"); err != nil {
		t.Fatal(err)
	}
	check("rotated, with another account", map[string]int{"one/old": 404, "one/new": 200, "two/two": 200})
	if body := relaytest.Readiness(t, i.AdminAddr.String(), http.StatusServiceUnavailable); !strings.Contains(body, "account two has no stream") {
		t.Errorf("readiness: %s", body)
	}
	if err := load("accounts: [{name: one, webhookSecretFiles: [new]}]"); err != nil {
		t.Fatal(err)
	}
	relaytest.Readiness(t, i.AdminAddr.String(), http.StatusOK)
	check("without the other", map[string]int{"one/new": 200, "two/two": 404})
	if strings.Contains(log.String(), canary) {
		t.Errorf("the log shows a secret:\n%s", log)
	}
}

// TestReloadIsATask: SIGHUP is taken only where the program asks for it.
func TestReloadIsATask(t *testing.T) {
	t.Parallel()
	sim := relaytest.Vendor(t, simulator.Config{})
	w := buildWorker(t, workerEnv(sim, map[string]string{"NATS_URL": "nats://127.0.0.1:1"}), io.Discard)
	defer w.Close()
	i := buildIngest(t, map[string]string{"WEBHOOK_SECRET": canary, "INGEST_ADDR": free, "ADMIN_ADDR": free, "NATS_URL": "nats://127.0.0.1:1"}, io.Discard)
	defer i.Close()
	for name, p := range map[string]struct {
		program *relay.Program
		ask     func()
	}{"worker": {w.Program, w.ReloadOnHangup}, "ingest": {i.Program, i.ReloadOnHangup}} {
		if slices.Contains(names(p.program.Status()), "reload") {
			t.Errorf("%s: takes SIGHUP unasked", name)
		}
		p.ask()
		if got := names(p.program.Status()); got[len(got)-1] != "reload" {
			t.Errorf("%s: tasks = %q, want reload to stop first", name, got)
		}
	}
}
