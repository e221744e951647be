package schema

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// reader reads one JSON value that is held in memory, member by member.
//
// It lets duplicate names and bad UTF-8 pass, since the streaming decoder would
// stop at the first of them while a producer is owed all of them; whoever uses
// it checks both itself. Everything that it returns is a part of src.
type reader struct {
	dec jsontext.Decoder
	buf bytes.Buffer
	src []byte
}

func (r *reader) reset(src []byte) {
	r.src = src
	r.buf = *bytes.NewBuffer(src)
	r.dec.Reset(&r.buf, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// value returns the next value, or the next member's name in quotes.
func (r *reader) value() ([]byte, error) {
	v, err := r.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	end := int(r.dec.InputOffset())
	return r.src[end-len(v) : end : end], nil
}

// open reads the bracket that begins an object or an array.
func (r *reader) open() error {
	_, err := r.dec.ReadToken()
	return err
}

// more reports whether the object or array that was opened has another member;
// if not, it has been closed.
func (r *reader) more() (bool, error) {
	switch r.dec.PeekKind() {
	case jsontext.KindEndObject, jsontext.KindEndArray:
		return false, r.open()
	case jsontext.KindInvalid:
		return false, r.open()
	default:
		return true, nil
	}
}

// member returns the next member of an open object; ok is false at its end.
func (r *reader) member() (name, value []byte, ok bool, err error) {
	if ok, err = r.more(); !ok || err != nil {
		return nil, nil, false, err
	}
	if name, err = r.value(); err != nil {
		return nil, nil, false, err
	}
	if value, err = r.value(); err != nil {
		return nil, nil, false, err
	}
	return name, value, true, nil
}

// rest reports whether anything but white space follows what was read.
func (r *reader) rest() bool {
	return len(bytes.Trim(r.src[r.dec.InputOffset():], " \t\r\n")) > 0
}

// elements returns the elements of an array that is known to be JSON.
func (r *reader) elements(array []byte) []json.RawMessage {
	all := []json.RawMessage{}
	r.reset(array)
	if r.open() != nil {
		return all
	}
	for {
		if ok, err := r.more(); !ok || err != nil {
			return all
		}
		v, err := r.value()
		if err != nil {
			return all
		}
		all = append(all, v)
	}
}

// unquote returns the text of a JSON string that is syntactically right; ok is
// false if it is not valid Unicode, and then the bad parts are replaced.
func unquote(raw []byte) (text []byte, ok bool) {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		if utf8.Valid(inner) {
			return inner, true
		}
		return bytes.ToValidUTF8(inner, []byte("\uFFFD")), false
	}
	text, err := jsontext.AppendUnquote(nil, raw)
	return text, err == nil
}

// kindOf tells the JSON type of a value by its first byte.
func kindOf(raw []byte) jsontext.Kind { return jsontext.Value(raw).Kind() }

// clean reports whether a value has neither duplicate names nor bad UTF-8.
func clean(raw []byte) bool { return jsontext.Value(raw).IsValid() }

// deeper reports whether arrays and objects are nested more than limit deep.
func deeper(raw []byte, limit int) bool {
	// Most texts have too few brackets to need a closer look.
	if bytes.Count(raw, []byte{'{'})+bytes.Count(raw, []byte{'['}) <= limit {
		return false
	}
	return depth(raw) > limit
}

// depth counts how deep arrays and objects are nested, 0 for a scalar. It does
// not need the text to be JSON.
func depth(raw []byte) int {
	deepest, now := 0, 0
	quoted := false
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			quoted = !quoted
		case '\\':
			if quoted {
				i++
			}
		case '{', '[':
			if !quoted {
				now++
				deepest = max(deepest, now)
			}
		case '}', ']':
			if !quoted {
				now--
			}
		}
	}
	return deepest
}

// sweep finds every duplicate name and every bad text in the value that the
// reader stands before, and reports it under its path, until the faults are
// full. The value must be JSON and no deeper than MaxDepth.
func (r *reader) sweep(path string, faults *faultList) {
	switch r.dec.PeekKind() {
	case jsontext.KindBeginObject:
		r.sweepObject(path, faults)
	case jsontext.KindBeginArray:
		if r.open() != nil {
			return
		}
		for i := 0; ; i++ {
			if ok, err := r.more(); !ok || err != nil || faults.full() {
				return
			}
			r.sweep(path+"["+strconv.Itoa(i)+"]", faults)
		}
	default:
		v, err := r.value()
		if err != nil || len(v) == 0 || v[0] != '"' {
			return
		}
		if _, ok := unquote(v); !ok {
			faults.add(path, FaultInvalidUTF8)
		}
	}
}

func (r *reader) sweepObject(path string, faults *faultList) {
	if r.open() != nil {
		return
	}
	seen := map[string]bool{}
	for {
		if ok, err := r.more(); !ok || err != nil || faults.full() {
			return
		}
		raw, err := r.value()
		if err != nil {
			return
		}
		name, valid := unquote(raw)
		field := join(path, string(name))
		if !valid {
			faults.add(field, FaultInvalidUTF8)
		}
		if seen[string(name)] {
			faults.add(field, FaultDuplicateName)
		}
		seen[string(name)] = true
		r.sweep(field, faults)
	}
}

// join appends a member's name to a path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return cut(path+"."+name, MaxFieldLength)
}
