package sender_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// invented is the id of a channel that nobody has.
func invented(i int) string { return fmt.Sprintf("bad00000-0000-4000-8000-%012x", i) }

// invent publishes one bulk command to each of n channels that nobody has. The command's
// id is that of the channel.
func (r *rig) invent(n int, rest func(i int) string) {
	r.t.Helper()
	for i := range n {
		m := &nats.Msg{
			Subject: schema.SendSubject("main", schema.KindBulk, invented(i)),
			Data:    fmt.Appendf(nil, `{"id":%q,"chatType":"whatsapp","chatId":"7900%07d"%s}`, invented(i), i, rest(i)),
		}
		if _, err := r.js.PublishMsgAsync(m, jetstream.WithStallWait(30*time.Second)); err != nil {
			r.t.Fatal(err)
		}
	}
	select {
	case <-r.js.PublishAsyncComplete():
	case <-time.After(30 * time.Second):
		r.t.Fatal("the commands of invented channels are not stored")
	}
}

const someText = `,"text":"x"`

// More channels are invented than NATS makes consumers for. The account's others do
// not notice: its lanes go on, new ones are found, by this owner and by the next.
func TestMoreInventedChannelsThanConsumers(t *testing.T) {
	t.Parallel()
	const many = 25_000
	r := newRig(t)
	fresh := r.inventChannels(2) // these the vendor has
	cfg := sender.Wary(r.config(), 256)
	stop := r.start(cfg)
	r.channelsRead()
	r.event(r.bulk("first", phone), schema.StateSent)
	r.invent(many, func(int) string { return someText })
	for i, channel := range fresh {
		began := time.Now()
		r.event(r.send(fmt.Sprint("known-", i), phone, "x"), schema.StateSent)
		known := time.Since(began)
		r.bulkOn(channel, fmt.Sprint("new-", i), phone, "x")
		r.event(fmt.Sprint("new-", i), schema.StateSent)
		t.Logf("owner %d: a command of a known lane took %v, one of a new lane %v", i+1, known, time.Since(began)-known)
		if i == 0 {
			stop()
			r.start(cfg)
		}
	}
	s, err := r.js.Stream(t.Context(), queue.Names{Account: "main"}.Commands())
	if err != nil {
		t.Fatal(err)
	}
	state := s.CachedInfo().State
	if state.Consumers > 1000 {
		t.Errorf("there are %d consumers", state.Consumers)
	}
	if state.Msgs < many {
		t.Errorf("%d commands are left of the %d that wait for their channels", state.Msgs, many)
	}
	if calls := len(r.sim.Requests()); calls > 1000 {
		t.Errorf("the vendor was called %d times", calls)
	}
}

// A channel for which the vendor took a message is no stranger, whoever lists it.
func TestChannelsThatNobodyLists(t *testing.T) {
	t.Parallel()
	const most, many = 10, 80
	r := newRig(t)
	channels := r.inventChannels(many)
	r.rule(simulator.Rule{Match: simulator.Match{Path: "/v2/channels"}, Status: 200, Body: "[]"})
	r.start(sender.Wary(r.config(), most))
	r.channelsRead()
	for i, channel := range channels {
		r.bulkOn(channel, fmt.Sprint("c-", i), phone, "x")
	}
	for i := range channels {
		r.event(fmt.Sprint("c-", i), schema.StateSent)
	}
}

