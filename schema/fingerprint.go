package schema

import (
	"bytes"
	"crypto/sha256"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Fingerprint tells two uses of one command id apart: it is equal for commands
// of the same kind, channel and JSON value, whatever the order of keys, the
// white space and the escapes in strings, and differs otherwise. Numbers count
// by their text (1 and 1.0 differ), so that no large id is rounded.
//
// A body that is no strict JSON (RFC 7493), or larger or deeper than any command
// may be, counts by its bytes. Channel is the subject's token. The result is the first half of a SHA-256 over kind, channel
// and the body in the canonical form of RFC 8785, but for the numbers. It is
// stored, so it never changes.
func Fingerprint(kind Kind, channel string, body []byte) [16]byte {
	buf := make([]byte, 0, len(kind)+len(channel)+len(body)+len("\x00\x00j"))
	buf = append(buf, kind...)
	buf = append(buf, 0)
	buf = append(buf, channel...)
	buf = append(buf, 0, 'j')
	head := len(buf)
	// Putting members in order moves every level once more, so that a deep body
	// would take a second.
	ok := len(body) <= MaxBodySize && !deeper(body, MaxDepth)
	if ok {
		buf, ok = appendCanonical(buf, body, flatLevels)
	}
	if !ok {
		buf = append(buf[:head-1], 'b')
		buf = append(buf, body...)
	}
	sum := sha256.Sum256(buf)
	return [16]byte(sum[:16])
}

// flatLevels is how many levels of objects are canonicalised the fast way: the
// command and its meta. Each level is read once more, so there must be few.
const flatLevels = 2

// appendCanonical appends the canonical form of a JSON text; ok is false, and
// what was appended worthless, if it is no strict JSON.
func appendCanonical(dst, text []byte, levels int) (_ []byte, ok bool) {
	if levels > 0 {
		var members [16]flatMember
		if n, flat := splitFlat(text, &members); flat {
			if all, ok := appendFlat(dst, members[:n], levels-1); ok {
				return all, true
			}
		}
	}
	return appendAnyCanonical(dst, text)
}

func appendAnyCanonical(dst, text []byte) (_ []byte, ok bool) {
	dst, err := jsontext.AppendFormat(dst, text,
		jsontext.ReorderRawObjects(true),
		jsontext.CanonicalizeRawInts(false),
		jsontext.CanonicalizeRawFloats(false),
		jsontext.PreserveRawStrings(false),
	)
	return dst, err == nil
}

// flatMember is a member of an object, its name and value as they are written.
type flatMember struct {
	name, value []byte
	plain       bool // the value is a string in canonical form already
}

// splitFlat splits an object whose names are plain, as commands are, three times
// as fast as the general way. It is no parser: the values that are not plain are
// checked by the general way, and so is every text that it does not understand.
func splitFlat(text []byte, members *[16]flatMember) (n int, ok bool) {
	i := skipSpace(text, 0)
	if !at(text, i, '{') {
		return 0, false
	}
	for i++; n < len(members); i++ {
		m := &members[n]
		n++
		start := skipSpace(text, i)
		var plain bool
		if i, plain = skipValue(text, start); !plain {
			return 0, false
		}
		m.name = text[start:i]
		if i = skipSpace(text, i); !at(text, i, ':') {
			return 0, false
		}
		start = skipSpace(text, i+1)
		if i, m.plain = skipValue(text, start); i == start {
			return 0, false
		}
		m.value = text[start:i]
		i = skipSpace(text, i)
		switch {
		case at(text, i, ','):
		case at(text, i, '}'):
			return n, skipSpace(text, i+1) == len(text)
		default:
			return 0, false
		}
	}
	return 0, false
}

func at(text []byte, i int, c byte) bool { return i < len(text) && text[i] == c }

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t') {
		i++
	}
	return i
}

// skipValue returns where the value that starts at i ends, and whether it is a
// string without escapes, which is its canonical form.
func skipValue(text []byte, i int) (end int, plain bool) {
	switch {
	case i >= len(text):
		return i, false
	case text[i] == '"':
		return skipString(text, i)
	case text[i] == '{', text[i] == '[':
		level := 0
		for i < len(text) {
			switch text[i] {
			case '"':
				i, _ = skipString(text, i)
				continue
			case '{', '[':
				level++
			case '}', ']':
				level--
			}
			i++
			if level == 0 {
				break
			}
		}
		return i, false
	default:
		for i < len(text) && text[i] != ',' && text[i] != '}' && text[i] > ' ' {
			i++
		}
		return i, false
	}
}

func skipString(text []byte, i int) (end int, plain bool) {
	start := i
	plain = true
	ascii := true
	for i++; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return i + 1, plain && (ascii || utf8.Valid(text[start:i]))
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			plain = false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return len(text), false
}

// appendFlat writes the members in order. Names that are not ASCII sort by
// UTF-16, which is left to the general way, as are names that came twice.
func appendFlat(dst []byte, members []flatMember, levels int) (_ []byte, ok bool) {
	for i := range members {
		for j := i; j > 0; j-- {
			order := bytes.Compare(unquoted(members[j-1].name), unquoted(members[j].name))
			if order == 0 {
				return dst, false
			}
			if order < 0 {
				break
			}
			members[j-1], members[j] = members[j], members[j-1]
		}
	}
	separator := byte('{')
	for i := range members {
		m := &members[i]
		for _, c := range m.name {
			if c >= utf8.RuneSelf {
				return dst, false
			}
		}
		dst = append(dst, separator)
		separator = ','
		dst = append(dst, m.name...)
		dst = append(dst, ':')
		if m.plain {
			dst = append(dst, m.value...)
			continue
		}
		if dst, ok = appendCanonical(dst, m.value, levels); !ok {
			return dst, false
		}
	}
	return append(dst, '}'), true
}

// unquoted leaves out the quotes: with them "a" would sort behind "a!".
func unquoted(name []byte) []byte { return name[1 : len(name)-1] }
