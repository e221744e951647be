package schema_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	channel = "3376e1c3-26a6-478b-b964-72bf01cc22cb"
	chat    = `"chatType":"whatsapp","chatId":"79998887766"`
	sendOK  = chat + `,"text":"hello"`
)

// Why a JSON Schema accepts a body that Decode refuses. These are all the rules
// that it cannot express; on everything else the two must agree.
const (
	ofText    = "a schema sees the parsed value: names that came twice, bad UTF-8, bytes and the digits of a number are gone"
	ofSubject = "the subject is not in the body"
	ofPair    = "a schema does not compare two fields"
	ofDepth   = "a schema does not count levels"
	ofSyntax  = "a URL's host and port and a time's calendar are more than a pattern"
)

type decodeCase struct {
	name   string
	kind   schema.Kind // "" = send
	token  string      // "" = channel, for messages
	body   string
	want   []string // "field CODE"
	beyond string   // why the JSON Schema accepts it all the same
}

func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func send(members string) string { return "{" + sendOK + "," + members + "}" }

func messageCases() []decodeCase {
	chatCase := func(name, chatType, chatID string, want ...string) decodeCase {
		return decodeCase{name: name, body: `{"text":"x","chatType":` + chatType + `,"chatId":` + chatID + `}`, want: want}
	}
	textCase := func(name, members string, want ...string) decodeCase {
		return decodeCase{name: name, body: `{` + chat + members + `}`, want: want}
	}
	urlCase := func(name, link string, want ...string) decodeCase {
		return textCase("url "+name, `,"content":"`+link+`"`, want...)
	}
	syntaxCase := func(name, link string) decodeCase {
		c := urlCase(name, link, "content NOT_A_URL")
		c.beyond = ofSyntax
		return c
	}
	return []decodeCase{
		{name: "smallest", body: `{` + sendOK + `}`},
		{name: "bulk", kind: schema.KindBulk, body: `{` + sendOK + `}`},
		{name: "everything", body: send(`"id":"a","channelId":"` + channel + `","refMessageId":"r","sendAt":"2026-11-22T10:00:00+03:00","expireAt":"2026-11-22T10:00:00Z","onUnknown":"resend","meta":{"a":[1,null]},"group":"g-1_A"`)},
		{name: "white space around", body: " \n\t{" + sendOK + "}\r\n "},

		// The body as a whole.
		{name: "empty body", body: "", want: []string{" NOT_JSON"}},
		{name: "white space only", body: " \n", want: []string{" NOT_JSON"}},
		{name: "form encoded", body: "chatId=79998887766&text=x", want: []string{" NOT_JSON"}},
		{name: "cut off", body: `{"id":"a","foo":1,` + sendOK, want: []string{" NOT_JSON"}},
		{name: "single quotes", body: `{'id':'a'}`, want: []string{" NOT_JSON"}},
		{name: "comment", body: `{` + sendOK + `/* */}`, want: []string{" NOT_JSON"}},
		{name: "trailing comma", body: `{` + sendOK + `,}`, want: []string{" NOT_JSON"}},
		{name: "number with leading zero", body: send(`"meta":01`), want: []string{" NOT_JSON"}},
		{name: "byte order mark", body: "\ufeff{" + sendOK + "}", want: []string{" NOT_JSON"}},
		{name: "control character in a string", body: "{" + chat + ",\"text\":\"a\nb\"}", want: []string{" NOT_JSON"}},
		{name: "trailing value", body: `{` + sendOK + `}{}`, want: []string{" TRAILING_BYTES"}},
		{name: "trailing NUL", body: "{" + sendOK + "}\x00", want: []string{" TRAILING_BYTES"}},
		{name: "trailing bytes and a fault", body: `{` + sendOK + `,"id":""} x`, want: []string{" TRAILING_BYTES", "id EMPTY"}},
		{name: "array", body: `[{` + sendOK + `}]`, want: []string{" WRONG_TYPE"}},
		{name: "string", body: `"x"`, want: []string{" WRONG_TYPE"}},
		{name: "null", body: `null`, want: []string{" WRONG_TYPE"}},
		{name: "too large", body: `{` + sendOK + `}` + strings.Repeat(" ", schema.MaxBodySize), want: []string{" BODY_TOO_LARGE"}, beyond: ofText},
		{name: "largest", body: `{` + sendOK + strings.Repeat(" ", schema.MaxBodySize-len(sendOK)-2) + `}`},
		{name: "too deep for any decoder", body: send(`"meta":` + nested(20_000)), want: []string{" TOO_DEEP"}},
		{name: "deep and cut off", body: `{"meta":` + strings.Repeat("[", 50), want: []string{" TOO_DEEP"}},
		{name: "empty object", body: `{}`, want: []string{"chatType CHAT_MISSING_CHAT_TYPE", "chatId CHAT_MISSING_CHAT_ID", "text MESSAGE_NOTHING_TO_SEND"}},
		{
			name: "every fault at once",
			body: `{"id":"","channelId":"x","chatType":"icq","chatId":"@a","text":" ","content":"ftp://x","refMessageId":"","sendAt":"now","expireAt":1,"onUnknown":"maybe","meta":{"a":1,"a":2},"group":"a b","foo":1,"group":"x"}`,
			want: []string{
				"foo UNKNOWN_FIELD", "group DUPLICATE_NAME", "id EMPTY", "channelId CHANNEL_MISMATCH",
				"chatType CHAT_WRONG_CHAT_TYPE", "chatId LEADING_AT", "text MESSAGE_TEXT_CAN_NOT_BE_BLANK",
				"content NOT_A_URL", "refMessageId EMPTY", "sendAt NOT_A_TIME", "expireAt WRONG_TYPE",
				"onUnknown NOT_ALLOWED", "meta.a DUPLICATE_NAME", "group NOT_ALLOWED",
			},
		},

		// Members.
		{name: "unknown field", body: send(`"priority":1`), want: []string{"priority UNKNOWN_FIELD"}},
		{name: "unknown field twice", body: send(`"a":1,"a":1`), want: []string{"a UNKNOWN_FIELD", "a UNKNOWN_FIELD"}},
		{name: "names have a case", body: send(`"ID":"a"`), want: []string{"ID UNKNOWN_FIELD"}},
		{name: "empty name", body: send(`"":1`), want: []string{" UNKNOWN_FIELD"}},
		{name: "escaped name", body: send(`"\u0069d":"a"`)},
		{name: "name twice", body: send(`"text":"b"`), want: []string{"text DUPLICATE_NAME"}, beyond: ofText},
		{name: "name twice, once escaped", body: send(`"\u0074ext":"b"`), want: []string{"text DUPLICATE_NAME"}, beyond: ofText},
		{name: "bad UTF-8", body: "{" + chat + ",\"text\":\"a\xffb\"}", want: []string{"text INVALID_UTF8"}, beyond: ofText},
		{name: "half a surrogate pair", body: `{` + chat + `,"text":"a\ud800b"}`, want: []string{"text INVALID_UTF8"}, beyond: ofText},
		{name: "surrogate pair", body: `{` + chat + `,"text":"a\ud83d\ude00b"}`},
		{name: "bad UTF-8 in a name", body: send("\"a\xff\":1"), want: []string{"a\ufffd UNKNOWN_FIELD"}},

		// Wrong types, null among them.
		{name: "id number", body: send(`"id":17`), want: []string{"id WRONG_TYPE"}},
		{name: "id null", body: send(`"id":null`), want: []string{"id WRONG_TYPE"}},
		{name: "channelId null", body: send(`"channelId":null`), want: []string{"channelId WRONG_TYPE"}},
		{name: "group null", body: send(`"group":null`), want: []string{"group WRONG_TYPE"}},
		{name: "refMessageId object", body: send(`"refMessageId":{}`), want: []string{"refMessageId WRONG_TYPE"}},
		{name: "sendAt number", body: send(`"sendAt":1763805600`), want: []string{"sendAt WRONG_TYPE"}},
		{name: "expireAt null", body: send(`"expireAt":null`), want: []string{"expireAt WRONG_TYPE"}},
		{name: "onUnknown true", body: send(`"onUnknown":true`), want: []string{"onUnknown WRONG_TYPE"}},
		chatCase("chatType number", `1`, `"79998887766"`, "chatType WRONG_TYPE"),
		chatCase("chatId number", `"whatsapp"`, `79998887766`, "chatId WRONG_TYPE"),
		chatCase("chatId null", `"whatsapp"`, `null`, "chatId WRONG_TYPE"),
		textCase("text number", `,"text":1`, "text WRONG_TYPE"),
		textCase("text null beside content", `,"text":null,"content":"https://example.com/a"`, "text WRONG_TYPE", "content MESSAGE_ONLY_TEXT_OR_CONTENT"),
		textCase("content array", `,"content":["https://example.com"]`, "content WRONG_TYPE"),

		// Identity.
		{name: "id of 256 characters", body: send(`"id":"` + strings.Repeat("я", 256) + `"`)},
		{name: "id of 257 characters", body: send(`"id":"` + strings.Repeat("a", 257) + `"`), want: []string{"id TOO_LONG"}},
		{name: "id empty", body: send(`"id":""`), want: []string{"id EMPTY"}},
		{name: "channelId equal", body: send(`"channelId":"` + channel + `"`)},
		{name: "channelId equal, escaped", body: send(`"channelId":"\u0033376e1c3-26a6-478b-b964-72bf01cc22cb"`)},
		{name: "channelId of another", body: send(`"channelId":"00000000-26a6-478b-b964-72bf01cc22cb"`), want: []string{"channelId CHANNEL_MISMATCH"}, beyond: ofSubject},
		{name: "channelId in capitals", body: send(`"channelId":"` + strings.ToUpper(channel) + `"`), want: []string{"channelId CHANNEL_MISMATCH"}},
		{name: "channelId empty", body: send(`"channelId":""`), want: []string{"channelId CHANNEL_MISMATCH"}},
		{name: "token is no uuid", token: "abc", body: `{` + sendOK + `}`, want: []string{"channelId NOT_A_UUID"}, beyond: ofSubject},
		{name: "token in capitals", token: strings.ToUpper(channel), body: `{` + sendOK + `}`, want: []string{"channelId NOT_A_UUID"}, beyond: ofSubject},
		{name: "token is no uuid and no JSON", token: "abc", body: `x`, want: []string{"channelId NOT_A_UUID", " NOT_JSON"}},
		{name: "group of 64", body: send(`"group":"` + strings.Repeat("g", 64) + `"`)},
		{name: "group of 65", body: send(`"group":"` + strings.Repeat("g", 65) + `"`), want: []string{"group TOO_LONG"}},
		{name: "group empty", body: send(`"group":""`), want: []string{"group EMPTY"}},
		{name: "group with a dot", body: send(`"group":"a.b"`), want: []string{"group NOT_ALLOWED"}},
		{name: "group in Cyrillic", body: send(`"group":"акция"`), want: []string{"group NOT_ALLOWED"}},
		{name: "meta null", body: send(`"meta":null`)},
		{name: "meta text", body: send(`"meta":"x"`)},
		{name: "meta large number", body: send(`"meta":123456789012345678901234567890`)},
		{name: "meta of 4096 bytes", body: send(`"meta":"` + strings.Repeat("m", 4094) + `"`)},
		{name: "meta of 4097 bytes", body: send(`"meta":"` + strings.Repeat("m", 4095) + `"`), want: []string{"meta TOO_LONG"}, beyond: ofText},
		{name: "meta at the depth limit", body: send(`"meta":` + nested(31))},
		{name: "meta beyond the depth limit", body: send(`"meta":` + nested(32)), want: []string{"meta TOO_DEEP"}, beyond: ofDepth},
		{name: "meta's brackets in a string", body: send(`"meta":"\"` + strings.Repeat("[", 40) + `"`)},
		{
			name: "meta with all that is not strict", body: send("\"meta\":{\"a\":[{\"b\":1,\"b\":\"\xff\"}],\"c\":\"\\udc00\"}"),
			want: []string{"meta.a[0].b DUPLICATE_NAME", "meta.a[0].b INVALID_UTF8", "meta.c INVALID_UTF8"}, beyond: ofText,
		},

		// The chat.
		{name: "chatType missing", body: `{"chatId":"79998887766","text":"x"}`, want: []string{"chatType CHAT_MISSING_CHAT_TYPE"}},
		chatCase("chatType empty", `""`, `"79998887766"`, "chatType CHAT_MISSING_CHAT_TYPE"),
		chatCase("chatType unknown", `"viber"`, `"79998887766"`, "chatType CHAT_WRONG_CHAT_TYPE"),
		chatCase("chatType in capitals", `"WHATSAPP"`, `"79998887766"`, "chatType CHAT_WRONG_CHAT_TYPE"),
		chatCase("chatType escaped", `"\u0076k"`, `"1"`),
		{name: "chatId missing", body: `{"chatType":"vk","text":"x"}`, want: []string{"chatId CHAT_MISSING_CHAT_ID"}},
		chatCase("chatId empty", `"vk"`, `""`, "chatId CHAT_MISSING_CHAT_ID"),
		chatCase("chatId blank", `"vk"`, `" \u00a0"`, "chatId CHAT_MISSING_CHAT_ID"),
		chatCase("chatId blank whatsapp", `"whatsapp"`, `" "`, "chatId CHAT_MISSING_CHAT_ID"),
		chatCase("instagram", `"instagram"`, `"wazzuptest"`),
		chatCase("instagram with @", `"instagram"`, `"@wazzuptest"`, "chatId LEADING_AT"),
		chatCase("telegram with @", `"telegram"`, `"@a"`, "chatId LEADING_AT"),
		chatCase("telegram", `"telegram"`, `"447700900123"`),
		chatCase("vk", `"vk"`, `"1"`),
		chatCase("group chat", `"whatsgroup"`, `"79124698489-1611143663"`),
		chatCase("chatId of 256", `"vk"`, `"`+strings.Repeat("ж", 256)+`"`),
		chatCase("chatId of 257", `"vk"`, `"`+strings.Repeat("ж", 257)+`"`, "chatId TOO_LONG"),
		chatCase("chatId of 257 with @", `"vk"`, `"@`+strings.Repeat("ж", 256)+`"`, "chatId LEADING_AT", "chatId TOO_LONG"),
		chatCase("whatsapp of 8 digits", `"whatsapp"`, `"79998887"`, "chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP"),
		chatCase("whatsapp of 9 digits", `"whatsapp"`, `"799988877"`),
		chatCase("whatsapp of 16 digits", `"whatsapp"`, `"7999888776655443"`),
		chatCase("whatsapp of 17 digits", `"whatsapp"`, `"79998887766554433"`, "chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP"),
		chatCase("whatsapp with +", `"whatsapp"`, `"+79998887766"`, "chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP"),
		chatCase("whatsapp with spaces", `"whatsapp"`, `"7 999 888 77 66"`, "chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP"),
		chatCase("whatsapp with @", `"whatsapp"`, `"@79998887766"`, "chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP"),
		chatCase("whatsapp in Arabic digits", `"whatsapp"`, `"٧٩٩٩٨٨٨٧٧"`, "chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP"),
		chatCase("Russian number with 8", `"whatsapp"`, `"89998887766"`, "chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP"),
		chatCase("11 digits with 84", `"whatsapp"`, `"84998887766"`),
		chatCase("12 digits with 89", `"whatsapp"`, `"899988877665"`),
		chatCase("10 digits with 89", `"whatsapp"`, `"8999888776"`),

		// Text and content.
		textCase("nothing to send", ``, "text MESSAGE_NOTHING_TO_SEND"),
		textCase("text empty", `,"text":""`, "text MESSAGE_TEXT_CAN_NOT_BE_BLANK"),
		textCase("text blank", `,"text":" \n\u2003"`, "text MESSAGE_TEXT_CAN_NOT_BE_BLANK"),
		textCase("text of 10000", `,"text":"`+strings.Repeat("щ", 10_000)+`"`),
		textCase("text of 10001", `,"text":"`+strings.Repeat("щ", 10_001)+`"`, "text MESSAGE_TEXT_TOO_LONG"),
		textCase("content", `,"content":"https://example.com/images/img_01.png"`),
		textCase("content empty", `,"content":""`, "content MESSAGE_CONTENT_CAN_NOT_BE_BLANK"),
		textCase("both on whatsapp", `,"text":"a","content":"https://example.com/a"`, "content MESSAGE_ONLY_TEXT_OR_CONTENT"),
		{name: "both on instagram", body: `{"chatType":"instagram","chatId":"a","text":"a","content":"https://example.com/a"}`, want: []string{"content MESSAGE_ONLY_TEXT_OR_CONTENT"}},
		{name: "both on whatsgroup", body: `{"chatType":"whatsgroup","chatId":"a","text":"a","content":"https://example.com/a"}`, want: []string{"content MESSAGE_ONLY_TEXT_OR_CONTENT"}},
		{name: "both on telegram", body: `{"chatType":"telegram","chatId":"a","text":"a","content":"https://example.com/a"}`},
		{name: "both on vk", body: `{"chatType":"vk","chatId":"a","text":"a","content":"https://example.com/a"}`},
		urlCase("http", "http://example.com"),
		urlCase("scheme in capitals", "HTTPS://EXAMPLE.COM/A"),
		urlCase("with everything", "https://u:p@example.com:8443/a/b%20c?d=e#f"),
		urlCase("with Cyrillic", "https://пример.рф/файл.pdf"),
		urlCase("IPv6", "http://[::1]:80/a"),
		urlCase("relative", "/images/a.png", "content NOT_A_URL"),
		urlCase("without scheme", "example.com/a.png", "content NOT_A_URL"),
		urlCase("ftp", "ftp://example.com/a", "content NOT_A_URL"),
		urlCase("data", "data:text/plain,hi", "content NOT_A_URL"),
		urlCase("without host", "https:///a.png", "content NOT_A_URL"),
		urlCase("opaque", "https:example.com", "content NOT_A_URL"),
		urlCase("with a space", "https://example.com/a b", "content NOT_A_URL"),
		urlCase("with a line end", `https://example.com/a\n`, "content NOT_A_URL"),
		syntaxCase("host of a port only", "https://:80/a"),
		syntaxCase("host of a user only", "https://u@/a"),
		syntaxCase("port too high", "https://example.com:65536/"),
		syntaxCase("port zero", "https://example.com:0/"),
		syntaxCase("bad escape", "https://example.com/%zz"),
		urlCase("of 8192", "https://example.com/"+strings.Repeat("a", 8172)),
		urlCase("of 8193", "https://example.com/"+strings.Repeat("a", 8173), "content TOO_LONG"),
		{name: "refMessageId empty", body: send(`"refMessageId":""`), want: []string{"refMessageId EMPTY"}},
		{name: "refMessageId of 257", body: send(`"refMessageId":"` + strings.Repeat("r", 257) + `"`), want: []string{"refMessageId TOO_LONG"}},

		// Times.
		{name: "time with a fraction and an offset", body: send(`"sendAt":"2026-11-22T10:00:00.123456789+05:30"`)},
		{name: "time in lower case", body: send(`"sendAt":"2026-11-22t10:00:00z"`)},
		{name: "time escaped", body: send(`"sendAt":"\u0032026-11-22T10:00:00Z"`)},
		{name: "time of bad UTF-8", body: send("\"sendAt\":\"\xff\""), want: []string{"sendAt INVALID_UTF8"}},
		{name: "time without zone", body: send(`"sendAt":"2026-11-22T10:00:00"`), want: []string{"sendAt NOT_A_TIME"}},
		{name: "time with a space", body: send(`"sendAt":"2026-11-22 10:00:00Z"`), want: []string{"sendAt NOT_A_TIME"}},
		{name: "time without seconds", body: send(`"expireAt":"2026-11-22T10:00Z"`), want: []string{"expireAt NOT_A_TIME"}},
		{name: "offset without colon", body: send(`"expireAt":"2026-11-22T10:00:00+0300"`), want: []string{"expireAt NOT_A_TIME"}},
		{name: "comma in the fraction", body: send(`"expireAt":"2026-11-22T10:00:00,5Z"`), want: []string{"expireAt NOT_A_TIME"}},
		{name: "hour of one digit", body: send(`"expireAt":"2026-11-22T9:00:00Z"`), want: []string{"expireAt NOT_A_TIME"}},
		{name: "offset of 24 hours", body: send(`"expireAt":"2026-11-22T09:00:00+24:00"`), want: []string{"expireAt NOT_A_TIME"}},
		{name: "offset of 60 minutes", body: send(`"expireAt":"2026-11-22T09:00:00+00:60"`), want: []string{"expireAt NOT_A_TIME"}},
		{name: "date only", body: send(`"expireAt":"2026-11-22"`), want: []string{"expireAt NOT_A_TIME"}},
		{name: "30 February", body: send(`"expireAt":"2026-02-30T10:00:00Z"`), want: []string{"expireAt NOT_A_TIME"}}, // the schema's format knows
		{name: "leap second", body: send(`"expireAt":"2016-12-31T23:59:60Z"`), want: []string{"expireAt NOT_A_TIME"}, beyond: ofSyntax},
		{name: "expireAt after sendAt by another zone", body: send(`"sendAt":"2026-11-22T10:00:00+03:00","expireAt":"2026-11-22T07:00:01Z"`)},
		{name: "expireAt equal to sendAt", body: send(`"sendAt":"2026-11-22T10:00:00+03:00","expireAt":"2026-11-22T07:00:00Z"`), want: []string{"expireAt EXPIRES_BEFORE_SEND"}, beyond: ofPair},
		{name: "expireAt before sendAt", body: send(`"sendAt":"2026-11-22T10:00:00Z","expireAt":"2026-11-22T09:00:00Z"`), want: []string{"expireAt EXPIRES_BEFORE_SEND"}, beyond: ofPair},
		{name: "expireAt in the past", body: send(`"expireAt":"1999-01-01T00:00:00Z"`)},
		{name: "onUnknown reconcile", body: send(`"onUnknown":"reconcile"`)},
		{name: "onUnknown resend", body: send(`"onUnknown":"resend"`)},
		{name: "onUnknown empty", body: send(`"onUnknown":""`), want: []string{"onUnknown NOT_ALLOWED"}},
	}
}

