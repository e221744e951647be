//go:build system

package systemtest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// The tests whose names begin with TestClient run the very programs of the folder
// examples, each in its language, on what a user of that language installs.

const examples = "../../examples"

// nodeExamples is a copy of examples/node with its packages installed.
var nodeExamples = sync.OnceValues(func() (string, error) { //nolint:gochecknoglobals // installed once for all tests
	dir := filepath.Join(binaries, "examples", "node")
	if err := os.CopyFS(filepath.Dir(dir), os.DirFS(examples)); err != nil {
		return "", err
	}
	if err := os.RemoveAll(filepath.Join(dir, "node_modules")); err != nil {
		return "", err
	}
	return dir, command(dir, "npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund")
})

// natsTool is the folder of the command line tool of NATS, as internal/tools pins it.
var natsTool = sync.OnceValues(func() (string, error) { //nolint:gochecknoglobals // built once for all tests
	dir := filepath.Join(binaries, "tools")
	return dir, command("../tools", "go", "build", "-o", dir+string(filepath.Separator), "github.com/nats-io/natscli/nats")
})

func command(dir, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s in %s: %w\n%s", cmd, dir, err, out)
	}
	return nil
}

// need is what a sync.OnceValues made.
func need(t *testing.T, what func() (string, error)) string {
	t.Helper()
	path, err := what()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// client is a running example, and the lines that it prints.
type client struct {
	t    *testing.T
	cmd  *exec.Cmd
	errs *lockedBuffer
	done chan struct{} // closed when it has ended and all of its output is read

	mu     sync.Mutex
	lines  []string
	change chan struct{}
}

func startClient(t *testing.T, dir string, env []string, name string, args ...string) *client {
	t.Helper()
	c := &client{t: t, errs: new(lockedBuffer), done: make(chan struct{}), change: make(chan struct{})}
	c.cmd = exec.Command(name, args...) //nolint:noctx // ends by the test's own signals
	c.cmd.Dir, c.cmd.Env, c.cmd.Stderr = dir, env, c.errs
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go c.read(out)
	t.Cleanup(func() {
		c.kill()
		if t.Failed() && c.errs.String() != "" {
			t.Logf("%s said:\n%s", name, c.errs)
		}
	})
	return c
}

func (c *client) read(out io.Reader) {
	for scan := bufio.NewScanner(out); scan.Scan(); {
		c.mu.Lock()
		c.lines = append(c.lines, scan.Text())
		close(c.change)
		c.change = make(chan struct{})
		c.mu.Unlock()
	}
	_ = c.cmd.Wait() // its exit code is looked at by who waits for done
	close(c.done)
}

// printed returns the lines so far, and what is closed at the next one.
func (c *client) printed() (lines []string, change <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines, c.change
}

// wait returns when cond holds, which is asked anew after each line.
func (c *client) wait(what string, cond func(lines []string) bool) {
	c.t.Helper()
	timeout := time.After(time.Minute)
	for {
		lines, change := c.printed()
		if cond(lines) {
			return
		}
		select {
		case <-change:
		case <-c.done:
			c.t.Fatalf("waiting for %s, and the client ended: %v", what, c.cmd.ProcessState)
		case <-timeout:
			c.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// kill ends the client the hard way.
func (c *client) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// stop asks the client to end, and returns its exit code: -1 if the signal ended it.
func (c *client) stop(s os.Signal) int {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
	select {
	case <-c.done:
	case <-time.After(30 * time.Second):
		c.t.Fatalf("the client did not end after %s", s)
	}
	return c.cmd.ProcessState.ExitCode()
}
