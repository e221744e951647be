package bench_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	poll        = 5 * time.Millisecond // what is waited for is asked for so often
	sceneWait   = time.Minute
	syncLanes   = 3 // that a worker has besides those of channels
	stampPrefix = "published at "
)

// scene is a server, a vendor and the streams of its accounts.
type scene struct {
	b      *testing.B
	spec   spec
	server *process
	vendor *process
	js     jetstream.JetStream

	published int // commands so far
}

func newScene(b *testing.B, s spec) *scene {
	b.Helper()
	sc := &scene{b: b, spec: s}
	sc.spec.Dir = b.TempDir()
	sc.server = start(b, "server", sc.spec, &sc.spec.NATS)
	sc.vendor = start(b, "vendor", sc.spec, &sc.spec.Vendor)
	nc, err := nats.Connect(sc.spec.NATS)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	if sc.js, err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096), jetstream.WithDefaultTimeout(sceneWait)); err != nil {
		b.Fatal(err)
	}
	for i := range s.Accounts {
		if _, err := queue.Ensure(b.Context(), sc.js, account(i), limits(s)); err != nil {
			b.Fatal(err)
		}
	}
	return sc
}

func account(i int) string { return fmt.Sprintf("account-%d", i) }

func channelID(i int) string { return fmt.Sprintf("7f3c1a52-94d1-4c1e-9f5a-%012d", i) }

// command is the body of a usual command, some 300 bytes. Every one has a chat
// of its own, so that the order in a chat limits nothing.
func command(i int, text string) []byte {
	return fmt.Appendf(nil, `{"id":"order-%d-shipped","chatType":"whatsapp","chatId":"79%09d","text":%q,"meta":{"orderId":"%d"}}`, i, i, text, i)
}

func text() string {
	return "Your order is on its way and will be with you tomorrow between ten and twelve. " +
		"If that does not suit you, answer this message and we find another time for the delivery."
}

// publish stores n commands, evenly over accounts and channels, and makes sure that
// they are all there.
func (s *scene) publish(n int) {
	s.b.Helper()
	s.store(n, func(i int) string {
		return schema.SendSubject(account(i%s.spec.Accounts), schema.KindSend, channelID(i/s.spec.Accounts%s.spec.Channels))
	})
	if left := s.commands(); left != n {
		s.b.Fatalf("%d commands are stored, want %d", left, n)
	}
}

// store stores n commands more, each on the subject that its number has.
func (s *scene) store(n int, subject func(i int) string) {
	s.b.Helper()
	for i := range n {
		s.publishAsync(subject(i))
	}
	select {
	case <-s.js.PublishAsyncComplete():
	case <-time.After(sceneWait):
		s.b.Fatal("commands were not stored in time")
	}
}

func (s *scene) publishAsync(subject string) {
	s.b.Helper()
	if _, err := s.js.PublishAsync(subject, s.command(text()), jetstream.WithStallWait(sceneWait)); err != nil {
		s.b.Fatal(err)
	}
}

// command is the body of the scene's next command.
func (s *scene) command(text string) []byte {
	body := command(s.published, text)
	s.published++
	return body
}

// commands counts what is left of the accounts' commands.
func (s *scene) commands() int {
	s.b.Helper()
	n := 0
	for i := range s.spec.Accounts {
		n += int(s.info(queue.Names{Account: account(i)}.Commands()).State.Msgs) //nolint:gosec // a few
	}
	return n
}

func (s *scene) info(stream string, opts ...jetstream.StreamInfoOpt) *jetstream.StreamInfo {
	s.b.Helper()
	st, err := s.js.Stream(s.b.Context(), stream)
	if err != nil {
		s.b.Fatal(err)
	}
	if len(opts) == 0 {
		return st.CachedInfo()
	}
	info, err := st.Info(s.b.Context(), opts...)
	if err != nil {
		s.b.Fatal(err)
	}
	return info
}

// until waits for a condition.
func (s *scene) until(what string, met func() bool) {
	s.b.Helper()
	timeout := time.After(sceneWait)
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-timeout:
			s.b.Fatalf("waited in vain for %s; %d commands are left, %d requests were made, %d sent events are stored",
				what, s.commands(), s.requests(), s.sent())
		}
	}
}

// requests counts the messages that the vendor was asked to send.
func (s *scene) requests() int {
	s.b.Helper()
	var n int
	s.vendor.ask("count", &n)
	return n
}

// refused waits until every account was refused at the vendor, and is closed.
func (s *scene) refused() {
	s.b.Helper()
	s.until("the accounts to be refused", func() bool {
		var accounts int
		s.vendor.ask("refused", &accounts)
		return accounts == s.spec.Accounts
	})
}

// lanes waits until each account's command stream has the consumers of n lanes.
func (s *scene) lanes(n int) {
	s.b.Helper()
	for i := range s.spec.Accounts {
		stream := queue.Names{Account: account(i)}.Commands()
		s.until("lanes", func() bool { return s.info(stream).State.Consumers >= n+syncLanes })
	}
}

// untouched makes sure that nobody has called yet.
func (s *scene) untouched() {
	s.b.Helper()
	if n := s.requests(); n != 0 {
		s.b.Fatalf("%d requests at the vendor before the start", n)
	}
}

// emptied waits until no command is left, that is, until the last was
// acknowledged, and makes sure that each was answered.
func (s *scene) emptied(n int) {
	s.b.Helper()
	s.emptiedBut(0, n)
}

// emptiedBut does so where some commands stay, those of each account.
func (s *scene) emptiedBut(stay uint64, n int) {
	s.b.Helper()
	for i := range s.spec.Accounts {
		stream := queue.Names{Account: account(i)}.Commands()
		s.until("the end", func() bool { return s.info(stream).State.Msgs <= stay })
	}
	s.until("the events", func() bool { return s.sent() >= n })
	if sent := s.sent(); sent != n {
		s.b.Fatalf("%d sent events, want %d", sent, n)
	}
}

// sent counts the stored events that say so.
func (s *scene) sent() int {
	s.b.Helper()
	n := 0
	for i := range s.spec.Accounts {
		filter := strings.TrimSuffix(schema.CommandEventSubject(account(i), schema.StateSent, schema.KindSend, "-"), "-") + "*"
		info := s.info(queue.Names{Account: account(i)}.Records(), jetstream.WithSubjectFilter(filter))
		for _, stored := range info.State.Subjects {
			n += int(stored) //nolint:gosec // a few
		}
	}
	return n
}
