package sender

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// clockSlack is how much earlier than a claim the vendor's clock may date the
// echo of its call.
const clockSlack = 30 * time.Second

// echoSettle is how long a look waits for what else belongs to the same moment: an
// echo that comes alone may be followed by another program's equal one, and then
// neither proves anything.
const echoSettle = 250 * time.Millisecond

// maxGaveUp bounds the chats whose unproven messages are remembered.
const maxGaveUp = 10_000

// authorAPI is the author type of messages sent through the API (manual: New
// messages).
const authorAPI = "9"

// doubt is an attempt whose fate is unknown: what may prove it, and until when
// that is waited for.
type doubt struct {
	subject string // on which the vendor's echo would be stored
	content string
	err     *schema.Error
	reason  schema.Reason // of the end, if nothing proves it
	since   time.Time     // through hand-overs
	ended   bool          // the wait is over; the next look decides
}

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

// echo is what counts of a message event.
type echo struct {
	ID         json.RawMessage `json:"messageId"`
	AuthorType json.RawMessage `json:"authorType"`
	DateTime   json.RawMessage `json:"dateTime"`
	Text       json.RawMessage `json:"text"`
	Content    json.RawMessage `json:"content"`

	messageID string
	sequence  uint64
}

// content is what counts of the echo's content.
func (e *echo) content() string { return content(schema.EntityID(e.Text), schema.EntityID(e.Content)) }

// time is the vendor's time of the echo (manual: Unix milliseconds).
func (e *echo) time() (time.Time, bool) {
	ms, err := strconv.ParseInt(schema.EntityID(e.DateTime), 10, 64)
	return time.UnixMilli(ms), err == nil
}

// wonder waits for evidence about an attempt whose fate is unknown. The chat
// waits with it. The owner's mutex is held.
func (o *owner) wonder(c *command, e *schema.Error, since time.Time) {
	m := c.body.Message
	c.doubt = &doubt{
		subject: schema.MessageEventSubject(o.cfg.Account, "out", m.ChannelID, m.ChatType, m.ChatID),
		content: contentOf(m), err: e, reason: schema.ReasonNoEvidence, since: since,
	}
	o.doubts[c.doubt.subject] = append(o.doubts[c.doubt.subject], c)
	o.chatWaits(c.chat)
	switch {
	case o.cfg.Evidence == EvidenceNone:
		c.doubt.ended = true
		o.look(c.doubt.subject)
	case o.webhooks:
		o.waitForEvidence(c)
	default:
		o.later(func() { o.askForWebhooks(c) })
	}
}

func (o *owner) waitForEvidence(c *command) {
	d := c.doubt
	c.timer = time.AfterFunc(max(o.cfg.ReconcileWait-time.Since(d.since), 0), func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		d.ended = true
		o.look(d.subject)
	})
	o.lookSoon(d.subject)
}

// askForWebhooks decides whether waiting makes sense when no webhook has ever
// arrived: it does if an address is registered, for the first may be on its way.
func (o *owner) askForWebhooks(c *command) {
	expected := true
	ctx, cancel := context.WithTimeout(o.ctx, o.cfg.Timeout)
	defer cancel()
	a, err := o.query(ctx, func(ctx context.Context) wazzup.Answer { return o.client.GetWebhooks(ctx) })
	if err == nil && a.OK() {
		w, err := wazzup.DecodeWebhooks(a.Body)
		expected = err != nil || w.URL != ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.doubt == nil || o.dropped {
		return
	}
	c.doubt.reason = schema.ReasonNoWebhooks
	if expected {
		o.waitForEvidence(c)
		return
	}
	c.doubt.ended = true
	o.look(c.doubt.subject)
}

// lookSoon looks after a moment. The owner's mutex is held.
func (o *owner) lookSoon(subject string) {
	if len(o.doubts[subject]) == 0 || o.lookTimer[subject] != nil {
		return
	}
	o.lookTimer[subject] = time.AfterFunc(min(echoSettle, o.cfg.ReconcileWait/2), func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.lookTimer, subject)
		o.look(subject)
	})
}

// look has the doubts of one chat judged by what is stored now. One look at a
// time; a wish during it is followed by another. The owner's mutex is held.
func (o *owner) look(subject string) {
	if o.looking[subject] {
		o.lookAgain[subject] = true
		return
	}
	if o.stopping || len(o.doubts[subject]) == 0 {
		return
	}
	o.looking[subject] = true
	o.later(func() {
		o.judgeDoubts(subject)
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.looking, subject)
		if o.lookAgain[subject] {
			delete(o.lookAgain, subject)
			o.look(subject)
		}
	})
}

