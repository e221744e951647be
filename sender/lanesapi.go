package sender

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// lanesPage is how many lanes one answer lists: each costs a look at its oldest
// command.
const lanesPage = 200

// States of a lane, as `lanes.list` names them.
const (
	laneStateOpen   = "open"
	laneStateClosed = "closed" // by the vendor's word, or a breaker
	laneStatePaused = "paused" // by an operator or the spam brake
)

// laneReasonBreaker is why a lane is closed that nobody's word has closed.
const laneReasonBreaker = "breaker"

// probeAt says what closes a breaker: a call that is let through then, and succeeds.
func probeAt(at time.Time) string { return "a probe at " + schema.FormatTime(at) }

// LaneItem is a lane as `lanes.list` tells of it.
type LaneItem struct {
	ChannelID string     `json:"channelId,omitempty"`
	Class     string     `json:"class"`            // send, bulk or sync
	Entity    string     `json:"entity,omitempty"` // of sync
	State     string     `json:"state"`            // open, closed or paused
	Reason    string     `json:"reason,omitempty"`
	Since     *time.Time `json:"since,omitempty"`
	OpensOn   string     `json:"opensOn,omitempty"`
	Gate      string     `json:"gate,omitempty"` // of an open lane: where its next command waits now
	Why       string     `json:"why,omitempty"`  // what it waits for there; of a breaker: whose it is
	Backlog   uint64     `json:"backlog"`        // commands that have not ended, those under way included
	Oldest    *time.Time `json:"oldest,omitempty"`
	InFlight  int        `json:"inFlight"`
	Rate      string     `json:"rate"` // the lane's pace; "0" = no limit
}

// LaneList is the answer to `lanes.list`.
type LaneList struct {
	Items []LaneItem `json:"items"`
	Next  int        `json:"next,omitempty"` // the offset to go on from; 0 = this was all
}

// LaneChange is the answer to `lane.pause` and `lane.resume`: the lanes as they
// stand now.
type LaneChange struct {
	Items []LaneItem `json:"items"`
}

// laneView is a lane while its list is made.
type laneView struct {
	key  laneKey
	item LaneItem
}

