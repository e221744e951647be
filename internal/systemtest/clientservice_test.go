//go:build system

package systemtest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// order is a line of the service's orders.
type order struct {
	ID        string `json:"id,omitempty"`
	ChannelID string `json:"channelId"`
	ChatType  string `json:"chatType"`
	ChatID    string `json:"chatId"`
	Text      string `json:"text"`
}

// serviceCounts is what the service prints at its end, over all of its runs.
type serviceCounts struct {
	Runs     int // how often it was started
	Again    int // publishes repeated after a crash, under the same id
	Heard    int // final events that came by Wazzup-Reply-To
	Repeated int // events that came again, and were known by their ce-id
	Contacts int // that api.contacts.list told of
	Windows  int // chat windows that api.iframe.open opened
	Orders   int
	Tried    int // orders that were published
	Stored   int // orders whose acknowledgement was noted
	Events   int // events that its durable consumer got
	States   map[string]int
}

// journal is what the service notes.
type journal struct {
	path string
	read int64 // bytes of it

	tried, stored map[int]bool
	events        map[string]string       // state by ce-id
	heard         map[uint64]schema.State // by the command's sequence
}

type journalEntry struct {
	Trying, Stored *int
	Event          string
	Heard          uint64
	State          string
}

// more takes in what was noted since the last time.
func (j *journal) more(t *testing.T) {
	t.Helper()
	f, err := os.Open(j.path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.NewSectionReader(f, j.read, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	j.read += int64(len(text))
	for line := range bytes.Lines(text) {
		var e journalEntry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("journal: %v: %s", err, line)
		}
		switch {
		case e.Trying != nil:
			j.tried[*e.Trying] = true
		case e.Stored != nil:
			j.stored[*e.Stored] = true
		case e.Event != "":
			if _, twice := j.events[e.Event]; twice {
				t.Errorf("event %s was taken twice", e.Event)
			}
			j.events[e.Event] = e.State
		case e.Heard != 0:
			j.heard[e.Heard] = schema.State(e.State)
		}
	}
}

// A service on the current packages of Node.js, examples/node/service.js, sends
// messages with and without ids, hears of their ends by Wazzup-Reply-To, takes in
// events with a durable consumer, asks for contacts and opens a chat window. It is killed again and again, in the midst
// of all that, and misses no event.
func TestClientNodeService(t *testing.T) {
	const chats, orders, inbound, kills = 20, 800, 360, 5
	rnd := random(t)
	channels := whatsapps(4)
	r := newRig(t, simulator.Config{Channels: channels})
	r.latency(time.Millisecond)
	worker := runWorker(t, r.env()...)
	worker.ready()
	ingest := r.runIngest()
	r.collect()

	dir, folder := need(t, nodeExamples), t.TempDir()
	if out, errs, exit := nodeScripts(t).do(r, nodeScripts(t).env(r), "contacts"); exit != 0 {
		t.Fatalf("contacts.js: exit %d: %s%s", exit, out, errs)
	}
	list := writeOrders(t, folder, channels, chats, orders)
	j := &journal{
		path: filepath.Join(folder, "journal.ndjson"), tried: make(map[int]bool), stored: make(map[int]bool),
		events: make(map[string]string), heard: make(map[uint64]schema.State),
	}
	start := func() *client {
		return startClient(t, dir, []string{"PATH=" + os.Getenv("PATH"), "NATS_URL=" + r.url}, "node", "service.js", folder)
	}
	wrote := 0
	write := func(until int) { // customers do
		for ; wrote < until; wrote++ {
			chat := wrote % chats
			if _, err := r.sim.Inbound(simulator.Inbound{
				ChannelID: channels[chat%len(channels)].ChannelID, ChatID: fmt.Sprintf("7900%07d", chat), Text: "question " + strconv.Itoa(wrote),
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	published := func() bool { // nothing is left to publish
		j.more(t)
		return len(j.tried) == orders && !hasPending(j, list)
	}
	began := time.Now()
	c := start()
	for life := range kills {
		write(inbound * (2*life + 1) / (2*kills + 1))
		lines := 60 + rnd.IntN(300)
		c.wait(strconv.Itoa(lines)+" lines", func(printed []string) bool { return len(printed) >= lines || published() })
		c.kill()
		r.soonAgain("node-service")
		write(inbound * (2*life + 2) / (2*kills + 1)) // nobody is there to hear it
		c = start()
	}
	write(inbound)
	c.wait("all orders to be published", func([]string) bool { return published() })

	// Nothing more happens: what is stored now is what the service must get.
	stored, _ := r.stored()
	r.waitFinals(int(stored), time.Minute)
	if err := r.sim.Wait(t.Context(), (*simulator.View).Idle); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*program{ingest, worker} {
		if code := p.stop(); code != 0 {
			t.Errorf("SIGTERM: exit %d, want 0", code)
		}
	}
	want := r.eventStates("message.in.>", "command.*.send.>")
	c.wait(fmt.Sprintf("%d events", len(want)), func([]string) bool { j.more(t); return len(j.events) >= len(want) })
	if code := c.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("SIGTERM: exit %d, want 0", code)
	}

	lines, _ := c.printed()
	var counts serviceCounts
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &counts); err != nil {
		t.Fatal(err)
	}
	t.Logf("examples/node/service.js, killed %d times in %v: %s", kills, time.Since(began).Round(time.Millisecond), lines[len(lines)-1])
	j.more(t)
	r.checkService(list, j, want, &counts)
	if counts.Runs != kills+1 {
		t.Errorf("%d runs, want %d", counts.Runs, kills+1)
	}
	if counts.Contacts != 2 || counts.Windows == 0 {
		t.Errorf("%d contacts and %d windows, want 2 and one each run", counts.Contacts, counts.Windows)
	}
	if counts.States["in"] != inbound {
		t.Errorf("the service got %d messages of customers, want %d", counts.States["in"], inbound)
	}
}

// hasPending tells whether an order with an id waits for its acknowledgement.
func hasPending(j *journal, list []order) bool {
	for n, o := range list {
		if o.ID != "" && !j.stored[n] {
			return true
		}
	}
	return false
}

// writeOrders writes the service's orders: in each chat every fourth has no id, but
// the last one has, so that its acknowledgement tells that all are published. A text
// is the order's number, which grows within a chat.
func writeOrders(t *testing.T, folder string, channels []simulator.Channel, chats, total int) []order {
	t.Helper()
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	list := make([]order, total)
	for n := range list {
		chat := n % chats
		o := order{
			ID: "order-" + strconv.Itoa(n), ChannelID: channels[chat%len(channels)].ChannelID,
			ChatType: "whatsapp", ChatID: fmt.Sprintf("7900%07d", chat), Text: strconv.Itoa(n),
		}
		if n/chats%4 == 1 {
			o.ID = ""
		}
		list[n] = o
		if err := enc.Encode(o); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "orders.ndjson"), text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return list
}

// soonAgain has the server give a dead client's unacknowledged messages to the
// next one after a second, not after its default of thirty.
func (r *rig) soonAgain(durable string) {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := s.Consumer(r.t.Context(), durable)
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := c.CachedInfo().Config
	cfg.AckWait = time.Second
	if _, err := s.UpdateConsumer(r.t.Context(), cfg); err != nil {
		r.t.Fatal(err)
	}
}

// eventStates reads every stored event of these subjects: its state (or "in"), by
// its ce-id.
func (r *rig) eventStates(subjects ...string) map[string]string {
	r.t.Helper()
	for i, s := range subjects {
		subjects[i] = "wazzup.main.evt." + s
	}
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := s.OrderedConsumer(r.t.Context(), jetstream.OrderedConsumerConfig{FilterSubjects: subjects})
	if err != nil {
		r.t.Fatal(err)
	}
	messages, err := c.Messages()
	if err != nil {
		r.t.Fatal(err)
	}
	defer messages.Stop()
	states := make(map[string]string)
	for left := c.CachedInfo().NumPending; left > 0; left-- {
		m, err := messages.Next()
		if err != nil {
			r.t.Fatal(err)
		}
		kind := m.Headers().Get("ce-type")
		states[m.Headers().Get("ce-id")] = kind[strings.LastIndexByte(kind, '.')+1:]
	}
	return states
}

// checkService holds what the service noted and counted to what was stored and to
// what the vendor got.
func (r *rig) checkService(list []order, j *journal, want map[string]string, counts *serviceCounts) {
	r.t.Helper()
	for id, state := range want {
		if j.events[id] != state {
			r.t.Errorf("event %s (%s) was missed: got %q", id, state, j.events[id])
		}
	}
	if len(j.events) != len(want) || counts.Events != len(want) {
		r.t.Errorf("the service noted %d events and counted %d; %d are stored", len(j.events), counts.Events, len(want))
	}

	requested := r.checkRequests(nil) // no message twice, each chat in its order
	for n, o := range list {
		if !requested[n] && (o.ID != "" || j.stored[n]) {
			r.t.Errorf("order %d (id %q, stored: %v) never reached the vendor", n, o.ID, j.stored[n])
		}
	}
	finals := 0
	for state, n := range counts.States {
		if schema.State(state).Final() {
			finals += n
		}
	}
	stored, _ := r.stored()
	stored-- // the contacts
	if finals != int(stored) {
		r.t.Errorf("%d final events for %d stored commands", finals, stored)
	}
	if got := counts.States["sent"]; got != len(requested) {
		r.t.Errorf("%d commands ended sent, and the vendor got %d", got, len(requested))
	}
	if got := counts.States["duplicate"]; got > counts.Again || got+len(requested) != int(stored) {
		r.t.Errorf("%d duplicates of %d repeats and %d stored commands", got, counts.Again, stored)
	}
	if counts.Orders != len(list) || counts.Tried != len(list) || counts.Stored != len(j.stored) {
		r.t.Errorf("counts are %+v, want %d orders, %d of them stored", counts, len(list), len(j.stored))
	}
	if counts.Heard == 0 || counts.Heard != len(j.heard) {
		r.t.Errorf("the service heard of %d ends, and counted %d", len(j.heard), counts.Heard)
	}
	for seq, state := range j.heard {
		if state != schema.StateSent && state != schema.StateDuplicate {
			r.t.Errorf("command %d ended %s", seq, state)
		}
	}
}
