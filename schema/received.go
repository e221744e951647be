package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Family is what an event is about: the token after `evt.` in its subject.
type Family string

// The families of events. Others may come with a later version of the contract.
const (
	FamilyCommand    Family = "command"
	FamilyMessage    Family = "message"
	FamilyStatus     Family = "status"
	FamilyChannel    Family = "channel"
	FamilyChannels   Family = "channels"
	FamilyCounter    Family = "counter"
	FamilyQuarantine Family = "quarantine"
	FamilyOps        Family = "ops"
)

// Families returns every family.
func Families() []Family {
	return []Family{
		FamilyCommand, FamilyMessage, FamilyStatus, FamilyChannel,
		FamilyChannels, FamilyCounter, FamilyQuarantine, FamilyOps,
	}
}

// FamilySubjects is the filter of all events of one family of an account.
func FamilySubjects(account string, f Family) string {
	subject := subjectRoot + account + ".evt." + string(f)
	if f == FamilyChannels { // the one that ends there
		return subject
	}
	return subject + ".>"
}

// CommandEventFilter matches the events of commands; what is "" may be anything.
// The channel of sync commands is [NoChannel].
func CommandEventFilter(account string, s State, k Kind, channelID string) string {
	return subjectRoot + account + ".evt.command." + anyOr(string(s)) + "." + anyOr(string(k)) + "." + anyOr(channelID)
}

// MessageEventFilter matches the messages of webhooks; what is "" may be anything.
// direction is DirectionIn or DirectionOut, the others as the vendor writes them.
func MessageEventFilter(account, direction, channelID, chatType, chatID string) string {
	keyOf := func(text string) string {
		if text == "" {
			return anyOr("")
		}
		return Key(text)
	}
	return subjectRoot + account + ".evt.message." + anyOr(direction) + "." + keyOf(channelID) + "." + keyOf(chatType) + "." + keyOf(chatID)
}

func anyOr(token string) string {
	if token == "" {
		return "*"
	}
	return token
}

// ParseEventSubject splits the subject of an event into its account, its family
// and the tokens that follow. What they mean is said where the subject is made,
// such as at [CommandEventSubject]. ok is false for what is no event's subject.
func ParseEventSubject(subject string) (account string, f Family, tokens []string, ok bool) {
	all := strings.Split(subject, ".")
	if len(all) < 4 || all[0]+"." != subjectRoot || !ValidAccount(all[1]) || all[2] != "evt" {
		return "", "", nil, false
	}
	return all[1], Family(all[3]), all[4:], true
}

// Event is the body of an event, read: a *[CommandEvent], *[MessageEvent],
// *[StatusEvent], *[ChannelEvent], *[ChannelsEvent], *[CounterEvent],
// *[QuarantineEvent] or *[OpsEvent]. A consumer tells them apart with a type
// switch.
type Event interface {
	Family() Family
}

// Family implements [Event], as on the other types.
func (*CommandEvent) Family() Family    { return FamilyCommand }
func (*MessageEvent) Family() Family    { return FamilyMessage }
func (*StatusEvent) Family() Family     { return FamilyStatus }
func (*ChannelEvent) Family() Family    { return FamilyChannel }
func (*ChannelsEvent) Family() Family   { return FamilyChannels }
func (*CounterEvent) Family() Family    { return FamilyCounter }
func (*QuarantineEvent) Family() Family { return FamilyQuarantine }
func (*OpsEvent) Family() Family        { return FamilyOps }

// The directions of a message.
const (
	DirectionIn  = "in"  // a customer wrote
	DirectionOut = "out" // an echo of what was sent from our side
)

// The author types of a message that a consumer decides by (manual: webhooks).
const (
	AuthorAPI      = 9  // sent through the API
	AuthorCustomer = 99 // written by the customer
)

// MessageEvent is what most consumers need of `evt.message.…`. The body is the
// vendor's own object and may hold more. Numbers and texts are taken in either
// form; what is missing or of another type is the zero value.
type MessageEvent struct {
	Direction  string // DirectionIn or DirectionOut, from the subject
	MessageID  string
	ChannelID  string
	ChatType   string
	ChatID     string
	At         time.Time // the vendor's clock, UTC
	Type       int       // 1 = text, 2 = image, 3 = audio, 4 = video, 5 = document
	AuthorType int
	AuthorName string
	Text       string
	Content    string // a link to the message's file
}

