package counter

import (
	"fmt"
	"time"
)

// Parse tells in words what a frame means.
func Parse(frame string) string {
	p, err := parse([]byte(frame))
	if err != nil {
		return "error"
	}
	word := [...]string{"other", "ping", "connected", "notified", "disconnected"}[p.kind]
	switch {
	case p.kind == notified:
		return fmt.Sprint(word, " ", p.counter)
	case p.legacy:
		return word + " legacy"
	}
	return word
}

// ParseOpening opens the reading of the first packet to tests.
func ParseOpening(frame string) (interval, timeout time.Duration, err error) {
	o, err := parseOpening([]byte(frame))
	return o.interval, o.timeout, err
}
