package sender

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// stateGuard is where the owner keeps what the webhook guard knows.
const stateGuard = "webhook"

// driftNone stands for the address where none is registered.
const driftNone = "none"

// guard is what the webhook guard knows. It is read anew for each request and
// stored before it takes effect. Of whose turn it is (owner.hookTurn).
type guard struct {
	Wanted    string  `json:"wanted,omitempty"`    // fingerprint of the address that an ingest registered last
	Suspended bool    `json:"suspended,omitempty"` // by a webhooks.set by hand, until an ingest starts
	Found     string  `json:"found,omitempty"`     // while it has drifted: what is registered instead, masked
	Drifts    uint64  `json:"drifts,omitempty"`    // so far
	Told      string  `json:"told,omitempty"`      // the reason of the open drift's last event; "": it is not told
	Repairs   []int64 `json:"repairs,omitempty"`   // when, Unix milliseconds, within the last hour
	At        int64   `json:"at"`                  // when this was stored, Unix milliseconds
}

// prune forgets repairs that no longer count.
func (g *guard) prune(now time.Time, per time.Duration) {
	kept := make([]int64, 0, len(g.Repairs)+1)
	for _, ms := range g.Repairs {
		if now.Sub(time.UnixMilli(ms)) < per {
			kept = append(kept, ms)
		}
	}
	g.Repairs = kept
}

// opensOn is when the next repair may come; there are as many as may be.
func (g *guard) opensOn(per time.Duration) string {
	if len(g.Repairs) == 0 {
		return ""
	}
	return schema.FormatTime(time.UnixMilli(g.Repairs[0]).Add(per))
}

// stands is what webhooks.get tells of the guard; nil where there is none.
func (g *guard) stands(per time.Duration) *guardAnswer {
	switch {
	case g.Suspended && g.Wanted != "":
		return &guardAnswer{State: guardSuspended}
	case g.Wanted == "":
		return nil
	case g.Told == driftStopped:
		return &guardAnswer{State: guardStopped, OpensOn: g.opensOn(per)}
	case g.Found != "":
		return &guardAnswer{State: guardDrifted}
	}
	return &guardAnswer{State: guardKept}
}

func (o *owner) loadGuard(ctx context.Context) (*guard, error) {
	body, err := o.ledger.LastState(ctx, stateGuard)
	g := new(guard)
	if err != nil || body == nil {
		return g, err
	}
	if err := json.Unmarshal(body, g); err != nil {
		return nil, fmt.Errorf("read webhook guard: %w", err)
	}
	return g, nil
}

// saveGuard returns when what the guard knows is durable.
func (o *owner) saveGuard(ctx context.Context, g *guard) error {
	g.At = time.Now().UnixMilli()
	body, err := json.Marshal(g)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	o.ledger.PutState(stateGuard, body, func(err error) { done <- err })
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("store webhook guard: %w", err)
	}
	return nil
}

// refreshGuard stores anew what would be forgotten: the stream keeps nothing
// beyond its retention.
func (o *owner) refreshGuard(ctx context.Context, g *guard) error {
	if g.At != 0 && time.Since(time.UnixMilli(g.At)) < o.cfg.Limits.Retention/8 {
		return nil
	}
	return o.saveGuard(ctx, g)
}
