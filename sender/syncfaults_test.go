package sender_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// statesOf are all states of a command, once it has ended.
func (r *rig) statesOf(id string) string {
	r.t.Helper()
	var words []string
	for _, s := range r.states(id) {
		words = append(words, string(s))
	}
	return strings.Join(words, " ")
}

// TestSyncFaults: what becomes of the commands of a request that fails.
func TestSyncFaults(t *testing.T) {
	t.Parallel()
	const bad = `"chats":[{"chatType":"whatsapp"}]`
	tests := []struct {
		name     string
		rules    []simulator.Rule
		attempts int
		commands []string // upserts; their ids are c1, c2
		requests int      // 0: it depends on who meets whom
		states   []string
		contacts map[string]string
	}{
		{
			name: "an error of the vendor's", rules: []simulator.Rule{{Status: 500, Times: 1}}, requests: 2,
			states: []string{"retrying done", "retrying done"},
		},
		{
			name: "the answer is lost", rules: []simulator.Rule{{Fault: simulator.FaultDropAfterAccept, Times: 1}}, requests: 2,
			states: []string{"retrying done", "retrying done"},
		},
		{
			name: "no answer in time", rules: []simulator.Rule{{Fault: simulator.FaultHang, Times: 1}}, requests: 2,
			states: []string{"retrying done", "retrying done"},
		},
		{
			name: "too many requests: no attempt is spent", attempts: 1, requests: 2,
			rules:  []simulator.Rule{{Status: 429, Headers: map[string]string{"Retry-After": "0"}, Times: 1}},
			states: []string{"retrying done", "retrying done"},
		},
		{
			name: "the key is refused: the lane closes, and no event tells it", attempts: 1, requests: 2,
			rules:  []simulator.Rule{{Status: 401, Times: 1}},
			states: []string{"done", "done"},
		},
		{
			name: "attempts are used up", attempts: 2, rules: []simulator.Rule{{Status: 500}}, requests: 3, // the last is each one's own
			states: []string{"retrying dead", "retrying dead"}, contacts: map[string]string{},
		},
		{
			name:     "a half of a refused request fails", // and is sent again by itself
			rules:    []simulator.Rule{{Status: 500, After: 2, Times: 1}},
			commands: []string{`[{"id":1,"name":"a"}]`, `[{"id":2,"name":"b",` + bad + `}]`}, requests: 4,
			states: []string{"done", "retrying rejected"}, contacts: map[string]string{"1": "a"},
		},
		{
			name: "too many requests amid bisecting", attempts: 1, // what was not called is sent with the rest, and no event tells it
			rules:    []simulator.Rule{{Status: 429, Headers: map[string]string{"Retry-After": "0"}, After: 1, Times: 1}},
			commands: []string{`[{"id":1,"name":"a"}]`, `[{"id":2,"name":"b",` + bad + `}]`, `[{"id":3,"name":"c"}]`},
			states:   []string{"retrying done", "rejected", "done"}, contacts: map[string]string{"1": "a", "3": "c"},
		},
		{
			// c2's item, which c1's is left out for, is taken, and the other one of c1
			// fails: c1 goes again, and c2 may not end before it.
			name:     "one that was superseded goes again",
			rules:    []simulator.Rule{{Status: 500, After: 2, Times: 1}},
			commands: []string{`[{"id":1,"name":"a"},{"id":2,"name":"a",` + bad + `}]`, `[{"id":1,"name":"b"}]`}, requests: 6,
			states: []string{"retrying rejected", "done"}, contacts: map[string]string{"1": "b"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for _, rule := range tt.rules {
				rule.Match.Path = "/v2/contacts"
				r.rule(rule)
			}
			if tt.commands == nil {
				tt.commands = []string{`{"id":1,"name":"a"}`, `{"id":2,"name":"b"}`}
			}
			if tt.contacts == nil {
				tt.contacts = map[string]string{"1": "a", "2": "b"}
			}
			for i, body := range tt.commands {
				r.sync(schema.EntityContacts, schema.VerbUpsert, json.RawMessage(body), queue.WithID(fmt.Sprint("c", i+1)))
			}
			cfg := r.config()
			cfg.SyncGather, cfg.MaxAttempts = 250*time.Millisecond, 4
			if tt.rules[0].Fault == simulator.FaultHang {
				cfg.Timeout = time.Second
			}
			if tt.attempts > 0 {
				cfg.MaxAttempts = tt.attempts
			}
			r.start(cfg)
			for i, want := range tt.states {
				if got := r.statesOf(fmt.Sprint("c", i+1)); got != want {
					t.Errorf("c%d: got %s, want %s", i+1, got, want)
				}
			}
			r.emptied()
			r.once()
			if got := len(r.writes()); tt.requests > 0 && got != tt.requests {
				t.Errorf("%d requests, want %d", got, tt.requests)
			}
			for id, want := range tt.contacts {
				if got := r.contactNames()[id]; got != want {
					t.Errorf("contact %s is named %q, want %q", id, got, want)
				}
			}
			if got := len(r.contactNames()); got != len(tt.contacts) {
				t.Errorf("%d contacts, want %d", got, len(tt.contacts))
			}
		})
	}
}