// judgeDoubts reads the evidence and settles what it settles.
func (o *owner) judgeDoubts(subject string) {
	o.mu.Lock()
	open := slices.Clone(o.doubts[subject])
	from, earliest := uint64(0), time.Time{}
	for _, c := range open {
		if from == 0 || c.claimSeq < from {
			from, earliest = c.claimSeq, c.claimAt
		}
	}
	o.mu.Unlock()
	if len(open) == 0 {
		return
	}
	o.takeLateAnswers(open)
	echoes, err := o.readEchoes(subject, from, earliest)
	if err != nil {
		o.log.Warn().Err(err).Msg("evidence_not_read")
		o.mu.Lock()
		defer o.mu.Unlock()
		o.lookSoon(subject)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.matchEchoes(subject, echoes)
	for _, c := range slices.Clone(o.doubts[subject]) {
		if c.doubt.ended && !o.unanswered(c, c.doubt.content) {
			o.resolved(c, o.unresolved(c, c.doubt.reason))
		}
	}
}

// takeLateAnswers settles doubts whose answer reached a worker that had lost the
// account meanwhile.
func (o *owner) takeLateAnswers(open []*command) {
	for _, c := range open {
		ctx, cancel := context.WithTimeout(o.ctx, requestTimeout)
		x, err := o.ledger.LateOf(ctx, c.id)
		cancel()
		if err != nil || x == nil || x.Origin != c.origin || x.Generation != c.generation {
			continue
		}
		o.mu.Lock()
		if c.doubt != nil {
			o.resolved(c, proven(schema.EvidenceAnswer, x.MessageID))
		}
		o.mu.Unlock()
	}
}

// readEchoes reads the API echoes of one chat that were stored after the first
// claim in doubt and belong to no command yet.
func (o *owner) readEchoes(subject string, from uint64, claimed time.Time) ([]echo, error) {
	if o.cfg.Evidence == EvidenceNone {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(o.ctx, scanTimeout)
	defer cancel()
	var all []echo
	err := o.ledger.Events(ctx, subject, from+1, func(sequence uint64, body []byte) error {
		var e echo
		// What ingest could not read is in quarantine; this is an object.
		if err := json.Unmarshal(body, &e); err != nil {
			return err
		}
		e.messageID = schema.EntityID(e.ID)
		at, dated := e.time()
		switch {
		case schema.EntityID(e.AuthorType) != authorAPI || e.messageID == "":
		case !dated || at.Before(claimed.Add(-clockSlack)):
			// An old message that comes late after a reconnection is none of ours.
		case slices.ContainsFunc(all, func(known echo) bool { return known.messageID == e.messageID }):
			// The vendor repeats a message as its state changes.
		default:
			e.sequence = sequence
			all = append(all, e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(all); {
		x, err := o.ledger.IndexOf(ctx, all[i].messageID)
		if err != nil {
			return nil, err
		}
		if x != nil { // another command's message
			all = slices.Delete(all, i, i+1)
			continue
		}
		i++
	}
	return all, nil
}

// matchEchoes gives each doubt its echo, where that is beyond doubt: among equal
// contents there are no more echoes than doubts, and no call that is still
// unanswered, or was given up as dead, could own one of them. The owner's mutex is held.
func (o *owner) matchEchoes(subject string, echoes []echo) {
	byContent := make(map[string][]*command)
	for _, c := range o.doubts[subject] {
		byContent[c.doubt.content] = append(byContent[c.doubt.content], c)
	}
	for want, doubts := range byContent {
		var candidates []echo
		for _, e := range echoes {
			if e.content() == want {
				candidates = append(candidates, e)
			}
		}
		if len(candidates) == 0 || len(candidates) > len(doubts) || o.unanswered(doubts[0], want) ||
			slices.Contains(o.gaveUp[subject], want) {
			continue
		}
		slices.SortFunc(doubts, func(a, b *command) int { return int(int64(a.claimSeq) - int64(b.claimSeq)) }) //nolint:gosec // sequences are far below 2^63
		for i, e := range candidates {
			if e.sequence > doubts[i].claimSeq {
				o.resolved(doubts[i], proven(schema.EvidenceEcho, e.messageID))
			}
		}
	}
}

// unanswered reports whether a call of equal content to the same chat, in either
// class, has no outcome yet. When it has, the chat is looked at again.
func (o *owner) unanswered(doubted *command, want string) bool {
	m := doubted.body.Message
	for _, c := range o.commands {
		if c.unsettled && c.doubt == nil && c.body.Message != nil && c.channel == doubted.channel &&
			c.body.Message.ChatType == m.ChatType && c.body.Message.ChatID == m.ChatID && contentOf(c.body.Message) == want {
			return true
		}
	}
	return false
}

// settled looks again at the doubts of a chat when one of its calls has got its
// outcome. The owner's mutex is held.
func (o *owner) settled(c *command) {
	c.unsettled = false
	if len(o.doubts) == 0 || c.body.Message == nil {
		return
	}
	m := c.body.Message
	o.look(schema.MessageEventSubject(o.cfg.Account, "out", m.ChannelID, m.ChatType, m.ChatID))
}

// resolved ends a doubt with what resolved it. The owner's mutex is held.
func (o *owner) resolved(c *command, out outcome) {
	o.endDoubt(c)
	o.later(func() { o.conclude(c, out) })
}

// endDoubt has nothing wait any more for what would settle the command.
func (o *owner) endDoubt(c *command) {
	d := c.doubt
	c.doubt = nil
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	left := slices.DeleteFunc(o.doubts[d.subject], func(other *command) bool { return other == c })
	if len(left) == 0 {
		delete(o.doubts, d.subject)
	} else {
		o.doubts[d.subject] = left
	}
}

func proven(kind schema.EvidenceKind, messageID string) outcome {
	out := final(schema.StateSent)
	out.messageID = messageID
	out.evidence = &schema.Evidence{Kind: kind, MessageID: messageID}
	return out
}

// unresolved is what becomes of an unknown that nothing proved.
func (o *owner) unresolved(c *command, reason schema.Reason) outcome {
	e := *c.doubt.err
	if c.body.Message.OnUnknown == schema.OnUnknownResend {
		c.doubted = true
		return o.retry(c, &e, true)
	}
	e.Reason = reason
	// An equal message to this chat may still be on its way, and its echo with it.
	if len(o.gaveUp) < maxGaveUp {
		o.gaveUp[c.doubt.subject] = append(o.gaveUp[c.doubt.subject], c.doubt.content)
	}
	return outcome{step: queue.StepFinal, state: schema.StateDead, err: &e}
}
