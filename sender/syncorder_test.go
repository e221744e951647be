package sender_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// entities is what a vendor has whose requests never fail.
type entities map[string]map[string]string // by id: members but the id

func (e entities) upsert(id string, item map[string]any) {
	if e[id] == nil {
		e[id] = make(map[string]string)
	}
	for name, value := range item {
		if name != "id" {
			e[id][name] = fmt.Sprint(value)
		}
	}
}

// burst is a few entities and what is done to them, drawn from a seed.
type burst struct {
	*rig
	seed   uint64
	random *rand.Rand
	entity schema.Entity
	ids    []string
	want   entities
	bad    map[string][]string // by command: the entities that the vendor refuses in it
	serial int
}

// newBurst draws what a burst is about. Users are of one in ten, since a replace is
// about all of them.
func newBurst(r *rig, seed uint64) *burst {
	b := &burst{rig: r, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), entity: schema.EntityContacts, want: make(entities), bad: make(map[string][]string)}
	switch {
	case seed%10 == 1:
		b.entity = schema.EntityUsers
	case seed%2 == 1:
		b.entity = schema.EntityDeals
	}
	for i := range 1 + b.random.IntN(3) {
		b.ids = append(b.ids, strconv.FormatUint(1000+10*seed+uint64(i), 10))
	}
	return b
}

// rawID writes an id as a number or as a text: both are the same one.
func (b *burst) rawID(id string) any {
	if b.random.IntN(2) == 0 {
		return id
	}
	return json.Number(id)
}

// item draws an upsert of an entity: with all members, or some.
func (b *burst) item(id string) map[string]any {
	b.serial++
	item := map[string]any{"id": b.rawID(id), "name": fmt.Sprint("name ", b.serial)}
	if b.random.IntN(2) == 0 {
		item["phone"] = fmt.Sprint("phone ", b.serial)
	}
	if b.random.IntN(4) == 0 {
		delete(item, "name")
		item["note"] = fmt.Sprint("note ", b.serial)
	}
	return item
}

// items draws a command of upserts. The vendor refuses some contacts, and an entity
// may come twice.
func (b *burst) items(command string) []map[string]any {
	ids := b.some()
	if b.random.IntN(5) == 0 {
		ids = append(ids, ids[0])
	}
	items := []map[string]any{}
	for _, id := range ids {
		item := b.item(id)
		items = append(items, item)
		if b.entity == schema.EntityContacts && b.random.IntN(12) == 0 {
			item["chats"] = []any{map[string]any{"chatType": "whatsapp"}} // no chatId
			b.bad[command] = append(b.bad[command], id)
			continue
		}
		b.want.upsert(id, item)
	}
	return items
}

// some draws a few of the entities.
func (b *burst) some() []string {
	n := 1
	if b.random.IntN(3) == 0 {
		n += b.random.IntN(3)
	}
	ids := slices.Clone(b.ids)
	b.random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return ids[:min(n, len(ids))]
}

// publish stores one command, and does to what is wanted what it says.
func (b *burst) publish() {
	b.t.Helper()
	command := fmt.Sprintf("burst-%d-%d", b.seed, b.serial)
	b.serial++
	switch n := b.random.IntN(100); {
	case n < 60:
		b.sync(b.entity, schema.VerbUpsert, b.items(command), queue.WithID(command))
	case n < 97 || b.entity != schema.EntityUsers:
		var raw []any
		for _, id := range b.some() {
			delete(b.want, id)
			raw = append(raw, b.rawID(id))
		}
		b.sync(b.entity, schema.VerbDelete, raw, queue.WithID(command))
	default:
		clear(b.want)
		b.sync(b.entity, schema.VerbReplace, b.items(command), queue.WithID(command))
	}
}

// fail draws requests that fail: without an answer although they were carried out,
// unread, late, refused for the moment.
func (b *burst) fail() {
	b.t.Helper()
	for range 2 {
		rule := pick(b.random, []simulator.Rule{
			{Status: 500},
			{Status: 502, Body: "<html>"},
			{Status: 429, Headers: map[string]string{"Retry-After": "0"}},
			{Fault: simulator.FaultDropAfterAccept},
			{Fault: simulator.FaultDropBeforeRead},
			{Fault: simulator.FaultHang},
		})
		rule.Match, rule.After, rule.Times = simulator.Match{Path: "/v2/" + string(b.entity) + "*"}, b.random.IntN(12), 1
		if err := b.sim.AddRule(rule); err != nil {
			b.t.Fatal(err)
		}
	}
}

