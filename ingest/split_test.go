package ingest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wazzup-relay/wazzup-relay/ingest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	textIn = `{"messageId":"m1","channelId":"c1","chatType":"whatsapp","chatId":"79998887766","dateTime":1603977171000,` +
		`"type":1,"status":99,"text":"hi","authorType":99,"authorName":"Ann"}`
	echoOut = `{"messageId":"m2","channelId":"c1","chatType":"whatsapp","chatId":"79998887766","type":1,"status":1,"authorType":9}`
)

func messageItem(direction, id, channel, chatType, chat, raw string) ingest.Item {
	return ingest.Item{
		Kind: "message", Raw: raw, Direction: direction, MessageID: id,
		ChannelID: channel, ChatType: chatType, ChatID: chat,
	}
}

func quarantined(reason schema.QuarantineReason, key, raw string) ingest.Item {
	return ingest.Item{Kind: "quarantine", Raw: raw, Reason: string(reason), Key: key}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	status := func(id, number, word, raw string) ingest.Item {
		return ingest.Item{Kind: "status", Raw: raw, MessageID: id, Status: number, Word: word}
	}
	channel := func(id, state, raw string) ingest.Item {
		return ingest.Item{Kind: "channel", Raw: raw, ChannelID: id, State: state}
	}
	tests := []struct {
		name, body string
		want       []ingest.Item
	}{
		{"empty", "", nil},
		{"white space", " \r\n\t", nil},
		{"test request", `{"test":true}`, nil},
		{"test request, spaced", ` { "test" : true } `, nil},
		{"test request of this version", `{"messages":[],"channels":[],"statuses":[]}`, nil},
		{"all arrays empty", `{"messages":[ ],"channels":[],"statuses":[],"channelsList":[]}`, nil},
		{"nulls", `{"messages":null,"statuses":null}`, nil},
		{"empty object", `{}`, nil},
		{"empty array", `[]`, nil},

		{
			"all four keys, every item",
			`{"messages":[` + textIn + `,` + echoOut + `],"statuses":[{"messageId":"m2","status":2},{"messageId":"m2","status":"3"}],` +
				`"channels":[{"channelId":"c1","state":"qr"}],"channelsList":[{"channelId":"c1","state":"active"},{"channelId":"c2","state":"qr"}]}`,
			[]ingest.Item{
				messageItem("in", "m1", "c1", "whatsapp", "79998887766", textIn),
				messageItem("out", "m2", "c1", "whatsapp", "79998887766", echoOut),
				status("m2", "2", "delivered", `{"messageId":"m2","status":2}`),
				status("m2", "3", "read", `{"messageId":"m2","status":"3"}`),
				channel("c1", "qr", `{"channelId":"c1","state":"qr"}`),
				{Kind: "list", Raw: `[{"channelId":"c1","state":"active"},{"channelId":"c2","state":"qr"}]`},
			},
		},
		{
			"the same key twice",
			`{"statuses":[{"messageId":"a","status":1}],"statuses":[{"messageId":"b","status":1}]}`,
			[]ingest.Item{
				status("a", "1", "sent", `{"messageId":"a","status":1}`),
				status("b", "1", "sent", `{"messageId":"b","status":1}`),
			},
		},
		{
			"numbers and strings",
			`{"messages":[{"messageId":17,"channelId":5,"chatType":"whatsapp","chatId":79998887766,"status":"99","authorType":"99"}]}`,
			[]ingest.Item{messageItem("in", "17", "5", "whatsapp", "79998887766",
				`{"messageId":17,"channelId":5,"chatType":"whatsapp","chatId":79998887766,"status":"99","authorType":"99"}`)},
		},
		{
			"ids beyond float64",
			`{"statuses":[{"messageId":9007199254740993,"status":0}]}`,
			[]ingest.Item{status("9007199254740993", "0", "processing", `{"messageId":9007199254740993,"status":0}`)},
		},
		{
			"white space and unknown fields are kept",
			"{\"statuses\":[ {\n\"new\":{\"deep\":[1.50]} ,\"messageId\":\"a\",\"status\": 1 } ]}",
			[]ingest.Item{status("a", "1", "sent", "{\n\"new\":{\"deep\":[1.50]} ,\"messageId\":\"a\",\"status\": 1 }")},
		},
		{
			"escaped names and a lone surrogate",
			`{"messag\u0065s":[{"m\u0065ssageId":"m","channelId":"c","chatType":"vk","chatId":"\u0031","status":99,"authorName":"\ud83d"}]}`,
			[]ingest.Item{messageItem("in", "m", "c", "vk", "1",
				`{"m\u0065ssageId":"m","channelId":"c","chatType":"vk","chatId":"\u0031","status":99,"authorName":"\ud83d"}`)},
		},
		{
			"in by author alone",
			`{"messages":[{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","authorType":99}]}`,
			[]ingest.Item{messageItem("in", "m", "c", "vk", "1", `{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","authorType":99}`)},
		},
		{
			"in by status alone, though written by a program",
			`{"messages":[{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","status":99,"authorType":9}]}`,
			[]ingest.Item{messageItem("in", "m", "c", "vk", "1", `{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","status":99,"authorType":9}`)},
		},
		{
			"out without an author",
			`{"messages":[{"messageId":"m","channelId":"c","chatType":"whatsgroup","chatId":"79124698489-1611143663","status":2,"type":77}]}`,
			[]ingest.Item{messageItem("out", "m", "c", "whatsgroup", "79124698489-1611143663",
				`{"messageId":"m","channelId":"c","chatType":"whatsgroup","chatId":"79124698489-1611143663","status":2,"type":77}`)},
		},
		{
			"unknown channel state is normal",
			`{"channels":[{"channelId":"c","state":"some new state"}]}`,
			[]ingest.Item{channel("c", "some new state", `{"channelId":"c","state":"some new state"}`)},
		},

		{
			"bad items among good ones",
			`{"statuses":[{"messageId":"a","status":1},{"status":1},7,{"messageId":"b"},{"messageId":"","status":1},` +
				`{"messageId":{},"status":1},{"messageId":"c","status":true},{"messageId":"d","status":2}]}`,
			[]ingest.Item{
				status("a", "1", "sent", `{"messageId":"a","status":1}`),
				quarantined(schema.QuarantineBadItem, "statuses", `{"status":1}`),
				quarantined(schema.QuarantineBadItem, "statuses", `7`),
				quarantined(schema.QuarantineBadItem, "statuses", `{"messageId":"b"}`),
				quarantined(schema.QuarantineBadItem, "statuses", `{"messageId":"","status":1}`),
				quarantined(schema.QuarantineBadItem, "statuses", `{"messageId":{},"status":1}`),
				quarantined(schema.QuarantineBadItem, "statuses", `{"messageId":"c","status":true}`),
				status("d", "2", "delivered", `{"messageId":"d","status":2}`),
			},
		},
		{
			"messages without an address",
			`{"messages":[{"channelId":"c","chatType":"vk","chatId":"1","status":1},{"messageId":"m","chatType":"vk","chatId":"1","status":1},` +
				`{"messageId":"m","channelId":"c","chatId":"1","status":1},{"messageId":"m","channelId":"c","chatType":"vk","status":1},` +
				`{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1"},{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","status":[]}]}`,
			[]ingest.Item{
				quarantined(schema.QuarantineBadItem, "messages", `{"channelId":"c","chatType":"vk","chatId":"1","status":1}`),
				quarantined(schema.QuarantineBadItem, "messages", `{"messageId":"m","chatType":"vk","chatId":"1","status":1}`),
				quarantined(schema.QuarantineBadItem, "messages", `{"messageId":"m","channelId":"c","chatId":"1","status":1}`),
				quarantined(schema.QuarantineBadItem, "messages", `{"messageId":"m","channelId":"c","chatType":"vk","status":1}`),
				quarantined(schema.QuarantineBadItem, "messages", `{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1"}`),
				quarantined(schema.QuarantineBadItem, "messages", `{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","status":[]}`),
			},
		},
		{
			"channels without an address",
			`{"channels":[{"state":"qr"},{"channelId":"c"},[]]}`,
			[]ingest.Item{
				quarantined(schema.QuarantineBadItem, "channels", `{"state":"qr"}`),
				quarantined(schema.QuarantineBadItem, "channels", `{"channelId":"c"}`),
				quarantined(schema.QuarantineBadItem, "channels", `[]`),
			},
		},
		{
			"unknown status numbers",
			`{"statuses":[{"messageId":"a","status":16},{"messageId":"a","status":"1.0"},{"messageId":"a","status":99}],` +
				`"messages":[{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","status":7,"authorType":9}]}`,
			[]ingest.Item{
				quarantined(schema.QuarantineUnknownStatus, "statuses", `{"messageId":"a","status":16}`),
				quarantined(schema.QuarantineUnknownStatus, "statuses", `{"messageId":"a","status":"1.0"}`),
				quarantined(schema.QuarantineUnknownStatus, "statuses", `{"messageId":"a","status":99}`),
				quarantined(schema.QuarantineUnknownStatus, "messages", `{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","status":7,"authorType":9}`),
			},
		},
		{
			"unknown keys are kept beside known ones",
			`{"statuses":[{"messageId":"a","status":1}],"calls":[{"id":1}],"version":2,"empty":{},"channels":{"channelId":"c"}}`,
			[]ingest.Item{
				status("a", "1", "sent", `{"messageId":"a","status":1}`),
				quarantined(schema.QuarantineShape, "", `{"calls":[{"id":1}]}`),
				quarantined(schema.QuarantineShape, "channels", `{"channels":{"channelId":"c"}}`),
			},
		},

		{"no known key", `{"calls":[]}`, []ingest.Item{quarantined(schema.QuarantineShape, "", `{"calls":[]}`)}},
		{"not an array", `{"messages":{"messageId":"m"}}`, []ingest.Item{quarantined(schema.QuarantineShape, "", `{"messages":{"messageId":"m"}}`)}},
		{"test that is none", `{"test":false}`, []ingest.Item{quarantined(schema.QuarantineShape, "", `{"test":false}`)}},
		{"top-level array", `[1]`, []ingest.Item{quarantined(schema.QuarantineShape, "", `[1]`)}},
		{"top-level null", `null`, []ingest.Item{quarantined(schema.QuarantineShape, "", `null`)}},
		{"top-level text", `"x"`, []ingest.Item{quarantined(schema.QuarantineShape, "", `"x"`)}},

		{"text", `hello`, []ingest.Item{quarantined(schema.QuarantineNotJSON, "", `hello`)}},
		{"a form", `messages=1`, []ingest.Item{quarantined(schema.QuarantineNotJSON, "", `messages=1`)}},
		{"cut off", `{"messages":[` + textIn, []ingest.Item{quarantined(schema.QuarantineNotJSON, "", `{"messages":[`+textIn)}},
		{"cut off early", `{`, []ingest.Item{quarantined(schema.QuarantineNotJSON, "", `{`)}},
		{"more behind it", `{"messages":[]} {}`, []ingest.Item{quarantined(schema.QuarantineNotJSON, "", `{"messages":[]} {}`)}},
		{"rubbish behind it", `{"messages":[]}x`, []ingest.Item{quarantined(schema.QuarantineNotJSON, "", `{"messages":[]}x`)}},
		{"not UTF-8", "{\"messages\":[\"\xff\"]}", []ingest.Item{quarantined(schema.QuarantineNotJSON, "", "{\"messages\":[\"\xff\"]}")}},

		{
			"successor: text status of a message",
			`{"messages":[{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","status":"inbound"}]}`,
			[]ingest.Item{quarantined(schema.QuarantineV3, "", `{"messages":[{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","status":"inbound"}]}`)},
		},
		{
			"successor: isEcho",
			`{"messages":[{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","status":1,"isEcho":false}]}`,
			[]ingest.Item{quarantined(schema.QuarantineV3, "", `{"messages":[{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","status":1,"isEcho":false}]}`)},
		},
		{
			"successor: ISO time",
			`{"messages":[{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","status":1,"dateTime":"2026-11-22T10:00:00.000Z"}]}`,
			[]ingest.Item{quarantined(schema.QuarantineV3, "", `{"messages":[{"messageId":"m","channelId":"c","chatType":"vk","chatId":"1","status":1,"dateTime":"2026-11-22T10:00:00.000Z"}]}`)},
		},
		{
			"successor: text status, whole even beside items of ours",
			`{"statuses":[{"messageId":"m","status":1},{"messageId":"m","status":"delivered","timestamp":"2026-11-22T10:00:00.000Z"}]}`,
			[]ingest.Item{quarantined(schema.QuarantineV3, "", `{"statuses":[{"messageId":"m","status":1},{"messageId":"m","status":"delivered","timestamp":"2026-11-22T10:00:00.000Z"}]}`)},
		},
		{
			"successor: keys of its own",
			`{"channelsUpdates":[{"channelId":"c","state":"active"}]}`,
			[]ingest.Item{quarantined(schema.QuarantineV3, "", `{"channelsUpdates":[{"channelId":"c","state":"active"}]}`)},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := ingest.Split([]byte(tt.body)); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestSplitKnowsEveryStatus(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"0": "processing", "1": "sent", "2": "delivered", "3": "read", "13": "failed", "14": "failed", "15": "failed",
		"17": "failed", "18": "failed", "19": "failed", "21": "failed", "66": "failed",
	}
	for number, word := range want {
		for _, form := range []string{number, `"` + number + `"`} {
			items := ingest.Split([]byte(`{"statuses":[{"messageId":"m","status":` + form + `}]}`))
			if len(items) != 1 || items[0].Word != word || items[0].Status != number {
				t.Errorf("status %s: got %+v, want %s", form, items, word)
			}
		}
	}
}

// FuzzSplit: whatever is posted, nothing is lost and nothing is made up.
func FuzzSplit(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "webhooks", "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no golden webhooks: %v", err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(`{"messages":[{"messageId":"\ud83d","status":99}],"x":[{}],"channelsList":[[]]}`))
	f.Add([]byte("{\"statuses\":[\"\xff\"]}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		items := ingest.Split(body)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		valid := json.Valid(body) && utf8.Valid(body)
		for _, it := range items {
			if whole := it.Raw == string(body); it.Reason == string(schema.QuarantineNotJSON) && !whole {
				t.Fatalf("a part of a body is not JSON: %q", it.Raw)
			} else if !whole && !json.Valid([]byte(it.Raw)) {
				t.Fatalf("item is not JSON: %q", it.Raw)
			}
			if it.Kind != "quarantine" && !strings.Contains(string(body), it.Raw) {
				t.Fatalf("item %q is not in the body", it.Raw)
			}
			if it.Kind != "quarantine" && !valid {
				t.Fatalf("item %+v of a body that is not JSON", it)
			}
			if ingest.Hash(it.Raw) != ingest.Hash(" "+it.Raw+"\n") && it.Reason != string(schema.QuarantineNotJSON) {
				t.Fatalf("white space changes the hash of %q", it.Raw)
			}
		}
		if !valid || len(items) > 0 {
			return
		}
		// Nothing came out, so nothing may have been in.
		var got any
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatal(err)
		}
		switch v := got.(type) {
		case map[string]any:
			for name, member := range v {
				if list, ok := member.([]any); member != nil && (!ok || len(list) > 0) && name != "test" && !scalarValue(member) && !emptyMap(member) {
					t.Fatalf("member %q was lost", name)
				}
			}
		case []any:
			if len(v) > 0 {
				t.Fatal("an array was lost")
			}
		default:
			t.Fatalf("%T was lost", got)
		}
	})
}

func scalarValue(v any) bool {
	switch v.(type) {
	case map[string]any, []any:
		return false
	}
	return true
}

func emptyMap(v any) bool {
	m, ok := v.(map[string]any)
	return ok && len(m) == 0
}
