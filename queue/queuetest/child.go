package queuetest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// child is a process that serves.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout io.Reader
}

var errNotServing = errors.New("queuetest: the test binary did not serve: does its TestMain call queuetest.MaybeServe()?")

// spawn starts the test binary once more, as a server with these settings. The
// caller waits for it with ready.
func spawn(s settings) (*child, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("queuetest: %w", err)
	}
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("queuetest: %w", err)
	}
	// Not bound to the test's context: that ends before the cleanups, and it is
	// for them to end the process. A binary that forgot MaybeServe runs no test.
	cmd := exec.Command(executable, "-test.run=^$") //nolint:noctx // see above
	cmd.Env = append(os.Environ(), serveEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("queuetest: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("queuetest: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("queuetest: start the server process: %w", err)
	}
	return &child{cmd: cmd, stdin: stdin, stdout: stdout}, nil
}

// ready waits until the process says that JetStream answers. After an error it
// is gone.
func (c *child) ready() error {
	timeout := time.AfterFunc(processStart, func() { _ = c.cmd.Process.Kill() })
	defer timeout.Stop()
	line, err := bufio.NewReader(c.stdout).ReadString('\n')
	if strings.TrimSpace(line) == readyLine {
		return nil
	}
	c.kill()
	if err == nil {
		return errNotServing
	}
	return fmt.Errorf("queuetest: the server process said nothing: %w", err)
}

// kill ends the process with SIGKILL and waits until it is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may have ended by itself
	_ = c.cmd.Wait()         // says that it was killed
}

// stop ends the process as an orderly shutdown does, and waits until it is gone.
func (c *child) stop() error {
	return errors.Join(c.stdin.Close(), c.cmd.Wait())
}
