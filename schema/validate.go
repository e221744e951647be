package schema

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// message checks every field of a message command and fills c and m.
func (d *decoding) message(c *Command, m *Message, raw *rawMessage) {
	c.ID, _ = d.shortText(fieldID.name(), raw[fieldID], MaxIDLength)
	d.checkChannelID(m.ChannelID, raw[fieldChannelID])
	m.ChatType = d.chatType(raw[fieldChatType])
	m.ChatID = d.chatID(m.ChatType, raw[fieldChatID])
	m.Text = d.messageText(raw)
	m.Content = d.content(raw[fieldContent])
	d.checkTextOrContent(m, raw)
	m.RefMessageID, _ = d.shortText(fieldRefMessageID.name(), raw[fieldRefMessageID], MaxRefMessageIDLength)
	m.SendAt = d.instant(fieldSendAt.name(), raw[fieldSendAt])
	m.ExpireAt = d.instant(fieldExpireAt.name(), raw[fieldExpireAt])
	if !m.SendAt.IsZero() && !m.ExpireAt.IsZero() && !m.ExpireAt.After(m.SendAt) {
		d.faults.add(fieldExpireAt.name(), FaultExpiresBeforeSend)
	}
	d.onUnknown(m, raw[fieldOnUnknown])
	c.Meta = d.meta(raw[fieldMeta])
	c.Group = d.group(raw[fieldGroup])
}

func (d *decoding) checkChannelID(token string, raw []byte) {
	field := fieldChannelID.name()
	if len(raw) == len(token)+2 && raw[0] == '"' && string(raw[1:len(raw)-1]) == token {
		return
	}
	if s, ok := d.text(field, raw); ok && s != token {
		d.faults.add(field, FaultChannelMismatch)
	}
}

// chatType returns the text even if it is none of ours, for the echo in events.
func (d *decoding) chatType(raw []byte) string {
	field := fieldChatType.name()
	if raw == nil {
		d.faults.add(field, FaultMissingChatType)
		return ""
	}
	switch string(raw) {
	case `"` + ChatWhatsApp + `"`:
		return ChatWhatsApp
	case `"` + ChatInstagram + `"`:
		return ChatInstagram
	case `"` + ChatTelegram + `"`:
		return ChatTelegram
	case `"` + ChatVK + `"`:
		return ChatVK
	case `"` + ChatWhatsGroup + `"`:
		return ChatWhatsGroup
	}
	s, ok := d.text(field, raw)
	switch {
	case !ok:
		return ""
	case s == "":
		d.faults.add(field, FaultMissingChatType)
		return ""
	}
	switch s { // a producer may escape letters that need no escape
	case ChatWhatsApp, ChatInstagram, ChatTelegram, ChatVK, ChatWhatsGroup:
		return s
	}
	d.faults.add(field, FaultWrongChatType)
	return cut(s, MaxGroupLength)
}

func (d *decoding) chatID(chatType string, raw []byte) string {
	field := fieldChatID.name()
	if raw == nil {
		d.faults.add(field, FaultMissingChatID)
		return ""
	}
	s, ok := d.text(field, raw)
	switch {
	case !ok:
		return ""
	case blank(s):
		d.faults.add(field, FaultMissingChatID)
		return ""
	case chatType == ChatWhatsApp && !ValidWhatsAppID(s):
		d.faults.add(field, FaultWhatsAppChatID)
		return cut(s, MaxChatIDLength)
	}
	if s[0] == '@' {
		d.faults.add(field, FaultLeadingAt)
	}
	if utf8.RuneCountInString(s) > MaxChatIDLength {
		d.faults.addText(field, FaultTooLong, tooLong(MaxChatIDLength))
	}
	return cut(s, MaxChatIDLength)
}

// ValidWhatsAppID holds the manual's rule (CHAT_INCORRECT_CHAT_ID_WHATSAPP):
// 9 to 16 digits, Russian numbers start with 7. A number of 11 digits that
// starts with 89 is a Russian mobile number as it is dialled at home.
func ValidWhatsAppID(s string) bool {
	if len(s) < 9 || len(s) > 16 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) != 11 || !strings.HasPrefix(s, "89")
}

func (d *decoding) messageText(raw *rawMessage) string {
	field := fieldText.name()
	s, ok := d.text(field, raw[fieldText])
	switch {
	case !ok:
		return ""
	case blank(s):
		d.faults.add(field, FaultTextBlank)
	case len(s) > MaxTextLength && utf8.RuneCountInString(s) > MaxTextLength:
		d.faults.add(field, FaultTextTooLong)
	}
	return s
}

func (d *decoding) content(raw []byte) string {
	field := fieldContent.name()
	s, ok := d.text(field, raw)
	switch {
	case !ok:
		return ""
	case blank(s):
		d.faults.add(field, FaultContentBlank)
	case len(s) > MaxContentLength && utf8.RuneCountInString(s) > MaxContentLength:
		d.faults.addText(field, FaultTooLong, tooLong(MaxContentLength))
	case !validURL(s):
		d.faults.add(field, FaultNotAURL)
	}
	return s
}

// checkTextOrContent looks at what was given, not at what was right, so that a
// wrong text is not also reported as a missing one.
func (d *decoding) checkTextOrContent(m *Message, raw *rawMessage) {
	switch hasText, hasContent := raw[fieldText] != nil, raw[fieldContent] != nil; {
	case !hasText && !hasContent:
		d.faults.add(fieldText.name(), FaultNothingToSend)
	case hasText && hasContent:
		switch m.ChatType {
		case ChatWhatsApp, ChatInstagram, ChatWhatsGroup:
			d.faults.add(fieldContent.name(), FaultTextOrContent)
		}
	}
}

