package sender

import (
	"context"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// verbatim is an answer that is JSON already, as it is to be sent.
type verbatim []byte

// contractGet answers contract.get with the AsyncAPI document of this version,
// which stands alone: who has only the answer needs no file beside it.
func contractGet(_ context.Context, body []byte) (any, error) {
	if err := decodeRequest(body, &struct{}{}); err != nil {
		return nil, err
	}
	text, err := schema.Contract()
	return verbatim(text), err
}