// TestSyncAtEveryWrite: a worker that loses NATS at any write of a command that
// shares its request, for a moment or for good, leaves the vendor with the newest
// values, and one final event of each command. What is repeated, is so in order.
func TestSyncAtEveryWrite(t *testing.T) {
	t.Parallel()
	points := []struct {
		name string
		at   point
	}{
		{"before the claim", record("claim", false)},
		{"claim stored, its answer lost", record("claim", true)},
		{"end not stored", record("final", false)},
		{"end stored, its answer lost", record("final", true)},
		{"event not stored", event("done", false)},
		{"event stored, its answer lost", event("done", true)},
	}
	for _, p := range points {
		for _, target := range []string{"older", "newer"} {
			for _, forGood := range []bool{true, false} {
				if target == "older" && !forGood {
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, for good %t", p.name, target, forGood), func(t *testing.T) {
					t.Parallel()
					r := newRig(t)
					id := func(name string) queue.PublishOption {
						if name == target {
							name = "target"
						}
						return queue.WithID(name)
					}
					r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": "old"}, id("older"))
					r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": "new"}, id("newer"))
					r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 2, "name": "beside"}, id("beside"))
					cfg := r.config()
					cfg.SyncGather = 50 * time.Millisecond
					w := r.startMortal(cfg, &p.at, forGood, func() {})
					w.waitLost()
					if forGood {
						w.die()
						r.expireLease()
						cfg.Worker = "worker-2"
						r.start(cfg)
					}
					for _, e := range r.finals(3) {
						if e.State != schema.StateDone {
							t.Errorf("%s ended %s", e.ID, e.State)
						}
					}
					r.emptied()
					r.once()
					if names := r.contactNames(); names["1"] != "new" || names["2"] != "beside" {
						t.Errorf("contacts: %v", names)
					}
				})
			}
		}
	}
}

// TestSyncAfterACrash: what a former owner had claimed is done again, in order.
func TestSyncAfterACrash(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i, name := range []string{"a", "b", "c"} {
		r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": name}, queue.WithID(fmt.Sprint("c", i+1)))
	}
	r.asFormerOwner(func(l *queue.Ledger) {
		r.claimed(l, schema.KindContactsUpsert, "c1", 1)
		r.claimed(l, schema.KindContactsUpsert, "c2", 2)
	})
	r.start(r.config())
	for id, want := range map[string]string{"c1": "retrying done", "c2": "retrying done", "c3": "done"} {
		if got := r.statesOf(id); got != want {
			t.Errorf("%s: got %s, want %s: a call that may be repeated is in no doubt", id, got, want)
		}
	}
	r.emptied()
	r.once()
	if got := r.contactNames()["1"]; got != "c" {
		t.Errorf("the contact is named %q, want the newest", got)
	}
}

