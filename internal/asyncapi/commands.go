package asyncapi

import "github.com/wazzup-relay/wazzup-relay/schema"

const (
	pubAckChannel  = "reply.puback"
	outcomeChannel = "reply.outcome"
)

// commandWords says what a kind of command does, as a title and a sentence.
func commandWords(k schema.Kind) (title, description string) {
	switch k {
	case schema.KindSend:
		return "Send one message now", "Transactional class: codes, replies. Commands of one class to one chat reach Wazzup in the order in which they were stored."
	case schema.KindBulk:
		return "Send one message of a campaign", "Bulk class: it never delays the transactional one."
	case schema.KindUsersUpsert:
		return "Add or change users", "An object, an array of them, or an envelope."
	case schema.KindUsersReplace:
		return "Replace the whole list of users", "What is not in the array is deleted; an empty one deletes all."
	case schema.KindUsersDelete:
		return "Delete users", "An object with the id, an array of ids, or an envelope. To delete what is not there is no failure."
	case schema.KindContactsUpsert:
		return "Add or change contacts", "An object, an array of them, or an envelope."
	case schema.KindContactsDelete:
		return "Delete contacts", "An object with the id, an array of ids, or an envelope. To delete what is not there is no failure."
	case schema.KindDealsUpsert:
		return "Add or change deals", "An object, an array of them, or an envelope."
	case schema.KindDealsDelete:
		return "Delete deals", "An object with the id, an array of ids, or an envelope. To delete what is not there is no failure."
	}
	return "", ""
}

// commands adds a channel, a message and two operations for each kind, and the
// two ways in which a producer hears back.
func (p *parts) commands() {
	for _, k := range schema.Kinds() {
		title, description := commandWords(k)
		if title == "" {
			p.missing("no words for the kind " + string(k))
		}
		name := "cmd." + string(k)
		p.message(name, object{
			{"name", name},
			{"title", title},
			{"summary", description},
			{"correlationId", ref("#/components/correlationIds/command")},
			{"headers", schemaRef(schema.CommandHeadersSchema)},
			{"payload", schemaRef(schema.CommandSchema(k))},
			{"examples", p.examplesOf(schema.CommandSchema(k), object{})},
		})
		p.channel(name, schema.CommandSubject(accountVar, k, channelVar), title, description, tagCommands, name)
		p.operation(operation{
			name: name, channel: name, action: "receive", tag: tagCommands, messages: []string{name},
			title:       title,
			description: "Publish it as a request, or through a JetStream client, and wait for the acknowledgement; without one publish it again under the same id.",
			reply: object{
				{"channel", ref("#/channels/" + pubAckChannel)},
				{"messages", []object{channelMessage(pubAckChannel, "puback")}},
			},
		})
		p.operation(operation{
			name: name + ".outcome", channel: name, action: "receive", tag: tagCommands, messages: []string{name},
			title:       title + ", and hear how it ends",
			description: "With the header `Wazzup-Reply-To` each event of the command is also published there, over core NATS. Subscribe before you publish, and wait for a final one.",
			reply: object{
				{"address", object{{"description", "Chosen by the producer."}, {"location", "$message.header#/" + schema.HeaderReplyTo}}},
				{"channel", ref("#/channels/" + outcomeChannel)},
				{"messages", p.outcomes(k)},
			},
		})
	}
	p.message("puback", object{
		{"name", "puback"},
		{"title", "JetStream's acknowledgement"},
		{"summary", "Stored, or the reason why not. Where no stream takes the subject, NATS answers \"no responders\" instead: an empty message with the status 503, which clients tell as an error."},
		{"payload", schemaRef(schema.PubAckSchema)},
		{"examples", p.examplesOf(schema.PubAckSchema, nil)},
	})
	p.channel(pubAckChannel, "", "The acknowledgement of a command", "The reply subject of the message that was published.", tagCommands, "puback")
	var events []string
	for _, s := range schema.States() {
		events = append(events, commandEvent(s))
	}
	p.channel(outcomeChannel, "", "The outcome of a command", "The subject that the command's header `Wazzup-Reply-To` names. The events are those of the stream, but without `Nats-Msg-Id`; nobody is waited for.", tagCommands, events...)
}

// outcomes are the events that a command of the kind can have.
func (p *parts) outcomes(k schema.Kind) (list []object) {
	for _, s := range schema.States() {
		if can(k, s) {
			list = append(list, channelMessage(outcomeChannel, commandEvent(s)))
		}
	}
	return list
}

// can reports whether a command of the kind can come to the state.
func can(k schema.Kind, s schema.State) bool {
	switch s {
	case schema.StateDone:
		return !k.IsMessage()
	case schema.StateSent, schema.StateUnknown, schema.StateExpired, schema.StateDelivered, schema.StateRead, schema.StateFailed:
		return k.IsMessage()
	case schema.StatePending:
		return false
	case schema.StateRetrying, schema.StateRejected, schema.StateInvalid, schema.StateDuplicate, schema.StateCancelled, schema.StateDead:
	}
	return true
}
