package sender_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Random schedules: commands of every property, a vendor that fails in every way,
// webhooks that are lost, late, repeated and out of order, operators who cancel,
// settle, redrive, drop and pause, workers that die, hand over and lose their
// connection, a NATS server that restarts. When it is over, everything must have
// come to rest, and the vendor's record of requests must agree with what was stored.
//
// A failure prints the schedule's seed; MODEL_SEED repeats one schedule,
// MODEL_RUNS says how many are drawn, anew each time, and MODEL_COMMANDS how long each
// is. Two runs of a seed differ in their timing.
func TestModel(t *testing.T) {
	t.Parallel()
	setting := func(name string, otherwise uint64) uint64 {
		text := os.Getenv(name)
		if text == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	commands := int(setting("MODEL_COMMANDS", 120)) //nolint:gosec // a small number
	first := uint64(1)
	if os.Getenv("MODEL_RUNS") != "" { // whoever asks for many wants others each time
		first = uint64(time.Now().UnixNano()) / 1000 % 1e9 * 1000
	}
	if seed := setting("MODEL_SEED", 0); seed != 0 {
		first = seed
	}
	for seed := first; seed < first+setting("MODEL_RUNS", 2); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed)
			w.run(commands)
			w.rest()
			newJudge(w).judge()
		})
	}
}

// storedEvent is a command's event and where it is stored.
type storedEvent struct {
	schema.CommandEvent
	generation int // of the command
	sequence   uint64
	stored     time.Time
	ceID       string
}

// storedRecord is a record of a ledger and where it is stored.
type storedRecord struct {
	queue.Record
	sequence uint64
	stored   time.Time
}

// story is all that happened to one command.
type story struct {
	*modelCommand
	events  []storedEvent
	records []storedRecord
	sends   []simulator.Send // of its text, which equal bodies share
	ends    []*storedEvent   // of its generations
	final   *storedEvent     // the last of them; nil: there is none
}

// judge holds what happened to what was promised.
type judge struct {
	*world
	stories  map[uint64]*story
	accepted map[string]simulator.Send // by message id
	statuses map[string][]int          // stored, by message id
	echoes   map[string]time.Time      // when each was stored first, by message id
	letters  map[uint64]queue.DeadLetter
	faulty   map[uint64]bool // stories that were told already
}

func newJudge(w *world) *judge {
	w.t.Helper()
	j := &judge{
		world: w, stories: make(map[uint64]*story), accepted: make(map[string]simulator.Send),
		statuses: make(map[string][]int), echoes: make(map[string]time.Time), letters: make(map[uint64]queue.DeadLetter), faulty: make(map[uint64]bool),
	}
	sends := make(map[string][]simulator.Send)
	for _, s := range w.sim.Sends() {
		sends[s.ChannelID+s.Text] = append(sends[s.ChannelID+s.Text], s)
		if s.Accepted() {
			j.accepted[s.MessageID] = s
		}
	}
	for _, c := range w.commands {
		j.stories[c.seq] = &story{modelCommand: c, sends: sends[c.channel+c.text]}
	}
	j.readRecords()
	for _, m := range w.stored(queue.Names{Account: "main"}.Dead()) {
		var letter queue.DeadLetter
		if err := json.Unmarshal([]byte(m.Headers().Get("Wazzup-Dead")), &letter); err != nil {
			w.t.Fatal(err)
		}
		j.letters[letter.Origin.Seq] = letter
	}
	return j
}

func (j *judge) readRecords() {
	j.t.Helper()
	ids := make(map[string]uint64)
	for _, m := range j.stored(queue.Names{Account: "main"}.Records()) {
		meta, err := m.Metadata()
		if err != nil {
			j.t.Fatal(err)
		}
		switch subject := m.Subject(); {
		case strings.HasPrefix(subject, "wz.main.l."):
			r := storedRecord{sequence: meta.Sequence.Stream, stored: meta.Timestamp}
			if err := json.Unmarshal(m.Data(), &r.Record); err != nil {
				j.t.Fatal(err)
			}
			if s := j.stories[r.Origin.Seq]; s != nil {
				s.records = append(s.records, r)
			}
		case strings.HasPrefix(subject, "wazzup.main.evt.command."):
			j.readEvent(m, meta, ids)
		case strings.HasPrefix(subject, "wazzup.main.evt.message.out."):
			var e struct{ MessageID string }
			if err := json.Unmarshal(m.Data(), &e); err != nil {
				j.t.Fatal(err)
			}
			if j.echoes[e.MessageID].IsZero() {
				j.echoes[e.MessageID] = meta.Timestamp
			}
		case strings.HasPrefix(subject, "wazzup.main.evt.status."):
			var s struct {
				MessageID string
				Status    int
			}
			if err := json.Unmarshal(m.Data(), &s); err != nil {
				j.t.Fatal(err)
			}
			j.statuses[s.MessageID] = append(j.statuses[s.MessageID], s.Status)
		}
	}
}

