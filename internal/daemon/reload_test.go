package daemon_test

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
)

// hangUp sends the test's own process SIGHUP, which would end it if nobody took
// it, and returns when it has come: sent is not yet delivered.
func hangUp(t *testing.T) {
	t.Helper()
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGHUP)
	defer signal.Stop(heard)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	<-heard
}

func TestReloadOnSIGHUP(t *testing.T) {
	t.Parallel()
	reloads := make(chan struct{})
	r := daemon.NewReload(func() { reloads <- struct{}{} })
	defer r.Close()
	hangUp(t) // before it runs: kept for then
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	<-reloads
	hangUp(t)
	<-reloads
	if err := r.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v, want nil", err)
	}
	hangUp(t) // after it has ended: no reason to be killed
	select {
	case <-reloads:
		t.Error("it reloads after its end")
	default:
	}
}
