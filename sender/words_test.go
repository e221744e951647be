package sender_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// A state that came by webhook while nobody owned the account is known before the
// first call, however late NATS hands it over.
func TestWordOfUnownedTimesComesBeforeTheFirstCall(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 500})
	r.channelEvent(simulator.StateNotEnoughMoney)
	r.send("held", phone, "x")
	other := fmt.Sprintf(`{"id":"other","chatType":"whatsapp","chatId":%q,"text":"x"}`, phone)
	if _, err := r.pub.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp2, []byte(other)); err != nil {
		t.Fatal(err)
	}
	c := newCutter(t, r.srv.URL(), func(bool, []byte) bool { return false })
	release := make(chan struct{})
	once := sync.OnceFunc(func() { close(release) })
	c.hold = func(toClient bool, frame []byte) <-chan struct{} {
		if !toClient || !bytes.Contains(frame, []byte(`"state":"notEnoughMoney"`)) {
			return nil
		}
		time.AfterFunc(500*time.Millisecond, once) // time for the calls that must not be made
		return release
	}
	r.startOn(queuetest.Conn(t, c), r.config())
	r.event("other", schema.StateSent)
	r.ops(schema.OpsLaneClosed)
	if n := len(r.sim.Sends()); n != 1 {
		t.Errorf("%d calls, want the other channel's only", n)
	}
	r.channelEvent(simulator.StateActive)
	r.event("held", schema.StateSent)
}
