package ingest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Encodings of a quarantined body.
const (
	encodingText   = "utf-8"
	encodingBase64 = "base64"
)

// quarantineFrame is more than the JSON around a part's text: names, reason,
// hash, numbers.
const quarantineFrame = 256

// minPart keeps parts from becoming endless on a server with an absurdly small
// payload limit; such a server refuses them, and the vendor is told to try later.
const minPart = 256

// quarantine keeps what could not be understood, whole. Where it exceeds limit
// (bytes of an event's body), it is cut into parts: decode the parts' bodies in
// their order, one after the other, and the hash must be that of the whole.
func (o origin) quarantine(it *item, limit int) ([]queue.Event, error) {
	sum := sha256.Sum256(it.raw)
	whole := hex.EncodeToString(sum[:])
	room := max(limit-quarantineFrame, minPart)
	encoding := encodingText
	cut := cutText
	if !utf8.Valid(it.raw) {
		encoding, cut = encodingBase64, cutBinary
	}
	parts := cut(it.raw, room)
	events := make([]queue.Event, 0, len(parts))
	for i, part := range parts {
		text := string(part)
		if encoding == encodingBase64 {
			text = base64.StdEncoding.EncodeToString(part)
		}
		body, err := json.Marshal(schema.QuarantineEvent{
			Reason: it.reason, Body: text, Encoding: encoding,
			Part: i + 1, Parts: len(parts), SHA256: whole,
		})
		if err != nil {
			return nil, err
		}
		events = append(events, o.event(
			schema.QuarantineEventSubject(o.account, it.reason),
			idQuarantine+string(it.reason)+"-"+whole[:hashSize]+"-"+strconv.Itoa(i+1)+"of"+strconv.Itoa(len(parts)),
			"quarantine."+string(it.reason), it.key, body))
	}
	return events, nil
}

// cutText cuts text between characters, so that each part takes at most room
// bytes as a JSON string.
func cutText(text []byte, room int) [][]byte {
	var parts [][]byte
	start, used := 0, 0
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		cost := quotedSize(r, size)
		if used+cost > room {
			parts = append(parts, text[start:i])
			start, used = i, 0
		}
		used += cost
		i += size
	}
	return append(parts, text[start:])
}

// quotedSize is how many bytes encoding/json needs for a character.
func quotedSize(r rune, size int) int {
	switch {
	case r == '"' || r == '\\' || r == '\n' || r == '\r' || r == '\t':
		return 2
	case r < ' ' || r == '<' || r == '>' || r == '&' || r == '\u2028' || r == '\u2029':
		return 6
	}
	return size
}

// cutBinary cuts bytes so that each part takes at most room bytes in base64;
// every part but the last is a multiple of three, so no padding is in between.
func cutBinary(data []byte, room int) [][]byte {
	size := max(room/4*3, 3)
	var parts [][]byte
	for len(data) > size {
		parts = append(parts, data[:size])
		data = data[size:]
	}
	return append(parts, data)
}
