package sender

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// ops tells operators something once, in the log and as an event. The owner's
// mutex is held.
func (o *owner) ops(name schema.OpsName, channel, reason, opensOn string) {
	o.opsEvent(schema.OpsEvent{Name: name, ChannelID: channel, Reason: reason, OpensOn: opensOn})
}

// opsEvent is ops for an event that has more to say. It fills in account and time.
func (o *owner) opsEvent(e schema.OpsEvent) {
	o.publishOps(o.fillOps(e), o.opsID(), nil)
}

// fillOps adds account and time to an event.
func (o *owner) fillOps(e schema.OpsEvent) schema.OpsEvent {
	e.Account, e.At = o.cfg.Account, time.Now().UTC()
	return e
}

// opsID is the id of an event that nobody else could tell.
func (o *owner) opsID() string {
	return "ops-" + o.lease.Epoch + "-" + strconv.FormatUint(o.nonces.Add(1), 36)
}

// tellOps publishes an event whose id follows from what happened, and returns when
// it is durable. The owner's mutex is not held.
func (o *owner) tellOps(ctx context.Context, e schema.OpsEvent, id string) error {
	done := make(chan error, 1)
	o.mu.Lock()
	o.publishOps(o.fillOps(e), id, func(err error) { done <- err })
	o.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publishOps publishes an operator event; done may be nil. The owner's mutex is held.
func (o *owner) publishOps(e schema.OpsEvent, id string, done func(error)) {
	name, channel := e.Name, e.ChannelID
	o.log.Warn().Str("event", string(name)).Str("channel", channel).Str("class", e.Class).Str("reason", e.Reason).Str("opens_on", e.OpensOn).Msg("ops")
	body, err := json.Marshal(e)
	if err != nil {
		o.log.Error().Err(err).Msg("ops_event_not_encoded")
		if done != nil {
			done(err)
		}
		return
	}
	o.enter()
	o.ledger.Publish(queue.Event{
		Subject:   schema.OpsEventSubject(o.cfg.Account, name),
		ID:        id,
		Account:   o.cfg.Account,
		Type:      "wazzup.ops." + string(name),
		CESubject: channel,
		Time:      e.At,
		Body:      body,
	}, func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.leave()
		if done != nil {
			done(err)
		}
	})
}

const (
	// unknownCodeEvery is how often operators are told of one code: a campaign may
	// meet it with every message.
	unknownCodeEvery = time.Hour
	// unknownCodesMax bounds what is remembered of what the vendor makes up.
	unknownCodesMax = 100
)

// unknownCode tells operators of a code that is not in the tables. The owner's mutex
// is held.
func (o *owner) unknownCode(channel, code string) {
	now := time.Now()
	if last, told := o.unknownCodes[code]; told && now.Sub(last) < unknownCodeEvery {
		return
	}
	if len(o.unknownCodes) >= unknownCodesMax {
		clear(o.unknownCodes)
	}
	o.unknownCodes[code] = now
	o.ops(schema.OpsVendorUnknownCode, channel, code, "")
}

// reply sends a copy of an event to the subject that its producer named. It is
// core NATS: whoever listens gets it, nobody is waited for.
func (o *owner) reply(subject string, e queue.Event) {
	m := e.Msg()
	m.Header.Del(schema.HeaderMsgID)
	err := o.nc.PublishMsg(&nats.Msg{Subject: subject, Header: m.Header, Data: m.Data})
	if err != nil {
		o.log.Warn().Err(err).Msg("reply_not_published")
	}
}
