package daemon

import (
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// maxTexts bounds what a Repeated remembers; an error whose text never repeats
// is then logged each time, as is right.
const maxTexts = 16

// Repeated logs an error that comes again and again: once when it is new, once
// in a while as long as it stays, and once when it is over; the same for each
// of several that take turns, as those of a cluster's servers do. Each line
// tells how many went unlogged. It is for one operation, and may be used by
// several goroutines.
type Repeated struct {
	log   zerolog.Logger
	what  string
	every time.Duration

	mu      sync.Mutex           // guards the rest
	text    string               // of the last error, "" while all is well
	since   time.Time            // of the first error in a row
	logged  map[string]time.Time // when each text of the row was logged last
	skipped int
}

// NewRepeated is for the operation named what, a few constant words such as
// "connect to NATS". every is how often an unchanged error is logged again;
// 0 = never.
func NewRepeated(log zerolog.Logger, what string, every time.Duration) *Repeated {
	return &Repeated{log: log, what: what, every: every, logged: make(map[string]time.Time)}
}

// Failed notes an error; err must not carry personal data.
func (r *Repeated) Failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.text == "" {
		r.since = now
	}
	r.text = err.Error()
	if last, ok := r.logged[r.text]; ok && (r.every == 0 || now.Sub(last) < r.every) {
		r.skipped++
		return
	}
	r.log.Warn().Str("operation", r.what).Err(err).Int("not_logged", r.skipped).
		Dur("failing_for_ms", now.Sub(r.since)).Msg("operation fails, will go on trying")
	r.skipped = 0
	if len(r.logged) >= maxTexts {
		clear(r.logged)
	}
	r.logged[r.text] = now
}

// Succeeded notes that the operation works (again).
func (r *Repeated) Succeeded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.text == "" {
		return
	}
	r.log.Info().Str("operation", r.what).Int("not_logged", r.skipped).
		Dur("failed_for_ms", time.Since(r.since)).Msg("operation works again")
	r.text, r.skipped = "", 0
	clear(r.logged)
}

// Last is the text of the error that lasts, or "" while all is well.
func (r *Repeated) Last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text
}
