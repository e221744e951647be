package sender_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// laneOnce asks for the list until the test's channel, its transactional class, is as it
// should be.
func (r *rig) laneOnce(what string, is func(sender.LaneItem) bool) sender.LaneItem {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		lane := r.lanes()["send"]
		if is(lane) {
			return lane
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("waited in vain for %s: %+v", what, lane)
		}
	}
}

// An open lane of which nothing moves says where its next command waits, also at a
// gate of the whole account, and what for.
func TestLanesTellWhatTheyWaitFor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		change    func(*sender.Config)
		rule      simulator.Rule
		gate, why string
		until     bool // it says so
	}{
		{"429", nil, simulator.Rule{Status: 429, Headers: map[string]string{"Retry-After": "600"}}, "window", "429", true},
		{"calls in flight", func(c *sender.Config) { c.Concurrency = 1 }, simulator.Rule{Fault: simulator.FaultHang}, "slots", "1 calls in flight", false},
		{"evidence", func(c *sender.Config) { c.ReconcileWait = time.Hour }, simulator.Rule{Status: 500}, "evidence", "whether the call was carried out is not known", false},
		{"retry", func(c *sender.Config) { c.Backoff = sender.Backoff{Min: time.Hour, Max: time.Hour} }, simulator.Rule{Status: 400, Code: "MESSAGES_CAN_NOT_ADD"}, "retry", "backoff", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.ChannelsPoll = time.Hour
			cfg.Timeout = time.Hour
			if tt.change != nil {
				tt.change(&cfg)
			}
			_, kill := r.worker(cfg)
			r.states(r.send("warm", phone, "up"))
			r.channelsRead()
			tt.rule.Match.Path = "/v2/send_message"
			r.rule(tt.rule)
			r.send("first", phone, "x")
			r.send("second", phone, "x") // of the same chat
			if tt.gate == "slots" || tt.gate == "window" {
				r.send("third", "79000000001", "x")
			}
			lane := r.laneOnce("the gate "+tt.gate, func(lane sender.LaneItem) bool { return lane.Gate == tt.gate })
			if lane.State != "open" || lane.Why != tt.why || (lane.OpensOn != "") != tt.until || lane.Reason != "" {
				t.Errorf("got %+v, want it to wait at %s (%s)", lane, tt.gate, tt.why)
			}
			r.sim.ClearRules()
			r.sim.Close() // what hangs ends
			kill()
		})
	}
}

// A lane whose breaker is open says whose it is, since when, and when the next probe
// comes.
func TestLanesTellOfABreaker(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.MaxAttempts = 100
	r.start(cfg)
	r.states(r.send("warm", phone, "up"))
	r.channelsRead()
	r.unreachable()
	r.send("a", phone, "x")
	lane := r.laneOnce("an open breaker", func(lane sender.LaneItem) bool { return lane.Reason == "breaker" })
	if lane.State != "closed" || lane.Why != "family send" || lane.Since == nil || !strings.HasPrefix(lane.OpensOn, "a probe at ") {
		t.Errorf("got %+v", lane)
	}
}

// A code that no table knows is told once, not with every message that meets it.
func TestUnknownCodeIsToldOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Status: 400, Code: "BRAND_NEW"})
	for i := range 5 {
		r.event(r.send(fmt.Sprint("m-", i), fmt.Sprintf("7900000%04d", i), "x"), schema.StateRejected)
	}
	if e := r.ops(schema.OpsVendorUnknownCode); e.Reason != "BRAND_NEW" || e.ChannelID != simulator.ChannelWhatsApp {
		t.Errorf("event: got %+v", e)
	}
	r.sim.ClearRules()
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Status: 400, Code: "ANOTHER"})
	r.event(r.send("another", phone, "x"), schema.StateRejected)
	// Events are published in order: what comes after the others is behind them.
	if n := r.opsCountOnce(schema.OpsVendorUnknownCode, 2); n != 2 {
		t.Errorf("told %d times of two codes", n)
	}
}

// opsCountOnce counts operator events as soon as there are that many.
func (r *rig) opsCountOnce(name schema.OpsName, least int) int {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		n := r.opsCount(name)
		if n >= least {
			return n
		}
		select {
		case <-tick.C:
		case <-timeout:
			return n
		}
	}
}

// logged is a log that many goroutines write to.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// lines are those with a message.
func (l *logged) lines(t *testing.T, message string) (found []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.text.Bytes()) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatal(err)
		}
		if fields["message"] == message {
			found = append(found, fields)
		}
	}
	return found
}

// The log says why a call got no answer, and so does a refused request.
func TestFailedCallSaysWhy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	log := &logged{}
	r.log = zerolog.New(log)
	r.start(r.config())
	r.states(r.send("warm", phone, "up"))
	r.channelsRead()
	r.unreachable()
	r.send("a", phone, "x")
	r.event("a", schema.StateRetrying)
	calls := log.lines(t, "call")
	last := calls[len(calls)-1]
	if text := fmt.Sprint(last["error"]); !strings.Contains(text, "refused") || last["code"] != "CONNECTION" {
		t.Errorf("log line: got %v", last)
	}
	if _, there := calls[0]["error"]; there {
		t.Errorf("a call that was answered has an error: %v", calls[0])
	}
	got := r.ask("users.list", `{}`)
	if !strings.HasPrefix(got.Error.Description, "no connection: ") || !strings.Contains(got.Error.Description, "refused") {
		t.Errorf("users.list: got %+v", got.Error)
	}
}

// A worker that can neither own nor stand by says why.
func TestReadySaysWhy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	// A limit that the streams of the account cannot be made with.
	cfg := r.config()
	cfg.Account = "second"
	cfg.Limits.CommandBytes = 1 << 60
	w, _ := r.worker(cfg)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		err := w.Ready()
		if err != nil && strings.Contains(err.Error(), queue.Names{Account: "second"}.Commands()) {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("ready: %v", err)
		}
	}
}

// Without room for records nothing is called: the lanes say so, the log once, and a
// pause says that it could not be stored.
func TestFullRecordsAreTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	log := &logged{}
	r.log = zerolog.New(log)
	stop := r.start(r.config())
	r.states(r.send("warm", phone, "up"))
	stop()
	cfg := r.config()
	cfg.Limits.RecordBytes = 1 << 10 // less than there is
	cfg.Timeout = 300 * time.Millisecond
	r.start(cfg)
	r.send("claims", phone, "x") // and cannot
	r.laneOnce("a claim", func(lane sender.LaneItem) bool {
		return lane.InFlight == 1 && len(log.lines(t, "records_stream_is_full")) > 0
	})
	r.send("waits", "79000000001", "x")
	lane := r.laneOnce("the gate storage", func(lane sender.LaneItem) bool { return lane.Gate == "storage" })
	if lane.Why != "the records stream is full" || lane.Backlog != 2 {
		t.Errorf("got %+v", lane)
	}
	got := r.ask("lane.pause", fmt.Sprintf(`{"channelId":%q}`, simulator.ChannelWhatsApp))
	if got.Code != "504" || !strings.Contains(got.Error.Description, "could not be stored in time: the records stream is full") {
		t.Errorf("lane.pause: got %s %+v", got.Code, got.Error)
	}
	if lane := r.lanes()["send"]; lane.State != "paused" {
		t.Errorf("it has not taken effect: %+v", lane)
	}
	if told := log.lines(t, "records_stream_is_full"); len(told) != 1 {
		t.Errorf("told %d times: %v", len(told), told)
	}
}
