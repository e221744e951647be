package queue_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

// What keeps many writes from being stored is told once a minute, with how many
// there were, and without what a subject says of a person.
func TestNotStoredIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		queue.NotStored(zerolog.New(&log), "wazzup.main.evt.message.in.c.whatsapp.79998887766", 100, 31*time.Second)
		got := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(got) != 2 || !strings.Contains(got[0], `"writes":1,`) || !strings.Contains(got[1], `"writes":200,`) ||
			!strings.Contains(got[0], `"subject":"wazzup.main.evt"`) || strings.Contains(log.String(), "7999") {
			t.Errorf("got\n%s", &log)
		}
	})
}

// A reconnect of a thousand lanes is no thousand lines: only a lane that stood still
// is told of, and what cannot be recreated once a minute.
func TestRecreatingIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		queue.Recreating(zerolog.New(&log).Level(zerolog.InfoLevel), 1000, 61*time.Second)
		got := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(got) != 3 || !strings.Contains(got[0], `"tries":1,`) || !strings.Contains(got[1], `"lane_consumer_recreated"`) ||
			!strings.Contains(got[2], `"tries":1000,`) || !strings.Contains(got[2], `"filter":"wazzup.main.cmd.send.c"`) {
			t.Errorf("got\n%s", &log)
		}
	})
}
