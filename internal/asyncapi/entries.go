package asyncapi

import (
	"regexp"
	"strings"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// pages makes the page's parts out of the document.
type pages struct {
	doc     node
	schemas map[string]node
}

func (p pages) channels(id, prefix, title, about string) section {
	s := section{ID: id, Title: title, About: inline(about)}
	for _, name := range p.doc.at("channels").names {
		if strings.HasPrefix(name, prefix) {
			s.Entries = append(s.Entries, p.entry(name, p.doc.at("channels", name)))
		}
	}
	return s
}

func (p pages) entry(name string, c node) entry {
	e := entry{ID: name, Title: c.at("title").text(), Subject: subject(c.at("address").text()), About: inline(c.at("description").text())}
	for _, v := range c.at("parameters").names {
		if v == "account" {
			continue // in every subject: the introduction explains it
		}
		of := p.doc.resolve(c.at("parameters", v))
		e.Variables = append(e.Variables, variable{v, inline(of.at("description").text()), of.at("enum").texts()})
	}
	messages := c.at("messages").names
	first := p.message(messages[0])
	operation := p.doc.at("operations", name)
	switch {
	case strings.HasPrefix(name, "cmd."):
		e.Parts = []part{p.body("Body", first)}
		e.Try = "nats req '" + filled(e.Subject, first) + "' " + quoted(first.at("examples").items[0].at("payload").compact())
		e.After = inline("The answer is JetStream's [acknowledgement](#puback); the [headers](#headers-command) are optional. With `Wazzup-Reply-To` these events come to the producer itself: " + p.outcomes(name) + ".")
	case strings.HasPrefix(name, "api."):
		asked := p.body("Request", first)
		asked.About = "" // it stands above
		e.Parts = append(e.Parts, asked)
		if answer := p.message("answer." + strings.TrimPrefix(name, "api.")); answer.exists() {
			e.Parts = append(e.Parts, p.body("Answer", answer))
		}
		e.Try = "nats req '" + filled(e.Subject, first) + "' " + quoted(first.at("examples").items[0].at("payload").compact())
		for _, f := range operation.at("x-faults").items {
			row := fault{f.at("status").number(), f.at("codes").texts(), f.at("description").text()}
			if row.Status == 400 {
				row.Codes = []string{row.Codes[0], "…"}
				row.Description = "the body is not what the request takes; `faults` names the field, with a code as of [commands](#fault)"
			}
			e.Faults = append(e.Faults, row)
		}
		if operation.has("x-asks-wazzup") {
			e.After = inline("It asks Wazzup, in the account's rate: Wazzup's own refusals are passed on with their status and code.")
		}
	default:
		body := p.body("Body", first)
		body.Examples = nil
		e.Parts = []part{body}
		for _, m := range messages {
			told := p.told(m)
			if told.ID == e.ID {
				told.ID = "" // the entry has it
			}
			e.Messages = append(e.Messages, told)
		}
	}
	return e
}

// outcomes links to the events that a command's producer can be told.
func (p pages) outcomes(name string) string {
	var links []string
	for _, m := range p.doc.at("operations", name+".outcome", "reply", "messages").items {
		to := m.at("$ref").text()
		event := to[strings.LastIndexByte(to, '/')+1:]
		links = append(links, "["+strings.TrimPrefix(event, "evt.command.")+"](#"+event+")")
	}
	return strings.Join(links, ", ")
}

// told is a message of an event's channel.
func (p pages) told(name string) message {
	m := p.message(name)
	kind := m.at("headers", "allOf").items[1].at("properties", "ce-type")
	types := append(kind.at("const").texts(), kind.at("enum").texts()...)
	out := message{ID: name, Title: m.at("title").text(), Type: strings.Join(types, ", "), About: inline(m.at("summary").text())}
	for _, e := range m.at("examples").items {
		out.Examples = append(out.Examples, headersText(e.at("headers"))+"\n"+e.at("payload").indented())
	}
	return out
}

// headersText writes headers as they travel.
func headersText(h node) string {
	var b strings.Builder
	for _, name := range h.names {
		b.WriteString(name + ": " + h.at(name).text() + "\n")
	}
	return b.String()
}

func (p pages) message(name string) node { return p.doc.at("components", "messages", name) }

// body explains a message's body.
func (p pages) body(title string, m node) part {
	file := strings.TrimPrefix(m.at("payload", "$ref").text(), "#/components/schemas/")
	s := p.schemas[file]
	out := part{Title: title, Schema: file, About: inline(withoutSubject(s.at("description").text())), Tables: tables(s)}
	for _, e := range m.at("examples").items {
		example := e.at("payload").indented()
		if h := e.at("headers"); h.exists() {
			example = headersText(h) + "\n" + example
		}
		out.Examples = append(out.Examples, example)
	}
	return out
}

// headers explains a set of headers.
func (p pages) headers(name string) part {
	s := p.schemas[name]
	out := part{Title: "Headers", Schema: name, About: inline(s.at("description").text()), Tables: tables(s)}
	for _, e := range s.at("examples").items {
		if text := headersText(e); text != "" {
			out.Examples = append(out.Examples, text)
		}
	}
	return out
}

// withoutSubject is a schema's description without the words that name the subject,
// which stands above it.
func withoutSubject(text string) string {
	subject := regexp.MustCompile(`^(Body of|Answer to)( a request on)? wazzup\.\S+( and wazzup\.\S+)?[.:] `).FindString(text)
	rest := strings.TrimPrefix(text, subject)
	if subject == "" || rest == "" {
		return text
	}
	return strings.ToUpper(rest[:1]) + rest[1:]
}

// common are the parts that many subjects share.
func (p pages) common() section {
	one := func(id, title string, parts ...part) entry { return entry{ID: id, Title: title, Parts: parts} }
	fault := p.message("fault")
	ack := one("puback", "JetStream's acknowledgement", p.body("Body", p.message("puback")))
	ack.About = inline(p.message("puback").at("summary").text())
	return section{ID: "common", Title: "Headers, acknowledgements, faults", Entries: []entry{
		one(schema.CommandHeadersSchema, "Headers of a command", p.headers(schema.CommandHeadersSchema)),
		ack,
		one(schema.EventHeadersSchema, "Headers of an event", p.headers(schema.EventHeadersSchema)),
		one(schema.FaultHeadersSchema, "Headers of a refused request", p.headers(schema.FaultHeadersSchema)),
		one("fault", fault.at("title").text(), p.body("Body", fault)),
	}}
}
