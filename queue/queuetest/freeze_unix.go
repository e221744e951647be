//go:build unix

package queuetest

import (
	"os"

	"golang.org/x/sys/unix"
)

func freeze(p *os.Process) error { return p.Signal(unix.SIGSTOP) }

func thaw(p *os.Process) error { return p.Signal(unix.SIGCONT) }
