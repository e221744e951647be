package ingest

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Keys of a webhook body, each with an array of many items.
const (
	keyMessages     = "messages"
	keyStatuses     = "statuses"
	keyChannels     = "channels"
	keyChannelsList = "channelsList"
	keyTest         = "test" // {"test":true}: the successor API's test request
)

// The successor API's own keys.
func isV3Key(name string) bool {
	switch name {
	case "channelsUpdates", "createContact", "createDeal", "templateStatus":
		return true
	}
	return false
}

// itemKind says what an item of a body becomes.
type itemKind int

const (
	itemMessage itemKind = iota
	itemStatus
	itemChannel
	itemList       // the whole array of channelsList
	itemQuarantine // could not be understood
)

// item is one element of a webhook body, or what could not be understood of it.
type item struct {
	kind itemKind
	// raw is the vendor's JSON, byte for byte. It aliases the body, except
	// where an unknown member had to be put into an object of its own.
	raw  []byte
	hash string // itemMessage, itemChannel, itemList: see hash

	direction string // itemMessage: "in" or "out"
	messageID string // itemMessage, itemStatus
	channelID string // itemMessage, itemChannel
	chatType  string // itemMessage
	chatID    string // itemMessage
	status    string // itemStatus: the number's text
	word      string // itemStatus: what the number means
	state     string // itemChannel
	clash     bool   // itemStatus: the vendor's object has members of the names that we add

	reason schema.QuarantineReason // itemQuarantine
	key    string                  // itemQuarantine: key of the body it came under; "" for a whole body
}

// split takes a webhook body apart. It returns nothing for a body that carries
// nothing: an empty one, {"test":true}, empty arrays. Nothing of any other body
// is left out: what is not understood is an item too.
func split(body []byte) []item {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	whole := func(r schema.QuarantineReason) []item {
		return []item{{kind: itemQuarantine, raw: body, reason: r}}
	}
	if !utf8.Valid(body) {
		return whole(schema.QuarantineNotJSON)
	}
	s := newSplitter(body)
	err := s.body()
	switch {
	case errors.Is(err, errShape):
		return whole(schema.QuarantineShape)
	case err != nil:
		return whole(schema.QuarantineNotJSON)
	case s.v3:
		return whole(schema.QuarantineV3)
	case !s.known && s.unknown:
		return whole(schema.QuarantineShape)
	}
	return s.items
}