func syncCases() []decodeCase {
	var cases []decodeCase
	add := func(kind schema.Kind, name, body string, want ...string) *decodeCase {
		cases = append(cases, decodeCase{name: string(kind) + " " + name, kind: kind, body: body, want: want})
		return &cases[len(cases)-1]
	}
	for _, kind := range schema.Kinds() {
		_, verb, ok := kind.Sync()
		if !ok {
			continue
		}
		item, badID := `{"id":17}`, "[1].id"
		if verb == schema.VerbDelete {
			item, badID = `17`, "[1]"
		}
		add(kind, "object", `{"id":17}`)
		add(kind, "array", `[`+item+`,`+item+`]`)
		add(kind, "objects", `[{"id":17},{"id":"18"}]`)
		add(kind, "envelope", `{"id":"c","meta":{"a":1},"group":"g","items":[`+item+`]}`)
		add(kind, "envelope of no identity", `{"items":[`+item+`]}`)
		add(kind, "envelope with bad identity", `{"id":17,"meta":{"a":1,"a":1},"group":"","items":[`+item+`]}`,
			"id WRONG_TYPE", "meta.a DUPLICATE_NAME", "group EMPTY")
		add(kind, "envelope with unknown field", `{"items":[`+item+`],"onUnknown":"resend"}`, "onUnknown UNKNOWN_FIELD")
		add(kind, "envelope with a name twice", `{"items":[`+item+`],"items":[`+item+`]}`, "items DUPLICATE_NAME").beyond = ofText
		add(kind, "not JSON", `[{"id":17}`, " NOT_JSON")
		add(kind, "object cut off", `{"id":"c","items":[`, " NOT_JSON")
		add(kind, "trailing bytes", `[`+item+`] ]`, " TRAILING_BYTES")
		add(kind, "trailing bytes after an envelope", `{"items":[`+item+`]}1`, " TRAILING_BYTES")
		add(kind, "too large", `[`+item+`]`+strings.Repeat(" ", schema.MaxBodySize), " BODY_TOO_LARGE").beyond = ofText
		add(kind, "text", `"17"`, " WRONG_TYPE")
		add(kind, "number", `17`, " WRONG_TYPE")
		add(kind, "null", `null`, " WRONG_TYPE")
		add(kind, "object without id", `{}`, "id REQUIRED")
		add(kind, "id null", `{"id":null}`, "id WRONG_TYPE")
		add(kind, "id true", `{"id":true}`, "id WRONG_TYPE")
		add(kind, "id object", `[{"id":{}}]`, "[0].id WRONG_TYPE")
		add(kind, "id empty", `{"id":""}`, "id EMPTY")
		add(kind, "id empty in a list", `[`+item+`,`+strings.Replace(item, "17", `""`, 1)+`]`, badID+" EMPTY")
		add(kind, "id empty in an envelope", `{"items":[`+item+`,`+strings.Replace(item, "17", `""`, 1)+`]}`, "items"+badID+" EMPTY")
		add(kind, "item null", `[null]`, "[0] WRONG_TYPE")
		add(kind, "item array", `[[17]]`, "[0] WRONG_TYPE")
		add(kind, "several faults", `{"items":[null,{},{"id":""}]}`, "items[0] WRONG_TYPE", "items[1].id REQUIRED", "items[2].id EMPTY")
		add(kind, "id twice", `{"id":1,"id":1}`, "id DUPLICATE_NAME").beyond = ofText
		add(kind, "id of bad UTF-8", "[{\"id\":\"\xff\"}]", "[0].id INVALID_UTF8").beyond = ofText
		add(kind, "id of too many digits", `{"id":1`+strings.Repeat("0", 300)+`}`, "id TOO_LONG").beyond = ofText
		switch verb {
		case schema.VerbReplace:
			add(kind, "empty list", `[]`)
			add(kind, "empty envelope", `{"items":[]}`)
		default:
			add(kind, "empty list", `[]`, " EMPTY")
			add(kind, "empty envelope", `{"items":[]}`, "items EMPTY")
		}
		if verb == schema.VerbDelete {
			add(kind, "ids of both types", `[17,"17",{"id":"a"}]`)
			add(kind, "object with more", `{"id":17,"name":"x","meta":1}`, "name UNKNOWN_FIELD", "meta UNKNOWN_FIELD")
			add(kind, "items are no array", `{"id":17,"items":1}`, "items UNKNOWN_FIELD")
			add(kind, "object with more in a list", `[{"id":17,"items":[]}]`, "[0].items UNKNOWN_FIELD")
			add(kind, "dot", `["."]`, "[0] NOT_ALLOWED")
			add(kind, "dots", `{"id":".."}`, "id NOT_ALLOWED")
			add(kind, "three dots", `["..."]`)
			continue
		}
		add(kind, "dot", `[{"id":"."}]`)
		add(kind, "item text", `["17"]`, "[0] WRONG_TYPE")
		add(kind, "unknown fields", `{"id":17,"x":{"y":[null]},"meta":1,"group":2,"items":{"a":1}}`)
		add(kind, "unknown field twice", `[{"id":17,"x":{"y":1,"y":1}}]`, "[0].x.y DUPLICATE_NAME").beyond = ofText
		add(kind, "name number", `{"id":17,"name":1}`, "name WRONG_TYPE")
		add(kind, "name null", `[{"id":17,"name":null}]`, "[0].name WRONG_TYPE")
		add(kind, "deep object", `{"id":17,"x":`+nested(31)+`}`)
		add(kind, "too deep object", `{"id":17,"x":`+nested(32)+`}`, " TOO_DEEP").beyond = ofDepth
		add(kind, "deep in a list", `[{"id":17,"x":`+nested(30)+`}]`)
		add(kind, "too deep in a list", `[{"id":17,"x":`+nested(31)+`}]`, "[0] TOO_DEEP").beyond = ofDepth
		add(kind, "deep in an envelope", `{"items":[{"id":17,"x":`+nested(29)+`}]}`)
		add(kind, "too deep in an envelope", `{"items":[{"id":17,"x":`+nested(30)+`}]}`, "items[0] TOO_DEEP").beyond = ofDepth
	}

	users, contacts, deals := schema.KindUsersUpsert, schema.KindContactsUpsert, schema.KindDealsUpsert
	add(users, "id of 64", `{"id":"`+strings.Repeat("u", 64)+`"}`)
	add(users, "id of 65", `{"id":"`+strings.Repeat("u", 65)+`"}`, "id TOO_LONG")
	add(users, "id of a fraction", `{"id":1.5}`, "id WRONG_TYPE")
	add(users, "id of an integral fraction", `{"id":1.0}`, "id WRONG_TYPE").beyond = ofText
	add(users, "id with an exponent", `{"id":1e3}`, "id WRONG_TYPE").beyond = ofText
	add(users, "id negative", `{"id":-1}`)
	add(users, "name of 150", `{"id":1,"name":"`+strings.Repeat("ю", 150)+`"}`)
	add(users, "name of 151", `[{"id":1,"name":"`+strings.Repeat("ю", 151)+`"}]`, "[0].name TOO_LONG")
	add(users, "name of 150 in escapes", `{"id":1,"name":"`+strings.Repeat(`\u044e`, 150)+`"}`)
	add(users, "fields of others", `{"id":1,"closed":"x","chats":1,"responsibleUserId":null}`)
	add(schema.KindUsersDelete, "id of a fraction", `[1.5]`, "[0] WRONG_TYPE")
	add(schema.KindUsersDelete, "id of 65", `["`+strings.Repeat("u", 65)+`"]`, "[0] TOO_LONG")

	add(contacts, "everything", `{"id":"a","responsibleUserId":5,"name":"N","chats":[{"chatType":"whatsapp","chatId":79998887766,"x":1}],"deals":[1,"2",{"id":3}]}`)
	add(contacts, "id of a fraction", `{"id":1.5}`)
	add(contacts, "id of 256", `{"id":"`+strings.Repeat("c", 256)+`"}`)
	add(contacts, "id of 257", `{"id":"`+strings.Repeat("c", 257)+`"}`, "id TOO_LONG")
	add(contacts, "long name", `{"id":1,"name":"`+strings.Repeat("n", 500)+`"}`)
	add(contacts, "responsibleUserId null", `{"id":1,"responsibleUserId":null}`, "responsibleUserId WRONG_TYPE")
	add(contacts, "chats object", `{"id":1,"chats":{}}`, "chats WRONG_TYPE")
	add(contacts, "chats empty", `{"id":1,"chats":[]}`)
	add(contacts, "chats of wrong types", `{"items":[{"id":1,"chats":[1,{"chatType":1,"chatId":true}]}]}`,
		"items[0].chats[0] WRONG_TYPE", "items[0].chats[1].chatType WRONG_TYPE", "items[0].chats[1].chatId WRONG_TYPE")
	add(contacts, "deals number", `{"id":1,"deals":1}`, "deals WRONG_TYPE")
	add(contacts, "deals of wrong types", `[{"id":1,"deals":[1,null]}]`, "[0].deals[1] WRONG_TYPE")

	add(deals, "everything", `{"id":1,"responsibleUserId":"a","name":"N","closed":true,"contacts":[1,"2"]}`)
	add(deals, "id text", `{"id":"4711"}`)
	add(deals, "closed text", `{"id":1,"closed":"true"}`, "closed WRONG_TYPE")
	add(deals, "closed number", `[{"id":1,"closed":0}]`, "[0].closed WRONG_TYPE")
	add(deals, "contacts wrong", `{"id":1,"contacts":[false]}`, "contacts[0] WRONG_TYPE")
	return cases
}

