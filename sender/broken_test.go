package sender_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// A breaker that is open stays open when its owner dies: the next one calls nothing
// before its probe, says since when, and tells its end once.
func TestBreakerOutlivesItsOwner(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := sender.OpenFor(r.config(), time.Hour) // until the third owner
	cfg.ChannelsPoll = time.Hour
	cfg.SpamLimit = -1
	w := r.startDoomed(cfg)
	r.states(r.send("warm", phone, "up"))
	r.channelsRead()
	r.rule(simulator.Rule{Match: simulator.Match{Text: "lost"}, Fault: simulator.FaultDropBeforeRead})
	for i := range 5 {
		r.send(fmt.Sprint("lost-", i), fmt.Sprintf("7900000%04d", i), "lost")
	}
	if e := r.ops(schema.OpsBreakerOpened); e.ChannelID != simulator.ChannelWhatsApp {
		t.Errorf("breaker.opened: got %+v", e)
	}
	before := r.lanes()["send"]
	if before.State != "closed" || before.Reason != "breaker" || before.Since == nil || time.Since(*before.Since) > patience || before.OpensOn == "" {
		t.Errorf("lane: got %+v", before)
	}
	for i := range 5 {
		r.event(fmt.Sprint("lost-", i), schema.StateDead)
	}
	w.die()
	r.sim.ClearRules()
	r.send("held", phone, "held")
	other := fmt.Sprintf(`{"id":"other","chatType":"whatsapp","chatId":%q,"text":"x"}`, phone)
	if _, err := r.pub.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp2, []byte(other)); err != nil {
		t.Fatal(err)
	}
	stop := r.start(cfg)
	r.event("other", schema.StateSent)
	after := r.lanes()["send"]
	if after.State != "closed" || after.Reason != "breaker" || after.Since == nil || after.Since.Sub(*before.Since).Abs() > time.Millisecond || r.requested("held") {
		t.Errorf("lane of the next owner: got %+v, want it as %+v", after, before)
	}
	stop()
	stop = r.start(sender.OpenFor(cfg, time.Second))
	r.event("held", schema.StateSent)
	r.ops(schema.OpsBreakerClosed)
	stop()
	stop = r.start(cfg)
	if lane := r.lanes()["send"]; lane.State == "closed" {
		t.Errorf("lane of the fourth owner: got %+v", lane)
	}
	stop()
	if opened, closed := r.opsCount(schema.OpsBreakerOpened), r.opsCount(schema.OpsBreakerClosed); opened != 1 || closed != 1 {
		t.Errorf("opened was told %d times and closed %d times, want once", opened, closed)
	}
}
