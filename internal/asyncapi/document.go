package asyncapi

import (
	"errors"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	repository = "https://github.com/wazzup-relay/wazzup-relay"
	accountVar = "{account}" // in addresses
	channelVar = "{channelId}"
)

// parts collects the document while it is made. What is missing is kept in err,
// so that all of it is told at once.
type parts struct {
	channels, operations, messages object
	err                            error
}

func (p *parts) missing(what string) { p.err = errors.Join(p.err, errors.New("asyncapi: "+what)) }

// message adds a message to the components.
func (p *parts) message(name string, m object) { p.messages = p.messages.with(name, m) }

// channel adds a channel. An empty address is one that the caller names. Each of
// its messages is one of the components, under the same name.
func (p *parts) channel(name, address, title, description string, tag tag, messages ...string) {
	c := object{{"address", nil}}
	if address != "" {
		c = object{{"address", address}}
	}
	c = c.with("title", title)
	if description != "" {
		c = c.with("description", description)
	}
	var list object
	for _, m := range messages {
		list = list.with(m, ref("#/components/messages/"+m))
	}
	c = c.with("messages", list)
	if names := variables(address); len(names) > 0 {
		var all object
		for _, n := range names {
			all = all.with(n, ref("#/components/parameters/"+n))
		}
		c = c.with("parameters", all)
	}
	p.channels = p.channels.with(name, c.with("tags", []object{ref("#/components/tags/" + string(tag))}))
}

// operation is an operation of wazzup-relay on a channel.
type operation struct {
	name, channel      string
	action             string // receive: others publish there; send: wazzup-relay does
	title, description string
	tag                tag
	messages           []string
	reply              object // nil: none
	faults             []fault
	vendor             bool
}

func (p *parts) operation(o operation) {
	var messages []object
	for _, m := range o.messages {
		messages = append(messages, channelMessage(o.channel, m))
	}
	op := object{
		{"action", o.action},
		{"channel", ref("#/channels/" + o.channel)},
		{"title", o.title},
		{"summary", o.title},
	}
	if o.description != "" {
		op = op.with("description", o.description)
	}
	op = op.with("tags", []object{ref("#/components/tags/" + string(o.tag))}).with("messages", messages)
	if o.reply != nil {
		op = op.with("reply", o.reply)
	}
	if o.faults != nil {
		op = op.with("x-faults", o.faults)
	}
	if o.vendor {
		op = op.with("x-asks-wazzup", true)
	}
	p.operations = p.operations.with(o.name, op)
}

