package sender

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// MaxRetryAfter is the longest hint of the vendor that is honoured. Its window is
// 5 s; a hint beyond this is taken for a fault of what stands between, and would
// hold a whole account for nothing.
const MaxRetryAfter = 15 * time.Minute

// Backoff is how long to wait before a call is made again: exponential with full
// jitter, so that what failed together does not come back together.
type Backoff struct {
	Min time.Duration // the shortest wait
	Max time.Duration // the longest
}

// DefaultBackoff is 1s..5m.
func DefaultBackoff() Backoff { return Backoff{Min: time.Second, Max: 5 * time.Minute} }

// Delay is the wait after so many attempts: evenly between Min and Min·2^attempt,
// at most Max. Attempts below 1 count as 1. rnd returns numbers in [0, 1); nil
// means math/rand/v2.
func (b Backoff) Delay(attempt int, rnd func() float64) time.Duration {
	ceiling := b.Min
	for range max(attempt, 1) {
		if ceiling >= b.Max-ceiling { // doubling would reach Max, or overflow
			ceiling = b.Max
			break
		}
		ceiling *= 2
	}
	if rnd == nil {
		rnd = rand.Float64
	}
	return b.Min + time.Duration(rnd()*float64(ceiling-b.Min))
}

// DelayAfter is Delay, but no shorter than the vendor's hint (Retry-After), which
// in turn counts for MaxRetryAfter at most. A hint may exceed Max.
func (b Backoff) DelayAfter(attempt int, hint time.Duration, rnd func() float64) time.Duration {
	return max(b.Delay(attempt, rnd), min(hint, MaxRetryAfter))
}

// UnmarshalText reads "1s..5m".
func (b *Backoff) UnmarshalText(text []byte) error {
	from, to, ok := strings.Cut(string(text), "..")
	if !ok {
		return fmt.Errorf("backoff %q is not of the form 1s..5m", text)
	}
	shortest, err := time.ParseDuration(strings.TrimSpace(from))
	if err != nil {
		return fmt.Errorf("backoff %q: %w", text, err)
	}
	longest, err := time.ParseDuration(strings.TrimSpace(to))
	if err != nil {
		return fmt.Errorf("backoff %q: %w", text, err)
	}
	parsed := Backoff{Min: shortest, Max: longest}
	if err := parsed.Validate(); err != nil {
		return fmt.Errorf("backoff %q: %w", text, err)
	}
	*b = parsed
	return nil
}

// Validate reports whether the bounds make sense: 0 < Min <= Max.
func (b Backoff) Validate() error {
	switch {
	case b.Min <= 0:
		return errors.New("the shortest wait must be more than zero")
	case b.Max < b.Min:
		return errors.New("the longest wait is shorter than the shortest")
	}
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (b Backoff) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

func (b Backoff) String() string { return plainDuration(b.Min) + ".." + plainDuration(b.Max) }

// plainDuration writes 5m where time.Duration writes 5m0s.
func plainDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
