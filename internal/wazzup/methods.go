package wazzup

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// SendMessage sends one message (manual: Sending messages). It is the one call
// that must never be repeated while its fate is unknown.
func (c *Client) SendMessage(ctx context.Context, m Message) Answer {
	return c.call(ctx, c.send, m.appendJSON(nil), WantMessageID, MaxSmallAnswer)
}

// appendJSON builds the body without reflection. A byte that is no UTF-8 becomes
// the replacement character; the schema lets none through.
func (m *Message) appendJSON(b []byte) []byte {
	if b == nil {
		const names = 96 // of the fields, with quotes and commas
		b = make([]byte, 0, names+len(m.ChannelID)+len(m.ChatType)+len(m.ChatID)+
			len(m.Text)+len(m.Text)/8+len(m.Content)+len(m.RefMessageID))
	}
	b = append(b, '{')
	b = appendField(b, "channelId", m.ChannelID)
	b = appendField(b, "chatType", m.ChatType)
	b = appendField(b, "chatId", m.ChatID)
	b = appendField(b, "text", m.Text)
	b = appendField(b, "content", m.Content)
	b = appendField(b, "refMessageId", m.RefMessageID)
	return append(b, '}')
}

func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	if len(b) > 1 {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	b, _ = jsontext.AppendQuote(b, value) // the error tells of bad UTF-8, which is replaced
	return b
}

// Channels lists the integration's channels; see DecodeChannels.
func (c *Client) Channels(ctx context.Context) Answer {
	return c.Do(ctx, Request{Method: http.MethodGet, Path: "/channels", Want: WantJSON})
}

// GetWebhooks asks where webhooks go; see DecodeWebhooks.
func (c *Client) GetWebhooks(ctx context.Context) Answer {
	return c.Do(ctx, Request{Method: http.MethodGet, Path: "/webhooks", Want: WantJSON})
}

// SetWebhooks sets where webhooks go; nil switches them off. The vendor posts a
// test body to the address before it answers.
func (c *Client) SetWebhooks(ctx context.Context, address *string) Answer {
	body := []byte(`{"url":null}`)
	if address != nil {
		body, _ = jsontext.AppendQuote([]byte(`{"url":`), *address)
		body = append(body, '}')
	}
	return c.Do(ctx, Request{Method: http.MethodPut, Path: "/webhooks", Body: body, Want: WantAny})
}

// Iframe opens the chat window; see DecodeIframe. The body is the manual's, as
// the caller wrote it.
func (c *Client) Iframe(ctx context.Context, body json.RawMessage) Answer {
	return c.Do(ctx, Request{Method: http.MethodPost, Path: "/iframe", Body: body, Want: WantJSON})
}

// Page is a part of a list. Zero values are left to the vendor's defaults: from
// the start, by id, ascending. A page holds up to 100 items.
type Page struct {
	Offset         int
	OrderBy        string // id, name, responsibleUserId
	OrderDirection string // asc, desc
}

func (p Page) query() url.Values {
	q := make(url.Values, 3)
	if p.Offset > 0 {
		q.Set("offset", strconv.Itoa(p.Offset))
	}
	if p.OrderBy != "" {
		q.Set("orderBy", p.OrderBy)
	}
	if p.OrderDirection != "" {
		q.Set("orderDirection", p.OrderDirection)
	}
	return q
}

// List returns a list of entities. Users are not paged (manual: Obtaining the user
// list): for them the page is left out.
func (c *Client) List(ctx context.Context, e schema.Entity, p Page) Answer {
	r := Request{Method: http.MethodGet, Path: entityPath(e), Want: WantJSON}
	if e != schema.EntityUsers {
		r.Query = p.query()
	}
	return c.Do(ctx, r)
}

// Get returns one entity by its id, which is any text; percent-encoding is done
// here.
func (c *Client) Get(ctx context.Context, e schema.Entity, id string) Answer {
	return c.entity(ctx, http.MethodGet, e, id, WantJSON)
}

