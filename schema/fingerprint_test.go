package schema_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

func TestFingerprint(t *testing.T) {
	t.Parallel()
	const base = `{"id":"a","text":"hé<>","meta":{"n":1,"o":[1,2]}}`
	same := map[string]string{
		"itself":         base,
		"key order":      `{"meta":{"o":[1,2],"n":1},"text":"hé<>","id":"a"}`,
		"white space":    " {\n\t\"id\" : \"a\" ,\r \"text\":\"hé<>\",\"meta\" :{ \"n\":1,\"o\":[ 1 , 2 ]}} ",
		"escapes":        `{"\u0069d":"\u0061","text":"h\u00e9\u003c>","meta":{"n":1,"o":[1,2]}}`,
		"escape in meta": `{"id":"a","text":"hé<>","meta":{"\u006e":1,"o":[1,2]}}`,
	}
	other := map[string]string{
		"value":        `{"id":"a","text":"he<>","meta":{"n":1,"o":[1,2]}}`,
		"number text":  `{"id":"a","text":"hé<>","meta":{"n":1.0,"o":[1,2]}}`,
		"number type":  `{"id":"a","text":"hé<>","meta":{"n":"1","o":[1,2]}}`,
		"array order":  `{"id":"a","text":"hé<>","meta":{"n":1,"o":[2,1]}}`,
		"more":         `{"id":"a","text":"hé<>","meta":{"n":1,"o":[1,2]},"group":"g"}`,
		"less":         `{"id":"a","text":"hé<>"}`,
		"a name twice": `{"id":"a","id":"a","text":"hé<>","meta":{"n":1,"o":[1,2]}}`,
		"not JSON":     base + "x",
		"empty":        "",
	}
	want := schema.Fingerprint(schema.KindSend, channel, []byte(base))
	for name, body := range same {
		if got := schema.Fingerprint(schema.KindSend, channel, []byte(body)); got != want {
			t.Errorf("%s: differs", name)
		}
	}
	seen := map[[16]byte]string{want: "base"}
	for name, body := range other {
		got := schema.Fingerprint(schema.KindSend, channel, []byte(body))
		if twin, ok := seen[got]; ok {
			t.Errorf("%s: equals %s", name, twin)
		}
		seen[got] = name
	}
	if schema.Fingerprint(schema.KindBulk, channel, []byte(base)) == want {
		t.Error("another kind: equal")
	}
	if schema.Fingerprint(schema.KindSend, strings.ToUpper(channel), []byte(base)) == want {
		t.Error("another channel: equal")
	}
}

// Large ids must not be rounded to the same float.
func TestFingerprintKeepsDigits(t *testing.T) {
	t.Parallel()
	a := schema.Fingerprint(schema.KindUsersDelete, "", []byte(`[9007199254740992]`))
	b := schema.Fingerprint(schema.KindUsersDelete, "", []byte(`[9007199254740993]`))
	if a == b {
		t.Error("two ids have one fingerprint")
	}
}

// Kind, channel and body must not run into each other.
func TestFingerprintSeparates(t *testing.T) {
	t.Parallel()
	a := schema.Fingerprint("send", "x", []byte(`1`))
	for name, b := range map[string][16]byte{
		"kind and channel": schema.Fingerprint("sendx", "", []byte(`1`)),
		"channel and body": schema.Fingerprint("send", "", []byte(`x1`)),
		"JSON and bytes":   schema.Fingerprint("send", "x", []byte(`1 1`)),
	} {
		if a == b {
			t.Errorf("%s: equal", name)
		}
	}
}

// What no command may be is not worth the time that its canonical form takes.
func TestFingerprintOfWhatIsTooLargeOrTooDeep(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"large": `[1` + strings.Repeat(" ", schema.MaxBodySize) + `]`,
		"deep":  nested(schema.MaxDepth + 1),
	} {
		a := schema.Fingerprint(schema.KindSend, channel, []byte(body))
		b := schema.Fingerprint(schema.KindSend, channel, []byte(body+" "))
		if a == b {
			t.Errorf("%s: does not count by its bytes", name)
		}
	}
}

// Fingerprints are stored: a change would make every repeat an ID_REUSED.
func TestFingerprintIsStable(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		benchSend: "fbf220ead676415251a6ef4f64b062dd",
		`[]`:      "789f37e1dc308970207d8fa4761f4259",
		`{`:       "22cb268977481799814d7bb76f82292e",
	} {
		got := schema.Fingerprint(schema.KindSend, channel, []byte(body))
		if hex.EncodeToString(got[:]) != want {
			t.Errorf("%s: got %x, want %s", body, got, want)
		}
	}
}

// TestCanonicalFast holds the fast way to the general one.
func TestCanonicalFast(t *testing.T) {
	t.Parallel()
	texts := []string{
		benchSend, `{}`, ` { } `, `{"a":1}`, `{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`, `{"a":1 2}`, `{"a" 1}`, `{"a":1}x`, `{"a":1]`,
		`{"b":1,"a":2}`, `{"a!":1,"a":2}`, `{"a":1,"a":1}`, `{"a":[1,{"z":1,"y":2}],"b":{"d":1,"c":{"f":1,"e":2}}}`,
		`{"é":1,"z":2}`, `{"\ue000":1,"😀":2}`, `{"😀":1,"\ue000":2}`, `{"a":"\u00e9"}`, "{\"a\":\"\xff\"}", "{\"\xff\":1}", "{\"a\":\"\n\"}",
		"{\"a\x01\":1}", `{"a":"\ud800"}`, `{"a":tru}`, `{"a":true,"b":null,"c":-1.50E+3}`, `{"a":"}","b":"{"}`, `{"a":["]","\""]}`,
		`{"a":{"b":"x}`, `{"a":[}`, `{"a":"b`, `{"a":"b\`, `{"a":"`, `{"`, `{`, ``, ` `, `[1]`, `"x"`, `1`, `{"a":{"b":1,"b":2}}`,
		`{"a":}]}`, `{"a":[[[]]}`, `{"":1}`, `{"` + strings.Repeat("a", 100) + `":1}`,
		`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1}`,
		`{"q":1,"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1}`,
	}
	for _, text := range texts {
		checkCanonical(t, []byte(text))
	}
}

func checkCanonical(t *testing.T, text []byte) {
	t.Helper()
	fast, general, okFast, okGeneral := schema.CanonicalForTest(text)
	if okFast != okGeneral {
		t.Fatalf("%q: fast %v, general %v", text, okFast, okGeneral)
	}
	if okFast && string(fast) != string(general) {
		t.Fatalf("%q: fast %s, general %s", text, fast, general)
	}
}
