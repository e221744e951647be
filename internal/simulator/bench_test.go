package simulator_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

// BenchmarkSend is the simulator's own work for one send_message, without the
// network: with nobody to call back (a sink), and with a receiver.
func BenchmarkSend(b *testing.B) {
	for name, url := range map[string]string{"sink": "", "callbacks": hookURL} {
		b.Run(name, func(b *testing.B) {
			s, err := simulator.New(simulator.Config{WebhookURL: url, Transport: discard{}})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			handler, body := s.Handler(), whatsApp("hello")
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/v2/send_message", strings.NewReader(body))
				r.Header.Set("Authorization", "Basic "+testKey)
				r.Header.Set("Content-Type", "application/json")
				handler.ServeHTTP(discardAnswer{http.Header{}}, r)
			}
		})
	}
}

// BenchmarkSendOverHTTP adds the network and a client in the same process.
func BenchmarkSendOverHTTP(b *testing.B) {
	s, err := simulator.New(simulator.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.Start(b.Context(), ":0"); err != nil {
		b.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	client, body := &http.Client{Transport: transport}, whatsApp("hello")
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.URL()+"/v2/send_message", strings.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			r.Header.Set("Authorization", "Basic "+testKey)
			r.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	})
}

// discard takes every webhook.
type discard struct{}

func (discard) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

type discardAnswer struct{ header http.Header }

func (d discardAnswer) Header() http.Header       { return d.header }
func (discardAnswer) Write(b []byte) (int, error) { return len(b), nil }
func (discardAnswer) WriteHeader(int)             {}
