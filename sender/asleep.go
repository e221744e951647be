package sender

// A lane that is closed is not pulled, so its consumers are of no use, and they cost
// the open lanes: at each acknowledgement the server asks every consumer of the
// stream whether it needs the message. So they go while the lane is closed, and
// are made again when it asks for commands.

// sleepRounds is for how many rounds of discovery, five seconds in all, a lane is
// closed before its consumers go: one that is closed for a moment keeps them.
const sleepRounds = 7

// shut reports whether a gate of its own keeps the lane closed, and it is not being
// tried. While the whole account is closed nothing is acknowledged, and consumers cost
// nothing.
func (l *lane) shut() bool {
	g := l.channel
	return g != nil && (g.closed != nil && !g.trying || l.pauseOf() != nil)
}

// sleepIfShut is called for each lane in every round of discovery. The owner's mutex
// is held.
func (o *owner) sleepIfShut(l *lane) {
	if !l.shut() {
		l.shutFor = 0
		return
	}
	if l.shutFor++; l.shutFor < o.cfg.timing.sleepRounds {
		return
	}
	for _, f := range l.feeds {
		if f.source != nil {
			f.source.Sleep()
		}
	}
}
