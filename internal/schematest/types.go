package schematest

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Answers compares the Go types of answers with the JSON Schemas of these names,
// through all nested types: which fields there are, and which are always there.
func Answers(tb testing.TB, types map[string]any) {
	tb.Helper()
	compareAll(tb, types, true)
}

// Requests does so for the Go types that requests are read into, of which any field
// may be absent as far as the type knows.
func Requests(tb testing.TB, types map[string]any) {
	tb.Helper()
	compareAll(tb, types, false)
}

func compareAll(tb testing.TB, types map[string]any, required bool) {
	tb.Helper()
	c, err := document()
	if err != nil {
		tb.Fatal(err)
	}
	for name, v := range types {
		s := at(c.doc, "components", "schemas", name)
		if s == nil {
			tb.Errorf("there is no schema %s", name)
			continue
		}
		comparison{tb, c, required}.object(name, s, reflect.TypeOf(v))
	}
}

type comparison struct {
	tb       testing.TB
	contract *contract
	required bool
}

// object compares the fields of a struct, those of embedded ones included.
func (c comparison) object(where string, s map[string]any, typ reflect.Type) {
	c.tb.Helper()
	properties := at(s, "properties")
	var names, always []string
	for _, field := range reflect.VisibleFields(typ) {
		if field.Anonymous || !field.IsExported() {
			continue
		}
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
		if !strings.Contains(options, "omit") {
			always = append(always, name)
		}
		if property, ok := properties[name].(map[string]any); ok {
			c.value(where+"."+name, property, field.Type)
		}
	}
	slices.Sort(names)
	if got := slices.Sorted(maps.Keys(properties)); !slices.Equal(got, names) {
		c.tb.Errorf("%s: the schema has the fields %q, the type %q", where, got, names)
	}
	if !c.required {
		return
	}
	slices.Sort(always)
	got := list(s["required"])
	slices.Sort(got)
	if !slices.Equal(got, always) {
		c.tb.Errorf("%s: the schema says that %q are always there, the type %q", where, got, always)
	}
}

// value goes on into the structs behind pointers and in lists. A type that writes
// itself, such as a time, is told by its schema alone.
func (c comparison) value(where string, s map[string]any, typ reflect.Type) {
	c.tb.Helper()
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	s = c.resolve(s)
	switch {
	case typ.Kind() == reflect.Slice && typ.Elem().Kind() != reflect.Uint8:
		items, _ := s["items"].(map[string]any)
		if s["type"] != "array" || items == nil {
			c.tb.Errorf("%s: the type is a list, the schema says %v", where, s["type"])
			return
		}
		c.value(where+"[]", items, typ.Elem())
	case typ.Kind() == reflect.Struct && at(s, "properties") != nil:
		c.object(where, s, typ)
	case typ.Kind() == reflect.Bool && s["type"] != "boolean",
		typ.Kind() == reflect.Int && s["type"] != "integer",
		typ.Kind() == reflect.Uint64 && s["type"] != "integer":
		c.tb.Errorf("%s: the type is %s, the schema says %v", where, typ, s["type"])
	}
}

// resolve follows a reference within the document.
func (c comparison) resolve(s map[string]any) map[string]any {
	if to, ok := s["$ref"].(string); ok {
		return at(c.contract.doc, strings.Split(strings.TrimPrefix(to, "#/"), "/")...)
	}
	return s
}