func decode(c decodeCase) (*schema.Command, []schema.Fault) {
	kind, token := c.kind, c.token
	if kind == "" {
		kind = schema.KindSend
	}
	if token == "" && kind.IsMessage() {
		token = channel
	}
	return schema.Decode("main", kind, token, []byte(c.body))
}

func brief(faults []schema.Fault) []string {
	var all []string
	for _, f := range faults {
		all = append(all, f.Field+" "+f.Code)
	}
	return all
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, c := range append(messageCases(), syncCases()...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			command, faults := decode(c)
			if got := brief(faults); !slices.Equal(got, c.want) {
				t.Errorf("faults: got %q, want %q", got, c.want)
			}
			checkShape(t, c.kind, command)
		})
	}
}

// checkShape holds what Decode promises of any command.
func checkShape(t *testing.T, kind schema.Kind, c *schema.Command) {
	t.Helper()
	if c == nil {
		t.Fatal("command is nil")
	}
	if _, _, ok := kind.Sync(); ok {
		if c.Sync == nil || c.Sync.Items == nil || c.Sync.IDs == nil || c.Message != nil {
			t.Errorf("sync command of the wrong shape: %+v", c)
		}
		return
	}
	if c.Message == nil || c.Message.OnUnknown == "" || c.Sync != nil {
		t.Errorf("message command of the wrong shape: %+v", c)
	}
}

