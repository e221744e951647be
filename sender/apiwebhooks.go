package sender

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const maxURLLength = 200 // of a webhook's address: more is refused by the vendor

// webhooksAnswer is the vendor's answer with the secret masked.
type webhooksAnswer struct {
	URL     *string `json:"webhooksUrl"`
	Changed *bool   `json:"webhooksUrlChanged,omitempty"` // of set only
}

func (o *owner) webhooksGet(ctx context.Context, body []byte) (any, error) {
	if err := decodeRequest(body, &struct{}{}); err != nil {
		return nil, err
	}
	a, err := o.askVendor(ctx, o.client.GetWebhooks)
	if err != nil {
		return nil, err
	}
	return masked(a, false)
}

func (o *owner) webhooksSet(ctx context.Context, body []byte) (any, error) {
	var q webhooksQuery
	if err := decodeRequest(body, &q); err != nil {
		return nil, err
	}
	address, err := q.address()
	if err != nil {
		return nil, err
	}
	a, err := o.askVendor(ctx, func(ctx context.Context) wazzup.Answer { return o.client.SetWebhooks(ctx, address) })
	if err != nil {
		return nil, err
	}
	return masked(a, true)
}

// webhooksQuery is the request to register an address. Absent and null differ: null
// switches webhooks off.
type webhooksQuery struct {
	URL jsontext.Value `json:"url"`
}

// address is what to register; nil = none.
func (q *webhooksQuery) address() (*string, error) {
	switch q.URL.Kind() {
	case jsontext.KindInvalid: // absent
		return nil, badField("url", schema.FaultRequired, "is required: an address, or null to switch webhooks off")
	case jsontext.KindNull:
		return nil, nil
	case jsontext.KindString:
	default:
		return nil, badField("url", schema.FaultWrongType, "must be a string or null")
	}
	address := schema.EntityID(json.RawMessage(q.URL))
	u, err := url.Parse(address)
	switch {
	case len(address) > maxURLLength:
		return nil, badField("url", schema.FaultTooLong, fmt.Sprintf("must not be longer than %d characters", maxURLLength))
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, badField("url", schema.FaultNotAURL, schema.DescribeFault(schema.FaultNotAURL))
	}
	return &address, nil
}

func masked(a wazzup.Answer, set bool) (any, error) {
	w, err := wazzup.DecodeWebhooks(a.Body)
	if err != nil {
		return nil, badAnswer("Wazzup's answer says nothing of an address")
	}
	out := webhooksAnswer{}
	if set {
		out.Changed = &w.Changed
	}
	if w.URL != "" {
		url := maskURL(w.URL)
		out.URL = &url
	}
	return out, nil
}

// maskURL hides the secret of a webhook's address, its last path segment: what
// is left is enough to see whether two are the same.
func maskURL(address string) string {
	slash := strings.LastIndexByte(address, '/')
	secret := address[slash+1:]
	if slash < 0 || secret == "" {
		return address
	}
	sum := sha256.Sum256([]byte(secret))
	return address[:slash+1] + "***" + hex.EncodeToString(sum[:4])
}