// lanesList answers `lanes.list`.
func (o *owner) lanesList(ctx context.Context, body []byte) (any, error) {
	q, err := decodeList(body, "channelId", "backlog")
	if err != nil {
		return nil, err
	}
	views, err := o.laneViews(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(views, func(a, b *laneView) int {
		order := cmp.Or(cmp.Compare(a.item.ChannelID, b.item.ChannelID), cmp.Compare(a.key.class, b.key.class), cmp.Compare(a.key.channel, b.key.channel))
		if q.OrderBy == "backlog" {
			order = cmp.Or(cmp.Compare(a.item.Backlog, b.item.Backlog), order)
		}
		if q.OrderDirection == "desc" {
			order = -order
		}
		return order
	})
	list := LaneList{Items: []LaneItem{}}
	views = views[min(q.Offset, len(views)):]
	if len(views) > lanesPage {
		list.Next = q.Offset + lanesPage
		views = views[:lanesPage]
	}
	for _, v := range views {
		if err := o.lookAtOldest(ctx, v); err != nil {
			return nil, err
		}
		list.Items = append(list.Items, v.item)
	}
	return list, nil
}

// laneViews describes every lane that is open, holds commands or is closed.
func (o *owner) laneViews(ctx context.Context) ([]*laneView, error) {
	backlog, err := o.backlogs(ctx)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	keys := make(map[laneKey]bool)
	for key := range backlog {
		keys[key] = true
	}
	for key := range o.lanes {
		keys[key] = true
	}
	for id, g := range o.channels {
		if g.closed != nil || len(g.paused) > 0 {
			keys[laneKey{classSend, id}], keys[laneKey{classBulk, id}] = true, true
		}
	}
	views := make([]*laneView, 0, len(keys))
	waits := o.laneWaits()
	for key := range keys {
		views = append(views, &laneView{key, o.laneItem(key, backlog[key], waits)})
	}
	return views, nil
}

// laneWaits tells of the lanes whose chats wait, for evidence or for a retry. The
// owner's mutex is held.
func (o *owner) laneWaits() map[*lane]laneWait {
	waits := make(map[*lane]laneWait)
	for _, c := range o.commands {
		switch {
		case c.doubt != nil:
			waits[c.lane] = laneWait{gateEvidence, whyEvidence}
		case c.chat != nil && c.timer != nil && waits[c.lane].gate == gateNone:
			waits[c.lane] = laneWait{gateRetry, whyRetry}
		}
	}
	return waits
}

// laneWait is a gate, and what is waited for there.
type laneWait struct {
	gate gate
	why  string
}

// standsAt is where an open lane's next command waits: at a gate of the lane's own,
// with all lanes of its rank at one of the account's, or, where none may go, for
// what its chats wait for.
func (l *lane) standsAt(waits map[*lane]laneWait) laneWait {
	for _, clock := range []*gateClock{&l.clock, l.line} {
		if clock.gate != gateNone && l.ready.len() > 0 {
			return laneWait{clock.gate, clock.why[clock.gate]}
		}
	}
	if l.ready.len() == 0 {
		return waits[l]
	}
	return laneWait{}
}

// backlogs counts the commands of every lane, wherever they lie.
func (o *owner) backlogs(ctx context.Context) (map[laneKey]uint64, error) {
	counts := make(map[laneKey]uint64)
	stored, err := o.intake.Waiting(ctx, o.topology.Commands(), ">")
	if err != nil {
		return nil, err
	}
	for subject, n := range stored {
		kind, channel, ok := schema.ParseCommandSubject(o.cfg.Account, subject)
		if ok {
			counts[dueLane(kind, channel)] += n
		}
	}
	due, err := o.intake.Waiting(ctx, o.topology.Deferred(), o.topology.DueFilter())
	if err != nil {
		return nil, err
	}
	for subject, n := range due {
		tokens := strings.Split(subject, ".")
		counts[laneKey{tokens[len(tokens)-2], tokens[len(tokens)-1]}] += n
	}
	parked, err := o.intake.Waiting(ctx, o.topology.Deferred(), o.topology.ParkFilter())
	if err != nil {
		return nil, err
	}
	for subject, n := range parked {
		if kind, channel, ok := o.topology.ParkedLane(subject); ok {
			counts[laneKey{string(kind), channel}] += n
		}
	}
	return counts, nil
}

// laneItem describes a lane. The owner's mutex is held.
func (o *owner) laneItem(key laneKey, backlog uint64, waits map[*lane]laneWait) LaneItem {
	item := LaneItem{Class: key.class, State: laneStateOpen, Backlog: backlog, Rate: "0"}
	if limit := o.cfg.paceOf(key); limit.N > 0 {
		item.Rate = limit.String()
	}
	closedBy := func(state, reason, opensOn string, since time.Time) {
		since = since.UTC()
		item.State, item.Reason, item.OpensOn, item.Since = state, reason, opensOn, &since
	}
	family, channelID := FamilySync, ""
	if key.class == classSync {
		item.Entity = key.channel
	} else {
		item.ChannelID, family, channelID = key.channel, FamilySend, key.channel
	}
	l := o.lanes[key]
	if l != nil {
		item.InFlight = l.flight
	}
	g := o.channels[channelID]
	retryAt, broken := o.breakers.Blocked(family, channelID)
	switch {
	case g != nil && g.closed != nil:
		closedBy(laneStateClosed, g.closed.code, g.closed.opensOn, g.closed.began)
	case o.closed != nil:
		closedBy(laneStateClosed, o.closed.code, o.closed.opensOn, o.closed.began)
	case g != nil && g.paused[key.class] != nil:
		p := g.paused[key.class]
		closedBy(laneStatePaused, p.by, p.opensOn(), p.since)
	case broken:
		closedBy(laneStateClosed, laneReasonBreaker, probeAt(retryAt), o.breakers.Since(family, channelID))
		if item.Why = whyChannel; o.breakers.ChannelClosed(family, channelID) {
			item.Why = whyFamily(family)
		}
	case l != nil:
		at := l.standsAt(waits)
		if at.gate == gateRetry && time.Now().Before(o.pausedUntil) {
			at = laneWait{gateWindow, why429} // what was refused by it waits for it, too
		}
		item.Gate, item.Why = at.gate.String(), at.why
		if at == (laneWait{gateWindow, why429}) {
			item.OpensOn = schema.FormatTime(o.pausedUntil)
		}
	case backlog > 0 && o.crowd.waiting > 0 && o.unlisted(key.channel):
		closedBy(laneStateClosed, reasonUnlisted, ReopenOnList, o.crowd.since)
		if o.crowd.since.IsZero() { // the list is not read yet
			item.Since = nil
		}
	}
	return item
}

// lookAtOldest finds out since when a lane's oldest command is stored: of one that
// came due or is parked, since when it was published.
func (o *owner) lookAtOldest(ctx context.Context, v *laneView) error {
	if v.item.Backlog == 0 {
		return nil
	}
	places := [][2]string{}
	for _, from := range []sourceKind{sourceCommands, sourceDue} {
		stream, filter := o.sourceOf(wantedLane{v.key, from})
		places = append(places, [2]string{stream, filter})
	}
	if v.key.class != classSync {
		places = append(places, [2]string{o.topology.Deferred(), o.topology.ParkLaneFilter(schema.Kind(v.key.class), v.key.channel)})
	}
	for _, place := range places {
		d, err := o.ledger.First(ctx, place[0], place[1])
		if err != nil {
			return err
		}
		if d == nil {
			continue
		}
		if at := o.firstStored(d).UTC(); v.item.Oldest == nil || at.Before(*v.item.Oldest) {
			v.item.Oldest = &at
		}
	}
	return nil
}

// laneChoice names the lanes that a request is about.
type laneChoice struct {
	ChannelID string `json:"channelId"`
	Class     string `json:"class"`
}

func decodeLaneChoice(body []byte) (id string, classes []string, err error) {
	var q laneChoice
	if err := decodeRequest(body, &q); err != nil {
		return "", nil, err
	}
	switch {
	case q.ChannelID == "":
		return "", nil, badField("channelId", schema.FaultRequired, "is required")
	case !schema.ValidUUID(q.ChannelID):
		return "", nil, badField("channelId", schema.FaultNotAUUID, "is no channel's id: a uuid in lower case")
	}
	switch q.Class {
	case "":
		return q.ChannelID, []string{classSend, classBulk}, nil
	case classSend, classBulk:
		return q.ChannelID, []string{q.Class}, nil
	}
	return "", nil, badField("class", schema.FaultNotAllowed, "must be send or bulk; without it both are meant")
}

// lanePause answers `lane.pause`: from its answer on the lanes stay paused through
// every restart, until somebody resumes them. Calls under way end as they do.
func (o *owner) lanePause(ctx context.Context, body []byte) (any, error) {
	return o.changeLanes(ctx, body, func(g *channelGate, class string, then func()) {
		o.pauseLane(g, class, byOperator, time.Time{}, then)
	})
}

// laneResume answers `lane.resume`: it ends a pause, whoever made it.
func (o *owner) laneResume(ctx context.Context, body []byte) (any, error) {
	return o.changeLanes(ctx, body, func(g *channelGate, class string, then func()) {
		o.resumeLane(g, class, byOperator, then)
	})
}

// notDurable is the fault of a change that has taken effect and is not stored yet.
func (o *owner) notDurable() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	why := ""
	if o.full {
		why = ": the records stream is full"
	}
	return &fault{status: 504, err: schema.Error{
		Code: CodeTimeout, Class: schema.ClassRetryable,
		Description: "it has taken effect, and may be forgotten at a restart, since it could not be stored in time" + why,
	}}
}

// changeLanes changes each lane that is meant, waits until that is durable, and
// answers how they stand.
func (o *owner) changeLanes(ctx context.Context, body []byte, change func(g *channelGate, class string, then func())) (any, error) {
	id, classes, err := decodeLaneChoice(body)
	if err != nil {
		return nil, err
	}
	stored := make(chan struct{}, len(classes))
	o.mu.Lock()
	for _, class := range classes {
		change(o.channel(id), class, func() { stored <- struct{}{} })
	}
	o.mu.Unlock()
	for range classes {
		select {
		case <-stored:
		case <-ctx.Done():
			return nil, o.notDurable()
		case <-o.ctx.Done():
			return nil, queue.ErrFenced
		}
	}
	backlog, err := o.backlogs(ctx)
	if err != nil {
		return nil, err
	}
	list := LaneChange{Items: []LaneItem{}}
	o.mu.Lock()
	defer o.mu.Unlock()
	waits := o.laneWaits()
	for _, class := range classes {
		key := laneKey{class, id}
		list.Items = append(list.Items, o.laneItem(key, backlog[key], waits))
	}
	return list, nil
}
