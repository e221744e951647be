package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Channel objects and lists carry neither id nor time. What makes one an event
// is that it differs from the one before it. Its id names the event before the
// body (by sequence) and what the body said about the channel up to and with
// this item (by hash), so that
//
//   - two posts of the same change at the same time build the same id, and the
//     server keeps one;
//   - qr, active, qr are three events;
//   - a body that says several things about one channel adds nothing when it is
//     replayed, and only the rest when its beginning is stored: the last event's
//     id tells how far this very body has come.
type change struct {
	hash string // of the item
}

// pending tells which changes are news after what was stored last, by their
// place, with the tail of their event's id.
func pending(changes []change, last Last) map[int]string {
	chains := chain(changes)
	news := make(map[int]string)
	base := strconv.FormatUint(last.Seq, 10)
	next, current := 0, ""
	if last.Seq != 0 {
		current = hash(last.Body)
		// What is stored may be this body's own beginning, posted at the same
		// time or not acknowledged to the end: go on as that post does.
		before, said := splitTail(last.ID)
		if i := slices.Index(chains, said); i >= 0 {
			base, next = before, i+1
		}
	}
	for i := next; i < len(changes); i++ {
		if changes[i].hash == current {
			continue
		}
		current = changes[i].hash
		news[i] = base + "-" + chains[i]
	}
	return news
}

// chain hashes what was said up to and with each change; equal neighbours count
// once. A single change's chain is its own hash.
func chain(changes []change) []string {
	chains := make([]string, len(changes))
	for i, c := range changes {
		switch {
		case i == 0:
			chains[i] = c.hash
		case c.hash == changes[i-1].hash:
			chains[i] = chains[i-1]
		default:
			sum := sha256.Sum256([]byte(chains[i-1] + c.hash))
			chains[i] = hex.EncodeToString(sum[:hashSize/2])
		}
	}
	return chains
}

// splitTail takes the base and the chain from an event's id.
func splitTail(id string) (base, chain string) {
	head, chain := cutLast(id)
	_, base = cutLast(head)
	return base, chain
}

func cutLast(s string) (before, after string) {
	i := strings.LastIndexByte(s, '-')
	return s[:max(i, 0)], s[i+1:]
}

// anyStateSubject matches the events of one channel, whatever its state.
func anyStateSubject(account, channelID string) string {
	const state = "-"
	return strings.TrimSuffix(schema.ChannelEventSubject(account, channelID, state), state) + "*"
}

func (o origin) channel(it *item, tail string) queue.Event {
	id := schema.Key(it.channelID)
	return o.event(schema.ChannelEventSubject(o.account, it.channelID, it.state),
		idChannel+id+"-"+tail, "channel.state", id, it.raw)
}

func (o origin) channelList(it *item, tail string) queue.Event {
	return o.event(schema.ChannelsEventSubject(o.account), idChannels+tail, "channels", "", it.raw)
}
