package schema

import (
	"encoding/json"
	"time"
)

// Limits of a command.
const (
	MaxIDLength    = 256     // characters
	MaxTextLength  = 10_000  // characters (manual: send_message)
	MaxMetaSize    = 4 << 10 // bytes of JSON
	MaxGroupLength = 64      // characters
	MaxBodySize    = 1 << 20 // bytes: NATS's default payload limit
	MaxDepth       = 32      // nesting of a body
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

// Command is a decoded command message of any kind: the identity that every
// kind shares, and either Message or Sync.
type Command struct {
	ID    string // "" = none given in the body; the caller falls back to the header, then to a derived one
	Group string
	Meta  json.RawMessage

	Message *Message // of KindSend and KindBulk
	Sync    *Sync    // of the other kinds
}

// Message is what a send or bulk command asks for.
type Message struct {
	ChannelID    string
	ChatType     string
	ChatID       string
	Text         string
	Content      string
	RefMessageID string
	SendAt       time.Time // zero = now
	ExpireAt     time.Time // zero = never
	OnUnknown    OnUnknown // never empty after decoding
}

// Sync is what a sync command asks for.
type Sync struct {
	Entity Entity
	Verb   Verb
	// Items of an upsert or a replace: the vendor's objects as they came,
	// unknown fields included. Never nil after decoding.
	Items []json.RawMessage
	// IDs of a delete, or of Items in their order: the JSON text, a string or
	// a number ("17" and 17 are the same id: see EntityID).
	IDs []json.RawMessage
}
