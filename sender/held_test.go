package sender_test

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

// holdAnswers puts something between the workers and the vendor that holds back its
// answers to the requests whose path or body contains the word, but for the first
// few, until release is called: the vendor has those requests then, and whoever made
// them waits. A worker finds the vendor at the address.
func (r *rig) holdAnswers(word string, first int64) (address string, release func()) {
	r.t.Helper()
	released := make(chan struct{})
	vendor := r.sim.Handler()
	var met atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return // whoever asked has gone
		}
		q.Body = io.NopCloser(bytes.NewReader(body))
		meets := strings.Contains(q.URL.Path, word) || bytes.Contains(body, []byte(word))
		if !meets || met.Add(1) <= first {
			vendor.ServeHTTP(w, q)
			return
		}
		answer := httptest.NewRecorder()
		vendor.ServeHTTP(answer, q)
		select {
		case <-released:
		case <-q.Context().Done():
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // whoever asked may have gone
	}))
	r.t.Cleanup(front.Close)
	release = sync.OnceFunc(func() { close(released) })
	r.t.Cleanup(release) // or it would not close
	return front.URL, release
}

// unreachable has the vendor refuse connections until reachable is called.
func (r *rig) unreachable() (reachable func()) {
	r.t.Helper()
	r.rule(simulator.Rule{Fault: simulator.FaultRefuse, For: simulator.Duration(patience)})
	return r.sim.EndRefusal
}
