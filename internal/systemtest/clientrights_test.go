//go:build system

package systemtest_test

import (
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

// guardedServer is a nats-server that runs the files of deploy/nats; each user's
// password is its name.
type guardedServer struct{ url string }

func (g guardedServer) URL() string { return g.url }

// Options are those of the administrator.
func (g guardedServer) Options() []nats.Option {
	return []nats.Option{nats.UserInfo("admin", "password-of-admin")}
}

func startGuarded(t *testing.T) guardedServer {
	t.Helper()
	for _, user := range []string{"worker", "ingest", "admin", "main-producer", "main-consumer", "main-operator"} {
		t.Setenv("NATS_"+strings.ToUpper(strings.ReplaceAll(user, "-", "_"))+"_PASSWORD", "password-of-"+user)
	}
	opts, err := server.ProcessConfigFile("../../deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	opts.Host, opts.Port, opts.HTTPPort, opts.StoreDir, opts.NoSigs = "127.0.0.1", server.RANDOM_PORT, 0, t.TempDir(), true
	srv, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	srv.Start()
	if !srv.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server did not come up")
	}
	return guardedServer{srv.ClientURL()}
}

// login is a user's part of a program's environment.
func login(user string) []string {
	return []string{"NATS_USER=" + user, "NATS_PASSWORD=password-of-" + user, "NATS_INBOX_PREFIX=_INBOX." + user}
}

// The examples that run here, and the commands that the page on security shows, do
// with the rights of the compose file's users: as producer, consumer, operator.
func TestClientRights(t *testing.T) {
	channels := whatsapps(2)
	channels[0].ChannelID = "a0000000-0000-4000-8000-000000000001" // the page's
	srv := startGuarded(t)
	r := startRig(t, simulator.Config{Channels: channels}, srv, 1)
	runWorker(t, r.env(login("worker")...)...).ready()
	r.runIngest(login("ingest")...)
	r.collect()

	const chat, uuid = "79998887766", `[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`
	ran := 0
	for _, s := range []*scripts{nodeScripts(t), shellScripts(t)} {
		runs := func(user string, exit int, stdout string, line ...string) {
			t.Helper()
			out, errs, got := s.do(r, s.env(r, login(user)...), line[0], line[1:]...)
			if got != exit || !regexp.MustCompile(stdout).MatchString(out) {
				t.Errorf("%s: %s as %s: exit %d, printed %q and %q; want %d and %s", s.language, line, user, got, out, errs, exit, stdout)
			}
			ran++
		}
		runs("main-producer", 0, `^stored as \d+\nsent `+uuid+`\n$`, "send", channels[0].ChannelID, chat, "Hello", s.language+"-8")
		runs("main-producer", 1, `^stored as \d+\ninvalid chatId: `, "send", channels[0].ChannelID, "89998887766", "Hello")
		runs("main-operator", 0, `^stored as \d+\n2 contacts: done\nWazzup knows 2\n$`, "contacts")
		runs("main-operator", 0, `^https://\S+\n$`, "window", "222555", "Ann", chat)
	}

	securityPage(t, srv)
	if _, err := r.sim.Inbound(simulator.Inbound{ChannelID: channels[0].ChannelID, ChatID: chat, Text: "and to Node.js"}); err != nil {
		t.Fatal(err)
	}
	node := nodeScripts(t)
	c := startClient(t, node.dir, node.env(r, login("main-consumer")...), "node", "inbound.js", "main-consumer")
	c.wait("the message of a customer", func(lines []string) bool {
		return len(lines) > 0 && lines[len(lines)-1] == "whatsapp "+chat+": and to Node.js"
	})
	if code := c.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("SIGTERM: exit %d, want 0", code)
	}
	t.Logf("%d runs of the examples as producer and operator, with no right but the role's", ran)
}

// securityPage runs the command lines of the nats tool that the page on security
// shows, in their order: a producer's, the making of a durable consumer, its use.
func securityPage(t *testing.T, srv guardedServer) {
	t.Helper()
	lines := pageCommands(t, "../../docs/security.md", "nats --user ")
	if len(lines) != 3 {
		t.Errorf("the page shows %q, want 3 commands", lines)
	}
	for _, line := range lines {
		typed(t, t.TempDir(), srv, "PASSWORD=password-of-"+strings.Fields(line)[2]+"; "+line)
	}
}
