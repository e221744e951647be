// Package relaytest helps to test whole programs from outside: it collects their
// log and output, and waits for what they say and for their readiness.
package relaytest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

// Output is a writer that lets a test wait for a line.
type Output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

// NewOutput makes an empty one.
func NewOutput() *Output { return &Output{changed: make(chan struct{})} }

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.text.Write(p)
	close(o.changed)
	o.changed = make(chan struct{})
	return n, err
}

// String is everything so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Line waits for the first whole line that is accepted.
func (o *Output) Line(tb testing.TB, accept func(line string) bool) string {
	tb.Helper()
	for {
		o.mu.Lock()
		text, changed := o.text.String(), o.changed
		o.mu.Unlock()
		for line := range strings.Lines(text) {
			if strings.HasSuffix(line, "\n") && accept(line) {
				return line
			}
		}
		select {
		case <-changed:
		case <-tb.Context().Done():
			tb.Fatalf("the line did not come; there is\n%s", text)
		case <-time.After(time.Minute):
			tb.Fatalf("the line did not come within a minute; there is\n%s", text)
		}
	}
}

// Logged waits for the first JSON line of the log with this message, and where
// given with this program, and returns its fields.
func (o *Output) Logged(tb testing.TB, message, program string) map[string]any {
	tb.Helper()
	var fields map[string]any
	o.Line(tb, func(line string) bool {
		fields = nil
		return json.Unmarshal([]byte(line), &fields) == nil && fields["message"] == message &&
			(program == "" || fields["program"] == program)
	})
	return fields
}

// Env is an environment of these variables.
func Env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

// Vendor starts a simulated vendor on a free port, for the length of the test.
func Vendor(tb testing.TB, cfg simulator.Config) *simulator.Server {
	tb.Helper()
	sim, err := simulator.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(sim.Close)
	if err := sim.Start(tb.Context(), "127.0.0.1:0"); err != nil {
		tb.Fatal(err)
	}
	return sim
}

// Readiness waits until /readyz at the address answers the wanted status, and
// returns the body.
func Readiness(tb testing.TB, addr string, want int) string {
	tb.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for {
		code, body := Get(tb, "http://"+addr+"/readyz")
		if code == want {
			return body
		}
		select {
		case <-ticker.C:
		case <-deadline:
			tb.Fatalf("/readyz still answers %d, want %d: %s", code, want, body)
		}
	}
}

// Get reads an address; the status is 0 where nobody answers.
func Get(tb testing.TB, url string) (status int, body string) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, url, nil)
	if err != nil {
		tb.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// Post sends a body and returns the status of the answer.
func Post(tb testing.TB, url, body string) int {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	return resp.StatusCode
}