// TestSyncHoldsFew: a lane whose requests do not end holds a bounded number of
// commands, whatever waits behind them.
func TestSyncHoldsFew(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		size  int // of a command
		n     int
		least int // held
		most  int
	}{
		{"small ones", 10, 3000, 400, 700 + 1},
		{"large ones", 100_000, 400, 16, 250},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRigOf(t, simulator.Config{MaxBody: 1 << 30})
			reader := sdkmetric.NewManualReader()
			r.meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
			r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/contacts"}, Fault: simulator.FaultHang})
			note := strings.Repeat("x", tt.size)
			for i := range tt.n {
				body := fmt.Appendf(nil, `{"id":%d,"note":%q}`, i, note)
				if err := r.nc.Publish(schema.SyncSubject("main", schema.EntityContacts, schema.VerbUpsert), body); err != nil {
					t.Fatal(err)
				}
			}
			r.inStream(uint64(tt.n)) //nolint:gosec // a few thousand
			cfg := r.config()
			cfg.Timeout = time.Hour
			r.start(cfg)
			if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return len(r.writes()) >= 4 }); err != nil {
				t.Fatal(err)
			}
			most := 0.0
			for range 20 {
				got := until(t, reader, "commands in hand", func(s series) bool { return s["wazzup.commands.held hand"] >= float64(tt.least) })
				most = max(most, got["wazzup.commands.held hand"])
			}
			if most > float64(tt.most) {
				t.Errorf("%v commands are held, want at most %d", most, tt.most)
			}
			if n := len(r.writes()); n > 4 {
				t.Errorf("%d requests are under way, want at most 4", n)
			}
			r.sim.Close() // nobody waits for the time-out
		})
	}
}

// TestSyncTimeline: a command tells what it waits for, and its claim and end stand
// in its own records though its request was shared.
func TestSyncTimeline(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.SyncGather = 4 * time.Second
	r.start(cfg)
	r.channelsRead()
	r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": "a"}, queue.WithID("c1"))
	r.sync(schema.EntityContacts, schema.VerbDelete, []int{1}, queue.WithID("c2"))
	if w := r.waiting("c2", "order"); w.Position != 2 {
		t.Errorf("c2 is number %d, want 2", w.Position)
	}
	r.waiting("c1", "gather")
	if got := r.statesOf("c2"); got != "done" {
		t.Errorf("c2: got %s, want done", got)
	}
	for id, gate := range map[string]string{"c1": "gather", "c2": "order"} {
		steps := r.whole(id).Steps
		var words []string
		for _, s := range steps {
			words = append(words, s.Step)
		}
		if got := strings.Join(words, " "); got != "stored claim final" {
			t.Errorf("%s: got %s, want stored claim final", id, got)
			continue
		}
		if !slices.ContainsFunc(steps[1].Waits, func(w queue.Wait) bool { return w.Gate == gate && w.Millis > 0 }) {
			t.Errorf("%s: waits %+v, want %s among them", id, steps[1].Waits, gate)
		}
		if steps[2].HTTPStatus != 200 {
			t.Errorf("%s: the answer's status is %d, want 200", id, steps[2].HTTPStatus)
		}
	}
}

// TestSyncCancelled: a command that waits for company can be cancelled, and those
// behind it go on.
func TestSyncCancelled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.SyncGather = 3 * time.Second
	r.start(cfg)
	r.channelsRead()
	r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": "a"}, queue.WithID("c1"))
	r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": "b"}, queue.WithID("c2"))
	r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": "c"}, queue.WithID("c3"))
	if a := r.cancel("c2"); a.Code != "" {
		t.Fatalf("cancel: %+v", a)
	}
	for id, want := range map[string]string{"c1": "done", "c2": "cancelled", "c3": "done"} {
		if got := r.statesOf(id); got != want {
			t.Errorf("%s: got %s, want %s", id, got, want)
		}
	}
	r.emptied()
	r.once()
	if got := r.contactNames()["1"]; got != "c" {
		t.Errorf("the contact is named %q, want c", got)
	}
}

