package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// errYear is what encoding/json says, too, of a time that RFC 3339 cannot hold.
var errYear = errors.New("the time's year is outside of 0 to 9999")

// FormatTime is the text of a time in events and their headers: RFC 3339, UTC,
// with a fraction of three to nine digits.
func FormatTime(t time.Time) string { return string(appendTime(nil, t)) }

func appendTime(dst []byte, t time.Time) []byte {
	start := len(dst)
	dst = t.UTC().AppendFormat(dst, time.RFC3339Nano)
	// RFC3339Nano leaves out trailing zeros; at least milliseconds are kept, so
	// that consumers with fixed formats can read every event.
	dst = dst[:len(dst)-1] // the Z
	const whole = len("2006-01-02T15:04:05")
	fraction := len(dst) - start - whole
	if fraction == 0 {
		return append(dst, ".000Z"...)
	}
	for ; fraction < len(".000"); fraction++ {
		dst = append(dst, '0')
	}
	return append(dst, 'Z')
}

// AppendJSON appends the event's JSON to dst. It says the same as encoding/json
// and does without reflection, since there is at least one event per message.
// Times are written as [FormatTime] writes them. It fails, leaving dst as it
// was, if Meta or an item's id is not JSON or a time is beyond RFC 3339.
func (e *CommandEvent) AppendJSON(dst []byte) ([]byte, error) {
	o := begin(dst)
	o.text("id", e.ID)
	o.text("account", e.Account)
	o.text("kind", string(e.Kind))
	o.text("state", string(e.State))
	o.time("at", e.At)
	o.optionalInt("attempt", int64(e.Attempt))
	o.optionalText("channelId", e.ChannelID)
	o.optionalText("chatType", e.ChatType)
	o.optionalText("chatId", e.ChatID)
	o.optionalText("messageId", e.MessageID)
	if e.Error != nil {
		o.key("error")
		o.error(e.Error)
	}
	if e.Evidence != nil {
		o.key("evidence")
		o.open('{')
		o.text("kind", string(e.Evidence.Kind))
		o.optionalText("messageId", e.Evidence.MessageID)
		o.close('}')
	}
	if e.Original != nil {
		o.key("original")
		o.open('{')
		o.text("state", string(e.Original.State))
		o.uint("seq", e.Original.Seq)
		o.close('}')
	}
	o.items(e.Items)
	if e.RetryAt != nil {
		o.time("retryAt", *e.RetryAt)
	}
	o.optionalText("supersededBy", e.SupersededBy)
	o.optionalText("group", e.Group)
	o.uint("seq", e.Seq)
	o.optionalRaw("meta", e.Meta)
	return o.end("command event")
}

// AppendJSON appends the event's JSON to dst, with its time in UTC and with a
// fraction. It fails as [CommandEvent.AppendJSON] does.
func (e *OpsEvent) AppendJSON(dst []byte) ([]byte, error) {
	o := begin(dst)
	o.text("name", string(e.Name))
	o.text("account", e.Account)
	o.time("at", e.At)
	o.optionalText("channelId", e.ChannelID)
	o.optionalText("class", e.Class)
	o.optionalText("reason", e.Reason)
	o.optionalText("opensOn", e.OpensOn)
	o.optionalRaw("detail", e.Detail)
	return o.end("operator event")
}

// object writes one JSON object member by member. The first error sticks.
type object struct {
	dst   []byte
	start int
	err   error
}

func begin(dst []byte) object {
	return object{dst: append(dst, '{'), start: len(dst)}
}

func (o *object) end(what string) ([]byte, error) {
	if o.err != nil {
		return o.dst[:o.start], fmt.Errorf("encode %s: %w", what, o.err)
	}
	return append(o.dst, '}'), nil
}

func (o *object) open(bracket byte)  { o.dst = append(o.dst, bracket) }
func (o *object) close(bracket byte) { o.dst = append(o.dst, bracket) }

// comma separates from what came before on the same level.
func (o *object) comma() {
	switch o.dst[len(o.dst)-1] {
	case '{', '[':
	default:
		o.dst = append(o.dst, ',')
	}
}

// key takes names that need no escapes.
func (o *object) key(name string) {
	o.comma()
	o.dst = append(o.dst, '"')
	o.dst = append(o.dst, name...)
	o.dst = append(o.dst, '"', ':')
}

func (o *object) text(name, value string) {
	o.key(name)
	o.dst = appendString(o.dst, value)
}

func (o *object) optionalText(name, value string) {
	if value != "" {
		o.text(name, value)
	}
}

func (o *object) uint(name string, n uint64) {
	o.key(name)
	o.dst = strconv.AppendUint(o.dst, n, 10)
}

func (o *object) optionalInt(name string, n int64) {
	if n != 0 {
		o.key(name)
		o.dst = strconv.AppendInt(o.dst, n, 10)
	}
}

func (o *object) time(name string, t time.Time) {
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		o.fail(name, errYear)
		return
	}
	o.key(name)
	o.dst = append(o.dst, '"')
	o.dst = appendTime(o.dst, t)
	o.dst = append(o.dst, '"')
}

func (o *object) optionalRaw(name string, raw json.RawMessage) {
	if len(raw) == 0 {
		return
	}
	o.key(name)
	o.raw(name, raw)
}

// raw writes JSON compactly and otherwise as its author wrote it.
func (o *object) raw(name string, raw json.RawMessage) {
	dst, err := jsontext.AppendFormat(o.dst, []byte(raw),
		jsontext.AllowDuplicateNames(true),
		jsontext.AllowInvalidUTF8(true),
		jsontext.PreserveRawStrings(true),
	)
	if err != nil {
		o.fail(name, errNotJSON)
		return
	}
	o.dst = dst
}

// errNotJSON stands for jsontext's error, which quotes what it met.
var errNotJSON = errors.New("not JSON")

func (o *object) fail(name string, err error) {
	if o.err == nil {
		o.err = fmt.Errorf("%s: %w", name, err)
	}
}

func (o *object) items(items []ItemError) {
	if len(items) == 0 {
		return
	}
	o.key("items")
	o.open('[')
	for i := range items {
		o.comma()
		o.open('{')
		o.key("id")
		if len(items[i].ID) == 0 {
			o.dst = append(o.dst, "null"...)
		} else {
			o.raw("items.id", items[i].ID)
		}
		o.key("error")
		if items[i].Error == nil {
			o.dst = append(o.dst, "null"...)
		} else {
			o.error(items[i].Error)
		}
		o.close('}')
	}
	o.close(']')
}

func (o *object) error(e *Error) {
	o.open('{')
	o.text("code", e.Code)
	o.text("class", string(e.Class))
	o.optionalText("description", e.Description)
	o.optionalInt("httpStatus", int64(e.HTTPStatus))
	o.optionalText("phase", string(e.Phase))
	o.optionalText("reason", string(e.Reason))
	if len(e.Faults) > 0 {
		o.key("faults")
		o.open('[')
		for i := range e.Faults {
			f := &e.Faults[i]
			o.comma()
			o.open('{')
			o.text("field", f.Field)
			o.text("code", f.Code)
			o.text("description", f.Description)
			o.close('}')
		}
		o.close(']')
	}
	o.close('}')
}

// appendString appends a JSON string. Bad UTF-8 becomes U+FFFD, as encoding/json
// does it.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			dst, _ = jsontext.AppendQuote(dst, s)
			return dst
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
