package daemon_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
)

// line is what a Repeated logs.
type line struct {
	Level     string  `json:"level"`
	Operation string  `json:"operation"`
	Error     string  `json:"error"`
	NotLogged int     `json:"not_logged"`
	Failing   float64 `json:"failing_for_ms"`
	Failed    float64 `json:"failed_for_ms"`
}

func TestRepeated(t *testing.T) {
	t.Parallel()
	away, refused := errors.New("away"), errors.New("refused")
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r := daemon.NewRepeated(zerolog.New(&out), "connect", time.Minute)
		check := func(when string, want ...line) {
			t.Helper()
			decoder := json.NewDecoder(&out)
			for _, want := range want {
				var got line
				if err := decoder.Decode(&got); err != nil {
					t.Fatalf("%s: %v", when, err)
				}
				want.Operation = "connect"
				if got != want {
					t.Errorf("%s: line = %+v, want %+v", when, got, want)
				}
			}
			if decoder.More() {
				t.Errorf("%s: one line too many", when)
			}
			out.Reset()
		}

		r.Succeeded()
		check("nothing failed")

		r.Failed(away)
		check("new", line{Level: "warn", Error: "away"})
		if got := r.Last(); got != "away" {
			t.Errorf("Last = %q, want away", got)
		}

		for range 59 {
			time.Sleep(time.Second)
			r.Failed(away)
		}
		check("unchanged")

		time.Sleep(time.Second)
		r.Failed(away)
		check("a minute later", line{Level: "warn", Error: "away", NotLogged: 59, Failing: 60000})

		r.Failed(away)
		r.Failed(refused)
		check("another", line{Level: "warn", Error: "refused", NotLogged: 1, Failing: 60000})

		r.Failed(away)
		r.Failed(refused)
		check("both in turn")

		r.Failed(refused)
		r.Succeeded()
		check("over", line{Level: "info", NotLogged: 3, Failed: 60000})
		if got := r.Last(); got != "" {
			t.Errorf("Last = %q after it is over", got)
		}

		time.Sleep(time.Second)
		r.Failed(refused)
		check("the same, but new again", line{Level: "warn", Error: "refused"})
	})
}

func TestRepeatedForgetsWhatNeverRepeats(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := daemon.NewRepeated(zerolog.New(&out), "connect", time.Minute)
	for i := range 1000 {
		r.Failed(fmt.Errorf("number %d", i))
	}
	if got := bytes.Count(out.Bytes(), []byte("\n")); got != 1000 {
		t.Errorf("%d lines, want one for each of 1000", got)
	}
}

func TestRepeatedWithoutReminder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r := daemon.NewRepeated(zerolog.New(&out), "connect", 0)
		for range 3 {
			r.Failed(errors.New("away"))
			time.Sleep(1000 * time.Hour)
		}
		if got := bytes.Count(out.Bytes(), []byte("\n")); got != 1 {
			t.Errorf("%d lines, want 1", got)
		}
	})
}
