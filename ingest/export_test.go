package ingest

import (
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Item is what split made of one element, in words that tests can compare.
type Item struct {
	Kind, Raw                             string
	Direction, MessageID, ChannelID       string
	ChatType, ChatID, Status, Word, State string
	Reason, Key                           string
}

func Split(body []byte) []Item {
	var out []Item
	for _, it := range split(body) {
		out = append(out, Item{
			Kind: [...]string{"message", "status", "channel", "list", "quarantine"}[it.kind],
			Raw:  string(it.raw), Direction: it.direction, MessageID: it.messageID, ChannelID: it.channelID,
			ChatType: it.chatType, ChatID: it.chatID, Status: it.status, Word: it.word, State: it.state,
			Reason: string(it.reason), Key: it.key,
		})
	}
	return out
}

func Hash(raw string) string { return hash([]byte(raw)) }

func Enrich(raw string, c Command) string {
	items := split([]byte(`{"statuses":[` + raw + `]}`))
	return string(enrich(items[0].raw, c, items[0].clash))
}

func Quarantine(account, reason string, raw []byte, limit int) ([]queue.Event, error) {
	return origin{account: account, at: time.Now()}.quarantine(
		&item{kind: itemQuarantine, raw: raw, reason: schema.QuarantineReason(reason)}, limit)
}

// Pending gives the tails of the ids of the items that are news, by place.
func Pending(items []string, last Last) map[int]string {
	var changes []change
	for _, raw := range items {
		changes = append(changes, change{hash: hash([]byte(raw))})
	}
	return pending(changes, last)
}

func RegisterPause(attempt int) time.Duration { return registerPause(attempt) }

func Outcomes() []string {
	var out []string
	for _, o := range outcomes() {
		out = append(out, string(o))
	}
	return out
}
