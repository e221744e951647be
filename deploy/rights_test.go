package deploy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

// The account of the files, and another that is made from them as security.md
// says. The hyphen is one of the characters that need care.
const (
	mine   = "main"
	theirs = "shop-eu"
)

// guarded is a server, or a cluster, that runs with the files of deploy/nats.
type guarded struct {
	t       *testing.T
	dir     string // of the files
	options []*server.Options
	servers []*server.Server
	ca      string // PEM file
	renew   func() // writes another certificate in the place of the present one

	mu     sync.Mutex
	denied []string // what the servers logged of refusals
}

const passwordOf = "secret-of-"

// guard starts servers with the very files, TLS included; only the ports and the
// folder are the test's.
func guard(t *testing.T, nodes int) *guarded {
	t.Helper()
	g := &guarded{t: t, dir: configured(t)}
	g.start(nodes)
	return g
}

// start runs the files of the folder.
func (g *guarded) start(nodes int) {
	g.t.Helper()
	t, dir := g.t, g.dir
	cert, key := g.certificates()
	g.fill(cert, key)
	routes := freePorts(t, nodes)
	for i := range nodes {
		opts := load(t, dir)
		opts.Host, opts.Port, opts.HTTPPort, opts.StoreDir, opts.NoSigs = "127.0.0.1", server.RANDOM_PORT, 0, t.TempDir(), true
		if nodes > 1 {
			opts.ServerName = fmt.Sprintf("n%d", i)
			opts.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: routes[i]}
			for _, port := range routes {
				opts.Routes = append(opts.Routes, server.RoutesFromStr(fmt.Sprintf("nats-route://127.0.0.1:%d", port))...)
			}
		}
		srv, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		srv.SetLoggerV2(&refusals{g: g}, false, false, false)
		t.Cleanup(func() {
			srv.Shutdown()
			srv.WaitForShutdown()
		})
		srv.Start()
		g.options, g.servers = append(g.options, opts), append(g.servers, srv)
	}
	g.ready()
}

// load reads the files as the server does.
func load(t *testing.T, dir string) *server.Options {
	t.Helper()
	opts, err := server.ProcessConfigFile(filepath.Join(dir, "nats-tls.conf"))
	if err != nil {
		t.Fatal(err)
	}
	return opts
}

// ready waits until every server takes connections and a cluster has a leader that
// all of them follow.
func (g *guarded) ready() {
	g.t.Helper()
	for _, srv := range g.servers {
		if !srv.ReadyForConnections(time.Minute) {
			g.t.Fatal("a server did not come up")
		}
	}
	led := func() bool {
		lags := func(s *server.Server) bool { return !s.JetStreamIsCurrent() }
		return slices.ContainsFunc(g.servers, (*server.Server).JetStreamIsLeader) && !slices.ContainsFunc(g.servers, lags)
	}
	ticker, deadline := time.NewTicker(20*time.Millisecond), time.After(time.Minute)
	defer ticker.Stop()
	for len(g.servers) > 1 && !led() {
		select {
		case <-ticker.C:
		case <-deadline:
			g.t.Fatal("the cluster has no leader")
		}
	}
}

// freePorts are ports that were free a moment ago.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		address, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			t.Fatalf("listening on %s", l.Addr())
		}
		ports = append(ports, address.Port)
	}
	return ports
}

// configured copies deploy/nats and adds an account by the commands that the files
// and the page tell.
func configured(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("nats")); err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?m)^#\s+(sed .* > shop-eu\.conf)$`).FindStringSubmatch(text(t, dir, "main.conf"))
	if command == nil {
		t.Fatal("main.conf does not tell how to add an account")
	}
	sh := exec.CommandContext(t.Context(), "sh", "-c", command[1])
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command[1], err, out)
	}
	replace(t, dir, "nats.conf", `include "main.conf"`, "include \"main.conf\"\n  include \"shop-eu.conf\"")
	var relay strings.Builder
	for line := range strings.Lines(text(t, dir, "relay.conf")) {
		relay.WriteString(line)
		if strings.Contains(line, `"`) && regexp.MustCompile(`\bmain\b`).MatchString(line) {
			relay.WriteString(strings.ReplaceAll(line, mine, theirs))
		}
	}
	write(t, dir, "relay.conf", relay.String())
	return dir
}

