package asyncapi

import (
	"bytes"
	_ "embed" // for the template
	"fmt"
	"html/template"

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