// Delete removes one entity. It may be repeated; 404 means that it is gone.
func (c *Client) Delete(ctx context.Context, e schema.Entity, id string) Answer {
	return c.entity(ctx, http.MethodDelete, e, id, WantAny)
}

// MaxBatch is how many entities one Patch may carry.
const MaxBatch = 100

// Patch adds or updates the entities of a JSON array, as the producer wrote them:
// unknown fields pass through. It may be repeated.
func (c *Client) Patch(ctx context.Context, e schema.Entity, items json.RawMessage) Answer {
	return c.Do(ctx, Request{Method: http.MethodPatch, Path: entityPath(e), Body: items, Want: WantAny})
}

// Put replaces the whole list by a JSON array; only users have it (manual:
// Replacing the user list). It must never be split. It may be repeated.
func (c *Client) Put(ctx context.Context, e schema.Entity, items json.RawMessage) Answer {
	return c.Do(ctx, Request{Method: http.MethodPut, Path: entityPath(e), Body: items, Want: WantAny})
}

func (c *Client) entity(ctx context.Context, method string, e schema.Entity, id string, want Want) Answer {
	return c.Do(ctx, Request{Method: method, Path: entityPath(e) + "/" + PathID(id), Want: want})
}

// PathID makes an entity's id, any text, one segment of a path. Ids that no path
// can carry (empty, "." and "..") are refused by Do.
func PathID(id string) string { return url.PathEscape(id) }

func entityPath(e schema.Entity) string { return "/" + string(e) }

// ListUsers returns all users.
func (c *Client) ListUsers(ctx context.Context) Answer {
	return c.List(ctx, schema.EntityUsers, Page{})
}

// GetUser returns one user.
func (c *Client) GetUser(ctx context.Context, id string) Answer {
	return c.Get(ctx, schema.EntityUsers, id)
}

// PatchUsers adds or updates users.
func (c *Client) PatchUsers(ctx context.Context, items json.RawMessage) Answer {
	return c.Patch(ctx, schema.EntityUsers, items)
}

// PutUsers replaces all users.
func (c *Client) PutUsers(ctx context.Context, items json.RawMessage) Answer {
	return c.Put(ctx, schema.EntityUsers, items)
}

// DeleteUser removes one user.
func (c *Client) DeleteUser(ctx context.Context, id string) Answer {
	return c.Delete(ctx, schema.EntityUsers, id)
}

// ListContacts returns a page of contacts.
func (c *Client) ListContacts(ctx context.Context, p Page) Answer {
	return c.List(ctx, schema.EntityContacts, p)
}

// GetContact returns one contact.
func (c *Client) GetContact(ctx context.Context, id string) Answer {
	return c.Get(ctx, schema.EntityContacts, id)
}

// PatchContacts adds or updates contacts.
func (c *Client) PatchContacts(ctx context.Context, items json.RawMessage) Answer {
	return c.Patch(ctx, schema.EntityContacts, items)
}

// DeleteContact removes one contact.
func (c *Client) DeleteContact(ctx context.Context, id string) Answer {
	return c.Delete(ctx, schema.EntityContacts, id)
}

// ListDeals returns a page of deals.
func (c *Client) ListDeals(ctx context.Context, p Page) Answer {
	return c.List(ctx, schema.EntityDeals, p)
}

// GetDeal returns one deal.
func (c *Client) GetDeal(ctx context.Context, id string) Answer {
	return c.Get(ctx, schema.EntityDeals, id)
}

// PatchDeals adds or updates deals.
func (c *Client) PatchDeals(ctx context.Context, items json.RawMessage) Answer {
	return c.Patch(ctx, schema.EntityDeals, items)
}

// DeleteDeal removes one deal.
func (c *Client) DeleteDeal(ctx context.Context, id string) Answer {
	return c.Delete(ctx, schema.EntityDeals, id)
}
