package queue

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Explain adds to an error of JetStream's what is to be done about it, where the
// server's own words do not tell. The error is still the same for errors.Is.
func Explain(err error) error {
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("%w: JetStream does not answer; is it switched on at the NATS server (-js), and allowed to this user's account?", err)
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && (api.ErrorCode == codeNoStorage || api.ErrorCode == codeAccountNoStorage) {
		return fmt.Errorf("%w: NATS reserves what the account's streams may hold; raise its max_file_store, or lower their limits (WAZZUP_RECORD_BYTES and the others)", err)
	}
	return err
}
