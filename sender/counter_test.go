package sender_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// counterServer stands for the vendor's socket, as one of Socket.IO 4.
type counterServer struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	open   map[string]*websocket.Conn // by the user's id as JSON: the connection that asked last
	most   map[string]int             // connections at the same time
	now    map[string]int
	total  map[string]int
	keys   map[string]string
	greets map[string]int // what a user is told on connect
	change chan struct{}
}

func newCounterServer(t *testing.T) *counterServer {
	t.Helper()
	s := &counterServer{
		t: t, open: make(map[string]*websocket.Conn), most: make(map[string]int), now: make(map[string]int), total: make(map[string]int),
		keys: make(map[string]string), greets: make(map[string]int), change: make(chan struct{}),
	}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		s.mu.Lock()
		for _, ws := range s.open {
			_ = ws.CloseNow()
		}
		s.mu.Unlock()
		s.Close()
	})
	return s
}

func (s *counterServer) serve(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	ctx := context.WithoutCancel(r.Context())
	write := func(frame string) { _ = ws.Write(ctx, websocket.MessageText, []byte(frame)) }
	write(`0{"sid":"x","pingInterval":60000,"pingTimeout":60000}`)
	user := ""
	for {
		_, frame, err := ws.Read(ctx)
		if err != nil {
			break
		}
		if string(frame) == "40" {
			write(`40{"sid":"y"}`)
			continue
		}
		var parts []json.RawMessage
		var who struct {
			Key  string          `json:"apiKey"`
			User json.RawMessage `json:"userId"`
		}
		if json.Unmarshal(bytes.TrimPrefix(frame, []byte("42")), &parts) != nil || len(parts) != 2 || json.Unmarshal(parts[1], &who) != nil {
			continue
		}
		user = string(who.User)
		s.mu.Lock()
		s.open[user], s.keys[user] = ws, who.Key
		s.now[user]++
		s.total[user]++
		s.most[user] = max(s.most[user], s.now[user])
		write(notify(s.greets[user])) // before anything that a test tells
		s.changed()
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if user != "" {
		s.now[user]--
		if s.open[user] == ws {
			delete(s.open, user)
		}
		s.changed()
	}
}

func notify(n int) string { return fmt.Sprintf(`42["apiV2Notify",{"counter":%d}]`, n) }

func (s *counterServer) changed() {
	close(s.change)
	s.change = make(chan struct{})
}

// wait blocks until cond holds; it is called with the lock held.
func (s *counterServer) wait(what string, cond func() bool) {
	s.t.Helper()
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		ok, change := cond(), s.change
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-change:
		case <-timeout:
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (s *counterServer) connected(users ...string) {
	s.t.Helper()
	s.wait(fmt.Sprintf("connections of %q", users), func() bool {
		for _, u := range users {
			if s.now[u] == 0 {
				return false
			}
		}
		return true
	})
}

// tell sends a user values, and keeps the last for its next connection.
func (s *counterServer) tell(user string, values ...int) {
	s.t.Helper()
	s.connected(user)
	s.mu.Lock()
	ws := s.open[user]
	s.greets[user] = values[len(values)-1]
	s.mu.Unlock()
	for _, n := range values {
		if err := ws.Write(s.t.Context(), websocket.MessageText, []byte(notify(n))); err != nil {
			s.t.Fatal(err)
		}
	}
}

// drop breaks a user's connection.
func (s *counterServer) drop(user string) {
	s.t.Helper()
	s.connected(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.open[user].CloseNow()
}

// counters waits until the stored counters of a user end with these, and returns all
// of them.
func (r *rig) counters(user string, want ...int) []int {
	r.t.Helper()
	var all []int
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		all = r.storedCounters(user)
		if len(all) >= len(want) && slices.Equal(all[len(all)-len(want):], want) {
			return all
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("counters of %s: got %v, want them to end with %v", user, all, want)
		}
	}
}

func (r *rig) storedCounters(user string) (all []int) {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	subject := schema.CounterEventSubject("main", schema.EntityID(json.RawMessage(user)))
	ids := make(map[string]bool)
	for seq := uint64(1); ; {
		m, err := s.GetMsg(r.t.Context(), seq, jetstream.WithGetMsgSubject(subject))
		if err != nil {
			return all
		}
		var e struct {
			User    json.RawMessage `json:"userId"`
			Counter int             `json:"counter"`
		}
		if err := json.Unmarshal(m.Data, &e); err != nil || string(e.User) != user {
			r.t.Fatalf("stored is %s, %v", m.Data, err)
		}
		id := m.Header.Get(schema.HeaderCEID)
		if ids[id] || id == "" || m.Header.Get(schema.HeaderMsgID) != id || m.Header.Get(schema.HeaderCEType) != "wazzup.counter" ||
			m.Header.Get(schema.HeaderCESource) != "/wazzup/main" {
			r.t.Errorf("headers: %v", m.Header)
		}
		ids[id] = true
		all = append(all, e.Counter)
		seq = m.Sequence + 1
	}
}

func (r *rig) counting(s *counterServer, users ...string) sender.Config {
	cfg := r.config()
	cfg.CounterURL = s.URL
	for _, u := range users {
		cfg.CounterUsers = append(cfg.CounterUsers, json.RawMessage(u))
	}
	return cfg
}

// Every change is published in order, and the value of each connect; whoever owns
// the account has the one connection of a user.
func TestCounter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := newCounterServer(t)
	var logged bytes.Buffer
	r.log = zerolog.New(zerolog.SyncWriter(&logged))
	const number, text, odd = `17`, `"maria"`, `"a user@crm"`
	cfg := r.counting(s, number, text, odd)
	cfg.APIKey = "the-secret-key"
	stop := r.start(cfg)
	s.tell(number, 1, 2, 2, 3) // 2 twice is one change
	s.tell(text, 7)
	s.tell(odd, 9)
	if got := r.counters(number, 3); !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Errorf("got %v", got)
	}
	r.counters(text, 0, 7)
	r.counters(odd, 0, 9)
	s.drop(number)
	r.counters(number, 3, 3) // told on connect, though it is no news
	s.tell(number, 4)
	r.counters(number, 3, 3, 4)

	// Another worker takes over: the connections close, then open there.
	other := r.start(cfg)
	stop()
	r.counters(number, 4, 4)
	s.tell(number, 5)
	r.counters(number, 4, 4, 5)
	other()
	s.wait("the end of all connections", func() bool { return s.now[number]+s.now[text]+s.now[odd] == 0 })
	for user, most := range s.most {
		if most != 1 {
			t.Errorf("%s had %d connections at once", user, most)
		}
	}
	if s.keys[number] != "the-secret-key" {
		t.Error("the connection carried another key")
	}
	for _, hidden := range []string{"the-secret-key", "maria", "a user@crm"} {
		if strings.Contains(logged.String(), hidden) {
			t.Errorf("the log holds %s:\n%s", hidden, &logged)
		}
	}
}