// TestSchemasAgreeWithDecode holds the JSON Schemas to the rules that Decode
// carries out, both ways, but for those that no schema can express.
func TestSchemasAgreeWithDecode(t *testing.T) {
	t.Parallel()
	compiled := compileSchemas(t)
	for _, c := range append(messageCases(), syncCases()...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			kind := c.kind
			if kind == "" {
				kind = schema.KindSend
			}
			err := validate(compiled[schema.CommandSchema(kind)], []byte(c.body))
			got, want := err == nil, len(c.want) == 0 || c.beyond != ""
			if got != want {
				t.Errorf("the schema accepts it: got %v, want %v (%v)", got, want, err)
			}
			if c.beyond != "" && len(c.want) == 0 {
				t.Error("a valid body is beyond nothing")
			}
		})
	}
}

func validate(s *jsonschema.Schema, body []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

func TestDecodeMessageValues(t *testing.T) {
	t.Parallel()
	body := []byte(`{"id":"a\n1","channelId":"` + channel + `","chatType":"telegram","chatId":"447700900123",` +
		`"text":"h\u00e9llo \ud83d\ude00","content":"https://example.com/a","refMessageId":"r",` +
		`"sendAt":"2026-11-22T10:00:00.5+03:00","expireAt":"2026-11-22T08:00:00Z","onUnknown":"resend","meta": {"a" : 1} ,"group":"g"}`)
	before := bytes.Clone(body)
	c, faults := schema.Decode("main", schema.KindBulk, channel, body)
	if len(faults) > 0 {
		t.Fatalf("faults: %v", faults)
	}
	want := schema.Message{
		ChannelID: channel, ChatType: "telegram", ChatID: "447700900123", Text: "héllo 😀",
		Content: "https://example.com/a", RefMessageID: "r", OnUnknown: schema.OnUnknownResend,
		SendAt:   time.Date(2026, 11, 22, 7, 0, 0, 500_000_000, time.UTC),
		ExpireAt: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC),
	}
	if *c.Message != want {
		t.Errorf("message: got %+v, want %+v", *c.Message, want)
	}
	if c.ID != "a\n1" || c.Group != "g" || string(c.Meta) != `{"a" : 1}` || c.Sync != nil {
		t.Errorf("command: got %+v", c)
	}
	if !bytes.Equal(body, before) {
		t.Error("Decode changed the body")
	}
}

