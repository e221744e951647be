package sender

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Headers of the copies of a command, which carry its origin on. Only the owner
// writes them, on streams to which no producer may publish.
const (
	headerOrigin     = "Wazzup-Origin"     // <created>.<seq>
	headerGeneration = "Wazzup-Generation" // redrives so far
	headerStored     = "Wazzup-Stored"     // of the first copy, Unix nanoseconds
	headerSubject    = "Wazzup-Subject"    // of the first copy
	headerID         = "Wazzup-Id"         // the command's, since the scheduler strips Nats-Msg-Id
	headerExpect     = "Wazzup-Expect"     // last ledger sequence at the time of the copy
	headerPlace      = "Wazzup-Place"      // of a parked one: its place in its chat
	headerAttempt    = "Wazzup-Attempt"    // claims so far, over all generations
	headerDoubt      = "Wazzup-Doubt"      // of a redriven one in doubt: <claim's sequence>.<claim's time, Unix ms>
)

// copyHeaders is how the names of these headers begin, and that of no other but
// the one that asks for replies.
const copyHeaders = "Wazzup-"

// tooOldMargin is kept between the age of the oldest command that is called and
// the ledger's memory, so that no id is forgotten while its command is alive.
const tooOldMargin = time.Hour

// receive takes a delivery in. It is called by the intake's one goroutine.
func (o *owner) receive(d *queue.Delivery, f *feed, l *lane) {
	c := o.identify(d)
	c.lane, c.feed = l, f
	out := o.check(c) // before anybody else can see the command

	o.mu.Lock()
	f.held++
	f.more = l.sync != nil && f.source != nil && d.Pending() > 0
	if o.stopping || f.retired {
		f.held--
		o.mu.Unlock()
		return
	}
	// Where a command is on its way to the disk a second time, the copy that is
	// there already has the better place.
	if held := o.commands[c.identity()]; held != nil && (!held.shelved || f.from != sourceParked) {
		f.held--
		o.repeated(held, d, f)
		o.arrived(f, d.Seq)
		o.fill(l) // the redelivery used up a wish
		o.mu.Unlock()
		return
	}
	o.commands[c.identity()] = c
	if out != nil || o.defers(c) { // it has no place in a chat
		o.arrived(f, d.Seq)
	}
	o.mu.Unlock()

	switch {
	case out != nil:
		o.conclude(c, *out)
	case o.defers(c):
		o.schedule(c)
	default:
		o.mu.Lock()
		if o.isCopy(d) {
			c.waitedForTime()
		}
		f.keepsTime(c)
		o.enqueue(c)
		o.arrived(f, d.Seq)
		o.fill(l)
		o.pump()
		o.mu.Unlock()
	}
}

// keepsTime has no command stand before one that its stream stored earlier: the
// server's clock may be set back, but sequences only grow.
func (f *feed) keepsTime(c *command) {
	if f.from == sourceParked || c.delivery.Seq <= f.last {
		return
	}
	c.place.at = max(c.place.at, f.latest)
	f.latest = c.place.at
}

// arrived notes that a message is where it belongs, and not before: whatever was
// stored earlier in its lane is known by then, so that parked commands that come
// later may be read. The owner's mutex is held.
func (o *owner) arrived(f *feed, seq uint64) {
	f.last = max(f.last, seq)
	if f.lane.unsettled > 0 {
		o.unparkAll(f.lane)
	}
}

// repeated notes another delivery of a command that is in hand: the same message
// through a new consumer, or another message of the same command.
func (o *owner) repeated(held *command, d *queue.Delivery, f *feed) {
	if held.delivery.Same(d) {
		held.delivery.Replace(d)
		return
	}
	for _, known := range held.copies {
		if known.delivery.Same(d) {
			known.delivery.Replace(d)
			return
		}
	}
	held.copies = append(held.copies, copied{d, f})
}