func (j *judge) readEvent(m jetstream.Msg, meta *jetstream.MsgMetadata, ids map[string]uint64) {
	j.t.Helper()
	e := storedEvent{sequence: meta.Sequence.Stream, stored: meta.Timestamp, ceID: m.Headers().Get(schema.HeaderCEID)}
	if err := json.Unmarshal(m.Data(), &e.CommandEvent); err != nil {
		j.t.Fatal(err)
	}
	e.generation = j.generationOf(e.ceID)
	s := j.stories[e.Seq]
	if s == nil {
		j.t.Errorf("seed %d: an event of no command: %s", j.seed, m.Data())
		return
	}
	s.events = append(s.events, e)
	if before := ids[e.ceID]; before != 0 {
		j.fault(s, "event %s is stored twice", e.ceID)
	}
	ids[e.ceID] = e.sequence
}

// generationOf reads the generation out of an event's id, which ends in
// <generation>.<attempt>.<state>.
func (j *judge) generationOf(ceID string) int {
	j.t.Helper()
	parts := strings.Split(ceID, ".")
	n, err := strconv.Atoi(parts[max(len(parts)-3, 0)])
	if err != nil {
		j.t.Fatalf("event %s: %v", ceID, err)
	}
	return n
}

// fault reports a broken promise, with the command's whole story the first time.
func (j *judge) fault(s *story, format string, args ...any) {
	j.t.Helper()
	j.t.Errorf("seed %d: command %d (%s): %s", j.seed, s.seq, s.id, fmt.Sprintf(format, args...))
	if !j.faulty[s.seq] && len(j.faulty) < 3 {
		j.t.Log(j.tell(s))
	}
	j.faulty[s.seq] = true
}

// tell writes down what happened to a command and around it.
func (j *judge) tell(s *story) string {
	lines := slices.Clone(j.notes)
	add := func(at time.Time, format string, args ...any) {
		lines = append(lines, note{at, "  " + fmt.Sprintf(format, args...)})
	}
	for _, r := range s.records {
		add(r.stored, "record %d: %s attempt %d by %s, spent %d, doubted %v", r.sequence, r.Step, r.Attempt, r.Worker, r.Spent, r.Doubted)
	}
	for _, e := range s.events {
		text, _ := json.Marshal(e.Error)
		proof, _ := json.Marshal(e.Evidence)
		add(e.stored, "event %d: %s attempt %d %s %s %s", e.sequence, e.State, e.Attempt, e.MessageID, text, proof)
	}
	for _, r := range s.sends {
		add(r.Time, "request %d: %s %d %s %s", r.Seq, r.Fault, r.Status, r.Code, r.MessageID)
	}
	return fmt.Sprintf("%s %s %s%s", s.kind, s.channel, s.body, timeline(lines))
}

func timeline(lines []note) string {
	slices.SortStableFunc(lines, func(a, b note) int { return a.at.Compare(b.at) })
	var out strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&out, "\n%s %s", l.at.Format("05.000000"), l.what)
	}
	return out.String()
}

func (j *judge) judge() {
	j.t.Helper()
	all := slices.SortedFunc(maps.Values(j.stories), func(a, b *story) int { return cmp.Compare(a.seq, b.seq) })
	for _, s := range all {
		j.endsOnce(s)
	}
	for _, s := range all {
		if s.final == nil {
			continue
		}
		j.letter(s)
		j.fates(s)
		j.redriven(s)
		j.statusesOf(s)
		switch {
		case !s.kind.IsMessage():
			j.syncEnd(s)
		case s.carried():
			j.requestsOf(s)
			j.evidenceFirst(s)
			j.timesOf(s)
			j.endOf(s)
		}
	}
	j.identities(all)
	j.order(all)
	j.messageIDs(all)
	j.contacts(all)
	j.operators()
	j.pauses(all)
	j.rate()
}

