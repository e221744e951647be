package sender

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/counter"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// counterBacklog is how many values of one user wait in memory while NATS is away.
// Beyond it the oldest are given up: the newest is what counts.
const counterBacklog = 256

// counterRetry is the first pause before a value is published again; it grows to
// ten of them.
const counterRetry = 100 * time.Millisecond

// counters are the users whose unanswered counters the owner follows. Owned by the
// owner's mutex, but for changed.
type counters struct {
	wanted    []counterUser
	changed   chan struct{} // holds one token when wanted changed
	connected int           // users whose connection stands
}

// counterUser is one connection that is to be: whoever differs is another one.
type counterUser struct {
	id  string // JSON
	key string // of the account; never logged
}

func newCounters(cfg *Config) counters {
	c := counters{changed: make(chan struct{}, 1)}
	c.want(cfg)
	return c
}

// want has other users followed, or the same ones with another key.
func (c *counters) want(cfg *Config) {
	c.wanted = make([]counterUser, len(cfg.CounterUsers))
	for i, id := range cfg.CounterUsers {
		c.wanted[i] = counterUser{string(id), cfg.APIKey}
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// followCounters keeps one connection for each user until ctx ends, and returns when
// all of them are closed. A change of the users leaves the others' connections alone.
func (o *owner) followCounters(ctx context.Context) {
	type running struct {
		stop  context.CancelFunc
		ended chan struct{}
	}
	transport := http.DefaultTransport
	if t, ok := transport.(*http.Transport); ok {
		own := t.Clone()
		defer own.CloseIdleConnections()
		transport = own
	}
	now := make(map[counterUser]running)
	// end closes all connections but those that are kept, and returns when they are
	// closed: there is one connection a user, at any time.
	end := func(keep map[counterUser]bool) {
		var gone []running
		for u, r := range now {
			if !keep[u] {
				r.stop()
				gone = append(gone, r)
				delete(now, u)
			}
		}
		for _, r := range gone {
			<-r.ended
		}
	}
	defer end(nil)
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.counters.changed:
		}
		o.mu.Lock()
		wanted := make(map[counterUser]bool, len(o.counters.wanted))
		for _, u := range o.counters.wanted {
			wanted[u] = true
		}
		o.mu.Unlock()
		end(wanted)
		for u := range wanted {
			if _, ok := now[u]; ok {
				continue
			}
			one, stop := context.WithCancel(ctx)
			r := running{stop, make(chan struct{})}
			now[u] = r
			o.background.Go(func() {
				defer close(r.ended)
				o.followCounter(one, u, transport)
			})
		}
	}
}

// followCounter follows one user's counter and publishes what it hears.
func (o *owner) followCounter(ctx context.Context, u counterUser, transport http.RoundTripper) {
	id := schema.EntityID(json.RawMessage(u.id))
	p := &counterPublisher{
		o: o, user: json.RawMessage(u.id), about: schema.Key(id), subject: schema.CounterEventSubject(o.cfg.Account, id),
		news: make(chan struct{}, 1),
	}
	publishing, cancel := context.WithCancel(o.ctx)
	defer cancel()
	heard := make(chan struct{}) // closed when no more values come
	var wg sync.WaitGroup
	wg.Go(func() { p.run(publishing, heard) })
	var told string
	counter.Follow(ctx, counter.Config{
		URL: o.cfg.CounterURL, Key: u.key, User: p.user, Transport: transport,
		Counter: func(n int64, first bool) {
			told = ""
			p.add(counterValue{n, first})
		},
		Connected: func(is bool) {
			o.mu.Lock()
			defer o.mu.Unlock()
			if is {
				o.counters.connected++
				return
			}
			o.counters.connected--
		},
		Retrying: func(reason error) {
			o.metrics.reconnects.Add(ctx, 1)
			if text := reason.Error(); text != told { // an unchanged one is told once
				told = text
				o.log.Warn().Err(reason).Msg("counter_connection_ended")
			}
		},
	})
	close(heard)
	patience := time.AfterFunc(settleGrace, cancel)
	defer patience.Stop()
	wg.Wait()
}

// counterValue is what the vendor said.
type counterValue struct {
	n     int64
	first bool // of a connection: told even if it is no news
}

