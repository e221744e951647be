package queue

import (
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Event is a public event, ready to be published: a plain JSON body, and
// CloudEvents 1.0 attributes in the headers (binary content mode).
type Event struct {
	Subject   string
	ID        string // ce-id, and Nats-Msg-Id: the same event always has the same
	Account   string
	Type      string // ce-type, e.g. "wazzup.command.sent"
	CESubject string // ce-subject: what the event is about; left out when empty
	Time      time.Time
	Body      []byte

	// W3C trace context of the command, carried through; left out when empty.
	Traceparent, Tracestate string
}

// Msg builds the message. Its body is not copied.
func (e Event) Msg() *nats.Msg {
	return &nats.Msg{Subject: e.Subject, Header: e.header(), Data: e.Body}
}

// header is the message's header. One is built for every event: its values share
// one array, and a map of eight needs no more than its first table.
func (e Event) header() nats.Header {
	values := make([]string, 0, 9)
	h := make(nats.Header, 8)
	set := func(name, v string) {
		values = append(values, v)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	set(schema.HeaderMsgID, e.ID)
	set(schema.HeaderCESpecVersion, "1.0")
	set(schema.HeaderCEID, e.ID)
	set(schema.HeaderCESource, schema.CloudEventSource(e.Account))
	set(schema.HeaderCEType, e.Type)
	set(schema.HeaderCETime, e.Time.UTC().Format(time.RFC3339Nano))
	if e.CESubject != "" {
		set(schema.HeaderCESubject, headerText(e.CESubject))
	}
	if e.Traceparent != "" {
		set(schema.HeaderTraceparent, e.Traceparent)
	}
	if e.Tracestate != "" {
		set(schema.HeaderTracestate, e.Tracestate)
	}
	return h
}

// headerText makes free text fit for a header line, percent-encoding what the
// CloudEvents NATS binding does (control characters, space, quote, percent and
// whatever is not ASCII), since a line break would end the header.
func headerText(s string) string {
	const hexDigits = "0123456789ABCDEF"
	plain := true
	for i := range len(s) {
		if needsEscape(s[i]) {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	out := make([]byte, 0, len(s)+16)
	for i := range len(s) {
		if c := s[i]; needsEscape(c) {
			out = append(out, '%', hexDigits[c>>4], hexDigits[c&15])
		} else {
			out = append(out, c)
		}
	}
	return string(out)
}

func needsEscape(c byte) bool { return c <= ' ' || c >= 0x7f || c == '%' || c == '"' }

// Origin names the command message that everything is about: its copies
// (deferred, redriven) carry it on, so that the same origin is the same command.
type Origin struct {
	Created int64  `json:"c"` // creation of the command stream, Unix nanoseconds
	Seq     uint64 `json:"s"` // in the command stream
}

// ID derives a command's id for a message that names none.
func (o Origin) ID(stream string) string {
	return stream + "-" + strconv.FormatInt(o.Created, 36) + "-" + strconv.FormatUint(o.Seq, 10)
}

// CommandEventID is the ce-id of a command's event: it follows from the origin,
// the generation (how often it was redriven), the attempt and the state alone.
func (o Origin) CommandEventID(stream string, generation, attempt int, s schema.State) string {
	b := make([]byte, 0, len(stream)+64)
	b = append(b, stream...)
	b = append(b, '-')
	b = strconv.AppendInt(b, o.Created, 36)
	b = append(b, '-')
	b = strconv.AppendUint(b, o.Seq, 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(generation), 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(attempt), 10)
	b = append(b, '.')
	b = append(b, s...)
	return string(b)
}