// endsOnce: exactly one final event for every stored command and each generation
// of it, and none but statuses after it.
func (j *judge) endsOnce(s *story) {
	j.t.Helper()
	for i := range s.events {
		e := &s.events[i]
		over := s.final != nil && e.generation <= s.final.generation
		switch {
		case !e.State.Final():
			if over && stateRank(e.State) == 0 {
				j.fault(s, "%s comes after the end", e.State)
			}
			continue
		case over:
			j.fault(s, "ended twice: %s and %s", s.final.State, e.State)
		case s.final != nil && s.final.State != schema.StateDead:
			j.fault(s, "ended %s, and went on to end %s", s.final.State, e.State)
		}
		s.final = e
		s.ends = append(s.ends, e)
	}
	switch redrives := s.redrives(); {
	case s.final == nil:
		j.fault(s, "never ended")
	case len(s.ends) != len(redrives)+1 || s.final.generation != len(redrives):
		j.fault(s, "ended %d times, the last in generation %d, and was redriven %d times", len(s.ends), s.final.generation, len(redrives))
	}
}

// carried reports whether the command is the one of its id that was carried out,
// or not, on its own account.
func (s *story) carried() bool {
	return s.final != nil && s.final.State != schema.StateInvalid && s.final.State != schema.StateDuplicate
}

// mayHaveActed reports whether the request may have been carried out, as far as
// the worker that made it can know.
func mayHaveActed(s simulator.Send) bool {
	return s.Accepted() || s.Fault != "" || s.Status == 0 || s.Status >= 500 || s.Code == "UNKNOWN_ERROR"
}

// resends counts the operators who wanted the command called again.
func (j *judge) resends(s *story) (n int) {
	for _, q := range j.requests {
		if q.id == s.eventID() && q.as == "resend" && (q.ok || q.unclear) {
			n++
		}
	}
	return n
}

func (s *story) eventID() string { return s.final.ID }

// died reports whether a worker was cut off for good while a request was under
// way.
func (j *judge) died(s simulator.Send) bool {
	return slices.ContainsFunc(j.deaths, func(at time.Time) bool {
		return at.After(s.Time.Add(-300*time.Millisecond)) && at.Before(s.Time.Add(modelTimeout+time.Second))
	})
}

// requestsOf: never a blind second call, and none after the end. Whoever redrives
// a command in doubt wants one more.
func (j *judge) requestsOf(s *story) {
	j.t.Helper()
	acted, wanted := 0, j.resends(s)+len(s.redrivesInDoubt())
	for _, r := range s.sends {
		if acted > 0 && !s.resend && wanted < acted {
			j.fault(s, "request %d follows one that may have been carried out", r.Seq)
		}
		if mayHaveActed(r) {
			acted++
		}
		if last := s.recordAt(r.Time); last != nil && last.Step.Ended() {
			j.fault(s, "request %d comes after the end", r.Seq)
		}
	}
}

// timesOf: nothing is early, nothing is late. What is between the worker's last
// look at the clock and the vendor's is the machine's.
func (j *judge) timesOf(s *story) {
	j.t.Helper()
	const machine = time.Second
	for _, r := range s.sends {
		if r.Time.Before(s.sendAt) {
			j.fault(s, "request %d is %v early", r.Seq, s.sendAt.Sub(r.Time))
		}
		if !s.expireAt.IsZero() && r.Time.After(s.expireAt.Add(machine)) {
			j.fault(s, "request %d is %v late", r.Seq, r.Time.Sub(s.expireAt))
		}
	}
}

// endOf: the end says what happened.
func (j *judge) endOf(s *story) {
	j.t.Helper()
	acted := slices.IndexFunc(s.sends, mayHaveActed) >= 0
	accepted := slices.IndexFunc(s.sends, func(r simulator.Send) bool { return r.Accepted() }) >= 0
	e := s.final
	switch e.State {
	case schema.StateSent:
		if !s.byHand() {
			j.sent(s, e)
		}
	case schema.StateDead:
		j.reason(s, e)
	case schema.StateCancelled, schema.StateExpired:
		if acted {
			j.fault(s, "ended %s, and a request may have been carried out", e.State)
		}
	case schema.StateRejected:
		if accepted && !s.resend && j.resends(s) == 0 && len(s.redrivesInDoubt()) == 0 {
			j.fault(s, "rejected, and accepted by the vendor")
		}
	default:
		j.fault(s, "ended %s", e.State)
	}
	for _, r := range s.sends {
		if r.Accepted() && r.Status == 201 && r.Fault == "" && r.Code == "" && e.State != schema.StateSent && !j.died(r) && !s.timedOut() && !s.badAnswer() {
			j.fault(s, "request %d was answered %d, and the command ended %s", r.Seq, r.Status, e.State)
		}
	}
}

