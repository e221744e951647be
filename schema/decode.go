package schema

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Decode reads and checks the body of a command that was published to the
// account, kind and channel token (“ for sync commands) of a subject.
//
// It returns every fault, each named by its field, or none if the command may be
// carried out; [CheckSchedule] is the one rule that is left to the caller, who
// knows when the command was stored. A body that is not JSON has one fault, and
// so has one that is larger than MaxBodySize.
//
// The command is never nil, nor is its Message or Sync where the kind has one.
// With faults it holds what could be understood, so that an `invalid` event can
// echo it: id, group and meta only where they meet their rules.
//
// Meta, Items and IDs are parts of body, which must not be changed afterwards.
// Decode keeps nothing else of it, and may be called by many goroutines at once.
func Decode(account string, kind Kind, channelToken string, body []byte) (*Command, []Fault) {
	d := &decoding{}
	if !ValidAccount(account) {
		d.faults.add("", FaultNotAnAccount)
	}
	if kind.IsMessage() {
		return d.messageCommand(channelToken, body)
	}
	if entity, verb, ok := kind.Sync(); ok {
		return d.syncCommand(entity, verb, body)
	}
	d.faults.add("", FaultUnknownKind)
	return &Command{}, d.faults
}

// decoding is the state of one Decode.
type decoding struct {
	reader reader
	faults faultList
}

// fields of a message command, in the order in which their faults are listed.
type messageField uint8

const (
	fieldID messageField = iota
	fieldChannelID
	fieldChatType
	fieldChatID
	fieldText
	fieldContent
	fieldRefMessageID
	fieldSendAt
	fieldExpireAt
	fieldOnUnknown
	fieldMeta
	fieldGroup
	messageFields // how many there are
)

func (f messageField) name() string {
	return [messageFields]string{
		"id", "channelId", "chatType", "chatId", "text", "content",
		"refMessageId", "sendAt", "expireAt", "onUnknown", "meta", "group",
	}[f]
}

func messageFieldOf(name []byte) (f messageField, ok bool) {
	switch string(name) {
	case "id":
		return fieldID, true
	case "channelId":
		return fieldChannelID, true
	case "chatType":
		return fieldChatType, true
	case "chatId":
		return fieldChatID, true
	case "text":
		return fieldText, true
	case "content":
		return fieldContent, true
	case "refMessageId":
		return fieldRefMessageID, true
	case "sendAt":
		return fieldSendAt, true
	case "expireAt":
		return fieldExpireAt, true
	case "onUnknown":
		return fieldOnUnknown, true
	case "meta":
		return fieldMeta, true
	case "group":
		return fieldGroup, true
	}
	return 0, false
}

// rawMessage is the body of a message command, split into its members. An
// absent one is nil.
type rawMessage [messageFields][]byte

func (d *decoding) messageCommand(channelToken string, body []byte) (*Command, []Fault) {
	both := &struct {
		Command
		Message
	}{}
	c, m := &both.Command, &both.Message
	c.Message = m
	m.ChannelID = channelToken
	m.OnUnknown = OnUnknownReconcile

	if !ValidUUID(channelToken) {
		d.faults.add(fieldChannelID.name(), FaultNotAUUID)
	}
	if len(body) > MaxBodySize {
		d.faults.add("", FaultBodyTooLarge)
		return c, d.faults
	}
	d.reader.reset(body)
	before := d.faults
	var raw rawMessage
	switch {
	case d.reader.dec.PeekKind() != jsontext.KindBeginObject:
		d.wrongValue(body, "must be an object")
	case d.splitMessage(&raw):
		d.message(c, m, &raw)
	default:
		d.message(c, m, &raw)
		d.faults = before
		d.notJSON(body)
	}
	return c, d.faults
}

// wrongValue reports a body that is none of the values that it may be.
func (d *decoding) wrongValue(body []byte, want string) {
	if _, err := d.reader.value(); err != nil {
		d.notJSON(body)
		return
	}
	d.faults.addText("", FaultWrongType, want)
	d.checkRest()
}

// splitMessage reports whether the object that the reader stands before is
// JSON; if not, raw holds what came before the place where it breaks.
func (d *decoding) splitMessage(raw *rawMessage) bool {
	r := &d.reader
	if r.open() != nil {
		return false
	}
	for {
		quoted, value, ok, err := r.member()
		if err != nil {
			return false
		}
		if !ok {
			break
		}
		name, _ := unquote(quoted)
		f, known := messageFieldOf(name)
		switch {
		case !known:
			d.faults.add(string(name), FaultUnknownField)
		case raw[f] != nil:
			d.faults.add(f.name(), FaultDuplicateName)
		default:
			raw[f] = value
		}
	}
	d.checkRest()
	return true
}

// notJSON tells a text that only nests too deep for the decoder (10,000 levels)
// from one that is no JSON.
func (d *decoding) notJSON(body []byte) {
	if deeper(body, MaxDepth) {
		d.faults.add("", FaultTooDeep)
		return
	}
	d.faults.add("", FaultNotJSON)
}

func (d *decoding) checkRest() {
	if d.reader.rest() {
		d.faults.add("", FaultTrailingBytes)
	}
}

// text returns a string field; ok is false if it is absent or was refused.
func (d *decoding) text(field string, raw []byte) (s string, ok bool) {
	if raw == nil {
		return "", false
	}
	if raw[0] != '"' {
		d.faults.addText(field, FaultWrongType, "must be a string")
		return "", false
	}
	b, valid := unquote(raw)
	if !valid {
		d.faults.add(field, FaultInvalidUTF8)
		return "", false
	}
	return string(b), true
}

// shortText returns a string field of 1 to limit characters.
func (d *decoding) shortText(field string, raw []byte, limit int) (s string, ok bool) {
	s, ok = d.text(field, raw)
	switch {
	case !ok:
		return "", false
	case s == "":
		d.faults.add(field, FaultEmpty)
		return "", false
	case len(s) > limit && utf8.RuneCountInString(s) > limit:
		d.faults.addText(field, FaultTooLong, tooLong(limit))
		return "", false
	}
	return s, true
}

func tooLong(limit int) string {
	return "must not be longer than " + strconv.Itoa(limit) + " characters"
}

// instant returns a time field in UTC, zero if it is absent or was refused. The
// zero time means "none" to us, so a producer's own zero time (some languages
// write year 1 for "unset") moves on by a nanosecond and stays in the past.
func (d *decoding) instant(field string, raw []byte) time.Time {
	if raw == nil {
		return time.Time{}
	}
	if raw[0] != '"' {
		d.faults.addText(field, FaultWrongType, "must be a string")
		return time.Time{}
	}
	b, valid := unquote(raw)
	if !valid {
		d.faults.add(field, FaultInvalidUTF8)
		return time.Time{}
	}
	t, ok := parseTime(b)
	if !ok {
		d.faults.add(field, FaultNotATime)
		return time.Time{}
	}
	if t.IsZero() {
		t = t.Add(1)
	}
	return t
}
