package sender_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// Somebody else's address, with a secret where nobody would look for one.
const (
	foreignSecret = "their-secret"
	foreign       = "https://other.example/" + foreignSecret + "/hook?token=" + foreignSecret
)

// hooked is the account's address, where something answers 200, and what the vendor
// is asked about it.
type hooked struct {
	*rig
	url string
}

func newHooked(t *testing.T) *hooked {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(web.Close)
	return &hooked{newRig(t), web.URL + "/webhooks/main/a-secret"}
}

// guarded is an answer to webhooks.get and webhooks.set.
type guarded struct {
	URL     *string `json:"webhooksUrl"`
	Changed bool    `json:"webhooksUrlChanged"`
	Guard   struct {
		State   string `json:"state"`
		OpensOn string `json:"opensOn"`
	} `json:"guard"`
	SilentSince string       `json:"silentSince"`
	Error       schema.Error `json:"error"`
}

func (h *hooked) hook(name, body string) (got guarded) {
	h.t.Helper()
	if err := json.Unmarshal(h.ask(name, body).Body, &got); err != nil {
		h.t.Fatal(err)
	}
	return got
}

// as asks what an ingest asks, and wants this to become of it.
func (h *hooked) as(mode, want string) guarded {
	h.t.Helper()
	return h.of(h.url, mode, want)
}

func (h *hooked) of(url, mode, want string) guarded {
	h.t.Helper()
	got := h.hook("webhooks.set", fmt.Sprintf(`{"url":%q,"guard":%q}`, url, mode))
	if got.Guard.State != want {
		h.t.Errorf("%s: got %+v, want %q", mode, got, want)
	}
	return got
}

// taken has somebody else take the address over.
func (h *hooked) taken() {
	h.t.Helper()
	if err := h.sim.SetWebhookURL(foreign); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hooked) registered(want string) {
	h.t.Helper()
	if got := h.sim.WebhookURL(); got != want {
		h.t.Errorf("registered is another address than is wanted") // addresses hold secrets
	}
}

// puts counts the requests that set the address.
func (h *hooked) puts() (n int) {
	for _, q := range h.sim.Requests() {
		if q.Path == "/v2/webhooks" && q.Method == http.MethodPut {
			n++
		}
	}
	return n
}

// drifts are the stored events of drifts, oldest first.
func (h *hooked) drifts() (all []schema.OpsEvent) {
	h.t.Helper()
	s, err := h.js.Stream(h.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		h.t.Fatal(err)
	}
	for seq := uint64(1); ; {
		m, err := s.GetMsg(h.t.Context(), seq, jetstream.WithGetMsgSubject(schema.OpsEventSubject("main", schema.OpsWebhookDrift)))
		if err != nil {
			return all
		}
		var e schema.OpsEvent
		if err := json.Unmarshal(m.Data, &e); err != nil {
			h.t.Fatal(err)
		}
		if strings.Contains(string(m.Data), "secret") {
			h.t.Errorf("the event holds a secret: %s", m.Data)
		}
		all = append(all, e)
		seq = m.Sequence + 1
	}
}

func (h *hooked) drifted(want ...string) []schema.OpsEvent {
	h.t.Helper()
	all := h.drifts()
	var reasons []string
	for _, e := range all {
		reasons = append(reasons, e.Reason)
	}
	if fmt.Sprint(reasons) != fmt.Sprint(want) {
		h.t.Errorf("webhook.drift: got %q, want %q", reasons, want)
	}
	return all
}

