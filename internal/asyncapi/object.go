package asyncapi

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// object is a JSON object whose members keep their order, so that the document
// reads in the order in which it was thought.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSONTo writes the members one after the other.
func (o object) MarshalJSONTo(e *jsontext.Encoder) error {
	if err := e.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, m := range o {
		if err := e.WriteToken(jsontext.String(m.name)); err != nil {
			return err
		}
		if err := json.MarshalEncode(e, m.value); err != nil {
			return err
		}
	}
	return e.WriteToken(jsontext.EndObject)
}

// with adds a member.
func (o object) with(name string, value any) object { return append(o, member{name, value}) }

// ref points to a part of this document, or to a file beside it.
func ref(to string) object { return object{{"$ref", to}} }

// schemaRef points to a JSON Schema.
func schemaRef(name string) object { return ref("#/components/schemas/" + name) }

// channelMessage points to a message of a channel, as operations have to.
func channelMessage(channel, message string) object {
	return ref("#/channels/" + channel + "/messages/" + message)
}
