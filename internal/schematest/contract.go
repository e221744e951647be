package schematest

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// location is the name under which the document is compiled. It is absolute, so
// that the compiler asks for no working folder: that has failed in a test.
const location = "https://wazzup-relay.invalid/contract.json"

// contract is the document as tests use it. Schemas are compiled when they are
// first needed, with formats asserted, the strictest that a user's validator may be.
type contract struct {
	doc      map[string]any
	channels []channel // of events

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema
}

// channel is one that events travel on.
type channel struct {
	subject  *regexp.Regexp    // one group a parameter, named
	messages map[string]string // by ce-type
}

// document is the contract of this version, read once a process.
var document = sync.OnceValues(read) //nolint:gochecknoglobals // it is constant, and compiling it takes a while

func read() (*contract, error) {
	text, err := schema.Contract()
	if err != nil {
		return nil, err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	c := &contract{compiler: jsonschema.NewCompiler(), compiled: make(map[string]*jsonschema.Schema)}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource(location, value); err != nil {
		return nil, err
	}
	c.doc, _ = value.(map[string]any)
	for name := range at(c.doc, "channels") {
		if !strings.HasPrefix(name, "evt.") {
			continue
		}
		ch, err := c.channel(name)
		if err != nil {
			return nil, err
		}
		c.channels = append(c.channels, ch)
	}
	return c, nil
}

// channel makes of an address the expression of its subjects, and finds out which
// ce-type is of which message.
func (c *contract) channel(name string) (channel, error) {
	members := at(c.doc, "channels", name)
	address, _ := members["address"].(string)
	var tokens []string
	for token := range strings.SplitSeq(address, ".") {
		parameter, ok := strings.CutPrefix(token, "{")
		if !ok {
			tokens = append(tokens, regexp.QuoteMeta(token))
			continue
		}
		parameter = strings.TrimSuffix(parameter, "}")
		tokenOf := `[^.]+`
		if words := list(at(c.doc, "components", "parameters", parameter)["enum"]); len(words) > 0 {
			for i := range words {
				words[i] = regexp.QuoteMeta(words[i])
			}
			tokenOf = strings.Join(words, "|")
		}
		tokens = append(tokens, "(?P<"+parameter+">"+tokenOf+")")
	}
	messages := make(map[string]string)
	for message := range at(members, "messages") {
		own, _ := at(c.doc, "components", "messages", message, "headers")["allOf"].([]any)
		for _, part := range own {
			part, _ := part.(map[string]any)
			kind := at(part, "properties", schema.HeaderCEType)
			if one, ok := kind["const"].(string); ok {
				messages[one] = message
			}
			for _, one := range list(kind["enum"]) {
				messages[one] = message
			}
		}
	}
	subject, err := regexp.Compile("^" + strings.Join(tokens, `\.`) + "$")
	return channel{subject, messages}, err
}

// at follows names through objects; nil where there is none.
func at(in map[string]any, names ...string) map[string]any {
	for _, name := range names {
		in, _ = in[name].(map[string]any)
	}
	return in
}

// list is a JSON array of texts.
func list(v any) (texts []string) {
	items, _ := v.([]any)
	for _, item := range items {
		if text, ok := item.(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// schema compiles the schema at a place in the document.
func (c *contract) schema(names ...string) (*jsonschema.Schema, error) {
	pointer := "#/" + strings.Join(names, "/")
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.compiled[pointer]; s != nil {
		return s, nil
	}
	s, err := c.compiler.Compile(location + pointer)
	if err != nil {
		return nil, err
	}
	c.compiled[pointer] = s
	return s, nil
}

// validate holds a JSON text to the schema at a place in the document.
func (c *contract) validate(text []byte, names ...string) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return c.validateValue(value, names...)
}

func (c *contract) validateValue(value any, names ...string) error {
	s, err := c.schema(names...)
	if err != nil {
		return err
	}
	return s.Validate(value)
}

// Validate holds a JSON text to the JSON Schema of that name, as it stands in the
// document.
func Validate(name string, text []byte) error {
	c, err := document()
	if err != nil {
		return err
	}
	if err := c.validate(text, "components", "schemas", name); err != nil {
		return fmt.Errorf("schema %s: %w", name, err)
	}
	return nil
}

// first is an object of the first value of each header.
func first(header map[string][]string) map[string]any {
	values := make(map[string]any, len(header))
	for name, all := range header {
		if len(all) > 0 {
			values[name] = all[0]
		}
	}
	return values
}
