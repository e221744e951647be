package schema

import (
	"crypto/sha256"
	"encoding/hex"
)

// maxPlainKey is the longest text, in bytes, that Key uses as it is.
const maxPlainKey = 64

// Key makes any text fit for one token of a subject. Text that matches
// ^[A-Za-z0-9_-]{1,64}$ is returned as it is; anything else becomes "~" and the
// first 32 lower-case hex digits of the SHA-256 of its UTF-8 bytes. Since "~"
// is in no plain text, a hashed key never meets a plain one.
func Key(text string) string {
	if isPlainKey(text) {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return "~" + hex.EncodeToString(sum[:16])
}

func isPlainKey(text string) bool {
	if text == "" || len(text) > maxPlainKey {
		return false
	}
	for i := range len(text) {
		switch c := text[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
