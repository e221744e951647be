package counter_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/wazzup-relay/wazzup-relay/internal/counter"
)

const key = "the-api-key"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a network inside a bubble: a listener whose connections are pipes.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// followed is what came of following a user against a scripted server, in a bubble.
type followed struct {
	values  []string // each with a mark on the first of a connection
	reasons []string
	stands  []bool
	dials   []time.Duration // since the start
	asked   []string        // what the server got, but for pings and pongs
}

// peer is the server's side of one connection.
type peer struct {
	ws *websocket.Conn
	n  int // of the connection, from 0
	f  *followed
}

func (p *peer) send(ctx context.Context, frames ...string) {
	for _, frame := range frames {
		if p.ws.Write(ctx, websocket.MessageText, []byte(frame)) != nil {
			return
		}
	}
}

// pause waits in the bubble.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// receive takes what the client sends until it closes; it answers pings where asked.
func (p *peer) receive(ctx context.Context, each func(frame string)) {
	for {
		_, frame, err := p.ws.Read(ctx)
		if err != nil {
			return
		}
		text := string(frame)
		if text != "2" && text != "3" {
			p.f.asked = append(p.f.asked, text)
		}
		each(text)
	}
}

// follow runs a client in a bubble against a server for as long as d.
func follow(t *testing.T, d time.Duration, serve func(ctx context.Context, p *peer)) *followed {
	t.Helper()
	f := &followed{}
	began := time.Now()
	network := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	serving, stopServing := context.WithCancel(t.Context())
	defer stopServing()
	var peers sync.WaitGroup
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peers.Add(1)
		defer peers.Done()
		n := len(f.dials)
		f.dials = append(f.dials, time.Since(began))
		if r.URL.Path != "/socket.io/" || r.URL.Query().Get("EIO") != "4" || r.URL.Query().Get("transport") != "websocket" {
			t.Errorf("dialled %s", r.URL)
		}
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = ws.CloseNow() }()
		serve(serving, &peer{ws, n, f})
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(network)
	}()
	transport := &http.Transport{DialContext: network.dial}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	counter.Follow(ctx, counter.Config{
		URL: "http://counter.example/", Key: key, User: json.RawMessage(`17`), Transport: transport,
		Counter: func(n int64, first bool) {
			mark := ""
			if first {
				mark = "first "
			}
			f.values = append(f.values, fmt.Sprint(mark, n))
		},
		Connected: func(is bool) { f.stands = append(f.stands, is) },
		Retrying: func(reason error) {
			if strings.Contains(reason.Error(), key) {
				t.Errorf("the reason holds the key: %v", reason)
			}
			f.reasons = append(f.reasons, reason.Error())
		},
	})
	stopServing()
	_ = server.Close()
	_ = network.Close()
	<-served
	peers.Wait()
	transport.CloseIdleConnections()
	return f
}

const opening = `0{"sid":"x","upgrades":[],"pingInterval":1000,"pingTimeout":500}`

var connecting = `42["apiV2IframeConnecting",{"apiKey":"` + key + `","userId":17}]` //nolint:gochecknoglobals // a constant but for its parts

func value(n int) string { return fmt.Sprintf(`42["apiV2Notify",{"counter":%d}]`, n) }

// modern serves as 3.x and 4.x do.
func modern(ctx context.Context, p *peer, after func(context.Context)) {
	p.send(ctx, opening)
	joined := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-joined:
			after(ctx)
		case <-ctx.Done():
		}
	}()
	p.receive(ctx, func(frame string) {
		switch frame {
		case "40":
			p.send(ctx, `40{"sid":"y"}`)
		case connecting:
			close(joined)
		}
	})
	<-done
}

