package sender

import (
	"encoding/json"
	"slices"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// syncWork is what a sync command has to do, item by item, and how far it is. It is
// in memory only: whoever takes the account over does the whole again, which
// changes nothing, since nothing that came later has been recorded as done by then.
type syncWork struct {
	ids    []string // of its entities, each once
	items  []syncItem
	ahead  int  // lines of its entities in which another command comes first
	repeat bool // an entity comes more than once, and its items cannot be one

	// While it is gathered.
	batch  *batch
	before []*command // those of its batch that its items follow
	after  []*command // those of its batch that follow its items
	awaits int        // of before, those whose claim, later whose end, is not durable
	late   *outcome   // it must not be called any more
	failed *failure   // why items are left
	status int        // of the last answer about one of its items
	ended  *outcome   // what it comes to, once those before it have been recorded
}

// syncItem is one entity of a command.
type syncItem struct {
	id    string
	raw   json.RawMessage // the id as the producer wrote it
	value json.RawMessage // of an upsert
	state itemState
	by    *command      // of one that was superseded: whose item took its place
	err   *schema.Error // of one that was refused
	whole bool          // the refusal was of the request rather than of this item
}

type itemState uint8

const (
	itemLeft       itemState = iota // to be sent
	itemTaken                       // the vendor took it
	itemSuperseded                  // the vendor took a newer one that has all its keys
	itemRefused                     // the vendor refused it for good
)

// failure is why a request did not settle its items.
type failure struct {
	called  bool // there was a call
	answer  wazzup.Answer
	verdict Verdict
	err     *schema.Error // of one without a call, where there is something to tell
}

// newSyncWork lists a command's items.
func newSyncWork(s *schema.Sync) *syncWork {
	if s.Verb == schema.VerbReplace { // one whole, about all entities
		return &syncWork{items: make([]syncItem, 1)}
	}
	w := &syncWork{items: make([]syncItem, 0, len(s.IDs)), ids: make([]string, 0, len(s.IDs))}
	seen := make(map[string]bool, len(s.IDs))
	for i, raw := range s.IDs {
		it := syncItem{id: schema.EntityID(raw), raw: raw}
		if s.Verb != schema.VerbDelete {
			it.value = s.Items[i]
		}
		w.items = append(w.items, it)
		if !seen[it.id] {
			seen[it.id] = true
			w.ids = append(w.ids, it.id)
		}
	}
	return w
}

// left is how many items are still to be sent.
func (w *syncWork) left() int {
	n := 0
	for i := range w.items {
		if w.items[i].state == itemLeft {
			n++
		}
	}
	return n
}

// again has items sent once more with the command's next attempt.
func (w *syncWork) again() {
	for i := range w.items {
		w.items[i].state, w.items[i].by, w.items[i].err = itemLeft, nil, nil
	}
}

// refuse notes that an item was refused for good.
func (w *syncWork) refuse(item int, e *schema.Error, whole bool) {
	it := &w.items[item]
	it.state, it.err, it.whole = itemRefused, e, whole
	w.status = e.HTTPStatus
}

// leave notes why items are left. What a call met counts before what was not called.
func (w *syncWork) leave(f *failure) {
	if w.failed == nil || !w.failed.called {
		w.failed = f
	}
}

// refused lists the items that the vendor refused, unless a refusal of the whole
// request is all that any of them met.
func (w *syncWork) refused() (items []schema.ItemError) {
	if !slices.ContainsFunc(w.items, func(it syncItem) bool { return it.state != itemRefused || !it.whole }) {
		return nil
	}
	for i := range w.items {
		if it := &w.items[i]; it.state == itemRefused {
			items = append(items, schema.ItemError{ID: it.raw, Error: it.err})
			if len(items) == maxRefused {
				break
			}
		}
	}
	return items
}

// refusal is the refusal of a whole request, if that is all that its items met.
func (w *syncWork) refusal() *schema.Error {
	for i := range w.items {
		if it := &w.items[i]; it.state == itemRefused && it.whole {
			return it.err
		}
	}
	return nil
}

// supersededBy is the newest of the commands that took the place of a command of
// which nothing was sent; nil: something was.
func (w *syncWork) supersededBy() *command {
	var newest *command
	for i := range w.items {
		it := &w.items[i]
		if it.state != itemSuperseded {
			return nil
		}
		if newest == nil || newest.place.before(it.by.place) {
			newest = it.by
		}
	}
	return newest
}
