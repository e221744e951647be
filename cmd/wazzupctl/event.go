package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// event is a stored event of an account.
type event struct {
	Subject string          `json:"subject"`
	ID      string          `json:"id"` // ce-id
	Time    time.Time       `json:"time"`
	Seq     uint64          `json:"seq"` // in the records stream
	Body    json.RawMessage `json:"body"`

	header nats.Header
	tokens []string // of the subject after wazzup.<account>.evt.
	fields eventFields
}

// eventFields are what is looked at of any event's body.
type eventFields struct {
	ID        string          `json:"id"`
	Kind      string          `json:"kind"`
	State     string          `json:"state"`
	Attempt   int             `json:"attempt"`
	ChannelID string          `json:"channelId"`
	ChatType  string          `json:"chatType"`
	ChatID    json.RawMessage `json:"chatId"`
	MessageID string          `json:"messageId"`
	CommandID string          `json:"commandId"`
	Text      string          `json:"text"`
	Content   string          `json:"content"`
	Error     *schema.Error   `json:"error"`
	RetryAt   *time.Time      `json:"retryAt"`
	Name      string          `json:"name"`
	Reason    string          `json:"reason"`
	OpensOn   string          `json:"opensOn"`
	Class     string          `json:"class"`
	Detail    json.RawMessage `json:"detail"`
	Counter   *int64          `json:"counter"`
}

// parse reads subject and body. A body may be a list, or hold fields of other
// types than ours: what cannot be read is left out.
func (e *event) parse() {
	_, rest, _ := strings.Cut(e.Subject, ".evt.")
	e.tokens = strings.Split(rest, ".")
	_ = json.Unmarshal(e.Body, &e.fields)
}

func (e *event) token(i int) string {
	if i < len(e.tokens) {
		return e.tokens[i]
	}
	return ""
}

// family is command, message, status, channel, channels, counter, quarantine or
// ops.
func (e *event) family() string { return e.token(0) }

// state of a command's or a status's event.
func (e *event) state() schema.State { return schema.State(e.token(1)) }

// eventLine is the event in a line for people. Texts from outside are quoted, since
// they might hold what a terminal obeys.
func (p *printer) eventLine(e *event) string {
	f := &e.fields
	head, details := e.token(1), []string(nil)
	add := func(name, value string) {
		if value != "" {
			details = append(details, p.tint(faint, name+"=")+value)
		}
	}
	switch e.family() {
	case "command":
		head = p.tint(stateTint(e.state()), pad(head, 10)) + " " + pad(f.Kind, 5) + " " + p.tint(bold, plain(f.ID))
		add("message", plain(f.MessageID))
		if f.Attempt > 1 {
			add("attempt", strconv.Itoa(f.Attempt))
		}
		if f.RetryAt != nil {
			add("retry_at", f.RetryAt.Local().Format(timeOnly))
		}
		details = append(details, p.errorText(f.Error)...)
	case "message":
		head = pad(head, 10) + " " + plain(f.ChatType) + " " + strings.Trim(string(f.ChatID), `"`)
		add("text", quoted(f.Text))
		add("content", plain(f.Content))
		add("message", plain(f.MessageID))
	case "status":
		head = p.tint(stateTint(e.state()), pad(head, 10))
		add("command", plain(f.CommandID))
		add("message", plain(f.MessageID))
	case "channel":
		head = pad(e.token(2), 10) + " " + plain(f.ChannelID)
	case "ops":
		head = p.tint(warn, pad(strings.Join(e.tokens[1:], "."), 10))
		add("channel", plain(f.ChannelID))
		add("class", plain(f.Class))
		add("reason", plain(f.Reason))
		add("opens_on", plain(localTime(f.OpensOn)))
		for _, d := range detailFields(f.Detail) {
			add(d[0], plain(d[1]))
		}
	case "quarantine":
		head = p.tint(bad, pad(head, 10))
	case "counter":
		if f.Counter != nil {
			add("counter", strconv.FormatInt(*f.Counter, 10))
		}
	}
	return pad(e.family(), 10) + " " + strings.Join(append([]string{head}, details...), " ")
}

const timeOnly = "15:04:05.000"

// detailFields are the members of an operator event's detail, by name: what it is
// about, such as a command's id or a stream's size.
func detailFields(detail json.RawMessage) (fields [][2]string) {
	var members map[string]json.RawMessage
	if json.Unmarshal(detail, &members) != nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		text := string(members[name])
		_ = json.Unmarshal(members[name], &text) // what is no text stays as it is written
		fields = append(fields, [2]string{name, text})
	}
	return fields
}

// localTime writes the time with which a text ends, if it ends with one, as people
// here write it.
func localTime(text string) string {
	last := text[strings.LastIndexByte(text, ' ')+1:]
	at, err := time.Parse(time.RFC3339Nano, last)
	if err != nil {
		return text
	}
	return strings.TrimSuffix(text, last) + at.Local().Format(time.DateTime)
}

// errorText is an error's code, class and faults.
func (p *printer) errorText(e *schema.Error) []string {
	if e == nil {
		return nil
	}
	parts := []string{p.tint(bad, e.Code)}
	if e.HTTPStatus != 0 {
		parts = append(parts, fmt.Sprintf("%s%d", p.tint(faint, "http="), e.HTTPStatus))
	}
	return append(parts, p.errorDetails(e)...)
}

// errorDetails are the reason of a dead one, and an invalid one's faults.
func (p *printer) errorDetails(e *schema.Error) (parts []string) {
	if e.Reason != "" {
		parts = append(parts, p.tint(faint, "reason=")+string(e.Reason))
	}
	for _, fault := range e.Faults {
		parts = append(parts, fmt.Sprintf("%s: %s", plain(fault.Field), fault.Code))
	}
	return parts
}

func stateTint(s schema.State) tint {
	switch s {
	case schema.StateSent, schema.StateDone, schema.StateDelivered, schema.StateRead:
		return good
	case schema.StateRetrying, schema.StateUnknown, schema.StateDuplicate, schema.StateExpired, schema.StateCancelled:
		return warn
	case schema.StateRejected, schema.StateInvalid, schema.StateDead, schema.StateFailed:
		return bad
	case schema.StatePending:
	}
	return bold
}

// quoted is a text with its control characters escaped, cut to what fits.
func quoted(text string) string {
	if text == "" {
		return ""
	}
	if r := []rune(text); len(r) > 60 {
		text = string(r[:60]) + "…"
	}
	return fmt.Sprintf("%q", text)
}

// plainText is a sentence as it is, or quoted if it holds anything a terminal
// obeys.
func plainText(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Sprintf("%q", text)
	}
	return text
}

// plain is an id as it is, or quoted if it holds anything a terminal obeys.
func plain(text string) string {
	for _, r := range text {
		if r <= ' ' || r == 0x7f || r == '"' {
			return fmt.Sprintf("%q", text)
		}
	}
	return text
}
