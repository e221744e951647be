package bench_test

import "github.com/wazzup-relay/wazzup-relay/internal/embedded"

// server is the NATS server that the worker would embed, in its own process.
type server struct{ srv *embedded.Server }

func newServer(s spec) (role, error) {
	// Streams reserve what they may hold, and this bounds the reservations only.
	srv, err := embedded.Start(embedded.Config{Dir: s.Dir, Listen: "127.0.0.1:0", MaxStore: 1 << 40})
	if err != nil {
		return nil, err
	}
	return server{srv}, nil
}

func (s server) told() any         { return s.srv.URL() }
func (s server) answer(string) any { return nil }
func (s server) stop() error       { s.srv.Shutdown(); return nil }