// A server that pings is answered, for as long as it does.
func TestModernServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, time.Minute, func(ctx context.Context, p *peer) {
			modern(ctx, p, func(ctx context.Context) {
				p.send(ctx, value(1))
				for n := 2; ctx.Err() == nil && n < 50; n++ {
					pause(ctx, time.Second)
					p.send(ctx, "2", value(n))
				}
			})
		})
		if len(f.dials) != 2 || len(f.values) < 50 || f.values[0] != "first 1" || f.values[1] != "2" || f.values[48] != "49" || f.values[49] != "first 1" {
			t.Errorf("dials %v, values %v, reasons %v", f.dials, f.values, f.reasons)
		}
		// Silent from the 49th second on: interval, timeout and a second later it is over.
		if got := f.reasons; !slices.Equal(got, []string{"the server fell silent"}) {
			t.Errorf("reasons %q", got)
		}
		if at := f.dials[1]; at < 50*time.Second || at > 53*time.Second {
			t.Errorf("connected again after %v", at)
		}
		if !slices.Equal(f.asked[:2], []string{"40", connecting}) || !slices.Equal(f.stands, []bool{true, false, true, false}) {
			t.Errorf("asked %q, stands %v", f.asked, f.stands)
		}
	})
}

// A 2.x server joins by itself, and is pinged. One that is slow to join is asked to
// and joins twice.
func TestLegacyServer(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{0, 300 * time.Millisecond, 700 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pings := 0
				f := follow(t, time.Minute, func(ctx context.Context, p *peer) {
					p.send(ctx, opening)
					go func() {
						pause(ctx, after)
						p.send(ctx, "40")
					}()
					p.receive(ctx, func(frame string) {
						switch frame {
						case "40":
							p.send(ctx, "40")
						case "2":
							pings++
							p.send(ctx, "3")
						case connecting:
							p.send(ctx, value(5))
						}
					})
				})
				if len(f.dials) != 1 || len(f.reasons) != 0 {
					t.Errorf("dials %v, reasons %q", f.dials, f.reasons)
				}
				if pings < 55 || pings > 60 {
					t.Errorf("%d pings in a minute, want one a second", pings)
				}
				asked := slices.Contains(f.asked, "40")
				if asked != (after > 400*time.Millisecond) || len(f.values) == 0 || f.values[0] != "first 5" {
					t.Errorf("asked %q, values %v", f.asked, f.values)
				}
			})
		})
	}
}

// Whatever a server does wrong, the next connection comes after a pause that grows
// to a minute and no further.
func TestBadServers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		serve  func(ctx context.Context, p *peer)
		reason string
	}{
		{"never opens", func(ctx context.Context, p *peer) { p.receive(ctx, func(string) {}) }, "the server fell silent"},
		{"speaks something else", func(ctx context.Context, p *peer) { p.send(ctx, "hello"); p.receive(ctx, func(string) {}) }, "the server does not speak Socket.IO"},
		{"never joins", func(ctx context.Context, p *peer) {
			p.send(ctx, opening)
			go func() {
				for range 30 {
					pause(ctx, time.Second)
					p.send(ctx, "2")
				}
			}()
			p.receive(ctx, func(string) {})
		}, "the server fell silent"},
		{"refuses", func(ctx context.Context, p *peer) {
			p.send(ctx, opening)
			p.receive(ctx, func(frame string) { p.send(ctx, `44{"message":"no"}`) })
		}, "the server ended the connection"},
		{"closes after the join", func(ctx context.Context, p *peer) { modern(ctx, p, func(ctx context.Context) { p.send(ctx, "41") }) }, "the server ended the connection"},
		{"breaks off", func(ctx context.Context, p *peer) { p.send(ctx, opening) }, "the connection broke"},
		{"sends too much", func(ctx context.Context, p *peer) {
			modern(ctx, p, func(ctx context.Context) { p.send(ctx, `42["x","`+strings.Repeat("x", 1<<20)+`"]`) })
		}, "the connection broke"},
		{"sends no number", func(ctx context.Context, p *peer) {
			modern(ctx, p, func(ctx context.Context) { p.send(ctx, `42["apiV2Notify",{"counter":null}]`) })
		}, "the server sent a counter that is no number"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, time.Hour, tt.serve)
				if len(f.dials) < 60 || len(f.dials) > 200 {
					t.Errorf("%d connections in an hour", len(f.dials))
				}
				for i := 1; i < len(f.dials); i++ {
					if gap := f.dials[i] - f.dials[i-1]; gap > 80*time.Second {
						t.Errorf("connection %d came %v after the one before", i, gap)
					}
				}
				for _, reason := range f.reasons {
					if reason != tt.reason {
						t.Fatalf("reason %q, want %q", reason, tt.reason)
					}
				}
				if len(f.values) != 0 {
					t.Errorf("values %v", f.values)
				}
			})
		})
	}
}

