package ingest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/ingest"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

// BenchmarkWebhooks measures the endpoint beside a bare handler that promises
// nothing: it publishes each item asynchronously, without headers, to the same
// stream, and waits for the acknowledgements. The budget is 0.8 of its events/s.
//
//	go test -run '^$' -bench Webhooks -count 6 ./ingest
func BenchmarkWebhooks(b *testing.B) {
	shapes := []struct {
		name            string
		messages, known int // items a body; known: statuses whose command is known
		statuses        int
	}{
		{"messages=1", 1, 0, 0},
		{"messages=20", 20, 0, 0},
		{"statuses=1", 0, 1, 1},
		{"statuses=20", 0, 10, 20},
		{"mixed=20", 10, 5, 10},
	}
	for _, shape := range shapes {
		body := func(n int64) []byte {
			var messages, statuses []string
			for i := range shape.messages {
				messages = append(messages, fmt.Sprintf(`{"messageId":"10d90130-38f6-421c-%04x-%012x","channelId":%q,"chatType":"whatsapp",`+
					`"chatId":"7912469%04d","dateTime":1603977171000,"type":1,"status":99,"text":"When does my order come? It was due on Monday.",`+
					`"authorType":99,"authorName":"Ann Smith"}`, i, n, channelA, n%10000))
			}
			for i := range shape.statuses {
				statuses = append(statuses, fmt.Sprintf(`{"messageId":"10d90130-38f6-421c-%04x-%012x","status":2}`, i, n))
			}
			return []byte(`{"messages":[` + strings.Join(messages, ",") + `],"statuses":[` + strings.Join(statuses, ",") + `]}`)
		}
		items := shape.messages + shape.statuses
		b.Run(shape.name+"/bare", func(b *testing.B) {
			f := newFixture(b, fixtureConfig{})
			web := httptest.NewServer(bareHandler(f.js))
			b.Cleanup(web.Close)
			post(b, web, "/", body, items)
		})
		b.Run(shape.name+"/ingest", func(b *testing.B) {
			f := newFixture(b, fixtureConfig{})
			f.logTo(b, os.DevNull)
			f.indexKnown(b, shape.known)
			post(b, f.web, "/webhooks/"+account+"/"+secret, body, items)
		})
	}
}

// indexKnown notes a command for the first statuses of every body.
func (f *fixture) indexKnown(b *testing.B, known int) {
	b.Helper()
	var acks []jetstream.PubAckFuture
	for n := range 2000 {
		for i := range known {
			id := fmt.Sprintf("10d90130-38f6-421c-%04x-%012x", i, n+1)
			data, err := json.Marshal(queue.Index{ID: "order-" + id, MessageID: id, ChannelID: channelA, Meta: json.RawMessage(`{"orderId":"1042"}`)})
			if err != nil {
				b.Fatal(err)
			}
			ack, err := f.js.PublishAsync(queue.Names{Account: account}.IndexSubject(id), data)
			if err != nil {
				b.Fatal(err)
			}
			acks = append(acks, ack)
		}
		for _, a := range acks {
			select {
			case <-a.Ok():
			case err := <-a.Err():
				b.Fatal(err)
			}
		}
		acks = acks[:0]
	}
}

func bareHandler(js jetstream.JetStream) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "read", http.StatusBadRequest)
			return
		}
		var hook map[string][]json.RawMessage
		if err := json.Unmarshal(body, &hook); err != nil {
			http.Error(w, "decode", http.StatusBadRequest)
			return
		}
		var acks []jetstream.PubAckFuture
		for key, items := range hook {
			for _, it := range items {
				ack, err := js.PublishAsync("wazzup.main.evt.bare."+key, it)
				if err != nil {
					http.Error(w, "publish", http.StatusServiceUnavailable)
					return
				}
				acks = append(acks, ack)
			}
		}
		for _, a := range acks {
			select {
			case <-a.Ok():
			case err := <-a.Err():
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
	})
}

// post measures posts of ever new bodies over 16 connections.
func post(b *testing.B, web *httptest.Server, path string, body func(n int64) []byte, items int) {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	b.Cleanup(client.CloseIdleConnections)
	var n atomic.Int64
	b.SetParallelism(8)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, web.URL+path, bytes.NewReader(body(n.Add(1))))
			if err != nil {
				b.Error(err)
				return
			}
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
	events := float64(b.N * items)
	b.ReportMetric(float64((cpuTime()-before).Microseconds())/events, "cpu-µs/event")
	b.ReportMetric(events/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkSplit is the taking apart alone.
func BenchmarkSplit(b *testing.B) {
	body := []byte(`{"messages":[` + textIn + `]}`)
	b.ReportAllocs()
	for b.Loop() {
		ingest.Split(body)
	}
}

func BenchmarkHash(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		ingest.Hash(textIn)
	}
}