// Of the lanes of channels that nobody has named only so many are opened. Of the rest,
// what can end without a call ends, and what cannot waits on disk until the vendor
// lists its channel. Operators are told once, whoever owns the account.
func TestStrangersWaitForTheChannelList(t *testing.T) {
	t.Parallel()
	const most, many = 10, 80
	r := newRig(t)
	reader := sdkmetric.NewManualReader()
	r.meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	cfg := sender.Wary(r.config(), most)
	cfg.ChannelsPoll = 50 * time.Millisecond
	stop := r.start(cfg)
	r.channelsRead()
	r.invent(many, func(i int) string {
		switch i % 4 {
		case 0:
			return `,"text":17`
		case 1:
			return someText + `,"expireAt":"2001-01-01T00:00:00Z"`
		}
		return someText
	})
	r.finals(many / 2)
	for i := range many {
		want := map[int]schema.State{0: schema.StateInvalid, 1: schema.StateExpired}[i%4]
		if want == "" {
			continue
		}
		if got := r.states(invented(i)); len(got) != 1 || got[0] != want {
			t.Errorf("%d ended %v, want %s", i, got, want)
		}
	}
	crowded := func(s series) bool { return s["wazzup.lanes unlisted"] >= many/2-most }
	until(t, reader, "lanes to wait for the list", crowded)
	waits := r.unlistedLane()
	stop()
	stop = r.start(cfg)
	until(t, reader, "lanes to wait for the list, at the next owner", crowded)
	if err := r.sim.SetChannel(simulator.Channel{ChannelID: waits, Transport: "whatsapp", PlainID: "79990000009"}); err != nil {
		t.Fatal(err)
	}
	r.event(waits, schema.StateSent)

	s, err := r.js.Stream(t.Context(), queue.Names{Account: "main"}.Commands())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := r.ops(schema.OpsLaneOpened); e.Reason != "NOT_LISTED" || e.ChannelID != "" {
		t.Errorf("it is told to be over by %+v", e)
	}
	stop()
	closed := strings.Fields(r.reasons(schema.OpsLaneClosed))
	if n := count(closed, "NOT_LISTED"); n != 1 {
		t.Errorf("operators were told %d times", n)
	}
	if n := count(closed, "CHANNEL_NOT_FOUND"); n > most {
		t.Errorf("the vendor was asked for %d channels, want %d at most", n, most)
	}
}

// While the server does not answer which subjects hold commands, the account is served
// all the same, by the lanes of its channel list.
func TestNobodyTellsWhichLanesHoldCommands(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.bulk("found later", phone)
	answered := make(chan struct{})
	answer := sync.OnceFunc(func() { close(answered) })
	defer answer()
	list := []byte("PUB $JS.API.STREAM.INFO." + queue.Names{Account: "main"}.Commands() + " ")
	c := newHolder(t, r.srv.URL(), func(toClient bool, frame []byte) <-chan struct{} {
		if !toClient && bytes.HasPrefix(frame, list) && bytes.Contains(frame, []byte("subjects_filter")) {
			return answered
		}
		return nil
	})
	r.startOn(queuetest.Conn(t, c), sender.Impatient(r.config()))
	r.event(r.send("known", phone, "x"), schema.StateSent)
	if n := len(r.finals(1)); n != 1 {
		t.Errorf("%d commands have ended, want only that of a listed channel's transactional lane", n)
	}
	answer()
	r.event("found later", schema.StateSent)
}

// unlistedLane is the channel of one of the lanes that wait for the channel list, and
// hold a command that does not end meanwhile.
func (r *rig) unlistedLane() string {
	r.t.Helper()
	var list sender.LaneList
	if err := json.Unmarshal(r.ask("lanes.list", `{}`).Body, &list); err != nil {
		r.t.Fatal(err)
	}
	lasts := func(channel string) bool {
		var i int
		_, err := fmt.Sscanf(channel, "bad00000-0000-4000-8000-%x", &i)
		return err == nil && i%4 > 1
	}
	for _, item := range list.Items {
		if item.Reason == "NOT_LISTED" && lasts(item.ChannelID) {
			if item.State != "closed" || item.OpensOn != sender.ReopenOnList || item.Since == nil || item.Oldest == nil || item.Backlog != 1 {
				r.t.Errorf("got %+v", item)
			}
			return item.ChannelID
		}
	}
	r.t.Fatalf("no lane waits for the list: %+v", list.Items)
	return ""
}
