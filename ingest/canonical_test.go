package ingest_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wazzup-relay/wazzup-relay/ingest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

func TestHash(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, a, b string
		same       bool
	}{
		{"order of members", `{"a":1,"b":2}`, `{"b":2,"a":1}`, true},
		{"order of members, deep", `{"a":[{"x":1,"y":{"p":1,"q":2}}]}`, `{"a":[{"y":{"q":2,"p":1},"x":1}]}`, true},
		{"white space", `{"a": [1, 2] }`, `{"a":[1,2]}`, true},
		{"escapes", `{"a":"\u00e9\/"}`, `{"a":"é/"}`, true},
		{"escaped names", `{"\u0061":1}`, `{"a":1}`, true},
		{"order of items", `[1,2]`, `[2,1]`, false},
		{"numbers beyond float64", `{"a":9007199254740993}`, `{"a":9007199254740992}`, false},
		{"numbers are their text", `{"a":1.0}`, `{"a":1}`, false},
		{"number and text", `{"a":1}`, `{"a":"1"}`, false},
		{"different lone surrogates", `{"a":"\ud83d"}`, `{"a":"\ud83e"}`, false},
		{"different lone surrogates, deep", `{"a":["\ud83d"]}`, `{"a":["\ud83e"]}`, false},
		{"surrogate and its replacement", `{"a":"\ud83d"}`, `{"a":"\ufffd"}`, false},
		{"repeated names", `{"a":1,"a":2}`, `{"a":2,"a":1}`, false},
		{"a missing member", `{"a":1,"b":null}`, `{"a":1}`, false},
		{"structure", `{"a":{"b":1}}`, `{"a":"{\"b\":1}"}`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := ingest.Hash(tt.a) == ingest.Hash(tt.b); got != tt.same {
				t.Errorf("%s and %s: same %v, want %v", tt.a, tt.b, got, tt.same)
			}
		})
	}
}

// FuzzHash: what encoding/json writes anew has the same hash, and hashing
// changes nothing.
func FuzzHash(f *testing.F) {
	for _, seed := range []string{`{"b":[1,{"z":"\u00e9","a":null}],"a":"x"}`, `[{"a":1}]`, `"\ud83d"`, textIn} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		// Members whose names repeat are lost by encoding/json, and lone
		// surrogates become U+FFFD there: neither is the same value afterwards.
		if !json.Valid(raw) || !utf8.Valid(raw) || bytes.Contains(bytes.ToLower(raw), []byte(`\ud`)) || repeatsNames(raw) {
			return
		}
		before := bytes.Clone(raw)
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		var v any
		if err := dec.Decode(&v); err != nil {
			return // too deep for encoding/json
		}
		again, err := json.MarshalIndent(v, " ", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := ingest.Hash(string(again)), ingest.Hash(string(raw)); got != want {
			t.Errorf("%s\nand %s\ndiffer", raw, again)
		}
		if !bytes.Equal(raw, before) {
			t.Error("the value was changed")
		}
	})
}

// repeatsNames reports whether some object of the value has a name twice.
func repeatsNames(raw []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(raw))
	var walk func() bool
	walk = func() bool {
		tok, err := dec.Token()
		if err != nil {
			return true
		}
		delim, ok := tok.(json.Delim)
		if !ok {
			return false
		}
		seen := make(map[string]bool)
		for dec.More() {
			if delim == '{' {
				name, err := dec.Token()
				text, ok := name.(string)
				if err != nil || !ok || seen[text] {
					return true
				}
				seen[text] = true
			}
			if walk() {
				return true
			}
		}
		_, err = dec.Token()
		return err != nil
	}
	return walk()
}

func TestEnrich(t *testing.T) {
	t.Parallel()
	known := ingest.Command{ID: "a\"\n", Meta: json.RawMessage(`{"k":1}`)}
	tests := []struct {
		name, raw string
		command   ingest.Command
		want      string
	}{
		{"unknown", `{"messageId":"m","status":1 }`, ingest.Command{}, `{"messageId":"m","status":1 }`},
		{"known", `{"messageId":"m", "status":1 }`, known, `{"messageId":"m", "status":1 ,"commandId":"a\"\n","meta":{"k":1}}`},
		{"without meta", `{"messageId":"m","status":1}`, ingest.Command{ID: "c"}, `{"messageId":"m","status":1,"commandId":"c"}`},
		{
			"members of our names", `{"commandId":1,"messageId":"m","m\u0065ta":[2],"status":1}`, known,
			`{"messageId":"m","status":1,"commandId":"a\"\n","meta":{"k":1}}`,
		},
		{"members of our names, unknown", `{"commandId":1,"messageId":"m","status":1}`, ingest.Command{}, `{"commandId":1,"messageId":"m","status":1}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := ingest.Enrich(tt.raw, tt.command); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// What is told about a channel is the same whether one post tells it, several at
// once, or one that was cut off half-way.
func TestPendingGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	body := []string{`{"s":"qr"}`, `{"s":"qr"}`, `{"s":"active"}`, `{"s":"off"}`}
	before := ingest.Last{Seq: 7, ID: "channel-x-3-ffff", Body: []byte(`{"s":"old"}`)}
	want := ingest.Pending(body, before)
	if got := slices.Sorted(maps.Keys(want)); !slices.Equal(got, []int{0, 2, 3}) {
		t.Fatalf("news: got places %v, want 0, 2, 3", got)
	}
	for place, tail := range want {
		if !strings.HasPrefix(tail, "7-") {
			t.Errorf("tail %q does not name what was stored before", tail)
		}
		stored := ingest.Last{Seq: 20, ID: "channel-x-" + tail, Body: []byte(body[place])}
		rest := maps.Clone(want)
		maps.DeleteFunc(rest, func(p int, _ string) bool { return p <= place })
		if got := ingest.Pending(body, stored); !maps.Equal(got, rest) {
			t.Errorf("after place %d: got %v, want %v", place, got, rest)
		}
	}
}

// FuzzQuarantine: whatever is kept can be put together again, and every part fits.
func FuzzQuarantine(f *testing.F) {
	f.Add([]byte("plain"), 600)
	f.Add([]byte("\xff\x00"), 0)
	f.Add([]byte(strings.Repeat("ж\"\\\u2028<\x01", 200)), 700)
	f.Add(bytes.Repeat([]byte{0xff, 1, 2}, 999), 700)
	f.Fuzz(func(t *testing.T, raw []byte, limit int) {
		limit = max(limit%(1<<20), 600)
		events, err := ingest.Quarantine("main", "not-json", raw, limit)
		if err != nil {
			t.Fatal(err)
		}
		var text []byte
		for i, e := range events {
			if len(e.Body) > limit {
				t.Fatalf("part %d has %d bytes, limit %d", i+1, len(e.Body), limit)
			}
			var q schema.QuarantineEvent
			if err := json.Unmarshal(e.Body, &q); err != nil {
				t.Fatal(err)
			}
			if q.Part != i+1 || q.Parts != len(events) {
				t.Fatalf("part %d of %d says %d of %d", i+1, len(events), q.Part, q.Parts)
			}
			part := []byte(q.Body)
			if q.Encoding == "base64" {
				if part, err = base64.StdEncoding.DecodeString(q.Body); err != nil {
					t.Fatal(err)
				}
			}
			text = append(text, part...)
		}
		if !bytes.Equal(text, raw) {
			t.Fatalf("got %q, want %q", text, raw)
		}
	})
}
