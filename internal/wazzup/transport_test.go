package wazzup_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
)

// TestWritesOfRequestsAreCounted, and what TLS says of itself is not.
func TestWritesOfRequestsAreCounted(t *testing.T) {
	t.Parallel()
	h1 := httptest.NewTLSServer(nil)
	h1.Close()
	h2 := httptest.NewUnstartedServer(nil)
	h2.EnableHTTP2 = true
	h2.StartTLS()
	h2.Close()
	// The shortest request that there is.
	request := []byte("GET /v2/users HTTP/1.1\r\nHost: h\r\nUser-Agent: wazzup-relay\r\nAccept: application/json\r\nAuthorization: Basic k\r\n\r\n")
	tests := []struct {
		name    string
		server  *httptest.Server // nil: in the clear
		version uint16
		exact   bool
	}{
		{"in the clear", nil, 0, true},
		{"TLS 1.2", h1, tls.VersionTLS12, true},
		{"TLS 1.3", h1, tls.VersionTLS13, true},
		{"HTTP/2", h2, tls.VersionTLS13, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := net.Pipe()
			conn := wazzup.Counted(ours)
			read := make(chan int64, 1)
			go func() {
				var server io.Reader = theirs
				if tt.server != nil {
					server = tls.Server(theirs, tt.server.TLS)
				}
				n, _ := io.Copy(io.Discard, server)
				read <- n
			}()
			if tt.server != nil {
				cfg := trusting(tt.server).TLS.Clone()
				cfg.ServerName = "example.com"
				cfg.MinVersion, cfg.MaxVersion = tt.version, tt.version
				if !tt.exact {
					cfg.NextProtos = []string{"h2"}
				}
				client := tls.Client(conn, cfg)
				if err := client.HandshakeContext(t.Context()); err != nil {
					t.Fatal(err)
				}
				conn = client
			}
			before, exact := wazzup.RequestWrites(conn)
			if exact != tt.exact {
				t.Fatalf("exact: %v, want %v", exact, tt.exact)
			}
			if exact {
				if _, err := conn.Write(request); err != nil {
					t.Fatal(err)
				}
				written, _ := wazzup.RequestWrites(conn)
				if written == before {
					t.Error("a request was not counted")
				}
				before = written
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			if after, _ := wazzup.RequestWrites(conn); after != before {
				t.Error("closing was counted as a request")
			}
			if n := <-read; exact && n != int64(len(request)) {
				t.Errorf("the server read %d bytes, want %d", n, len(request))
			}
		})
	}
	if _, exact := wazzup.RequestWrites(nil); exact {
		t.Error("no connection is exact")
	}
}

// TestProbesArePooled once a connection is in use again, and never before: a dial
// may call its hooks long after.
func TestProbesArePooled(t *testing.T) {
	t.Parallel()
	c := newClient(t, rawServer(t, func(conn net.Conn) {
		reader := bufio.NewReader(conn)
		for readRequest(reader) != nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 201 Created\r\nContent-Length: 18\r\n\r\n{\"messageId\":\"m1\"}")
		}
	}), wazzup.TransportConfig{})
	c.SendMessage(t.Context(), testMessage())
	if wazzup.PooledProbe(c) {
		t.Error("a probe that saw a dial is used again")
	}
	for range 1000 { // the race detector makes pools forget some
		if a := c.SendMessage(t.Context(), testMessage()); !a.OK() || !a.Timing.Reused {
			t.Fatalf("got %s, reused %v", a.String(), a.Timing.Reused)
		}
		if wazzup.PooledProbe(c) {
			return
		}
	}
	t.Error("no probe is ever used again")
}

func TestErrorsTellWhatTheNetworkSays(t *testing.T) {
	t.Parallel()
	a := newClient(t, rawServer(t, func(conn net.Conn) {
		readRequest(bufio.NewReader(conn))
		resetOnClose(conn)
	}), wazzup.TransportConfig{}).SendMessage(t.Context(), testMessage())
	if a.Err == nil || !strings.Contains(a.Err.Error(), "connection reset by peer") {
		t.Errorf("got %v", a.Err)
	}
}