func (s *story) unknownWith(code string) bool {
	return slices.ContainsFunc(s.events, func(e storedEvent) bool {
		return e.State == schema.StateUnknown && e.Error != nil && e.Error.Code == code
	})
}

// timedOut: the machine was slow, and the vendor's answer came too late.
func (s *story) timedOut() bool { return s.unknownWith("TIMEOUT") }

// badAnswer: the answer did not name the message.
func (s *story) badAnswer() bool { return s.unknownWith("BAD_ANSWER") || s.unknownWith("HTTP_201") }

// sent: the message is the vendor's, of that chat and content.
func (j *judge) sent(s *story, e *storedEvent) {
	j.t.Helper()
	m, ok := j.accepted[e.MessageID]
	switch {
	case !ok:
		j.fault(s, "sent as %q, which is no message of the vendor's", e.MessageID)
	case m.ChannelID != s.channel || m.ChatID != s.chat || strings.Join(strings.Fields(m.Text), " ") != s.content():
		j.fault(s, "sent as %s, which says %q to %s", e.MessageID, m.Text, m.ChatID)
	case m.Text != s.text && e.Evidence == nil:
		j.fault(s, "sent as %s, which is another's message", e.MessageID)
	}
}

// reason: why a command is dead.
func (j *judge) reason(s *story, e *storedEvent) {
	j.t.Helper()
	dropped := slices.ContainsFunc(j.requests, func(q modelRequest) bool {
		return q.id == s.eventID() && q.as == "drop" && (q.ok || q.unclear)
	})
	switch e.Error.Reason {
	case schema.ReasonNoWebhooks, schema.ReasonTooOld: // there are webhooks, and all is young
	case schema.ReasonNoEvidence:
		if !s.resend || !s.expireAt.IsZero() { // too late to call again
			return
		}
	case schema.ReasonDropped:
		if dropped {
			return
		}
	case schema.ReasonAttempts:
		if r := s.endOfGeneration(e.generation); r != nil && r.Spent == modelAttempts {
			return
		}
	}
	j.fault(s, "dead for the reason %s", e.Error.Reason)
}

// statusesOf: forward only, once each, only after sent, and none is forgotten.
func (j *judge) statusesOf(s *story) {
	j.t.Helper()
	last := 0
	for _, e := range s.events {
		n := stateRank(e.State)
		if n == 0 {
			continue
		}
		if n <= last {
			j.fault(s, "%s comes after a later status", e.State)
		}
		// One that ended dead may have been proven since.
		proven := slices.ContainsFunc(s.records, func(r storedRecord) bool { return r.Step == queue.StepProof })
		if s.final.State != schema.StateSent && !proven || s.final.sequence > e.sequence {
			j.fault(s, "%s comes before sent", e.State)
		}
		last = n
	}
	best := 0
	if s.final.State == schema.StateSent {
		for _, status := range j.statuses[s.final.MessageID] {
			best = max(best, statusRank(status))
		}
	}
	if last < best {
		j.fault(s, "its last status has rank %d, and one of rank %d is stored", last, best)
	}
}

// identities: of the commands with one id, one at most counts; the others are
// duplicates or invalid, and the vendor never sees them.
func (j *judge) identities(all []*story) {
	j.t.Helper()
	byID := make(map[string][]*story)
	for _, s := range all {
		if s.final != nil {
			byID[s.eventID()] = append(byID[s.eventID()], s)
		}
	}
	for _, same := range byID {
		var carrier *story
		for _, s := range same {
			if !s.carried() {
				continue
			}
			if carrier != nil {
				j.fault(s, "its id was carried out before, as %d", carrier.seq)
			}
			carrier = s
		}
		for _, s := range same {
			j.identity(s, carrier)
		}
	}
}

func (j *judge) identity(s, carrier *story) {
	j.t.Helper()
	var want schema.State
	switch {
	case s == carrier:
		return
	case s.invalid:
		want = schema.StateInvalid
	case carrier == nil:
		j.fault(s, "ended %s, and no other command of its id was carried out", s.final.State)
		return
	case s.body == carrier.body:
		want = schema.StateDuplicate
	default:
		want = schema.StateInvalid
	}
	if s.final.State != want {
		j.fault(s, "ended %s, want %s", s.final.State, want)
	}
	if carrier == nil || s.text != carrier.text {
		if len(s.sends) > 0 {
			j.fault(s, "the vendor got a command that ended %s", s.final.State)
		}
	}
}

