package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// document walks a YAML file by hand: the library's strict decoding stops at
// the first fault and quotes the lines around it, which may hold a key that
// somebody wrote there by mistake.
type document struct {
	file   string
	faults []Fault
}

// field reads the value of one key; path is where it stands, for faults.
type field func(node ast.Node, path string)

// parse returns the root of the only document, or nil after a fault.
func (d *document) parse(data []byte) ast.Node {
	parsed, err := parser.ParseBytes(data, 0)
	if err != nil {
		d.syntax(err)
		return nil
	}
	docs := slices.DeleteFunc(parsed.Docs, func(doc *ast.DocumentNode) bool { return doc.Body == nil })
	switch len(docs) {
	case 0:
		d.add(nil, "", "the file is empty")
		return nil
	case 1:
		return docs[0].Body
	default:
		d.add(docs[1].Body, "", "a second document begins here; there must be one")
		return nil
	}
}

func (d *document) syntax(err error) {
	if at, ok := errors.AsType[yaml.Error](err); ok && at.GetToken() != nil {
		position := at.GetToken().Position
		d.faults = append(d.faults, Fault{
			Where: fmt.Sprintf("%s:%d:%d", d.file, position.Line, position.Column),
			Text:  at.GetMessage(),
		})
		return
	}
	d.add(nil, "", "the file is no YAML")
}

// add notes a fault at a node (nil: at the file as a whole).
func (d *document) add(node ast.Node, path, text string) {
	where := []string{d.file}
	if node != nil && node.GetToken() != nil {
		position := node.GetToken().Position
		where[0] += ":" + strconv.Itoa(position.Line) + ":" + strconv.Itoa(position.Column)
	}
	if path != "" {
		where = append(where, path)
	}
	d.faults = append(d.faults, Fault{Where: strings.Join(where, ": "), Text: text})
}

// mapping reads a mapping of known keys, in the order of the file.
func (d *document) mapping(node ast.Node, path string, fields map[string]field) {
	d.entries(node, path, func(key string, keyNode, value ast.Node) {
		read, known := fields[key]
		if !known {
			d.add(keyNode, join(path, key), "is no field here; there are "+strings.Join(sortedKeys(fields), ", "))
			return
		}
		if value.Type() != ast.NullType { // "key:" with nothing behind it is a field left out
			read(value, join(path, key))
		}
	})
}

// entries reads a mapping of any keys.
func (d *document) entries(node ast.Node, path string, each func(key string, keyNode, value ast.Node)) {
	m, ok := node.(ast.MapNode)
	if !ok {
		d.add(node, path, "must be a mapping (key: value)")
		return
	}
	for it := m.MapRange(); it.Next(); {
		key, ok := scalar(it.Key())
		if !ok {
			d.add(it.Key(), path, "has a key that is no plain text")
			continue
		}
		each(key, it.Key(), it.Value())
	}
}

// list reads a sequence.
func (d *document) list(node ast.Node, path string, each field) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		d.add(node, path, "must be a list (- element)")
		return
	}
	for i, value := range sequence.Values {
		each(value, path+"["+strconv.Itoa(i)+"]")
	}
}

// text reads a scalar as it is written: 007 stays 007.
func (d *document) text(node ast.Node, path string) (string, bool) {
	text, ok := scalar(node)
	switch {
	case !ok:
		d.add(node, path, "must be a plain text or number (anchors, aliases and tags are not read)")
	case text == "":
		d.add(node, path, "is empty")
		ok = false
	}
	return text, ok
}

func scalar(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode:
		return n.Token.Value, true
	case *ast.FloatNode:
		return n.Token.Value, true
	case *ast.BoolNode:
		return n.Token.Value, true
	default:
		return "", false
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func sortedKeys(fields map[string]field) []string {
	keys := make([]string, 0, len(fields))
	for key := range fields {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
