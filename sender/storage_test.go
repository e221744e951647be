package sender_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// It is told once when a stream reaches 80 %, and again only after it fell below
// 75 %.
func TestStorageIsToldOnce(t *testing.T) {
	t.Parallel()
	var f sender.Fill
	for i, step := range []struct {
		bytes uint64
		tell  bool
	}{
		{0, false},
		{799, false},
		{800, true},
		{801, false},
		{1000, false},
		{799, false},
		{750, false},
		{800, false},
		{749, false},
		{799, false},
		{900, true},
		{900, false},
		{0, false},
		{1000, true},
	} {
		if got := f.Read(step.bytes, 1000); got != step.tell {
			t.Errorf("step %d, %d of 1000 bytes: told = %t, want %t", i, step.bytes, got, step.tell)
		}
	}
	var unlimited sender.Fill
	if unlimited.Read(1<<40, 0) {
		t.Error("a stream without a limit is told to be full")
	}
}

// The commands stream fills up: operators hear of it once, before publishers get
// JetStream's error. What was acknowledged is sent, and a refused command that is
// published again with its id is as good as any.
func TestCommandsStreamFillsUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := sender.Hasty(r.config(), time.Hour)
	cfg.ChannelsPoll = time.Hour
	cfg.Limits.CommandBytes = 64 << 10
	r.start(cfg)
	r.states(r.send("warm", phone, "up"))
	r.channelsRead()
	r.channelEvent(simulator.StateNotEnoughMoney)
	r.ops(schema.OpsLaneClosed)

	stored, refused := 0, ""
	for refused == "" {
		id := fmt.Sprint("c-", stored)
		body := fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":"7900000%04d","text":%q}`, id, stored, strings.Repeat("x", 400))
		_, err := r.pub.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp, []byte(body))
		switch api, ok := errors.AsType[*jetstream.APIError](err); {
		case err == nil:
			stored++
		case ok && api.ErrorCode == 10077:
			refused = body
		default:
			t.Fatalf("after %d commands: got %v, want JetStream's error 10077", stored, err)
		}
	}
	high := r.ops(schema.OpsStorageHigh)
	var detail struct {
		Stream string `json:"stream"`
		Bytes  int64  `json:"bytes"`
		Limit  int64  `json:"limit"`
	}
	if err := json.Unmarshal(high.Detail, &detail); err != nil {
		t.Fatalf("%v: %s", err, high.Detail)
	}
	if high.Reason != "commands" || detail.Stream != "wazzup-main-commands" || detail.Limit != 64<<10 || detail.Bytes < detail.Limit*8/10 || detail.Bytes > detail.Limit {
		t.Errorf("storage.high: got %+v with %s", high, high.Detail)
	}

	r.channelEvent(simulator.StateActive)
	r.finals(1 + stored)
	if _, err := r.pub.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp, []byte(refused)); err != nil {
		t.Fatalf("published again when there is room: %v", err)
	}
	for _, e := range r.finals(2 + stored) {
		if e.State != schema.StateSent {
			t.Errorf("%s ended %s %+v", e.ID, e.State, e.Error)
		}
	}
	if n := len(r.sim.Sends()); n != 2+stored {
		t.Errorf("%d requests for %d commands", n, 2+stored)
	}
	if n := r.count(schema.OpsEventSubject("main", schema.OpsStorageHigh)); n != 1 {
		t.Errorf("storage.high was told %d times, want once", n)
	}
}

// Each of the account's streams is told of, once until it has fallen, whoever owns
// the account.
func TestEachStreamIsToldOnceByAllOwners(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := sender.Hasty(r.config(), time.Hour)
	cfg.ChannelsPoll = time.Hour
	cfg.Limits = queue.Limits{CommandBytes: 64 << 10, RecordBytes: 4 << 20, DeferredBytes: 64 << 10, DeadBytes: 64 << 10}
	// A chat for each, or those in hand would be parked.
	body := func(id string, n int, at string) []byte {
		return fmt.Appendf(nil, `{"id":%q,"chatType":"whatsapp","chatId":"7900000%04d","text":%q%s}`, id, n, strings.Repeat("x", 1000), at)
	}
	full := func(name string) bool {
		s, err := r.js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		info := s.CachedInfo()
		limit := map[string]int64{"wazzup-main-records": 4 << 20}[name]
		return int64(info.State.Bytes)*100 >= max(limit, 64<<10)*85 //nolint:gosec // small
	}
	for n := 100; !full("wazzup-main-dead"); n += 100 {
		r.buryMany(n)
	}
	w := r.startDoomed(cfg)
	r.states(r.send("warm", phone, "up"))
	r.laneRequest("pause", "")
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for i := 0; !full("wazzup-main-deferred"); i++ {
		if _, err := r.pub.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp2, body(fmt.Sprint("d-", i), i, `,"sendAt":"`+later+`"`)); err != nil {
			t.Fatal(err)
		}
		r.emptied() // it is deferred
	}
	for i := 0; !full("wazzup-main-commands"); i++ {
		if _, err := r.pub.Send(t.Context(), schema.KindSend, simulator.ChannelWhatsApp, body(fmt.Sprint("c-", i), i, "")); err != nil {
			t.Fatal(err)
		}
	}
	for !full("wazzup-main-records") {
		if _, err := r.js.Publish(t.Context(), "wazzup.main.evt.message.in."+simulator.ChannelWhatsApp+".whatsapp."+phone, fmt.Appendf(nil, `{"x":%q}`, strings.Repeat("x", 100_000))); err != nil {
			t.Fatal(err)
		}
	}
	told := func(want string) {
		t.Helper()
		var got string
		if err := waitFor(t, func() bool { got = r.reasons(schema.OpsStorageHigh); return got == want }); err != nil {
			t.Fatalf("%v: told of %q, want %q", err, got, want)
		}
	}
	told("commands dead deferred records")
	w.die()
	stop := r.start(cfg)
	r.lanes()
	if err := waitFor(t, func() bool { return r.lanes()["send"].Backlog > 0 }); err != nil {
		t.Fatal(err)
	}
	r.laneRequest("resume", "")
	if err := waitFor(t, func() bool { return r.lanes()["send"].Backlog == 0 }); err != nil { // it has fallen
		t.Fatal(err)
	}
	stop()
	told("commands dead deferred records")
}

// reasons are those of all operator events of a name, in the order of the alphabet.
func (r *rig) reasons(name schema.OpsName) string {
	r.t.Helper()
	var all []string
	err := r.ledger().Events(r.t.Context(), schema.OpsEventSubject("main", name), 1, func(_ uint64, body []byte) error {
		var e schema.OpsEvent
		if err := json.Unmarshal(body, &e); err != nil {
			return err
		}
		all = append(all, e.Reason)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// count is how many events are stored on a subject.
func (r *rig) count(subject string) uint64 {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), queue.Names{Account: "main"}.Records())
	if err != nil {
		r.t.Fatal(err)
	}
	info, err := s.Info(r.t.Context(), jetstream.WithSubjectFilter(subject))
	if err != nil {
		r.t.Fatal(err)
	}
	return info.State.Subjects[subject]
}
