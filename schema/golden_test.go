package schema_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// updateGolden makes the tests write the golden files instead of reading them:
// UPDATE_GOLDEN=1 go test ./schema. Read the diff before you commit it.
func updateGolden() bool { return os.Getenv("UPDATE_GOLDEN") != "" }

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if updateGolden() {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

// commandFiles are bodies as producers send them, by kind: `<kind>.<what>.json`.
// They seed the fuzz targets, too.
func commandFiles(tb testing.TB) map[string][]byte {
	tb.Helper()
	names, err := filepath.Glob("testdata/commands/*.json")
	if err != nil || len(names) == 0 {
		tb.Fatalf("no command files: %v", err)
	}
	files := map[string][]byte{}
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		files[name] = body
	}
	return files
}

func kindOfFile(name string) schema.Kind {
	kind, _, _ := strings.Cut(filepath.Base(name), ".")
	return schema.Kind(kind)
}

// TestDecodeGolden shows, beside each body, what is understood of it.
func TestDecodeGolden(t *testing.T) {
	t.Parallel()
	kinds := map[schema.Kind]bool{}
	for name, body := range commandFiles(t) {
		kind := kindOfFile(name)
		kinds[kind] = true
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			command, faults := schema.Decode("main", kind, channelOf(kind), body)
			seen := map[string]any{"command": command, "faults": faults}
			text, err := json.MarshalIndent(seen, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(name, ".json")+".golden", append(text, '\n'))
		})
	}
	for _, k := range schema.Kinds() {
		if !kinds[k] {
			t.Errorf("no file for %s", k)
		}
	}
}

func goldenEvents() map[string]*schema.CommandEvent {
	full := fullEvent()
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	_, faults := schema.Decode("main", schema.KindSend, channel, []byte(`{"chatType":"whatsapp","chatId":"89998887766","text":"x","foo":1}`))
	return map[string]*schema.CommandEvent{
		"full": &full,
		"zero": {},
		"sent": {
			ID: "order-1042-shipped", Account: "main", Kind: schema.KindSend, State: schema.StateSent, At: at, Attempt: 1,
			ChannelID: channel, ChatType: "whatsapp", ChatID: "79998887766", MessageID: "10d90130-38f6-421c-ada9-951f82884056",
			Seq: 4711, Meta: json.RawMessage(`{"orderId":"1042"}`),
		},
		"invalid": {
			ID: "c-1", Account: "main", Kind: schema.KindSend, State: schema.StateInvalid, At: at,
			ChannelID: channel, ChatType: "whatsapp", ChatID: "89998887766", Error: schema.InvalidError(faults), Seq: 4712,
		},
	}
}

func TestEventGolden(t *testing.T) {
	t.Parallel()
	for name, e := range goldenEvents() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := e.AppendJSON(nil)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/events/"+name+".json", append(text, '\n'))
		})
	}
}
