package sender

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// clockSlack is how much earlier than a claim the vendor's clock may date the
// echo of its call.
const clockSlack = 30 * time.Second

// authorAPI is the author type of messages sent through the API (manual: New
// messages).
const authorAPI = "9"

// content is what two messages have in common if one may be taken for the other:
// the text after normalisation, or that it is a file, since the echo may carry
// the vendor's own link.
func content(text, link string) string {
	if link != "" {
		return "file"
	}
	return "text:" + strings.Join(strings.Fields(norm.NFC.String(text)), " ")
}

func contentOf(m *schema.Message) string { return content(m.Text, m.Content) }

// echoSubject is where the echoes of what is sent to a message's chat are stored.
func (o *owner) echoSubject(m *schema.Message) string {
	return schema.MessageEventSubject(o.cfg.Account, "out", m.ChannelID, m.ChatType, m.ChatID)
}

// echo is the vendor's word that a message was sent through the API.
type echo struct {
	messageID string
	content   string
	at        time.Time    // the vendor's clock
	sequence  uint64       // of its event
	of        *queue.Index // whose message it is, where that is noted already
}

// parseEcho reads a stored message event; ok is false for one that can be no
// echo of a call of ours, or says no time.
func parseEcho(sequence uint64, body []byte) (e echo, ok bool) {
	var m struct {
		ID         json.RawMessage `json:"messageId"`
		AuthorType json.RawMessage `json:"authorType"`
		DateTime   json.RawMessage `json:"dateTime"`
		Text       json.RawMessage `json:"text"`
		Content    json.RawMessage `json:"content"`
	}
	// What ingest could not read is in quarantine: this is an object.
	if json.Unmarshal(body, &m) != nil || schema.EntityID(m.AuthorType) != authorAPI {
		return echo{}, false
	}
	ms, err := strconv.ParseInt(schema.EntityID(m.DateTime), 10, 64) // manual: Unix milliseconds
	e = echo{
		messageID: schema.EntityID(m.ID), content: content(schema.EntityID(m.Text), schema.EntityID(m.Content)),
		at: time.UnixMilli(ms), sequence: sequence,
	}
	return e, err == nil && e.messageID != ""
}

// attempt is an attempt that may own an echo: one that is in doubt, or one that was
// given up.
type attempt struct {
	command *command     // which an echo would prove; nil: the attempt was given up, and its command has ended or goes on without it
	given   *queue.Doubt // of an attempt that was given up
	claim   uint64       // sequence of its claim
	claimed time.Time    // when that was stored, by NATS's clock
}

// owns reports whether the echo may be the attempt's: it was stored after the
// claim, and the vendor dates it no earlier, but for what two clocks may differ.
// An old message that comes late, after a reconnection, is nobody's.
func (s *attempt) owns(e *echo) bool {
	return e.sequence > s.claim && !e.at.Before(s.claimed.Add(-clockSlack))
}

// match gives each echo an attempt of its own, where that is beyond doubt; the
// result holds, for each echo, the place of its attempt, or -1 for an echo that is
// none of them. All echoes and attempts are of one chat and of equal content. It is
// nil when nothing is proven:
//
//   - More echoes came than attempts could own: one of them is a stranger's, and
//     nobody knows which.
//   - An attempt that was given up may own an echo, and there are fewer echoes
//     than attempts: which of them was carried out cannot be told. Attempts that
//     are in doubt now are taken in the order of their claims, since each of them
//     ends here in any case.
func match(attempts []attempt, echoes []echo) []int {
	order := make([]int, len(attempts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compareAttempts(&attempts[a], &attempts[b]) })

	owner := make([]int, len(attempts)) // by attempt: the place of its echo
	for i := range owner {
		owner[i] = -1
	}
	matched := 0
	for i := range echoes {
		if !slices.ContainsFunc(attempts, func(s attempt) bool { return s.owns(&echoes[i]) }) {
			continue
		}
		if !seat(i, attempts, echoes, order, owner, make([]bool, len(attempts))) {
			return nil
		}
		matched++
	}
	wanted, strangers := 0, false
	for i := range attempts {
		if slices.ContainsFunc(echoes, func(e echo) bool { return attempts[i].owns(&e) }) {
			wanted++
			strangers = strangers || attempts[i].command == nil
		}
	}
	if matched == 0 || strangers && matched < wanted {
		return nil
	}
	places := make([]int, len(echoes))
	for i := range places {
		places[i] = slices.Index(owner, i)
	}
	return places
}

// compareAttempts puts what ends here first: attempts in doubt before those of the
// same command that were given up, and these before all others.
func compareAttempts(a, b *attempt) int {
	rank := func(s *attempt) int {
		switch {
		case s.command == nil:
			return 2
		case s.given != nil:
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.claim, b.claim))
}

// seat finds the echo a attempt: a free one, or one whose echo can go to another
// attempt instead (an augmenting path).
func seat(i int, attempts []attempt, echoes []echo, order, owner []int, tried []bool) bool {
	for _, s := range order {
		if owner[s] < 0 && attempts[s].owns(&echoes[i]) {
			owner[s] = i
			return true
		}
	}
	for _, s := range order {
		if tried[s] || !attempts[s].owns(&echoes[i]) {
			continue
		}
		tried[s] = true
		if seat(owner[s], attempts, echoes, order, owner, tried) {
			owner[s] = i
			return true
		}
	}
	return false
}
