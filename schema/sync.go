package schema

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// rawSync is the object around a sync command's body, split into its members.
// It is an envelope if items is an array, and otherwise an entity by itself.
type rawSync struct {
	id, meta, group, items []byte
	twice                  []string // known names that came more than once
	others                 []string // all other names
}

func (d *decoding) syncCommand(entity Entity, verb Verb, body []byte) (*Command, []Fault) {
	c := &Command{Sync: &Sync{Entity: entity, Verb: verb, Items: []json.RawMessage{}, IDs: []json.RawMessage{}}}
	if len(body) > MaxBodySize {
		d.faults.add("", FaultBodyTooLarge)
		return c, d.faults
	}
	before := d.faults
	if !d.sync(c, body) {
		d.faults = before
		d.notJSON(body)
	}
	return c, d.faults
}

// sync reports whether the body is JSON.
func (d *decoding) sync(c *Command, body []byte) bool {
	r := &d.reader
	r.reset(body)
	switch r.dec.PeekKind() {
	case jsontext.KindBeginArray:
		list, err := r.value()
		if err != nil {
			return false
		}
		d.checkRest()
		d.items(c.Sync, path{}, list)
		return true
	case jsontext.KindBeginObject:
		return d.syncObject(c, body)
	default:
		d.wrongValue(body, "must be an object or an array")
		return true
	}
}

func (d *decoding) syncObject(c *Command, body []byte) bool {
	object, err := d.reader.value()
	if err != nil {
		// What came before the place where it breaks may still tell the id.
		if raw := d.splitSync(body); isArray(raw.items) {
			c.ID, c.Meta, c.Group = d.identity(&raw)
		}
		return false
	}
	d.checkRest()
	raw := d.splitSync(object)
	if !isArray(raw.items) {
		d.item(c.Sync, path{}, object, 0, false)
		return true
	}
	c.ID, c.Meta, c.Group = d.identity(&raw)
	for _, name := range raw.twice {
		d.faults.add(name, FaultDuplicateName)
	}
	for _, name := range raw.others {
		d.faults.add(name, FaultUnknownField)
	}
	d.items(c.Sync, path{prefix: "items"}, raw.items)
	return true
}

func (d *decoding) identity(raw *rawSync) (id string, meta json.RawMessage, group string) {
	id, _ = d.shortText("id", raw.id, MaxIDLength)
	return id, d.meta(raw.meta), d.group(raw.group)
}

// splitSync splits an object, up to the place where it breaks if it does.
func (d *decoding) splitSync(object []byte) rawSync {
	var raw rawSync
	r := &d.reader
	r.reset(object)
	if r.open() != nil {
		return raw
	}
	for {
		quoted, value, ok, err := r.member()
		if err != nil || !ok {
			return raw
		}
		name, _ := unquote(quoted)
		var field *[]byte
		switch string(name) {
		case "id":
			field = &raw.id
		case "meta":
			field = &raw.meta
		case "group":
			field = &raw.group
		case "items":
			field = &raw.items
		default:
			raw.others = append(raw.others, cut(string(name), MaxFieldLength))
			continue
		}
		if *field != nil {
			raw.twice = append(raw.twice, string(name))
			continue
		}
		*field = value
	}
}

func isArray(raw []byte) bool { return len(raw) > 0 && raw[0] == '[' }

// path names a part of the body without building its text before there is a
// fault to report: prefix[index].name.
type path struct {
	prefix  string
	index   int
	indexed bool
	name    string
}

func (p path) at(index int) path { return path{prefix: p.prefix, index: index, indexed: true} }

func (p path) member(name string) path {
	p.name = name
	return p
}

func (p path) String() string {
	s := p.prefix
	if p.indexed {
		s += "[" + strconv.Itoa(p.index) + "]"
	}
	if p.name != "" {
		s = join(s, p.name)
	}
	return s
}

