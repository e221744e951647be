package sender

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	vendorPage   = 100 // contacts or deals of a whole page (manual)
	listEnvelope = 64  // bytes of an answer beside its items
)

// listQuery is the request of a list.
type listQuery struct {
	Offset         int    `json:"offset"`
	OrderBy        string `json:"orderBy"`
	OrderDirection string `json:"orderDirection"`
}

// List is the answer to a list: the vendor's objects as they came.
type List struct {
	Items []json.RawMessage `json:"items"`
	Next  int               `json:"next,omitempty"` // the offset to go on from; 0 = this was all
}

// decodeList reads a list's request; fields are what it may be ordered by.
func decodeList(body []byte, fields ...string) (*listQuery, error) {
	var q listQuery
	if err := decodeRequest(body, &q); err != nil {
		return nil, err
	}
	switch {
	case q.Offset < 0:
		return nil, badField("offset", schema.FaultNotAllowed, "must not be negative")
	case q.OrderBy != "" && !slices.Contains(fields, q.OrderBy):
		return nil, badField("orderBy", schema.FaultNotAllowed, "must be one of "+strings.Join(fields, ", "))
	case q.OrderDirection != "" && q.OrderDirection != "asc" && q.OrderDirection != "desc":
		return nil, badField("orderDirection", schema.FaultNotAllowed, "must be asc or desc")
	}
	return &q, nil
}

// pageList answers contacts.list and deals.list: one page of the vendor's, or as
// much of it as an answer may hold.
func (o *owner) pageList(e schema.Entity) endpoint {
	return func(ctx context.Context, body []byte) (any, error) {
		q, err := decodeList(body, "id", "name", "responsibleUserId")
		if err != nil {
			return nil, err
		}
		page := wazzup.Page{Offset: q.Offset, OrderBy: q.OrderBy, OrderDirection: q.OrderDirection}
		a, err := o.askVendor(ctx, func(ctx context.Context) wazzup.Answer { return o.client.List(ctx, e, page) })
		if err != nil {
			return nil, err
		}
		items, err := itemsOf(a)
		if err != nil {
			return nil, err
		}
		// The vendor does not tell whether there are more; only a page that is not
		// full is the last one for sure.
		return o.cut(items, q.Offset, len(items) >= vendorPage)
	}
}

// usersList answers users.list. The vendor gives the whole list at once.
func (o *owner) usersList(ctx context.Context, body []byte) (any, error) {
	q, err := decodeList(body, "id", "name")
	if err != nil {
		return nil, err
	}
	a, err := o.askVendor(ctx, o.client.ListUsers)
	if err != nil {
		return nil, err
	}
	return o.wholeList(a, q, "id")
}

// channelsList answers channels.list. A success also has a closed account looked
// at again.
func (o *owner) channelsList(ctx context.Context, body []byte) (any, error) {
	q, err := decodeList(body, "channelId", "transport", "plainId", "state")
	if err != nil {
		return nil, err
	}
	a, err := o.askAlways(ctx, o.client.Channels)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	closed := o.closed != nil
	o.mu.Unlock()
	if closed {
		o.pollSoon()
	}
	return o.wholeList(a, q, "channelId")
}

// wholeList orders a list that the vendor does not page, and cuts it. Without an
// order of the caller's it is that of the ids: the vendor promises none, and pages
// of different answers must fit together.
func (o *owner) wholeList(a wazzup.Answer, q *listQuery, id string) (any, error) {
	items, err := itemsOf(a)
	if err != nil {
		return nil, err
	}
	type row struct {
		by, id string
		item   json.RawMessage
	}
	rows := make([]row, len(items))
	for i, item := range items {
		var members map[string]json.RawMessage
		if json.Unmarshal(item, &members) != nil {
			return nil, badAnswer("an item of Wazzup's list is no object")
		}
		rows[i] = row{schema.EntityID(members[cmp.Or(q.OrderBy, id)]), schema.EntityID(members[id]), item}
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		order := cmp.Or(cmp.Compare(a.by, b.by), cmp.Compare(a.id, b.id))
		if q.OrderDirection == "desc" {
			return -order
		}
		return order
	})
	for i := range rows {
		items[i] = rows[i].item
	}
	return o.cut(items[min(q.Offset, len(items)):], q.Offset, false)
}

func itemsOf(a wazzup.Answer) ([]json.RawMessage, error) {
	var items []json.RawMessage
	if err := json.Unmarshal(a.Body, &items); err != nil || items == nil {
		return nil, badAnswer("Wazzup's answer is no list")
	}
	return items, nil
}

// cut makes an answer of as many items, the first of which stands at the offset,
// as NATS takes in one message. more tells that others follow them.
func (o *owner) cut(items []json.RawMessage, offset int, more bool) (any, error) {
	room := int(o.nc.MaxPayload()) - listEnvelope
	for i, item := range items {
		text, err := json.Marshal(item) // without white space, as the answer will have it
		if err != nil {
			return nil, badAnswer("an item of Wazzup's list is no JSON")
		}
		if room -= len(text) + 1; room >= 0 {
			items[i] = text
			continue
		}
		if i == 0 {
			return nil, tooLarge(fmt.Sprintf("the item at offset %d alone exceeds NATS's payload limit; the list goes on at %d", offset, offset+1))
		}
		return List{Items: items[:i], Next: offset + i}, nil
	}
	list := List{Items: items}
	if more {
		list.Next = offset + len(items)
	}
	return list, nil
}
