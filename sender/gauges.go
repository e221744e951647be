package sender

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// gauges are read when somebody asks for the metrics: what the accounts that this
// worker owns hold at that moment.
type gauges struct {
	meter    metric.Meter
	lanes    metric.Int64ObservableGauge
	breakers metric.Int64ObservableGauge
	flight   metric.Int64ObservableGauge
	closed   metric.Int64ObservableGauge
	commands metric.Int64ObservableGauge
	queued   metric.Int64ObservableGauge
	oldest   metric.Float64ObservableGauge
	fill     metric.Float64ObservableGauge
	users    metric.Int64ObservableGauge
}

func newGauges(m metric.Meter) (gauges, error) {
	g := gauges{meter: m}
	var errs [9]error
	g.lanes, errs[0] = m.Int64ObservableGauge("wazzup.lanes",
		metric.WithDescription("Lanes of the accounts that this worker owns, by state: open, closed by the vendor's word or a breaker, paused by an operator or the brake, or unlisted: not opened, since the vendor lists neither their channels nor those of many others."))
	g.breakers, errs[1] = m.Int64ObservableGauge("wazzup.breakers.open",
		metric.WithDescription("Breakers that are open or let only probes through, by family of calls and kind: one channel's, or the family's own."))
	g.flight, errs[2] = m.Int64ObservableGauge("wazzup.calls.inflight",
		metric.WithDescription("Calls under way, from their claims to the answer, by the lane's class; several sync commands may share one."))
	g.closed, errs[3] = m.Int64ObservableGauge("wazzup.accounts.closed",
		metric.WithDescription("Accounts that this worker owns and the vendor refuses, as for a wrong key."))
	g.commands, errs[4] = m.Int64ObservableGauge("wazzup.commands.held",
		metric.WithDescription("Commands of the accounts that this worker owns: in its hand, or parked on disk because their chat waits."))
	g.fill, errs[5] = m.Float64ObservableGauge("wazzup.stream.fill", metric.WithUnit("1"),
		metric.WithDescription("How full the account's streams are, 1 being the byte limit, by account and stream; 0 where another worker owns it."))
	g.users, errs[6] = m.Int64ObservableGauge("wazzup.counter.users",
		metric.WithDescription("Users of the accounts that this worker owns whose unanswered counter is followed, by state of the connection: connected, or waiting for one."))
	g.queued, errs[7] = m.Int64ObservableGauge("wazzup.commands.queued",
		metric.WithDescription("Commands that have not ended, by account and class of lanes, wherever they lie; only the account's owner tells."))
	g.oldest, errs[8] = m.Float64ObservableGauge("wazzup.commands.oldest.age", metric.WithUnit("s"),
		metric.WithDescription("For how long the oldest of them has waited, since it was published or came due; only the account's owner tells."))
	return g, errors.Join(errs[:]...)
}

// breakerKind tells whose breaker it is.
type breakerKind string

const (
	breakerOfChannel breakerKind = "channel"
	breakerOfFamily  breakerKind = "family"
)

type breakerLabels struct {
	family Family
	kind   breakerKind
}

type backlogLabels struct{ account, class string }

type backlogReading struct {
	queued uint64
	age    time.Duration // of the oldest
}

// Where a command is.
const (
	heldInHand = "hand"
	heldOnDisk = "parked"
)

// laneStateUnlisted is of lanes that are not opened, see strangers.go. `lanes.list`
// calls them closed.
const laneStateUnlisted = "unlisted"

// How a followed user's connection is.
const (
	userConnected = "connected"
	userWaiting   = "waiting"
)

// reading is one look at all owners. Its maps have every label from the start.
type reading struct {
	lanes    map[string]int64 // by state
	breakers map[breakerLabels]int64
	flight   map[string]int64 // by class
	closed   int64
	commands map[string]int64
	fill     map[string][4]float64 // by account
	backlog  map[backlogLabels]backlogReading
	users    map[string]int64 // by state of their connection
}

func newReading() *reading {
	r := &reading{
		lanes:    map[string]int64{laneStateOpen: 0, laneStateClosed: 0, laneStatePaused: 0, laneStateUnlisted: 0},
		breakers: make(map[breakerLabels]int64),
		flight:   map[string]int64{classSend: 0, classBulk: 0, classSync: 0},
		commands: map[string]int64{heldInHand: 0, heldOnDisk: 0},
		fill:     make(map[string][4]float64),
		backlog:  make(map[backlogLabels]backlogReading),
		users:    map[string]int64{userConnected: 0, userWaiting: 0},
	}
	for _, f := range Families() {
		r.breakers[breakerLabels{f, breakerOfChannel}] = 0
		r.breakers[breakerLabels{f, breakerOfFamily}] = 0
	}
	return r
}

