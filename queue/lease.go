package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// LeaseTTL is how long a lease lives without being renewed. Another worker takes
// over at most this long after an owner died, then waits out the account's
// window, so that its first call is well within ten seconds.
const (
	LeaseTTL   = 3 * time.Second
	LeaseRenew = 1 * time.Second
)

const ownersBucket = "wazzup-owners"

// ErrLeaseHeld means that another worker owns the account.
var ErrLeaseHeld = errors.New("another worker owns the account")

// ErrLeaseLost means that the lease was not renewed in time, or somebody else has it.
var ErrLeaseLost = errors.New("lease lost")

// Leases hands out the ownership of accounts. Each lease is a key with a time to
// live in one bucket, taken and renewed by compare-and-set.
type Leases struct {
	kv     jetstream.KeyValue
	worker string
}

// OpenLeases opens the bucket of leases, creating it where it is missing.
func OpenLeases(ctx context.Context, js jetstream.JetStream, worker string, replicas int) (*Leases, error) {
	kv, err := js.KeyValue(ctx, ownersBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket:      ownersBucket,
			Description: "wazzup-relay: which worker owns which account",
			TTL:         LeaseTTL,
			History:     1,
			Storage:     jetstream.FileStorage,
			Replicas:    max(replicas, 1),
		})
		if errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = js.KeyValue(ctx, ownersBucket)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open leases: %w", err)
	}
	return &Leases{kv: kv, worker: worker}, nil
}

type leaseValue struct {
	Worker string    `json:"worker"`
	Since  time.Time `json:"since"`
}

// Acquire takes the account's lease, or returns ErrLeaseHeld.
func (l *Leases) Acquire(ctx context.Context, account string) (*Lease, error) {
	value, err := json.Marshal(leaseValue{Worker: l.worker, Since: time.Now().UTC()})
	if err != nil {
		return nil, fmt.Errorf("acquire lease of %s: %w", account, err)
	}
	asked := time.Now()
	revision, err := l.kv.Create(ctx, account, value)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return nil, ErrLeaseHeld
	}
	if err != nil {
		return nil, fmt.Errorf("acquire lease of %s: %w", account, err)
	}
	return &Lease{
		kv: l.kv, account: account, value: value, revision: revision, renewed: asked,
		Epoch: strconv.FormatUint(revision, 36) + "-" + nuid.Next()[16:],
	}, nil
}

// Lease is one worker's ownership of one account. It is used by one goroutine.
type Lease struct {
	// Epoch is unique for this ownership: the lease's revision and a nonce.
	Epoch string

	kv       jetstream.KeyValue
	account  string
	value    []byte
	revision uint64
	renewed  time.Time // when the last successful renewal was asked for
}

// Renew extends the lease. ErrLeaseLost means that it is over; any other error
// may pass, until Expires.
func (l *Lease) Renew(ctx context.Context) error {
	asked := time.Now()
	revision, err := l.kv.Update(ctx, l.account, l.value, l.revision)
	if err == nil {
		l.revision, l.renewed = revision, asked
		return nil
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		// Our own renewal may have been stored and its answer lost.
		if e, getErr := l.kv.Get(ctx, l.account); getErr == nil && string(e.Value()) == string(l.value) {
			l.revision, l.renewed = e.Revision(), asked
			return nil
		}
		return fmt.Errorf("renew lease of %s: %w", l.account, ErrLeaseLost)
	}
	return fmt.Errorf("renew lease of %s: %w", l.account, err)
}

// Expires is when the lease is over unless it is renewed, by this process's
// monotonic clock; it errs on the early side.
func (l *Lease) Expires() time.Time { return l.renewed.Add(LeaseTTL) }

// Release gives the lease up, so that a standby can take it at once.
func (l *Lease) Release(ctx context.Context) error {
	if err := l.kv.Delete(ctx, l.account, jetstream.LastRevision(l.revision)); err != nil {
		return fmt.Errorf("release lease of %s: %w", l.account, err)
	}
	return nil
}

// Raised is what the records stream looked like when an epoch began.
type Raised struct {
	Before  string // the epoch before; NoEpoch: there was none
	LastSeq uint64 // every record of a former epoch has at most this sequence
}

// Raise makes the lease's epoch the one that may write the account's ledger, and
// brings the streams' limits up to date. From its return on, every claim of any
// former owner is refused.
//
// Stream updates are no compare-and-set, so the epoch is read back: when two
// workers raise at once, at most one finds its own.
func (l *Lease) Raise(ctx context.Context, t *Topology) (Raised, error) {
	before, _, err := t.currentEpoch(ctx)
	if err != nil {
		return Raised{}, err
	}
	if err := t.update(ctx, l.Epoch); err != nil {
		return Raised{}, fmt.Errorf("raise epoch of %s: %w", t.Account, err)
	}
	now, lastSeq, err := t.currentEpoch(ctx)
	if err != nil {
		return Raised{}, err
	}
	if now != l.Epoch {
		return Raised{}, fmt.Errorf("raise epoch of %s: %w", t.Account, ErrFenced)
	}
	return Raised{Before: before, LastSeq: lastSeq}, nil
}
