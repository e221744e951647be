package counter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

const (
	connectWait  = 400 * time.Millisecond // for a connect packet that was not asked for
	openTimeout  = 15 * time.Second       // from the dial to the joined namespace
	writeTimeout = 10 * time.Second
	silenceSlack = time.Second // beyond the server's own times
	maxFrame     = 64 << 10    // bytes; the frames of interest have a hundred
	path         = "/socket.io/?EIO=4&transport=websocket"
)

// Reasons why a connection ended. Their texts hold nothing of the connection.
var (
	errDial         = errors.New("no connection")
	errSilent       = errors.New("the server fell silent")
	errDisconnected = errors.New("the server ended the connection")
	errBroken       = errors.New("the connection broke")
)

// conn is one connection. Its fields belong to the goroutine that runs serve.
type conn struct {
	cfg    *Config
	ws     *websocket.Conn
	frames <-chan []byte // closed when the connection is over

	open   opening
	joined bool
	pings  *time.Ticker // of a 2.x server; nil: the server pings
	told   bool         // a counter was received
}

// serve connects, and hands over counters until the connection ends or ctx does. It
// always returns an error, unless ctx ended.
func (c *conn) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opened := time.Now().Add(openTimeout)
	if err := c.dial(ctx); err != nil {
		return err
	}
	defer func() { _ = c.ws.CloseNow() }()
	read := make(chan struct{})
	frames := make(chan []byte)
	c.frames = frames
	go func() {
		defer close(read)
		c.read(ctx, frames)
	}()
	defer func() {
		cancel() // which also ends the reading
		<-read
	}()
	defer func() {
		if c.pings != nil {
			c.pings.Stop()
		}
		if c.joined {
			c.cfg.connected(false)
		}
	}()
	if err := c.handshake(ctx, opened); err != nil {
		return err
	}
	return c.listen(ctx, opened)
}

func (c *conn) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	ws, res, err := websocket.Dial(ctx, strings.TrimRight(c.cfg.URL, "/")+path, &websocket.DialOptions{ //nolint:bodyclose // websocket: "You never need to close resp.Body yourself"
		// A redirect is not followed: the key would go to whoever it names.
		HTTPClient: &http.Client{Transport: c.cfg.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	})
	if err != nil {
		if res != nil && res.StatusCode != http.StatusSwitchingProtocols {
			return fmt.Errorf("%w: HTTP %d", errDial, res.StatusCode)
		}
		return errDial
	}
	ws.SetReadLimit(maxFrame)
	c.ws = ws
	return nil
}

// read hands over frames until the connection is over.
func (c *conn) read(ctx context.Context, frames chan<- []byte) {
	defer close(frames)
	for {
		kind, frame, err := c.ws.Read(ctx)
		if err != nil {
			return // whoever waits for frames learns it, and why does not matter
		}
		if kind == websocket.MessageBinary {
			frame = nil // an attachment: nothing but a sign of life
		}
		select {
		case frames <- frame:
		case <-ctx.Done():
			return
		}
	}
}

// next waits for a frame for as long as d.
func (c *conn) next(ctx context.Context, d time.Duration) (frame []byte, err error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case frame, ok := <-c.frames:
		if !ok {
			return nil, errBroken
		}
		return frame, nil
	case <-timer.C:
		return nil, errSilent
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// handshake takes the opening, and joins the namespace where the server, as those
// from 3.x on, waits to be asked.
func (c *conn) handshake(ctx context.Context, until time.Time) error {
	frame, err := c.next(ctx, time.Until(until))
	if err != nil {
		return err
	}
	if c.open, err = parseOpening(frame); err != nil {
		return err
	}
	for wait := time.Now().Add(connectWait); ; {
		frame, err := c.next(ctx, time.Until(wait))
		switch {
		case errors.Is(err, errSilent):
			return c.write(ctx, connectFrame())
		case err != nil:
			return err
		}
		if err := c.take(ctx, frame); err != nil || c.joined {
			return err
		}
	}
}

// listen takes frames until the connection ends. The server must have let us join
// by a time, and be heard of again and again.
func (c *conn) listen(ctx context.Context, until time.Time) error {
	limit := c.open.interval + c.open.timeout + silenceSlack
	silent := time.NewTimer(limit)
	defer silent.Stop()
	join := time.NewTimer(time.Until(until))
	defer join.Stop()
	for {
		var pings <-chan time.Time
		if c.pings != nil {
			pings = c.pings.C
		}
		select {
		case frame, ok := <-c.frames:
			if !ok {
				return errBroken
			}
			silent.Reset(limit)
			if err := c.take(ctx, frame); err != nil {
				return err
			}
		case <-pings:
			if err := c.write(ctx, pingFrame()); err != nil {
				return err
			}
		case <-silent.C:
			return errSilent
		case <-join.C:
			if !c.joined {
				return errSilent
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take does what a frame asks for.
func (c *conn) take(ctx context.Context, frame []byte) error {
	p, err := parse(frame)
	if err != nil {
		return err
	}
	switch p.kind {
	case ping:
		return c.write(ctx, pongFrame())
	case disconnected:
		return errDisconnected
	case connected:
		return c.join(ctx, p.legacy)
	case notified:
		c.cfg.Counter(p.counter, !c.told)
		c.told = true
	case other:
	}
	return nil
}

// join says whose counter is wanted, each time the server says that the namespace
// is joined: a slow 2.x server does so twice.
func (c *conn) join(ctx context.Context, legacy bool) error {
	if legacy && c.pings == nil {
		c.pings = time.NewTicker(c.open.interval)
	}
	frame, err := connectingFrame(c.cfg.Key, c.cfg.User)
	if err != nil {
		return err
	}
	if err := c.write(ctx, frame); err != nil {
		return err
	}
	if !c.joined {
		c.joined = true
		c.cfg.connected(true)
	}
	return nil
}

func (c *conn) write(ctx context.Context, frame []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if c.ws.Write(ctx, websocket.MessageText, frame) != nil {
		return errBroken
	}
	return nil
}
