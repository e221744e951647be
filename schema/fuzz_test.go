package schema_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// FuzzDecode holds Decode to its promises on any body, and to the JSON Schema on
// every body that it accepts.
func FuzzDecode(f *testing.F) {
	kinds := schema.Kinds()
	for name, body := range commandFiles(f) {
		f.Add(uint8(slices.Index(kinds, kindOfFile(name))), channel, body)
	}
	for _, c := range append(messageCases(), syncCases()...) {
		if len(c.body) < 4<<10 {
			f.Add(uint8(max(0, slices.Index(kinds, c.kind))), c.token, []byte(c.body))
		}
	}
	compiled := compileSchemas(f)
	codes := schema.FaultCodes()
	f.Fuzz(func(t *testing.T, n uint8, token string, body []byte) {
		kind := kinds[int(n)%len(kinds)]
		if token == "" {
			token = channel
		}
		before := bytes.Clone(body)
		command, faults := schema.Decode("main", kind, token, body)
		if !bytes.Equal(body, before) {
			t.Fatal("the body was changed")
		}
		checkShape(t, kind, command)
		checkEcho(t, command)
		if len(faults) > schema.MaxFaults {
			t.Fatalf("got %d faults", len(faults))
		}
		for _, fault := range faults {
			if !slices.Contains(codes, fault.Code) || fault.Description == "" ||
				!utf8.ValidString(fault.Field) || utf8.RuneCountInString(fault.Field) > schema.MaxFieldLength {
				t.Fatalf("fault %+v", fault)
			}
		}
		if len(faults) > 0 {
			return
		}
		if err := validate(compiled[schema.CommandSchema(kind)], body); err != nil {
			t.Fatalf("the schema refuses what Decode accepts: %v", err)
		}
		if kind.IsMessage() {
			checkMessageAgain(t, kind, token, command)
			return
		}
		checkSyncAgain(t, kind, command)
	})
}

// checkEcho holds what an event echoes to its limits.
func checkEcho(t *testing.T, c *schema.Command) {
	t.Helper()
	if c.ID != "" && len(schema.CheckMsgID(c.ID)) > 0 {
		t.Fatalf("unusable id %q", c.ID)
	}
	if c.Group != "" && schema.Key(c.Group) != c.Group {
		t.Fatalf("unusable group %q", c.Group)
	}
	if len(c.Meta) > schema.MaxMetaSize || (c.Meta != nil && !json.Valid(c.Meta)) {
		t.Fatalf("unusable meta %q", c.Meta)
	}
	if c.Message != nil && utf8.RuneCountInString(c.Message.ChatID) > schema.MaxChatIDLength {
		t.Fatalf("unusable chat id %q", c.Message.ChatID)
	}
}

// checkMessageAgain writes the message as a producer in Go would, and expects
// the same to be read.
func checkMessageAgain(t *testing.T, kind schema.Kind, token string, c *schema.Command) {
	t.Helper()
	m := c.Message
	again := &schema.SendCommand{
		ID: c.ID, ChannelID: token, ChatType: m.ChatType, ChatID: m.ChatID, Text: m.Text, Content: m.Content,
		RefMessageID: m.RefMessageID, OnUnknown: m.OnUnknown, Meta: c.Meta, Group: c.Group,
	}
	if y := m.SendAt.Year(); y >= 0 && y <= 9999 {
		again.SendAt = m.SendAt
	}
	if y := m.ExpireAt.Year(); y >= 0 && y <= 9999 {
		again.ExpireAt = m.ExpireAt
	}
	body, err := again.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, faults := schema.Decode("main", kind, token, body)
	if len(faults) > 0 {
		t.Fatalf("%s: %v", body, faults)
	}
	want := *m
	want.SendAt, want.ExpireAt = again.SendAt, again.ExpireAt
	if *got.Message != want || got.ID != c.ID || got.Group != c.Group {
		t.Fatalf("got %+v, want %+v", got.Message, want)
	}
}

// checkSyncAgain takes every item for a command of its own, and all for an
// envelope.
func checkSyncAgain(t *testing.T, kind schema.Kind, c *schema.Command) {
	t.Helper()
	items := c.Sync.Items
	if c.Sync.Verb == schema.VerbDelete {
		items = c.Sync.IDs
	} else if len(items) != len(c.Sync.IDs) {
		t.Fatalf("%d items, %d ids", len(items), len(c.Sync.IDs))
	}
	for _, id := range c.Sync.IDs {
		if schema.EntityID(id) == "" {
			t.Fatalf("id %s has no text", id)
		}
	}
	envelope := &schema.SyncCommand{ID: c.ID, Meta: c.Meta, Group: c.Group, Items: items}
	if err := envelope.Validate(kind); err != nil {
		// One level more can be one too many, and so can the bytes around it.
		body, encodeErr := envelope.AppendJSON(nil)
		_, faults := schema.Decode("main", kind, "", body)
		if encodeErr != nil || !slices.ContainsFunc(faults, func(f schema.Fault) bool {
			return f.Code == schema.FaultTooDeep || f.Code == schema.FaultBodyTooLarge
		}) {
			t.Fatalf("the items in an envelope: %v", err)
		}
	}
}

// FuzzFingerprint holds the fast canonical form to the general one, and the
// fingerprint to what does not change a JSON value.
func FuzzFingerprint(f *testing.F) {
	for _, body := range commandFiles(f) {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		checkCanonical(t, body)
		_, _, _, strict := schema.CanonicalForTest(body)
		if !strict {
			return
		}
		want := schema.Fingerprint(schema.KindSend, channel, body)
		var spaced bytes.Buffer
		if err := json.Indent(&spaced, body, " ", "\t"); err != nil {
			t.Fatal(err)
		}
		if schema.Fingerprint(schema.KindSend, channel, spaced.Bytes()) != want {
			t.Fatal("white space changes the fingerprint")
		}
		longer := append(bytes.Clone(body), ']')
		if schema.Fingerprint(schema.KindSend, channel, longer) == want {
			t.Fatal("another body has the same fingerprint")
		}
	})
}

// FuzzEvent holds the encoder to encoding/json, for every event that it reads.
func FuzzEvent(f *testing.F) {
	names, err := filepath.Glob("testdata/events/*.json")
	if err != nil || len(names) == 0 {
		f.Fatalf("no event files: %v", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var e schema.CommandEvent
		if json.Unmarshal(text, &e) != nil {
			return
		}
		want, wantErr := json.Marshal(e)
		got, err := e.AppendJSON(nil)
		if err != nil {
			// Only in UTC may a year be beyond what is written.
			if y := e.At.UTC().Year(); wantErr == nil && y >= 0 && y <= 9999 && e.RetryAt == nil {
				t.Fatal(err)
			}
			return
		}
		if wantErr != nil {
			t.Fatalf("AppendJSON writes what encoding/json does not: %v", wantErr)
		}
		sameJSON(t, got, want, &e)
	})
}
