package main

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/nats-io/nuid"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// sample is one piece of traffic, and what must come of it.
type sample struct {
	name, what string

	inbound *simulator.Inbound // a customer writes; the rest is then empty

	kind    schema.Kind
	channel string
	rule    *simulator.Rule // for its own chat only
	// command makes the body; quoted is the id of the customer's message.
	command        func(id, quoted string) ([]byte, error)
	statusesByHand bool

	state    schema.State
	steps    []string // of the ledger, up to the final one
	attempts int      // at the end
	requests int      // at the vendor
	err      *schema.Error
	faults   []string // field: code
	// met checks what the vendor got.
	met func(r *result, sends []simulator.Send, s *simulator.Server)
}

// A chat for each sample, so that rules and requests tell them apart.
const (
	chatInbound = "79990000001"
	chatText    = "79990000002"
	chatFile    = "79990000003"
	chatQuote   = chatInbound
	chatRefused = "79990000005"
	chatInvalid = "89990000006" // begins with 89: a Russian number written with 8
	chatLimited = "79990000007"

	sampleText = "Order 1042 has been shipped"
	sampleFile = "https://files.example.org/invoice-1042.pdf"
	sampleMeta = `{"orderId":"1042"}`
)

func runID() string { return strings.ToLower(nuid.Next()[14:]) }

// samples are sent in this order; the first is quoted by a later one.
func samples() []*sample {
	return []*sample{
		{
			name: "inbound", what: "a customer writes",
			inbound: &simulator.Inbound{
				ChannelID: simulator.ChannelWhatsApp, ChatID: chatInbound, Text: "Where is my order?", AuthorName: "A customer",
			},
		},
		message("text", "a text", chatText, func(c *schema.SendCommand, _ string) {
			c.Text, c.Meta, c.Group = sampleText, json.RawMessage(sampleMeta), "samples"
		}).with(func(s *sample) {
			s.statusesByHand = true
			s.rule = &simulator.Rule{Match: simulator.Match{ChatID: chatText}, Statuses: new([]int{})}
		}),
		message("file", "a file", chatFile, func(c *schema.SendCommand, _ string) { c.Content = sampleFile }),
		message("quote", "a reply that quotes the customer", chatQuote, func(c *schema.SendCommand, quoted string) {
			c.Text, c.RefMessageID = "It is on its way", quoted
		}),
		message("refused", "a message that Wazzup refuses", chatRefused, func(c *schema.SendCommand, _ string) { c.Text = sampleText }).
			with(func(s *sample) {
				s.rule = &simulator.Rule{Match: simulator.Match{ChatID: chatRefused}, Status: 400, Code: "MESSAGES_NOT_TEXT_FIRST"}
				s.state = schema.StateRejected
				s.err = &schema.Error{Code: "MESSAGES_NOT_TEXT_FIRST", Class: schema.ClassTerminal, HTTPStatus: 400, Phase: schema.PhaseAnswered}
			}),
		message("invalid", "a message that breaks the rules", chatInvalid, func(c *schema.SendCommand, _ string) {
			c.Text, c.Content = sampleText, sampleFile
		}).with(func(s *sample) {
			s.state, s.steps, s.attempts, s.requests = schema.StateInvalid, []string{"invalid"}, 0, 0
			s.err = &schema.Error{Code: schema.CodeInvalid, Class: schema.ClassInvalid, Phase: schema.PhaseNotSent}
			s.faults = []string{"chatId: " + schema.FaultWhatsAppChatID, "content: " + schema.FaultTextOrContent}
		}),
		message("limited", "a message that meets 429 and is sent after the wait", chatLimited, func(c *schema.SendCommand, _ string) { c.Text = sampleText }).
			with(func(s *sample) {
				s.rule = &simulator.Rule{
					Match: simulator.Match{ChatID: chatLimited}, Times: 1, Status: 429, Headers: map[string]string{"Retry-After": "1"},
				}
				s.steps, s.attempts, s.requests = []string{"claim", "retry", "claim", "final"}, 2, 2
			}),
		{
			name: "contacts", what: "two contacts are synchronised", kind: schema.KindContactsUpsert,
			command: func(id, _ string) ([]byte, error) {
				return json.Marshal(map[string]any{"id": id, "items": sampleContacts()})
			},
			state: schema.StateDone, steps: []string{"claim", "final"}, attempts: 1,
			met: metContacts,
		},
	}
}

