package schema_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

func TestSendCommandValidate(t *testing.T) {
	t.Parallel()
	good := schema.NewText("order-1", channel, schema.ChatWhatsApp, "79998887766", "hello")
	change := func(f func(*schema.SendCommand)) *schema.SendCommand {
		c := *good
		f(&c)
		return &c
	}
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	tests := []struct {
		name    string
		command *schema.SendCommand
		want    []string
	}{
		{"text", good, nil},
		{"file", schema.NewFile("", channel, schema.ChatInstagram, "wazzuptest", "https://example.com/a.png"), nil},
		{"everything", &schema.SendCommand{
			ID: "a", ChannelID: channel, ChatType: schema.ChatVK, ChatID: "1", Text: "t", Content: "https://example.com",
			RefMessageID: "r", SendAt: at, ExpireAt: at.Add(time.Hour), OnUnknown: schema.OnUnknownResend,
			Meta: json.RawMessage(`{"a":1}`), Group: "g",
		}, nil},
		{"zero", &schema.SendCommand{}, []string{"channelId NOT_A_UUID", "chatType CHAT_MISSING_CHAT_TYPE", "chatId CHAT_MISSING_CHAT_ID", "text MESSAGE_NOTHING_TO_SEND"}},
		{"no channel", change(func(c *schema.SendCommand) { c.ChannelID = "" }), []string{"channelId NOT_A_UUID"}},
		{"number with 8", change(func(c *schema.SendCommand) { c.ChatID = "89998887766" }), []string{"chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP"}},
		{"bad UTF-8", change(func(c *schema.SendCommand) { c.Text, c.ID = "\xff", "\xfe" }), []string{"id INVALID_UTF8", "text INVALID_UTF8"}},
		{"bad meta", change(func(c *schema.SendCommand) { c.Meta = json.RawMessage(`{`) }), []string{" NOT_JSON"}},
		{"times", change(func(c *schema.SendCommand) { c.SendAt, c.ExpireAt = at, at }), []string{"expireAt EXPIRES_BEFORE_SEND"}},
		{"endless", change(func(c *schema.SendCommand) { c.Text = strings.Repeat("a", schema.MaxBodySize) }), []string{" BODY_TOO_LARGE"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			checkInvalid(t, tt.command.Validate(), tt.want)
		})
	}
}

func checkInvalid(t *testing.T, err error, want []string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("got %v, want none", err)
		}
		return
	}
	invalid, ok := errors.AsType[*schema.InvalidCommandError](err)
	if !ok {
		t.Fatalf("got %v, want an InvalidCommandError", err)
	}
	if got := brief(invalid.Faults); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What a producer in Go writes is what the worker reads, through both encoders.
func TestSendCommandIsDecoded(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 10, 0, 0, 5, time.FixedZone("", 3*3600))
	c := &schema.SendCommand{
		ID: "a<b>", ChannelID: channel, ChatType: schema.ChatTelegram, ChatID: "1", Text: "t\n😀", Content: "https://example.com",
		RefMessageID: "r", SendAt: at, ExpireAt: at.Add(time.Hour), OnUnknown: schema.OnUnknownResend,
		Meta: json.RawMessage(`{"a":1}`), Group: "g",
	}
	fast, err := c.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{"AppendJSON": fast, "encoding/json": marshal(t, c)} {
		got, faults := schema.Decode("main", schema.KindBulk, channel, body)
		if len(faults) > 0 {
			t.Fatalf("%s: %v", name, faults)
		}
		want := schema.Message{
			ChannelID: channel, ChatType: c.ChatType, ChatID: c.ChatID, Text: c.Text, Content: c.Content,
			RefMessageID: c.RefMessageID, SendAt: c.SendAt.UTC(), ExpireAt: c.ExpireAt.UTC(), OnUnknown: c.OnUnknown,
		}
		if *got.Message != want || got.ID != c.ID || got.Group != c.Group || string(got.Meta) != string(c.Meta) {
			t.Errorf("%s: got %+v %+v, want %+v", name, got, got.Message, want)
		}
	}
}

func TestSyncCommandValidate(t *testing.T) {
	t.Parallel()
	type contact struct {
		ID   int    `json:"id"`
		Name string `json:"name"`
	}
	good, err := schema.NewSync(contact{ID: 17, Name: "N"}, map[string]any{"id": "b"})
	if err != nil {
		t.Fatal(err)
	}
	checkInvalid(t, good.Validate(schema.KindContactsUpsert), nil)
	checkInvalid(t, good.Validate(schema.KindContactsDelete), []string{"items[0].name UNKNOWN_FIELD"})
	checkInvalid(t, good.Validate(schema.KindSend), []string{" UNKNOWN_KIND"})
	ids, err := schema.NewSync(17, "b")
	if err != nil {
		t.Fatal(err)
	}
	checkInvalid(t, ids.Validate(schema.KindDealsDelete), nil)
	none, err := schema.NewSync()
	if err != nil {
		t.Fatal(err)
	}
	checkInvalid(t, none.Validate(schema.KindUsersReplace), nil)
	checkInvalid(t, none.Validate(schema.KindUsersUpsert), []string{"items EMPTY"})
	checkInvalid(t, (&schema.SyncCommand{Items: []json.RawMessage{[]byte(`{`)}}).Validate(schema.KindUsersUpsert), []string{" NOT_JSON"})
	if _, err := schema.NewSync(func() {}); err == nil {
		t.Error("a func was taken for an item")
	}
}

func TestInvalidCommandErrorNamesFieldsOnly(t *testing.T) {
	t.Parallel()
	err := schema.NewText("", channel, schema.ChatWhatsApp, "89998887766", "").Validate()
	const want = "invalid command: chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP, text MESSAGE_NOTHING_TO_SEND"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
