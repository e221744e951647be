package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

// toolEntities lists, gets, changes and deletes.
func toolEntities(t *testing.T, s *system) {
	t.Helper()
	s.ctl(t, "deals", "list").want(t, 0, "no deals")
	dir := t.TempDir()
	file := filepath.Join(dir, "deals.csv")
	var b strings.Builder
	b.WriteString("id;name;closed;contacts\n")
	for i := range 250 {
		fmt.Fprintf(&b, "deal-%03d;Сделка %d;%t;\"17;18\"\n", i, i, i%2 == 0)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s.ctl(t, "deals", "upsert", file).want(t, 0, "250 read, 250 stored, 250 done, 0 refused")
	s.ctl(t, "deals", "list").want(t, 0, "deal-000", "deal-249", "Сделка 249", "closed", "contacts 17,18")
	got := s.ctl(t, "deals", "list", "--order-by", "id", "--desc", "--limit", "120", "--json").want(t, 0)
	if all := lines(got.stdout); len(all) != 120 || all[0]["id"] != "deal-249" || all[119]["id"] != "deal-130" {
		t.Errorf("it printed %s", got.stdout)
	}
	// What list prints, upsert reads.
	got = s.ctl(t, "deals", "list", "--json").want(t, 0)
	ctl(t, s.env, got.stdout, "deals", "upsert", "-", "--json").want(t, 0, `{"items":250,"stored":250,"done":250,"refused":0}`)
	s.ctl(t, "deals", "get", "deal-007").want(t, 0, "deal-007", "Сделка 7")
	one := s.ctl(t, "deals", "get", "deal-007", "--json").want(t, 0)
	var deal map[string]any
	if err := json.Unmarshal([]byte(one.stdout), &deal); err != nil || deal["closed"] != false || deal["id"] != "deal-007" {
		t.Errorf("it printed %s", one.stdout)
	}
	s.ctl(t, "deals", "get", "deal-777").want(t, 1, "404")
	s.ctl(t, "deals", "list", "--order-by", "closed").want(t, 1, "orderBy", "400")
	s.ctl(t, "deals", "delete", "deal-007", "deal-008", "never-there").want(t, 0, "3 read, 3 stored, 3 done, 0 refused")
	ctl(t, s.env, "{\"id\":\"deal-009\"}\n\"deal-010\"\n{\"id\":\"deal-011\",\"name\":\"x\"}\n\".\"\n", "deals", "delete", "--file", "-").
		want(t, 1, "line 3", "name: there is no such field", "line 4", "4 read, 2 stored, 2 done, 2 refused")
	got = s.ctl(t, "deals", "list", "--json").want(t, 0)
	if all := lines(got.stdout); len(all) != 246 {
		t.Errorf("%d deals are left, want 246", len(all))
	}
}

// toolBulk: whatever is refused is named by its line, and nothing else is lost.
func toolBulk(t *testing.T, s *system) {
	t.Helper()
	file := "id,name,chatType,chatId\n" +
		"1,Anna,whatsapp,79998887766\n" +
		"2,Boris,whatsapp\n" +
		",Carl,,\n" +
		"1,Anna again,whatsapp,79998887766\n" +
		strings.Repeat("x", 257) + ",Too long,,\n" +
		"5,Dora,,\n"
	got := ctl(t, s.env, file, "contacts", "upsert", "-").want(t, 1,
		"line 3  invalid  INVALID: has 3 fields", "line 4  invalid  INVALID: id: is missing", "line 6 ", "TOO_LONG: id: ",
		"6 read, 3 stored, 3 done, 3 refused", "3 of 6 items were refused")
	if strings.Contains(got.text, "Anna") {
		t.Errorf("it shows a name:\n%s", got.text)
	}
	s.ctl(t, "contacts", "get", "1", "--json").want(t, 0, "Anna again")
	s.ctl(t, "contacts", "list").want(t, 0, "whatsapp:79998887766", "Dora")

	// What only Wazzup refuses: a chat without an id.
	rows := `{"id":"a"}` + "\n" + `{"id":"b","chats":[{"chatType":"whatsapp"}]}` + "\n" + `{"id":"c"}` + "\n" + `{"id":"d","name":7}` + "\n"
	got = ctl(t, s.env, rows, "contacts", "upsert", "-", "--batch", "1", "--json").want(t, 1)
	all := lines(got.stdout)
	if len(all) != 3 {
		t.Fatalf("it printed %s", got.stdout)
	}
	byLine := map[any]map[string]any{}
	for _, one := range all[:2] {
		byLine[one["line"]] = one
	}
	if b := byLine[2.0]; b["id"] != "b" || b["state"] != "rejected" || !strings.Contains(fmt.Sprint(b["error"]), "VALIDATION_ERROR") {
		t.Errorf("what Wazzup refused: %s", got.stdout)
	}
	if d := byLine[4.0]; d["id"] != "d" || d["state"] != "invalid" || !strings.Contains(fmt.Sprint(d["error"]), "WRONG_TYPE") {
		t.Errorf("what was faulty: %s", got.stdout)
	}
	if last := all[2]; last["items"] != 4.0 || last["stored"] != 3.0 || last["done"] != 2.0 || last["refused"] != 2.0 {
		t.Errorf("the sums: %s", got.stdout)
	}
	ctl(t, s.env, `{"id":"e"}`, "contacts", "upsert", "-", "--no-wait").want(t, 0, "1 read, 1 stored, 0 done, 0 refused")
	ctl(t, s.env, `{"id":"e"}`, "contacts", "upsert", "-", "--account", "other").want(t, 1, "account other takes no commands")
	ctl(t, s.env, `{"id":"e"}`, "contacts", "upsert", "-", "--account", "other", "--no-wait").
		want(t, 1, "from line 1 on", "account other takes no commands", "NOT_STORED")
	ctl(t, s.env, "", "contacts", "upsert", "-").want(t, 0, "0 read")
}

// toolReplace: a list is replaced as a whole or not at all.
func toolReplace(t *testing.T, s *system) {
	t.Helper()
	ctl(t, s.env, "id,name\n1,A\n2,B\n", "users", "upsert", "-").want(t, 0, "2 done")
	ctl(t, s.env, "id,name\n3,C\n,D\n", "users", "replace", "-").want(t, 1, "line 3", "nothing was stored")
	ctl(t, s.env, "id,name\n3,C\n3,D\n", "users", "replace", "-").want(t, 1, "line 3", "line 2, too")
	ctl(t, s.env, "id,name\n", "users", "replace", "-").want(t, daemon.ExitUsage, "--empty")
	s.ctl(t, "users", "get", "1").want(t, 0, "A")
	ctl(t, s.env, "id,name\n3,C\n", "users", "replace", "-").want(t, 0, "1 read, 1 stored, 1 done")
	got := s.ctl(t, "users", "list", "--json").want(t, 0)
	if all := lines(got.stdout); len(all) != 1 || all[0]["id"] != "3" {
		t.Errorf("it printed %s", got.stdout)
	}
	ctl(t, s.env, "", "users", "replace", "-", "--empty").want(t, 0)
	s.ctl(t, "users", "list").want(t, 0, "no users")
}

func toolChatWindow(t *testing.T, s *system) {
	t.Helper()
	s.ctl(t, "chat-window", "--user", "222555", "--user-name", "User Name", "--chat", "whatsapp:79998887766", "--chat", "vk:a:b", "--active", "vk:a:b").
		want(t, 0, "https://chats.wazzup.example/")
	s.ctl(t, "chat-window", "--user", "222555", "--json").want(t, 0, `{"url":"https://chats.wazzup.example/`)
	ctl(t, s.env, `{"user":{"id":17},"scope":"card","filter":[{"chatType":"telegram","chatId":1}]}`, "chat-window", "-").want(t, 0, "https://")
	s.ctl(t, "chat-window", "--user", "1", "--scope", "card").want(t, 1, "400", "filter")
}

// toolWithoutWorker: what is stored is not given up, and the user is told.
func toolWithoutWorker(t *testing.T, s *system) {
	t.Helper()
	nc, err := nats.Connect(s.where["nats"])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Ensure(t.Context(), js, "idle", queue.Limits{CommandBytes: 1 << 20, RecordBytes: 1 << 20, DeferredBytes: 1 << 20, DeadBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	ctl(t, s.env, "id\n1\n2\n", "contacts", "upsert", "-", "--account", "idle", "--timeout", "200ms").
		want(t, 1, "2 read, 2 stored, 0 done, 0 refused", "1 commands have not", "they are stored and go on")
}
