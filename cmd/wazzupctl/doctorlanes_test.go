package main_test

import (
	"strings"
	"testing"

	main "github.com/wazzup-relay/wazzup-relay/cmd/wazzupctl"
)

// TestDoctorOnLanes: what is paused is told, and what is closed once, unless the
// channel list has told it.
func TestDoctorOnLanes(t *testing.T) {
	t.Parallel()
	const other = "a0000000-0000-4000-8000-000000000009"
	lane := func(channel, class, rest string) string {
		return `{"channelId":"` + channel + `","class":"` + class + `","rate":"20/1m","inFlight":0,` + rest + `}`
	}
	for _, tt := range []struct {
		name  string
		lanes []string
		want  []string // what is printed of each check
	}{
		{"all open", []string{lane(whatsApp, "send", `"state":"open","backlog":3`), lane(whatsApp, "bulk", `"state":"open","backlog":4`)}, []string{
			"ok lanes 2, of which 0 are closed and none is paused; 7 commands wait",
		}},
		{"paused and forgotten", []string{lane(whatsApp, "bulk", `"state":"paused","reason":"operator","opensOn":"lane.resume","backlog":3`)}, []string{
			"warning lane " + whatsApp + " bulk paused: operator, until lane.resume, 3 waiting, rate 20/1m -> `wazzupctl lanes resume " + whatsApp + " --class bulk`, when it may go on",
		}},
		{"spam", []string{lane(whatsApp, "bulk", `"state":"paused","reason":"spam","opensOn":"lane.resume","backlog":0`)}, []string{
			"warning lane " + whatsApp + " bulk paused: spam, until lane.resume, rate 20/1m -> Wazzup rated messages as spam: look at what is sent there, then `wazzupctl lanes resume " + whatsApp + " --class bulk`",
		}},
		{"flood", []string{lane(whatsApp, "bulk", `"state":"paused","reason":"flood","opensOn":"later","backlog":0`)}, []string{
			"warning lane " + whatsApp + " bulk paused: flood, until later, rate 20/1m -> Wazzup broke off, too many messages: it goes on by itself, or with `wazzupctl lanes resume " + whatsApp + " --class bulk`",
		}},
		{"closed by a refusal", []string{
			lane(other, "bulk", `"state":"closed","reason":"CHANNEL_NOT_FOUND","opensOn":"the channel list holds the channel","backlog":1`),
			lane(other, "send", `"state":"closed","reason":"CHANNEL_NOT_FOUND","opensOn":"the channel list holds the channel","backlog":2`),
		}, []string{
			"broken channel " + other + " closed: CHANNEL_NOT_FOUND, until the channel list holds the channel, 3 waiting -> the channel is not in this integration: add it in Wazzup, or correct the producer; messages wait until then",
		}},
		{"shown by the channel list", []string{lane(telegram, "send", `"state":"closed","reason":"qr","opensOn":"state active","backlog":1`)}, []string{
			"ok lanes 1, of which 1 are closed and none is paused; 1 commands wait",
		}},
		{"a channel's breaker", []string{lane(whatsApp, "send", `"state":"closed","reason":"breaker","why":"channel","opensOn":"a probe at x","backlog":5`)}, []string{
			"broken channel " + whatsApp + " calls fail: breaker (channel), until a probe at x, 5 waiting -> it goes on by itself; the worker's log lines `call` say what fails (error, status, code): the network, a proxy, Wazzup",
		}},
		{"a family's breaker", []string{
			lane(whatsApp, "send", `"state":"closed","reason":"breaker","why":"family send","opensOn":"a probe at x","backlog":5`),
			lane(other, "send", `"state":"closed","reason":"breaker","why":"family send","opensOn":"a probe at x","backlog":6`),
		}, []string{
			"broken all of send calls fail: breaker (family send), until a probe at x, 11 waiting -> it goes on by itself; the worker's log lines `call` say what fails (error, status, code): the network, a proxy, Wazzup",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := main.LaneChecks("["+strings.Join(tt.lanes, ",")+"]", telegram)
			if err != nil || strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("%v, got\n  %s\nwant\n  %s", err, strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "))
			}
		})
	}
}

// TestDoctorOnTheVendor: what is not Wazzup's answer is not told as if it were, and
// a wait that ends by itself is no fault.
func TestDoctorOnTheVendor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, fault string
		status      int
		want        string
	}{
		{"a wrong key", `{"code":"HTTP_401","httpStatus":401}`, 401, "broken key Wazzup's answer: 401 HTTP_401"},
		{"no such account", `{"code":"ACCOUNT_NOT_FOUND","httpStatus":400}`, 400, "broken key Wazzup's answer: 400 ACCOUNT_NOT_FOUND"},
		{"after a 429", `{"code":"RATE_WAIT","description":"wait"}`, 503, "warning vendor RATE_WAIT: wait"},
		{"no way", `{"code":"CONNECTION","description":"no connection: refused"}`, 502, "broken vendor CONNECTION: no connection: refused"},
		{"its own fault", `{"code":"HTTP_500","httpStatus":500}`, 500, "broken vendor Wazzup's answer: 500 HTTP_500"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got, err := main.KeyCheck(tt.fault, tt.status); err != nil || got != tt.want {
				t.Errorf("got %q (%v), want %q", got, err, tt.want)
			}
		})
	}
}
