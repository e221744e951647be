package simulator

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// The keys of a webhook's body.
const (
	keyMessages     = "messages"
	keyStatuses     = "statuses"
	keyChannels     = "channels"
	keyChannelsList = "channelsList"
)

// testBody is what the vendor posts to a URL before it registers it.
const testBody = `{"messages":[],"channels":[],"statuses":[]}`

const (
	keepDeliveries = 1000
	maxAnswerBody  = 64 << 10 // of a webhook's receiver; the rest is not read
)

// Delivery is one attempt at a webhook.
type Delivery struct {
	Seq     int             `json:"seq"` // from 1
	Time    time.Time       `json:"time"`
	Attempt int             `json:"attempt"` // from 1
	Items   map[string]int  `json:"items"`   // number of items by key of the body
	Body    json.RawMessage `json:"body"`
	Status  int             `json:"status"`         // of the receiver's answer; 0 = none
	Error   string          `json:"error,omitzero"` // why there was none
	Took    Duration        `json:"took"`
	GivenUp bool            `json:"givenUp,omitzero"` // no further attempt follows
}

// parcel waits for its time in the outbox: one item, or a whole webhook that
// is to be repeated.
type parcel struct {
	due  time.Time
	seq  int // keeps the order of what is due at the same time
	item json.RawMessage
	hook *hook
}

// hook is a webhook on its way.
type hook struct {
	body    []byte
	items   map[string]int
	size    int // items in all
	attempt int // that was made last
	run     int // of the outbox
}

// outbox holds webhook items until they are due and posts them. While no URL
// is registered it takes nothing and runs nothing.
type outbox struct {
	on      atomic.Bool // a URL is registered; lets senders skip the encoding
	client  *http.Client
	own     *http.Transport // nil = the configuration's
	changed func()
	spawn   func(func(context.Context)) bool
	wake    chan struct{}
	slots   chan struct{} // one token for each webhook under way
	log     func(status, attempts, items int)

	mu         sync.Mutex
	cfg        Config // as tuned
	url        string
	running    bool
	seq        int
	run        int // counts the resets
	items      map[string]*parcels
	retries    parcels
	underWay   int  // items
	counts     View // Delivered, Items, Failed and GivenUp
	deliveries ring[Delivery]
	delivered  int // numbers the deliveries
	rng        *rand.Rand
}

func newOutbox(cfg Config, changed func(), spawn func(func(context.Context)) bool) *outbox {
	o := &outbox{
		changed: changed, spawn: spawn,
		wake: make(chan struct{}, 1), slots: make(chan struct{}, cfg.Parallel),
		log: func(status, attempts, items int) {
			cfg.Log.Warn().Int("status", status).Int("attempts", attempts).Int("items", items).Msg("webhook given up")
		},
	}
	transport := cfg.Transport
	if transport == nil {
		o.own = &http.Transport{MaxIdleConnsPerHost: cfg.Parallel, IdleConnTimeout: time.Minute}
		transport = o.own
	}
	o.client = &http.Client{
		Transport: transport,
		Timeout:   cfg.WebhookTimeout,
		// A redirect is an answer that is not 200.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	o.reset(cfg)
	return o
}

// reset forgets everything but the URL.
func (o *outbox) reset(cfg Config) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cfg = cfg
	o.run++
	o.clear()
	o.underWay = 0
	o.counts = View{}
	o.deliveries = ring[Delivery]{size: keepDeliveries}
	o.delivered = 0
	o.rng = rand.New(rand.NewPCG(cfg.Seed, uint64(o.run)))
}

// clear forgets what waits. Callers hold o.mu.
func (o *outbox) clear() {
	o.items = map[string]*parcels{keyMessages: {}, keyStatuses: {}, keyChannels: {}, keyChannelsList: {}}
	o.retries = nil
}

// setURL registers the receiver; "" switches webhooks off and forgets what waits.
func (o *outbox) setURL(u string) (changed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	changed, o.url = o.url != u, u
	o.on.Store(u != "")
	if u == "" {
		o.clear()
		return changed
	}
	if !o.running {
		o.running = o.spawn(o.loop)
	}
	return changed
}

func (o *outbox) registered() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.url
}

