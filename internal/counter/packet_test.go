package counter_test

import (
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/counter"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, frame, want string }{
		{"ping", "2", "ping"},
		{"ping with data", "2probe", "ping"},
		{"pong", "3", "other"},
		{"noop", "6", "other"},
		{"nothing", "", "other"},
		{"message without a type", "4", "other"},
		{"close", "1", "disconnected"},
		{"connect of 2.x", "40", "connected legacy"},
		{"connect of 4.x", `40{"sid":"x"}`, "connected"},
		{"connect of another namespace", `40/ns,{"sid":"x"}`, "other"},
		{"disconnect", "41", "disconnected"},
		{"connect error", `44{"message":"no"}`, "disconnected"},
		{"counter", `42["apiV2Notify",{"counter":3}]`, "notified 3"},
		{"counter that wants an acknowledgement", `4217["apiV2Notify",{"counter":3,"more":[1]}]`, "notified 3"},
		{"counter as text", `42["apiV2Notify",{"counter":"12"}]`, "notified 12"},
		{"counter of another namespace", `42/ns,["apiV2Notify",{"counter":3}]`, "other"},
		{"another event", `42["hello",{"counter":3}]`, "other"},
		{"no event at all", `42{"counter":3}`, "other"},
		{"event without a name", `42[7]`, "other"},
		{"binary event", `451-["apiV2Notify",{"_placeholder":true,"num":0}]`, "other"},
		{"no counter", `42["apiV2Notify",{}]`, "error"},
		{"no argument", `42["apiV2Notify"]`, "error"},
		{"a fraction", `42["apiV2Notify",{"counter":1.5}]`, "error"},
		{"beyond every number", `42["apiV2Notify",{"counter":99999999999999999999}]`, "error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := counter.Parse(tt.frame); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseOpening(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, frame       string
		interval, timeout time.Duration
		bad               bool
	}{
		{"usual", `0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":5000,"maxPayload":1000000}`, 25 * time.Second, 5 * time.Second, false},
		{"without times", `0{}`, 25 * time.Second, 20 * time.Second, false},
		{"nonsense times", `0{"pingInterval":-1,"pingTimeout":0}`, 25 * time.Second, 20 * time.Second, false},
		{"endless times", `0{"pingInterval":1e300,"pingTimeout":1}`, 5 * time.Minute, 50 * time.Millisecond, false},
		{"no opening", `40`, 0, 0, true},
		{"no JSON", `0x`, 0, 0, true},
		{"nothing", ``, 0, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			interval, timeout, err := counter.ParseOpening(tt.frame)
			if interval != tt.interval || timeout != tt.timeout || (err != nil) != tt.bad {
				t.Errorf("got %v, %v, %v", interval, timeout, err)
			}
		})
	}
}

// Whatever a server sends is understood or passed over.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"2", "40", `40{"sid":"x"}`, `42["apiV2Notify",{"counter":3}]`, `421["a"]`, "44", `0{"pingInterval":1}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, frame string) {
		counter.Parse(frame)
		if interval, timeout, err := counter.ParseOpening(frame); err == nil && (interval <= 0 || timeout <= 0) {
			t.Errorf("got %v, %v", interval, timeout)
		}
	})
}