// TestSyncCancelsRaceTheirClaims: whichever comes first wins, also of commands that
// share a request: what was cancelled is in none, and all others are, in order.
func TestSyncCancelsRaceTheirClaims(t *testing.T) {
	t.Parallel()
	const commands, contacts = 300, 5
	r := newRig(t)
	cfg := r.config()
	cfg.SyncGather = 5 * time.Millisecond
	r.start(cfg)
	r.channelsRead()
	cancelled, want := make(map[string]bool), make(map[string]string)
	for i := range commands {
		id, contact, name := fmt.Sprint("c", i), strconv.Itoa(i%contacts), fmt.Sprintf("name %04d", i)
		r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": contact, "name": name}, queue.WithID(id))
		if i%3 > 0 {
			switch got := r.cancel(id); got.Code {
			case "":
				cancelled[id] = true
				continue
			case "409":
			default:
				t.Fatalf("%s: got %s %+v", id, got.Code, got)
			}
		}
		want[contact] = name
	}
	for _, e := range r.finals(commands) {
		if (e.State == schema.StateCancelled) != cancelled[e.ID] || !cancelled[e.ID] && e.State != schema.StateDone {
			t.Errorf("%s ended %s; cancelled: %v", e.ID, e.State, cancelled[e.ID])
		}
		if cancelled[e.SupersededBy] {
			t.Errorf("%s gave way to %s, which was cancelled", e.ID, e.SupersededBy)
		}
	}
	for _, q := range r.writes() {
		for id := range cancelled {
			n, err := strconv.Atoi(id[1:])
			if err != nil || bytes.Contains(q.Body, fmt.Appendf(nil, "name %04d", n)) {
				t.Errorf("%s was cancelled and is in a request (%v)", id, err)
			}
		}
	}
	if got := r.contactNames(); !maps.Equal(got, want) {
		t.Errorf("the vendor has %v, want %v", got, want)
	}
	t.Logf("%d of %d cancelled, in %d requests", len(cancelled), commands, len(r.writes()))
	r.emptied()
	r.once()
}

// TestSyncReports: a request has one line in the log and counts once, however many
// commands share it; each command has its event.
func TestSyncReports(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var log bytes.Buffer
	r.log = zerolog.New(zerolog.SyncWriter(&log))
	spans := tracetest.NewSpanRecorder()
	r.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	reader := sdkmetric.NewManualReader()
	r.meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/contacts"}, Code: "VALIDATION_ERROR", Times: 1})
	for i := range 4 {
		m := &nats.Msg{Subject: schema.SyncSubject("main", schema.EntityContacts, schema.VerbUpsert), Header: make(nats.Header)}
		m.Header.Set(schema.HeaderTraceparent, fmt.Sprintf("00-%032x-00000000000000aa-01", i+1))
		m.Data = fmt.Appendf(nil, `{"id":%d,"name":"Anna"}`, i)
		if _, err := r.js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	cfg := r.config()
	cfg.SyncGather = 250 * time.Millisecond
	stop := r.start(cfg)
	r.finals(4)
	stop()
	var got []string
	for raw := range bytes.Lines(log.Bytes()) {
		var line struct {
			Message, Outcome, Code string
			Commands, Items        int
		}
		if err := json.Unmarshal(raw, &line); err != nil {
			t.Fatal(err)
		}
		if line.Message == "call" {
			got = append(got, fmt.Sprint(line.Commands, line.Items, " ", line.Outcome, " ", line.Code))
		}
	}
	want := []string{"4 4 split VALIDATION_ERROR", "2 2 done ", "2 2 done "}
	if !slices.Equal(got, want) {
		t.Errorf("the log says %q, want %q", got, want)
	}
	if strings.Contains(log.String(), "Anna") {
		t.Error("the log holds a name")
	}
	var links []int
	for _, s := range spans.Ended() {
		links = append(links, len(s.Links()))
	}
	if want := []int{4, 2, 2}; !slices.Equal(links, want) {
		t.Errorf("spans with links to %v producers, want %v", links, want)
	}
	if got := counted(t, reader, "wazzup.calls", "sync"); got != 3 {
		t.Errorf("%d calls are counted, want 3", got)
	}
	if got := counted(t, reader, "wazzup.command.events", "done"); got != 4 {
		t.Errorf("%d commands are counted, want 4", got)
	}
}

// TestSyncEndsFollow: the end of a command that took another's place is not written
// before that one's is known to be durable. If it were, a worker that dies in
// between would leave the older value to be sent after the newer.
func TestSyncEndsFollow(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": "old"}, queue.WithID("older"))
	r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": "new"}, queue.WithID("newer"))
	frozen := new(stalled)
	reached, early := make(chan struct{}), make(chan struct{}, 10)
	var once sync.Once
	end := func(id string, frame []byte) bool {
		return bytes.HasPrefix(frame, []byte("HPUB wz.main.f.")) && bytes.Contains(frame, []byte(`{"t":"final","id":"`+id+`"`))
	}
	cfg := r.config()
	cfg.SyncGather = 250 * time.Millisecond
	r.startOn(queuetest.Conn(t, newCutter(t, r.srv.URL(), func(toClient bool, frame []byte) bool {
		switch {
		case toClient:
			return frozen.pass(toClient, frame)
		case end("older", frame):
			once.Do(func() {
				frozen.freeze() // it is stored, and its PubAck does not come
				close(reached)
			})
		case end("newer", frame):
			early <- struct{}{}
		}
		return false
	})), cfg)
	<-reached
	select {
	case <-early:
		t.Error("the newer one's end is written before the older one's is durable")
	case <-time.After(100 * time.Millisecond): // what must not come cannot be waited for
	}
	frozen.thaw()
	if e := r.event("older", schema.StateDone); e.SupersededBy != "newer" {
		t.Errorf("older: superseded by %q, want newer", e.SupersededBy)
	}
	r.event("newer", schema.StateDone)
	r.emptied()
}

// counted is the sum of a counter's series that have a label of this value.
func counted(t *testing.T, reader sdkmetric.Reader, name, label string) (n int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if !ok || m.Name != name {
				continue
			}
			for _, p := range sum.DataPoints {
				for _, l := range p.Attributes.ToSlice() {
					if l.Value.String() == label {
						n += p.Value
					}
				}
			}
		}
	}
	return n
}

