package main_test

import (
	"testing"
	"time"

	main "github.com/wazzup-relay/wazzup-relay/cmd/wazzupctl"
)

// TestOpsEventLine: an operator event says all that it has to say, on one line.
func TestOpsEventLine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 10, 0, 0, 5e6, time.UTC)
	local := at.Local().Format(time.DateTime)
	for _, tt := range []struct{ name, event, body, want string }{
		{"a pause of one class", "lane.paused", `{"channelId":"c","class":"bulk","reason":"operator","opensOn":"lane.resume"}`,
			"ops        lane.paused channel=c class=bulk reason=operator opens_on=lane.resume"},
		{"until a time", "lane.paused", `{"reason":"flood","opensOn":"2026-11-22T10:00:00.005Z"}`,
			`ops        lane.paused reason=flood opens_on="` + local + `"`},
		{"a probe", "breaker.opened", `{"reason":"send","opensOn":"a probe at 2026-11-22T10:00:00.005Z"}`,
			`ops        breaker.opened reason=send opens_on="a probe at ` + local + `"`},
		{"a stream", "storage.high", `{"reason":"records","detail":{"stream":"wazzup-main-records","bytes":81,"limit":100}}`,
			"ops        storage.high reason=records bytes=81 limit=100 stream=wazzup-main-records"},
		{"a command", "late_proof", `{"channelId":"c","class":"send","detail":{"id":"order-1","evidence":"echo","generation":0}}`,
			"ops        late_proof channel=c class=send evidence=echo generation=0 id=order-1"},
		{"an odd detail", "late_proof", `{"detail":["x"]}`, "ops        late_proof"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := main.EventLine("wazzup.main.evt.ops."+tt.event, tt.body); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
