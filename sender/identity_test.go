package sender_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// bySeq returns the final event of the command with this sequence.
func (r *rig) bySeq(seq uint64) schema.CommandEvent {
	r.t.Helper()
	var found schema.CommandEvent
	r.wait(fmt.Sprintf("the end of command %d", seq), func(all []schema.CommandEvent) bool {
		i := slices.IndexFunc(all, func(e schema.CommandEvent) bool { return e.Seq == seq && e.State.Final() })
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	const body = `{"id":"a","chatType":"whatsapp","chatId":"79998887766","text":"one"}`
	type step struct {
		kind  schema.Kind
		body  string
		msgID string
		state schema.State
		code  string
	}
	tests := []struct {
		name     string
		steps    []step
		requests int
	}{
		{"same again", []step{
			{schema.KindSend, body, "", schema.StateSent, ""},
			{schema.KindSend, body, "", schema.StateDuplicate, ""},
		}, 1},
		{"same value, other spelling", []step{
			{schema.KindSend, body, "", schema.StateSent, ""},
			{schema.KindSend, ` {"text": "on\u0065", "chatId":"79998887766","chatType":"whatsapp","id":"a"}`, "", schema.StateDuplicate, ""},
		}, 1},
		{"other body", []step{
			{schema.KindSend, body, "", schema.StateSent, ""},
			{schema.KindSend, strings.Replace(body, "one", "two", 1), "", schema.StateInvalid, "ID_REUSED"},
			{schema.KindSend, body, "", schema.StateDuplicate, ""},
		}, 1},
		{"other kind", []step{
			{schema.KindSend, body, "", schema.StateSent, ""},
			{schema.KindBulk, body, "", schema.StateInvalid, "ID_REUSED"},
		}, 1},
		{"invalid leaves the id free", []step{
			{schema.KindSend, strings.Replace(body, "one", " ", 1), "", schema.StateInvalid, "INVALID"},
			{schema.KindSend, body, "", schema.StateSent, ""},
			{schema.KindSend, strings.Replace(body, "one", " ", 1), "", schema.StateInvalid, "INVALID"},
			{schema.KindSend, body, "", schema.StateDuplicate, ""},
		}, 1},
		{"id from the header", []step{
			{schema.KindSend, strings.Replace(body, `"id":"a",`, "", 1), "h", schema.StateSent, ""},
			{schema.KindSend, strings.Replace(body, `"id":"a",`, "", 1), "h", schema.StateDuplicate, ""},
		}, 1},
		{"no id at all", []step{
			{schema.KindSend, strings.Replace(body, `"id":"a",`, "", 1), "", schema.StateSent, ""},
			{schema.KindSend, strings.Replace(body, `"id":"a",`, "", 1), "", schema.StateSent, ""},
		}, 2},
		{"expired uses the id up", []step{
			{schema.KindSend, strings.Replace(body, `"id"`, `"expireAt":"2020-01-01T00:00:00Z","id"`, 1), "", schema.StateExpired, ""},
			{schema.KindSend, strings.Replace(body, `"id"`, `"expireAt":"2020-01-01T00:00:00Z","id"`, 1), "", schema.StateDuplicate, ""},
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.start(r.config())
			for i, s := range tt.steps {
				var opts []queue.PublishOption
				if s.msgID != "" {
					opts = append(opts, queue.WithID(s.msgID))
				}
				seq := uint64(i) + 1
				// The stream's own window would swallow a header id that comes
				// again within it, so each waits for the end of the one before.
				r.publish(s.kind, "", s.body, opts...)
				e := r.bySeq(seq)
				code := ""
				if e.Error != nil {
					code = e.Error.Code
				}
				if e.State != s.state || code != s.code {
					t.Errorf("step %d: got %s %s, want %s %s", i, e.State, code, s.state, s.code)
				}
				if e.State == schema.StateDuplicate && (e.Original == nil || e.Original.Seq == 0 || e.Original.Seq >= seq || !e.Original.State.Final()) {
					t.Errorf("step %d: original: got %+v", i, e.Original)
				}
				if s.msgID != "" {
					<-time.After(150 * time.Millisecond) // the stream's duplicate window passes
				}
			}
			if n := len(r.sim.Sends()); n != tt.requests {
				t.Errorf("the vendor got %d requests, want %d", n, tt.requests)
			}
			r.emptied()
		})
	}
}

func TestOrderWithinAChat(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const chats, each = 20, 10
	// Some messages are first refused for the moment, so that their chats wait.
	for chat := range chats {
		if err := r.sim.AddRule(simulator.Rule{
			Match:  simulator.Match{ChatID: fmt.Sprintf("7900000%04d", chat), Text: fmt.Sprintf("m-%d", chat%each)},
			Status: 400, Code: "MESSAGE_DOWNLOAD_CONTENT_ERROR", Times: 2,
		}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range each {
		for chat := range chats {
			r.send(fmt.Sprintf("c%d-%d", chat, i), fmt.Sprintf("7900000%04d", chat), fmt.Sprintf("m-%d", i))
		}
	}
	r.start(r.config())
	for _, e := range r.finals(chats * each) {
		if e.State != schema.StateSent {
			t.Fatalf("%s ended %s", e.ID, e.State)
		}
	}
	next := make(map[string]int)
	for _, s := range r.sim.Sends() {
		if s.MessageID == "" {
			continue // refused for the moment
		}
		if want := fmt.Sprintf("m-%d", next[s.ChatID]); s.Text != want {
			t.Errorf("chat %s got %s, want %s", s.ChatID, s.Text, want)
		}
		next[s.ChatID]++
	}
	r.emptied()
}

func TestScheduledIsSentThenAndOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	r.channelsRead() // the worker is up
	at := time.Now().Add(2 * time.Second)
	body := fmt.Sprintf(`{"id":"later","chatType":"whatsapp","chatId":%q,"text":"x","sendAt":%q}`, phone, at.Format(time.RFC3339Nano))
	r.publish(schema.KindSend, "later", body)
	r.emptied() // it waits in the deferred stream
	r.publish(schema.KindSend, "later", body)
	if e := r.bySeq(2); e.State != schema.StateDuplicate {
		t.Errorf("second copy: got %s, want duplicate", e.State)
	}
	if e := r.bySeq(1); e.State != schema.StateSent {
		t.Errorf("got %s, want sent", e.State)
	}
	sends := r.sim.Sends()
	if len(sends) != 1 {
		t.Fatalf("the vendor got %d requests, want 1", len(sends))
	}
	if early := at.Sub(sends[0].Time); early > 0 {
		t.Errorf("sent %v early", early)
	}
}

func TestReplyTo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	inbox := r.nc.NewInbox()
	sub, err := r.nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	r.publish(schema.KindSend, "a", `{"id":"a","chatType":"whatsapp","chatId":"79998887766","text":"x"}`, queue.WithReplyTo(inbox))
	m, err := sub.NextMsgWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := schematest.Reply(schema.CommandEventSubject("main", schema.StateSent, schema.KindSend, simulator.ChannelWhatsApp), m.Header, m.Data); err != nil {
		t.Error(err)
	}
	if got := m.Header.Get(schema.HeaderCEType); got != "wazzup.command.sent" {
		t.Errorf("ce-type: got %q, want wazzup.command.sent", got)
	}
	for _, subject := range []string{"wazzup.main.cmd.send.x", "_INBOX.*", "_INBOX.>", "$JS.API.STREAM.DELETE.x", "_INBOX"} {
		id := "bad " + subject
		r.publish(schema.KindSend, id, fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":"79998887766","text":"x"}`, id), queue.WithReplyTo(subject))
		if e := r.event(id, schema.StateInvalid); len(e.Error.Faults) != 1 || e.Error.Faults[0].Field != schema.HeaderReplyTo {
			t.Errorf("reply to %q: got faults %+v", subject, e.Error.Faults)
		}
	}
}

// A producer's typo must not vanish: no stream takes the subject.
func TestUnknownSubjectsMeetNoStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, subject := range []string{
		"wazzup.other.cmd.send." + simulator.ChannelWhatsApp, "wazzup.main.cmd.sned." + simulator.ChannelWhatsApp,
		"wazzup.main.cmd.send", "wazzup.main.cmd.sync.contacts.replace", "wazzup.main.cmd.sync.users",
	} {
		if _, err := r.nc.Request(subject, []byte("{}"), time.Second); err != nats.ErrNoResponders { //nolint:errorlint // exactly this one
			t.Errorf("%s: got %v, want no responders", subject, err)
		}
	}
}

func TestSync(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	sync := func(e schema.Entity, v schema.Verb, items any) {
		t.Helper()
		if _, err := r.pub.Sync(t.Context(), e, v, items); err != nil {
			t.Fatal(err)
		}
	}
	many := make([]map[string]any, 250)
	for i := range many {
		many[i] = map[string]any{"id": i, "name": fmt.Sprint("n", i)}
	}
	sync(schema.EntityContacts, schema.VerbUpsert, many)                          // 1: three requests
	sync(schema.EntityContacts, schema.VerbDelete, []any{1, "2", "not there"})    // 2: numbers, strings, absent
	sync(schema.EntityContacts, schema.VerbUpsert, map[string]any{"id": "a/b c"}) // 3: an id that a path must encode
	sync(schema.EntityContacts, schema.VerbDelete, map[string]any{"id": "a/b c"}) // 4
	sync(schema.EntityUsers, schema.VerbUpsert, map[string]any{"id": "u1", "name": "A"})
	sync(schema.EntityUsers, schema.VerbReplace, []any{map[string]any{"id": "u2", "name": "B"}})
	sync(schema.EntityDeals, schema.VerbUpsert, map[string]any{"id": 5, "name": "D", "closed": false, "extra": []int{1}})
	sync(schema.EntityContacts, schema.VerbUpsert, []any{}) // 8: nothing to do is a mistake
	for seq := uint64(1); seq <= 7; seq++ {
		if e := r.bySeq(seq); e.State != schema.StateDone {
			t.Errorf("command %d (%s): got %s %+v, want done", seq, e.Kind, e.State, e.Error)
		}
	}
	if e := r.bySeq(8); e.State != schema.StateInvalid {
		t.Errorf("empty upsert: got %s, want invalid", e.State)
	}
	if n := len(r.sim.Contacts()); n != 248 {
		t.Errorf("%d contacts, want 248", n)
	}
	if users := r.sim.Users(); len(users) != 1 || !strings.Contains(string(users[0]), "u2") {
		t.Errorf("users after the replace: %s", users)
	}
	if deals := r.sim.Deals(); len(deals) != 1 || !strings.Contains(string(deals[0]), "extra") {
		t.Errorf("deals: got %s, want the unknown field kept", deals)
	}
	r.emptied()
}

// A lease that is lost, for whatever reason, is taken again, and work goes on.
func TestLostLeaseIsTakenAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	r.states(r.send("before", phone, "x"))
	for i := range 2 {
		r.loseLease()
		id := fmt.Sprint("after-", i)
		if got := r.states(r.send(id, phone, "x")); len(got) != 1 || got[0] != schema.StateSent {
			t.Errorf("%s: got %v, want only sent", id, got)
		}
	}
}
