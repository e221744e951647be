package sender_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// tooMany has the next request for a path answered 429.
func (r *rig) tooMany(path, hint string) {
	r.t.Helper()
	rule := simulator.Rule{Match: simulator.Match{Path: path}, Times: 1, Status: http.StatusTooManyRequests}
	if hint != "" {
		rule.Headers = map[string]string{"Retry-After": hint}
	}
	if err := r.sim.AddRule(rule); err != nil {
		r.t.Fatal(err)
	}
}

// refusedAt waits until a request was answered 429, and tells when it came.
func (r *rig) refusedAt() (at time.Time) {
	r.t.Helper()
	r.reached("a 429", func(*simulator.View) bool {
		all := r.sim.Requests()
		i := slices.IndexFunc(all, func(q simulator.Request) bool { return q.Status == http.StatusTooManyRequests })
		if i >= 0 {
			at = all[i].Time
		}
		return i >= 0
	})
	return at
}

// everything publishes a command of every class, two channels among them, and makes
// a request that needs the vendor. The returned function waits for the end of all,
// and of as many commands from before. The request may be told at once that its turn
// comes too late.
func (r *rig) everything() (ended func(before int)) {
	r.t.Helper()
	r.backlog(schema.KindSend, simulator.ChannelWhatsApp, 2)
	r.backlog(schema.KindBulk, simulator.ChannelWhatsApp, 2)
	r.backlog(schema.KindSend, simulator.ChannelWhatsApp2, 2)
	r.sync(schema.EntityContacts, schema.VerbUpsert, contactsOf(1), queue.WithID("contacts"))
	asked := make(chan string, 1)
	go func() { asked <- r.ask("users.list", ``).Error.Code }()
	return func(before int) {
		r.t.Helper()
		for _, e := range r.finals(before + 7) {
			if e.State != schema.StateSent && e.State != schema.StateDone {
				r.t.Errorf("%s %s ended %s %+v", e.Kind, e.ID, e.State, e.Error)
			}
		}
		if code := <-asked; code != "" && code != "RATE_WAIT" {
			r.t.Errorf("the request was answered %s", code)
		}
	}
}

func contactsOf(ids ...int) []map[string]any {
	all := make([]map[string]any, len(ids))
	for i, id := range ids {
		all[i] = map[string]any{"id": id, "name": "x"}
	}
	return all
}

// quietUntil fails if any request came when the 429 of that moment was known, and
// before the pause was over.
func (r *rig) quietUntil(at, known time.Time, pause time.Duration) {
	r.t.Helper()
	for _, q := range r.sim.Requests() {
		if gap := q.Time.Sub(at); q.Time.After(known) && gap < pause {
			r.t.Errorf("%s %s came %v after the 429, want nothing for %v", q.Method, q.Path, gap, pause)
		}
	}
}

