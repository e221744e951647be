package main_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	main "github.com/wazzup-relay/wazzup-relay/cmd/wazzupctl"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

func TestRows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		entity       schema.Entity
		ids, numbers bool
		in           string
		want         []string
	}{
		{name: "nothing", entity: schema.EntityUsers},
		{name: "objects", entity: schema.EntityUsers, in: "{\"id\":1}\n\n  {\"id\":\"2\"}\r\n", want: []string{`1 {"id":1}`, `3 {"id":"2"}`}},
		{name: "without an end of line", entity: schema.EntityUsers, in: `{"id":1}`, want: []string{`1 {"id":1}`}},
		{name: "an array", entity: schema.EntityUsers, in: "[{\"id\":1},{\"id\":2}]\n{\"id\":3}\n[{\n", want: []string{`1 {"id":1}`, `1 {"id":2}`, `2 {"id":3}`, "3 ! is no JSON: write one value on each line"}},
		{name: "ids", entity: schema.EntityDeals, ids: true, in: "\"a\"\n17\n{\"id\":\"b\"}\n", want: []string{`1 "a"`, `2 17`, `3 {"id":"b"}`}},
		{name: "CSV of ids", entity: schema.EntityDeals, ids: true, in: "id\na\n17\n", want: []string{`2 "a"`, `3 "17"`}},
		{name: "numbers", entity: schema.EntityDeals, numbers: true, in: "id,contacts,responsibleUserId\n17,5;a;007,0\n-1,1.5,\n", want: []string{
			`2 {"contacts":[5,"a","007"],"id":17,"responsibleUserId":0}`, `3 {"contacts":["1.5"],"id":"-1"}`,
		}},
		{name: "texts stay texts", entity: schema.EntityUsers, in: "id,name\n007,1e5\n", want: []string{`2 {"id":"007","name":"1e5"}`}},
		{name: "a mark, quotes and line ends", entity: schema.EntityUsers, in: "\ufeff\"id\",\"name\"\r\n1,\"Anna \"\"A\"\"\nB\"\r\n2,C\r\n", want: []string{
			`2 {"id":"1","name":"Anna \"A\"\nB"}`, `4 {"id":"2","name":"C"}`,
		}},
		{name: "semicolons", entity: schema.EntityUsers, in: "id;name\n1;a,b\n", want: []string{`2 {"id":"1","name":"a,b"}`}},
		{name: "tabs", entity: schema.EntityUsers, in: "id\tname\n1\ta b\n", want: []string{`2 {"id":"1","name":"a b"}`}},
		{name: "chats", entity: schema.EntityContacts, in: "id,chatType10,chatId10,chatType,chatId,chatType2,chatId2,deals\n1,vk,v,whatsapp,79998887766,,,4711;4712\n2,,,,,,,\n3,vk,,,,,,\n", want: []string{
			`2 {"chats":[{"chatType":"whatsapp","chatId":"79998887766"},{"chatType":"vk","chatId":"v"}],"deals":["4711","4712"],"id":"1"}`,
			`3 {"id":"2"}`,
			"4 ! chatType10 and chatId10: one of them is missing",
		}},
		{name: "of users they mean nothing", entity: schema.EntityUsers, in: "id,chatType,deals\n1,a,b\n", want: []string{`2 {"chatType":"a","deals":"b","id":"1"}`}},
		{name: "flags", entity: schema.EntityDeals, in: "id,closed\n1,TRUE\n2,false\n3,\n4,perhaps\n", want: []string{
			`2 {"closed":true,"id":"1"}`, `3 {"closed":false,"id":"2"}`, `4 {"id":"3"}`, "5 ! closed: must be true or false",
		}},
		{name: "faulty lines do no harm to the next", entity: schema.EntityUsers, in: "id,name\n1,a\n2\n3,b,c\n,d\n4,\"e\"f\n5,g\n", want: []string{
			`2 {"id":"1","name":"a"}`, "3 ! has 1 fields, the first line 2", "4 ! has 3 fields, the first line 2", "5 ! id: is missing",
			"6 ! extraneous or missing \" in quoted-field", `7 {"id":"5","name":"g"}`,
		}},
		{name: "a quote that is never closed", entity: schema.EntityUsers, in: "id,name\n1,a\n2,\"b\n3,c\n", want: []string{
			`2 {"id":"1","name":"a"}`, "3 ! extraneous or missing \" in quoted-field",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := main.ReadRows(strings.NewReader(tt.in), "", tt.entity, tt.ids, tt.numbers)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %v\n%q\nwant\n%q", err, got, tt.want)
			}
		})
	}
}

// endless is a file that never ends, and knows how much of it was read.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	e.read += len(p)
	return len(p), nil
}

// However long a line is, no more of it is read than a command could hold.
func TestRowsOfAnySize(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{
		"a line":                      "{\"id\":1}\n{\"id\":\"",
		"a record":                    "id,name\n1,a\n2,",
		"a quote that is not closed":  "id,name\n1,a\n2,\"",
		"a header, and nothing more ": "id,name,",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rest := &endless{}
			got, err := main.ReadRows(io.MultiReader(strings.NewReader(begin), rest), "", schema.EntityUsers, false, false)
			if rest.read > 3*schema.MaxBodySize {
				t.Errorf("%d bytes were read", rest.read)
			}
			if err == nil && (len(got) != 2 || !strings.Contains(got[1], "! is longer than")) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestBar(t *testing.T) {
	t.Parallel()
	for share, want := range map[float64]string{-1: "", 0: "[........................]   0 %  ", 0.5: "[############............]  50 %  ", 1: "[########################] 100 %  "} {
		if got := main.Bar(share); got != want {
			t.Errorf("%v: got %q, want %q", share, got, want)
		}
	}
}

// TestRowsOfThePage: the page's CSV becomes the page's JSON.
func TestRowsOfThePage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```text\n")
	rows, rest, _ := strings.Cut(rest, "```")
	_, rest, _ = strings.Cut(rest, "```json\n")
	object, _, _ := strings.Cut(rest, "```")
	got, err := main.ReadRows(strings.NewReader(rows), "", schema.EntityContacts, false, false)
	if err != nil || len(got) != 1 {
		t.Fatalf("got %q %v", got, err)
	}
	var became, shown any
	if err := errors.Join(json.Unmarshal([]byte("["+strings.TrimPrefix(got[0], "2 ")+"]"), &became), json.Unmarshal([]byte(object), &shown)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(became, shown) {
		t.Errorf("it becomes\n%v\nthe page says\n%v", became, shown)
	}
}

// The progress is drawn in place, and leaves nothing behind.
func TestProgress(t *testing.T) {
	t.Parallel()
	var terminal strings.Builder
	main.DrawReport(&terminal)
	if got, want := terminal.String(), "[############............]  50 %  1 read, 0 stored, 0 done, 0 refused …\r\x1b[K"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
