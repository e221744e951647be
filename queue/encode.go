package queue

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// What is written for every message is encoded without reflection: members are
// appended to an object whose first one is there already. One without a value is
// left out.

// textMember appends a member with a text.
func textMember(dst []byte, name, v string) []byte {
	if v == "" {
		return dst
	}
	dst = memberName(dst, name)
	quoted, err := jsontext.AppendQuote(dst, v)
	if err != nil { // invalid UTF-8 was replaced; the quoted text is complete
		quoted, _ = jsontext.AppendQuote(dst, strconv.QuoteToASCII(v))
	}
	return quoted
}

// intMember appends a member with a number.
func intMember(dst []byte, name string, v int64) []byte {
	if v == 0 {
		return dst
	}
	return strconv.AppendInt(memberName(dst, name), v, 10)
}

// rawMember appends a member whose value is JSON already.
func rawMember(dst []byte, name string, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	return append(memberName(dst, name), v...)
}

// originMember appends a member with an origin.
func originMember(dst []byte, name string, o Origin) []byte {
	dst = append(memberName(dst, name), `{"c":`...)
	dst = strconv.AppendInt(dst, o.Created, 10)
	dst = append(dst, `,"s":`...)
	dst = strconv.AppendUint(dst, o.Seq, 10)
	return append(dst, '}')
}

// memberName takes names that need no escapes.
func memberName(dst []byte, name string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	return append(dst, '"', ':')
}