// fill puts values in the place of the variables that the server takes from its
// environment, which all tests share.
func (g *guarded) fill(cert, key string) {
	g.t.Helper()
	files, err := filepath.Glob(filepath.Join(g.dir, "*.conf"))
	if err != nil || len(files) == 0 {
		g.t.Fatal("there are no files", err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		write(g.t, g.dir, name, regexp.MustCompile(`\$NATS_\w+`).ReplaceAllStringFunc(text(g.t, g.dir, name), func(variable string) string {
			switch variable {
			case "$NATS_TLS_CERT":
				return strconv.Quote(cert)
			case "$NATS_TLS_KEY":
				return strconv.Quote(key)
			}
			user := strings.TrimSuffix(strings.TrimPrefix(variable, "$NATS_"), "_PASSWORD")
			return strconv.Quote(passwordOf + strings.ToLower(strings.ReplaceAll(user, "_", "-")))
		}))
	}
}

func text(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, dir, name, old, by string) {
	t.Helper()
	before := text(t, dir, name)
	if strings.Count(before, old) != 1 {
		t.Fatalf("%s holds %q %d times", name, old, strings.Count(before, old))
	}
	write(t, dir, name, strings.Replace(before, old, by, 1))
}

// certificates makes an authority and a certificate of the loopback address.
func (g *guarded) certificates() (cert, key string) {
	g.t.Helper()
	dir := g.t.TempDir()
	check := func(err error) {
		g.t.Helper()
		if err != nil {
			g.t.Fatal(err)
		}
	}
	save := func(name, kind string, der []byte) string {
		write(g.t, dir, name, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
		return filepath.Join(dir, name)
	}
	now := time.Now()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	check(err)
	serial := int64(1)
	g.renew = func() {
		g.t.Helper()
		serial++
		leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(err)
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "nats"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &leafKey.PublicKey, caKey)
		check(err)
		keyDER, err := x509.MarshalECPrivateKey(leafKey)
		check(err)
		cert, key = save("server.pem", "CERTIFICATE", leafDER), save("server.key", "EC PRIVATE KEY", keyDER)
	}
	g.ca = save("ca.pem", "CERTIFICATE", caDER)
	g.renew()
	return cert, key
}

// refusals is the log of a server, of which only refusals are kept.
type refusals struct{ g *guarded }

func (r *refusals) Noticef(string, ...any) {}
func (r *refusals) Warnf(string, ...any)   {}
func (r *refusals) Debugf(string, ...any)  {}
func (r *refusals) Tracef(string, ...any)  {}
func (r *refusals) Fatalf(f string, v ...any) {
	r.Errorf(f, v...)
}

func (r *refusals) Errorf(format string, v ...any) {
	line := fmt.Sprintf(format, v...)
	if !strings.Contains(line, "Violation") {
		return
	}
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	r.g.denied = append(r.g.denied, line)
}

// refused lists what the servers refused so far.
func (g *guarded) refused() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.denied)
}

// url lists all nodes; a client takes any of them.
func (g *guarded) url() string {
	var all []string
	for _, srv := range g.servers {
		all = append(all, "tls://"+srv.Addr().String())
	}
	return strings.Join(all, ",")
}

// settings are what a program logs in with as this user.
func (g *guarded) settings(user string, more map[string]string) map[string]string {
	env := map[string]string{
		"NATS_URL": g.url(), "NATS_CA": g.ca, "NATS_USER": user, "NATS_PASSWORD": passwordOf + user,
		"NATS_INBOX_PREFIX": "_INBOX." + user,
	}
	maps.Copy(env, more)
	return env
}

// login connects as a user of the files.
func (g *guarded) login(user string, opts ...nats.Option) *nats.Conn {
	g.t.Helper()
	all := append([]nats.Option{
		nats.UserInfo(user, passwordOf+user), nats.RootCAs(g.ca), nats.CustomInboxPrefix("_INBOX." + user),
		nats.Name(user), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the server's log is looked at
	}, opts...)
	nc, err := nats.Connect(g.url(), all...)
	if err != nil {
		g.t.Fatalf("log in as %s: %v", user, err)
	}
	g.t.Cleanup(nc.Close)
	return nc
}

