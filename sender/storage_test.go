package sender_test

import (
	"encoding/json"
	"errors"
	"fmt"
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
