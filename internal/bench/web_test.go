package bench_test

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// web is an HTTP server of a role.
type web struct {
	url    string
	server *http.Server
	wg     sync.WaitGroup
}

func newWeb(h http.Handler) (*web, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a loopback port is there or not
	if err != nil {
		return nil, err
	}
	w := &web{url: "http://" + l.Addr().String(), server: &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}}
	w.wg.Go(func() { _ = w.server.Serve(l) }) // says that it was closed
	return w, nil
}

func (w *web) close() error {
	err := w.server.Close()
	w.wg.Wait()
	return err
}