// counterPublisher stores one user's values in the order in which they came.
type counterPublisher struct {
	o       *owner
	user    json.RawMessage
	subject string
	about   string // the key of the user's id

	// Owned by the owner's mutex.
	waiting []counterValue
	busy    bool // something waits or is being stored: the owner's end waits for it
	over    bool // nothing is stored any more

	news chan struct{} // holds one token when something waits

	// Of the goroutine that publishes.
	known bool   // last is
	last  uint64 // sequence of the subject's last event
	told  bool   // value is
	value int64  // the last one that was published here
}

func (p *counterPublisher) add(v counterValue) {
	p.o.mu.Lock()
	defer p.o.mu.Unlock()
	if p.over {
		return
	}
	if len(p.waiting) >= counterBacklog {
		p.waiting = p.waiting[1:]
	}
	p.waiting = append(p.waiting, v)
	if !p.busy {
		p.busy = true
		p.o.enter()
	}
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// take takes the oldest value; what was taken before is stored, or given up.
func (p *counterPublisher) take() (v counterValue, ok bool) {
	p.o.mu.Lock()
	defer p.o.mu.Unlock()
	if len(p.waiting) == 0 {
		p.rest()
		return v, false
	}
	v = p.waiting[0]
	p.waiting = p.waiting[1:]
	return v, true
}

// rest notes that nothing is under way. The owner's mutex is held.
func (p *counterPublisher) rest() {
	if p.busy {
		p.busy = false
		p.o.leave()
	}
}

// run publishes until no more values come and none waits, or ctx ends.
func (p *counterPublisher) run(ctx context.Context, heard <-chan struct{}) {
	defer func() {
		p.o.mu.Lock()
		defer p.o.mu.Unlock()
		p.over = true
		p.rest()
	}()
	over := false
	for {
		v, ok := p.take()
		switch {
		case ok && !p.publish(ctx, v), !ok && over:
			return
		case ok:
			continue
		}
		select {
		case <-p.news:
		case <-heard:
			over = true // after one more look
		case <-ctx.Done():
			return
		}
	}
}

// publish stores a value as the next of its subject, so that what a former owner
// may still have on its way can never come after it. It reports false when nothing
// can be stored any more.
func (p *counterPublisher) publish(ctx context.Context, v counterValue) bool {
	if p.told && p.value == v.n && !v.first {
		return true
	}
	body, err := json.Marshal(schema.CounterEvent{UserID: p.user, Counter: v.n})
	if err != nil {
		p.o.log.Error().Err(err).Msg("event_not_encoded")
		return true
	}
	e := queue.Event{
		Subject: p.subject, ID: "counter-" + p.about + "-" + p.o.lease.Epoch + "-" + strconv.FormatUint(p.o.nonces.Add(1), 36),
		Account: p.o.cfg.Account, Type: "wazzup.counter", CESubject: p.about, Time: time.Now(), Body: body,
	}
	for try := 1; ; try++ {
		err := p.next(ctx, e)
		switch {
		case err == nil:
			p.told, p.value = true, v.n
			return true
		case errors.Is(err, queue.ErrConflict):
			// Another owner was the last to publish: the former one, late, or the next.
			if owned, err := p.o.ledger.Owned(ctx); err == nil && !owned {
				return false
			}
		case errors.Is(err, queue.ErrFenced), errors.Is(err, queue.ErrStopped), ctx.Err() != nil:
			return false
		default:
			p.o.log.Warn().Err(err).Msg("counter_not_published_yet")
		}
		p.known = false
		timer := time.NewTimer(counterRetry * time.Duration(min(try, 10)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

func (p *counterPublisher) next(ctx context.Context, e queue.Event) error {
	if !p.known {
		last, err := p.o.ledger.LastEvent(ctx, p.subject)
		if err != nil {
			return err
		}
		p.last, p.known = last.Sequence, true
	}
	type result struct {
		seq uint64
		err error
	}
	done := make(chan result, 1)
	p.o.ledger.PublishNext(e, p.last, func(seq uint64, err error) { done <- result{seq, err} })
	select {
	case r := <-done:
		if r.err == nil {
			p.last = r.seq
		}
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
