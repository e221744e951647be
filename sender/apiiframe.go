package sender

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// windowQuery is the request to open the chat window (manual: Opening the Chats
// window). It is checked here and passed on as it was written.
type windowQuery struct {
	User *struct {
		ID   jsontext.Value `json:"id"`
		Name *string        `json:"name"`
	} `json:"user"`
	Scope      string         `json:"scope"`
	Filter     []windowChat   `json:"filter"`
	ActiveChat jsontext.Value `json:"activeChat"`
}

type windowChat struct {
	ChatType string         `json:"chatType"`
	ChatID   jsontext.Value `json:"chatId"`
	Name     *string        `json:"name"`
}

// ChatWindow is the answer to iframe.open. Whoever has the address can use the window.
type ChatWindow struct {
	URL string `json:"url"`
}

// iframeOpen answers iframe.open. Neither body nor address goes to any log.
func (o *owner) iframeOpen(ctx context.Context, body []byte) (any, error) {
	var q windowQuery
	if err := decodeRequest(body, &q); err != nil {
		return nil, err
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	a, err := o.askVendor(ctx, func(ctx context.Context) wazzup.Answer { return o.client.Iframe(ctx, json.RawMessage(body)) })
	if err != nil {
		return nil, err
	}
	address, err := wazzup.DecodeIframe(a.Body)
	if err != nil {
		return nil, badAnswer("Wazzup's answer holds no address of a chat window")
	}
	return ChatWindow{address}, nil
}

func (q *windowQuery) check() error {
	if q.User == nil {
		return badField("user", schema.FaultRequired, schema.DescribeFault(schema.FaultRequired))
	}
	if _, err := idOf(schema.EntityUsers, "user.id", q.User.ID); err != nil {
		return err
	}
	if q.User.ID.Kind() == jsontext.KindNumber && strings.ContainsAny(string(q.User.ID), ".eE") {
		return badField("user.id", schema.FaultWrongType, "must be a string or an integer")
	}
	if name := q.User.Name; name != nil && utf8.RuneCountInString(*name) > schema.MaxUserNameLength {
		return badField("user.name", schema.FaultTooLong, fmt.Sprintf("must not be longer than %d characters", schema.MaxUserNameLength))
	}
	switch {
	case q.Scope == "":
		return badField("scope", schema.FaultRequired, "is required: global or card")
	case q.Scope != "global" && q.Scope != "card":
		return badField("scope", schema.FaultNotAllowed, "must be global or card")
	case q.Scope == "card" && len(q.Filter) == 0:
		return badField("filter", schema.FaultRequired, "is required with the scope card: the chats to show")
	}
	for i := range q.Filter {
		if err := q.Filter[i].check(fmt.Sprintf("filter[%d]", i)); err != nil {
			return err
		}
	}
	return q.checkActive()
}

// checkActive checks the chat that is open first: an object in the manual's table,
// an array in its example.
func (q *windowQuery) checkActive() error {
	switch q.ActiveChat.Kind() {
	case jsontext.KindInvalid: // absent
		return nil
	case jsontext.KindBeginObject:
		var one windowChat
		if err := decodeWithin("activeChat", q.ActiveChat, &one); err != nil {
			return err
		}
		return one.check("activeChat")
	case jsontext.KindBeginArray:
		var all []windowChat
		if err := decodeWithin("activeChat", q.ActiveChat, &all); err != nil {
			return err
		}
		for i := range all {
			if err := all[i].check(fmt.Sprintf("activeChat[%d]", i)); err != nil {
				return err
			}
		}
		return nil
	}
	return badField("activeChat", schema.FaultWrongType, "must be an object or an array of objects")
}

// check holds a chat to the manual's four types and the rules of their ids.
func (c *windowChat) check(at string) error {
	id := schema.EntityID(json.RawMessage(c.ChatID))
	switch kind := c.ChatID.Kind(); {
	case c.ChatType == "":
		return badField(at+".chatType", schema.FaultMissingChatType, schema.DescribeFault(schema.FaultMissingChatType))
	case c.ChatType == schema.ChatWhatsGroup || !slices.Contains(schema.ChatTypes(), c.ChatType):
		return badField(at+".chatType", schema.FaultWrongChatType, "must be one of whatsapp, instagram, telegram, vk")
	case len(c.ChatID) == 0, kind == jsontext.KindString && strings.TrimSpace(id) == "":
		return badField(at+".chatId", schema.FaultMissingChatID, schema.DescribeFault(schema.FaultMissingChatID))
	case kind != jsontext.KindString && kind != jsontext.KindNumber:
		return badField(at+".chatId", schema.FaultWrongType, "must be a string or a number")
	case utf8.RuneCountInString(id) > schema.MaxChatIDLength:
		return badField(at+".chatId", schema.FaultTooLong, fmt.Sprintf("must not be longer than %d characters", schema.MaxChatIDLength))
	case c.ChatType == schema.ChatWhatsApp && !schema.ValidWhatsAppID(id):
		return badField(at+".chatId", schema.FaultWhatsAppChatID, schema.DescribeFault(schema.FaultWhatsAppChatID))
	case strings.HasPrefix(id, "@"):
		return badField(at+".chatId", schema.FaultLeadingAt, schema.DescribeFault(schema.FaultLeadingAt))
	}
	return nil
}