// A server whose connections last for a while is connected to again at once, however
// often it ends them.
func TestGoodServerThatEnds(t *testing.T) {
	t.Parallel()
	const lasts = 11 * time.Second
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, 20*time.Minute, func(ctx context.Context, p *peer) {
			modern(ctx, p, func(ctx context.Context) {
				p.send(ctx, value(p.n))
				for range lasts / time.Second {
					p.send(ctx, "2")
					pause(ctx, time.Second)
				}
				p.send(ctx, "1")
			})
		})
		if len(f.dials) < 90 || len(f.values) < 90 || f.values[10] != "first 10" {
			t.Errorf("%d connections and %d values in 20 minutes", len(f.dials), len(f.values))
		}
		for i := 1; i < len(f.dials); i++ {
			if gap := f.dials[i] - f.dials[i-1]; gap > lasts+2*time.Second {
				t.Errorf("connection %d came %v after the one before", i, gap)
			}
		}
	})
}

// One that brings a counter and ends the connection, again and again, is not beset: a
// user whose connections drive each other out would be.
func TestServerThatEndsAtOnce(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{"closes": "1", "sends no number": `42["apiV2Notify",{"counter":null}]`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, time.Hour, func(ctx context.Context, p *peer) {
					modern(ctx, p, func(ctx context.Context) { p.send(ctx, value(p.n), end) })
				})
				if len(f.dials) < 60 || len(f.dials) > 200 || f.values[10] != "first 10" {
					t.Errorf("%d connections and %d values in an hour", len(f.dials), len(f.values))
				}
			})
		})
	}
}

// A binary frame is a part of an event that is of no use, whatever its bytes look like.
func TestBinaryFrame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, 20*time.Second, func(ctx context.Context, p *peer) {
			modern(ctx, p, func(ctx context.Context) {
				p.send(ctx, `451-["other",{"_placeholder":true,"num":0}]`)
				for _, frame := range []string{value(9), "1", ""} {
					if err := p.ws.Write(ctx, websocket.MessageBinary, []byte(frame)); err != nil {
						t.Error(err)
					}
				}
				for ctx.Err() == nil {
					p.send(ctx, "2")
					pause(ctx, time.Second)
				}
			})
		})
		if len(f.dials) != 1 || len(f.values) != 0 || len(f.reasons) != 0 {
			t.Errorf("dials %v, values %q, reasons %q", f.dials, f.values, f.reasons)
		}
	})
}

// A redirect is not followed: the key would go to whoever it names.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		var asked []string
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.Host)
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusTemporaryRedirect)
		})}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = server.Serve(network)
		}()
		transport := &http.Transport{DialContext: network.dial}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var reason error
		counter.Follow(ctx, counter.Config{
			URL: "http://counter.example", Key: key, User: json.RawMessage(`"u"`), Transport: transport,
			Counter: func(int64, bool) {}, Retrying: func(err error) { reason = err },
		})
		transport.CloseIdleConnections()
		_ = server.Close()
		_ = network.Close()
		<-served
		if slices.Contains(asked, "elsewhere.example") || len(asked) == 0 {
			t.Errorf("asked %q", asked)
		}
		if reason == nil || reason.Error() != "no connection: HTTP 307" {
			t.Errorf("reason %v", reason)
		}
	})
}

// A server that cannot prove who it is hears nothing, and the reason names nothing.
func TestServerWithoutProof(t *testing.T) {
	t.Parallel()
	asked := false
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var reason error
	counter.Follow(ctx, counter.Config{
		URL: server.URL, Key: key, User: json.RawMessage(`17`), Counter: func(int64, bool) {},
		Retrying: func(err error) {
			reason = err
			cancel()
		},
	})
	server.Close()
	if asked || reason == nil || reason.Error() != "no connection" {
		t.Errorf("asked %v, reason %v", asked, reason)
	}
}
