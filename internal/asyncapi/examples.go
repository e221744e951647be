package asyncapi

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Examples are those of the JSON Schemas, so that each is written once; the
// headers of events are made to fit.

const (
	exampleAccount = "main"
	exampleChannel = "3376e1c3-26a6-478b-b964-72bf01cc22cb"
	exampleTime    = "2026-11-22T10:00:00.123456789Z"
	exampleStream  = "wazzup-main-commands-dg3xk2m1p5s0-"
)

// example is one of a schema.
type example struct {
	value  jsontext.Value
	fields map[string]jsontext.Value // nil: it is no object
}

// text is the value of a field: a string's text, or the JSON of anything else.
func (e example) text(field string) string {
	v := e.fields[field]
	var s string
	if v.Kind() == jsontext.KindString && json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

// examples are those of a schema, which must have some.
func (p *parts) examples(name string) []example {
	text, ok := schema.JSONSchema(name)
	if !ok {
		p.missing("there is no schema " + name)
		return nil
	}
	var s struct {
		Examples []jsontext.Value `json:"examples"`
	}
	if err := json.Unmarshal(text, &s); err != nil {
		p.missing("schema " + name + ": " + err.Error())
		return nil
	}
	if len(s.Examples) == 0 {
		p.missing("schema " + name + " has no examples")
	}
	all := make([]example, len(s.Examples))
	for i, v := range s.Examples {
		all[i].value = v
		if v.Kind() == jsontext.KindBeginObject {
			if err := json.Unmarshal(v, &all[i].fields); err != nil {
				p.missing("schema " + name + ": " + err.Error())
			}
		}
	}
	return all
}

// examplesOf are those of a schema as a message's, all with the same headers;
// nil: with none.
func (p *parts) examplesOf(name string, headers object) (list []object) {
	for i, e := range p.examples(name) {
		o := object{{"name", name + "-" + strconv.Itoa(i+1)}}
		if len(headers) > 0 {
			o = o.with("headers", headers)
		}
		list = append(list, o.with("payload", e.value))
	}
	return list
}

// eventExample is an example of an event with its headers.
func eventExample(e event, x example, n int) object {
	kind := e.types[min(n, len(e.types)-1)]
	var id string
	subject := cmp.Or(x.text("messageId"), x.text("channelId"))
	switch family, _, _ := strings.Cut(strings.TrimPrefix(kind, "wazzup."), "."); family {
	case "command":
		subject = x.text("id")
		id = exampleStream + x.text("seq") + ".0." + cmp.Or(x.text("attempt"), "0") + "." + x.text("state")
	case "status":
		kind = "wazzup.status." + schema.StatusWord(x.text("status"))
		id = "status-" + subject + "-" + x.text("status")
	case "quarantine":
		kind = "wazzup.quarantine." + x.text("reason")
		id = "quarantine-" + x.text("sha256") + "-" + x.text("part")
	case "ops":
		id = "ops-dg3xk2m1p5s0-" + strconv.Itoa(n+1)
	default:
		id = family + "-" + cmp.Or(subject, "list") + "-9f86d081884c7d65"
	}
	headers := object{
		{schema.HeaderMsgID, id},
		{schema.HeaderCESpecVersion, "1.0"},
		{schema.HeaderCEID, id},
		{schema.HeaderCESource, schema.CloudEventSource(exampleAccount)},
		{schema.HeaderCEType, kind},
		{schema.HeaderCETime, cmp.Or(x.text("at"), exampleTime)},
	}
	if subject != "" {
		headers = headers.with(schema.HeaderCESubject, subject)
	}
	return object{{"name", e.message + "-" + strconv.Itoa(n+1)}, {"headers", headers}, {"payload", x.value}}
}
