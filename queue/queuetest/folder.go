package queuetest

import (
	"os"
	"testing"
	"time"
)

const (
	// folderWait bounds the time in which a server that was shut down may still
	// write.
	folderWait = 10 * time.Second
	folderPoll = 10 * time.Millisecond
)

// folder is a server's own folder for the length of the test. In contrast to
// [testing.TB.TempDir] it does not give up when a file appears during the
// removal: a few goroutines of a server outlive its shutdown for a moment.
func folder(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "queuetest-") //nolint:usetesting // see above
	if err != nil {
		tb.Fatalf("queuetest: %v", err)
	}
	tb.Cleanup(func() {
		tick := time.NewTicker(folderPoll)
		defer tick.Stop()
		timeout := time.After(folderWait)
		for {
			err := os.RemoveAll(dir)
			if err == nil {
				return
			}
			select {
			case <-tick.C:
			case <-timeout:
				tb.Errorf("queuetest: remove the server's folder: %v", err)
				return
			}
		}
	})
	return dir
}
