package schema

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// SendCommand is the body of a send or bulk command, for producers in Go. It
// marshals to what [Decode] reads. ChannelID is needed here, since it decides
// the subject (see [SendSubject]).
//
// ChatType, ChatID and Text or Content are required; the zero value of every
// other field leaves it out.
type SendCommand struct {
	ID           string          `json:"id,omitempty"`
	ChannelID    string          `json:"channelId,omitempty"`
	ChatType     string          `json:"chatType"`
	ChatID       string          `json:"chatId"`
	Text         string          `json:"text,omitempty"`
	Content      string          `json:"content,omitempty"`
	RefMessageID string          `json:"refMessageId,omitempty"`
	SendAt       time.Time       `json:"sendAt,omitzero"`
	ExpireAt     time.Time       `json:"expireAt,omitzero"`
	OnUnknown    OnUnknown       `json:"onUnknown,omitempty"` // "" = OnUnknownReconcile
	Meta         json.RawMessage `json:"meta,omitempty"`
	Group        string          `json:"group,omitempty"`
}

// NewText is a command that sends a text.
func NewText(id, channelID, chatType, chatID, text string) *SendCommand {
	return &SendCommand{ID: id, ChannelID: channelID, ChatType: chatType, ChatID: chatID, Text: text}
}

// NewFile is a command that sends the file behind a link. The vendor fetches it
// at once, so the link must be public and must not redirect.
func NewFile(id, channelID, chatType, chatID, link string) *SendCommand {
	return &SendCommand{ID: id, ChannelID: channelID, ChatType: chatType, ChatID: chatID, Content: link}
}

// Validate checks the command as the worker will, so that a producer hears of a
// fault at once instead of in an `invalid` event. The error is an
// *[InvalidCommandError].
func (c *SendCommand) Validate() error {
	body, err := c.AppendJSON(nil)
	if err != nil {
		return &InvalidCommandError{Faults: []Fault{NewFault("", FaultNotJSON)}}
	}
	_, faults := Decode("-", KindSend, c.ChannelID, body)
	return invalidCommand(append(c.badText(), faults...))
}

// badText finds the texts that are not UTF-8. Marshalling replaces their bad
// bytes, so that decoding would not see them.
func (c *SendCommand) badText() []Fault {
	var faults []Fault
	for _, f := range [...]struct {
		field messageField
		text  string
	}{
		{fieldID, c.ID},
		{fieldChatID, c.ChatID},
		{fieldText, c.Text},
		{fieldContent, c.Content},
		{fieldRefMessageID, c.RefMessageID},
	} {
		if !utf8.ValidString(f.text) {
			faults = append(faults, NewFault(f.field.name(), FaultInvalidUTF8))
		}
	}
	return faults
}

// AppendJSON appends the command's body to dst, without reflection. It fails,
// leaving dst as it was, if Meta is not JSON or a time is beyond RFC 3339.
func (c *SendCommand) AppendJSON(dst []byte) ([]byte, error) {
	o := begin(dst)
	o.optionalText("id", c.ID)
	o.optionalText("channelId", c.ChannelID)
	o.text("chatType", c.ChatType)
	o.text("chatId", c.ChatID)
	o.optionalText("text", c.Text)
	o.optionalText("content", c.Content)
	o.optionalText("refMessageId", c.RefMessageID)
	if !c.SendAt.IsZero() {
		o.time("sendAt", c.SendAt)
	}
	if !c.ExpireAt.IsZero() {
		o.time("expireAt", c.ExpireAt)
	}
	o.optionalText("onUnknown", string(c.OnUnknown))
	o.optionalRaw("meta", c.Meta)
	o.optionalText("group", c.Group)
	return o.end("send command")
}

// SyncCommand is the envelope of a sync command, for producers in Go. ID is best
// left empty: a fixed one such as "contact-17" would make every later update a
// duplicate.
type SyncCommand struct {
	ID    string            `json:"id,omitempty"`
	Meta  json.RawMessage   `json:"meta,omitempty"`
	Group string            `json:"group,omitempty"`
	Items []json.RawMessage `json:"items"` // entities, or ids of a delete
}

// NewSync is a command for items of any types that marshal to the vendor's
// entities (or to ids, for a delete).
func NewSync(items ...any) (*SyncCommand, error) {
	c := &SyncCommand{Items: make([]json.RawMessage, 0, len(items))}
	for i, item := range items {
		raw, err := json.Marshal(item)
		if err != nil {
			return nil, fmt.Errorf("encode item %d: %w", i, err)
		}
		c.Items = append(c.Items, raw)
	}
	return c, nil
}

// Validate checks the command for the given kind, as [SendCommand.Validate] does.
func (c *SyncCommand) Validate(kind Kind) error {
	if kind.IsMessage() {
		return &InvalidCommandError{Faults: []Fault{NewFault("", FaultUnknownKind)}}
	}
	body, err := c.AppendJSON(nil)
	if err != nil {
		return &InvalidCommandError{Faults: []Fault{NewFault("", FaultNotJSON)}}
	}
	_, faults := Decode("-", kind, "", body)
	return invalidCommand(faults)
}

// AppendJSON appends the command's body to dst. It fails, leaving dst as it was,
// if Meta or an item is not JSON.
func (c *SyncCommand) AppendJSON(dst []byte) ([]byte, error) {
	o := begin(dst)
	o.optionalText("id", c.ID)
	o.optionalRaw("meta", c.Meta)
	o.optionalText("group", c.Group)
	o.key("items")
	o.open('[')
	for _, item := range c.Items {
		o.comma()
		o.raw("items", item)
	}
	o.close(']')
	return o.end("sync command")
}