func TestDecodeMessageDefaults(t *testing.T) {
	t.Parallel()
	c, faults := schema.Decode("main", schema.KindSend, channel, []byte(`{`+sendOK+`}`))
	want := schema.Message{
		ChannelID: channel, ChatType: "whatsapp", ChatID: "79998887766", Text: "hello",
		OnUnknown: schema.OnUnknownReconcile,
	}
	if len(faults) > 0 || *c.Message != want || c.ID != "" || c.Meta != nil || c.Group != "" {
		t.Errorf("got %+v, %+v, %v", c, c.Message, faults)
	}
}

// A producer's unset time must not turn into "now" and "never".
func TestDecodeZeroTimeStaysInThePast(t *testing.T) {
	t.Parallel()
	c, faults := schema.Decode("main", schema.KindSend, channel, []byte(send(`"expireAt":"0001-01-01T00:00:00Z"`)))
	if len(faults) > 0 || c.Message.ExpireAt.IsZero() || c.Message.ExpireAt.Year() != 1 {
		t.Errorf("got %v, %v", c.Message.ExpireAt, faults)
	}
}

func TestDecodeSyncValues(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		kind       schema.Kind
		body       string
		id         string
		items, ids []string
	}{
		{"one", schema.KindContactsUpsert, ` {"id":17, "x":1} `, "", []string{`{"id":17, "x":1}`}, []string{`17`}},
		{"list", schema.KindDealsUpsert, `[{"id":"a"}, {"id":1.0}]`, "", []string{`{"id":"a"}`, `{"id":1.0}`}, []string{`"a"`, `1.0`}},
		{"envelope", schema.KindUsersReplace, `{"items":[{"id":1}],"id":"c"}`, "c", []string{`{"id":1}`}, []string{`1`}},
		{"entity with items", schema.KindContactsUpsert, `{"id":"e","items":{}}`, "", []string{`{"id":"e","items":{}}`}, []string{`"e"`}},
		{"all gone", schema.KindUsersReplace, `[]`, "", nil, nil},
		{"delete one", schema.KindUsersDelete, `{"id":5}`, "", nil, []string{`5`}},
		{"delete several", schema.KindContactsDelete, `[1,"a",{"id":2}]`, "", nil, []string{`1`, `"a"`, `2`}},
		{"delete envelope", schema.KindDealsDelete, `{"id":"c","items":[1]}`, "c", nil, []string{`1`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, faults := schema.Decode("main", tt.kind, "", []byte(tt.body))
			if len(faults) > 0 {
				t.Fatalf("faults: %v", faults)
			}
			entity, verb, _ := tt.kind.Sync()
			if c.ID != tt.id || c.Sync.Entity != entity || c.Sync.Verb != verb {
				t.Errorf("got id %q, %s %s", c.ID, c.Sync.Entity, c.Sync.Verb)
			}
			if got := texts(c.Sync.Items); !slices.Equal(got, tt.items) {
				t.Errorf("items: got %q, want %q", got, tt.items)
			}
			if got := texts(c.Sync.IDs); !slices.Equal(got, tt.ids) {
				t.Errorf("ids: got %q, want %q", got, tt.ids)
			}
		})
	}
}

