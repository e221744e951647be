// Package rate is the one notation of limits: so many calls in any interval of
// a length, written 500/5s in variables, flags, files and requests.
package rate

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of a rate. A limiter may remember each call of one window, and the new
// owner of an account waits a whole window out: neither may be boundless.
const (
	MaxN   = 1_000_000
	MinPer = time.Millisecond
	MaxPer = 24 * time.Hour
)

// Rate allows N calls in any interval of length Per, wherever it begins. The
// zero value is no limit.
type Rate struct {
	N   int
	Per time.Duration
}

// IsZero reports whether there is no limit.
func (r Rate) IsZero() bool { return r == Rate{} }

// In is how many calls the rate allows in a time that is longer or shorter than
// its own, rounded down. It is 0 where there is no limit.
func (r Rate) In(d time.Duration) int {
	if r.IsZero() {
		return 0
	}
	return int(float64(r.N) * float64(d) / float64(r.Per))
}

// String returns the notation that [Parse] reads: 500/5s, or 0 for no limit.
func (r Rate) String() string {
	if r.IsZero() {
		return "0"
	}
	return strconv.Itoa(r.N) + "/" + ShortDuration(r.Per)
}

// MarshalText returns the notation of [Rate.String].
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is [Parse]; on error the rate is left as it was.
func (r *Rate) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// Parse reads 500/5s, 20/1m or 0 (no limit). A count of 0 with an interval is
// refused: it could mean "nothing at all" as well as "no limit".
func Parse(text string) (Rate, error) {
	if text == "0" {
		return Rate{}, nil
	}
	count, interval, found := strings.Cut(text, "/")
	n, err := strconv.ParseUint(count, 10, 32)
	if !found || err != nil {
		return Rate{}, fmt.Errorf("%q is no rate: write 500/5s for 500 in any 5 seconds, or 0 for no limit", text)
	}
	if n < 1 || n > MaxN {
		return Rate{}, fmt.Errorf("%q is no rate: the count must be 1 to %d (for no limit write 0 alone)", text, MaxN)
	}
	per, err := time.ParseDuration(interval)
	if err != nil {
		return Rate{}, fmt.Errorf("%q is no rate: %q is no duration such as 5s or 1m", text, interval)
	}
	if per < MinPer || per > MaxPer {
		return Rate{}, fmt.Errorf("%q is no rate: the interval must be %s to %s", text, MinPer, ShortDuration(MaxPer))
	}
	return Rate{N: int(n), Per: per}, nil
}

// ShortDuration is d.String() without the zero units at its end: 2m, not 2m0s.
func ShortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
