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
	// LeaseRetry is the pause after a renewal that failed: where a lease ran out
	// because NATS was away, its owner is to be there before a standby.
	LeaseRetry = 100 * time.Millisecond
)

const ownersBucket = "wazzup-owners"

// ErrLeaseHeld means that another worker owns the account.
var ErrLeaseHeld = errors.New("another worker owns the account")

// ErrLeaseLost means that somebody else has the lease, or that it was released.
var ErrLeaseLost = errors.New("lease lost")

// Leases hands out the ownership of accounts. Each lease is a key with a time to
// live in one bucket, taken and renewed by compare-and-set. Its methods may be
// called by any goroutine.
type Leases struct {
	kv     jetstream.KeyValue
	js     jetstream.JetStream
	worker string
}

// OpenLeases opens the bucket of leases, creating it where it is missing. worker
// is what Holders tells of the leases that are acquired here.
func OpenLeases(ctx context.Context, js jetstream.JetStream, worker string, replicas int) (*Leases, error) {
	kv, err := openBucket(ctx, js, jetstream.KeyValueConfig{
		Bucket:      ownersBucket,
		Description: "wazzup-relay: which worker owns which account",
		TTL:         LeaseTTL,
		Replicas:    replicas,
	})
	if err != nil {
		return nil, fmt.Errorf("open leases: %w", err)
	}
	return &Leases{kv: kv, js: js, worker: worker}, nil
}

// Holders reads which worker holds the lease of each of these accounts. One whose
// lease is free is left out. A replica may answer that lags a little behind:
// only Acquire knows for sure.
func (l *Leases) Holders(ctx context.Context, accounts []string) (map[string]string, error) {
	values, err := lastOfKeys(ctx, l.js.Conn(), ownersBucket, accounts)
	if err != nil {
		return nil, fmt.Errorf("read holders of leases: %w", err)
	}
	holders := make(map[string]string, len(values))
	for account, value := range values {
		var v leaseValue
		if err := json.Unmarshal(value, &v); err != nil {
			return nil, fmt.Errorf("read holder of %s: %w", account, err)
		}
		holders[account] = v.Worker
	}
	return holders, nil
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
	if errors.Is(err, jetstream.ErrKeyExists) || wrongSequence(err) {
		return nil, ErrLeaseHeld
	}
	if err != nil {
		return nil, fmt.Errorf("acquire lease of %s: %w", account, err)
	}
	return &Lease{
		kv: l.kv, js: l.js, account: account, value: value, revision: revision, renewed: asked,
		Epoch: strconv.FormatUint(revision, 36) + "-" + nuid.Next()[16:],
	}, nil
}

// Lease is one worker's ownership of one account. It is used by one goroutine.
type Lease struct {
	// Epoch is unique for this ownership: the lease's revision and a nonce.
	Epoch string

	kv       jetstream.KeyValue
	js       jetstream.JetStream
	account  string
	value    []byte
	revision uint64
	renewed  time.Time // when the last successful renewal was asked for
	released bool      // by us
}

// Renew extends the lease. ErrLeaseLost means that another worker has it; any
// other error may pass. A lease that ran out while NATS could not renew it, as
// happens when a cluster elects, is taken anew if nobody else has taken it: if
// somebody had meanwhile, the epoch is over, and the first write tells.
func (l *Lease) Renew(ctx context.Context) error {
	if l.released {
		return fmt.Errorf("renew lease of %s: %w", l.account, ErrLeaseLost)
	}
	err := l.update(ctx)
	if wrongSequence(err) {
		// Our own last renewal may have been stored and its answer lost, or the
		// lease has run out.
		if err = l.catchUp(ctx); err == nil {
			err = l.update(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("renew lease of %s: %w", l.account, err)
	}
	return nil
}

func (l *Lease) update(ctx context.Context) error {
	asked := time.Now()
	revision, err := l.kv.Update(ctx, l.account, l.value, l.revision)
	if err == nil {
		l.revision, l.renewed = revision, asked
	}
	return err
}

// catchUp learns the lease's revision from the leader, since a replica that lags
// behind may still know a lease that is over.
func (l *Lease) catchUp(ctx context.Context) error {
	m, err := leaderLast(ctx, l.js.Conn(), "KV_"+ownersBucket, "$KV."+ownersBucket+"."+l.account)
	if err != nil {
		return err
	}
	switch {
	case m == nil: // it ran out; one that another worker had and released would have left a mark
		l.revision = 0
	case string(m.Data) == string(l.value):
		l.revision = m.Sequence
	default:
		return ErrLeaseLost
	}
	return nil
}

// wrongSequence reports a compare-and-set that was refused. With replicas the
// server also refuses one while another is under way, perhaps our own.
func wrongSequence(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && isWrongSequence(api)
}

// Expires is when the lease is over unless it is renewed, by this process's
// monotonic clock; it errs on the early side.
func (l *Lease) Expires() time.Time { return l.renewed.Add(LeaseTTL) }

// Release gives the lease up, so that a standby can take it at once.
func (l *Lease) Release(ctx context.Context) error {
	l.released = true
	err := l.kv.Delete(ctx, l.account, jetstream.LastRevision(l.revision))
	if wrongSequence(err) {
		if err = l.catchUp(ctx); err == nil {
			err = l.kv.Delete(ctx, l.account, jetstream.LastRevision(l.revision))
		}
	}
	if err != nil {
		return fmt.Errorf("release lease of %s: %w", l.account, err)
	}
	return nil
}

// Raised is what the records stream looked like when an epoch began.
type Raised struct {
	Before  string // the epoch before; NoEpoch: there was none
	LastSeq uint64 // every record of a former epoch has at most this sequence
}

// Raise makes the lease's epoch the one that may write the account's ledger and
// park its commands, and brings the streams' limits up to date. From its return
// on, every claim of any former owner is refused.
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
	_, lastSeq, err := t.currentEpoch(ctx)
	if err != nil {
		return Raised{}, err
	}
	ours, err := t.holds(ctx, l.Epoch)
	if err != nil {
		return Raised{}, err
	}
	if !ours {
		return Raised{}, fmt.Errorf("raise epoch of %s: %w", t.Account, ErrFenced)
	}
	return Raised{Before: before, LastSeq: lastSeq}, nil
}
