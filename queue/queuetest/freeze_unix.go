//go:build unix

package queuetest

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// freeze returns when the process has stopped: the signal alone is only on its
// way, and a busy process may still answer.
func freeze(p *os.Process) error {
	if err := p.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(p.Pid, &status, unix.WUNTRACED, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case status.Stopped():
			return nil
		default:
			return fmt.Errorf("the process has ended: %v", status)
		}
	}
}

func thaw(p *os.Process) error { return p.Signal(unix.SIGCONT) }
