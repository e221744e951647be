package sender

import (
	"context"
	"encoding/json"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// contractGet answers contract.get with the AsyncAPI document of this version,
// which stands alone: who has only the answer needs no file beside it.
func contractGet(_ context.Context, body []byte) (any, error) {
	if err := decodeRequest(body, &struct{}{}); err != nil {
		return nil, err
	}
	text, err := schema.Contract()
	return json.RawMessage(text), err
}