// A drift is told once and repaired, three times an hour; the fourth is told and
// left alone until the hour has moved. The count outlives the worker.
func TestWebhookGuard(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	cfg := h.config()
	stop := h.start(cfg)
	h.as("register", "registered")
	h.as("keep", "kept")
	h.as("register", "kept") // an ingest that starts anew finds it as it is
	if got := h.hook("webhooks.get", ""); got.URL == nil || strings.Contains(*got.URL, "a-secret") || got.Guard.State != "kept" {
		t.Errorf("webhooks.get: got %+v", got)
	}
	h.drifted()

	began := time.Now()
	h.taken()
	h.as("keep", "repaired")
	h.as("keep", "kept")
	all := h.drifted("repairing")
	var detail struct {
		Registered, Wanted string
		Repairs            int
	}
	if err := json.Unmarshal(all[0].Detail, &detail); err != nil || !strings.HasPrefix(detail.Registered, "https://other.example/***") ||
		!strings.HasPrefix(detail.Wanted, "http://127.0.0.1:") || detail.Repairs != 1 {
		t.Errorf("detail: %v %s", err, all[0].Detail)
	}
	h.taken()
	h.as("register", "repaired") // a start is no way around the limit
	stop()
	stop = h.start(cfg)
	h.taken()
	h.as("keep", "repaired")
	stop()
	stop = h.start(cfg)
	h.registered(h.url)
	h.taken()
	puts := h.puts()
	got := h.as("keep", "stopped")
	h.as("keep", "stopped")
	h.as("register", "stopped")
	h.registered(foreign)
	if h.puts() != puts {
		t.Errorf("%d requests beyond the limit", h.puts()-puts)
	}
	all = h.drifted("repairing", "repairing", "repairing", "repair_limit")
	if last := all[3]; last.OpensOn == "" || last.OpensOn != got.Guard.OpensOn {
		t.Errorf("opens on %q, and the answer says %q", last.OpensOn, got.Guard.OpensOn)
	}
	if got := h.hook("webhooks.get", ""); got.Guard.State != "stopped" || got.Guard.OpensOn == "" {
		t.Errorf("webhooks.get: got %+v", got)
	}

	opens, err := time.Parse(time.RFC3339Nano, got.Guard.OpensOn)
	if first := opens.Add(-time.Hour); err != nil || first.Before(began.Add(-time.Millisecond)) || first.After(time.Now()) {
		t.Fatalf("opens on %v (%v), want an hour after the first repair", opens, err)
	}
	stop()
	h.start(sender.GuardPer(cfg, time.Millisecond)) // the hour has moved
	h.as("keep", "repaired")
	h.registered(h.url)
	h.drifted("repairing", "repairing", "repairing", "repair_limit")
}

// Many ingests that find the same drift at the same time repair and tell it once.
func TestGuardOfManyIngests(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	h.start(h.config())
	h.as("register", "registered")
	h.taken()
	puts := h.puts()
	states := make([]string, 8)
	var wg sync.WaitGroup
	for i := range states {
		wg.Go(func() {
			states[i] = h.hook("webhooks.set", fmt.Sprintf(`{"url":%q,"guard":"keep"}`, h.url)).Guard.State
		})
	}
	wg.Wait()
	if n := strings.Count(strings.Join(states, " "), "repaired"); n != 1 || strings.Count(strings.Join(states, " "), "kept") != len(states)-1 {
		t.Errorf("got %q, want one to repair", states)
	}
	if n := h.puts() - puts; n != 1 {
		t.Errorf("%d repairs, want 1", n)
	}
	h.drifted("repairing")
}

// What is set by hand stays until an ingest starts; over a change of the owner too.
func TestSetByHandSuspendsGuard(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	stop := h.start(h.config())
	h.as("register", "registered")
	other := strings.Replace(h.url, "a-secret", "by-hand", 1)
	if got := h.hook("webhooks.set", `{"url":"http://127.0.0.1:1/webhooks/main/x"}`); got.Error.Code == "" {
		t.Errorf("an address that does not answer: got %+v", got)
	}
	h.as("keep", "kept") // it was refused: nothing is suspended
	if got := h.hook("webhooks.set", fmt.Sprintf(`{"url":%q}`, other)); !got.Changed || got.Guard.State != "" {
		t.Errorf("by hand: got %+v", got)
	}
	h.as("keep", "suspended")
	stop()
	h.start(h.config())
	h.as("keep", "suspended")
	h.registered(other)
	if got := h.hook("webhooks.get", ""); got.Guard.State != "suspended" {
		t.Errorf("webhooks.get: got %+v", got)
	}
	h.as("register", "registered")
	h.as("keep", "kept")
	h.registered(h.url)
	if got := h.hook("webhooks.set", `{"url":null}`); got.Error.Code != "" {
		t.Fatalf("switch off: %+v", got)
	}
	h.as("keep", "suspended")
	h.registered("")
	h.drifted()
}

// While a secret is rotated, the ingest that still has the former one does not fight
// with the one that has the new.
func TestFormerAddressIsNotKept(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	h.start(h.config())
	h.as("register", "registered")
	next := strings.Replace(h.url, "a-secret", "the-next-secret", 1)
	h.of(next, "register", "registered")
	h.as("keep", "superseded")
	h.registered(next)
	h.of(next, "keep", "kept")
	h.drifted()
}

