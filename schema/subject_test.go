package schema_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

func TestCommandSubjects(t *testing.T) {
	t.Parallel()
	want := []string{
		"wazzup.main.cmd.send.*",
		"wazzup.main.cmd.bulk.*",
		"wazzup.main.cmd.sync.users.upsert",
		"wazzup.main.cmd.sync.users.replace",
		"wazzup.main.cmd.sync.users.delete",
		"wazzup.main.cmd.sync.contacts.upsert",
		"wazzup.main.cmd.sync.contacts.delete",
		"wazzup.main.cmd.sync.deals.upsert",
		"wazzup.main.cmd.sync.deals.delete",
	}
	if got := schema.CommandSubjects("main"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseCommandSubject(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]struct {
		kind    schema.Kind
		channel string
	}{
		"wazzup.main.cmd.send." + channel:        {schema.KindSend, channel},
		"wazzup.main.cmd.bulk.x":                 {schema.KindBulk, "x"},
		"wazzup.main.cmd.sync.users.upsert":      {schema.KindUsersUpsert, ""},
		"wazzup.main.cmd.sync.users.replace":     {schema.KindUsersReplace, ""},
		"wazzup.main.cmd.sync.deals.delete":      {schema.KindDealsDelete, ""},
		"wazzup.main.cmd.sync.contacts.replace":  {},
		"wazzup.main.cmd.sync.users":             {},
		"wazzup.main.cmd.sync.users.upsert.more": {},
		"wazzup.main.cmd.sync.users-upsert":      {},
		"wazzup.main.cmd.send":                   {},
		"wazzup.main.cmd.send.a.b":               {},
		"wazzup.main.cmd.fax.a":                  {},
		"wazzup.other.cmd.send.a":                {},
		"wazzup.main.evt.ops.lane.closed":        {},
		"":                                       {},
	} {
		kind, token, ok := schema.ParseCommandSubject("main", subject)
		if kind != want.kind || token != want.channel || ok != (want.kind != "") {
			t.Errorf("%s: got %q, %q, %v", subject, kind, token, ok)
		}
	}
}

func TestCommandSubjectIsParsedBack(t *testing.T) {
	t.Parallel()
	for _, kind := range schema.Kinds() {
		got, token, ok := schema.ParseCommandSubject("main", schema.CommandSubject("main", kind, channel))
		if got != kind || token != channelOf(kind) || !ok {
			t.Errorf("%s: got %q, %q, %v", kind, got, token, ok)
		}
	}
}

func TestKindsSplitAndJoin(t *testing.T) {
	t.Parallel()
	joined := 0
	for _, e := range schema.Entities() {
		for _, v := range []schema.Verb{schema.VerbUpsert, schema.VerbReplace, schema.VerbDelete} {
			kind := schema.SyncKind(e, v)
			if kind == "" {
				if v != schema.VerbReplace || e == schema.EntityUsers {
					t.Errorf("%s %s: no kind", e, v)
				}
				continue
			}
			joined++
			if gotE, gotV, ok := kind.Sync(); gotE != e || gotV != v || !ok || kind.IsMessage() {
				t.Errorf("%s: got %s, %s, %v", kind, gotE, gotV, ok)
			}
		}
	}
	if got := len(schema.Kinds()); got != joined+2 {
		t.Errorf("got %d kinds, want %d", got, joined+2)
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	var final []schema.State
	for _, s := range schema.States() {
		if s.Final() {
			final = append(final, s)
		}
	}
	want := []schema.State{"sent", "done", "rejected", "invalid", "duplicate", "expired", "cancelled", "dead"}
	if !slices.Equal(final, want) {
		t.Errorf("got %q, want %q", final, want)
	}
	if schema.StatePending.Final() {
		t.Error("pending is final")
	}
}

// Whatever the vendor sends, an event's subject has the tokens that consumers
// count on and can be published to.
func TestEventSubjectsHoldAnyText(t *testing.T) {
	t.Parallel()
	subject := regexp.MustCompile(`^[A-Za-z0-9_~-]+(\.[A-Za-z0-9_~-]+)*$`)
	for _, text := range []string{"", ".", "*", ">", "a.b", "a b", "\r\n", "Иван", "\xff", strings.Repeat("x", 1000)} {
		for got, tokens := range map[string]int{
			schema.MessageEventSubject("main", "in", text, text, text): 8,
			schema.ChannelEventSubject("main", text, text):             6,
			schema.CounterEventSubject("main", text):                   5,
		} {
			if !subject.MatchString(got) || strings.Count(got, ".")+1 != tokens {
				t.Errorf("%q: got %q", text, got)
			}
		}
	}
}

func TestEventSubjects(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		schema.CommandEventSubject("main", schema.StateSent, schema.KindSend, channel):      "wazzup.main.evt.command.sent.send." + channel,
		schema.CommandEventSubject("main", schema.StateDone, schema.KindContactsUpsert, ""): "wazzup.main.evt.command.done.contacts-upsert.-",
		schema.MessageEventSubject("main", "out", channel, "whatsapp", "79998887766"):       "wazzup.main.evt.message.out." + channel + ".whatsapp.79998887766",
		schema.StatusEventSubject("main", "read"):                                           "wazzup.main.evt.status.read",
		schema.ChannelEventSubject("main", channel, "active"):                               "wazzup.main.evt.channel." + channel + ".active",
		schema.ChannelsEventSubject("main"):                                                 "wazzup.main.evt.channels",
		schema.CounterEventSubject("main", "5"):                                             "wazzup.main.evt.counter.5",
		schema.QuarantineEventSubject("main", schema.QuarantineNotJSON):                     "wazzup.main.evt.quarantine.not-json",
		schema.OpsEventSubject("main", schema.OpsLaneClosed):                                "wazzup.main.evt.ops.lane.closed",
		schema.EventSubjects("main"):                                                        "wazzup.main.evt.>",
		schema.APISubject("main", "command.get"):                                            "wazzup.main.api.command.get",
		schema.CloudEventSource("main"):                                                     "/wazzup/main",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestValidAccount(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"main": true, "a-1": true, strings.Repeat("a", 32): true,
		strings.Repeat("a", 33): false, "": false, "Main": false, "a.b": false, "a_b": false, "я": false, "*": false,
	} {
		if got := schema.ValidAccount(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}
