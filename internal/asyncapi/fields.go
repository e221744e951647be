package asyncapi

import (
	"slices"
	"strings"
	"unicode"
)

// field is a row of the table that explains a JSON Schema.
type field struct {
	Path     string // chatId, error.code, items[].id
	Type     string
	Required bool
	About    string
	Limits   []limit
}

// limit is a rule of a field's value.
type limit struct {
	Name   string   // such as: at most
	Values []string // shown as code
}

// table explains one object of a schema.
type table struct {
	Title  string // "" for the schema itself
	About  string
	Fields []field
	Closed bool // other fields are refused
}

// deepest is how far fields are followed into objects: what is deeper repeats what
// stands elsewhere.
const deepest = 6

// tables explain a schema: itself, or where it has no fields of its own, each of the
// objects that it can be.
func tables(s node) []table {
	if s.has("properties") {
		return []table{objectTable(s, "", s)}
	}
	if items := s.resolve(s.at("items")); items.has("properties") {
		t := objectTable(s, "Each item of the list", items)
		t.About = ""
		return []table{t}
	}
	var all []table
	for _, name := range s.at("$defs").names {
		if def := s.at("$defs", name); def.has("properties") {
			all = append(all, objectTable(s, title(name), def))
		}
	}
	return all
}

// title is a definition's name as a heading.
func title(name string) string {
	switch name {
	case "item":
		return "One item"
	case "envelope":
		return "An envelope of items"
	case "reference":
		return "A reference to one item"
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

func objectTable(root node, title string, s node) table {
	t := table{Title: title, Closed: s.at("additionalProperties").text() == "false"}
	if title != "" {
		t.About = s.at("description").text()
	}
	t.Fields = fields(root, s, "", deepest)
	return t
}

// fields are those of an object and of the objects in it.
func fields(root, s node, prefix string, depth int) (all []field) {
	if depth == 0 {
		return nil
	}
	required := s.at("required").texts()
	for _, name := range s.at("properties").names {
		written := s.at("properties", name)
		value := root.resolve(written)
		f := field{
			Path: prefix + name, Type: typeOf(root, value), Required: slices.Contains(required, name),
			About: written.at("description").text(), Limits: limits(root, value),
		}
		if f.About == "" {
			f.About = value.at("description").text()
		}
		all = append(all, f)
		inner, path := value, f.Path+"."
		for inner.has("items") {
			inner, path = root.resolve(inner.at("items")), strings.TrimSuffix(path, ".")+"[]."
		}
		all = append(all, fields(root, inner, path, depth-1)...)
	}
	return all
}

// typeOf says in words of which JSON type a value is.
func typeOf(root, s node) string {
	types := s.at("type").texts()
	for _, choice := range slices.Concat(s.at("anyOf").items, s.at("oneOf").items) {
		for _, t := range root.resolve(choice).at("type").texts() {
			if !slices.Contains(types, t) {
				types = append(types, t)
			}
		}
	}
	if s.has("const") && len(types) == 0 {
		types = []string{"string"}
	}
	for i, t := range types {
		if items := root.resolve(s.at("items")); t == "array" && items.exists() {
			if of := typeOf(root, items); of != anyType {
				types[i] = "array of " + of
			}
		}
	}
	if len(types) == 0 {
		return anyType
	}
	return strings.Join(types, " or ")
}

const anyType = "any"

// patternLimit is a value's pattern, where that says more to people than the
// format or the description does.
func patternLimit(s node) []limit {
	pattern := s.at("pattern").text()
	switch {
	case pattern == "", s.has("format"):
		return nil
	case strings.HasPrefix(pattern, `[^`) && strings.Contains(pattern, "\u00a0"):
		return []limit{{Name: "not blank"}}
	case strings.ContainsFunc(pattern, func(r rune) bool { return unicode.IsSpace(r) && r != ' ' }):
		return nil // of white space, which nobody can read
	}
	return []limit{{"pattern", []string{pattern}}}
}

// limits are the rules of a value, in the order in which people ask.
func limits(root, s node) (all []limit) {
	add := func(name string, of node) {
		if of.exists() {
			all = append(all, limit{name, of.texts()})
		}
	}
	for _, part := range append([]node{s}, slices.Concat(s.at("anyOf").items, s.at("oneOf").items)...) {
		part = root.resolve(part)
		add("always", part.at("const"))
		add("one of", part.at("enum"))
		if part.at("minLength").number() > 1 {
			add("characters, at least", part.at("minLength"))
		} else if part.at("minLength").number() == 1 {
			all = append(all, limit{Name: "not empty"})
		}
		add("characters, at most", part.at("maxLength"))
		add("not less than", part.at("minimum"))
		add("not more than", part.at("maximum"))
		if part.at("minItems").number() > 0 {
			add("items, at least", part.at("minItems"))
		}
		add("items, at most", part.at("maxItems"))
		add("format", part.at("format"))
		all = append(all, patternLimit(part)...)
		add("not", part.at("not", "enum"))
		add("without it", part.at("default"))
	}
	return all
}
