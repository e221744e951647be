package deploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const channel = "a0000000-0000-4000-8000-000000000001"

// violation is a refusal as the server tells it.
var violation = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]+)"`)

// prober logs in as a user and tells what the server refused.
type prober struct {
	g    *guarded
	user string
	nc   *nats.Conn

	mu      sync.Mutex
	refused map[string]bool // "publish <subject>"
	changed chan struct{}
}

func (g *guarded) probe(user string) *prober {
	p := &prober{g: g, user: user, refused: map[string]bool{}, changed: make(chan struct{})}
	p.nc = g.login(user, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		match := violation.FindStringSubmatch(err.Error())
		if match == nil {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.refused[strings.ToLower(match[1])+" "+match[2]] = true
		close(p.changed)
		p.changed = make(chan struct{})
	}))
	return p
}

// wait returns those that were not refused.
func (p *prober) wait(attempts []string) (taken []string) {
	p.g.t.Helper()
	if err := p.nc.Flush(); err != nil {
		p.g.t.Fatal(err)
	}
	deadline := time.After(time.Minute)
	for {
		p.mu.Lock()
		taken = slices.DeleteFunc(slices.Clone(attempts), func(a string) bool { return p.refused[a] })
		changed := p.changed
		p.mu.Unlock()
		if len(taken) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-deadline:
			return taken
		}
	}
}

// universe lists what there is to publish to, and to subscribe to: every subject
// of both accounts, JetStream's API for every stream, the server's own, and
// inboxes.
func universe() (publish, subscribe []string) {
	streams := []string{"KV_wazzup-owners", "KV_wazzup-workers", "new"}
	for _, account := range []string{mine, theirs} {
		w := "wazzup." + account + "."
		for _, kind := range schema.Kinds() {
			publish = append(publish, schema.CommandSubject(account, kind, channel))
		}
		publish = append(
			publish,
			w+"evt.command.sent.send."+channel, w+"evt.message.in."+channel+".whatsapp.79998887766", w+"evt.status.read",
			w+"evt.channel."+channel+".active", w+"evt.channels", w+"evt.counter.1", w+"evt.quarantine.shape", w+"evt.ops.lane.closed",
			w+"evt.ops.webhook.drift", w+"api.command.get", w+"api.command.cancel", w+"api.command.resolve", w+"api.lane.pause",
			w+"api.dead.drop", w+"api.webhooks.get", w+"api.webhooks.set", w+"api.contacts.list", w+"reply.x", w+"reply."+account+"-producer.x", w+"other",
		)
		for _, family := range []string{"f.0.l.x", "f.0.s.x", "f.0.c.x", "f.0.park.a.b.c", "l.x", "x.x", "late.x", "g.x", "s.x", "c.x", "due.send.x", "at.x.0", "dead.x"} {
			publish = append(publish, "wz."+account+"."+family)
		}
		subscribe = append(subscribe, w+">", w+"cmd.>", w+"evt.>", w+"evt.message.>", w+"api.>", w+"api.dead.list", w+"reply.>", w+"reply."+account+"-producer.x", "wz."+account+".>")
		names := queue.Names{Account: account}
		streams = append(streams, names.Commands(), names.Records(), names.Deferred(), names.Dead())
		for _, role := range []string{"-producer", "-consumer", "-operator"} {
			publish = append(publish, "_INBOX."+account+role+".x")
			subscribe = append(subscribe, "_INBOX."+account+role+".>")
		}
	}
	for _, stream := range streams {
		for _, verb := range []string{"INFO", "CREATE", "UPDATE", "DELETE", "PURGE", "MSG.GET", "MSG.DELETE", "SNAPSHOT", "RESTORE", "LEADER.STEPDOWN", "PEER.REMOVE"} {
			publish = append(publish, "$JS.API.STREAM."+verb+"."+stream)
		}
		publish = append(publish, "$JS.API.DIRECT.GET."+stream, "$JS.API.DIRECT.GET."+stream+".wazzup.main.evt.channels", "$JS.API.CONSUMER.NAMES."+stream,
			"$JS.API.CONSUMER.LIST."+stream, "$JS.API.CONSUMER.CREATE."+stream)
		for _, consumer := range []string{mine + "-consumer", theirs + "-consumer", "another"} {
			for _, verb := range []string{"CREATE", "DURABLE.CREATE", "INFO", "DELETE", "PAUSE", "RESET", "UNPIN", "MSG.NEXT", "LEADER.STEPDOWN"} {
				publish = append(publish, "$JS.API.CONSUMER."+verb+"."+stream+"."+consumer)
			}
			publish = append(publish, "$JS.API.CONSUMER.CREATE."+stream+"."+consumer+".wazzup.main.evt.>", "$JS.ACK."+stream+"."+consumer+".1.1.1.1.0",
				"$JS.FC."+stream+"."+consumer+".x")
		}
	}
	publish = append(
		publish,
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.META.LEADER.STEPDOWN", "$JS.API.SERVER.REMOVE", "$JS.API.ACCOUNT.PURGE.RELAY",
		"$KV.wazzup-owners.main", "$KV.wazzup-workers.w", "$KV.another.k", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.RELAY.CONNZ", "$SYS.REQ.USER.INFO",
		"$SRV.PING", "$SRV.INFO.wazzup", "$SRV.STATS.wazzup", "_R_.x", "_INBOX.x", "_INBOX.worker.x", "_INBOX.ingest.x", "$JSC.R.x", "$O.bucket.x", "anything",
	)
	subscribe = append(
		subscribe,
		">", "*.>", "wazzup.>", "wazzup.*.evt.>", "wz.>", "_INBOX.>", "_INBOX.*.>", "_INBOX.x", "_INBOX.worker.>", "_INBOX.ingest.>", "$JS.>", "$JS.API.>", "$JS.ACK.>",
		"$JS.EVENT.ADVISORY.>", "$KV.>", "$KV.wazzup-owners.>", "$SYS.>", "$SRV.>", "$SRV.PING", "_R_.>", "anything",
	)
	return publish, subscribe
}

