package simulator

import (
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The shapes of the wire, read from the manual for this package alone. See the
// package comment for why they are not shared with the client.

// Chat types, and at the same time transports, of the manual.
const (
	chatWhatsApp  = "whatsapp"
	chatInstagram = "instagram"
	chatTelegram  = "telegram"
	chatVK        = "vk"
	chatWhatsGrp  = "whatsgroup"
)

// Statuses of a message, and the author types that the simulator writes.
const (
	statusSent      = 1
	statusDelivered = 2
	statusRead      = 3
	statusInbound   = 99

	authorAPI      = 9
	authorCustomer = 99
)

// Types of a message (manual: webhooks, new messages).
const (
	typeText     = 1
	typeImage    = 2
	typeAudio    = 3
	typeVideo    = 4
	typeDocument = 5
)

// message is an item of the `messages` webhook.
type message struct {
	MessageID  string `json:"messageId"`
	ChannelID  string `json:"channelId"`
	ChatType   string `json:"chatType"`
	ChatID     string `json:"chatId"`
	DateTime   int64  `json:"dateTime"` // Unix milliseconds
	Type       int    `json:"type"`
	Status     int    `json:"status"`
	Text       string `json:"text,omitzero"`
	Content    string `json:"content,omitzero"`
	AuthorType int    `json:"authorType"`
	AuthorName string `json:"authorName,omitzero"`
}

// sendBody is the body of send_message. Members that the manual does not name
// are ignored, as public integrations that send some show.
type sendBody struct {
	ChannelID    text `json:"channelId"`
	ChatType     text `json:"chatType"`
	ChatID       text `json:"chatId"`
	Text         text `json:"text"`
	Content      text `json:"content"`
	RefMessageID text `json:"refMessageId"`
}

// text is a member that should be a string; null counts as absent.
type text struct {
	text  string
	given bool
	wrong bool // given, but no string
}

// UnmarshalJSONFrom takes any JSON value, so that a wrong type is a fault of
// one member and not of the whole body.
func (t *text) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*t = text{given: true}
	switch dec.PeekKind() {
	case '"':
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		t.text = token.String()
		return nil
	case 'n':
		t.given = false
	default:
		t.wrong = true
	}
	return dec.SkipValue()
}

// decode reads one JSON value the way a JavaScript server does: of members with
// the same name the last one counts.
func decode(body []byte, into any) error {
	return json.Unmarshal(body, into, jsontext.AllowDuplicateNames(true))
}

// encode writes a value that cannot fail to be written. What was received is
// shown as it came, repeated members included.
func encode(v any) []byte {
	body, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
	if err != nil {
		panic("simulator: a value of its own does not encode: " + err.Error())
	}
	return body
}

// contentType guesses a message's type from the extension of its link.
func contentType(link string) int {
	if u, err := url.Parse(link); err == nil {
		link = u.Path
	}
	switch strings.ToLower(extension(link)) {
	case ".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".heic":
		return typeImage
	case ".mp3", ".ogg", ".oga", ".opus", ".wav", ".m4a", ".aac", ".amr":
		return typeAudio
	case ".mp4", ".mov", ".avi", ".mkv", ".webm", ".3gp":
		return typeVideo
	}
	return typeDocument
}

func extension(path string) string {
	path = path[strings.LastIndexByte(path, '/')+1:]
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return path[i:]
	}
	return ""
}

// messageType is the type of a message with this text and content.
func messageType(content string) int {
	if content == "" {
		return typeText
	}
	return contentType(content)
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f'):
			return false
		}
	}
	return true
}

func isWebURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
}

// maxWebhookURL is the vendor's limit of a webhook URL's length.
const maxWebhookURL = 200

func isWebhookURL(s string) bool { return len(s) <= maxWebhookURL && isWebURL(s) }

// isHeaderName reports whether s is a token of RFC 9110.
func isHeaderName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') &&
			strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
