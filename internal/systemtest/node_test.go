//go:build system

package systemtest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// node is where the Socket.IO servers of npm are, installed once.
var node = sync.OnceValues(installNode) //nolint:gochecknoglobals // of all tests together

// installNode installs the packages of the folder socketio into a temporary one,
// which the end of TestMain removes. Nothing of this is ever left out: without Node
// the tests that need it fail.
func installNode() (dir string, err error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("%s is not installed: install Node.js with npm (Debian: apt-get install nodejs npm)", program)
		}
	}
	dir = filepath.Join(binaries, "socketio")
	if err := os.CopyFS(dir, os.DirFS("socketio")); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci in internal/systemtest/socketio: %w\n%s", err, out)
	}
	return dir, nil
}

// socketServer is a Socket.IO server of npm in a process of its own, which can be
// restarted on the same port.
type socketServer struct {
	t       *testing.T
	version string
	port    string

	cmd   *exec.Cmd
	stdin io.WriteCloser
	done  chan struct{}
	read  chan struct{} // closed when all of its output is taken in

	mu     sync.Mutex
	lines  []socketLine // since the last start
	change chan struct{}
}

// socketLine is what the server says; see socketio/server.js.
type socketLine struct {
	Listening    int             `json:"listening"`
	Connected    json.RawMessage `json:"connected"`
	Disconnected json.RawMessage `json:"disconnected"`
	Key          string          `json:"key"`
	Sockets      int             `json:"sockets"`
}

func startSocketServer(t *testing.T, version string) *socketServer {
	t.Helper()
	_, port, err := net.SplitHostPort(freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	s := &socketServer{t: t, version: version, port: port, change: make(chan struct{})}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *socketServer) URL() string { return "http://127.0.0.1:" + s.port }

func (s *socketServer) start() {
	s.t.Helper()
	dir, err := node()
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.lines = nil
	s.mu.Unlock()
	s.cmd = exec.Command("node", "server.js", s.version, s.port) //nolint:noctx // ends by the test's own signals
	s.cmd.Dir, s.cmd.Stderr = dir, os.Stderr
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.done, s.read = make(chan struct{}), make(chan struct{})
	go s.listen(out)
	s.wait("it to listen", func(lines []socketLine) bool { return len(lines) > 0 && lines[0].Listening != 0 })
}

// listen takes the output in, then the end.
func (s *socketServer) listen(out io.Reader) {
	for scan := bufio.NewScanner(out); scan.Scan(); {
		var line socketLine
		if err := json.Unmarshal(scan.Bytes(), &line); err != nil {
			s.t.Errorf("the server says %q", scan.Text())
		}
		s.mu.Lock()
		s.lines = append(s.lines, line)
		close(s.change)
		s.change = make(chan struct{})
		s.mu.Unlock()
	}
	close(s.read)
	_ = s.cmd.Wait() // it was killed
	close(s.done)
}

// kill ends the server the hard way; whoever was connected finds out.
func (s *socketServer) kill() {
	_ = s.cmd.Process.Signal(unix.SIGCONT)
	_ = s.cmd.Process.Kill()
	<-s.done
}

// freeze stops the server in its tracks, and returns when it has stopped.
func (s *socketServer) freeze() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(s.cmd.Process.Pid, &status, unix.WUNTRACED, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || !status.Stopped():
			s.t.Fatalf("the server did not stop: %v, %v", status, err)
		default:
			return
		}
	}
}

func (s *socketServer) thaw() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(unix.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
}

// tell changes a user's counter.
func (s *socketServer) tell(user string, n int) {
	s.t.Helper()
	if _, err := fmt.Fprintf(s.stdin, `{"user":%s,"counter":%d}`+"\n", user, n); err != nil {
		s.t.Fatal(err)
	}
}

// said is how many lines the server has said.
func (s *socketServer) said() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines)
}

// joined waits until each user has connected, in what was said from a line on.
func (s *socketServer) joined(from int, users ...string) {
	s.t.Helper()
	s.wait("connections of "+strings.Join(users, " and "), func(lines []socketLine) bool {
		seen := make(map[string]bool)
		for _, l := range lines[from:] {
			seen[string(l.Connected)] = true
		}
		for _, u := range users {
			if !seen[u] {
				return false
			}
		}
		return true
	})
}

func (s *socketServer) wait(what string, cond func(lines []socketLine) bool) {
	s.t.Helper()
	timeout := time.After(90 * time.Second)
	for {
		s.mu.Lock()
		ok, change := cond(s.lines), s.change
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-change:
		case <-s.done:
			s.t.Fatalf("the server of Socket.IO %s ended", s.version)
		case <-timeout:
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}