func sampleContacts() []map[string]any {
	return []map[string]any{
		{"id": "crm-1", "name": "First Contact", "chats": []map[string]any{{"chatType": "whatsapp", "chatId": chatInbound}}},
		{"id": 17, "name": "Second Contact"},
	}
}

// message is a sample that is sent at the first attempt, unless changed.
func message(name, what, chat string, fill func(c *schema.SendCommand, quoted string)) *sample {
	return &sample{
		name: name, what: what, kind: schema.KindSend, channel: simulator.ChannelWhatsApp,
		command: func(id, quoted string) ([]byte, error) {
			c := schema.SendCommand{ID: id, ChannelID: simulator.ChannelWhatsApp, ChatType: schema.ChatWhatsApp, ChatID: chat}
			fill(&c, quoted)
			return c.AppendJSON(nil)
		},
		state: schema.StateSent, steps: []string{"claim", "final"}, attempts: 1, requests: 1,
		met: metMessage,
	}
}

func (s *sample) with(change func(*sample)) *sample {
	change(s)
	return s
}

// compare holds what came against what must.
func (r *result) compare(t *trial) {
	r.compareEvent(t.account)
	r.compareLedger()
	if r.state == schema.StateSent {
		r.compareWebhooks()
	}
	r.met(r, t.sim.Sends(), t.sim)
}

// compareEvent looks at the final event, field by field.
func (r *result) compareEvent(account string) {
	at := slices.IndexFunc(r.events, func(e *event) bool { return e.family() == "command" && e.state().Final() })
	if at < 0 {
		return // it was said
	}
	e := r.events[at]
	var got schema.CommandEvent
	if err := json.Unmarshal(e.Body, &got); err != nil {
		r.require(false, "the final event cannot be read: %v", err)
		return
	}
	r.require(got.State == r.state, "it ended %s, want %s", got.State, r.state)
	want := schema.CommandEventSubject(account, r.state, r.kind, r.channel)
	r.require(e.Subject == want, "the final event came on %s, want %s", e.Subject, want)
	r.require(got.ID == r.id && got.Account == account && got.Kind == r.kind && got.ChannelID == r.channel,
		"the final event names another command, kind, account or channel")
	r.require(got.Seq == r.receipt.Seq, "the final event has seq %d, want %d", got.Seq, r.receipt.Seq)
	r.require(got.Attempt == r.attempts, "it ended at attempt %d, want %d", got.Attempt, r.attempts)
	r.require((got.MessageID != "") == (r.state == schema.StateSent), "the message id is %q", got.MessageID)
	var sent struct {
		Meta  json.RawMessage `json:"meta"`
		Group string          `json:"group"`
	}
	r.require(json.Unmarshal(r.body, &sent) == nil && string(got.Meta) == string(sent.Meta) && got.Group == sent.Group,
		"meta or group was not echoed")
	r.compareError(got.Error)
}

func (r *result) compareError(got *schema.Error) {
	if r.err == nil || got == nil {
		r.require(got == nil && r.err == nil, "the final event's error is %v, want %v", got, r.err)
		return
	}
	r.require(got.Code == r.err.Code && got.Class == r.err.Class && got.HTTPStatus == r.err.HTTPStatus && got.Phase == r.err.Phase,
		"the error is %s %s %d %s, want %s %s %d %s", got.Code, got.Class, got.HTTPStatus, got.Phase,
		r.err.Code, r.err.Class, r.err.HTTPStatus, r.err.Phase)
	var faults []string
	for _, f := range got.Faults {
		faults = append(faults, f.Field+": "+f.Code)
	}
	slices.Sort(faults)
	r.require(slices.Equal(faults, r.faults), "the faults are %q, want %q", faults, r.faults)
}