// may reports whether a user has the right, by the files.
func may(perm *server.SubjectPermission, subject string) bool {
	match := func(pattern string) bool { return server.SubjectsCollide(pattern, subject) && within(subject, pattern) }
	return slices.ContainsFunc(perm.Allow, match) && !slices.ContainsFunc(perm.Deny, match)
}

// within reports whether everything that a subject matches is matched by the pattern.
func within(subject, pattern string) bool {
	s, p := strings.Split(subject, "."), strings.Split(pattern, ".")
	for i, token := range p {
		switch {
		case token == ">":
			return len(s) > i
		case i >= len(s), s[i] == ">":
			return false
		case token != "*" && token != s[i]:
			return false
		}
	}
	return len(s) == len(p)
}

// TestRefused logs in as each user and tries everything that the files do not
// allow it; TestRightsPage shows what they allow. Nothing may have changed after
// it: no stream, no consumer, no message.
func TestRefused(t *testing.T) {
	t.Parallel()
	g := guard(t, 1)
	g.ensure()
	publish, subscribe := universe()
	before, consumers := g.stored(), g.consumers()
	for _, u := range g.users() {
		p := g.probe(u.Username)
		var attempts []string
		for _, subject := range publish {
			if may(u.Permissions.Publish, subject) {
				continue
			}
			attempts = append(attempts, "publish "+subject)
			if err := p.nc.PublishRequest(subject, "_INBOX."+u.Username+".x", []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
		for _, subject := range subscribe {
			if may(u.Permissions.Subscribe, subject) {
				continue
			}
			attempts = append(attempts, "subscription "+subject)
			if _, err := p.nc.SubscribeSync(subject); err != nil {
				t.Fatal(err)
			}
		}
		if taken := p.wait(attempts); len(taken) > 0 {
			t.Errorf("%s was not refused\n  %s", u.Username, strings.Join(taken, "\n  "))
		}
		t.Logf("%s: %d of %d attempts, all that it has no right to, were refused", u.Username, len(attempts), len(publish)+len(subscribe))
		if least := (len(publish) + len(subscribe)) / 2; len(attempts) < least {
			t.Errorf("%s was tried %d times only, want %d at least", u.Username, len(attempts), least)
		}
	}
	if after := g.stored(); !maps.Equal(before, after) {
		t.Errorf("the streams held %v, now %v", before, after)
	}
	if after := g.consumers(); !slices.Equal(consumers, after) {
		t.Errorf("the consumers were %q, now %q", consumers, after)
	}
}

func (g *guarded) consumers() []string {
	g.t.Helper()
	var all []string
	js := g.jetStream("admin")
	for _, stream := range slices.Sorted(maps.Keys(g.stored())) {
		s, err := js.Stream(g.t.Context(), stream)
		if err != nil {
			g.t.Fatal(err)
		}
		names := s.ConsumerNames(g.t.Context())
		for name := range names.Name() {
			all = append(all, stream+"/"+name)
		}
		if err := names.Err(); err != nil {
			g.t.Fatal(err)
		}
	}
	return all
}

// TestOwnRightsReachNobody is about one account's users and the other account: a
// list that names the roles' rights is of no use if these rights reach too far.
func TestOwnRightsReachNobody(t *testing.T) {
	t.Parallel()
	g := guard(t, 1)
	for _, u := range g.users() {
		if !strings.HasPrefix(u.Username, mine+"-") {
			continue
		}
		for _, perm := range []*server.SubjectPermission{u.Permissions.Publish, u.Permissions.Subscribe} {
			for _, allow := range perm.Allow {
				if allow != "$JS.API.INFO" && !mentions(allow, mine) {
					t.Errorf("%s has the right %s, which is not of its account alone", u.Username, allow)
				}
				for _, foreign := range []string{"wazzup.shop-eu.cmd.send.x", "wazzup.shop-eu.evt.channels", "_INBOX.shop-eu-producer.x", "wz.main.l.x", "wz.shop-eu.l.x"} {
					if server.SubjectsCollide(allow, foreign) {
						t.Errorf("%s has the right %s, which takes in %s", u.Username, allow, foreign)
					}
				}
			}
		}
	}
}

// TestReplySubjectsLeadNowhere: NATS does not check the subject that a publisher
// names for answers, and the server, or the worker, answers with its own rights.
// A role's account keeps all of it inside.
func TestReplySubjectsLeadNowhere(t *testing.T) {
	t.Parallel()
	g := guard(t, 1)
	g.ensure()
	admin := g.jetStream("admin")
	// Something for the consumer to pull. It would be a valid command.
	for _, account := range []string{mine, theirs} {
		if _, err := admin.Publish(t.Context(), "wazzup."+account+".evt.channels", []byte(`{"id":"1","name":"x"}`)); err != nil {
			t.Fatal(err)
		}
	}
	// A service that answers whatever it is asked, as a worker might.
	answering := g.login("worker")
	asked := make(chan string, 10_000)
	if _, err := answering.Subscribe("wazzup.*.api.>", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"id":"1","name":"x"}`))
		asked <- m.Subject
	}); err != nil {
		t.Fatal(err)
	}
	if err := answering.Flush(); err != nil {
		t.Fatal(err)
	}
	// An empty answer at this subject would acknowledge what the other's consumer has.
	held, err := g.jetStream(theirs+"-consumer").Consumer(t.Context(), "wazzup-shop-eu-records", "shop-eu-consumer")
	if err != nil {
		t.Fatal(err)
	}
	event, err := held.Next(jetstream.FetchMaxWait(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	// What it is about: within RELAY such an answer does lead to another account.
	before := g.stored()
	inside := g.login("admin")
	if err := inside.PublishRequest("wazzup.main.cmd.send."+channel, "wazzup.shop-eu.cmd.send."+channel, []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := inside.Request("wazzup.main.cmd.send."+channel, []byte(`{}`), time.Minute); err != nil {
		t.Fatal(err)
	}
	if now := g.stored(); now["wazzup-shop-eu-commands"] != before["wazzup-shop-eu-commands"]+1 {
		t.Errorf("an acknowledgement did not lead to another account, which it would do without accounts of NATS: %v", now)
	}

	before = g.stored()
	consumers := g.consumers()
	targets, _ := universe()
	targets = append(targets, event.Reply())
	requests := map[string][]string{
		mine + "-producer": {"wazzup.main.cmd.send." + channel, "wazzup.main.api.command.get"},
		mine + "-consumer": {
			"$JS.API.CONSUMER.MSG.NEXT.wazzup-main-records.main-consumer", "$JS.API.CONSUMER.INFO.wazzup-main-records.main-consumer",
		},
		mine + "-operator": {
			"wazzup.main.cmd.send." + channel, "wazzup.main.api.dead.list", "$JS.API.INFO", "$JS.API.STREAM.INFO.wazzup-main-records",
			"$JS.API.DIRECT.GET.wazzup-main-records",
		},
		"ingest": {
			"wazzup.main.evt.channels", "wazzup.main.api.webhooks.get", "$JS.API.STREAM.INFO.wazzup-main-records",
			"$JS.API.STREAM.MSG.GET.wazzup-main-records", "$JS.API.DIRECT.GET.wazzup-main-records",
		},
	}
	streams := map[string]string{
		"wazzup.main.cmd.send." + channel: "wazzup-main-commands", "wazzup.main.evt.channels": "wazzup-main-records",
	}
	bodies := map[string]string{
		"$JS.API.CONSUMER.MSG.NEXT.wazzup-main-records.main-consumer": `{"batch":1,"no_wait":true}`,
		"$JS.API.STREAM.MSG.GET.wazzup-main-records":                  `{"last_by_subj":"wazzup.main.evt.channels"}`,
		"wazzup.main.evt.channels":                                    `{"id":"1","name":"x"}`,
		"$JS.API.DIRECT.GET.wazzup-main-records":                      `{"last_by_subj":"wazzup.main.evt.channels"}`,
	}
	for _, user := range slices.Sorted(maps.Keys(requests)) {
		nc := g.login(user)
		for _, subject := range requests[user] {
			for _, target := range targets {
				// What a role's own account may do is told by the test above.
				if u := g.user(user); may(u.Permissions.Publish, target) || strings.HasPrefix(target, "_R_") {
					continue
				}
				// The server takes no message whose answer is to be an acknowledgement.
				if stream := streams[subject]; stream != "" && !strings.HasPrefix(target, "$JS.ACK.") {
					before[stream]++
				}
				if err := nc.PublishRequest(subject, target, []byte(bodies[subject])); err != nil {
					t.Fatal(err)
				}
			}
		}
		// Requests of one connection are carried out in their order, for each kind
		// of request: one more of each kind, answered to us, ends them.
		for _, subject := range requests[user] {
			if stream := streams[subject]; stream != "" {
				before[stream]++
			}
			if _, err := nc.Request(subject, []byte(bodies[subject]), time.Minute); err != nil {
				t.Fatalf("%s: %s: %v", user, subject, err)
			}
		}
	}
	if after := g.stored(); !maps.Equal(before, after) { // but for what they published themselves
		t.Errorf("the streams hold %v, want %v", after, before)
	}
	if now := g.consumers(); !slices.Equal(consumers, now) {
		t.Errorf("the consumers were %q, now %q", consumers, now)
	}
	if info, err := held.Info(t.Context()); err != nil || info.NumAckPending != 1 {
		t.Errorf("the other's consumer: %v, %+v", err, info)
	}
	for len(asked) > 0 {
		if subject := <-asked; !slices.Contains([]string{"wazzup.main.api.command.get", "wazzup.main.api.dead.list", "wazzup.main.api.webhooks.get"}, subject) {
			t.Errorf("a reply became the request %s", subject)
		}
	}
}

func (g *guarded) user(name string) *server.User {
	for _, u := range g.users() {
		if u.Username == name {
			return u
		}
	}
	g.t.Fatalf("there is no user %s", name)
	return nil
}

// TestHeadersAreHarmless: headers with which JetStream does more than to store a
// message. A command either is stored as it is, or refused.
func TestHeadersAreHarmless(t *testing.T) {
	t.Parallel()
	g := guard(t, 1)
	g.ensure()
	nc := g.login(mine + "-producer")
	subject := "wazzup.main.cmd.send." + channel
	publish := func(h nats.Header) (stored bool, code jetstream.ErrorCode, answer string) {
		t.Helper()
		reply, err := nc.RequestMsg(&nats.Msg{Subject: subject, Header: h, Data: []byte(`{}`)}, time.Minute)
		if err != nil {
			t.Fatalf("%v: %v", h, err)
		}
		var ack struct {
			Error     *jetstream.APIError `json:"error"`
			Duplicate bool                `json:"duplicate"`
		}
		if err := json.Unmarshal(reply.Data, &ack); err != nil {
			t.Fatal(err)
		}
		if err := schematest.Validate(schema.PubAckSchema, reply.Data); err != nil {
			t.Error(err)
		}
		if ack.Error != nil {
			code = ack.Error.ErrorCode
		}
		return ack.Error == nil && !ack.Duplicate, code, string(reply.Data)
	}
	if stored, _, answer := publish(nil); !stored {
		t.Fatal(answer)
	}
	at := time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano)
	before := g.stored()
	taken := uint64(0)
	for _, tt := range []struct {
		header nats.Header
		stored bool
		code   jetstream.ErrorCode // that the contract names
	}{
		{nats.Header{"Nats-Rollup": {"all"}}, false, 10111},
		{nats.Header{"Nats-Rollup": {"sub"}}, false, 10111},
		{nats.Header{"Nats-Schedule": {"@at " + at}, "Nats-Schedule-Target": {"wazzup.shop-eu.cmd.send." + channel}}, false, 0},
		{nats.Header{"Nats-Schedule": {"@every 1s"}, "Nats-Schedule-Target": {"wazzup.main.cmd.bulk." + channel}}, false, 0},
		{nats.Header{"Nats-Schedule-Next": {"purge"}, "Nats-Scheduler": {"wz.main.at.x.0"}}, false, 0},
		{nats.Header{"Nats-TTL": {"1s"}}, false, 10166},
		{nats.Header{"Nats-Incr": {"+1"}}, false, 0},
		{nats.Header{"Nats-Batch-Id": {"b"}, "Nats-Batch-Sequence": {"1"}, "Nats-Batch-Commit": {"1"}}, false, 0},
		{nats.Header{"Nats-Expected-Stream": {"wazzup-shop-eu-commands"}}, false, 0},
		{nats.Header{"Nats-Expected-Last-Sequence": {"999"}}, false, 0},
		{nats.Header{"Nats-Expected-Last-Subject-Sequence": {"999"}}, false, 0},
		{nats.Header{"Nats-Expected-Last-Msg-Id": {"another"}}, false, 0},
		{nats.Header{"Nats-Request-Info": {`{"acc":"RELAY","svc":"RELAY"}`}}, true, 0},
		{nats.Header{"Nats-Stream-Source": {"wazzup-shop-eu-commands 1 > >"}}, false, 0},
	} {
		stored, code, answer := publish(tt.header)
		if stored != tt.stored || tt.code != 0 && code != tt.code {
			t.Errorf("%v: stored = %t, want %t and the code %d: %s", tt.header, stored, tt.stored, tt.code, answer)
		}
		if stored {
			taken++
		}
	}
	// A trace may go only where its asker may publish, or else the message is refused.
	p := g.probe(mine + "-producer")
	var attempts []string
	for _, dest := range []string{"wazzup.shop-eu.cmd.send." + channel, "wz.main.l.x", "wazzup.main.evt.channels"} {
		attempts = append(attempts, "publish "+dest)
		if err := p.nc.PublishMsg(&nats.Msg{Subject: subject, Header: nats.Header{"Nats-Trace-Dest": {dest}}, Data: []byte(`{}`)}); err != nil {
			t.Fatal(err)
		}
	}
	if went := p.wait(attempts); len(went) > 0 {
		t.Errorf("traces went out: %q", went)
	}
	after := g.stored()
	before["wazzup-main-commands"] += taken
	if !maps.Equal(before, after) {
		t.Errorf("the streams hold %v, want %v", after, before)
	}
	js := g.jetStream("admin")
	s, err := js.Stream(t.Context(), "wazzup-main-commands")
	if err != nil {
		t.Fatal(err)
	}
	if state := s.CachedInfo().State; state.Msgs != state.LastSeq {
		t.Errorf("%d of %d commands are left", state.Msgs, state.LastSeq)
	}
}

// TestDedupeBlocksNobodyElse: an id that one account has used is free in the other.
// Within an account it is one, for as long as the window says; the ledger, which
// remembers it for longer, tells of the repeat in an event.
func TestDedupeBlocksNobodyElse(t *testing.T) {
	t.Parallel()
	g := guard(t, 1)
	g.ensure()
	for round := range 20 {
		id := fmt.Sprintf("order-%d", round)
		for _, account := range []string{mine, theirs} {
			js, err := jetstream.New(g.login(account + "-producer"))
			if err != nil {
				t.Fatal(err)
			}
			ack, err := js.Publish(t.Context(), "wazzup."+account+".cmd.send."+channel, []byte(`{}`), jetstream.WithMsgID(id))
			if err != nil || ack.Duplicate || ack.Stream != "wazzup-"+account+"-commands" {
				t.Errorf("%s: %v, %v", account, ack, err)
			}
		}
	}
	s, err := g.jetStream("admin").Stream(t.Context(), "wazzup-main-commands")
	if err != nil {
		t.Fatal(err)
	}
	if window := s.CachedInfo().Config.Duplicates; window > 100*time.Millisecond {
		t.Errorf("the window is %s", window)
	}
}

// TestConsumersStayApart: neither role can take, acknowledge or end what is another
// account's, nor its own account's commands. All requests time out or are refused,
// and the durable consumers stand as they were.
func TestConsumersStayApart(t *testing.T) {
	t.Parallel()
	g := guard(t, 1)
	g.ensure()
	js, err := jetstream.New(g.login(mine + "-consumer"))
	if err != nil {
		t.Fatal(err)
	}
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	push := jetstream.ConsumerConfig{DeliverSubject: "wazzup.shop-eu.cmd.send." + channel, FilterSubject: "wazzup.main.evt.>"}
	for name, try := range map[string]func() error{
		"push into another account": func() error {
			_, err := js.CreatePushConsumer(short(), "wazzup-main-records", push)
			return err
		},
		"another filter": func() error {
			_, err := js.UpdateConsumer(short(), "wazzup-main-records", jetstream.ConsumerConfig{Durable: "main-consumer", FilterSubject: "wz.main.>"})
			return err
		},
		"the other's events": func() error {
			_, err := js.Consumer(short(), "wazzup-shop-eu-records", "shop-eu-consumer")
			return err
		},
		"commands": func() error {
			_, err := js.CreateConsumer(short(), "wazzup-main-commands", jetstream.ConsumerConfig{Durable: "main-consumer"})
			return err
		},
		"delete": func() error { return js.DeleteConsumer(short(), "wazzup-main-records", "main-consumer") },
		"mirror": func() error {
			_, err := js.CreateStream(short(), jetstream.StreamConfig{Name: "copy", Mirror: &jetstream.StreamSource{Name: "wazzup-shop-eu-records"}})
			return err
		},
		"source": func() error {
			_, err := js.CreateStream(short(), jetstream.StreamConfig{Name: "copy", Sources: []*jetstream.StreamSource{{Name: "wazzup-shop-eu-records"}}})
			return err
		},
	} {
		if err := try(); err == nil {
			t.Errorf("%s: was done", name)
		}
	}
	if _, err := js.Consumer(t.Context(), "wazzup-main-records", "main-consumer"); err != nil {
		t.Errorf("its own consumer: %v", err)
	}
	if got, want := g.consumers(), []string{"wazzup-main-records/main-consumer", "wazzup-shop-eu-records/shop-eu-consumer"}; !slices.Equal(got, want) {
		t.Errorf("consumers %q, want %q", got, want)
	}
}
