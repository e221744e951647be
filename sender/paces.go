package sender

import (
	"maps"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
)

// paceMemory knows when lanes that are not open may make their next call: those
// whose calls a former owner noted, and those that were retired. The zero value
// knows that no calls were made.
type paceMemory struct {
	next map[laneKey]time.Time
	// blind: calls that were made before are not known; zero: all are.
	blind time.Time
}

// from is when a lane that is opened now may make its first call.
func (m *paceMemory) from(key laneKey, limit rate.Rate, now time.Time) time.Time {
	at := m.next[key]
	if !m.blind.IsZero() {
		at = latest(at, m.blind.Add(spacingOf(limit)))
	}
	return soonest(at, limit, now)
}

// keep remembers the pace of a lane that is retired.
func (m *paceMemory) keep(key laneKey, next time.Time) {
	if m.next == nil {
		m.next = make(map[laneKey]time.Time)
	}
	m.next[key] = next
}

// forget drops what no longer holds anybody.
func (m *paceMemory) forget(now time.Time) {
	maps.DeleteFunc(m.next, func(_ laneKey, at time.Time) bool { return !at.After(now) })
	if now.Sub(m.blind) > rate.MaxPer {
		m.blind = time.Time{}
	}
}

// of is this memory together with the paces of the lanes that are open.
func (m *paceMemory) of(lanes map[laneKey]*lane, now time.Time) paceMemory {
	all := paceMemory{next: maps.Clone(m.next), blind: m.blind}
	for key, l := range lanes {
		all.keep(key, l.pace.next)
	}
	all.forget(now)
	return all
}

// note writes the memory into the note for the next owner.
func (m *paceMemory) note(to *handover, now time.Time) {
	if !m.blind.IsZero() {
		to.Blind = now.Sub(m.blind).Milliseconds() + 1
	}
	to.Paces = make(map[string]int64, len(m.next))
	for key, at := range m.next {
		to.Paces[key.class+"."+key.channel] = left(at, now)
	}
}

// inherit reads what note wrote.
func (m *paceMemory) inherit(from *handover, now time.Time) {
	for name, ms := range from.Paces {
		class, channel, _ := strings.Cut(name, ".")
		m.keep(laneKey{class, channel}, now.Add(time.Duration(ms)*time.Millisecond))
	}
	if from.Blind > 0 {
		m.blind = now.Add(-time.Duration(from.Blind-1) * time.Millisecond)
	}
}
