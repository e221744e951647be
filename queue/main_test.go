package queue_test

import (
	"os"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

func TestMain(m *testing.M) {
	queuetest.MaybeServe()
	os.Exit(m.Run())
}
