package sender_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// told is what a request did, in a line: `PATCH contacts 1=a,2` or `DELETE users/1`.
// An item is its id as it came, and its name; more than five are counted.
func told(t *testing.T, q simulator.Request) string {
	t.Helper()
	line := q.Method + " " + strings.TrimPrefix(q.Path, "/v2/")
	if len(q.Body) == 0 {
		return line
	}
	var items []struct {
		ID   json.RawMessage
		Name string
	}
	if err := json.Unmarshal(q.Body, &items); err != nil {
		t.Fatal(err)
	}
	if len(items) > 5 {
		return fmt.Sprintf("%s (%d)", line, len(items))
	}
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = string(item.ID)
		if item.Name != "" {
			words[i] += "=" + item.Name
		}
	}
	return line + " " + strings.Join(words, ",")
}

// ending is how a command ended, in a line: its state, the command that took its
// place, the refused ids, and the error's code.
func ending(e *schema.CommandEvent) string {
	words := []string{string(e.State)}
	if e.SupersededBy != "" {
		words = append(words, "by "+e.SupersededBy)
	}
	for _, item := range e.Items {
		words = append(words, string(item.ID))
	}
	if e.Error != nil {
		words = append(words, e.Error.Code)
	}
	return strings.Join(words, " ")
}

// numberedIDs are upserts of so many entities, the first with this id.
func numberedIDs(from, n int) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(`{"id":%d,"name":"n"}`, from+i)
	}
	return "[" + strings.Join(items, ",") + "]"
}

