package wazzup

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// TransportConfig tunes the connections to the vendor.
type TransportConfig struct {
	// Connections is how many idle connections are kept: the calls in flight
	// that are usual, all clients together. Zero means 64. It is no limit.
	Connections int
	// DialTimeout bounds the DNS lookup and connecting, and again the TLS
	// handshake; zero means 10 s.
	DialTimeout time.Duration
	// IdleTimeout is how long a connection that nobody uses is kept; zero means
	// 4 s. A server that closes an idle connection just as a request is being
	// written leaves that request's fate unknown, so we close first: Node's
	// default is 5 s, proxies wait longer.
	IdleTimeout time.Duration
	// TLS settings such as own root certificates; nil means the system's. TLS
	// below 1.2 is never spoken.
	TLS *tls.Config
	// Dial replaces the network; nil means the system's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Proxy chooses a proxy for a request; nil means what HTTP_PROXY,
	// HTTPS_PROXY and NO_PROXY say.
	Proxy func(*http.Request) (*url.URL, error)
}

// Transport is the pool of connections that clients share.
type Transport struct {
	http   *http.Transport
	probes sync.Pool
}

// NewTransport never fails and does not connect.
func NewTransport(cfg TransportConfig) *Transport {
	if cfg.Connections <= 0 {
		cfg.Connections = 64
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 10 * time.Second
	}
	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = 4 * time.Second
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: cfg.DialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	if cfg.Proxy == nil {
		cfg.Proxy = http.ProxyFromEnvironment
	}
	tlsConfig := cfg.TLS.Clone()
	if tlsConfig == nil {
		tlsConfig = new(tls.Config)
	}
	tlsConfig.MinVersion = max(tlsConfig.MinVersion, tls.VersionTLS12)

	return &Transport{http: &http.Transport{
		Proxy: cfg.Proxy,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := cfg.Dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &countedConn{Conn: conn}, nil
		},
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    cfg.DialTimeout,
		MaxIdleConns:           0, // no limit over all hosts: there is one host
		MaxIdleConnsPerHost:    cfg.Connections,
		IdleConnTimeout:        cfg.IdleTimeout,
		DisableCompression:     true, // answers are small, and their size is bounded as sent
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true, // net/http leaves it off where TLS or dialling is configured
		HTTP2: &http.HTTP2Config{
			// One dead HTTP/2 connection would let every call on it run into
			// its timeout, that is, into an unknown fate.
			SendPingTimeout: 10 * time.Second,
			PingTimeout:     5 * time.Second,
		},
	}}
}

// CloseIdleConnections closes the connections that nobody uses.
func (t *Transport) CloseIdleConnections() { t.http.CloseIdleConnections() }

// countedConn counts writes, so that a failed call can tell whether any byte of
// its request may have left. It lies below TLS. A write is counted before it
// is tried.
type countedConn struct {
	net.Conn

	writes atomic.Uint64 // of any size
	large  atomic.Uint64 // of largeWrite bytes and more
	kind   atomic.Int32  // a connKind
}

// connKind is what a connection turned out to be when it was first used.
type connKind = int32

const (
	connNew    connKind = iota
	connPlain           // HTTP/1 in the clear
	connTLS             // HTTP/1 over TLS
	connShared          // HTTP/2
)

// largeWrite separates what carries a request from what TLS says of itself.
// Closing a TLS 1.3 connection writes an alert of 24 bytes, a key update is 27,
// and within a TLS proxy each is 22 longer; a request's first record holds at
// least its request line and header, some 200 bytes.
const largeWrite = 64

func (c *countedConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	if len(b) >= largeWrite {
		c.large.Add(1)
	}
	return c.Conn.Write(b)
}

// writeCounter finds the counter of what a request writes to a connection; nil
// if the connection is not the request's alone.
func writeCounter(conn net.Conn) *atomic.Uint64 {
	counted, encrypted := countedBelow(conn)
	if counted == nil {
		return nil
	}
	kind := counted.kind.Load()
	if kind == connNew {
		kind = connPlain
		if encrypted != nil {
			kind = connTLS
			if encrypted.ConnectionState().NegotiatedProtocol == "h2" {
				kind = connShared
			}
		}
		counted.kind.Store(kind)
	}
	switch kind {
	case connPlain:
		return &counted.writes
	case connTLS:
		return &counted.large
	default:
		return nil
	}
}

// countedBelow finds the counted connection, and the outermost TLS above it.
func countedBelow(conn net.Conn) (*countedConn, *tls.Conn) {
	var outermost *tls.Conn
	for {
		switch c := conn.(type) {
		case *countedConn:
			return c, outermost
		case *tls.Conn:
			if outermost == nil {
				outermost = c
			}
			conn = c.NetConn()
		default:
			return nil, nil
		}
	}
}