// check compares what the vendor has of the entities with what is wanted.
func (b *burst) check() {
	b.t.Helper()
	list := b.sim.Contacts()
	switch b.entity {
	case schema.EntityUsers:
		list = b.sim.Users()
	case schema.EntityDeals:
		list = b.sim.Deals()
	case schema.EntityContacts:
	}
	got := make(entities)
	for _, raw := range list {
		var item map[string]any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&item); err != nil {
			b.t.Fatal(err)
		}
		got.upsert(fmt.Sprint(item["id"]), item)
	}
	for _, id := range b.ids {
		if !maps.Equal(got[id], b.want[id]) {
			b.t.Errorf("seed %d: %s %s is %v, want %v", b.seed, b.entity, id, got[id], b.want[id])
		}
	}
}

// TestSyncOrder: a hundred bursts of upserts, deletes and replaces, each of a few
// entities of its own, leave the vendor with the last of each that it does not refuse,
// whatever fails and whoever dies meanwhile, and each command with its one end. Ten of them go on at the same time. One worker is told to
// stop in the middle, another is cut off from NATS at some write, and the last one
// does the rest.
func TestSyncOrder(t *testing.T) {
	t.Parallel()
	const seeds, together = 100, 10
	for from := uint64(0); from < seeds; from += together {
		t.Run(fmt.Sprint("seeds from ", from), func(t *testing.T) {
			t.Parallel()
			newRig(t).interleave(from, together)
		})
	}
}

func (r *rig) interleave(from, n uint64) {
	r.t.Helper()
	const each = 12 // commands of a burst
	random := rand.New(rand.NewPCG(from, 1))
	bursts := make([]*burst, n)
	for i := range bursts {
		bursts[i] = newBurst(r, from+uint64(i)) //nolint:gosec // small
		bursts[i].fail()
	}
	cfg := r.config()
	cfg.Timeout, cfg.MaxAttempts, cfg.SyncGather = 300*time.Millisecond, 100, time.Duration(1+random.IntN(10))*time.Millisecond
	publish := func(commands int) {
		for range commands {
			for _, i := range random.Perm(len(bursts)) {
				bursts[i].publish()
			}
		}
	}
	ends := each * len(bursts)
	publish(each / 2)
	stop := r.start(cfg)
	publish(each / 4)
	r.calls(1+random.IntN(10), ends)
	stop()
	cut := r.startCut(cfg, 50+random.IntN(300))
	publish(each / 4)
	select {
	case <-cut.lost:
		cut.die()
		r.expireLease()
		r.start(cfg)
	case <-r.ended(ends): // it had no more to write
	}
	bad := make(map[string][]string)
	for _, b := range bursts {
		maps.Copy(bad, b.bad)
	}
	for _, e := range r.finals(ends) {
		want := schema.StateDone
		if len(bad[e.ID]) > 0 {
			want = schema.StateRejected
		}
		var refused []string
		for _, item := range e.Items {
			refused = append(refused, schema.EntityID(item.ID))
		}
		if e.State != want || !slices.Equal(refused, bad[e.ID]) {
			r.t.Errorf("%s (%s) ended %s %+v, refused %v; want %s, %v", e.ID, e.Kind, e.State, e.Error, refused, want, bad[e.ID])
		}
	}
	for _, b := range bursts {
		b.check()
	}
	r.emptied()
	r.once()
}

// ends is how many commands have ended.
func (r *rig) ends() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, e := range r.events {
		if e.State.Final() {
			n++
		}
	}
	return n
}

// ended is closed when so many commands have ended.
func (r *rig) ended(n int) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			r.mu.Lock()
			change := r.change
			r.mu.Unlock()
			if r.ends() >= n {
				return
			}
			select {
			case <-change:
			case <-r.t.Context().Done():
				return
			}
		}
	}()
	return done
}

// calls waits until the vendor has had so many more requests, or so many commands
// have ended.
func (r *rig) calls(n, ends int) {
	r.t.Helper()
	had := make(chan error, 1)
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	n += r.sim.View().Requests
	go func() { had <- r.sim.Wait(ctx, func(v *simulator.View) bool { return v.Requests >= n }) }()
	select {
	case err := <-had:
		if err != nil {
			r.t.Fatal(err)
		}
	case <-r.ended(ends):
	}
}

// startCut starts a worker that is cut off from NATS for good after it has sent so
// many frames.
func (r *rig) startCut(cfg sender.Config, frames int) *mortal {
	r.t.Helper()
	w := &mortal{t: r.t, lost: make(chan struct{}), good: true}
	var left atomic.Int64
	left.Store(int64(frames))
	c := newCutter(r.t, r.srv.URL(), func(toClient bool, _ []byte) bool {
		if !toClient && left.Add(-1) == 0 {
			w.lose()
		}
		return w.dead.Load()
	})
	w.nc = queuetest.Conn(r.t, c)
	w.stop = r.startOn(w.nc, cfg)
	return w
}
