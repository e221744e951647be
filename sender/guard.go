package sender

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// The webhook guard. An ingest asks again and again that its address be
// registered; the account's owner compares, repairs and tells. So however many
// ingests ask, one process decides, one at a time, by what is stored: neither
// events nor repairs multiply, and both outlive every process.

// What an ingest asks for with an address.
const (
	guardRegister = "register" // at its start, and where its address is another than before: ends a suspension
	guardKeep     = "keep"     // on a schedule
)

// How a request of an ingest ended. It is the answer's `guard.state`.
const (
	guardKept       = "kept"       // it was registered as wanted
	guardRegistered = "registered" // it was registered now
	guardRepaired   = "repaired"   // another had taken its place, and it was registered again
	guardDrifted    = "drifted"    // of webhooks.get: another has taken its place, and is being replaced
	guardStopped    = "stopped"    // another has taken its place, and there were too many repairs
	guardSuspended  = "suspended"  // somebody registered an address by hand
	guardSuperseded = "superseded" // another ingest registered another address since
)

// Two environments on one key take the address from each other for ever, and
// webhooks then reach either: few repairs, so that operators notice.
const (
	guardRepairs = 3
	guardPer     = time.Hour
)

// Reasons of a webhook.drift.
const (
	driftRepairing = "repairing"
	driftStopped   = "repair_limit"
)

// guardAnswer tells an ingest what became of its request, and operators where the
// guard stands.
type guardAnswer struct {
	State   string `json:"state"`
	OpensOn string `json:"opensOn,omitempty"` // of guardStopped: when the next repair may come
}

// setWebhooks carries out webhooks.set: by hand if mode is "", otherwise for an
// ingest.
func (o *owner) setWebhooks(ctx context.Context, address *string, mode string) (webhooksChange, error) {
	select {
	case o.hookTurn <- struct{}{}:
		defer func() { <-o.hookTurn }()
	case <-ctx.Done():
		return webhooksChange{}, ctx.Err()
	}
	g, err := o.loadGuard(ctx)
	if err != nil {
		return webhooksChange{}, err
	}
	if mode == "" {
		return o.setByHand(ctx, g, address)
	}
	return o.guardWebhook(ctx, g, *address, mode)
}

// setByHand suspends the guard, which would undo it otherwise. That is durable
// before the address is another.
func (o *owner) setByHand(ctx context.Context, g *guard, address *string) (webhooksChange, error) {
	before := *g
	g.Suspended, g.Found, g.Told = true, "", ""
	if err := o.saveGuard(ctx, g); err != nil {
		return webhooksChange{}, err
	}
	now, err := o.putWebhooks(ctx, address)
	if refused(err) {
		if err := o.saveGuard(ctx, &before); err != nil {
			return webhooksChange{}, err
		}
	}
	return now, err
}

// guardWebhook sees to it that an ingest's address is registered.
func (o *owner) guardWebhook(ctx context.Context, g *guard, address, mode string) (webhooksChange, error) {
	wanted := fingerprint(address)
	if mode == guardKeep {
		state := ""
		switch {
		case g.Suspended:
			state = guardSuspended
		case g.Wanted != "" && g.Wanted != wanted:
			state = guardSuperseded
		}
		if state != "" {
			return guarded(webhooksAnswer{}, guardAnswer{State: state}), o.refreshGuard(ctx, g)
		}
	}
	now, found, err := o.getWebhooks(ctx)
	if err != nil {
		return webhooksChange{}, err
	}
	ours := g.Wanted == wanted && !g.Suspended
	switch {
	case fingerprint(found) == wanted:
		return guarded(now, guardAnswer{State: guardKept}), o.closeDrift(ctx, g, wanted, address)
	case ours:
		return o.repair(ctx, g, now, found, address)
	}
	done, err := o.putWebhooks(ctx, &address)
	if err != nil {
		return webhooksChange{}, err
	}
	done.Guard = &guardAnswer{State: guardRegistered}
	return done, o.closeDrift(ctx, g, wanted, address)
}

// closeDrift notes that the wanted address is the registered one.
func (o *owner) closeDrift(ctx context.Context, g *guard, wanted, address string) error {
	if g.Found != "" && g.Told == "" { // whoever found it ended before it was told
		if err := o.tellDrift(ctx, g, address, driftRepairing); err != nil {
			return err
		}
	}
	if g.Wanted == wanted && !g.Suspended && g.Found == "" {
		return o.refreshGuard(ctx, g)
	}
	g.Wanted, g.Suspended, g.Found, g.Told = wanted, false, "", ""
	return o.saveGuard(ctx, g)
}