// TestSyncDuplicates: an id that two commands share is that of the first, in one
// request too.
func TestSyncDuplicates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, body := range []string{
		`{"id":"same","items":[{"id":1,"name":"a"}]}`, `{"id":"same","items":[{"id":1,"name":"a"}]}`,
		`{"id":"same","items":[{"id":1,"name":"b"}]}`, `{"id":"other","items":[{"id":1,"name":"c"}]}`,
	} {
		r.sync(schema.EntityContacts, schema.VerbUpsert, json.RawMessage(body))
	}
	cfg := r.config()
	cfg.SyncGather = 100 * time.Millisecond
	r.start(cfg)
	for i, want := range []string{"done", "duplicate", "invalid ID_REUSED", "done"} {
		e := r.bySeq(uint64(i) + 1)
		if got := ending(&e); got != want {
			t.Errorf("command %d: got %s, want %s", i+1, got, want)
		}
	}
	r.emptied()
	r.once()
	if got := r.contactNames()["1"]; got != "c" {
		t.Errorf("the contact is named %q, want c", got)
	}
}

// TestSyncRedriven: a dead command that is redriven goes behind what came meanwhile.
func TestSyncRedriven(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/contacts"}, Status: 500, Times: 1})
	cfg := r.config()
	cfg.MaxAttempts = 1
	r.start(cfg)
	r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": "a"}, queue.WithID("c1"))
	r.event("c1", schema.StateDead)
	r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": "b"}, queue.WithID("c2"))
	r.event("c2", schema.StateDone)
	r.redrive(`{"ids":["c1"]}`, sender.RedriveAnswer{Redriven: 1, Unsent: 1})
	r.happened("c1", schema.StateDone, 1)
	if got := r.contactNames()["1"]; got != "a" {
		t.Errorf("the contact is named %q, want a", got)
	}
}

// TestSyncManyRequests: requests of one command are under way together, within the
// calls that a lane may have.
func TestSyncManyRequests(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		verb     schema.Verb
		body     string
		requests int
	}{
		{"a large upsert", schema.VerbUpsert, numberedIDs(1, 800), 8},
		{"a large delete", schema.VerbDelete, "[1,2,3,4,5,6,7,8]", 8},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.Timeout = patience
			address, release := r.holdAnswers("/v2/contacts", 0)
			cfg.APIURL = address
			r.start(cfg)
			r.channelsRead()
			r.sync(schema.EntityContacts, tt.verb, json.RawMessage(tt.body), queue.WithID("c1"))
			r.reached("requests that are under way together", func(*simulator.View) bool { return len(r.writes()) >= 2 })
			r.event(r.send("beside", phone, "x"), schema.StateSent) // by then others would have begun
			if n := len(r.writes()) - 1; n > 4 {
				t.Errorf("%d requests are under way together, want 2 to 4", n)
			}
			release()
			if got := r.statesOf("c1"); got != "done" {
				t.Errorf("got %s, want done", got)
			}
			if n := len(r.writes()) - 1; n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
		})
	}
}

