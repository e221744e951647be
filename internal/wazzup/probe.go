package wazzup

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Timing says where a call's time went. What did not happen is zero: a call on
// a kept connection has no DNS, Connect and TLS.
type Timing struct {
	DNS       time.Duration
	Connect   time.Duration
	TLS       time.Duration
	FirstByte time.Duration // from the start of the call to the answer's first byte
	Total     time.Duration
	Reused    bool // the connection had carried a request before
}

// probe watches one call from within net/http. Its hooks are called from
// several goroutines, and those of dialling may be called after the call has
// returned, since net/http finishes a dial that nobody waits for any more.
//
// Probes are pooled, because a trace with all its hooks is dear. Only one whose
// hooks have surely been called for the last time goes back (see putProbe).
type probe struct {
	ctx   context.Context //nolint:containedctx // carries the trace, built once; see callContext
	start time.Time

	// Offsets from start in nanoseconds, plus one; zero: it did not happen.
	dnsStart, dnsDone         atomic.Int64
	connectStart, connectDone atomic.Int64
	tlsStart, tlsDone         atomic.Int64
	firstByte                 atomic.Int64

	requests atomic.Int32 // how often a connection was asked for
	wrote    atomic.Bool  // net/http is done with writing the request

	// Of the connection that was given; set by the goroutine that makes the
	// call, for net/http calls GotConn in it.
	gotConn  bool
	reused   bool
	wasIdle  bool // it lay idle, so that no dial was begun for this call
	exact    bool // HTTP/1: counter tells what this request wrote
	counter  *atomic.Uint64
	atGotten uint64
	earlier  bool // an earlier connection of this call may carry the request already
}

func (t *Transport) takeProbe() *probe {
	p, ok := t.probes.Get().(*probe)
	if !ok {
		p = newProbe()
	}
	p.start = time.Now()
	return p
}

func newProbe() *probe {
	p := new(probe)
	p.ctx = httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		GetConn:              func(string) { p.requests.Add(1) },
		GotConn:              p.onGotConn,
		DNSStart:             func(httptrace.DNSStartInfo) { p.first(&p.dnsStart) },
		DNSDone:              func(httptrace.DNSDoneInfo) { p.last(&p.dnsDone) },
		ConnectStart:         func(string, string) { p.first(&p.connectStart) },
		ConnectDone:          func(string, string, error) { p.last(&p.connectDone) },
		TLSHandshakeStart:    func() { p.first(&p.tlsStart) },
		TLSHandshakeDone:     p.onHandshake,
		GotFirstResponseByte: func() { p.first(&p.firstByte) },
		WroteRequest:         func(httptrace.WroteRequestInfo) { p.wrote.Store(true) },
	})
	return p
}

func (p *probe) now() int64 { return int64(time.Since(p.start)) + 1 }

func (p *probe) first(at *atomic.Int64) { at.CompareAndSwap(0, p.now()) }

func (p *probe) last(at *atomic.Int64) { at.Store(p.now()) }

func (p *probe) onHandshake(_ tls.ConnectionState, err error) {
	if err == nil {
		p.last(&p.tlsDone)
	}
}

func (p *probe) onGotConn(info httptrace.GotConnInfo) {
	p.earlier = p.phaseOfFailure() == schema.PhaseWritten
	p.gotConn = true
	p.reused = info.Reused
	p.wasIdle = info.WasIdle
	p.counter = writeCounter(info.Conn)
	p.exact = p.counter != nil
	if p.exact {
		p.atGotten = p.counter.Load()
	}
}

// phaseOfFailure tells how far a request that got no whole answer came.
//
// Without a connection nothing was written. Over HTTP/1 the connection belongs
// to this request alone, and net/http returns an error only after the goroutine
// that writes has ended, so the connection's counter is exact. Over HTTP/2 a
// connection is shared and writing may go on after an error is returned:
// whatever got that far may have been written.
func (p *probe) phaseOfFailure() schema.Phase {
	switch {
	case p.earlier:
		return schema.PhaseWritten
	case !p.gotConn, p.exact && p.counter.Load() == p.atGotten:
		return schema.PhaseNotSent
	default:
		return schema.PhaseWritten
	}
}

// faultOf names what failed. The call's own context is asked first, because
// net/http returns whatever error tearing a connection down caused.
func (p *probe) faultOf(ctx context.Context, err error) Fault {
	switch {
	case errors.Is(err, errNoAnswer):
		return FaultBadAnswer
	case errors.Is(ctx.Err(), context.Canceled):
		return FaultCancelled
	case ctx.Err() != nil:
		return FaultTimeout
	case !p.gotConn:
		return p.connectFault(err)
	case p.firstByte.Load() != 0 && !isNetworkError(err):
		return FaultBadAnswer
	default:
		return FaultReset
	}
}

func (p *probe) connectFault(err error) Fault {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return FaultDNS
	}
	if p.tlsStart.Load() != 0 && p.tlsDone.Load() == 0 {
		return FaultTLS
	}
	return FaultDial
}

func isNetworkError(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	for _, target := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func (p *probe) timing() Timing {
	return Timing{
		DNS:       between(&p.dnsStart, &p.dnsDone),
		Connect:   between(&p.connectStart, &p.connectDone),
		TLS:       between(&p.tlsStart, &p.tlsDone),
		FirstByte: time.Duration(max(p.firstByte.Load()-1, 0)),
		Total:     time.Since(p.start),
		Reused:    p.reused,
	}
}

func between(start, done *atomic.Int64) time.Duration {
	from, to := start.Load(), done.Load()
	if from == 0 || to < from {
		return 0
	}
	return time.Duration(to - from)
}

// putProbe gives the probe back if none of its hooks can be called any more:
// the answer was read to its end, the request was written to its end, and the
// one connection that was asked for lay idle, so that no dial was begun. The
// last is known for HTTP/1 only.
func (t *Transport) putProbe(p *probe, answered bool) {
	if !answered || !p.exact || !p.wasIdle || !p.wrote.Load() || p.requests.Load() != 1 {
		return
	}
	p.dnsStart.Store(0)
	p.dnsDone.Store(0)
	p.connectStart.Store(0)
	p.connectDone.Store(0)
	p.tlsStart.Store(0)
	p.tlsDone.Store(0)
	p.firstByte.Store(0)
	p.requests.Store(0)
	p.wrote.Store(false)
	p.gotConn, p.reused, p.wasIdle, p.exact, p.earlier = false, false, false, false, false
	p.counter, p.atGotten = nil, 0
	t.probes.Put(p)
}
