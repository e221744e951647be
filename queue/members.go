package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// MemberTTL is how long a worker counts as alive after its last announcement,
// and MemberRenew how often it announces itself. One that died is gone from the
// list before its last lease is over, so that nobody who is to take its accounts
// still waits for it.
const (
	MemberTTL   = 2 * time.Second
	MemberRenew = 500 * time.Millisecond
)

const workersBucket = "wazzup-workers"

// WorkerID is an identity for one start of a worker. Two that have the same
// name, or one before and after a restart, have different identities.
func WorkerID(name string) string {
	fit := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, name)
	return fit + "-" + nuid.Next()[12:]
}

// Member is a worker that is alive.
type Member struct {
	ID       string   `json:"-"`        // see [WorkerID]
	Accounts []string `json:"accounts"` // those that it can serve, owned or not
}

// Members is the list of the workers that are alive: a key each, with a time to
// live, in one bucket. Its methods may be called by any goroutine.
type Members struct {
	kv jetstream.KeyValue
	js jetstream.JetStream
}

// OpenMembers opens the bucket of workers, creating it where it is missing.
func OpenMembers(ctx context.Context, js jetstream.JetStream, replicas int) (*Members, error) {
	kv, err := openBucket(ctx, js, jetstream.KeyValueConfig{
		Bucket:      workersBucket,
		Description: "wazzup-relay: which workers are alive, and which accounts they serve",
		TTL:         MemberTTL,
		Replicas:    replicas,
	})
	if err != nil {
		return nil, fmt.Errorf("open members: %w", err)
	}
	return &Members{kv: kv, js: js}, nil
}

// Announce says that a worker is alive, for MemberTTL. It returns when that is
// stored.
func (m *Members) Announce(ctx context.Context, who Member) error {
	value, err := json.Marshal(who)
	if err != nil {
		return fmt.Errorf("announce worker: %w", err)
	}
	if _, err := m.kv.Put(ctx, who.ID, value); err != nil {
		return fmt.Errorf("announce worker: %w", err)
	}
	return nil
}

// Leave takes a worker off the list at once.
func (m *Members) Leave(ctx context.Context, id string) error {
	if err := m.kv.Delete(ctx, id); err != nil {
		return fmt.Errorf("take worker off the list: %w", err)
	}
	return nil
}

// List reads who is alive. A replica may answer that lags a little behind.
func (m *Members) List(ctx context.Context) ([]Member, error) {
	values, err := lastOfKeys(ctx, m.js.Conn(), workersBucket, []string{">"})
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	members := make([]Member, 0, len(values))
	var faults []error
	for id, value := range values {
		who := Member{ID: id}
		if err := json.Unmarshal(value, &who); err != nil {
			faults = append(faults, fmt.Errorf("list workers: %w", err))
			continue
		}
		members = append(members, who)
	}
	return members, errors.Join(faults...)
}
