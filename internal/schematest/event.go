package schematest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Event holds an event to the contract as it was stored: its subject to the
// channels, its headers and its body to the message that its ce-type names, and
// the three to each other.
func Event(subject string, header map[string][]string, body []byte) error {
	id, msgID := first(header)[schema.HeaderCEID], first(header)[schema.HeaderMsgID]
	if id != msgID {
		return fmt.Errorf("event on %s: the ce-id is %v, the Nats-Msg-Id %v", subject, id, msgID)
	}
	return Reply(subject, header, body)
}

// Reply holds the copy of an event to the contract that came to a Wazzup-Reply-To
// subject; subject is that of the event itself.
func Reply(subject string, header map[string][]string, body []byte) error {
	c, err := document()
	if err != nil {
		return err
	}
	if err := c.event(subject, first(header), body); err != nil {
		return fmt.Errorf("event on %s: %w\n%v\n%s", subject, err, header, body)
	}
	return nil
}

func (c *contract) event(subject string, header map[string]any, body []byte) error {
	parameters, messages := c.find(subject)
	if parameters == nil {
		return errors.New("no channel has this subject")
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	kind, _ := header[schema.HeaderCEType].(string)
	message, ok := messages[kind]
	if !ok {
		return fmt.Errorf("no message of the channel has the ce-type %q", kind)
	}
	if err := c.validateValue(header, "components", "messages", message, "headers"); err != nil {
		return err
	}
	if source := schema.CloudEventSource(parameters["account"]); header[schema.HeaderCESource] != source {
		return fmt.Errorf("ce-source is not %s", source)
	}
	if err := c.validateValue(value, "components", "messages", message, "payload"); err != nil {
		return err
	}
	return agree(parameters, kind, value)
}

// find is the channel of a subject: its parameters' values, and its messages by ce-type.
func (c *contract) find(subject string) (parameters map[string]string, messages map[string]string) {
	for _, ch := range c.channels {
		m := ch.subject.FindStringSubmatch(subject)
		if m == nil {
			continue
		}
		parameters = make(map[string]string)
		for i, name := range ch.subject.SubexpNames() {
			if name != "" {
				parameters[name] = m[i]
			}
		}
		return parameters, ch.messages
	}
	return nil, nil
}

// agree compares the tokens of a subject with the ce-type and the body.
func agree(parameters map[string]string, kind string, body any) error {
	fields, _ := body.(map[string]any)
	for name, token := range parameters {
		switch name {
		case "state", "name", "word", "reason":
			if !strings.HasSuffix(kind, "."+token) {
				return fmt.Errorf("the ce-type %s is not that of %s", kind, token)
			}
		case "channelState":
			name = "state"
		}
		value, ok := fields[name]
		text := fmt.Sprint(value) // of a number its JSON text
		if ok && token != text && token != schema.Key(text) {
			return fmt.Errorf("the subject's %s is %s, the body's another", name, token)
		}
	}
	return nil
}