func (g *guarded) jetStream(user string) jetstream.JetStream {
	g.t.Helper()
	js, err := jetstream.New(g.login(user))
	if err != nil {
		g.t.Fatal(err)
	}
	return js
}

// limits are small, so that many servers share a disk.
func limits() queue.Limits {
	return queue.Limits{CommandBytes: 8 << 20, RecordBytes: 32 << 20, DeferredBytes: 8 << 20, DeadBytes: 8 << 20}
}

// ensure has the worker's user make both accounts' streams, and admin the durable
// consumers.
func (g *guarded) ensure() {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	worker := g.jetStream("worker")
	for _, account := range []string{mine, theirs} {
		if _, err := queue.Ensure(ctx, worker, account, limits()); err != nil {
			g.t.Fatal(err)
		}
	}
	if _, err := queue.OpenLeases(ctx, worker, "w", 1); err != nil {
		g.t.Fatal(err)
	}
	if _, err := queue.OpenMembers(ctx, worker, 1); err != nil {
		g.t.Fatal(err)
	}
	for _, account := range []string{mine, theirs} {
		g.durable(account)
	}
}

// durable makes the consumer of an account's events, as security.md says.
func (g *guarded) durable(account string) {
	g.t.Helper()
	g.named(account, account+"-consumer")
}

