package sender

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// entityGet answers users.get, contacts.get and deals.get with the vendor's object.
func (o *owner) entityGet(e schema.Entity) endpoint {
	return func(ctx context.Context, body []byte) (any, error) {
		var q struct {
			ID jsontext.Value `json:"id"`
		}
		if err := decodeRequest(body, &q); err != nil {
			return nil, err
		}
		id, err := idOf(e, "id", q.ID)
		switch {
		case err != nil:
			return nil, err
		case id == "." || id == "..":
			// A segment of a path that servers resolve even where it is percent-encoded.
			return nil, badField("id", schema.FaultNotAllowed, "must not be . or ..")
		}
		a, err := o.askVendor(ctx, func(ctx context.Context) wazzup.Answer { return o.client.Get(ctx, e, id) })
		if err != nil {
			return nil, err
		}
		object := bytes.TrimSpace(a.Body)
		if len(object) == 0 || object[0] != '{' {
			return nil, badAnswer("Wazzup's answer is no object")
		}
		return json.RawMessage(object), nil
	}
}

// idOf reads an entity's id as the commands take it: a string or a number, whose
// text is kept as it is written.
func idOf(e schema.Entity, field string, raw jsontext.Value) (string, error) {
	limit := schema.MaxEntityIDLength
	if e == schema.EntityUsers {
		limit = schema.MaxUserIDLength
	}
	id := schema.EntityID(json.RawMessage(raw))
	switch kind := raw.Kind(); {
	case len(raw) == 0:
		return "", badField(field, schema.FaultRequired, schema.DescribeFault(schema.FaultRequired))
	case kind != jsontext.KindString && kind != jsontext.KindNumber:
		return "", badField(field, schema.FaultWrongType, "must be a string or a number")
	case id == "":
		return "", badField(field, schema.FaultEmpty, schema.DescribeFault(schema.FaultEmpty))
	case utf8.RuneCountInString(id) > limit:
		return "", badField(field, schema.FaultTooLong, "must not be longer than "+strconv.Itoa(limit)+" characters")
	}
	return id, nil
}