// A reload opens what is new and closes what is gone, and leaves the rest alone; with
// another key all of them are opened anew.
func TestCounterReload(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := newCounterServer(t)
	w, _ := r.worker(r.counting(s, `1`, `2`))
	s.connected(`1`, `2`)
	if _, err := w.Reload([]sender.Config{r.counting(s, `2`, `"3"`)}); err != nil {
		t.Fatal(err)
	}
	s.connected(`2`, `"3"`)
	s.wait("the end of the first", func() bool { return s.now[`1`] == 0 })
	s.tell(`2`, 8)
	r.counters(`2`, 0, 8)
	if s.total[`2`] != 1 {
		t.Errorf("the connection that stays was opened %d times", s.total[`2`])
	}
	cfg := r.counting(s, `2`)
	cfg.APIKey = "next"
	changes, err := w.Reload([]sender.Config{cfg})
	if err != nil || !slices.Equal(changes.Changed, []string{"main"}) {
		t.Fatalf("reload: %+v, %v", changes, err)
	}
	s.wait("the other key", func() bool { return s.keys[`2`] == "next" && s.now[`"3"`] == 0 })
	r.counters(`2`, 8, 8)
	if _, err := w.Reload([]sender.Config{r.config()}); err != nil {
		t.Fatal(err)
	}
	s.wait("the end of all", func() bool { return s.now[`2`] == 0 })
	if s.most[`2`] != 1 {
		t.Errorf("%d connections at once", s.most[`2`])
	}
}

// What comes while NATS is away is published when it is back, in order, each once.
func TestCounterWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := newCounterServer(t)
	cut := false
	var mu sync.Mutex
	c := newCutter(t, r.srv.URL(), func(bool, []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		return cut
	})
	nc := queuetest.Conn(t, c, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	r.startOn(nc, r.counting(s, `1`))
	s.tell(`1`, 1)
	r.counters(`1`, 0, 1)
	away := nc.StatusChanged(nats.RECONNECTING)
	back := nc.StatusChanged(nats.CONNECTED)
	mu.Lock()
	cut = true
	mu.Unlock()
	s.tell(`1`, 2) // which finds that the connection is broken
	<-away
	s.tell(`1`, 3, 4)
	mu.Lock()
	cut = false
	mu.Unlock()
	<-back
	s.tell(`1`, 5)
	if got := r.counters(`1`, 5); !slices.Equal(got, []int{0, 1, 2, 3, 4, 5}) {
		t.Errorf("got %v", got)
	}
}

