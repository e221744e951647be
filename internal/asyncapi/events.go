package asyncapi

import (
	"strings"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// stateWords says what a state means, as a title and a sentence.
func stateWords(s schema.State) (title, description string) {
	switch s {
	case schema.StateRetrying:
		return "Another attempt follows", "The attempt had no effect, or may be repeated; the next one comes at `retryAt`."
	case schema.StateUnknown:
		return "It may have been carried out", "The request may have been written and no answer came back, or the worker died after its claim. It is not called again blindly."
	case schema.StateSent:
		return "Wazzup took the message", "Wazzup answered with a `messageId`, or evidence proved that it took the message."
	case schema.StateDone:
		return "Wazzup took the sync command", "Final, for sync commands."
	case schema.StateRejected:
		return "Wazzup refused it for good", "`error.code` is Wazzup's word. Of a sync command, `items` names what was refused; the rest was taken."
	case schema.StateInvalid:
		return "It breaks a rule", "It never reached Wazzup; `error.faults` names every fault by field. The id stays free."
	case schema.StateDuplicate:
		return "Its id was used before", "The same command was carried out or is under way; `original` tells how it stands."
	case schema.StateExpired:
		return "expireAt passed before the call", "It was not sent."
	case schema.StateCancelled:
		return "Somebody cancelled it before the call", "It was not sent."
	case schema.StateDead:
		return "Given up", "Attempts are used up, or nothing resolved an unknown. The command is kept as a dead letter and can be redriven."
	case schema.StateDelivered:
		return "Wazzup reports it delivered", "After `sent`."
	case schema.StateRead:
		return "Wazzup reports it read", "After `sent`; `delivered` may be skipped."
	case schema.StateFailed:
		return "Wazzup reports that it was not delivered", "After `sent`: it was not delivered after all."
	case schema.StatePending:
	}
	return "", ""
}

// opsWords says what an operator event tells.
func opsWords(n schema.OpsName) string {
	switch n {
	case schema.OpsLaneClosed:
		return "A channel cannot send; its messages wait"
	case schema.OpsLaneOpened:
		return "The channel can send again"
	case schema.OpsLanePaused:
		return "An operator, or the spam brake, stopped one class of a channel"
	case schema.OpsLaneResumed:
		return "The class goes on"
	case schema.OpsAccountClosed:
		return "The whole account cannot send"
	case schema.OpsAccountOpened:
		return "The account can send again"
	case schema.OpsBreakerOpened:
		return "Calls fail on the way or at Wazzup; nothing is called until a probe succeeds"
	case schema.OpsBreakerClosed:
		return "A probe succeeded"
	case schema.OpsWebhookDrift:
		return "The webhook address at Wazzup is not ours"
	case schema.OpsWebhookSilent:
		return "No webhook has arrived for long"
	case schema.OpsWebhookV3:
		return "Webhooks of the successor API arrive"
	case schema.OpsVendorUnknownCode:
		return "Wazzup refused a command with a code that is not in the tables"
	case schema.OpsLateProof:
		return "A command that had ended turned out to have been carried out, or carried out twice"
	case schema.OpsStorageHigh:
		return "A stream has reached 80 % of its limit"
	}
	return ""
}

// statusWords are the last tokens of the events of statuses.
func statusWords() []string { return []string{"processing", "sent", "delivered", "read", "failed"} }

func commandEvent(s schema.State) string { return "evt.command." + string(s) }

// events adds a channel and an operation for each family, and a message for each
// thing that its subject can tell.
func (p *parts) events() {
	// Keys of plain text are the text itself, so these stand for any.
	address := strings.NewReplacer("CHANNEL", channelVar, "CHATTYPE", "{chatType}", "CHATID", "{chatId}", "STATE", "{channelState}", "USER", "{userId}").Replace

	var commands []string
	for _, s := range schema.States() {
		title, description := stateWords(s)
		if title == "" {
			p.missing("no words for the state " + string(s))
		}
		if s.Final() {
			description += " Final."
		}
		p.event(event{
			message: commandEvent(s), title: title, summary: description, schema: "event-command", correlation: "command",
			types:  []string{"wazzup.command." + string(s)},
			choose: func(e example) bool { return e.text("state") == string(s) },
		})
		commands = append(commands, commandEvent(s))
	}
	p.eventChannel("evt.command", schema.CommandEventSubject(accountVar, "{state}", "{kind}", channelVar),
		"A command's life", "Every stored command has exactly one event of a final state. Fields without a value are left out.", commands...)

	for _, direction := range []string{"in", "out"} {
		title, description, name := "A customer wrote", "The vendor's message object with every field kept.", "evt.message."+direction
		if direction == "out" {
			title, description = "Something was sent from our side", "An echo of what was sent through the API, by a CRM or by a person."
		}
		p.event(event{
			message: name, title: title, summary: description, schema: "event-message", types: []string{"wazzup.message." + direction},
			choose: func(e example) bool { return (e.text("authorType") == "99") == (direction == "in") },
		})
		p.eventChannel(name, address(schema.MessageEventSubject(accountVar, direction, "CHANNEL", "CHATTYPE", "CHATID")), title, description, name)
	}
	var types []string
	for _, word := range statusWords() {
		types = append(types, "wazzup.status."+word)
	}
	p.family("evt.status", schema.StatusEventSubject(accountVar, "{word}"), event{
		title: "The delivery status of a message", summary: "The vendor's status object, with the command's id where it is known by then.",
		schema: "event-status", types: types,
	})
	p.family("evt.channel", address(schema.ChannelEventSubject(accountVar, "CHANNEL", "STATE")), event{
		title: "A channel's state changed", summary: "The vendor's channel object.", schema: "event-channel", types: []string{"wazzup.channel.state"},
	})
	p.family("evt.channels", schema.ChannelsEventSubject(accountVar), event{
		title: "The list of channels changed", summary: "The whole new list.", schema: "event-channels", types: []string{"wazzup.channels"},
	})
	p.family("evt.counter", address(schema.CounterEventSubject(accountVar, "USER")), event{
		title: "A user's unanswered messages", summary: "The counter of a user of the chat window has changed.", schema: "event-counter", types: []string{"wazzup.counter"},
	})
	types = nil
	for _, reason := range schema.QuarantineReasons() {
		types = append(types, "wazzup.quarantine."+string(reason))
	}
	p.family("evt.quarantine", schema.QuarantineEventSubject(accountVar, "{reason}"), event{
		title: "A webhook that was not understood", summary: "A body, or an item of one, kept whole; what exceeds NATS's payload limit comes in numbered parts.",
		schema: "event-quarantine", types: types,
	})

	var ops []string
	for _, n := range schema.OpsNames() {
		title, name := opsWords(n), "evt.ops."+string(n)
		if title == "" {
			p.missing("no words for the operator event " + string(n))
		}
		p.event(event{
			message: name, title: title, schema: "event-ops", types: []string{"wazzup.ops." + string(n)},
			choose: func(e example) bool { return e.text("name") == string(n) },
		})
		ops = append(ops, name)
	}
	p.eventChannel("evt.ops", schema.OpsEventSubject(accountVar, "{name}"),
		"Something that an operator should know", "It never holds texts, phone numbers, chat ids or keys.", ops...)
}

// event is a message that wazzup-relay stores.
type event struct {
	message, title, summary string
	schema                  string
	correlation             string             // its correlationId; "" = event
	types                   []string           // ce-type is one of them
	choose                  func(example) bool // which examples of the schema; nil = all
}

func (p *parts) event(e event) {
	m := object{{"name", e.message}, {"title", e.title}}
	if e.summary != "" {
		m = m.with("summary", e.summary)
	}
	if e.correlation == "" {
		e.correlation = "event"
	}
	kind := object{{"enum", e.types}}
	if len(e.types) == 1 {
		kind = object{{"const", e.types[0]}}
	}
	var examples []object
	for _, x := range p.examples(e.schema) {
		if e.choose == nil || e.choose(x) {
			examples = append(examples, eventExample(e, x, len(examples)))
		}
	}
	if len(examples) == 0 {
		p.missing("schema " + e.schema + " has no example of " + e.message)
	}
	p.message(e.message, m.
		with("correlationId", ref("#/components/correlationIds/"+e.correlation)).
		with("headers", object{{"allOf", []object{
			schemaRef(schema.EventHeadersSchema), {{"type", "object"}, {"properties", object{{"ce-type", kind}}}},
		}}}).
		with("payload", schemaRef(e.schema)).
		with("examples", examples))
}

func (p *parts) eventChannel(name, address, title, description string, messages ...string) {
	p.channel(name, address, title, description, tagEvents, messages...)
	p.operation(operation{name: name, channel: name, action: "send", title: title, description: description, tag: tagEvents, messages: messages})
}

// family is a channel of one message.
func (p *parts) family(name, address string, e event) {
	e.message = name
	p.event(e)
	p.eventChannel(name, address, e.title, e.summary, name)
}
