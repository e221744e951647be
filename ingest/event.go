package ingest

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Prefixes of event ids. The server compares ids over the whole stream, so each
// family has its own.
const (
	idMessage    = "message-"
	idStatus     = "status-"
	idChannel    = "channel-"
	idChannels   = "channels-"
	idQuarantine = "quarantine-"
	idOps        = "ops-"
)

const typePrefix = "wazzup."

// origin is what all events of one webhook share.
type origin struct {
	account string
	at      time.Time // of receipt
}

func (o origin) event(subject, id, ceType, about string, body []byte) queue.Event {
	return queue.Event{
		Subject: subject, ID: id, Account: o.account, Type: typePrefix + ceType,
		CESubject: about, Time: o.at, Body: body,
	}
}

func (o origin) message(it *item) queue.Event {
	id := schema.Key(it.messageID)
	return o.event(
		schema.MessageEventSubject(o.account, it.direction, it.channelID, it.chatType, it.chatID),
		idMessage+id+"-"+it.hash, "message."+it.direction, id, it.raw)
}

// status is identified by its message and number alone: a replay that comes when
// the command is known adds nothing.
func (o origin) status(it *item, c Command) queue.Event {
	id := schema.Key(it.messageID)
	return o.event(
		schema.StatusEventSubject(o.account, it.word),
		idStatus+id+"-"+it.status, "status."+it.word, id, enrich(it.raw, c, it.clash))
}

// enrich adds commandId and meta to the vendor's status object, whose bytes stay
// as they are. Where the object has members of these names (clash), ours take
// their place: consumers rely on them.
func enrich(raw []byte, c Command, clash bool) []byte {
	if c.ID == "" {
		return raw
	}
	if clash {
		raw = without(raw, "commandId", "meta")
	}
	end := len(raw) - 1 // the object's closing brace
	out := make([]byte, 0, len(raw)+len(c.ID)+len(c.Meta)+32)
	out = append(out, raw[:end]...)
	if !emptyContainer(raw) {
		out = append(out, ',')
	}
	out = append(out, `"commandId":`...)
	out = appendText(out, c.ID)
	if len(c.Meta) > 0 {
		out = append(out, `,"meta":`...)
		out = append(out, c.Meta...)
	}
	return append(out, '}')
}

// without rebuilds an object without some members; the others keep their bytes.
func without(raw []byte, names ...string) []byte {
	s := newSplitter(raw)
	if _, err := s.object(); err != nil {
		return raw
	}
	out := append(make([]byte, 0, len(raw)), '{')
	for _, m := range s.members {
		if slices.Contains(names, unquote(m.name)) {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, m.name...)
		out = append(out, ':')
		out = append(out, m.value...)
	}
	return append(out, '}')
}

// appendText appends a JSON string; what is not UTF-8 in it becomes U+FFFD.
func appendText(dst []byte, text string) []byte {
	quoted, err := jsontext.AppendQuote(dst, text)
	if err != nil { // of invalid UTF-8 only, which is replaced
		quoted, _ = jsontext.AppendQuote(dst, string([]rune(text)))
	}
	return quoted
}

// v3Noticed tells operators that the successor API's webhooks arrive. A migrated
// account sends nothing else, so at most one an hour is raised.
func (o origin) v3Noticed() (queue.Event, error) {
	body, err := json.Marshal(schema.OpsEvent{
		Name: schema.OpsWebhookV3, Account: o.account, At: o.at,
		Reason: "webhooks have the shape of the v3 API; they are kept in quarantine",
	})
	if err != nil {
		return queue.Event{}, err
	}
	return o.event(
		schema.OpsEventSubject(o.account, schema.OpsWebhookV3),
		idOps+string(schema.OpsWebhookV3)+"-"+o.at.UTC().Format("2006-01-02T15"),
		"ops."+string(schema.OpsWebhookV3), "", body), nil
}
