package sender_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// A producer may give its message any header, even those that the server gives
// its own words about pull requests.
func TestStatusHeaderOfAProducer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(r.config())
	m := nats.NewMsg(schema.SendSubject("main", schema.KindSend, simulator.ChannelWhatsApp))
	m.Header.Set("Status", "409")
	if _, err := r.js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	r.send("after", phone, "x")
	r.event("after", schema.StateSent)
	if e := r.bySeq(1); e.State != schema.StateInvalid {
		t.Errorf("the empty command: got %s, want invalid", e.State)
	}
	r.emptied()
}

// An id may be chosen to be the one that another message would be given.
func TestDerivedIDOfAnother(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	topology, err := queue.Ensure(t.Context(), r.js, "main", limits())
	if err != nil {
		t.Fatal(err)
	}
	r.start(r.config())
	id := queue.Origin{Created: topology.Created.UnixNano(), Seq: 2}.ID(topology.Commands())
	r.states(r.send(id, phone, "x"))
	r.publish(schema.KindSend, "", fmt.Sprintf(`{"chatType":"whatsapp","chatId":%q,"text":"y"}`, phone))
	if e := r.bySeq(2); e.State != schema.StateInvalid || e.Error.Code != schema.FaultIDReused {
		t.Errorf("got %s %+v, want invalid ID_REUSED", e.State, e.Error)
	}
	r.emptied()
}

// A command that grows too old while it waits is not called.
func TestTooOldWhileHeld(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.Limits.Retention = time.Hour + 4*time.Second
	if err := r.sim.AddRule(simulator.Rule{
		Match: simulator.Match{Path: "/v2/send_message"}, Times: 1, Status: 429, Headers: map[string]string{"Retry-After": "5"},
	}); err != nil {
		t.Fatal(err)
	}
	r.start(cfg)
	r.channelsRead() // the worker is up
	r.states(r.send("a", phone, "1"))
	if e := r.event("a", schema.StateDead); e.Error.Reason != schema.ReasonTooOld {
		t.Errorf("reason: got %s, want too_old", e.Error.Reason)
	}
	if n := len(r.sim.Sends()); n != 1 {
		t.Errorf("the vendor got %d requests, want only the one that met 429", n)
	}
}

// Of a channel's former states only the last one counts at a start.
func TestFormerStatesAreNoNews(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 500}); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"disabled", "active"} {
		body := fmt.Sprintf(`{"channelId":%q,"state":%q}`, simulator.ChannelWhatsApp, state)
		if _, err := r.js.Publish(t.Context(), schema.ChannelEventSubject("main", simulator.ChannelWhatsApp, state), []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	r.start(r.config())
	r.send("a", phone, "1")
	r.event("a", schema.StateSent)
	if some, err := r.stored("wazzup.main.evt.ops.lane.>"); err != nil || some {
		t.Errorf("lane events: got %v (%v), want none", some, err)
	}
}

func (r *rig) stored(subject string) (bool, error) {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		return false, err
	}
	_, err = s.GetLastMsgForSubject(r.t.Context(), subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return err == nil, err
}

// A key that may read the channels but not send must not loop.
func TestAccountThatMayNotSend(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.config()
	cfg.Backoff.Min, cfg.Backoff.Max = time.Second, time.Minute
	if err := r.sim.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/send_message"}, Status: 403, Times: 2}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	r.start(cfg)
	r.states(r.send("a", phone, "1"))
	if took := time.Since(start); took < time.Second {
		t.Errorf("sent after two refusals within %v, want the second to be waited for", took)
	}
	if n := len(r.sim.Sends()); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

// NATS stores a command on a subject whose channel token looks like a wildcard. It
// ends invalid, and no lane of its class suffers.
func TestChannelTokenThatIsAWildcard(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"*", ">"} {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprint(token, " before the owner ", before), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				hostile := func() {
					m := &nats.Msg{Subject: schema.SendSubject("main", schema.KindBulk, token), Data: []byte(`{"id":"hostile"}`)}
					if _, err := r.js.PublishMsg(t.Context(), m); err != nil {
						t.Fatal(err)
					}
				}
				if before {
					hostile()
				}
				r.start(r.config())
				if !before {
					r.event(r.bulk("first", phone), schema.StateSent)
					hostile()
				}
				r.event("hostile", schema.StateInvalid)
				if some, err := r.stored(schema.CommandEventSubject("main", schema.StateInvalid, schema.KindBulk, schema.Key(token))); err != nil || !some {
					t.Errorf("its event is not on a subject of its own: %v", err)
				}
				r.event(r.bulk("after", "79000000001"), schema.StateSent)
				if lane := r.lanes()["bulk"]; lane.State != "open" {
					t.Errorf("the channel's own lane: got %+v", lane)
				}
				r.emptied()
				r.endedOnce()
			})
		}
	}
}

// Whoever may publish commands can invent channels. Each such command ends invalid,
// and neither a consumer nor a lane is made for it.
func TestManyMalformedChannels(t *testing.T) {
	t.Parallel()
	const many = 2000
	r := newRig(t)
	r.start(r.config())
	r.event(r.bulk("first", phone), schema.StateSent)
	for i := range many {
		subject := schema.SendSubject("main", schema.KindSend, fmt.Sprint("no-channel-", i))
		if _, err := r.js.PublishAsync(subject, fmt.Appendf(nil, `{"id":"nonsense-%d"}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range r.finals(1 + many)[1:] {
		if e.State != schema.StateInvalid {
			t.Fatalf("%s ended %s", e.ID, e.State)
		}
	}
	r.emptied()
	r.endedOnce()
	s, err := r.js.Stream(t.Context(), queue.Names{Account: "main"}.Commands())
	if err != nil {
		t.Fatal(err)
	}
	// Those of the channel list, the sync lanes, and a bulk one.
	if n := s.CachedInfo().State.Consumers; n > 20 {
		t.Errorf("%d consumers", n)
	}
}

// A sync command of which the vendor refuses much, in many words, ends all the same.
func TestRefusalsTooLargeForAnEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.sim.AddRule(simulator.Rule{
		Match: simulator.Match{Method: "DELETE"}, Status: 400, Code: "VALIDATION_ERROR", Description: strings.Repeat(`"`, 4000),
	}); err != nil {
		t.Fatal(err)
	}
	r.start(r.config())
	ids := make([]string, 600)
	for i := range ids {
		ids[i] = fmt.Sprint("contact-", i, strings.Repeat("x", 50))
	}
	if _, err := r.pub.Sync(t.Context(), schema.EntityContacts, schema.VerbDelete, ids, queue.WithID("refused")); err != nil {
		t.Fatal(err)
	}
	if e := r.event("refused", schema.StateRejected); len(e.Items) == 0 || e.Error == nil {
		t.Errorf("got %d items, error %+v", len(e.Items), e.Error)
	}
	r.emptied()
}
