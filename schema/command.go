package schema

import (
	"encoding/json"
	"time"
)

// Limits of a command. Those without a source are ours: they keep what an event
// echoes, and so the event, within NATS's payload limit.
const (
	MaxIDLength           = 256     // characters of a command's id
	MaxTextLength         = 10_000  // characters (manual: send_message)
	MaxContentLength      = 8 << 10 // characters of a URL
	MaxChatIDLength       = 256     // characters
	MaxRefMessageIDLength = 256     // characters
	MaxMetaSize           = 4 << 10 // bytes of JSON
	MaxGroupLength        = 64      // characters
	MaxUserIDLength       = 64      // characters (manual: users)
	MaxUserNameLength     = 150     // characters (manual: users)
	MaxEntityIDLength     = 256     // characters of a contact's or a deal's id
	MaxBodySize           = 1 << 20 // bytes: NATS's default payload limit
	MaxDepth              = 32      // nesting of a body, the outermost object or array included
)

// Chat types: the manual's four, and group chats, which are passed on as the
// producer asks.
const (
	ChatWhatsApp   = "whatsapp"
	ChatInstagram  = "instagram"
	ChatTelegram   = "telegram"
	ChatVK         = "vk"
	ChatWhatsGroup = "whatsgroup"
)

// ChatTypes returns every chat type that a command may name.
func ChatTypes() []string {
	return []string{ChatWhatsApp, ChatInstagram, ChatTelegram, ChatVK, ChatWhatsGroup}
}

// Command is a decoded command message of any kind: the identity that every
// kind shares, and either Message or Sync.
type Command struct {
	ID    string // "" = none given in the body; the caller falls back to the header, then to a derived one
	Group string
	Meta  json.RawMessage // a part of the body that was decoded

	Message *Message // of KindSend and KindBulk
	Sync    *Sync    // of the other kinds
}

// Message is what a send or bulk command asks for.
type Message struct {
	ChannelID    string // the subject's token
	ChatType     string
	ChatID       string
	Text         string
	Content      string
	RefMessageID string
	SendAt       time.Time // UTC; zero = now
	ExpireAt     time.Time // UTC; zero = never
	OnUnknown    OnUnknown // never empty after decoding
}

// Sync is what a sync command asks for.
type Sync struct {
	Entity Entity
	Verb   Verb
	// Items of an upsert or a replace: the vendor's objects as they came,
	// unknown fields included; parts of the body that was decoded. Never nil
	// after decoding, and empty for a delete.
	Items []json.RawMessage
	// IDs of a delete, or of Items in their order: the JSON text, a string or
	// a number ("17" and 17 are the same id: see EntityID).
	IDs []json.RawMessage
}
