package schema_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

func TestCheckSchedule(t *testing.T) {
	t.Parallel()
	stored := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	const retention = 7 * 24 * time.Hour
	limit := stored.Add(retention - time.Hour)
	for name, tt := range map[string]struct {
		message *schema.Message
		want    []string
	}{
		"none":   {nil, nil},
		"now":    {&schema.Message{}, nil},
		"past":   {&schema.Message{SendAt: stored.Add(-time.Hour)}, nil},
		"limit":  {&schema.Message{SendAt: limit}, nil},
		"beyond": {&schema.Message{SendAt: limit.Add(1)}, []string{"sendAt SEND_AT_TOO_FAR"}},
	} {
		if got := brief(schema.CheckSchedule(tt.message, stored, retention)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestCheckMsgID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string][]string{
		"a":                       nil,
		strings.Repeat("я", 256):  nil,
		strings.Repeat("я", 257):  {"Nats-Msg-Id TOO_LONG"},
		"":                        {"Nats-Msg-Id EMPTY"},
		"a\xff":                   {"Nats-Msg-Id INVALID_UTF8"},
		"with spaces and . * > 😀": nil,
	} {
		if got := brief(schema.CheckMsgID(id)); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", id, got, want)
		}
	}
}

func TestCheckReplyTo(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]bool{
		"_INBOX.abc.1":                       true,
		"wazzup.main.reply.crm":              true,
		"wazzup.main.reply.a.b":              true,
		"_INBOX.":                            false,
		"_INBOX":                             false,
		"_INBOXES.a":                         false,
		"wazzup.main.reply":                  false,
		"wazzup.main.reply.":                 false,
		"wazzup.other.reply.a":               false,
		"wazzup.main.cmd.send.x":             false,
		"wazzup.main.evt.ops.a":              false,
		"$JS.API.STREAM.DELETE.x":            false,
		"_INBOX.a.*":                         false,
		"_INBOX.a*":                          false,
		"_INBOX.>":                           false,
		"_INBOX.a..b":                        false,
		"_INBOX.a.":                          false,
		"_INBOX.a b":                         false,
		"_INBOX.a\r\nX":                      false,
		"_INBOX.a\x00":                       false,
		"_INBOX.\xff":                        false,
		"":                                   false,
		"_INBOX." + strings.Repeat("a", 257): false,
	} {
		if got := len(schema.CheckReplyTo("main", subject)) == 0; got != want {
			t.Errorf("%q: got %v, want %v", subject, got, want)
		}
	}
}

func TestValidUUID(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		channel:                                true,
		"00000000-0000-0000-0000-000000000000": true,
		strings.ToUpper(channel):               false,
		channel[:35]:                           false,
		channel + "0":                          false,
		"{" + channel[:34] + "}":               false,
		strings.ReplaceAll(channel, "-", "0"):  false,
		strings.Replace(channel, "3", "-", 1):  false,
		strings.Replace(channel, "3", "g", 1):  false,
		"":                                     false,
	} {
		if got := schema.ValidUUID(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestEntityID(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`17`:                   "17",
		`"17"`:                 "17",
		` "17" `:               "17",
		`17.0`:                 "17.0",
		`1e2`:                  "1e2",
		`-0`:                   "-0",
		`12345678901234567890`: "12345678901234567890",
		`"a\u0062\n"`:          "ab\n",
		`"\ud83d\ude00"`:       "😀",
		`""`:                   "",
		`null`:                 "",
		`true`:                 "",
		`{"id":1}`:             "",
		`"`:                    "",
		`"open`:                "",
		``:                     "",
	} {
		if got := schema.EntityID(json.RawMessage(raw)); got != want {
			t.Errorf("%s: got %q, want %q", raw, got, want)
		}
	}
}

func TestFaultCodesAreDescribed(t *testing.T) {
	t.Parallel()
	codes := schema.FaultCodes()
	if unique := slices.Compact(slices.Sorted(slices.Values(codes))); len(unique) != len(codes) {
		t.Error("a code is listed twice")
	}
	for _, code := range codes {
		if schema.DescribeFault(code) == "" {
			t.Errorf("%s has no description", code)
		}
		if strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			t.Errorf("%s is not in upper snake case", code)
		}
	}
	if schema.DescribeFault("NO_SUCH") != "" {
		t.Error("an unknown code has a description")
	}
}

// Every code that the rules produce is listed, and every listed one is either
// produced by a case of the tables here or checked elsewhere.
func TestFaultCodesAreClosed(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{
		schema.FaultIDReused: true, schema.FaultSendAtTooFar: true, schema.FaultTooManyFaults: true,
		schema.FaultNotAnAccount: true, schema.FaultUnknownKind: true,
	}
	for _, c := range append(messageCases(), syncCases()...) {
		_, faults := decode(c)
		for _, f := range faults {
			seen[f.Code] = true
			if !slices.Contains(schema.FaultCodes(), f.Code) || f.Description == "" {
				t.Errorf("%s: fault %+v is not of the set", c.name, f)
			}
		}
	}
	for _, code := range schema.FaultCodes() {
		if !seen[code] {
			t.Errorf("no case for %s", code)
		}
	}
}

func TestInvalidError(t *testing.T) {
	t.Parallel()
	if got := schema.InvalidError(nil); got != nil {
		t.Errorf("without faults: got %v", got)
	}
	got := schema.InvalidError([]schema.Fault{schema.NewFault("text", schema.FaultTextBlank), schema.NewFault("id", schema.FaultEmpty)})
	if got.Code != schema.CodeInvalid || got.Class != schema.ClassInvalid || got.Phase != schema.PhaseNotSent || len(got.Faults) != 2 {
		t.Errorf("got %+v", got)
	}
	if got := schema.InvalidError([]schema.Fault{schema.NewFault("id", schema.FaultIDReused)}); got.Code != "ID_REUSED" {
		t.Errorf("reused id: got %+v", got)
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	if got := (&schema.Error{Code: "A"}).Error(); got != "A" {
		t.Errorf("got %q", got)
	}
	if got := (&schema.Error{Code: "A", Description: "b"}).Error(); got != "A: b" {
		t.Errorf("got %q", got)
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		n    int
		want string
	}{
		{"", 0, ""}, {"abc", 3, "abc"}, {"abc", 2, "ab"}, {"яяя", 2, "яя"}, {"яяя", 3, "яяя"}, {"яяя", 0, ""},
	} {
		if got := schema.CutForTest(tt.text, tt.n); got != tt.want {
			t.Errorf("%q to %d: got %q, want %q", tt.text, tt.n, got, tt.want)
		}
	}
}