// order: in a class and chat, each request of a command comes after the last of
// every command that was stored before it. A redriven one takes a new place.
func (j *judge) order(all []*story) {
	j.t.Helper()
	last := make(map[string]*story)
	for _, s := range all {
		if !s.carried() || !s.sendAt.IsZero() || len(s.firstSends()) == 0 {
			continue
		}
		key := string(s.kind) + s.channel + s.chat
		if before := last[key]; before != nil {
			sends := before.firstSends()
			if end := sends[len(sends)-1].Seq; s.sends[0].Seq < end {
				j.fault(s, "request %d overtakes command %d, whose last is %d", s.sends[0].Seq, before.seq, end)
				j.t.Log(j.tell(before))
			}
		}
		last[key] = s
	}
}

// messageIDs: no message of the vendor's belongs to two commands, and among equal
// messages no more are sent than the vendor took.
func (j *judge) messageIDs(all []*story) {
	j.t.Helper()
	owner := make(map[string]*story)
	for _, s := range all {
		if s.final == nil || s.final.MessageID == "" {
			continue
		}
		if other := owner[s.final.MessageID]; other != nil {
			j.fault(s, "its message is that of command %d too", other.seq)
		}
		owner[s.final.MessageID] = s
	}
	type equal struct{ channel, chat, content string }
	balance := make(map[equal]int) // taken by the vendor, less sent
	for _, m := range j.accepted {
		balance[equal{m.ChannelID, m.ChatID, strings.Join(strings.Fields(m.Text), " ")}]++
	}
	for _, s := range all {
		if s.final == nil || s.final.State != schema.StateSent || s.byHand() {
			continue
		}
		key := equal{s.channel, s.chat, s.content()}
		if balance[key]--; balance[key] < 0 {
			j.fault(s, "one more is sent than the vendor took of its content")
		}
	}
}

// operators: what was answered is what happened.
func (j *judge) operators() {
	j.t.Helper()
	byID := make(map[string][]*story)
	for _, s := range j.stories {
		if s.final != nil {
			byID[s.eventID()] = append(byID[s.eventID()], s)
		}
	}
	for _, q := range j.requests {
		switch {
		case q.ok:
			j.operator(q, byID[q.id])
		case q.code == "404" && slices.ContainsFunc(byID[q.id], func(s *story) bool { return !s.invalid }):
			j.fault(byID[q.id][0], "%s says that there is no such command", q.name)
		}
	}
}

func (j *judge) operator(q modelRequest, same []*story) {
	j.t.Helper()
	for _, s := range same {
		if !s.carried() {
			if q.name == "command.cancel" && s.calledAfter(q.at) {
				j.fault(s, "the vendor got it after it was cancelled")
			}
			continue
		}
		dropped := func(e *storedEvent) bool {
			return e.State == schema.StateDead && e.Error.Reason == schema.ReasonDropped
		}
		called := s.calledAfter(q.at)
		switch {
		case q.name == "command.cancel" && (called || s.final.State != schema.StateCancelled):
			j.fault(s, "it was cancelled, and ended %s", s.final.State)
		case q.as == "sent" && (called || s.final.State != schema.StateSent):
			j.fault(s, "an operator settled it as sent, and it ended %s", s.final.State)
		case q.as == "drop" && (called || !slices.ContainsFunc(s.ends, dropped)):
			j.fault(s, "an operator dropped it, and it ended %s", s.final.State)
		case q.name == "dead.drop" && (called || s.final.State != schema.StateDead || s.redrivenAfter(q.at)):
			j.fault(s, "its dead letter was dropped, and it went on")
		}
	}
}

// rate: no interval of the window's length holds more requests than are allowed,
// over all workers.
func (j *judge) rate() {
	j.t.Helper()
	limit := modelRate()
	all := j.sim.Requests()
	slices.SortFunc(all, func(a, b simulator.Request) int { return a.Time.Compare(b.Time) })
	for i := limit.N; i < len(all); i++ {
		if took := all[i].Time.Sub(all[i-limit.N].Time); took < limit.Per {
			lines := slices.Clone(j.notes)
			for _, r := range all[i-limit.N : i+1] {
				lines = append(lines, note{r.Time, fmt.Sprint("  ", r.Seq, " ", r.Path, " ", r.Status)})
			}
			j.t.Errorf("seed %d: %d requests within %v, want %v at least:%s", j.seed, limit.N+1, took, limit.Per, timeline(lines))
			return
		}
	}
}
