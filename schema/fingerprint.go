package schema

import (
	"crypto/sha256"

	"github.com/go-json-experiment/json/jsontext"
)

// Fingerprint tells two uses of one command id apart: it is equal for commands
// of the same kind, channel and JSON value, whatever the order of keys, the
// white space and the escapes in strings, and differs otherwise. Numbers count
// by their text (1 and 1.0 differ), so that no large id is rounded.
//
// A body that is no strict JSON (RFC 7493) counts by its bytes. Kind is a
// [Kind], channel the subject's token. The result is the first half of a
// SHA-256.
func Fingerprint(kind Kind, channel string, body []byte) [16]byte {
	buf := make([]byte, 0, len(kind)+len(channel)+len(body)+3)
	buf = append(buf, kind...)
	buf = append(buf, 0)
	buf = append(buf, channel...)
	buf = append(buf, 0, 'j')
	head := len(buf)
	buf, err := jsontext.AppendFormat(buf, body,
		jsontext.ReorderRawObjects(true),
		jsontext.CanonicalizeRawInts(false),
		jsontext.CanonicalizeRawFloats(false),
		jsontext.PreserveRawStrings(false),
	)
	if err != nil {
		// AppendFormat has appended the body as it is.
		buf[head-1] = 'b'
	}
	sum := sha256.Sum256(buf)
	return [16]byte(sum[:16])
}