// Whatever meets a 429, the whole account waits for what it hints at: every channel
// and class, sync and requests, and the channel list. It spends no attempt.
func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	const window = 1500 * time.Millisecond
	for _, tt := range []struct {
		name, path  string
		hint        string
		least, most time.Duration
	}{
		{"seconds", "/v2/send_message", "2", 2 * time.Second, 3 * time.Second},
		{"date", "/v2/send_message", "", 0, 0}, // see below
		{"date that is over", "/v2/send_message", "Wed, 21 Oct 2015 07:28:00 GMT", 0, time.Second},
		{"no time", "/v2/send_message", "0", 0, time.Second},
		{"none: the window", "/v2/send_message", "", window, 3 * time.Second},
		{"not readable: the window", "/v2/send_message", "soon", window, 3 * time.Second},
		{"negative: the window", "/v2/send_message", "-5", window, 3 * time.Second},
		{"met by a sync command", "/v2/contacts", "2", 2 * time.Second, 3 * time.Second},
		{"met by a request", "/v2/users", "2", 2 * time.Second, 3 * time.Second},
		{"met by the channel list", "/v2/channels", "2", 2 * time.Second, 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.MaxAttempts, cfg.Timeout = 1, patience // no request is told that its turn comes too late
			cfg.Rate = rate.Rate{N: 100, Per: window}
			cfg.ChannelsPoll = 300 * time.Millisecond
			r.start(cfg)
			if tt.path != "/v2/channels" {
				r.channelsRead()
			}
			hint, date := tt.hint, time.Now().Add(4*time.Second).Truncate(time.Second)
			if tt.name == "date" {
				hint = date.UTC().Format(http.TimeFormat)
			}
			r.tooMany(tt.path, hint)
			switch tt.path {
			case "/v2/send_message":
				r.send("first", phone, "x")
			case "/v2/contacts":
				r.sync(schema.EntityContacts, schema.VerbUpsert, contactsOf(2), queue.WithID("first"))
			case "/v2/users":
				if got := r.ask("users.list", ``); got.Code != "429" {
					t.Errorf("the request was answered %q", got.Code)
				}
			}
			at, least, most := r.refusedAt(), tt.least, tt.most
			if tt.name == "date" {
				least = date.Sub(at)
				most = least + time.Second // the answer's own date is of a whole second, too
			}
			commands := 0
			if tt.path == "/v2/send_message" || tt.path == "/v2/contacts" {
				e := r.event("first", schema.StateRetrying)
				commands = 1
				if e.RetryAt == nil || e.RetryAt.Sub(e.At) > most {
					t.Errorf("at %v it is to be tried again at %v, want that within %v", e.At, e.RetryAt, most)
				}
			}
			if tt.path == "/v2/channels" {
				gates := queue.Names{Account: "main"}.GateFilter()
				if err := waitFor(t, func() bool { some, err := r.stored(gates); return err == nil && some }); err != nil {
					t.Fatal(err)
				}
			}
			known := time.Now()
			r.everything()(commands)
			r.quietUntil(at, known, least)
			if tt.path == "/v2/send_message" {
				if e := r.event("first", schema.StateSent); e.Attempt != 2 {
					t.Errorf("the first was sent by attempt %d", e.Attempt)
				}
			}
		})
	}
}

// A hint counts for a quarter of an hour at most.
func TestHintWithoutEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	r.channelsRead()
	r.tooMany("/v2/send_message", "86400")
	r.send("first", phone, "x")
	e := r.event("first", schema.StateRetrying)
	if e.RetryAt == nil || e.RetryAt.Sub(e.At) > 15*time.Minute || e.RetryAt.Sub(e.At) < 14*time.Minute {
		t.Errorf("it is tried again at %v, want 15 minutes after %v", e.RetryAt, e.At)
	}
}

// killable runs a worker that can be reloaded, stopped in order, or cut off.
func (r *rig) killable(cfg sender.Config) (w *sender.Worker, stop, kill func()) {
	r.t.Helper()
	nc := queuetest.Conn(r.t, r.srv)
	w, stop = r.workerOn(nc, cfg)
	return w, stop, func() {
		nc.Close()
		stop()
		r.expireLease()
	}
}

// The pause holds through a hand-over, a death and a reload.
func TestTooManyRequestsAcrossOwners(t *testing.T) {
	t.Parallel()
	const pause = 6 * time.Second
	for _, how := range []string{"hand-over", "death", "reload"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cfg := r.config()
			cfg.MaxAttempts, cfg.Timeout = 1, patience // no request is told that its turn comes too late
			cfg.Rate = rate.Rate{N: 100, Per: 500 * time.Millisecond}
			w, stop, kill := r.killable(cfg)
			r.channelsRead()
			r.tooMany("/v2/send_message", "6")
			r.send("first", phone, "x")
			at := r.refusedAt()
			r.event("first", schema.StateRetrying)
			known := time.Now()
			switch how {
			case "hand-over":
				stop()
				r.start(cfg)
			case "death":
				kill()
				r.start(cfg)
			case "reload":
				cfg.Rate = rate.Rate{N: 200, Per: time.Second}
				reload(t, w, cfg)
			}
			r.everything()(1)
			r.quietUntil(at, known, pause)
		})
	}
}