// UnmarshalJSON reads the vendor's object.
func (e *MessageEvent) UnmarshalJSON(body []byte) error {
	var wire struct {
		MessageID  json.RawMessage `json:"messageId"`
		ChannelID  json.RawMessage `json:"channelId"`
		ChatType   json.RawMessage `json:"chatType"`
		ChatID     json.RawMessage `json:"chatId"`
		DateTime   json.RawMessage `json:"dateTime"`
		Type       json.RawMessage `json:"type"`
		AuthorType json.RawMessage `json:"authorType"`
		AuthorName json.RawMessage `json:"authorName"`
		Text       json.RawMessage `json:"text"`
		Content    json.RawMessage `json:"content"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return err
	}
	*e = MessageEvent{
		Direction: e.Direction,
		MessageID: EntityID(wire.MessageID), ChannelID: EntityID(wire.ChannelID),
		ChatType: EntityID(wire.ChatType), ChatID: EntityID(wire.ChatID),
		At: vendorTime(wire.DateTime), Type: vendorNumber(wire.Type),
		AuthorType: vendorNumber(wire.AuthorType), AuthorName: EntityID(wire.AuthorName),
		Text: EntityID(wire.Text), Content: EntityID(wire.Content),
	}
	return nil
}

// UnmarshalJSON reads the vendor's object and what was added to it. Its message id
// may be a number.
func (e *StatusEvent) UnmarshalJSON(body []byte) error {
	var wire struct {
		MessageID json.RawMessage `json:"messageId"`
		Status    json.RawMessage `json:"status"`
		CommandID string          `json:"commandId"`
		Meta      json.RawMessage `json:"meta"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return err
	}
	*e = StatusEvent{
		Word: e.Word, MessageID: EntityID(wire.MessageID), Status: wire.Status,
		CommandID: wire.CommandID, Meta: wire.Meta,
	}
	return nil
}

// ChannelEvent is the body of `evt.channel.…`: a channel and its new state.
type ChannelEvent struct {
	ChannelID string
	Transport string
	PlainID   string // the phone number or account behind it
	State     string // `active`; everything else means that it does not send
}

// UnmarshalJSON reads the vendor's object.
func (e *ChannelEvent) UnmarshalJSON(body []byte) error {
	var wire struct {
		ChannelID json.RawMessage `json:"channelId"`
		Transport json.RawMessage `json:"transport"`
		PlainID   json.RawMessage `json:"plainId"`
		State     json.RawMessage `json:"state"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return err
	}
	*e = ChannelEvent{
		ChannelID: EntityID(wire.ChannelID), Transport: EntityID(wire.Transport),
		PlainID: EntityID(wire.PlainID), State: EntityID(wire.State),
	}
	return nil
}

// ChannelsEvent is the body of `evt.channels`: the whole new list.
type ChannelsEvent []ChannelEvent

// vendorNumber reads a number, also where it is written as a text.
func vendorNumber(raw json.RawMessage) int {
	n, _ := strconv.Atoi(EntityID(raw)) // 0 = no number
	return n
}

// vendorTime reads milliseconds of Unix time, or a time in words.
func vendorTime(raw json.RawMessage) time.Time {
	text := EntityID(raw)
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.UnixMilli(ms).UTC()
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}

// DecodeEvent reads the body of an event that was stored on this subject. It is
// nil without an error where the family is not known: a later version has more.
func DecodeEvent(subject string, body []byte) (Event, error) {
	_, family, tokens, ok := ParseEventSubject(subject)
	if !ok {
		return nil, errors.New("decode event: this is not the subject of one")
	}
	var e Event
	switch family {
	case FamilyCommand:
		e = new(CommandEvent)
	case FamilyMessage:
		m := new(MessageEvent)
		if len(tokens) > 0 {
			m.Direction = tokens[0]
		}
		e = m
	case FamilyStatus:
		s := new(StatusEvent)
		if len(tokens) > 0 {
			s.Word = tokens[0]
		}
		e = s
	case FamilyChannel:
		e = new(ChannelEvent)
	case FamilyChannels:
		e = new(ChannelsEvent)
	case FamilyCounter:
		e = new(CounterEvent)
	case FamilyQuarantine:
		e = new(QuarantineEvent)
	case FamilyOps:
		e = new(OpsEvent)
	default:
		return nil, nil // as said above
	}
	if err := json.Unmarshal(body, e); err != nil {
		return nil, fmt.Errorf("decode %s event: %w", family, err)
	}
	return e, nil
}
