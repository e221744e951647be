package bench_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/wazzup-relay/wazzup-relay/ingest"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

const (
	webhookSecret  = "a-secret-of-the-benchmark"
	webhookPosters = 16
)

// shape is what a webhook's body holds.
type shape struct {
	name               string
	messages, statuses int
}

// BenchmarkWebhooks measures how fast the items of webhooks become events, beside
// a handler that publishes each item asynchronously and waits for the PubAcks.
func BenchmarkWebhooks(b *testing.B) {
	shapes := []shape{{"messages=1", 1, 0}, {"items=20", 10, 10}}
	tables := make(map[string]*table)
	for _, sh := range shapes {
		tables[sh.name] = newTable(column{"events/s", "%.0f"}, column{"cpu-s/1k", "%.4f"}, column{"server-cpu-s/1k", "%.4f"})
	}
	for round := range number(b, "BENCH_ROUNDS", 3) {
		for _, sh := range shapes {
			for _, role := range []string{"bare", "ingest"} {
				b.Run(fmt.Sprintf("round=%d/%s/%s", round+1, sh.name, role), func(b *testing.B) {
					for b.Loop() {
						tables[sh.name].add(b, role, webhooks(b, role, sh))
					}
				})
			}
		}
	}
	for _, sh := range shapes {
		tables[sh.name].print("Webhooks, "+sh.name+": medians, and the ratio to the bare handler", "bare")
	}
}

func webhooks(b *testing.B, role string, sh shape) []float64 {
	b.Helper()
	items := sh.messages + sh.statuses
	posts := number(b, "BENCH_EVENTS", 10_000) / items
	n := posts * items
	s := newScene(b, spec{Accounts: 1, Messages: n})
	var url string
	p := start(b, role, s.spec, &url)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: webhookPosters}}
	defer client.CloseIdleConnections()

	before, serverBefore, began := p.usage(), s.server.usage(), time.Now()
	var next atomic.Int64
	var posters sync.WaitGroup
	for range webhookPosters {
		posters.Go(func() {
			for i := next.Add(1); i <= int64(posts); i = next.Add(1) {
				if err := postHook(client, url, sh.body(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	posters.Wait()
	took := time.Since(began).Seconds()
	after, serverAfter := p.usage(), s.server.usage()
	if stored := s.info(queue.Names{Account: account(0)}.Records()).State.Msgs; stored != uint64(n) { //nolint:gosec // not negative
		b.Fatalf("%d events are stored, want %d", stored, n)
	}
	per1k := func(from, to usage) float64 { return (to.CPU - from.CPU).Seconds() / float64(n) * 1000 }
	return []float64{float64(n) / took, per1k(before, after), per1k(serverBefore, serverAfter)}
}

func postHook(client *http.Client, url string, body []byte) error {
	resp, err := client.Post(url, "application/json", bytes.NewReader(body)) //nolint:noctx // the benchmark waits for it
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// body is a body whose items were never seen before.
func (sh shape) body(n int64) []byte {
	var messages, statuses []string
	for i := range sh.messages {
		messages = append(messages, fmt.Sprintf(`{"messageId":"10d90130-38f6-421c-%04x-%012x","channelId":%q,"chatType":"whatsapp",`+
			`"chatId":"7912469%04d","dateTime":1603977171000,"type":1,"status":99,"text":"When does my order come? It was due on Monday.",`+
			`"authorType":99,"authorName":"Ann Smith"}`, i, n, channelID(0), n%10_000))
	}
	for i := range sh.statuses {
		statuses = append(statuses, fmt.Sprintf(`{"messageId":"20d90130-38f6-421c-%04x-%012x","status":2}`, i, n))
	}
	return []byte(`{"messages":[` + strings.Join(messages, ",") + `],"statuses":[` + strings.Join(statuses, ",") + `]}`)
}

// bare is the handler that promises no more than that each item is stored.
type bare struct {
	*web
	nc *nats.Conn
	js jetstream.JetStream
}

func newBare(s spec) (role, error) {
	nc, err := nats.Connect(s.NATS)
	if err != nil {
		return nil, err
	}
	h := &bare{nc: nc}
	if h.js, err = jetstream.New(nc); err != nil {
		return nil, err
	}
	h.web, err = newWeb(h)
	return h, err
}

func (h *bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h.store(r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

func (h *bare) store(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	var hook map[string][]json.RawMessage
	if err := json.Unmarshal(body, &hook); err != nil {
		return err
	}
	var acks []jetstream.PubAckFuture
	for key, items := range hook {
		for _, it := range items {
			ack, err := h.js.PublishAsync("wazzup."+account(0)+".evt.bare."+key, it, jetstream.WithStallWait(sceneWait))
			if err != nil {
				return err
			}
			acks = append(acks, ack)
		}
	}
	for _, a := range acks {
		select {
		case <-a.Ok():
		case err := <-a.Err():
			return err
		}
	}
	return nil
}

func (h *bare) told() any         { return h.url }
func (h *bare) answer(string) any { return nil }

func (h *bare) stop() error {
	defer h.nc.Close()
	return h.close()
}

// hooks is the endpoint as its program runs it.
type hooks struct {
	*web
	nc    *nats.Conn
	store *ingest.Streams
	seen  *observed
}

func newIngest(s spec) (role, error) {
	nc, err := nats.Connect(s.NATS, ingest.ConnOptions()...)
	if err != nil {
		return nil, err
	}
	h := &hooks{nc: nc}
	if h.store, err = ingest.NewStreams(nc); err != nil {
		return nil, err
	}
	if h.seen, err = observe(); err != nil {
		return nil, err
	}
	endpoint, err := ingest.New(ingest.Config{
		Accounts: []ingest.Account{{Name: account(0), Secrets: []string{webhookSecret}}},
	}, h.store, nc, h.seen.log, h.seen.Meter)
	if err != nil {
		return nil, err
	}
	h.web, err = newWeb(endpoint)
	return h, err
}

func (h *hooks) told() any         { return h.url + "/webhooks/" + account(0) + "/" + webhookSecret }
func (h *hooks) answer(string) any { return nil }

func (h *hooks) stop() error {
	err := h.close()
	h.store.Close()
	h.nc.Close()
	return errors.Join(err, h.seen.close())
}
