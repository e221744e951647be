package sender

import "sync"

// callers is a pool of goroutines for calls. They are kept, because a call grows
// a goroutine's stack and growing it anew for each is what costs.
type callers struct {
	work chan func()
	quit chan struct{}
	wg   sync.WaitGroup
}

func newCallers() *callers {
	return &callers{work: make(chan func()), quit: make(chan struct{})}
}

// run hands f to an idle goroutine or starts one. The account's slots bound
// their number.
func (p *callers) run(f func()) {
	select {
	case p.work <- f:
	default:
		p.wg.Go(func() { p.serve(f) })
	}
}

func (p *callers) serve(f func()) {
	for {
		f()
		select {
		case f = <-p.work:
		case <-p.quit:
			return
		}
	}
}

// close waits for the calls under way; run must not be called any more.
func (p *callers) close() {
	close(p.quit)
	p.wg.Wait()
}
