package sender

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Where messages are accepted and no status comes by webhook, the webhooks most
// likely go astray. Whether it is so follows from the stored events alone, so that
// it is told once, whatever ends and whoever takes over in between.

// Shares of Config.Silence.
const (
	silenceLooks = 15 // how often it is looked in that time
	// A status may overtake the event of its own message: what is sent this soon
	// after a status need not have one of its own yet.
	silenceSlack = 30
)

// silenceLookMin keeps a short setting from asking NATS all the time.
const silenceLookMin = 20 * time.Millisecond

// silence is what is known of the statuses.
type silence struct {
	first queue.StoredEvent // of a message sent since the last status; zero: there is none
	since time.Time         // when that was stored
	told  bool
}

// over reports whether the silence has lasted too long.
func (s *silence) over(now time.Time, limit time.Duration) bool {
	return limit > 0 && s.first.Sequence != 0 && now.Sub(s.since) >= limit
}

// silence reads what the stored events say.
func (o *owner) silence(ctx context.Context) (s silence, err error) {
	if o.cfg.Silence <= 0 {
		return s, nil
	}
	status, err := o.ledger.LastEvent(ctx, schema.StatusEventSubject(o.cfg.Account, "*"))
	if err != nil {
		return s, err
	}
	var since time.Time
	if status.Sequence != 0 {
		since = status.Stored.Add(o.cfg.Silence / silenceSlack)
	}
	if s.first, err = o.ledger.FirstEventSince(ctx, sentSubjects(o.cfg.Account), since); err != nil || s.first.Sequence == 0 {
		return s, err
	}
	s.since = s.first.Stored
	last, err := o.ledger.LastEvent(ctx, schema.OpsEventSubject(o.cfg.Account, schema.OpsWebhookSilent))
	s.told = last.Sequence > s.first.Sequence
	return s, err
}

// sentSubjects matches every event that says that a message was sent.
func sentSubjects(account string) string {
	one := schema.CommandEventSubject(account, schema.StateSent, schema.KindSend, "")
	return strings.TrimSuffix(one, string(schema.KindSend)+"."+schema.NoChannel) + ">"
}

// watchSilence tells operators of every silence, once.
func (o *owner) watchSilence(ctx context.Context) {
	if o.cfg.Silence > 0 {
		o.every(ctx, max(o.cfg.Silence/silenceLooks, silenceLookMin), "watch_silence", o.tellSilence)
	}
}

func (o *owner) tellSilence(ctx context.Context) error {
	o.mu.Lock()
	quiet := time.Since(o.statuses.last) >= o.cfg.Silence
	o.mu.Unlock()
	if !quiet {
		return nil // the usual case, without a request
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s, err := o.silence(ctx)
	if err != nil || s.told || !s.over(time.Now(), o.cfg.Silence) {
		return err
	}
	detail, err := json.Marshal(map[string]string{"since": schema.FormatTime(s.since), "limit": o.cfg.Silence.String()})
	if err != nil {
		return err
	}
	// Whoever tells of the same silence does so under the same id.
	return o.tellOps(ctx, schema.OpsEvent{Name: schema.OpsWebhookSilent, Reason: "no_status", Detail: detail},
		"ops-webhook-silent-"+strconv.FormatUint(s.first.Sequence, 10))
}
