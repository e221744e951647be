package simulator

import (
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"strings"
	"unicode/utf8"
)

const maxText = 10_000 // characters (manual: send_message)

// send takes one message: what is wrong with the body first, then what stands
// against it in the state of the integration. The HTTP status of the codes is
// not documented; it is 400 for all of them.
func (s *Server) send(c *call) answer {
	if refusal := c.readable(); refusal != nil {
		return *refusal
	}
	b := c.send
	if b == nil {
		return c.invalid("The body must be an object.")
	}
	if code, description := b.fault(s.cfg.Groups); code != "" {
		return refuseSend(c, code, description)
	}
	m, code := s.accept(c)
	if code != "" {
		return refuseSend(c, code, "")
	}
	s.out.callBack(m, c.rule)
	return answer{status: http.StatusCreated, body: encode(struct {
		MessageID string `json:"messageId"`
	}{m.MessageID})}
}

func refuseSend(c *call, code, description string) answer {
	if description == "" {
		description = describe(code)
	}
	return fail(c.resource, http.StatusBadRequest, code, description)
}

// fault is what is wrong with the body by itself: the first fault's code, and
// a description where the code's own says too little.
func (b *sendBody) fault(groups bool) (code, description string) {
	for _, m := range []struct {
		name  string
		value text
	}{
		{"channelId", b.ChannelID},
		{"chatType", b.ChatType},
		{"chatId", b.ChatID},
		{"text", b.Text},
		{"content", b.Content},
		{"refMessageId", b.RefMessageID},
	} {
		if m.value.wrong {
			return codeValidation, m.name + " must be a string."
		}
	}
	if !isUUID(strings.ToLower(b.ChannelID.text)) {
		return codeValidation, "channelId must be a uuid."
	}
	if code, description = b.chatFault(groups); code != "" {
		return code, description
	}
	return b.contentFault()
}

func (b *sendBody) chatFault(groups bool) (code, description string) {
	chatType, chatID := b.ChatType.text, b.ChatID.text
	if chatType == "" {
		return codeMissingChatType, ""
	}
	switch chatType {
	case chatWhatsApp, chatInstagram, chatTelegram, chatVK:
	case chatWhatsGrp:
		if !groups {
			return codeWrongChatType, ""
		}
	default:
		return codeWrongChatType, ""
	}
	switch {
	case chatID == "":
		return codeMissingChatID, ""
	case chatType == chatWhatsApp && !isPhone(chatID):
		return codeWhatsAppID, ""
	case chatType == chatInstagram && strings.HasPrefix(chatID, "@"):
		return codeValidation, "chatId of Instagram must not begin with @."
	}
	return "", ""
}

func (b *sendBody) contentFault() (code, description string) {
	hasText, hasContent := strings.TrimSpace(b.Text.text) != "", b.Content.text != ""
	exclusive := b.ChatType.text != chatTelegram && b.ChatType.text != chatVK
	switch {
	case utf8.RuneCountInString(b.Text.text) > maxText:
		return codeTextTooLong, ""
	case hasText && hasContent && exclusive:
		return codeTextOrContent, ""
	case hasContent && !isWebURL(b.Content.text):
		return codeValidation, "content must be an absolute http(s) link."
	case hasText || hasContent:
		return "", ""
	case b.Text.given:
		return codeTextBlank, ""
	case b.Content.given:
		return codeContentBlank, ""
	}
	return codeNothingToSend, ""
}

// isPhone reports whether id is what the manual asks of a WhatsApp number: 9
// to 16 digits, and for Russian numbers a leading 7 (not the 8 of calls within
// the country, recognised by 89 and eleven digits).
func isPhone(id string) bool {
	if len(id) < 9 || len(id) > 16 {
		return false
	}
	for i := range len(id) {
		if id[i] < '0' || id[i] > '9' {
			return false
		}
	}
	return len(id) != 11 || !strings.HasPrefix(id, "89")
}

// accept checks a sound message against the state, and takes it: code is empty
// then, the message has its id and its request knows it.
func (s *Server) accept(c *call) (m message, code string) {
	b := c.send
	s.mu.Lock()
	defer s.mu.Unlock()
	channel := s.channel(strings.ToLower(b.ChannelID.text))
	if channel == nil {
		return m, codeChannelNotFound
	}
	if code := channel.refuses(b.ChatType.text); code != "" {
		return m, code
	}
	if ref := b.RefMessageID.text; ref != "" {
		if _, ok := s.known[ref]; !ok {
			return m, codeReference
		}
	}
	m = message{
		MessageID: s.newID(), ChannelID: channel.ChannelID,
		ChatType: b.ChatType.text, ChatID: b.ChatID.text, DateTime: c.time.UnixMilli(),
		Type: messageType(b.Content.text), Status: statusSent,
		Text: b.Text.text, Content: b.Content.text, AuthorType: authorAPI,
	}
	s.know(m.MessageID)
	c.entry.messageID = m.MessageID
	if c.run == s.run {
		s.view.Accepted++
	}
	return m, ""
}

// channel finds a channel. Callers hold s.mu.
func (s *Server) channel(id string) *Channel {
	for i := range s.channels {
		if s.channels[i].ChannelID == id {
			return &s.channels[i]
		}
	}
	return nil
}

// refuses is the code that stands against a message of a chat type through the
// channel, "" if none does.
func (ch *Channel) refuses(chatType string) string {
	switch ch.State {
	case StateActive:
	case StateDisabled:
		return codeChannelBlocked
	case StateNotEnoughMoney:
		return codeNoMoney
	default: // phoneUnavailable, openElsewhere, qr, and states of tomorrow
		return codeChannelUnavailable
	}
	own, known := ch.chatType()
	if !known || own == chatType || (own == chatWhatsApp && chatType == chatWhatsGrp) {
		return ""
	}
	if own == chatInstagram {
		return codeInvalidContactType
	}
	return codeAbnormalSend
}

// chatType is the chat type that goes with the transport. The vendor has
// several transports for one messenger.
func (ch *Channel) chatType() (chatType string, known bool) {
	switch ch.Transport {
	case chatWhatsApp, "wapi":
		return chatWhatsApp, true
	case chatTelegram, "tgapi":
		return chatTelegram, true
	case chatInstagram, "instAPI":
		return chatInstagram, true
	case chatVK:
		return chatVK, true
	}
	return "", false
}

// know makes a message one that can be quoted. Callers hold s.mu.
func (s *Server) know(id string) {
	if _, ok := s.known[id]; ok {
		return
	}
	s.known[id] = struct{}{}
	if old, full := s.knownOrder.add(id); full {
		delete(s.known, old)
	}
}

// newID makes a uuid of version 4 from the seed. Callers hold s.mu.
func (s *Server) newID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], s.rng.Uint64())
	binary.BigEndian.PutUint64(b[8:], s.rng.Uint64())
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var t [36]byte
	hex.Encode(t[:8], b[:4])
	hex.Encode(t[9:13], b[4:6])
	hex.Encode(t[14:18], b[6:8])
	hex.Encode(t[19:23], b[8:10])
	hex.Encode(t[24:], b[10:])
	t[8], t[13], t[18], t[23] = '-', '-', '-', '-'
	return string(t[:])
}