// count adds the outbox's share to a view.
func (o *outbox) count(v *View) {
	o.mu.Lock()
	defer o.mu.Unlock()
	v.Delivered, v.Items, v.Failed, v.GivenUp = o.counts.Delivered, o.counts.Items, o.counts.Failed, o.counts.GivenUp
	v.Pending = o.underWay
	for _, p := range o.items {
		v.Pending += len(*p)
	}
	for _, p := range o.retries {
		v.Pending += p.hook.size
	}
}

// planned is one item and how long from now it is due.
type planned struct {
	key   string
	item  any
	after time.Duration
}

// put plans items. Delays are cut up to the batch window.
func (o *outbox) put(items ...planned) {
	if !o.on.Load() {
		return
	}
	encoded := make([]json.RawMessage, len(items))
	for i := range items {
		encoded[i] = encode(items[i].item)
	}
	now := time.Now()
	o.mu.Lock()
	if o.url != "" {
		for i, p := range items {
			o.seq++
			heap.Push(o.items[p.key], &parcel{due: o.window(now.Add(p.after)), seq: o.seq, item: encoded[i]})
		}
	}
	o.mu.Unlock()
	o.nudge()
}

// window moves a time up to the next multiple of the batch window.
func (o *outbox) window(t time.Time) time.Time {
	if w := o.cfg.BatchWindow; w > 0 {
		return t.Truncate(w).Add(w)
	}
	return t
}

func (o *outbox) nudge() {
	select {
	case o.wake <- struct{}{}:
	default: // it is to be woken already
	}
}

// loop posts what is due until ctx ends. A slot is taken before the items are,
// so that they gather while all slots are busy.
func (o *outbox) loop(ctx context.Context) {
	for {
		select {
		case o.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		h, to, ok := o.next(ctx)
		if !ok {
			return
		}
		if !o.spawn(func(ctx context.Context) {
			o.deliver(ctx, h, to)
			<-o.slots
		}) {
			return
		}
	}
}

// next waits for the next webhook that is due; ok is false when ctx ended.
func (o *outbox) next(ctx context.Context) (h *hook, to string, ok bool) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		h, to, wait := o.take(time.Now())
		if h != nil {
			return h, to, true
		}
		var due <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case <-due:
		case <-o.wake:
		case <-ctx.Done():
			return nil, "", false
		}
	}
}

// take removes a webhook that is due. Without one, wait is how long until
// there is; 0 = nothing waits.
func (o *outbox) take(now time.Time) (h *hook, to string, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key, first := o.earliest(true)
	if first == nil {
		return nil, "", 0
	}
	if wait := first.due.Sub(now); wait > 0 {
		return nil, "", wait
	}
	if first.hook != nil {
		h = first.hook
		heap.Pop(&o.retries)
	} else {
		h = o.gather(key, now)
	}
	h.attempt++
	o.underWay += h.size
	return h, o.url, 0
}

// earliest is the parcel that is due first, and its key (of a retry, or if
// there is none, keyMessages).
func (o *outbox) earliest(withRetries bool) (key string, first *parcel) {
	key = keyMessages
	for _, k := range webhookKeys() {
		if p := *o.items[k]; len(p) > 0 && (first == nil || p[0].before(first)) {
			key, first = k, p[0]
		}
	}
	if p := o.retries; withRetries && len(p) > 0 && (first == nil || p[0].before(first)) {
		first = p[0]
	}
	return key, first
}

// webhookKeys are the keys of a body, in the order in which they are written.
func webhookKeys() [4]string {
	return [...]string{keyMessages, keyStatuses, keyChannels, keyChannelsList}
}

// gather builds a webhook of items that are due: of one key, or of several if
// the configuration says so. A channelsList travels alone, since it is a whole
// list and not an item of one.
func (o *outbox) gather(key string, now time.Time) *hook {
	if key == keyChannelsList {
		list := o.pop(key)
		return o.newHook(map[string][]json.RawMessage{key: {list.item}}, 1)
	}
	gathered := make(map[string][]json.RawMessage, 1)
	size := 0
	for size < o.cfg.BatchSize {
		if o.cfg.Mixed {
			key, _ = o.earliest(false)
		}
		waiting := *o.items[key]
		if len(waiting) == 0 || waiting[0].due.After(now) || key == keyChannelsList {
			break
		}
		gathered[key] = append(gathered[key], o.pop(key).item)
		size++
	}
	return o.newHook(gathered, size)
}

