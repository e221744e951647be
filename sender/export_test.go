package sender

import (
	"strconv"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Window opens the account's window to tests, as the transactional class sees it.
type Window struct {
	w     *window
	other bool
}

func NewWindow(limit rate.Rate) Window { return Window{w: newWindow(limit)} }

// Others is the same window as bulk, sync and requests see it.
func (w Window) Others() Window { return Window{w.w, true} }

func (w Window) Take(now time.Time) (time.Time, bool) { return w.w.take(now, w.other) }
func (w Window) Answered(now time.Time)               { w.w.answered(now, w.other) }
func (w Window) Unused()                              { w.w.unused(w.other) }
func (w Window) AssumeFull(now time.Time)             { w.w.assumeFull(now) }
func (w Window) Busy(now time.Time) []time.Time       { return w.w.busy(now) }
func (w Window) Inherit(freed []time.Time)            { w.w.inherit(freed, time.Time{}) }

// Change puts another limit in force.
func (w Window) Change(limit rate.Rate) { w.w.change(limit) }

// Pace opens a lane's pace to tests.
type Pace struct{ p *pace }

func NewPace(limit rate.Rate) Pace { return Pace{&pace{limit: limit}} }

func (p Pace) Ready(now time.Time) (time.Time, bool) { return p.p.ready(now) }
func (p Pace) Called(at time.Time)                   { p.p.called(at) }

func (p Pace) Started(now time.Time, random float64) { p.p.started(now, random) }
func (p Pace) Change(limit rate.Rate, now time.Time) { p.p.change(limit, now) }

// Picker is an owner whose lanes always have more commands, each of a chat of its own,
// and whose calls end after a while: what is left of it is who is called next. Time is
// the bubble's.
type Picker struct {
	o      *owner
	calls  func(class string) time.Duration // hears of each call, and says how long it takes
	chosen func()                           // hears when it was chosen who is called next
	serial int
}

// NewPicker has a lane of a class for each of its channels, which are named by their
// numbers.
func NewPicker(cfg Config, lanes map[string]int, calls func(class string) time.Duration) *Picker {
	p := &Picker{o: newOwner(&Worker{}, cfg.withDefaults(), nil, &queue.Lease{}, nil), calls: calls}
	o := p.o
	o.expires, o.attempt = time.Now().Add(24*time.Hour), p.attempt
	o.mu.Lock()
	defer o.mu.Unlock()
	for class, n := range lanes {
		for i := range n {
			l := o.laneOf(laneKey{class, strconv.Itoa(i)})
			p.supply(l)
			o.offer(l)
		}
	}
	return p
}

// Run calls until the time is over.
func (p *Picker) Run(d time.Duration, chosen func()) {
	o := p.o
	p.chosen = chosen
	o.mu.Lock()
	o.pump()
	o.mu.Unlock()
	time.Sleep(d) // of the bubble
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopping, p.chosen = true, func() {}
	o.stopTimers()
}

// InFlight is how many calls are under way, and how many of them are not transactional.
func (p *Picker) InFlight() (all, others int) { return p.o.flight, p.o.otherFlight }

// InWindow is the same for the account's window.
func (p *Picker) InWindow() (all, others int) {
	w := p.o.window
	w.expire(time.Now())
	return w.held + len(w.freed), w.others + w.othersFreed
}

func (p *Picker) supply(l *lane) {
	p.serial++
	ch := l.chatOf(strconv.Itoa(p.serial))
	ch.waiting.push(&command{lane: l, chat: ch, since: time.Now()})
	ch.headWaits(time.Now())
	l.ready.push(ch)
}

func (p *Picker) attempt(c *command) {
	delete(c.lane.chats, c.chat.key)
	p.supply(c.lane)
	time.AfterFunc(p.calls(c.lane.key.class), func() {
		p.o.mu.Lock()
		defer p.o.mu.Unlock()
		c.slot.judged(Verdict{Action: ActionAccept, Breaker: BreakerHealthy})
		p.o.free(c)
		p.o.pump()
		p.chosen()
	})
}

// Hasty is a configuration whose idle lanes are retired, and whose streams' sizes
// are read, much sooner than usual.
func Hasty(cfg Config, laneIdle time.Duration) Config {
	cfg.timing = timing{laneIdle: laneIdle, storage: 20 * time.Millisecond}
	return cfg
}

// Drowsy is a configuration whose closed lanes lose their consumers after a round of
// discovery.
func Drowsy(cfg Config) Config {
	cfg.timing.sleepRounds = 1
	return cfg
}

// Wary is a configuration that opens few lanes of channels which nobody has named, and
// soon tells that none waits any more.
func Wary(cfg Config, strangers int) Config {
	cfg.timing.strangers, cfg.timing.crowdOver = strangers, 2
	return cfg
}

// Impatient is a configuration that gives up each search for lanes soon.
func Impatient(cfg Config) Config {
	cfg.timing.discover = 200 * time.Millisecond
	return cfg
}

// Longest is a configuration whose every wait that chance decides is the longest.
func Longest(cfg Config) Config {
	cfg.timing.longest = true
	return cfg
}

// OpenFor is a configuration whose breakers are open for this time before the first
// probe.
func OpenFor(cfg Config, d time.Duration) Config {
	cfg.timing.openFor = d
	return cfg
}

// GuardPer is a configuration whose webhook repairs are counted over this time.
func GuardPer(cfg Config, per time.Duration) Config {
	cfg.timing.guardPer = per
	return cfg
}

// ReceiveRetired takes in what arrives from a lane that is retired just then, and
// returns how much of it was kept.
func ReceiveRetired(d *queue.Delivery) int {
	o := &owner{
		cfg: Hasty(Config{}, 1).withDefaults(), topology: &queue.Topology{Names: queue.Names{Account: "main"}},
		commands: make(map[identity]*command), lanes: make(map[laneKey]*lane), feeds: make(map[*queue.Source]*feed), rounds: 1,
	}
	l := &lane{key: laneKey{classBulk, "a0000000-0000-4000-8000-000000000001"}}
	f := &feed{lane: l}
	l.feeds = append(l.feeds, f)
	o.lanes[l.key] = l
	o.takeIdle(time.Unix(0, 0))
	o.takeIdle(time.Unix(1, 0))
	o.receive(d, f, l)
	return len(o.commands) + f.held + len(o.lanes)
}

// IdleFor reports whether a lane that had its last work at the first of these moments,
// in which it was looked at, is retired by the last of them.
func IdleFor(looks ...time.Time) bool {
	o := &owner{cfg: Config{}.withDefaults(), lanes: make(map[laneKey]*lane), feeds: make(map[*queue.Source]*feed)}
	key := laneKey{classBulk, "a0000000-0000-4000-8000-000000000001"}
	o.lanes[key] = &lane{key: key}
	o.rounds = 1 // its commands were found in the round before
	for _, now := range looks {
		o.takeIdle(now)
	}
	return o.lanes[key] == nil
}

// Fill opens the judgement of a stream's size to tests.
type Fill struct{ f fill }

// Read reports whether a size is to be told to operators.
func (f *Fill) Read(bytes uint64, limit int64) bool { return f.f.read("stream", bytes, limit) }

// RequestTypes are what the bodies of requests are read into, by the names of their
// JSON Schemas.
func RequestTypes() map[string]any {
	types := map[string]any{
		"command.get": named{}, "command.cancel": named{}, "command.resolve": resolveQuery{},
		"channels.list": listQuery{}, "users.list": listQuery{}, "contacts.list": listQuery{}, "deals.list": listQuery{},
		"users.get": entityQuery{}, "contacts.get": entityQuery{}, "deals.get": entityQuery{},
		"iframe.open": windowQuery{}, "webhooks.get": struct{}{}, "webhooks.set": webhooksQuery{},
		"lanes.list": listQuery{}, "lane.pause": laneChoice{}, "lane.resume": laneChoice{},
		"dead.list": deadQuery{}, "dead.show": named{}, "dead.redrive": redriveRequest{}, "dead.drop": deadChoice{},
		"contract.get": struct{}{},
	}
	schemas := make(map[string]any)
	for name, v := range types {
		schemas[schema.RequestSchema(name)] = v
	}
	return schemas
}

// AnswerTypes are what answers are written from. The vendor's own objects are
// missing.
func AnswerTypes() map[string]any {
	types := map[string]any{
		"command.get": Timeline{}, "command.cancel": standing{}, "command.resolve": standing{},
		"iframe.open": ChatWindow{}, "webhooks.get": webhooksNow{}, "webhooks.set": webhooksChange{},
		"lanes.list": LaneList{}, "lane.pause": LaneChange{}, "lane.resume": LaneChange{},
		"dead.list": DeadList{}, "dead.show": DeadDetail{}, "dead.redrive": RedriveAnswer{}, "dead.drop": DropAnswer{},
		"channels.list": List{}, "users.list": List{}, "contacts.list": List{}, "deals.list": List{},
	}
	schemas := map[string]any{schema.AnswerFaultSchema: faultBody{}}
	for name, v := range types {
		schemas[schema.AnswerSchema(name)] = v
	}
	return schemas
}

// MaskURL opens the masking of webhook addresses to tests.
func MaskURL(address string) string { return maskURL(address) }

// Attempt and Echo open the matching of echoes to tests.
type (
	Attempt struct {
		Command string    // whose it is
		Doubted bool      // the command is in doubt
		Given   bool      // the attempt was given up
		Claim   uint64    // sequence
		At      time.Time // of the claim, NATS's clock
	}
	Echo struct {
		Sequence uint64
		At       time.Time // the vendor's clock
	}
)

// Match returns, for each echo, the place of the attempt that it proves, or -1;
// nil when nothing is proven.
func Match(attempts []Attempt, echoes []Echo) []int {
	commands := make(map[string]*command)
	all := make([]attempt, len(attempts))
	for i, a := range attempts {
		all[i] = attempt{claim: a.Claim, claimed: a.At}
		if a.Doubted {
			if commands[a.Command] == nil {
				commands[a.Command] = &command{}
			}
			all[i].command = commands[a.Command]
		}
		if a.Given {
			all[i].given = &queue.Doubt{}
		}
	}
	found := make([]echo, len(echoes))
	for i, e := range echoes {
		found[i] = echo{sequence: e.Sequence, at: e.At}
	}
	return match(all, found)
}

// EvidencePosition is up to where evidence counts as handled, when there is more
// that waits.
func EvidencePosition(handled uint64, pending, late []uint64) uint64 {
	p := proofs{handled: handled, pending: make(map[string]*pendingLook), late: make(map[queue.Origin][]lateAnswer)}
	for i, first := range pending {
		p.pending[strconv.Itoa(i)] = &pendingLook{first: first}
	}
	for _, sequence := range late {
		origin := queue.Origin{Seq: sequence}
		p.late[origin] = append(p.late[origin], lateAnswer{sequence: sequence})
	}
	return p.position()
}

// Reading is what a worker saw of the others, for tests of what it makes of it.
type Reading struct {
	Members []queue.Member
	Holders map[string]string
}

// Share is how many accounts a worker should own at most.
func (r Reading) Share(worker string) int {
	return newCensus("", nil, r.Members, r.Holders).share(worker)
}

// Plan opens what a worker decides to tests.
type Plan struct {
	Take, Rescue []string
	Give         string
}

// Balance opens a worker's decisions to tests.
type Balance struct {
	self     string
	accounts []string
	b        *balance
}

func NewBalance(self string, accounts []string) Balance {
	return Balance{self, accounts, newBalance(self, accounts)}
}

func (b Balance) Decide(r Reading, mine map[string]bool, now time.Time) Plan {
	p := b.b.decide(newCensus(b.self, b.accounts, r.Members, r.Holders), mine, now)
	return Plan{p.take, p.rescue, p.give}
}

// Timing of the spread.
const (
	SteadyAfter     = steadyAfter
	FreeTooLong     = freeTooLong
	KeepAfterRescue = keepAfterRescue
	LookEvery       = lookEvery
)