// variables are the names in braces of an address.
func variables(address string) (names []string) {
	for token := range strings.SplitSeq(address, ".") {
		if name, ok := strings.CutPrefix(token, "{"); ok {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}

// tag is one of the three groups of operations.
type tag string

const (
	tagCommands tag = "commands"
	tagEvents   tag = "events"
	tagRequests tag = "requests"
)

// Document is the AsyncAPI document, indented, with references to the JSON
// Schemas as files in the folder json beside it.
func Document() ([]byte, error) {
	p := &parts{}
	p.commands()
	p.events()
	p.requests()
	if p.err != nil {
		return nil, p.err
	}
	doc := object{
		{"asyncapi", "3.0.0"},
		{"id", "urn:wazzup-relay:contract:1"},
		{"info", object{
			{"title", "wazzup-relay"},
			{"version", schema.ContractVersion},
			{"description", about},
			{"contact", object{{"name", "wazzup-relay"}, {"url", repository}}},
			{"license", object{{"name", license}, {"url", repository + "/blob/main/LICENSE"}}},
			{"tags", []object{
				ref("#/components/tags/" + string(tagCommands)), ref("#/components/tags/" + string(tagEvents)), ref("#/components/tags/" + string(tagRequests)),
			}},
			{"externalDocs", object{{"description", "The pages for people"}, {"url", repository + "#readme"}}},
		}},
		{"defaultContentType", "application/json"},
		{"servers", object{{"nats", object{
			{"host", "127.0.0.1:4222"},
			{"protocol", "nats"},
			{"title", "NATS with JetStream"},
			{"description", "Any NATS server or cluster with JetStream; where it listens and how to log in is up to whoever runs it."},
			{"security", []object{ref("#/components/securitySchemes/password"), ref("#/components/securitySchemes/certificate")}},
		}}}},
		{"channels", p.channels},
		{"operations", p.operations},
		{"components", object{
			{"schemas", schemas()},
			{"messages", p.messages},
			{"parameters", parameters()},
			{"correlationIds", object{
				{"command", object{{"description", "The command's id is in every event of the command."}, {"location", "$message.payload#/id"}}},
				{"event", object{{"description", "A repeated event has the same ce-id."}, {"location", "$message.header#/ce-id"}}},
			}},
			{"securitySchemes", object{
				{"password", object{{"type", "userPassword"}, {"description", "User and password of the NATS server."}}},
				{"certificate", object{{"type", "X509"}, {"description", "A client certificate."}}},
			}},
			{"tags", object{
				{string(tagCommands), object{{"name", string(tagCommands)}, {"description", "What producers publish to JetStream. Each ends in exactly one final event."}}},
				{string(tagEvents), object{{"name", string(tagEvents)}, {"description", "What consumers read from JetStream, for a week by default."}}},
				{string(tagRequests), object{{"name", string(tagRequests)}, {"description", "NATS requests, answered by the worker that owns the account."}}},
			}},
		}},
	}
	text, err := json.Marshal(doc, jsontext.WithIndent("  "))
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}

// schemas lists every JSON Schema by its file.
func schemas() object {
	var all object
	for _, name := range schema.JSONSchemas() {
		all = all.with(name, ref("json/"+name+".json"))
	}
	return all
}

// words are the texts of a closed set.
func words[W ~string](list []W) []string {
	all := make([]string, 0, len(list))
	for _, w := range list {
		all = append(all, string(w))
	}
	return all
}

// parameters are the variables of all addresses.
func parameters() object {
	return object{
		{"account", object{{"description", "One Wazzup integration, that is one API key: `[a-z0-9-]{1,32}`."}, {"default", "main"}, {"examples", []string{"main"}}}},
		{"channelId", object{{"description", "Wazzup's id of a channel, a uuid in lower case; in events of sync commands `-`."}, {"examples", []string{exampleChannel}}}},
		{"kind", object{{"description", "What the command asked for."}, {"enum", words(schema.Kinds())}}},
		{"state", object{{"description", "The state that the command has come to."}, {"enum", words(schema.States())}}},
		{"chatType", object{{"description", "The key of the messenger's name."}, {"examples", schema.ChatTypes()}}},
		{"chatId", object{{"description", "The key of the contact's account in the messenger."}, {"examples", []string{"79998887766", schema.Key("wazzup.test")}}}},
		{"word", object{{"description", "What the status means."}, {"enum", statusWords()}}},
		{"channelState", object{{"description", "The key of the channel's new state."}, {"examples", []string{"active", "notEnoughMoney"}}}},
		{"userId", object{{"description", "The key of the user's id in the CRM."}, {"examples", []string{"2e0df379-0e3c-470f-9b36-06b9e34c3bdb"}}}},
		{"reason", object{{"description", "Why it was not understood."}, {"enum", words(schema.QuarantineReasons())}}},
		{"name", object{{"description", "What happened. It may hold a dot, and is then two tokens of the subject."}, {"enum", words(schema.OpsNames())}}},
	}
}

const license = "Apache-2.0"

const about = "The durable way to send through [Wazzup](https://wazzup24.com) over [NATS](https://nats.io) JetStream, from any language.\n\n" +
	"- **Commands** are published to JetStream. With its acknowledgement a command is stored, and it ends in exactly one final event. An account, a class or a kind that does not exist answers \"no responders\"; a full stream answers with an error. Then nothing was stored.\n" +
	"- **Events** are in the stream `wazzup-<account>-records`. A service that must miss none reads them with a durable consumer whose filter begins with `wazzup.<account>.evt.`. Each is a CloudEvent 1.0 in binary mode: the attributes are headers, the body is plain JSON.\n" +
	"- **Requests** are NATS requests, JSON in and JSON out. A fault carries the header `Nats-Service-Error-Code`. While an account changes hands nobody answers for a moment: ask again. The service is a NATS micro service named `wazzup`, so `$SRV.INFO.wazzup` lists what is served.\n\n" +
	"`<account>` is one Wazzup integration, that is one API key: `[a-z0-9-]{1,32}`, `main` unless configured otherwise. A key is free text made fit for a subject: text that matches `^[A-Za-z0-9_-]{1,64}$` is used as it is, anything else becomes `~` and the first 32 lower-case hex digits of its SHA-256. " +
	"Fields may be added to events and answers: ignore what you do not know. Commands and requests with unknown fields are refused.\n\n" +
	"Actions are told from wazzup-relay's side: it receives commands and requests, and sends events."
