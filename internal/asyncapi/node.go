package asyncapi

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// node is a JSON value that was read, its members in the order of the text. What is
// not there is the zero node, so that a path can be followed without a question at
// every step.
type node struct {
	raw     jsontext.Value
	names   []string // of an object
	members map[string]node
	items   []node // of an array
}

// read parses a JSON text.
func read(text []byte) (node, error) {
	n := node{raw: bytes.Clone(text)}
	d := jsontext.NewDecoder(bytes.NewReader(text))
	switch d.PeekKind() {
	case jsontext.KindBeginObject:
		n.members = make(map[string]node)
		return n, n.readAll(d, func(name string, value node) {
			n.names = append(n.names, name)
			n.members[name] = value
		})
	case jsontext.KindBeginArray:
		return n, n.readAll(d, func(_ string, value node) { n.items = append(n.items, value) })
	}
	_, err := d.ReadValue()
	return n, err
}

// readAll reads an object or an array to its end.
func (n *node) readAll(d *jsontext.Decoder, add func(name string, value node)) error {
	begin, err := d.ReadToken()
	if err != nil {
		return err
	}
	for d.PeekKind() != jsontext.KindEndObject && d.PeekKind() != jsontext.KindEndArray {
		var name string
		if begin.Kind() == jsontext.KindBeginObject {
			token, err := d.ReadToken()
			if err != nil {
				return err
			}
			name = token.String()
		}
		text, err := d.ReadValue()
		if err != nil {
			return err
		}
		value, err := read(text)
		if err != nil {
			return err
		}
		add(name, value)
	}
	_, err = d.ReadToken()
	return err
}

// at follows names through objects.
func (n node) at(names ...string) node {
	for _, name := range names {
		n = n.members[name]
	}
	return n
}

// has reports whether an object has a member.
func (n node) has(name string) bool {
	_, ok := n.members[name]
	return ok
}

// exists reports whether there is a value.
func (n node) exists() bool { return n.raw != nil }

// text is a string's text, or the JSON of anything else; "" for what is not there.
func (n node) text() string {
	var s string
	if n.raw.Kind() == jsontext.KindString && json.Unmarshal(n.raw, &s) == nil {
		return s
	}
	return string(n.raw)
}

// texts are those of an array's items, or of one value that is no array.
func (n node) texts() (all []string) {
	if n.exists() && n.items == nil && n.raw.Kind() != jsontext.KindBeginArray {
		return []string{n.text()}
	}
	for _, item := range n.items {
		all = append(all, item.text())
	}
	return all
}

// number is an integer, 0 for what is none.
func (n node) number() int {
	value, err := strconv.Atoi(n.text())
	if err != nil {
		return 0
	}
	return value
}

// resolve is what a reference within the document n points to; what is no
// reference is returned as it is.
func (n node) resolve(in node) node {
	to, ok := strings.CutPrefix(in.at("$ref").text(), "#/")
	if !ok {
		return in
	}
	return n.at(strings.Split(to, "/")...)
}

// indented is the JSON for people.
func (n node) indented() string {
	text := bytes.Clone(n.raw)
	value := jsontext.Value(text)
	if value.Indent(jsontext.WithIndent("  ")) != nil {
		return string(n.raw) // it was read, so it is JSON
	}
	return string(value)
}

// compact is the JSON in one line.
func (n node) compact() string {
	value := jsontext.Value(bytes.Clone(n.raw))
	if value.Compact() != nil {
		return string(n.raw)
	}
	return string(value)
}