// TestSyncPoison: an entity that makes the vendor fail, rather than refuse, takes no
// other command with it.
func TestSyncPoison(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/contacts", BodyContains: "poison"}, Status: 500})
	for i, name := range []string{"a", "poison", "c"} {
		r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": i + 1, "name": name}, queue.WithID(fmt.Sprint("c", i+1)))
	}
	cfg := r.config()
	cfg.SyncGather, cfg.MaxAttempts = 250*time.Millisecond, 3
	r.start(cfg)
	for id, want := range map[string]string{"c1": "retrying retrying done", "c2": "retrying retrying dead", "c3": "retrying retrying done"} {
		if got := r.statesOf(id); got != want {
			t.Errorf("%s: got %s, want %s", id, got, want)
		}
	}
	r.emptied()
	r.once()
}

// TestSyncBesideALargeOne: a command of many requests does not hold up the others.
func TestSyncBesideALargeOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/contacts*"}, Delay: simulator.Duration(300 * time.Millisecond)})
	ids := make([]int, 200)
	for i := range ids {
		ids[i] = i
	}
	r.start(r.config())
	r.sync(schema.EntityContacts, schema.VerbDelete, ids, queue.WithID("large"))
	if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return len(r.writes()) >= 4 }); err != nil {
		t.Fatal(err)
	}
	r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": "x", "name": "a"}, queue.WithID("small"))
	r.event("small", schema.StateDone)
	if n := len(r.writes()); n > 150 {
		t.Errorf("it came after %d requests of the large one", n)
	}
	r.sim.ClearRules() // the rest need not take as long
	if got := r.statesOf("large"); got != "done" {
		t.Errorf("large: got %s, want done", got)
	}
}

// TestSyncBreaker: when changes keep failing, their breaker opens: nothing of any
// entity is called until it lets one try, no attempt is spent meanwhile, and sends
// and requests go on.
func TestSyncBreaker(t *testing.T) {
	t.Parallel()
	const faults = 5 // in a row
	r := newRig(t)
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/contacts", Method: "PATCH"}, Status: 503})
	cfg := sender.OpenFor(r.config(), time.Hour) // until the next owner
	cfg.MaxAttempts = 50
	stop := r.start(cfg)
	r.channelsRead()
	r.sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": 1, "name": "a"}, queue.WithID("c1"))
	if e := r.ops(schema.OpsBreakerOpened); e.Reason != string(sender.FamilySync) || e.ChannelID != "" || !strings.HasPrefix(e.OpensOn, "a probe at ") {
		t.Errorf("breaker.opened: got %+v", e)
	}
	r.sync(schema.EntityDeals, schema.VerbDelete, []int{1}, queue.WithID("c2"))
	r.waiting("c2", "breaker")
	r.event(r.send("a", phone, "x"), schema.StateSent)
	r.page("contacts.list", "")
	if n := len(r.writes()); n != faults+1 { // and the send
		t.Errorf("%d writes, want %d", n, faults+1)
	}
	r.sim.ClearRules()
	stop()
	r.start(sender.OpenFor(cfg, time.Second))
	if e := r.ops(schema.OpsBreakerClosed); e.Reason != string(sender.FamilySync) {
		t.Errorf("breaker.closed: got %+v", e)
	}
	if got, want := r.statesOf("c1"), strings.Repeat("retrying ", faults)+"done"; got != want {
		t.Errorf("c1: got %s, want %s", got, want)
	}
	if got := r.statesOf("c2"); got != "done" {
		t.Errorf("c2: got %s, want done", got)
	}
	r.once()
}

// TestSyncTakesItsShare: the requests of sync commands, those of one command too,
// stay within their share of the account's rate; what is left of it is for sends.
func TestSyncTakesItsShare(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.Rate = rate.Rate{N: 10, Per: time.Hour}
	r.start(cfg)
	r.channelsRead() // one of the eight
	ids := make([]int, 20)
	for i := range ids {
		ids[i] = i
	}
	r.sync(schema.EntityContacts, schema.VerbDelete, ids, queue.WithID("many"))
	if err := r.sim.Wait(t.Context(), func(*simulator.View) bool { return len(r.writes()) >= 7 }); err != nil {
		t.Fatal(err)
	}
	r.event(r.send("a", phone, "x"), schema.StateSent)
	if n := len(r.writes()); n != 7+1 {
		t.Errorf("%d writes, want 8", n)
	}
}
