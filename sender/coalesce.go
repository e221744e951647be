package sender

import (
	"bytes"
	"encoding/json"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// entry is one entity of a request: an item, and the older ones whose place it takes.
type entry struct {
	id     string
	takers []taker // oldest first; the value of the last is sent
}

// taker is an item of a command.
type taker struct {
	c    *command
	item int
}

func (t taker) it() *syncItem { return &t.c.work.items[t.item] }

// value is what is sent of the entry.
func (s *entry) value() json.RawMessage { return s.takers[len(s.takers)-1].it().value }

// taken notes that the vendor has the entry's value: the older items are superseded.
func (s *entry) taken(status int) {
	last := s.takers[len(s.takers)-1]
	for _, t := range s.takers {
		t.c.work.status = status
		it := t.it()
		it.state = itemTaken
		if t.c != last.c {
			it.state, it.by = itemSuperseded, last.c
		}
	}
}

// refused notes that the vendor refused the entry's value for good. The item before it, if
// there is one, was never asked for: it has its turn now, for the refusal of an
// update leaves in force what was to be updated. more reports whether there is one.
func (s *entry) refused(e *schema.Error) (more bool) {
	t := s.takers[len(s.takers)-1]
	t.c.work.refuse(t.item, e, false)
	s.takers = s.takers[:len(s.takers)-1]
	return len(s.takers) > 0
}

// refusedWhole notes that the vendor refused every request of its kind.
func (s *entry) refusedWhole(e *schema.Error) {
	for _, t := range s.takers {
		t.c.work.refuse(t.item, e, true)
	}
}

// left notes that the entry's items have to be sent again.
func (s *entry) left(f *failure) {
	for _, t := range s.takers {
		t.c.work.leave(f)
	}
}

// coalesced is the items of several commands as the entries of requests.
type coalesced struct {
	entries []*entry
	last    map[string]*entry // by entity: its last entry
}

// add puts a command's items that are left behind those that are there.
func (q *coalesced) add(c *command) {
	if q.last == nil {
		q.last = make(map[string]*entry)
	}
	for i := range c.work.items {
		it := &c.work.items[i]
		if it.state != itemLeft {
			continue
		}
		t := taker{c, i}
		s := q.last[it.id]
		if s != nil && covers(it.value, s.value()) {
			s.takers = append(s.takers, t)
			continue
		}
		if s != nil {
			c.work.repeat = true
		}
		s = &entry{id: it.id, takers: []taker{t}}
		q.last[it.id] = s
		q.entries = append(q.entries, s)
	}
}

// fresh tells what a command would add: new entries, and whether each of its other
// items may take the place of the one that is there.
func (q *coalesced) fresh(c *command) (entries, size int, fits bool) {
	for i := range c.work.items {
		it := &c.work.items[i]
		s := q.last[it.id]
		switch {
		case it.state != itemLeft:
		case s == nil:
			entries, size = entries+1, size+len(it.value)+1
		case !covers(it.value, s.value()):
			return 0, 0, false
		}
	}
	return entries, size, true
}

// covers reports whether a newer object has all members of an older one, so that
// the older need not be sent: an upsert changes the members that it has.
func covers(newer, older json.RawMessage) bool {
	names := make(map[string]struct{})
	if !eachName(newer, func(name string) bool {
		names[name] = struct{}{}
		return true
	}) {
		return false
	}
	return eachName(older, func(name string) bool {
		_, ok := names[name]
		return ok
	})
}

// eachName visits the names of an object's members until one is not wanted; false:
// one was not, or it is no object.
func eachName(object json.RawMessage, visit func(name string) bool) bool {
	d := jsontext.NewDecoder(bytes.NewReader(object))
	if t, err := d.ReadToken(); err != nil || t.Kind() != jsontext.KindBeginObject {
		return false
	}
	for d.PeekKind() != jsontext.KindEndObject {
		name, err := d.ReadToken()
		if err != nil || !visit(name.String()) || d.SkipValue() != nil {
			return false
		}
	}
	return true
}
