package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// The three lists that Wazzup keeps in step with a CRM have the same commands;
// each is a type of its own, so that its help speaks of it.
type (
	usersCmd struct {
		List    listCmd[users]   `cmd:"" help:"List all that Wazzup has."`
		Get     getCmd[users]    `cmd:"" help:"Show one."`
		Upsert  upsertCmd[users] `cmd:"" help:"Add and change many, from CSV or NDJSON."`
		Replace replaceCmd       `cmd:"" help:"Make a file the whole list: all others are deleted."`
		Delete  deleteCmd[users] `cmd:"" help:"Delete some, by id."`
	}
	contactsCmd struct {
		List   listCmd[contacts]   `cmd:"" help:"List all that Wazzup has."`
		Get    getCmd[contacts]    `cmd:"" help:"Show one."`
		Upsert upsertCmd[contacts] `cmd:"" help:"Add and change many, from CSV or NDJSON."`
		Delete deleteCmd[contacts] `cmd:"" help:"Delete some, by id."`
	}
	dealsCmd struct {
		List   listCmd[deals]   `cmd:"" help:"List all that Wazzup has."`
		Get    getCmd[deals]    `cmd:"" help:"Show one."`
		Upsert upsertCmd[deals] `cmd:"" help:"Add and change many, from CSV or NDJSON."`
		Delete deleteCmd[deals] `cmd:"" help:"Delete some, by id."`
	}
)

type entity interface{ entity() schema.Entity }

type (
	users    struct{}
	contacts struct{}
	deals    struct{}
)

func (users) entity() schema.Entity    { return schema.EntityUsers }
func (contacts) entity() schema.Entity { return schema.EntityContacts }
func (deals) entity() schema.Entity    { return schema.EntityDeals }

// nameOf is the word for E in commands, subjects and paths.
func nameOf[E entity]() string {
	var e E
	return string(e.entity())
}

// pageFlags say what of a list is wanted, and in which order.
type pageFlags struct {
	OrderBy string `name:"order-by" placeholder:"FIELD" help:"Sort by this field: id, name, or of contacts and deals responsibleUserId."`
	Desc    bool   `help:"The other way round."`
	Offset  int    `default:"0" help:"Pass over so many."`
	Limit   int    `default:"0" help:"End after so many; 0 (the default) means all."`
}

type listCmd[E entity] struct {
	connection
	pageFlags
	JSON bool `help:"Print JSON, one object on each line: what upsert reads."`
}

// Help is the detailed help.
func (*listCmd[E]) Help() string {
	name := nameOf[E]()
	return fmt.Sprintf(`Asks Wazzup, through the worker that owns the account, page after page.

Examples:
  wazzupctl %s list --order-by name
  wazzupctl %s list --json > %s.ndjson`, name, name, name)
}

// Run prints the list.
func (c *listCmd[E]) Run(ctx context.Context, e *env) error {
	if c.Offset < 0 || c.Limit < 0 {
		return &relay.UsageError{Err: errors.New("--offset, --limit: must not be negative")}
	}
	cl, err := c.connect(ctx, e)
	if err != nil {
		return err
	}
	defer cl.Close()
	shown := 0
	err = cl.eachItem(ctx, nameOf[E]()+".list", &c.pageFlags, func(item json.RawMessage) error {
		shown++
		if c.JSON {
			return cl.JSON(item)
		}
		cl.printEntity(item)
		return nil
	})
	if err == nil && shown == 0 && !c.JSON {
		e.Printf("no %s\n", nameOf[E]())
	}
	return err
}

// eachItem follows a list from page to page.
func (c *client) eachItem(ctx context.Context, request string, flags *pageFlags, each func(json.RawMessage) error) error {
	query := map[string]any{}
	if flags.OrderBy != "" {
		query["orderBy"] = flags.OrderBy
	}
	if flags.Desc {
		query["orderDirection"] = "desc"
	}
	left := flags.Limit
	for offset := flags.Offset; ; {
		query["offset"] = offset
		var page sender.List
		if err := c.request(ctx, request, query, &page); err != nil {
			return err
		}
		for _, item := range page.Items {
			if err := each(item); err != nil {
				return err
			}
			if left--; left == 0 {
				return nil
			}
		}
		if offset = page.Next; offset == 0 {
			return nil
		}
	}
}

// shownEntity is what tables show of a user, contact or deal.
type shownEntity struct {
	ID          json.RawMessage   `json:"id"`
	Name        string            `json:"name"`
	Responsible json.RawMessage   `json:"responsibleUserId"`
	Chats       []shownChat       `json:"chats"`
	Deals       []json.RawMessage `json:"deals"`
	Contacts    []json.RawMessage `json:"contacts"`
	Closed      bool              `json:"closed"`
}

type shownChat struct {
	ChatType string          `json:"chatType"`
	ChatID   json.RawMessage `json:"chatId"`
}

// printEntity prints a line of a table.
func (c *client) printEntity(item json.RawMessage) {
	var s shownEntity
	if json.Unmarshal(item, &s) != nil {
		c.Printf("%s\n", plainLine(string(item))) // of another shape than the manual's: as it is
		return
	}
	var more []string
	if id := schema.EntityID(s.Responsible); id != "" {
		more = append(more, "of "+plain(id))
	}
	for _, chat := range s.Chats {
		more = append(more, plain(chat.ChatType)+":"+plain(schema.EntityID(chat.ChatID)))
	}
	if s.Closed {
		more = append(more, "closed")
	}
	more = append(more, idsText("deals", s.Deals), idsText("contacts", s.Contacts))
	line := pad(plain(schema.EntityID(s.ID)), 36) + "  " + pad(plainLine(s.Name), 24) + "  " + strings.Join(strings.Fields(strings.Join(more, " ")), " ")
	c.Printf("%s\n", strings.TrimRight(line, " "))
}

func idsText(what string, ids []json.RawMessage) string {
	if len(ids) == 0 {
		return ""
	}
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = plain(schema.EntityID(id))
	}
	return what + " " + strings.Join(texts, ",")
}

type getCmd[E entity] struct {
	connection
	ID   string `arg:"" help:"Its id in the CRM."`
	JSON bool   `help:"Print JSON."`
}

// Help is the detailed help.
func (*getCmd[E]) Help() string {
	return fmt.Sprintf(`Example:
  wazzupctl %s get 2e0df379-0e3c-470f-9b36-06b9e34c3bdb`, nameOf[E]())
}

// Run prints one of them.
func (c *getCmd[E]) Run(ctx context.Context, e *env) error {
	cl, err := c.connect(ctx, e)
	if err != nil {
		return err
	}
	defer cl.Close()
	var raw json.RawMessage
	if err := cl.request(ctx, nameOf[E]()+".get", map[string]string{"id": c.ID}, &raw); err != nil {
		return err
	}
	if c.JSON {
		return cl.JSON(raw)
	}
	cl.printEntity(raw)
	return nil
}