func texts(raw []json.RawMessage) []string {
	var all []string
	for _, r := range raw {
		all = append(all, string(r))
	}
	return all
}

// An `invalid` event echoes what could be understood.
func TestDecodeKeepsWhatItUnderstood(t *testing.T) {
	t.Parallel()
	const identity = `"id":"c-1","group":"g","meta":{"a":1}`
	type echo struct{ id, group, meta, chatType, chatID string }
	tests := []struct {
		name string
		kind schema.Kind
		body string
		want echo
	}{
		{"other faults", schema.KindSend, `{` + identity + `,` + chat + `,"text":1,"foo":2}`, echo{"c-1", "g", `{"a":1}`, "whatsapp", "79998887766"}},
		{"wrong chat", schema.KindSend, `{` + identity + `,"chatType":"icq","chatId":"@1","text":"x"}`, echo{"c-1", "g", `{"a":1}`, "icq", "@1"}},
		{"wrong number", schema.KindSend, `{` + identity + `,"chatType":"whatsapp","chatId":"89998887766","text":"x"}`, echo{"c-1", "g", `{"a":1}`, "whatsapp", "89998887766"}},
		{"endless chat", schema.KindSend, `{` + identity + `,"chatType":"` + strings.Repeat("t", 100) + `","chatId":"` + strings.Repeat("c", 300) + `","text":"x"}`, echo{"c-1", "g", `{"a":1}`, strings.Repeat("t", 64), strings.Repeat("c", 256)}},
		{"no JSON after the identity", schema.KindSend, `{` + identity + `,` + chat + `,"text":`, echo{"c-1", "g", `{"a":1}`, "whatsapp", "79998887766"}},
		{"no JSON after a sync identity", schema.KindContactsUpsert, `{` + identity + `,"items":[1],`, echo{"c-1", "g", `{"a":1}`, "", ""}},
		{"an entity's id is not the command's", schema.KindContactsUpsert, `{"id":"17","name":1}`, echo{}},
		{"bad identity", schema.KindSend, `{"id":"","group":"a b","meta":{"a":1,"a":2},` + sendOK + `}`, echo{chatType: "whatsapp", chatID: "79998887766"}},
		{"long identity", schema.KindSend, `{"id":"` + strings.Repeat("i", 257) + `","meta":"` + strings.Repeat("m", 5000) + `",` + sendOK + `}`, echo{chatType: "whatsapp", chatID: "79998887766"}},
		{"bad items", schema.KindUsersUpsert, `{` + identity + `,"items":[null]}`, echo{"c-1", "g", `{"a":1}`, "", ""}},
		{"nothing", schema.KindSend, ``, echo{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			token := ""
			if tt.kind.IsMessage() {
				token = channel
			}
			c, faults := schema.Decode("main", tt.kind, token, []byte(tt.body))
			if len(faults) == 0 {
				t.Fatal("no faults")
			}
			got := echo{id: c.ID, group: c.Group, meta: string(c.Meta)}
			if c.Message != nil {
				got.chatType, got.chatID = c.Message.ChatType, c.Message.ChatID
				if c.Message.ChannelID != channel {
					t.Errorf("channel: got %q", c.Message.ChannelID)
				}
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestDecodeOfAnotherWorld(t *testing.T) {
	t.Parallel()
	c, faults := schema.Decode("Main", "fax", "", []byte(`{}`))
	if got, want := brief(faults), []string{" NOT_AN_ACCOUNT", " UNKNOWN_KIND"}; !slices.Equal(got, want) || c == nil {
		t.Errorf("got %q, want %q", got, want)
	}
	_, faults = schema.Decode("", schema.KindSend, channel, []byte(`{`+sendOK+`}`))
	if got, want := brief(faults), []string{" NOT_AN_ACCOUNT"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// However bad a body is, its event must fit into a NATS message.
func TestDecodeBoundsFaults(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`{"a":1`)
	for range 2000 {
		b.WriteString(`,"` + strings.Repeat("\u0001", 0) + strings.Repeat(`\u0001`, 70) + `":1`)
	}
	b.WriteString(`}`)
	for _, kind := range []schema.Kind{schema.KindSend, schema.KindUsersDelete} {
		_, faults := schema.Decode("main", kind, channel, []byte(b.String()))
		if len(faults) != schema.MaxFaults || faults[len(faults)-1].Code != schema.FaultTooManyFaults {
			t.Fatalf("%s: got %d faults", kind, len(faults))
		}
		e := schema.CommandEvent{Kind: kind, Error: schema.InvalidError(faults)}
		text, err := e.AppendJSON(nil)
		if err != nil || len(text) > 400<<10 {
			t.Errorf("%s: the event has %d bytes, %v", kind, len(text), err)
		}
	}
}

// Faults are published and may be logged: they name fields, never values.
func TestFaultsDoNotEchoValues(t *testing.T) {
	t.Parallel()
	const canary = "canary-7f3a"
	for _, member := range []string{
		`"id":"@"`, `"channelId":"@"`, `"chatType":"@"`, `"chatId":"@"`, `"chatId":"@@"`, `"text":["@"]`, `"content":"@"`,
		`"content":"https://@ @"`, `"refMessageId":["@"]`, `"sendAt":"@"`, `"expireAt":"@"`, `"onUnknown":"@"`, `"group":"@ @"`,
		`"meta":{"a":"@","a":"@"}`, `"foo":"@"`,
	} {
		body := "{" + strings.ReplaceAll(member, `"@`, `"`+canary) + "}"
		c, faults := schema.Decode("main", schema.KindSend, channel, []byte(body))
		if len(faults) == 0 || c == nil {
			t.Fatalf("%s: no faults", member)
		}
		for _, f := range faults {
			if strings.Contains(f.Field+f.Code+f.Description, canary) {
				t.Errorf("%s: fault %+v holds the value", member, f)
			}
		}
	}
}

//nolint:paralleltest // AllocsPerRun counts the allocations of everything that runs
func TestDecodeAllocates(t *testing.T) {
	body := []byte(benchSend)
	got := testing.AllocsPerRun(100, func() {
		schema.Decode("main", schema.KindSend, benchChannel, body)
	})
	if got > 10 {
		t.Errorf("a typical send: got %v allocations, want at most 10", got)
	}
}