// TestSyncRequests: what stands in the lane when a worker begins, the requests that
// it makes of it, and how each command ends. The commands' ids are c1, c2, and so on.
func TestSyncRequests(t *testing.T) {
	t.Parallel()
	const (
		bad  = `"chats":[{"chatType":"whatsapp"}]` // no chatId: the vendor refuses it
		long = 400
	)
	text := strings.Repeat("x", long)
	tests := []struct {
		name     string
		entity   schema.Entity // "" = contacts
		vendor   simulator.Config
		rules    []simulator.Rule
		commands []string // verb and body
		requests []string
		together bool // requests may be under way together, in any order
		ends     []string
	}{
		{
			name:     "different entities share a request",
			commands: []string{`upsert {"id":1,"name":"a"}`, `upsert [{"id":2,"name":"b"},{"id":"x","name":"c"}]`},
			requests: []string{`PATCH contacts 1=a,2=b,"x"=c`},
			ends:     []string{"done", "done"},
		},
		{
			name:     "the newer has all fields of the older",
			commands: []string{`upsert {"id":1,"name":"a"}`, `upsert {"id":1,"name":"b","phone":"1"}`},
			requests: []string{"PATCH contacts 1=b"},
			ends:     []string{"done by c2", "done"},
		},
		{
			name:     "it lacks one",
			commands: []string{`upsert {"id":1,"name":"a","phone":"1"}`, `upsert {"id":1,"name":"b"}`},
			requests: []string{"PATCH contacts 1=a", "PATCH contacts 1=b"},
			ends:     []string{"done", "done"},
		},
		{
			name:     "the last of several, some of which lack one",
			commands: []string{`upsert {"id":1,"name":"a"}`, `upsert {"id":1,"name":"b"}`, `upsert {"id":1,"phone":"1"}`, `upsert {"id":1,"name":"d","phone":"2"}`},
			requests: []string{"PATCH contacts 1=b", "PATCH contacts 1=d"},
			ends:     []string{"done by c2", "done", "done by c4", "done"},
		},
		{
			name:     "a field's name is its text, however it is written",
			commands: []string{`upsert {"id":1,"name":"a"}`, `upsert {"id":1,"\u006eame":"b"}`},
			requests: []string{"PATCH contacts 1=b"},
			ends:     []string{"done by c2", "done"},
		},
		{
			name:     "a number and its text are one id, sent as it came last",
			commands: []string{`upsert {"id":17,"name":"a"}`, `upsert {"id":"17","name":"b"}`},
			requests: []string{`PATCH contacts "17"=b`},
			ends:     []string{"done by c2", "done"},
		},
		{
			name:     "some of a command's entities are superseded",
			commands: []string{`upsert [{"id":1,"name":"a"},{"id":2,"name":"a"}]`, `upsert {"id":1,"name":"b"}`},
			requests: []string{"PATCH contacts 1=b,2=a"},
			ends:     []string{"done", "done"},
		},
		{
			name:     "all of them, by several",
			commands: []string{`upsert [{"id":1,"name":"a"},{"id":2,"name":"a"}]`, `upsert {"id":2,"name":"b"}`, `upsert {"id":1,"name":"c"}`},
			requests: []string{"PATCH contacts 1=c,2=b"},
			ends:     []string{"done by c3", "done", "done"},
		},
		{
			name:     "an entity twice in a command",
			commands: []string{`upsert [{"id":1,"name":"a"},{"id":1,"phone":"1"},{"id":2,"name":"a"},{"id":2,"name":"b"}]`},
			requests: []string{"PATCH contacts 1=a", "PATCH contacts 1,2=b"},
			ends:     []string{"done"},
		},
		{
			name:     "upsert, delete, upsert",
			commands: []string{`upsert {"id":1,"name":"a"}`, `delete [1]`, `upsert {"id":1,"phone":"1"}`},
			requests: []string{"PATCH contacts 1=a", "DELETE contacts/1", "PATCH contacts 1"},
			ends:     []string{"done", "done", "done"},
		},
		{
			name: "a replace is a barrier", entity: schema.EntityUsers,
			commands: []string{`upsert {"id":1,"name":"a"}`, `upsert {"id":2,"name":"b"}`, `replace [{"id":3,"name":"c"}]`, `upsert {"id":1,"name":"d"}`, `replace []`, `upsert {"id":4,"name":"e"}`},
			requests: []string{"PATCH users 1=a,2=b", "PUT users 3=c", "PATCH users 1=d", "PUT users ", "PATCH users 4=e"},
			ends:     []string{"done", "done", "done", "done", "done", "done"},
		},
		{
			name: "a replace is never split", entity: schema.EntityUsers, // this vendor takes a hundred
			commands: []string{"replace " + numberedIDs(1, 101)},
			requests: []string{"PUT users (101)"},
			ends:     []string{"rejected VALIDATION_ERROR"},
		},
		{
			name:     "more than a request holds",
			commands: []string{"upsert " + numberedIDs(1, 250), "upsert " + numberedIDs(1001, 50), "upsert " + numberedIDs(2001, 1)},
			together: true,
			requests: []string{"PATCH contacts (100)", "PATCH contacts (100)", "PATCH contacts (50)", "PATCH contacts (51)"},
			ends:     []string{"done", "done", "done"},
		},
		{
			name:     "a bad one among others",
			commands: []string{`upsert {"id":1,"name":"a"}`, `upsert [{"id":2,"name":"b"},{"id":"bad","name":"c",` + bad + `}]`, `upsert {"id":4,"name":"d"}`},
			requests: []string{
				`PATCH contacts 1=a,2=b,"bad"=c,4=d`, "PATCH contacts 1=a,2=b", `PATCH contacts "bad"=c,4=d`, `PATCH contacts "bad"=c`, "PATCH contacts 4=d",
			},
			ends: []string{"done", `rejected "bad" VALIDATION_ERROR`, "done"},
		},
		{
			name:     "the newest is refused: the one before it has its turn",
			commands: []string{`upsert {"id":1,"name":"a"}`, `upsert {"id":1,"name":"b"}`, `upsert {"id":1,"name":"c",` + bad + `}`},
			requests: []string{"PATCH contacts 1=c", "PATCH contacts 1=b"},
			ends:     []string{"done by c2", "done", "rejected 1 VALIDATION_ERROR"},
		},
		{
			name: "a body that is too large", vendor: simulator.Config{MaxBody: 2*long + 100},
			commands: []string{
				`upsert {"id":1,"name":"a","x":"` + text + `"}`, `upsert {"id":2,"name":"b","x":"` + text + `"}`,
				`upsert {"id":3,"name":"c","x":"` + text + text + text + `"}`, `upsert {"id":4,"name":"d","x":"` + text + `"}`,
			},
			requests: nil, // by halves, until they fit
			ends:     []string{"done", "done", "rejected 3 HTTP_413", "done"},
		},
		{
			name:     "a route that is refused is not tried with less",
			rules:    []simulator.Rule{{Status: 403}},
			commands: []string{`upsert {"id":1,"name":"a"}`, `upsert {"id":1,"name":"b"}`, `upsert {"id":2,"name":"c"}`},
			requests: []string{"PATCH contacts 1=b,2=c"},
			ends:     []string{"rejected HTTP_403", "rejected HTTP_403", "rejected HTTP_403"},
		},
		{
			name:     "one delete of several is refused",
			rules:    []simulator.Rule{{Match: simulator.Match{Path: "/v2/contacts/2"}, Code: "VALIDATION_ERROR"}},
			commands: []string{`delete [1,2,"3"]`},
			together: true,
			requests: []string{"DELETE contacts/1", "DELETE contacts/2", "DELETE contacts/3"},
			ends:     []string{"rejected 2 VALIDATION_ERROR"},
		},
		{
			name: "one request of several is refused whatever its items: the others were taken",
			rules: []simulator.Rule{
				{Match: simulator.Match{Path: "/v2/contacts/1"}, Status: 403},
				{Match: simulator.Match{Path: "/v2/contacts/2"}, Code: "VALIDATION_ERROR"},
			},
			commands: []string{`delete [1,2,3]`, `delete [1,3]`, `delete [1]`},
			together: true,
			requests: []string{
				"DELETE contacts/1", "DELETE contacts/1", "DELETE contacts/1", "DELETE contacts/2", "DELETE contacts/3", "DELETE contacts/3",
			},
			ends: []string{"rejected 1 2 HTTP_403", "rejected 1 HTTP_403", "rejected HTTP_403"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRigOf(t, tt.vendor)
			for _, rule := range tt.rules {
				if rule.Match.Path == "" {
					rule.Match.Path = "/v2/contacts*"
				}
				r.rule(rule)
			}
			entity := tt.entity
			if entity == "" {
				entity = schema.EntityContacts
			}
			for i, command := range tt.commands {
				verb, body, _ := strings.Cut(command, " ")
				r.sync(entity, schema.Verb(verb), json.RawMessage(body), queue.WithID(fmt.Sprint("c", i+1)))
			}
			cfg := r.config()
			cfg.SyncGather, cfg.MaxAttempts = 250*time.Millisecond, 1 // bisecting spends none
			r.start(cfg)
			for i, want := range tt.ends {
				e := r.bySeq(uint64(i) + 1)
				if got := ending(&e); got != want {
					t.Errorf("c%d: got %s, want %s", i+1, got, want)
				}
			}
			var requests []string
			for _, q := range r.writes() {
				requests = append(requests, told(t, q))
			}
			if tt.together {
				slices.Sort(requests)
			}
			if tt.requests != nil && !slices.Equal(requests, tt.requests) {
				t.Errorf("requests:\ngot  %s\nwant %s", strings.Join(requests, " | "), strings.Join(tt.requests, " | "))
			}
			r.emptied()
			r.once()
		})
	}
}