// repair registers the wanted address again in place of another. The repair is
// counted, and the drift told, before anything is changed.
func (o *owner) repair(ctx context.Context, g *guard, now webhooksAnswer, found, address string) (webhooksChange, error) {
	at, per := time.Now(), o.cfg.timing.guardPer
	g.prune(at, per)
	if g.Found == "" {
		g.Found, g.Told = maskForeign(found), ""
		g.Drifts++
	}
	reason := driftRepairing
	if len(g.Repairs) >= guardRepairs {
		reason = driftStopped
	} else {
		g.Repairs = append(g.Repairs, at.UnixMilli())
	}
	if err := o.saveGuard(ctx, g); err != nil {
		return webhooksChange{}, err
	}
	// Once a drift, and once more where it turns out later that nothing more is
	// done about it.
	if g.Told == "" || reason == driftStopped && g.Told != reason {
		if err := o.tellDrift(ctx, g, address, reason); err != nil {
			return webhooksChange{}, err
		}
	}
	if reason == driftStopped {
		return guarded(now, guardAnswer{State: guardStopped, OpensOn: g.opensOn(per)}), nil
	}
	done, err := o.putWebhooks(ctx, &address)
	if err == nil {
		done.Guard = &guardAnswer{State: guardRepaired}
		return done, o.closeDrift(ctx, g, fingerprint(address), address)
	}
	if refused(err) { // nothing has changed: this was no repair
		g.Repairs = g.Repairs[:len(g.Repairs)-1]
		if err := o.saveGuard(ctx, g); err != nil {
			return webhooksChange{}, err
		}
	}
	return webhooksChange{}, err
}

// tellDrift publishes the event of a drift and notes that it is durable. Its id
// follows from the drift, so that a repeat within the dedupe window adds nothing.
func (o *owner) tellDrift(ctx context.Context, g *guard, address, reason string) error {
	detail, err := json.Marshal(map[string]any{
		"registered": g.Found, "wanted": maskURL(address), "repairs": len(g.Repairs),
	})
	if err != nil {
		return err
	}
	e := schema.OpsEvent{Name: schema.OpsWebhookDrift, Reason: reason, Detail: detail}
	if reason == driftStopped {
		e.OpensOn = g.opensOn(o.cfg.timing.guardPer)
	}
	id := "ops-webhook-drift-" + fingerprint(address)[:16] + "-" + strconv.FormatUint(g.Drifts, 10) + "-" + reason
	if err := o.tellOps(ctx, e, id); err != nil {
		return err
	}
	g.Told = reason
	return o.saveGuard(ctx, g)
}

// guarded is the answer to an ingest for which nothing was set.
func guarded(now webhooksAnswer, g guardAnswer) webhooksChange {
	now.Guard = &g
	return webhooksChange{webhooksAnswer: now}
}

// getWebhooks asks the vendor what is registered; found is the whole address.
func (o *owner) getWebhooks(ctx context.Context) (now webhooksAnswer, found string, err error) {
	a, err := o.askVendor(ctx, o.client.GetWebhooks)
	if err != nil {
		return now, "", err
	}
	now, found, _, err = registered(a)
	return now, found, err
}

// putWebhooks registers an address, or none.
func (o *owner) putWebhooks(ctx context.Context, address *string) (webhooksChange, error) {
	a, err := o.askVendor(ctx, func(ctx context.Context) wazzup.Answer { return o.client.SetWebhooks(ctx, address) })
	if err != nil {
		called := a.Phase != "" && a.Phase != schema.PhaseNotSent
		refusal := a.Phase == schema.PhaseAnswered && a.Status >= 400 && a.Status < 500
		if !called || refusal {
			err = unchanged(err)
		}
		return webhooksChange{}, err
	}
	now, _, changed, err := registered(a)
	return webhooksChange{now, &changed}, err
}

// unchanged marks an error after which the address is surely what it was.
func unchanged(err error) error {
	f := *asFault(err)
	f.unchanged = true
	return &f
}

// refused reports whether the address is surely what it was before the error.
func refused(err error) bool {
	f, ok := errors.AsType[*fault](err)
	return ok && f.unchanged
}

// fingerprint tells two addresses apart without holding them: the hash of the
// address, but for what may be written in two ways. Of none it is "".
func fingerprint(address string) string {
	if address == "" {
		return ""
	}
	if u, err := url.Parse(address); err == nil {
		u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
		address = strings.TrimRight(u.String(), "/")
	}
	sum := sha256.Sum256([]byte(address))
	return hex.EncodeToString(sum[:])
}

// maskForeign names somebody else's address by its host: which part of the rest
// is a secret nobody knows. Two can still be told apart.
func maskForeign(address string) string {
	if address == "" {
		return driftNone
	}
	sum := sha256.Sum256([]byte(address))
	mask := "***" + hex.EncodeToString(sum[:4])
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return mask
	}
	return u.Scheme + "://" + u.Host + "/" + mask
}
