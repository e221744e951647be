package bench_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// firstWait bounds the wait for the first message.
const firstWait = time.Minute

// vendor answers at once. Until it is told to open it knows no key, so that a
// worker opens its lanes and pulls nothing.
type vendor struct {
	*web
	spec     spec
	channels []byte
	blocked  map[string]bool
	open     atomic.Bool
	count    atomic.Int64
	first    chan int64 // Unix nanoseconds

	mu      sync.Mutex
	refused map[string]bool // keys
	taken   []time.Duration // from publish to request
}

func newVendor(s spec) (role, error) {
	v := &vendor{spec: s, first: make(chan int64, 1), blocked: make(map[string]bool), refused: make(map[string]bool)}
	list := make([]map[string]string, s.Listed)
	for i := range list {
		state := "active"
		if i >= s.Listed-s.Blocked {
			state = "blocked"
			v.blocked[channelID(i)] = true
		}
		list[i] = map[string]string{"channelId": channelID(i), "transport": "whatsapp", "plainId": "79990000000", "state": state}
	}
	var err error
	if v.channels, err = json.Marshal(list); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/channels", v.list)
	mux.HandleFunc("POST /v2/send_message", v.take)
	v.web, err = newWeb(mux)
	return v, err
}

func (v *vendor) list(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if !v.open.Load() {
		v.mu.Lock()
		v.refused[r.Header.Get("Authorization")] = true
		v.mu.Unlock()
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = w.Write(v.channels)
}

func (v *vendor) take(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header()["Content-Type"] = []string{"application/json"}
	if v.refuses(body) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"errors":[{"code":"CHANNEL_BLOCKED","description":"no"}]}`)
		return
	}
	n := v.count.Add(1)
	if n == 1 {
		v.first <- now.UnixNano()
	}
	if v.spec.Stamped {
		v.note(now, body)
	}
	if v.spec.Delay > 0 {
		time.Sleep(v.spec.Delay) // the vendor's latency is what is asked for
	}
	w.WriteHeader(http.StatusCreated)
	_, _ = fmt.Fprintf(w, `{"messageId":"0be2c9f0-5a4b-4b5c-8d7e-%012d"}`, n)
}

// refuses reports whether a message is for a blocked channel.
func (v *vendor) refuses(body []byte) bool {
	if len(v.blocked) == 0 {
		return false
	}
	var message struct {
		ChannelID string `json:"channelId"`
	}
	return json.Unmarshal(body, &message) != nil || v.blocked[message.ChannelID]
}

// note finds the time of publishing in the text of a message.
func (v *vendor) note(now time.Time, body []byte) {
	_, after, _ := bytes.Cut(body, []byte(stampPrefix))
	digits, _, _ := bytes.Cut(after, []byte(" "))
	published, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return // the count of what was taken tells
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.taken = append(v.taken, now.Sub(time.Unix(0, published)))
}

func (v *vendor) told() any { return v.url }

func (v *vendor) answer(question string) any {
	switch question {
	case "open":
		v.open.Store(true)
		return nil
	case "reset":
		v.mu.Lock()
		defer v.mu.Unlock()
		v.count.Store(0)
		v.first = make(chan int64, 1)
		v.taken = nil
		return nil
	case "first":
		select {
		case at := <-v.first:
			return at
		case <-time.After(firstWait):
			return 0
		}
	case "refused":
		v.mu.Lock()
		defer v.mu.Unlock()
		return len(v.refused)
	case "count":
		return v.count.Load()
	case "latency":
		v.mu.Lock()
		defer v.mu.Unlock()
		return slices.Clone(v.taken)
	}
	return nil
}

func (v *vendor) stop() error { return v.close() }