func (d *decoding) items(s *Sync, list path, raw []byte) {
	all := d.reader.elements(raw)
	if len(all) == 0 && s.Verb != VerbReplace {
		d.faults.addText(list.String(), FaultEmpty, "an empty list is allowed only for replace, where it deletes all")
	}
	s.IDs = make([]json.RawMessage, 0, len(all))
	if s.Verb != VerbDelete {
		s.Items = make([]json.RawMessage, 0, len(all))
	}
	outer := 1 // the array itself
	if list.prefix != "" {
		outer = 2 // and the envelope around it
	}
	// Most lists are clean as a whole, which is found out much faster than item
	// by item.
	strict := !deeper(raw, MaxDepth-outer+1) && clean(raw)
	for i, item := range all {
		if d.faults.full() {
			return
		}
		d.item(s, list.at(i), item, outer, strict)
	}
}

// item checks one item that lies outer levels deep in the body, and appends it
// if it is usable. It is known to be neither too deep nor unclean if strict.
func (d *decoding) item(s *Sync, p path, raw []byte, outer int, strict bool) {
	if !strict && deeper(raw, MaxDepth-outer) {
		d.faults.add(p.String(), FaultTooDeep)
		return
	}
	if !strict && !clean(raw) {
		d.reader.reset(raw)
		d.reader.sweep(p.String(), &d.faults)
	}
	if s.Verb == VerbDelete {
		d.deletion(s, p, raw)
		return
	}
	if raw[0] != '{' {
		d.faults.addText(p.String(), FaultWrongType, "must be an object")
		return
	}
	if id, ok := d.entity(s, p, raw); ok {
		s.Items = append(s.Items, raw)
		s.IDs = append(s.IDs, id)
	}
}

// deletion reads an id, or an object with an id and nothing else: an object
// with more might mean a condition, which a delete would not heed.
func (d *decoding) deletion(s *Sync, p path, raw []byte) {
	if raw[0] == '{' {
		object := raw
		raw, p = nil, p.member("id")
		d.eachMember(object, func(name string, value []byte) {
			switch {
			case name != "id":
				d.faults.add(p.member(name).String(), FaultUnknownField)
			case raw == nil:
				raw = value
			}
		})
	}
	if id, ok := d.entityID(s, p, raw); ok {
		s.IDs = append(s.IDs, id)
	}
}

// eachMember reads an object that is known to be JSON.
func (d *decoding) eachMember(object []byte, visit func(name string, value []byte)) {
	r := &d.reader
	r.reset(object)
	if r.open() != nil {
		return
	}
	for {
		quoted, value, ok, err := r.member()
		if err != nil || !ok {
			return
		}
		name, _ := unquote(quoted)
		visit(string(name), value)
	}
}

// entity checks the fields that the manual knows and leaves all others alone;
// ok is false if its id is not usable.
func (d *decoding) entity(s *Sync, p path, raw []byte) (id json.RawMessage, ok bool) {
	var given struct{ id, responsible, name, chats, deals, closed, contacts []byte }
	d.eachMember(raw, func(name string, value []byte) {
		switch name {
		case "id":
			given.id = value
		case "responsibleUserId":
			given.responsible = value
		case "name":
			given.name = value
		case "chats":
			given.chats = value
		case "deals":
			given.deals = value
		case "closed":
			given.closed = value
		case "contacts":
			given.contacts = value
		}
	})
	id, ok = d.entityID(s, p.member("id"), given.id)
	d.entityName(s.Entity, p.member("name"), given.name)
	switch s.Entity {
	case EntityContacts:
		d.stringOrNumber(p.member("responsibleUserId"), given.responsible)
		d.chats(p.member("chats"), given.chats)
		d.references(p.member("deals"), given.deals)
	case EntityDeals:
		d.stringOrNumber(p.member("responsibleUserId"), given.responsible)
		d.closed(p.member("closed"), given.closed)
		d.references(p.member("contacts"), given.contacts)
	case EntityUsers:
	}
	return id, ok
}