// What a former owner stores late does not become the last word: the owner's next
// value comes after it, and the former one's not at all once the owner has spoken.
func TestCounterOfFormerOwner(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := newCounterServer(t)
	former := r.fenced()
	late := func(n int, expect uint64) error {
		body, err := json.Marshal(schema.CounterEvent{UserID: json.RawMessage(`1`), Counter: int64(n)})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		former.PublishNext(queue.Event{
			Subject: schema.CounterEventSubject("main", "1"), ID: fmt.Sprint("late-", n), Account: "main", Type: "wazzup.counter", Time: time.Now(), Body: body,
		}, expect, func(_ uint64, err error) { done <- err })
		return <-done
	}
	r.start(r.counting(s, `1`))
	s.tell(`1`, 1)
	r.counters(`1`, 0, 1)
	last, err := former.LastEvent(t.Context(), schema.CounterEventSubject("main", "1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := late(90, 0); err == nil {
		t.Error("a value from before the owner's was stored after it")
	}
	m := nats.NewMsg(schema.CounterEventSubject("main", "1"))
	m.Data = []byte(`{"userId":1,"counter":91}`)
	m.Header.Set(schema.HeaderMsgID, "late-91")
	m.Header.Set(schema.HeaderCEID, "late-91")
	m.Header.Set(schema.HeaderCEType, "wazzup.counter")
	m.Header.Set(schema.HeaderCESource, "/wazzup/main")
	m.Header.Set(schema.HeaderCESpecVersion, "1.0")
	m.Header.Set(schema.HeaderCETime, schema.FormatTime(time.Now()))
	if _, err := r.js.PublishMsg(t.Context(), m, jetstream.WithExpectLastSequencePerSubject(last.Sequence)); err != nil {
		t.Fatal(err)
	}
	s.tell(`1`, 2)
	r.counters(`1`, 0, 1, 91, 2)
}

// Other keys while NATS is away: what each connection has heard gets a moment to be
// stored, all of them the same moment.
func TestCounterReloadWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := newCounterServer(t)
	var cut atomic.Bool
	c := newCutter(t, r.srv.URL(), func(bool, []byte) bool { return cut.Load() })
	nc := queuetest.Conn(t, c, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	users := []string{`1`, `2`, `3`, `4`, `5`, `6`, `7`, `8`}
	w, _ := r.workerOn(nc, r.counting(s, users...))
	s.connected(users...)
	r.counters(`1`, 0)
	away := nc.StatusChanged(nats.RECONNECTING)
	cut.Store(true)
	for _, u := range users {
		s.tell(u, 1)
	}
	<-away
	cfg := r.counting(s, users...)
	cfg.APIKey = "next"
	began := time.Now()
	if _, err := w.Reload([]sender.Config{cfg}); err != nil {
		t.Fatal(err)
	}
	s.wait("the other key", func() bool {
		return !slices.ContainsFunc(users, func(u string) bool { return s.keys[u] != "next" })
	})
	if took := time.Since(began); took > 14*time.Second { // one after the other: 16 s
		t.Errorf("the connections with the other key took %v", took)
	}
	cut.Store(false)
	for _, u := range users {
		r.counters(u, 1)
		if s.most[u] != 1 {
			t.Errorf("%s had %d connections at once", u, s.most[u])
		}
	}
}

// An owner that learns from a counter that it is none any more ends at once, though
// more values come.
func TestCounterOfLostOwner(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := newCounterServer(t)
	r.start(r.counting(s, `1`))
	s.tell(`1`, 1)
	r.counters(`1`, 0, 1)
	owners, err := r.js.KeyValue(t.Context(), "wazzup-owners")
	if err != nil {
		t.Fatal(err)
	}
	if err := owners.Delete(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	r.asFormerOwner(func(l *queue.Ledger) {
		subject := schema.CounterEventSubject("main", "1")
		last, err := l.LastEvent(t.Context(), subject)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		l.PublishNext(queue.Event{
			Subject: subject, ID: "the-next-owner's", Account: "main", Type: "wazzup.counter", Time: time.Now(), Body: []byte(`{"userId":1,"counter":90}`),
		}, last.Sequence, func(_ uint64, err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		s.tell(`1`, 2)
	})
	s.mu.Lock()
	former := s.open[`1`]
	s.greets[`1`] = 3
	s.mu.Unlock()
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for former.Write(t.Context(), websocket.MessageText, []byte(notify(3))) == nil { // until the worker has closed it
		<-tick.C
	}
	s.wait("the next ownership", func() bool { return s.total[`1`] == 2 })
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the worker owns the account again after %v", took)
	}
	r.counters(`1`, 0, 1, 90, 3)
}