// compareLedger looks at what command.get told.
func (r *result) compareLedger() {
	var steps []string
	for i, s := range r.ledger.Steps {
		if i == 0 {
			r.require(s.Step == "stored", "the timeline begins with %s, want stored", s.Step)
			continue
		}
		steps = append(steps, s.Step)
		if s.Step == "retry" {
			var f eventFields
			r.require(json.Unmarshal(s.Event, &f) == nil && f.Error != nil && f.Error.HTTPStatus == 429 && f.Error.Class == schema.ClassRetryable,
				"the retry does not name the 429")
		}
	}
	state := r.state
	if state == schema.StateSent { // and then delivered, unless read came first, and read
		statuses := len(steps) - len(r.steps)
		r.require(statuses == 1 || statuses == 2, "the ledger has %d steps after the last claim's end, want 1 or 2 statuses", statuses)
		state = schema.StateRead
		for len(steps) > len(r.steps) && steps[len(steps)-1] == "status" {
			steps = steps[:len(steps)-1]
		}
	}
	r.require(slices.Equal(steps, r.steps), "the ledger has the steps %q, want %q", steps, r.steps)
	r.require(r.ledger.State == state, "the ledger says %q, want %s", r.ledger.State, state)
}

// compareWebhooks wants the echo and each status once, and the command's own
// events of them.
func (r *result) compareWebhooks() {
	r.require(count(r.events, "command", "read") == 1, "there are %d events of the command being read, want 1", count(r.events, "command", "read"))
	r.require(count(r.events, "command", "delivered") <= 1, "there are %d events of the command being delivered, want 1", count(r.events, "command", "delivered"))
	r.require(count(r.events, "message", "out") == 1, "there are %d echoes, want 1", count(r.events, "message", "out"))
	for _, word := range []string{"sent", "delivered", "read"} {
		n := count(r.events, "status", word)
		r.require(n == 1, "there are %d statuses %s, want 1", n, word)
	}
	for _, e := range r.events {
		if e.family() != "status" {
			continue
		}
		named := e.fields.CommandID
		r.require(named == r.id || named == "" && !r.statusesByHand, "status %s names the command %q, want %q", e.token(1), named, r.id)
	}
}

// metMessage wants exactly the requests that there must be, each with exactly
// what the command says.
func metMessage(r *result, sends []simulator.Send, _ *simulator.Server) {
	var c schema.SendCommand
	if err := json.Unmarshal(r.body, &c); err != nil {
		r.require(false, "the command cannot be read: %v", err)
		return
	}
	n := 0
	for _, s := range sends {
		if s.ChatID != c.ChatID {
			continue
		}
		n++
		r.require(s.ChannelID == c.ChannelID && s.ChatType == c.ChatType && s.Text == c.Text && s.Content == c.Content && s.RefMessageID == c.RefMessageID,
			"request %d at Wazzup is not what the command says", n)
		r.require(!s.Accepted() || s.MessageID == r.messageID, "Wazzup's message id is not the event's")
	}
	r.require(n == r.requests, "Wazzup met %d requests, want %d", n, r.requests)
}

// metContacts wants both contacts at the vendor, by their ids as they were.
func metContacts(r *result, _ []simulator.Send, sim *simulator.Server) {
	var ids []string
	for _, raw := range sim.Contacts() {
		var c struct {
			ID json.RawMessage `json:"id"`
		}
		if json.Unmarshal(raw, &c) == nil {
			ids = append(ids, string(c.ID))
		}
	}
	slices.Sort(ids)
	r.require(slices.Equal(ids, []string{`"crm-1"`, "17"}), "Wazzup has the contacts %s", strings.Join(ids, ", "))
}
