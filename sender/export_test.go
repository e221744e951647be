package sender

import (
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
)

// Window opens the account's window to tests.
type Window struct{ w *window }

func NewWindow(limit rate.Rate) Window { return Window{newWindow(limit)} }

func (w Window) Take(now time.Time, share float64) (time.Time, bool) { return w.w.take(now, share) }
func (w Window) Answered(now time.Time)                              { w.w.answered(now) }
func (w Window) Unused()                                             { w.w.unused() }
func (w Window) AssumeFull(now time.Time)                            { w.w.assumeFull(now) }
func (w Window) Busy(now time.Time) []time.Time                      { return w.w.busy(now) }
func (w Window) Inherit(freed []time.Time)                           { w.w.inherit(freed, time.Time{}) }

// Pace opens a lane's pace to tests.
type Pace struct{ p *pace }

func NewPace(limit rate.Rate) Pace { return Pace{&pace{limit: limit}} }

func (p Pace) Ready(now time.Time) (time.Time, bool) { return p.p.ready(now) }
func (p Pace) Started(now time.Time, random float64) { p.p.started(now, random) }

// MaskURL opens the masking of webhook addresses to tests.
func MaskURL(address string) string { return maskURL(address) }
