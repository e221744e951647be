package sender_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// cutter stands between a worker and the NATS server and breaks the connection
// at the frame of the protocol that a test names, once.
type cutter struct {
	ln     net.Listener
	target string
	cut    func(toClient bool, frame []byte) bool
	// hold returns until when a frame is held back while those after it pass; nil: it
	// is not. nil: none ever is.
	hold func(toClient bool, frame []byte) <-chan struct{}

	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  []net.Conn
	closed bool
}

func newCutter(t *testing.T, target string, cut func(toClient bool, frame []byte) bool) *cutter {
	t.Helper()
	return startCutter(t, &cutter{target: target, cut: cut})
}

// newHolder is a cutter that cuts nothing off, and holds frames back.
func newHolder(t *testing.T, target string, hold func(toClient bool, frame []byte) <-chan struct{}) *cutter {
	t.Helper()
	return startCutter(t, &cutter{target: target, cut: func(bool, []byte) bool { return false }, hold: hold})
}

func startCutter(t *testing.T, c *cutter) *cutter {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.ln, c.target = ln, strings.TrimPrefix(c.target, "nats://")
	c.wg.Go(func() { c.serve(context.WithoutCancel(t.Context())) })
	t.Cleanup(c.close)
	return c
}

func (c *cutter) URL() string            { return "nats://" + c.ln.Addr().String() }
func (c *cutter) Options() []nats.Option { return nil }

func (c *cutter) close() {
	_ = c.ln.Close()
	c.mu.Lock()
	c.closed = true
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
}

func (c *cutter) serve(ctx context.Context) {
	for {
		client, err := c.ln.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		server, err := d.DialContext(ctx, "tcp", c.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		c.mu.Lock()
		c.conns = append(c.conns, client, server)
		if c.closed {
			_, _ = client.Close(), server.Close()
		}
		c.mu.Unlock()
		c.wg.Go(func() { c.pipe(server, client, true) })
		c.wg.Go(func() { c.pipe(client, server, false) })
	}
}

// pipe passes frames on until one of them is to be cut off. What was passed on
// before reaches the server all the same: a connection that is closed while
// something of it is unread would take that along.
func (c *cutter) pipe(from, to net.Conn, toClient bool) {
	c.passOn(from, to, toClient)
	if toClient {
		_ = to.Close()
		_, _ = io.Copy(io.Discard, from) // until the server has read all, and ends it
		_ = from.Close()
		return
	}
	if server, ok := to.(*net.TCPConn); ok {
		_ = server.CloseWrite()
	}
	_ = from.Close()
}

func (c *cutter) passOn(from, to net.Conn, toClient bool) {
	r := bufio.NewReader(from)
	var writing sync.Mutex
	for {
		frame, err := readFrame(r)
		if err != nil || c.cut(toClient, frame) {
			return
		}
		write := func() error {
			writing.Lock()
			defer writing.Unlock()
			_, err := to.Write(frame)
			return err
		}
		if c.hold != nil {
			if until := c.hold(toClient, frame); until != nil {
				c.wg.Go(func() {
					<-until
					_ = write() // the connection may be gone by then
				})
				continue
			}
		}
		if write() != nil {
			return
		}
	}
}

// readFrame reads one frame of the NATS client protocol. Those with a payload
// tell its size in their last field.
func readFrame(r *bufio.Reader) ([]byte, error) {
	frame, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(frame))
	if len(fields) == 0 {
		return frame, nil
	}
	switch fields[0] {
	case "MSG", "HMSG", "PUB", "HPUB":
		size, err := strconv.Atoi(fields[len(fields)-1])
		if err != nil {
			return nil, err
		}
		payload := make([]byte, size+len("\r\n"))
		if _, err := io.ReadFull(r, payload); err != nil {
			return nil, err
		}
		frame = append(frame, payload...)
	}
	return frame, nil
}

// The connection to NATS breaks at each write of a command's life, before the
// server gets it or before its answer comes back. Every message is sent once, in
// the order of its chat, and ends once.
func TestConnectionBreaksAtEveryWrite(t *testing.T) {
	t.Parallel()
	writes := []struct{ name, subject, text string }{
		{"claim", "HPUB wz.main.f.", `{"t":"claim"`},
		{"index", "PUB wz.main.x.", ""},
		{"final", "HPUB wz.main.f.", `{"t":"final"`},
		{"event", "HPUB wazzup.main.evt.command.sent.", ""},
		{"ack", "PUB $JS.ACK.wazzup-main-commands.", "+ACK"},
	}
	for _, write := range writes {
		for _, lost := range []string{"request", "answer"} {
			t.Run(write.name+" "+lost+" lost", func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				var passed, done atomic.Bool
				c := newCutter(t, r.srv.URL(), func(toClient bool, frame []byte) bool {
					isWrite := !toClient && bytes.HasPrefix(frame, []byte(write.subject)) && bytes.Contains(frame, []byte(write.text))
					if lost == "request" {
						return isWrite && done.CompareAndSwap(false, true)
					}
					if isWrite {
						passed.Store(true)
					}
					return toClient && passed.Load() && bytes.Contains(frame, []byte("MSG ")) && done.CompareAndSwap(false, true)
				})
				const chats, each = 4, 5
				for i := range each {
					for chat := range chats {
						r.send(fmt.Sprintf("c%d-%d", chat, i), fmt.Sprintf("7900000%04d", chat), fmt.Sprintf("m-%d", i))
					}
				}
				r.startOn(queuetest.Conn(t, c), r.config())
				for _, e := range r.finals(chats * each) {
					if e.State != schema.StateSent {
						t.Errorf("%s ended %s", e.ID, e.State)
					}
				}
				r.emptied()
				if !done.Load() {
					t.Fatal("the connection was never broken")
				}
				next := make(map[string]int)
				for _, s := range r.sim.Sends() {
					if want := fmt.Sprintf("m-%d", next[s.ChatID]); s.Text != want {
						t.Errorf("chat %s got %s, want %s", s.ChatID, s.Text, want)
					}
					next[s.ChatID]++
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				if len(r.ids) != chats*each {
					t.Errorf("%d events, want %d", len(r.ids), chats*each)
				}
				for id, n := range r.ids {
					if n != 1 {
						t.Errorf("event %s is stored %d times", id, n)
					}
				}
			})
		}
	}
}
