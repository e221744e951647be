package queuetest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports below the range from which kernels take the ports of outgoing
// connections (32768 on Linux, 49152 elsewhere). A port of that range could be
// given to some client while a server is stopped, even to one that dials the
// stopped server: it then connects to itself, and the server cannot come back.
const (
	firstPort    = 12000
	lastPort     = 31999
	portAttempts = 50
)

// freeAddr is a loopback address on which nobody listens now.
func freeAddr(tb testing.TB) string {
	tb.Helper()
	for range portAttempts {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort+1)))
		listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", addr)
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			tb.Fatalf("queuetest: %v", err)
		}
		return addr
	}
	tb.Fatalf("queuetest: no free port between %d and %d", firstPort, lastPort)
	return ""
}
