//go:build system

package systemtest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

// The owner is frozen for a minute in the middle of its work, and wakes up while
// there is more of it: it claims nothing. Only a call that it had claimed before
// may still reach the vendor, and that command's fate counts as unknown.
func TestFrozenOwner(t *testing.T) {
	t.Parallel()
	channels := whatsapps(4)
	r := newRig(t, simulator.Config{Channels: channels})
	r.latency(50 * time.Millisecond)
	r.collect()
	way := newWay(t, r.sim.URL())
	frozen := runWorker(t, r.env("WAZZUP_API_URL="+way.URL)...)
	frozen.ready()
	other := runWorker(t, r.env()...)
	other.ready()
	load := r.produce(channels, 40, 500*time.Millisecond)
	r.waitFinals(200, time.Minute)
	r.busy(10)
	frozen.signal(syscall.SIGSTOP)
	since := time.Now()
	<-time.After(time.Minute) // the length of the freeze is what is tested
	atThaw := len(r.waitFinals(1000, time.Minute))
	thawed := time.Now()
	frozen.signal(syscall.SIGCONT)
	frozen.ready() // it stands by
	r.waitFinals(atThaw+500, time.Minute)
	load.end()

	late := way.since(thawed)
	r.checkPublished(load, func(s *simulator.Send) bool { return late[s.Text] })
	claims := r.claims(frozen.cmd.Process.Pid)
	if len(claims) == 0 {
		t.Fatal("the frozen worker claimed nothing at all")
	}
	for _, c := range claims {
		// What was on its way to the server when the worker was stopped is stored.
		if c.stored.After(since.Add(time.Second)) {
			t.Errorf("%s was claimed by the frozen worker %v after the freeze began", c.id, c.stored.Sub(since))
		}
		if late[load.texts[c.id]] && !r.unsure[c.id] {
			t.Errorf("%s was called after the thaw, and its fate was never unknown", c.id)
		}
	}
	t.Logf("%d claims before the freeze, %d fates unknown, %d calls after the thaw", len(claims), len(r.unsure), len(late))
	if len(r.unsure) == 0 {
		t.Error("no call was under way when the worker was frozen")
	}
}

// way is a worker's own way to the vendor: what passes it is this worker's.
type way struct {
	*httptest.Server

	mu    sync.Mutex
	calls map[string]time.Time // by the message's text
}

func newWay(t *testing.T, vendor string) *way {
	t.Helper()
	to, err := url.Parse(vendor)
	if err != nil {
		t.Fatal(err)
	}
	w := &way{calls: make(map[string]time.Time)}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorLog = log.New(io.Discard, "", 0) // a worker that gives up is no news
	w.Server = httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // the worker gave up
		}
		var m struct{ Text string }
		if json.Unmarshal(body, &m) == nil && m.Text != "" {
			w.mu.Lock()
			w.calls[m.Text] = time.Now()
			w.mu.Unlock()
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(res, req)
	}))
	t.Cleanup(w.Close)
	return w
}

// since lists what passed after a moment.
func (w *way) since(moment time.Time) map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	texts := make(map[string]bool)
	for text, at := range w.calls {
		if at.After(moment) {
			texts[text] = true
		}
	}
	return texts
}

// claim is a claim in the ledger.
type claim struct {
	id     string
	stored time.Time // NATS's clock, which is this machine's
}

// claims reads what the worker with this process id has claimed.
func (r *rig) claims(pid int) (claims []claim) {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := s.OrderedConsumer(r.t.Context(), jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{queue.Names{Account: "main"}.LedgerSubject("*")},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	messages, err := c.Messages()
	if err != nil {
		r.t.Fatal(err)
	}
	defer messages.Stop()
	for left := uint64(1); left > 0; {
		m, err := messages.Next()
		if err != nil {
			r.t.Fatal(err)
		}
		meta, err := m.Metadata()
		if err != nil {
			r.t.Fatal(err)
		}
		left = meta.NumPending
		var record queue.Record
		if err := json.Unmarshal(m.Data(), &record); err != nil {
			r.t.Fatal(err)
		}
		if record.Step == queue.StepClaim && strings.HasSuffix(record.Worker, strconv.Itoa(pid)) {
			claims = append(claims, claim{record.ID, meta.Timestamp})
		}
	}
	return claims
}