// newDecoder reads a body without copying it. Repeated names and lone
// surrogates (`"\ud83d"`, half an emoji in a name that was cut) are let through:
// JavaScript writes and reads both, and the item is kept as it is anyway.
func newDecoder(body []byte) *jsontext.Decoder {
	return jsontext.NewDecoder(bytes.NewBuffer(body),
		jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

var errShape = errors.New("JSON of another shape")

type splitter struct {
	text    []byte // what dec reads
	dec     *jsontext.Decoder
	members []member // of the object that was read last
	items   []item
	known   bool // a key of the manual was there
	unknown bool // something else was there, {"test":true} aside
	v3      bool
}

func newSplitter(text []byte) *splitter {
	return &splitter{text: text, dec: newDecoder(text), members: make([]member, 0, 16)}
}

// body reads the whole body. Syntax is checked to the end before anything is
// said about the shape, so that a cut-off body is never taken for a strange one.
func (s *splitter) body() error {
	if s.dec.PeekKind() != '{' {
		value, err := s.dec.ReadValue()
		if err != nil {
			return err
		}
		if err := s.end(); err != nil {
			return err
		}
		if emptyContainer(value) {
			return nil
		}
		return errShape
	}
	if _, err := s.dec.ReadToken(); err != nil {
		return err
	}
	for s.dec.PeekKind() != '}' {
		if err := s.member(); err != nil {
			return err
		}
	}
	if _, err := s.dec.ReadToken(); err != nil {
		return err
	}
	return s.end()
}

func (s *splitter) end() error {
	_, err := s.dec.ReadToken()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return errors.New("text after the JSON value")
}

func (s *splitter) member() error {
	name, quoted, err := s.name()
	if err != nil {
		return err
	}
	switch name {
	case keyMessages, keyStatuses, keyChannels, keyChannelsList:
		switch s.dec.PeekKind() {
		case '[':
			s.known = true
			if name == keyChannelsList {
				return s.list()
			}
			return s.array(name)
		case 'n':
			s.known = true
			return s.dec.SkipValue()
		}
	}
	s.v3 = s.v3 || isV3Key(name)
	value, err := s.dec.ReadValue()
	if err != nil {
		return err
	}
	if name == keyTest && value.Kind() == 't' {
		return nil
	}
	s.unknown = true
	s.keep(name, quoted, value)
	return nil
}

// keep saves a member that the manual does not know, in an object of its own.
// A plain value beside known keys (a time stamp, say) is no news; the same value
// under one of the known keys is, since an array was expected there.
func (s *splitter) keep(name string, quoted, value jsontext.Value) {
	isKnownName := false
	switch name {
	case keyMessages, keyStatuses, keyChannels, keyChannelsList:
		isKnownName = true
	}
	holds := (value.Kind() == '{' || value.Kind() == '[') && !emptyContainer(value)
	if !holds && !isKnownName {
		return
	}
	raw := make([]byte, 0, len(quoted)+len(value)+3)
	raw = append(raw, '{')
	raw = append(raw, quoted...)
	raw = append(raw, ':')
	raw = append(raw, value...)
	raw = append(raw, '}')
	if !isKnownName {
		name = "" // a name that nobody vouches for goes into no header
	}
	s.items = append(s.items, item{kind: itemQuarantine, raw: raw, reason: schema.QuarantineShape, key: name})
}

// list keeps the new channel list whole. An empty one is taken for part of a
// test body: if the last channel was really removed, the poll of the list says
// so, whereas believing a test body would close every channel.
func (s *splitter) list() error {
	value, err := s.dec.ReadValue()
	if err != nil || emptyContainer(value) {
		return err
	}
	s.items = append(s.items, item{kind: itemList, raw: value, hash: hash(value)})
	return nil
}

func (s *splitter) array(key string) error {
	if _, err := s.dec.ReadToken(); err != nil {
		return err
	}
	for s.dec.PeekKind() != ']' {
		it, err := s.element(key)
		if err != nil {
			return err
		}
		s.items = append(s.items, it)
	}
	_, err := s.dec.ReadToken()
	return err
}

// fields are the members of an item that decide where it goes.
type fields struct {
	messageID, channelID, chatType, chatID scalar
	status, authorType, state              scalar
	dateTime, timestamp                    scalar
	isEcho, ours                           bool
}

// element reads one item of an array and says what it is.
func (s *splitter) element(key string) (item, error) {
	if s.dec.PeekKind() != '{' {
		raw, err := s.dec.ReadValue()
		return item{kind: itemQuarantine, raw: raw, reason: schema.QuarantineBadItem, key: key}, err
	}
	raw, err := s.object()
	if err != nil {
		return item{}, err
	}
	f := readFields(s.members)
	var it item
	var reason schema.QuarantineReason
	switch key {
	case keyMessages:
		it, reason = f.message()
	case keyStatuses:
		it, reason = f.statusItem()
	case keyChannels:
		it, reason = f.channel()
	}
	switch {
	case reason == schema.QuarantineV3:
		s.v3 = true
	case reason != "":
		it = item{kind: itemQuarantine, reason: reason, key: key}
	case it.kind != itemStatus:
		it.hash = hashMembers(s.members)
	}
	it.raw = raw
	return it, nil
}

// object reads an object; its members are in s.members until the next one.
func (s *splitter) object() (raw []byte, err error) {
	if _, err := s.dec.ReadToken(); err != nil {
		return nil, err
	}
	start := s.dec.InputOffset() - 1
	s.members = s.members[:0]
	for s.dec.PeekKind() != '}' {
		name, err := s.dec.ReadValue()
		if err != nil {
			return nil, err
		}
		value, err := s.dec.ReadValue()
		if err != nil {
			return nil, err
		}
		s.members = append(s.members, member{name, value})
	}
	if _, err := s.dec.ReadToken(); err != nil {
		return nil, err
	}
	return s.text[start:s.dec.InputOffset()], nil
}

// member is one member of an object, as it was written.
type member struct{ name, value jsontext.Value }

// is compares the member's name without making a string of it.
func (m member) is(quoted string) bool {
	return string(m.name) == quoted ||
		bytes.IndexByte(m.name, '\\') >= 0 && unquote(m.name) == quoted[1:len(quoted)-1]
}

func readFields(members []member) fields {
	var f fields
	for _, m := range members {
		switch {
		case m.is(`"messageId"`):
			f.messageID = newScalar(m.value)
		case m.is(`"channelId"`):
			f.channelID = newScalar(m.value)
		case m.is(`"chatType"`):
			f.chatType = newScalar(m.value)
		case m.is(`"chatId"`):
			f.chatID = newScalar(m.value)
		case m.is(`"status"`):
			f.status = newScalar(m.value)
		case m.is(`"authorType"`):
			f.authorType = newScalar(m.value)
		case m.is(`"state"`):
			f.state = newScalar(m.value)
		case m.is(`"dateTime"`):
			f.dateTime = newScalar(m.value)
		case m.is(`"timestamp"`):
			f.timestamp = newScalar(m.value)
		case m.is(`"isEcho"`):
			f.isEcho = m.value.Kind() == 't' || m.value.Kind() == 'f'
		case m.is(`"commandId"`), m.is(`"meta"`):
			f.ours = true
		}
	}
	return f
}

// name reads an object member's name, decoded and as it was written.
func (s *splitter) name() (string, jsontext.Value, error) {
	quoted, err := s.dec.ReadValue()
	if err != nil {
		return "", nil, err
	}
	return unquote(quoted), quoted, nil
}

// message sorts a message: incoming if either the status or the author says so.
func (f *fields) message() (item, schema.QuarantineReason) {
	if f.isEcho || f.status.isWord() || f.dateTime.isISO() {
		return item{}, schema.QuarantineV3
	}
	if !f.messageID.ok || !f.channelID.ok || !f.chatType.ok || !f.chatID.ok {
		return item{}, schema.QuarantineBadItem
	}
	if f.status.wrong || !f.status.ok && !f.authorType.ok {
		return item{}, schema.QuarantineBadItem // from whom is part of the address
	}
	if f.status.ok && f.status.text != statusInbound && schema.StatusWord(f.status.text) == "" {
		return item{}, schema.QuarantineUnknownStatus
	}
	direction := "out"
	if f.status.text == statusInbound || f.authorType.text == authorClient {
		direction = "in"
	}
	return item{
		kind: itemMessage, direction: direction, messageID: f.messageID.text,
		channelID: f.channelID.text, chatType: f.chatType.text, chatID: f.chatID.text,
	}, ""
}

func (f *fields) statusItem() (item, schema.QuarantineReason) {
	if f.status.isWord() || f.timestamp.isISO() || f.dateTime.isISO() {
		return item{}, schema.QuarantineV3
	}
	if !f.messageID.ok || !f.status.ok {
		return item{}, schema.QuarantineBadItem
	}
	word := schema.StatusWord(f.status.text)
	if word == "" {
		return item{}, schema.QuarantineUnknownStatus
	}
	return item{
		kind: itemStatus, messageID: f.messageID.text, status: f.status.text, word: word, clash: f.ours,
	}, ""
}

func (f *fields) channel() (item, schema.QuarantineReason) {
	if !f.channelID.ok || !f.state.ok {
		return item{}, schema.QuarantineBadItem
	}
	return item{kind: itemChannel, channelID: f.channelID.text, state: f.state.text}, ""
}

const (
	statusInbound = "99" // status of a message from the customer
	authorClient  = "99" // authorType of the customer
)

// scalar is a member that the vendor writes as a string or as a number.
type scalar struct {
	text  string // of a number: as it was written
	ok    bool   // there, and not empty
	wrong bool   // there, but neither string nor number
	quote bool   // it was a string
}

func newScalar(v jsontext.Value) scalar {
	switch v.Kind() {
	case '"':
		text := unquote(v)
		return scalar{text: text, ok: text != "", quote: true}
	case '0':
		return scalar{text: string(v), ok: true}
	case 'n':
		return scalar{}
	}
	return scalar{wrong: true}
}

// isWord: the successor API writes statuses as words.
func (s scalar) isWord() bool {
	for i := range len(s.text) {
		if c := s.text[i] | 0x20; c < 'a' || c > 'z' {
			return false
		}
	}
	return s.quote && s.ok
}

// isISO: the successor API writes times as 2026-11-22T10:00:00.000Z.
func (s scalar) isISO() bool {
	if !s.quote || len(s.text) < len("2026-11-22T") || s.text[10] != 'T' {
		return false
	}
	for i := range 10 {
		c := s.text[i]
		if i == 4 || i == 7 {
			if c != '-' {
				return false
			}
		} else if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// unquote decodes a JSON string; lone surrogates become U+FFFD.
func unquote(quoted jsontext.Value) string {
	if inner := quoted[1 : len(quoted)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return string(inner)
	}
	// The value is valid JSON, so the only error left is about surrogates, and
	// the text is complete all the same.
	text, _ := jsontext.AppendUnquote(nil, quoted)
	return string(text)
}

func emptyContainer(v jsontext.Value) bool {
	switch v.Kind() {
	case '{', '[':
		return len(bytes.TrimSpace(v[1:len(v)-1])) == 0
	}
	return false
}
