//go:build system

package systemtest_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// A chat that waits with 10,000 commands does not stop the other chats of its
// lane, through a kill of the worker; when its doubt is settled, all of them go
// in their order.
func TestTenThousandWaitInOneChat(t *testing.T) {
	const many, others = 10_000, 300
	channels := whatsapps(1)
	r := newRig(t, simulator.Config{Channels: channels})
	r.collect()
	if err := r.sim.AddRule(simulator.Rule{
		Match: simulator.Match{Path: "/v2/send_message", Text: "0"}, Times: 1, Fault: simulator.FaultDropAfterAccept,
	}); err != nil {
		t.Fatal(err)
	}
	r.echo(channels[0], "79990000000", "any", "webhooks arrive here")
	r.load(channels, 1, many)
	env := r.env("WAZZUP_RECONCILE_WAIT=10m")
	w := runWorker(t, env...)
	r.waitUnsure("cmd-000000")
	r.waitLeft(50) // all but a few of them were parked
	w.kill()
	runWorker(t, env...)
	for i := range others {
		subject := "wazzup.main.cmd.send." + channels[0].ChannelID
		body := fmt.Sprintf(`{"id":"other-%d","chatType":"whatsapp","chatId":"7911%07d","text":"other %d"}`, i, i, i)
		if _, err := r.js.Publish(t.Context(), subject, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	r.waitFinals(others, time.Minute)
	if n := len(r.sim.Sends()); n != others+1 {
		t.Errorf("%d requests while the chat waits, want %d", n, others+1)
	}
	r.echo(channels[0], "79000000000", "echo-of-0", "0")
	r.waitFinals(others+many, 3*time.Minute)
	next := 0
	for _, s := range r.sim.Sends() {
		if s.ChatID != "79000000000" {
			continue
		}
		if s.Text != strconv.Itoa(next) {
			t.Fatalf("the chat got %s, want %d", s.Text, next)
		}
		next++
	}
	if next != many {
		t.Errorf("the chat got %d messages, want %d", next, many)
	}
	r.waitEmpty()
}

// echo stores what ingest would for the vendor's echo of an API send.
func (r *rig) echo(ch simulator.Channel, chat, messageID, text string) {
	r.t.Helper()
	body := fmt.Appendf(nil, `{"messageId":%q,"channelId":%q,"chatType":"whatsapp","chatId":%q,"authorType":9,"dateTime":%d,"text":%q}`,
		messageID, ch.ChannelID, chat, time.Now().UnixMilli(), text)
	m := queue.Event{
		Subject: schema.MessageEventSubject("main", "out", ch.ChannelID, schema.ChatWhatsApp, chat),
		ID:      "message-" + messageID, Account: "main", Type: "wazzup.message.out", CESubject: messageID, Time: time.Now(), Body: body,
	}.Msg()
	if _, err := r.js.PublishMsg(r.t.Context(), m); err != nil {
		r.t.Fatal(err)
	}
}

// waitUnsure waits until the fate of a command is unknown.
func (r *rig) waitUnsure(id string) {
	r.t.Helper()
	timeout := time.After(time.Minute)
	for {
		r.mu.Lock()
		unsure, change := r.unsure[id], r.change
		r.mu.Unlock()
		if unsure {
			return
		}
		select {
		case <-change:
		case <-timeout:
			r.t.Fatalf("%s was never in doubt", id)
		}
	}
}

// waitLeft waits until the command stream holds at most n commands.
func (r *rig) waitLeft(n uint64) {
	r.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(time.Minute)
	for {
		_, left := r.stored()
		if left <= n {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("%d commands are left in the queue, want at most %d", left, n)
		}
	}
}