func (d *decoding) onUnknown(m *Message, raw []byte) {
	s, ok := d.text(fieldOnUnknown.name(), raw)
	if !ok {
		return
	}
	switch wish := OnUnknown(s); wish {
	case OnUnknownReconcile, OnUnknownResend:
		m.OnUnknown = wish
	default:
		d.faults.addText(fieldOnUnknown.name(), FaultNotAllowed, "must be reconcile or resend")
	}
}

// meta is any JSON value, null included; only its size, its depth and what no
// JSON library agrees on (duplicate names, bad UTF-8) are limited.
func (d *decoding) meta(raw []byte) json.RawMessage {
	const field = "meta"
	switch {
	case raw == nil:
		return nil
	case len(raw) > MaxMetaSize:
		d.faults.addText(field, FaultTooLong, "must not be larger than 4096 bytes")
		return nil
	case deeper(raw, MaxDepth-1):
		d.faults.add(field, FaultTooDeep)
		return nil
	case !clean(raw):
		d.reader.reset(raw)
		d.reader.sweep(field, &d.faults)
		return nil
	}
	return raw
}

func (d *decoding) group(raw []byte) string {
	const field = "group"
	s, ok := d.shortText(field, raw, MaxGroupLength)
	if !ok {
		return ""
	}
	if !isPlainKey(s) {
		d.faults.addText(field, FaultNotAllowed, "must be made of A-Z, a-z, 0-9, _ and - only")
		return ""
	}
	return s
}

// ValidUUID reports whether the text is a uuid in lower case, which is what
// Wazzup's channel ids are.
func ValidUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}

// validURL reports whether the text is an absolute http(s) URL with a host. A
// raw space, which url.Parse would let pass in a path, is refused; letters
// beyond ASCII are not, since file names hold them and the vendor may cope.
func validURL(s string) bool {
	if strings.ContainsFunc(s, unicode.IsSpace) {
		return false
	}
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return false
	}
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		return err == nil && n > 0
	}
	return true
}

// parseTime reads an RFC 3339 time, whose T and Z may be in lower case.
//
// The time package's own parser is more lenient than RFC 3339 (go.dev/issue/54580):
// it takes hours of one digit, a comma before the fraction and any offset.
func parseTime(b []byte) (t time.Time, ok bool) {
	const seconds = len("2006-01-02T15:04:05")
	if len(b) <= seconds || b[len("2006-01-02T15")] != ':' || b[seconds] == ',' {
		return time.Time{}, false
	}
	if last := len(b) - 1; b[last] != 'Z' && b[last] != 'z' && !validOffset(b) {
		return time.Time{}, false
	}
	if t.UnmarshalText(b) != nil && t.UnmarshalText(bytes.ToUpper(b)) != nil {
		return time.Time{}, false
	}
	return t.UTC(), true
}

// validOffset reports whether the text ends in an offset like +03:00.
func validOffset(b []byte) bool {
	o := b[len(b)-len("+03:00"):]
	digits := func(tens, ones, limit byte) bool {
		return tens >= '0' && tens <= '9' && ones >= '0' && ones <= '9' && (tens-'0')*10+ones-'0' <= limit
	}
	return (o[0] == '+' || o[0] == '-') && o[3] == ':' && digits(o[1], o[2], 23) && digits(o[4], o[5], 59)
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }

// CheckSchedule checks the one rule of a message that depends on when it was
// stored: beyond stored + retention - 1 h the ledger might have forgotten the
// command's id before the command is due.
func CheckSchedule(m *Message, stored time.Time, retention time.Duration) []Fault {
	if m == nil || m.SendAt.IsZero() || !m.SendAt.After(stored.Add(retention-time.Hour)) {
		return nil
	}
	return []Fault{NewFault(fieldSendAt.name(), FaultSendAtTooFar)}
}

// CheckMsgID checks an id that comes from the Nats-Msg-Id header instead of the
// body, by the same rules.
func CheckMsgID(id string) []Fault {
	switch {
	case id == "":
		return []Fault{NewFault(HeaderMsgID, FaultEmpty)}
	case !utf8.ValidString(id):
		return []Fault{NewFault(HeaderMsgID, FaultInvalidUTF8)}
	case utf8.RuneCountInString(id) > MaxIDLength:
		return []Fault{{Field: HeaderMsgID, Code: FaultTooLong, Description: tooLong(MaxIDLength)}}
	}
	return nil
}

// CheckReplyTo checks the subject in a command's Wazzup-Reply-To header: events
// go to it with the worker's rights, so only inboxes and the account's own reply
// subjects are accepted, and no wildcards.
func CheckReplyTo(account, subject string) []Fault {
	rest, ok := strings.CutPrefix(subject, "_INBOX.")
	if !ok {
		rest, ok = strings.CutPrefix(subject, ReplySubjectPrefix(account))
	}
	if !ok || !validTokens(rest) {
		return []Fault{{
			Field: HeaderReplyTo, Code: FaultNotAllowed,
			Description: "must be a subject under _INBOX. or " + ReplySubjectPrefix(account) + " without wildcards",
		}}
	}
	return nil
}

// validTokens reports whether the text is one or more tokens of a subject that
// can be published to.
func validTokens(s string) bool {
	if len(s) > MaxIDLength || !utf8.ValidString(s) {
		return false
	}
	for token := range strings.SplitSeq(s, ".") {
		if token == "" || strings.ContainsFunc(token, func(r rune) bool {
			return r == '*' || r == '>' || unicode.IsSpace(r) || unicode.IsControl(r)
		}) {
			return false
		}
	}
	return true
}