// identify reads what a message says of itself, whether or not it is valid.
func (o *owner) identify(d *queue.Delivery) *command {
	c := &command{
		delivery: d, stored: d.Stored, place: placeOf(d),
		origin: queue.Origin{Created: o.topology.Created.UnixNano(), Seq: d.Seq},
	}
	subject := d.Subject
	if o.isCopy(d) {
		// We wrote these headers: what does not parse is zero, and the ledger decides.
		origin := header(d, headerOrigin)
		created, seq, _ := strings.Cut(origin, ".")
		c.origin.Created, _ = strconv.ParseInt(created, 10, 64)
		c.origin.Seq, _ = strconv.ParseUint(seq, 10, 64)
		c.generation, _ = strconv.Atoi(header(d, headerGeneration))
		c.expect, _ = strconv.ParseUint(header(d, headerExpect), 10, 64)
		c.attempt, _ = strconv.Atoi(header(d, headerAttempt))
		c.stored = o.firstStored(d)
		subject = header(d, headerSubject)
		if d.Source == nil {
			c.place = parsePlace(header(d, headerPlace))
		}
		if doubt := header(d, headerDoubt); doubt != "" {
			seq, millis, _ := strings.Cut(doubt, ".")
			c.doubtSeq, _ = strconv.ParseUint(seq, 10, 64)
			ms, _ := strconv.ParseInt(millis, 10, 64)
			c.doubtAt, c.doubted = time.UnixMilli(ms), true
		}
	}
	c.kind, c.channel, _ = schema.ParseCommandSubject(o.cfg.Account, subject)
	c.traceparent, c.tracestate = header(d, schema.HeaderTraceparent), header(d, schema.HeaderTracestate)
	return c
}

func header(d *queue.Delivery, name string) string {
	if v := d.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// check decodes and validates the command. It returns how the command ends when
// it must not be carried out.
func (o *owner) check(c *command) *outcome {
	d := c.delivery
	body, faults := schema.Decode(o.cfg.Account, c.kind, c.channel, d.Data)
	c.body = body
	c.fingerprint = fingerprintOf(c.kind, c.channel, d.Data)
	faults = append(faults, o.checkHeaders(c)...)
	if c.id == "" {
		c.id = c.origin.ID(o.topology.Commands())
	}
	c.ledgerKey = queue.LedgerKey(c.id)
	if len(faults) == 0 && body.Message != nil {
		faults = schema.CheckSchedule(body.Message, c.stored, o.cfg.Limits.Retention)
	}
	if len(faults) > 0 {
		out := invalid(faults)
		return &out
	}
	return o.tooOld(c)
}

// fingerprintOf tells whether two commands are the same, as their ledgers keep it.
func fingerprintOf(kind schema.Kind, channel string, body []byte) string {
	sum := schema.Fingerprint(kind, channel, body)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// tooOld ends a command whose id the ledger may soon forget.
func (o *owner) tooOld(c *command) *outcome {
	if time.Since(c.stored) <= o.cfg.Limits.Retention-tooOldMargin {
		return nil
	}
	return &outcome{step: queue.StepFinal, state: schema.StateDead, err: &schema.Error{
		Code: "TOO_OLD", Class: schema.ClassRetryable, Phase: schema.PhaseNotSent, Reason: schema.ReasonTooOld,
		Description: "stored longer ago than the ledger remembers ids",
	}}
}

// checkHeaders reads the headers that count: the id where the body names none,
// and where to send copies of the events.
func (o *owner) checkHeaders(c *command) []schema.Fault {
	var faults []schema.Fault
	c.id = c.body.ID
	if c.id == "" && o.isCopy(c.delivery) { // a header would change an id with a line break
		c.id = header(c.delivery, headerID)
	}
	if id := header(c.delivery, schema.HeaderMsgID); c.id == "" && id != "" {
		if faults = schema.CheckMsgID(id); len(faults) == 0 {
			c.id = id
		}
	}
	if reply := header(c.delivery, schema.HeaderReplyTo); reply != "" {
		bad := schema.CheckReplyTo(o.cfg.Account, reply)
		if len(bad) == 0 {
			c.replyTo = reply
		}
		faults = append(faults, bad...)
	}
	return faults
}

func invalid(faults []schema.Fault) outcome {
	return outcome{step: queue.StepInvalid, state: schema.StateInvalid, err: schema.InvalidError(faults)}
}
