package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of one request for the values of many keys.
const (
	maxAnswers    = 1024 + 1 // that the server gives at most, and the end of them
	maxKeysAtOnce = 500      // well within that
)

// kvOperation is on a message that marks a deleted key.
const kvOperation = "KV-Operation"

// openBucket opens a bucket whose keys live for a time only, creating it where
// it is missing.
func openBucket(ctx context.Context, js jetstream.JetStream, cfg jetstream.KeyValueConfig) (kv jetstream.KeyValue, err error) {
	err = Ask(ctx, func(ctx context.Context) (err error) {
		kv, err = openBucketOnce(ctx, js, cfg)
		return err
	})
	return kv, err
}

func openBucketOnce(ctx context.Context, js jetstream.JetStream, cfg jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	kv, err := js.KeyValue(ctx, cfg.Bucket)
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		return kv, err
	}
	cfg.History, cfg.Storage, cfg.Replicas = 1, jetstream.FileStorage, max(cfg.Replicas, 1)
	kv, err = js.CreateKeyValue(ctx, cfg)
	if errors.Is(err, jetstream.ErrBucketExists) {
		return js.KeyValue(ctx, cfg.Bucket)
	}
	return kv, err
}

// lastOfKeys reads the values of many keys of a bucket, which may have
// wildcards, with a request for some hundreds at a time. Keys without a value
// are left out. Any replica may answer, also one that lags behind.
func lastOfKeys(ctx context.Context, nc *nats.Conn, bucket string, keys []string) (map[string][]byte, error) {
	values := make(map[string][]byte, len(keys))
	for some := range slices.Chunk(keys, maxKeysAtOnce) {
		err := Ask(ctx, func(ctx context.Context) error { return lastOfSome(ctx, nc, bucket, some, values) })
		if err != nil {
			return nil, fmt.Errorf("read bucket %s: %w", bucket, err)
		}
	}
	return values, nil
}

func lastOfSome(ctx context.Context, nc *nats.Conn, bucket string, keys []string, values map[string][]byte) error {
	prefix := "$KV." + bucket + "."
	subjects := make([]string, len(keys))
	for i, key := range keys {
		subjects[i] = prefix + key
	}
	request, err := json.Marshal(map[string][]string{"multi_last": subjects})
	if err != nil {
		return err
	}
	inbox := nc.NewInbox()
	// A synchronous subscription would make room for 65,536 answers each time.
	answers := make(chan *nats.Msg, maxAnswers)
	sub, err := nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // an error: the connection is closed, and the subscription with it
	if err := nc.PublishRequest("$JS.API.DIRECT.GET.KV_"+bucket, inbox, request); err != nil {
		return err
	}
	for {
		var m *nats.Msg
		select {
		case m = <-answers:
		case <-ctx.Done():
			return ctx.Err()
		}
		switch status := m.Header.Get("Status") + " " + m.Header.Get("Description"); status {
		case " ":
		case "204 EOB", "404 No Results":
			return nil
		default: // among others "404 Message Not Found": a key ran out while the server was reading
			return errors.New(status)
		}
		if m.Header.Get(kvOperation) == "" { // otherwise the marker of a deleted key
			values[strings.TrimPrefix(m.Header.Get(jetstream.SubjectHeader), prefix)] = m.Data
		}
	}
}
