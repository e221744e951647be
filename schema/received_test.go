package schema_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

const aChannel = "3376e1c3-26a6-478b-b964-72bf01cc22cb"

func TestDecodeEvent(t *testing.T) {
	t.Parallel()
	at := time.Date(2025, 11, 22, 10, 0, 0, 123e6, time.UTC)
	for name, tt := range map[string]struct {
		subject, body string
		want          schema.Event
	}{
		"command": {
			schema.CommandEventSubject("main", schema.StateSent, schema.KindSend, aChannel),
			`{"id":"a","account":"main","kind":"send","state":"sent","at":"2025-11-22T10:00:00.123Z","attempt":1,"seq":7}`,
			&schema.CommandEvent{ID: "a", Account: "main", Kind: schema.KindSend, State: schema.StateSent, At: at, Attempt: 1, Seq: 7},
		},
		"message": {
			schema.MessageEventSubject("main", schema.DirectionIn, aChannel, "whatsapp", "79998887766"),
			`{"messageId":"m","channelId":"` + aChannel + `","chatType":"whatsapp","chatId":"79998887766","dateTime":1763805600123,"type":1,"status":99,"text":"Hello","authorType":99,"authorName":"Customer","new":{}}`,
			&schema.MessageEvent{
				Direction: "in", MessageID: "m", ChannelID: aChannel, ChatType: "whatsapp", ChatID: "79998887766",
				At: at, Type: 1, AuthorType: schema.AuthorCustomer, AuthorName: "Customer", Text: "Hello",
			},
		},
		"message of other types": {
			schema.MessageEventSubject("main", schema.DirectionOut, aChannel, "whatsapp", "79998887766"),
			`{"messageId":9007199254740993,"channelId":null,"chatId":79998887766,"dateTime":"2025-11-22T13:00:00.123+03:00","type":"2","text":null,"content":"https://a/b","authorType":"9","authorName":["?"]}`,
			&schema.MessageEvent{
				Direction: "out", MessageID: "9007199254740993", ChatID: "79998887766", At: at,
				Type: 2, AuthorType: schema.AuthorAPI, Content: "https://a/b",
			},
		},
		"status": {
			schema.StatusEventSubject("main", "delivered"),
			`{"messageId":17,"status":"2","commandId":"a","meta":{"x":1}}`,
			&schema.StatusEvent{Word: "delivered", MessageID: "17", Status: json.RawMessage(`"2"`), CommandID: "a", Meta: json.RawMessage(`{"x":1}`)},
		},
		"channel": {
			schema.ChannelEventSubject("main", aChannel, "qr"),
			`{"channelId":"` + aChannel + `","transport":"whatsapp","plainId":79865784457,"state":"qr"}`,
			&schema.ChannelEvent{ChannelID: aChannel, Transport: "whatsapp", PlainID: "79865784457", State: "qr"},
		},
		"channels": {
			schema.ChannelsEventSubject("main"),
			`[{"channelId":"` + aChannel + `","state":"active"}]`,
			&schema.ChannelsEvent{{ChannelID: aChannel, State: "active"}},
		},
		"counter": {
			schema.CounterEventSubject("main", "5"), `{"userId":"5","counter":3}`,
			&schema.CounterEvent{UserID: json.RawMessage(`"5"`), Counter: 3},
		},
		"quarantine": {
			schema.QuarantineEventSubject("main", schema.QuarantineShape),
			`{"reason":"shape","body":"1","encoding":"utf-8","part":1,"parts":1,"sha256":"6b"}`,
			&schema.QuarantineEvent{Reason: schema.QuarantineShape, Body: "1", Encoding: "utf-8", Part: 1, Parts: 1, SHA256: "6b"},
		},
		"ops": {
			schema.OpsEventSubject("main", schema.OpsLaneClosed),
			`{"name":"lane.closed","account":"main","at":"2025-11-22T10:00:00.123Z","channelId":"` + aChannel + `","reason":"qr"}`,
			&schema.OpsEvent{Name: schema.OpsLaneClosed, Account: "main", At: at, ChannelID: aChannel, Reason: "qr"},
		},
		"new family": {"wazzup.main.evt.poll.x", `{"votes":1}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := schema.DecodeEvent(tt.subject, []byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			_, family, _, _ := schema.ParseEventSubject(tt.subject)
			if got != nil && got.Family() != family {
				t.Errorf("the event says that it is a %s, its subject that it is a %s", got.Family(), family)
			}
			if known := slices.Contains(schema.Families(), family); known != (tt.want != nil) {
				t.Errorf("family %s is known: %v", family, known)
			}
		})
	}
}

func TestDecodeEventFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ subject, body string }{
		"not an event":   {"wazzup.main.cmd.send." + aChannel, `{}`},
		"internal":       {"wz.main.l.a", `{}`},
		"bad account":    {"wazzup.Main.evt.channels", `[]`},
		"no family":      {"wazzup.main.evt", `[]`},
		"no JSON":        {"wazzup.main.evt.channels", `[`},
		"another shape":  {"wazzup.main.evt.channels", `{}`},
		"a text message": {"wazzup.main.evt.message.in.a.b.c", `"x"`},
		"a text status":  {"wazzup.main.evt.status.read", `"x"`},
		"a text channel": {"wazzup.main.evt.channel.a.b", `"x"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := schema.DecodeEvent(tt.subject, []byte(tt.body)); err == nil {
				t.Errorf("got %+v and no error", got)
			}
		})
	}
}

// TestFamilySubjects: each filter takes its family's subjects and no other's.
func TestFamilySubjects(t *testing.T) {
	t.Parallel()
	got := []string{}
	for _, f := range schema.Families() {
		got = append(got, schema.FamilySubjects("main", f))
	}
	want := []string{
		"wazzup.main.evt.command.>", "wazzup.main.evt.message.>", "wazzup.main.evt.status.>", "wazzup.main.evt.channel.>",
		"wazzup.main.evt.channels", "wazzup.main.evt.counter.>", "wazzup.main.evt.quarantine.>", "wazzup.main.evt.ops.>",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEventFilters(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ got, want string }{
		{schema.CommandEventFilter("main", "", "", ""), "wazzup.main.evt.command.*.*.*"},
		{schema.CommandEventFilter("main", schema.StateDead, schema.KindBulk, aChannel), "wazzup.main.evt.command.dead.bulk." + aChannel},
		{schema.MessageEventFilter("main", schema.DirectionIn, "", "", ""), "wazzup.main.evt.message.in.*.*.*"},
		{
			schema.MessageEventFilter("main", "", aChannel, "instagram", "john.doe"),
			"wazzup.main.evt.message.*." + aChannel + ".instagram." + schema.Key("john.doe"),
		},
	} {
		if tt.got != tt.want {
			t.Errorf("got %s, want %s", tt.got, tt.want)
		}
	}
}
