package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// hashSize is the length of a hash in an event's id: 128 bits, in hex.
const hashSize = 32

// hash is the identity of a JSON value: members sorted, white space gone,
// strings in their shortest form, numbers as they were written (an id beyond
// 2^53 must not meet its neighbour).
func hash(raw []byte) string {
	if v := jsontext.Value(raw); v.Kind() == '{' {
		s := newSplitter(raw)
		if _, err := s.object(); err == nil {
			return hashMembers(s.members)
		}
	}
	return hashText(canonical(raw))
}

// hashMembers is the hash of an object whose members were read already. It sorts
// them. Most values are plain, so only the others are formatted.
func hashMembers(members []member) string {
	size := 2
	for i := range members {
		members[i] = member{canonicalMember(members[i].name), canonicalMember(members[i].value)}
		size += len(members[i].name) + len(members[i].value) + 2
	}
	// Of equal names the order counts: the last one is the value.
	slices.SortStableFunc(members, func(a, b member) int { return bytes.Compare(a.name, b.name) })
	text := append(make([]byte, 0, size), '{')
	for _, m := range members {
		text = append(text, m.name...)
		text = append(text, ':')
		text = append(text, m.value...)
		text = append(text, ',')
	}
	return hashText(append(text, '}'))
}

func canonicalMember(v jsontext.Value) jsontext.Value {
	switch v.Kind() {
	case '{', '[':
		return canonical(v)
	case '"':
		if bytes.IndexByte(v, '\\') >= 0 {
			return canonical(v)
		}
	}
	return v
}

// canonical formats a value without changing it.
func canonical(raw []byte) jsontext.Value {
	v := append(make(jsontext.Value, 0, len(raw)), raw...)
	err := v.Format(
		jsontext.AllowDuplicateNames(true),
		jsontext.ReorderRawObjects(true),
		jsontext.CanonicalizeRawInts(false),
		jsontext.CanonicalizeRawFloats(false),
	)
	if err == nil {
		return v
	}
	// Lone surrogates: keep them as they are written, or two different ones
	// would become the same U+FFFD and one item would be taken for a replay.
	v = append(v[:0], raw...)
	err = v.Format(
		jsontext.AllowDuplicateNames(true),
		jsontext.AllowInvalidUTF8(true),
		jsontext.PreserveRawStrings(true),
		jsontext.ReorderRawObjects(true),
		jsontext.CanonicalizeRawInts(false),
		jsontext.CanonicalizeRawFloats(false),
	)
	if err == nil {
		return v
	}
	return raw
}

func hashText(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:hashSize/2])
}