// entityID returns an item's id. A user's is a string of up to 64 characters or
// an integer (manual). The manual gives a deal's as a number and a contact's as
// either; both may be either here, since ids are compared by their text, and a
// client that keeps its ids as text should not have to convert them.
func (d *decoding) entityID(s *Sync, p path, raw []byte) (id json.RawMessage, ok bool) {
	limit, types := MaxEntityIDLength, "must be a string or a number"
	if s.Entity == EntityUsers {
		limit, types = MaxUserIDLength, "must be a string or an integer"
	}
	switch kind := kindOf(raw); {
	case raw == nil:
		d.faults.add(p.String(), FaultRequired)
		return nil, false
	case kind == jsontext.KindNumber:
		if s.Entity == EntityUsers && bytes.ContainsAny(raw, ".eE") {
			d.faults.addText(p.String(), FaultWrongType, types)
			return nil, false
		}
	case kind != jsontext.KindString:
		d.faults.addText(p.String(), FaultWrongType, types)
		return nil, false
	}
	text := EntityID(raw)
	switch {
	case text == "":
		d.faults.add(p.String(), FaultEmpty)
		return nil, false
	case utf8.RuneCountInString(text) > limit:
		d.faults.addText(p.String(), FaultTooLong, tooLong(limit))
		return nil, false
	case s.Verb == VerbDelete && (text == "." || text == ".."):
		// The id becomes a segment of the call's path, and servers resolve
		// these two even where they are percent-encoded.
		d.faults.addText(p.String(), FaultNotAllowed, "must not be . or .. in a delete")
		return nil, false
	}
	return raw, true
}

func (d *decoding) entityName(e Entity, p path, raw []byte) {
	if raw == nil {
		return
	}
	if raw[0] != '"' {
		d.faults.addText(p.String(), FaultWrongType, "must be a string")
		return
	}
	if e != EntityUsers || len(raw) <= MaxUserNameLength {
		return
	}
	// The sweep has reported bad UTF-8 already.
	if name, _ := unquote(raw); utf8.RuneCount(name) > MaxUserNameLength {
		d.faults.addText(p.String(), FaultTooLong, tooLong(MaxUserNameLength))
	}
}

func (d *decoding) stringOrNumber(p path, raw []byte) {
	if raw == nil {
		return
	}
	if k := kindOf(raw); k != jsontext.KindString && k != jsontext.KindNumber {
		d.faults.addText(p.String(), FaultWrongType, "must be a string or a number")
	}
}

func (d *decoding) closed(p path, raw []byte) {
	if raw == nil {
		return
	}
	if k := kindOf(raw); k != jsontext.KindTrue && k != jsontext.KindFalse {
		d.faults.addText(p.String(), FaultWrongType, "must be true or false")
	}
}

// chats checks a contact's chats: [{"chatType": string, "chatId": string or number}].
func (d *decoding) chats(p path, raw []byte) {
	if raw == nil {
		return
	}
	if raw[0] != '[' {
		d.faults.addText(p.String(), FaultWrongType, "must be an array of objects")
		return
	}
	list := path{prefix: p.String()}
	for i, chat := range d.reader.elements(raw) {
		if d.faults.full() {
			return
		}
		q := list.at(i)
		if chat[0] != '{' {
			d.faults.addText(q.String(), FaultWrongType, "must be an object")
			continue
		}
		d.eachMember(chat, func(name string, value []byte) {
			switch name {
			case "chatType":
				if value[0] != '"' {
					d.faults.addText(q.member(name).String(), FaultWrongType, "must be a string")
				}
			case "chatId":
				d.stringOrNumber(q.member(name), value)
			}
		})
	}
}

// references checks the ids of a contact's deals or a deal's contacts. The
// manual calls them ids and also objects, so objects pass.
func (d *decoding) references(p path, raw []byte) {
	if raw == nil {
		return
	}
	if raw[0] != '[' {
		d.faults.addText(p.String(), FaultWrongType, "must be an array")
		return
	}
	list := path{prefix: p.String()}
	for i, ref := range d.reader.elements(raw) {
		if d.faults.full() {
			return
		}
		switch kindOf(ref) {
		case jsontext.KindString, jsontext.KindNumber, jsontext.KindBeginObject:
		default:
			d.faults.addText(list.at(i).String(), FaultWrongType, "must be a string or a number")
		}
	}
}

// EntityID is the text by which an entity's id is compared: the text of a JSON
// string, or of a JSON number as it is written, never as a float. So "17" and 17
// are one id, and 17 and 17.0 are two. It is "" for anything else.
func EntityID(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	switch kindOf(raw) {
	case jsontext.KindNumber:
		return string(raw)
	case jsontext.KindString:
		if len(raw) < 2 || raw[len(raw)-1] != '"' {
			return ""
		}
		text, _ := unquote(raw)
		return string(text)
	default:
		return ""
	}
}