// pop removes the first parcel of a key that has one.
func (o *outbox) pop(key string) *parcel {
	waiting := o.items[key]
	first := (*waiting)[0]
	heap.Pop(waiting)
	return first
}

func (o *outbox) newHook(gathered map[string][]json.RawMessage, size int) *hook {
	h := &hook{items: make(map[string]int, len(gathered)), size: size, run: o.run}
	var body bytes.Buffer
	separator := byte('{')
	for _, key := range webhookKeys() {
		items := gathered[key]
		if len(items) == 0 {
			continue
		}
		h.items[key] = len(items)
		body.WriteByte(separator)
		separator = ','
		body.WriteString(`"` + key + `":`)
		if key == keyChannelsList {
			body.Write(items[0])
			continue
		}
		body.WriteByte('[')
		body.Write(bytes.Join(asBytes(items), []byte{','}))
		body.WriteByte(']')
	}
	body.WriteByte('}')
	h.body = body.Bytes()
	return h
}

func asBytes(items []json.RawMessage) [][]byte {
	b := make([][]byte, len(items))
	for i := range items {
		b[i] = items[i]
	}
	return b
}

// deliver makes one attempt and plans the next one if it failed.
func (o *outbox) deliver(ctx context.Context, h *hook, to string) {
	started := time.Now()
	status, err := o.post(ctx, to, h.body)
	took := time.Since(started)
	if ctx.Err() != nil {
		return // closing: nobody is there to be told
	}

	o.mu.Lock()
	defer o.changed() // after the lock is released: deferred calls run last in, first out
	defer o.mu.Unlock()
	if h.run != o.run {
		return // of before a reset
	}
	o.underWay -= h.size
	o.delivered++
	d := Delivery{
		Seq: o.delivered, Time: started, Attempt: h.attempt, Items: maps.Clone(h.items), Body: h.body,
		Status: status, Error: errorText(err), Took: Duration(took),
	}
	switch {
	case status == http.StatusOK:
		o.counts.Delivered++
		o.counts.Items += h.size
	case h.attempt <= o.cfg.Retries && o.url != "":
		o.counts.Failed++
		o.seq++
		backoff := o.cfg.RetryDelay << min(h.attempt-1, 10)
		heap.Push(&o.retries, &parcel{due: time.Now().Add(backoff), seq: o.seq, hook: h})
		o.nudge()
	default:
		o.counts.Failed++
		o.counts.GivenUp++
		d.GivenUp = true
		o.log(status, h.attempt, h.size)
	}
	o.deliveries.add(d)
}

// post sends one body and returns the answer's status; 0 and an error if there
// was no answer.
func (o *outbox) post(ctx context.Context, to string, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "wazzup-simulator")
	resp, err := o.client.Do(req)
	if err != nil {
		return 0, err
	}
	// Read to the end, so that the connection can be used again.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswerBody))
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

// errorText leaves out the URL, which holds the receiver's secret.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return err.Error()
}

func (o *outbox) list() []Delivery {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]Delivery, 0, len(o.deliveries.items))
	o.deliveries.all(func(d Delivery) { list = append(list, d) })
	return list
}

// tune takes over a changed configuration for what is planned from now on.
func (o *outbox) tune(cfg Config) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cfg = cfg
}

// closeIdle ends the connections of its own transport.
func (o *outbox) closeIdle() {
	if o.own != nil {
		o.own.CloseIdleConnections()
	}
}

// parcels is a heap (container/heap) with the earliest first.
type parcels []*parcel

func (p *parcel) before(q *parcel) bool {
	if !p.due.Equal(q.due) {
		return p.due.Before(q.due)
	}
	return p.seq < q.seq
}

func (p parcels) Len() int           { return len(p) }
func (p parcels) Less(i, j int) bool { return p[i].before(p[j]) }
func (p parcels) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }

// Push is heap.Interface's; x is a *parcel.
func (p *parcels) Push(x any) {
	if q, ok := x.(*parcel); ok {
		*p = append(*p, q)
	}
}

// Pop is heap.Interface's.
func (p *parcels) Pop() any {
	last := len(*p) - 1
	x := (*p)[last]
	(*p)[last] = nil
	*p = (*p)[:last]
	return x
}
