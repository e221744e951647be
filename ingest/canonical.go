package ingest

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/go-json-experiment/json/jsontext"
)

// hashSize is the length of a hash in an event's id: 128 bits, in hex.
const hashSize = 32

// hash is the identity of a JSON value: members sorted, white space gone,
// strings in their shortest form, numbers as they were written (an id beyond
// 2^53 must not meet its neighbour).
func hash(raw []byte) string {
	return hashText(canonical(raw))
}

func canonical(raw []byte) []byte {
	v := append(make(jsontext.Value, 0, len(raw)+len(raw)/8), raw...)
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
