package simulator

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// status is an item of the `statuses` webhook.
type status struct {
	MessageID string `json:"messageId"`
	Status    any    `json:"status"` // number, or string (Config.StatusText)
}

func newStatus(messageID string, n int, asText bool) status {
	if asText {
		return status{MessageID: messageID, Status: strconv.Itoa(n)}
	}
	return status{MessageID: messageID, Status: n}
}

// callBack plans the echo and the statuses of an accepted message.
func (o *outbox) callBack(m message, r *Rule) {
	if !o.on.Load() {
		return
	}
	o.mu.Lock()
	items := o.plan(m, r)
	o.mu.Unlock()
	o.put(items...)
}

// plan draws the delays. Statuses follow one another, each at its delay after
// the one before, so that jitter alone never turns them round; Shuffle deals
// the times out anew. Callers hold o.mu.
func (o *outbox) plan(m message, r *Rule) []planned {
	cfg := o.cfg
	echo, statuses := !cfg.NoEcho, cfg.Statuses
	if cfg.NoStatuses {
		statuses = nil
	}
	if r != nil && r.Echo != nil {
		echo = *r.Echo
	}
	if r != nil && r.Statuses != nil {
		statuses = *r.Statuses
	}
	items := make([]planned, 0, 1+len(statuses))
	if echo {
		if cfg.StoreURL != "" && m.Content != "" {
			m.Content = strings.TrimSuffix(cfg.StoreURL, "/") + "/" + m.MessageID + extension(m.Content)
		}
		items = append(items, planned{key: keyMessages, item: m, after: cfg.EchoDelay + o.jitter()})
	}
	after := time.Duration(0)
	for _, n := range statuses {
		after += cfg.StatusDelay + o.jitter()
		items = append(items, planned{key: keyStatuses, item: newStatus(m.MessageID, n, cfg.StatusText), after: after})
	}
	if cfg.Shuffle {
		shuffle(o.rng, items)
	}
	return items
}

// jitter draws an additional delay. Callers hold o.mu.
func (o *outbox) jitter() time.Duration {
	if o.cfg.Jitter == 0 {
		return 0
	}
	return time.Duration(o.rng.Int64N(int64(o.cfg.Jitter) + 1))
}

// shuffle deals the delays out in another order; items of equal delay leave in
// the order of the slice, so the slice is in the order of the new delays.
func shuffle(rng *rand.Rand, items []planned) {
	delays := make([]time.Duration, len(items))
	for i := range items {
		delays[i] = items[i].after
	}
	rng.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
	for i := range items {
		items[i].after = delays[i]
	}
}