// A refusal changes nothing and is no repair: an ingest that cannot be reached for a
// while is registered as soon as it can.
func TestRefusedRepairDoesNotCount(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	h.start(h.config())
	h.as("register", "registered")
	h.taken()
	h.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/webhooks", Method: http.MethodPut}, Status: 400, Code: "URI_NOT_REACHABLE", Times: 5})
	for range 5 {
		if got := h.hook("webhooks.set", fmt.Sprintf(`{"url":%q,"guard":"keep"}`, h.url)); got.Error.Code == "" {
			t.Fatalf("got %+v, want the refusal", got)
		}
		if got := h.hook("webhooks.get", ""); got.Guard.State != "drifted" {
			t.Errorf("webhooks.get: got %+v", got)
		}
	}
	h.as("keep", "repaired")
	h.registered(h.url)
	h.drifted("repairing")
}

// The owner dies between any two writes of a repair: the next one goes on, and the
// drift is told once.
func TestOwnerDiesAmidRepair(t *testing.T) {
	t.Parallel()
	const state, event = ".s.webhook ", ".evt.ops.webhook.drift "
	for _, tt := range []struct {
		name    string
		subject string
		nth     int32 // such a write
		stored  bool  // it reached the server, and its PubAck did not come back
		back    bool  // meanwhile somebody registers our address again
	}{
		{"before the repair is counted", state, 2, false, false},
		{"the repair is counted", state, 2, true, false},
		{"the repair is counted, and the address is back before it is looked again", state, 2, true, true},
		{"before the event", event, 1, false, false},
		{"the event is stored", event, 1, true, true},
		{"before it is noted that it is", state, 3, false, false},
		{"before the repair is called", state, 3, true, false},
		{"before the end of the drift is noted", state, 4, false, false},
		{"the end of the drift is noted", state, 4, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHooked(t)
			var dead, passed atomic.Bool
			var writes atomic.Int32
			lost := make(chan struct{})
			die := sync.OnceFunc(func() { dead.Store(true); close(lost) })
			c := newCutter(t, h.srv.URL(), func(toClient bool, frame []byte) bool {
				if dead.Load() {
					return true
				}
				if !toClient && bytes.Contains(frame, []byte(tt.subject)) && writes.Add(1) == tt.nth {
					if passed.Store(true); !tt.stored {
						die()
					}
				} else if toClient && passed.Load() && bytes.Contains(frame, []byte("MSG ")) {
					die()
				}
				return dead.Load()
			})
			nc := queuetest.Conn(t, c)
			stop := h.startOn(nc, h.config())
			h.as("register", "registered")
			h.taken()
			if err := h.nc.PublishRequest(schema.APISubject("main", "webhooks.set"), h.nc.NewInbox(), fmt.Appendf(nil, `{"url":%q,"guard":"keep"}`, h.url)); err != nil {
				t.Fatal(err)
			}
			select {
			case <-lost:
			case <-time.After(patience):
				t.Fatal("the worker never came to the point")
			}
			nc.Close()
			stop()
			h.expireLease()
			if tt.back {
				if err := h.sim.SetWebhookURL(h.url); err != nil {
					t.Fatal(err)
				}
			}
			h.start(h.config())
			h.hook("webhooks.set", fmt.Sprintf(`{"url":%q,"guard":"keep"}`, h.url))
			h.as("keep", "kept")
			h.registered(h.url)
			h.drifted("repairing")
		})
	}
}

// A repair whose answer is lost counts, whatever became of it; where three of them
// do, operators are told that no more is done about the drift.
func TestRepairOfUnknownFate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		fault simulator.Fault
		then  string
		want  []string
	}{
		{"it was carried out", simulator.FaultDropAfterAccept, "kept", []string{"repairing"}},
		{"it was not", simulator.FaultDropBeforeRead, "stopped", []string{"repairing", "repair_limit"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHooked(t)
			h.start(h.config())
			h.as("register", "registered")
			h.taken()
			h.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/webhooks", Method: http.MethodPut}, Fault: tt.fault})
			for range 3 {
				if got := h.hook("webhooks.set", fmt.Sprintf(`{"url":%q,"guard":"keep"}`, h.url)); got.Error.Code == "" && got.Guard.State != tt.then {
					t.Fatalf("got %+v, want no answer", got)
				}
			}
			h.as("keep", tt.then)
			h.as("keep", tt.then)
			h.drifted(tt.want...)
		})
	}
}
