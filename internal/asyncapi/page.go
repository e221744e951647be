package asyncapi

import (
	"bytes"
	_ "embed" // for the template
	"fmt"
	"html"
	"html/template"
	"regexp"
	"strings"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

//go:embed page.tmpl
var pageTemplate string

// view is what the page shows.
type view struct {
	Title, Version string
	About          template.HTML
	Sections       []section
}

// section is one of the page's parts.
type section struct {
	ID, Title string
	About     template.HTML
	Entries   []entry
}

// entry is a channel with all that travels on it, or a message alone.
type entry struct {
	ID, Title string
	Subject   string // "" for what has none
	About     template.HTML
	Variables []variable
	Parts     []part
	Messages  []message // what the subject can tell, where that is more than one thing
	Faults    []fault
	Try       string // a command line
	After     template.HTML
}

// variable is a part of a subject.
type variable struct {
	Name  string
	About template.HTML
	Words []string
}

// part is a body or a set of headers.
type part struct {
	Title    string
	Schema   string // its file in schema/json
	About    template.HTML
	Tables   []table
	Examples []string
}

// message is one of several on a channel.
type message struct {
	ID, Title, Type string // ID: "" = none
	About           template.HTML
	Examples        []string
}

// Page is the document as an HTML page, which needs nothing but itself.
func Page() ([]byte, error) {
	text, err := Document()
	if err != nil {
		return nil, err
	}
	doc, err := read(text)
	if err != nil {
		return nil, err
	}
	schemas := make(map[string]node)
	for _, name := range schema.JSONSchemas() {
		text, _ := schema.JSONSchema(name)
		if schemas[name], err = read(text); err != nil {
			return nil, fmt.Errorf("schema %s: %w", name, err)
		}
	}
	p := pages{doc, schemas}
	page, err := template.New("page").Funcs(template.FuncMap{"words": inline, "code": codes}).Parse(pageTemplate)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = page.Execute(&out, view{
		Title: doc.at("info", "title").text(), Version: doc.at("info", "version").text(),
		About: paragraphs(doc.at("info", "description").text()),
		Sections: []section{
			p.channels("commands", "cmd.", "Commands", "Publish one to JetStream, with its acknowledgement. Every stored command ends in exactly one [final event](#evt.command)."),
			p.channels("events", "evt.", "Events", "Read them from the stream `wazzup-<account>-records`, with a filter that begins with `wazzup.<account>.evt.`. All have the same [headers](#headers-event)."),
			p.channels("requests", "api.", "Requests", "NATS requests: JSON in, JSON out. An empty body is an empty object. A refusal has the [headers](#headers-fault) and the [body](#fault) of a fault."),
			p.common(),
		},
	})
	return out.Bytes(), err
}

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
		e.Parts = []part{p.part("Body", first, "payload")}
		e.Try = "nats req '" + filled(e.Subject, first) + "' " + quoted(first.at("examples").items[0].at("payload").compact())
		e.After = inline("The answer is JetStream's [acknowledgement](#puback); the [headers](#headers-command) are optional. With `Wazzup-Reply-To` these events come to the producer itself: " + p.outcomes(name) + ".")
	case strings.HasPrefix(name, "api."):
		asked := p.part("Request", first, "payload")
		asked.About = "" // it stands above
		e.Parts = append(e.Parts, asked)
		if answer := p.message("answer." + strings.TrimPrefix(name, "api.")); answer.exists() {
			e.Parts = append(e.Parts, p.part("Answer", answer, "payload"))
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
		body := p.part("Body", first, "payload")
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

// part explains a message's body or headers.
func (p pages) part(title string, m node, which string) part {
	file := strings.TrimPrefix(m.at(which, "$ref").text(), "#/components/schemas/")
	s := p.schemas[file]
	out := part{Title: title, Schema: file, About: inline(withoutSubject(s.at("description").text())), Tables: tables(s)}
	if which != "payload" {
		for _, e := range s.at("examples").items {
			out.Examples = append(out.Examples, headersText(e))
		}
		return out
	}
	for _, e := range m.at("examples").items {
		example := e.at("payload").indented()
		if h := e.at("headers"); h.exists() {
			example = headersText(h) + "\n" + example
		}
		out.Examples = append(out.Examples, example)
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
	headers := func(name string) part {
		s := p.schemas[name]
		out := part{Title: "Headers", Schema: name, About: inline(s.at("description").text()), Tables: tables(s)}
		for _, e := range s.at("examples").items {
			if text := headersText(e); text != "" {
				out.Examples = append(out.Examples, text)
			}
		}
		return out
	}
	ack := one("puback", "JetStream's acknowledgement", p.part("Body", p.message("puback"), "payload"))
	ack.About = inline(p.message("puback").at("summary").text())
	return section{ID: "common", Title: "Headers, acknowledgements, faults", Entries: []entry{
		one(schema.CommandHeadersSchema, "Headers of a command", headers(schema.CommandHeadersSchema)),
		ack,
		one(schema.EventHeadersSchema, "Headers of an event", headers(schema.EventHeadersSchema)),
		one(schema.FaultHeadersSchema, "Headers of a refused request", headers(schema.FaultHeadersSchema)),
		one("fault", fault.at("title").text(), p.part("Body", fault, "payload")),
	}}
}

// subject writes an address as the other pages do.
func subject(address string) string {
	return strings.NewReplacer("{", "<", "}", ">").Replace(address)
}

// filled is a subject that can be typed.
func filled(subject string, m node) string {
	channel := m.at("examples").items[0].at("payload", "channelId").text()
	if channel == "" {
		channel = exampleChannel
	}
	return strings.NewReplacer("<account>", exampleAccount, "<channelId>", channel).Replace(subject)
}

// quoted is a text as one word of a shell.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// inline makes HTML of a text with code marks and links.
func inline(text string) template.HTML {
	text = html.EscapeString(text)
	text = regexp.MustCompile("`([^`]+)`").ReplaceAllString(text, "<code>$1</code>")
	text = regexp.MustCompile(`\[([^\]]+)\]\(([^)\s]+)\)`).ReplaceAllString(text, `<a href="$2">$1</a>`)
	return template.HTML(text) //nolint:gosec // it was escaped, and comes from this repository
}

// paragraphs does so for a text of several, and of lists.
func paragraphs(text string) template.HTML {
	var b strings.Builder
	for block := range strings.SplitSeq(text, "\n\n") {
		if !strings.HasPrefix(block, "- ") {
			b.WriteString("<p>" + string(inline(block)) + "</p>\n")
			continue
		}
		b.WriteString("<ul>\n")
		for line := range strings.SplitSeq(block, "\n") {
			line = regexp.MustCompile(`\*\*([^*]+)\*\*`).ReplaceAllString(string(inline(strings.TrimPrefix(line, "- "))), "<strong>$1</strong>")
			b.WriteString("<li>" + line + "</li>\n")
		}
		b.WriteString("</ul>\n")
	}
	return template.HTML(b.String()) //nolint:gosec // each part was escaped
}

// codes are words as code, separated by commas.
func codes(words []string) template.HTML {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = "<code>" + html.EscapeString(w) + "</code>"
	}
	return template.HTML(strings.Join(all, ", ")) //nolint:gosec // it was escaped
}