func (g *guarded) named(account, consumer string) {
	g.t.Helper()
	_, err := g.jetStream("admin").CreateConsumer(g.t.Context(), queue.Names{Account: account}.Records(), jetstream.ConsumerConfig{
		Durable: consumer, FilterSubject: "wazzup." + account + ".evt.>", AckPolicy: jetstream.AckExplicitPolicy,
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

// stored counts the messages of every stream there is.
func (g *guarded) stored() map[string]uint64 {
	g.t.Helper()
	counts := map[string]uint64{}
	list := g.jetStream("admin").ListStreams(g.t.Context())
	for info := range list.Info() {
		counts[info.Config.Name] = info.State.LastSeq
	}
	if err := list.Err(); err != nil {
		g.t.Fatal(err)
	}
	return counts
}

// users lists those that the files define, but for admin, who may do everything.
func (g *guarded) users() []*server.User {
	var all []*server.User
	for _, u := range g.options[0].Users {
		if u.Username != "admin" {
			all = append(all, u)
		}
	}
	return all
}

// TestRightsPage holds the table of security.md to the files: it names every user
// of the account main, and each subject that it may publish and subscribe to.
func TestRightsPage(t *testing.T) {
	t.Parallel()
	g := guard(t, 1)
	_, page, _ := strings.Cut(string(read(t, "docs/security.md")), "<!-- roles:begin -->")
	page, _, found := strings.Cut(page, "<!-- roles:end -->")
	if !found {
		t.Fatal("docs/security.md has no block roles")
	}
	code := regexp.MustCompile("`([^`]+)`")
	told := map[string][2][]string{}
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 || !strings.Contains(cells[0], "`") {
			continue
		}
		var row [2][]string
		for i, cell := range cells[1:] {
			for _, match := range code.FindAllStringSubmatch(cell, -1) {
				row[i] = append(row[i], match[1])
			}
		}
		told[code.FindStringSubmatch(cells[0])[1]] = row
	}
	var want []string
	for _, u := range g.users() {
		if strings.HasPrefix(u.Username, theirs) {
			continue
		}
		want = append(want, u.Username)
		for i, perm := range []*server.SubjectPermission{u.Permissions.Publish, u.Permissions.Subscribe} {
			allow := slices.DeleteFunc(slices.Clone(perm.Allow), func(s string) bool { return mentions(s, theirs) })
			if got := told[u.Username][i]; !slices.Equal(got, allow) {
				t.Errorf("%s: the page says\n  %s\nthe files say\n  %s", u.Username, strings.Join(got, " "), strings.Join(allow, " "))
			}
		}
	}
	if got := slices.Sorted(maps.Keys(told)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("the page has rows for %q, the files users %q", got, want)
	}
}

func mentions(subject, account string) bool {
	return strings.Contains(subject, "."+account+".") || strings.Contains(subject, "-"+account+"-") || strings.Contains(subject, "."+account+"-")
}

// TestRightsNeedLoginAndTLS: nobody gets in without a password, or without TLS.
func TestRightsNeedLoginAndTLS(t *testing.T) {
	t.Parallel()
	g := guard(t, 1)
	for name, opts := range map[string][]nats.Option{
		"nobody":         {nats.RootCAs(g.ca)},
		"wrong password": {nats.RootCAs(g.ca), nats.UserInfo("worker", "wrong")},
		"another's":      {nats.RootCAs(g.ca), nats.UserInfo("worker", passwordOf+"ingest")},
		"wrong CA":       {nats.UserInfo("worker", passwordOf+"worker")},
	} {
		if nc, err := nats.Connect(g.url(), opts...); err == nil {
			nc.Close()
			t.Errorf("%s: got in", name)
		}
	}
	// The server speaks first, in plain text, and then TLS only.
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", g.servers[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "CONNECT {\"user\":\"admin\",\"pass\":\"%sadmin\"}\r\nPING\r\n", passwordOf); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	_, _ = said.ReadFrom(conn) // until the server hangs up
	if !strings.Contains(said.String(), `"tls_required":true`) || strings.Contains(said.String(), "PONG") {
		t.Errorf("without TLS the server said %s", said.String())
	}
}

// TestCertificateIsRotated: a reload takes the new files, and connections go on.
func TestCertificateIsRotated(t *testing.T) {
	t.Parallel()
	g := guard(t, 1)
	g.ensure()
	serial := func(nc *nats.Conn) int64 {
		t.Helper()
		state, err := nc.TLSConnectionState()
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.Int64()
	}
	before := g.login("main-producer")
	g.renew()
	opts, running := load(t, g.dir), g.options[0]
	opts.Host, opts.Port, opts.HTTPPort, opts.StoreDir, opts.NoSigs = running.Host, running.Port, 0, running.StoreDir, true
	if err := g.servers[0].ReloadOptions(opts); err != nil {
		t.Fatal(err)
	}
	after := g.login("main-producer")
	if serial(before) == serial(after) {
		t.Error("the server still shows the former certificate")
	}
	for _, nc := range []*nats.Conn{before, after} {
		if _, err := nc.Request("wazzup.main.cmd.send."+channel, []byte(`{}`), time.Minute); err != nil {
			t.Errorf("certificate %d: %v", serial(nc), err)
		}
	}
	if before.Stats().Reconnects != 0 {
		t.Error("the connection was lost")
	}
}

// TestAddedService: a block that is copied under another name, as the page says, is
// another producer or consumer, with inboxes and a durable consumer of its own.
func TestAddedService(t *testing.T) {
	t.Parallel()
	dir := configured(t)
	main := text(t, dir, "main.conf")
	for _, role := range []string{"producer", "consumer"} {
		begin := strings.Index(main, "\nmain-"+role+": {")
		end := begin + strings.Index(main[begin:], "\n}\n") + len("\n}\n")
		main += strings.NewReplacer("main-"+role, "main-crm-"+role, "MAIN_"+strings.ToUpper(role), "MAIN_CRM_"+strings.ToUpper(role)).Replace(main[begin:end])
	}
	write(t, dir, "main.conf", main)
	g := &guarded{t: t, dir: dir}
	g.start(1)
	g.ensure()
	js := g.jetStream("main-crm-producer")
	if ack, err := js.Publish(t.Context(), "wazzup.main.cmd.send."+channel, []byte(`{}`)); err != nil || ack.Stream != "wazzup-main-commands" {
		t.Errorf("the producer: %v, %v", ack, err)
	}
	g.named(mine, "main-crm-consumer")
	if _, err := g.jetStream("main-crm-consumer").Consumer(t.Context(), "wazzup-main-records", "main-crm-consumer"); err != nil {
		t.Errorf("the consumer: %v", err)
	}
	p := g.probe("main-crm-consumer")
	others := []string{"$JS.API.CONSUMER.MSG.NEXT.wazzup-main-records.main-consumer", "$JS.API.CONSUMER.DELETE.wazzup-main-records.main-consumer", "$JS.ACK.wazzup-main-records.main-consumer.1.1.1.1.0"}
	var attempts []string
	for _, subject := range others {
		attempts = append(attempts, "publish "+subject)
		if err := p.nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	if taken := p.wait(attempts); len(taken) > 0 {
		t.Errorf("it was not refused %q", taken)
	}
}
