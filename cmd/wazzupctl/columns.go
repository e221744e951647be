package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// columnKind is what a column of a CSV file becomes.
type columnKind int

const (
	columnText     columnKind = iota // a field of the column's name
	columnID                         // the same, perhaps a number
	columnIDs                        // an array of ids
	columnFlag                       // true or false
	columnChatType                   // of a chat
	columnChatID                     // of the same chat
)

// column is one column of a CSV file.
type column struct {
	name string
	kind columnKind
	chat string // what follows chatType and chatId: "", "2", …
}

// columnsOf reads the header; the error names every fault.
func columnsOf(header []string, form rowForm) ([]column, error) {
	columns := make([]column, len(header))
	seen := make(map[string]bool)
	var faults []error
	for i, name := range header {
		name = strings.TrimSpace(name)
		if name == "" {
			faults = append(faults, fmt.Errorf("column %d has no name", i+1))
		} else if seen[name] {
			faults = append(faults, fmt.Errorf("the column %s is there twice", plain(name)))
		}
		seen[name] = true
		columns[i] = columnOf(name, form.entity)
		if form.ids && name != "id" {
			faults = append(faults, fmt.Errorf("the column %s means nothing to a delete, which reads id alone", plain(name)))
		}
	}
	if !seen["id"] {
		faults = append(faults, errors.New("there is no column id: the first line must name the fields"))
	}
	for _, c := range columns {
		if c.kind == columnChatType && !seen["chatId"+c.chat] || c.kind == columnChatID && !seen["chatType"+c.chat] {
			faults = append(faults, fmt.Errorf("chatType%s and chatId%s belong together", c.chat, c.chat))
		}
	}
	return columns, errors.Join(faults...)
}

func columnOf(name string, e schema.Entity) column {
	c := column{name: name}
	switch {
	case name == "id" || name == "responsibleUserId":
		c.kind = columnID
	case e == schema.EntityContacts && name == "deals", e == schema.EntityDeals && name == "contacts":
		c.kind = columnIDs
	case e == schema.EntityDeals && name == "closed":
		c.kind = columnFlag
	case e == schema.EntityContacts:
		for prefix, kind := range map[string]columnKind{"chatType": columnChatType, "chatId": columnChatID} {
			number, ok := strings.CutPrefix(name, prefix)
			if ok && strings.Trim(number, "0123456789") == "" {
				c.kind, c.chat = kind, number
			}
		}
	}
	return c
}

// chat is one of a contact's accounts in messengers.
type chat struct {
	ChatType string `json:"chatType"`
	ChatID   string `json:"chatId"`
}

// itemOf makes the vendor's object of a record; of a delete, the id.
func itemOf(record []string, columns []column, form rowForm) (json.RawMessage, error) {
	fields := make(map[string]any, len(columns))
	chats := make(map[string]*chat)
	for i, c := range columns {
		text := record[i]
		if strings.TrimSpace(text) == "" {
			continue
		}
		switch c.kind {
		case columnText:
			fields[c.name] = text
		case columnID:
			fields[c.name] = idValue(strings.TrimSpace(text), form.numbers)
		case columnIDs:
			fields[c.name] = idValues(text, form.numbers)
		case columnFlag:
			flag, err := strconv.ParseBool(strings.ToLower(strings.TrimSpace(text)))
			if err != nil {
				return nil, fmt.Errorf("%s: must be true or false", c.name)
			}
			fields[c.name] = flag
		case columnChatType, columnChatID:
			one := chats[c.chat]
			if one == nil {
				one = &chat{}
				chats[c.chat] = one
			}
			if c.kind == columnChatType {
				one.ChatType = strings.TrimSpace(text)
			} else {
				one.ChatID = strings.TrimSpace(text)
			}
		}
	}
	if fields["id"] == nil {
		return nil, errors.New("id: is missing")
	}
	if form.ids {
		return json.Marshal(fields["id"])
	}
	if len(chats) > 0 {
		list, err := chatList(chats)
		if err != nil {
			return nil, err
		}
		fields["chats"] = list
	}
	return json.Marshal(fields)
}

// chatList puts the chats in the order of their columns' numbers.
func chatList(chats map[string]*chat) ([]*chat, error) {
	numbers := make([]string, 0, len(chats))
	for number, one := range chats {
		if one.ChatType == "" || one.ChatID == "" {
			return nil, fmt.Errorf("chatType%s and chatId%s: one of them is missing", number, number)
		}
		numbers = append(numbers, number)
	}
	slices.SortFunc(numbers, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	list := make([]*chat, len(numbers))
	for i, number := range numbers {
		list[i] = chats[number]
	}
	return list, nil
}

func idValue(text string, number bool) any {
	if number && wholeNumber(text) {
		return json.Number(text)
	}
	return text
}

// wholeNumber reports whether a text is a number as JSON writes it, without a sign.
func wholeNumber(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == "" && (text[0] != '0' || text == "0")
}

func idValues(text string, number bool) []any {
	values := []any{}
	for one := range strings.SplitSeq(text, ";") {
		if one = strings.TrimSpace(one); one != "" {
			values = append(values, idValue(one, number))
		}
	}
	return values
}

// idLines are ids of the command line as NDJSON.
func idLines(ids []string) string {
	var b strings.Builder
	for _, id := range ids {
		quoted, err := json.Marshal(id)
		if err != nil {
			continue // a string always is JSON
		}
		b.Write(quoted)
		b.WriteByte('\n')
	}
	return b.String()
}
