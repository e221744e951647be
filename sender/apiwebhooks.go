package sender

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const maxURLLength = 200 // of a webhook's address: more is refused by the vendor

// webhooksAnswer is the vendor's answer with the secret masked.
type webhooksAnswer struct {
	URL   *string      `json:"webhooksUrl"`
	Guard *guardAnswer `json:"guard,omitempty"` // where an ingest has registered an address
}

// webhooksNow answers webhooks.get.
type webhooksNow struct {
	webhooksAnswer
	// SilentSince is since when accepted messages have no status; empty: they have.
	SilentSince string `json:"silentSince,omitempty"`
}

// webhooksChange answers webhooks.set.
type webhooksChange struct {
	webhooksAnswer
	Changed *bool `json:"webhooksUrlChanged,omitempty"` // nil: nothing was set
}

func (o *owner) webhooksGet(ctx context.Context, body []byte) (any, error) {
	if err := decodeRequest(body, &struct{}{}); err != nil {
		return nil, err
	}
	now, _, err := o.getWebhooks(ctx)
	if err != nil {
		return nil, err
	}
	g, err := o.loadGuard(ctx)
	if err != nil {
		return nil, err
	}
	now.Guard = g.stands(o.cfg.timing.guardPer)
	silence, err := o.silence(ctx)
	if err != nil {
		return nil, err
	}
	answer := webhooksNow{webhooksAnswer: now}
	if silence.over(time.Now(), o.cfg.Silence) {
		answer.SilentSince = schema.FormatTime(silence.since)
	}
	return answer, nil
}

// webhooksSet registers an address. With guard it is an ingest that asks, see
// guard.go; without, it is done by hand.
func (o *owner) webhooksSet(ctx context.Context, body []byte) (any, error) {
	var q webhooksQuery
	if err := decodeRequest(body, &q); err != nil {
		return nil, err
	}
	address, err := q.address()
	switch {
	case err != nil:
		return nil, err
	case q.Guard != "" && q.Guard != guardRegister && q.Guard != guardKeep:
		return nil, badField("guard", schema.FaultNotAllowed, "must be register or keep, and is for ingest only")
	case q.Guard != "" && address == nil:
		return nil, badField("url", schema.FaultRequired, "is required with guard: an address")
	}
	return o.setWebhooks(ctx, address, q.Guard)
}

// webhooksQuery is the request to register an address. Absent and null differ: null
// switches webhooks off.
type webhooksQuery struct {
	URL   jsontext.Value `json:"url"`
	Guard string         `json:"guard"`
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

// registered reads the vendor's answer: the masked address, the whole of it, and
// whether it is another than before.
func registered(a wazzup.Answer) (now webhooksAnswer, found string, changed bool, err error) {
	w, err := wazzup.DecodeWebhooks(a.Body)
	if err != nil {
		return now, "", false, badAnswer("Wazzup's answer says nothing of an address")
	}
	if w.URL != "" {
		url := maskURL(w.URL)
		now.URL = &url
	}
	return now, w.URL, w.Changed, nil
}

// maskURL hides the secret of a webhook's address, its last path segment: what
// is left is enough to see whether two are the same.
func maskURL(address string) string {
	slash := strings.LastIndexByte(address, '/')
	secret := address[slash+1:]
	if slash < 0 || secret == "" || strings.ContainsAny(address, "?#@") {
		return maskForeign(address) // not of the form that an ingest registers
	}
	sum := sha256.Sum256([]byte(secret))
	return address[:slash+1] + "***" + hex.EncodeToString(sum[:4])
}