// observe has the worker's accounts read whenever the metrics are asked for, until
// the returned function is called.
func (s *metrics) observe(w *Worker) (end func()) {
	g := s.gauges
	registered, err := g.meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		r := newReading()
		w.mu.Lock()
		accounts := w.accounts
		for _, a := range w.leaving {
			if !slices.Contains(accounts, a) {
				accounts = append(slices.Clip(accounts), a) // until it is given up
			}
		}
		w.mu.Unlock()
		for _, a := range accounts {
			a.read(r)
		}
		g.tell(to, r)
		return nil
	}, g.lanes, g.breakers, g.flight, g.closed, g.commands, g.queued, g.oldest, g.fill, g.users)
	if err != nil {
		w.log.Error().Err(err).Msg("metrics_not_observed")
		return func() {}
	}
	return func() { _ = registered.Unregister() } // fails never, or because it is gone
}

func (g *gauges) tell(to metric.Observer, r *reading) {
	for state, n := range r.lanes {
		to.ObserveInt64(g.lanes, n, metric.WithAttributes(attribute.String("state", state)))
	}
	for b, n := range r.breakers {
		to.ObserveInt64(g.breakers, n, metric.WithAttributes(
			attribute.String("family", string(b.family)), attribute.String("kind", string(b.kind))))
	}
	for class, n := range r.flight {
		to.ObserveInt64(g.flight, n, metric.WithAttributes(attribute.String("class", class)))
	}
	to.ObserveInt64(g.closed, r.closed)
	for where, n := range r.commands {
		to.ObserveInt64(g.commands, n, metric.WithAttributes(attribute.String("where", where)))
	}
	for state, n := range r.users {
		to.ObserveInt64(g.users, n, metric.WithAttributes(attribute.String("state", state)))
	}
	for b, waits := range r.backlog {
		labels := metric.WithAttributes(attribute.String("account", b.account), attribute.String("class", b.class))
		to.ObserveInt64(g.queued, int64(waits.queued), labels) //nolint:gosec // a stream holds fewer than 2^63 messages
		to.ObserveFloat64(g.oldest, waits.age.Seconds(), labels)
	}
	for account, fills := range r.fill {
		for i, role := range storageRoles() {
			to.ObserveFloat64(g.fill, fills[i], metric.WithAttributes(
				attribute.String("account", account), attribute.String("stream", role)))
		}
	}
}

// read adds what the account's owner holds; where it is not owned here, nothing.
func (a *served) read(r *reading) {
	r.fill[a.name] = [4]float64{}
	a.mu.Lock()
	o := a.owner
	a.mu.Unlock()
	if o != nil {
		o.read(r)
	}
}

func (o *owner) read(r *reading) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.lanes {
		r.lanes[o.laneState(l)]++
		r.flight[l.key.class] += int64(l.flight)
	}
	r.lanes[laneStatePaused] += o.pausedUnopened()
	r.lanes[laneStateUnlisted] += int64(o.crowd.waiting)
	o.breakers.count(r.breakers)
	if o.closed != nil {
		r.closed++
	}
	r.commands[heldInHand] += int64(len(o.commands))
	for class, w := range o.backlog.classes {
		r.commands[heldOnDisk] += int64(w.counts[inParked]) //nolint:gosec // a stream holds fewer than 2^63 messages
		if o.backlog.fresh(time.Now()) {
			r.backlog[backlogLabels{o.cfg.Account, class}] = backlogReading{w.total(), w.age}
		}
	}
	r.users[userConnected] += int64(o.counters.connected)
	r.users[userWaiting] += int64(max(len(o.counters.wanted)-o.counters.connected, 0))
	var fills [4]float64
	for i := range o.fills {
		fills[i] = o.fills[i].ratio()
	}
	r.fill[o.cfg.Account] = fills
}

// pausedUnopened counts the pauses of lanes that are not open, since nothing waits
// in them: nobody should forget them until something does. The mutex is held.
func (o *owner) pausedUnopened() (n int64) {
	for id, g := range o.channels {
		for class := range g.paused {
			if o.lanes[laneKey{class, id}] == nil && g.closed == nil && o.closed == nil {
				n++
			}
		}
	}
	return n
}

// laneState is as `lanes.list` tells it.
func (o *owner) laneState(l *lane) string {
	_, broken := o.breakers.Blocked(l.family(), l.channelID())
	switch {
	case o.closed != nil, l.channel != nil && l.channel.closed != nil:
		return laneStateClosed
	case l.pauseOf() != nil:
		return laneStatePaused
	case broken:
		return laneStateClosed
	}
	return laneStateOpen
}
