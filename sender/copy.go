package sender

import (
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// replica is what a copy of a command, on a stream to which no producer may
// publish, tells of the command beside its body.
type replica struct {
	origin     queue.Origin
	generation int
	attempt    int       // claims so far
	stored     time.Time // from when its place and its age count
	subject    string    // of the command
	id         string
	expect     uint64 // last ledger sequence at the time of the copy
	// doubted: an attempt of an earlier generation may have been carried out;
	// doubtSeq and doubtAt are of its claim, zero where that is not known.
	doubted  bool
	doubtSeq uint64
	doubtAt  int64 // Unix milliseconds
	place    place // of a parked one; zero: where the copy is stored
}

// replicaOf describes a copy of a command in hand.
func (o *owner) replicaOf(c *command) replica {
	r := replica{
		origin: c.origin, generation: c.generation, attempt: c.attempt, stored: c.stored,
		subject: schema.CommandSubject(o.cfg.Account, c.kind, c.channel), id: c.id, expect: c.expect,
		doubted: c.doubted, doubtSeq: c.doubtSeq,
	}
	if c.doubtSeq > 0 {
		r.doubtAt = c.doubtAt.UnixMilli()
	}
	return r
}

// header writes what [owner.identify] reads, and carries on what the producer
// asked for in own, the header of the command.
func (r *replica) header(own nats.Header) nats.Header {
	h := make(nats.Header, 14) // with what the server's scheduler is told
	for _, name := range []string{schema.HeaderReplyTo, schema.HeaderTraceparent, schema.HeaderTracestate} {
		if v := own[name]; len(v) > 0 && v[0] != "" {
			h[name] = []string{v[0]}
		}
	}
	h[headerOrigin] = []string{strconv.FormatInt(r.origin.Created, 10) + "." + strconv.FormatUint(r.origin.Seq, 10)}
	h[headerGeneration] = []string{strconv.Itoa(r.generation)}
	h[headerStored] = []string{strconv.FormatInt(r.stored.UnixNano(), 10)}
	h[headerSubject] = []string{r.subject}
	h[headerID] = []string{r.id}
	h[headerExpect] = []string{strconv.FormatUint(r.expect, 10)}
	if r.attempt > 0 {
		h[headerAttempt] = []string{strconv.Itoa(r.attempt)}
	}
	if r.place != (place{}) {
		h[headerPlace] = []string{r.place.String()}
	}
	if r.doubted {
		h[headerDoubt] = []string{strconv.FormatUint(r.doubtSeq, 10) + "." + strconv.FormatInt(r.doubtAt, 10)}
	}
	return h
}

// producersHeader is a command's header without what its copy was told.
func producersHeader(h nats.Header) nats.Header {
	own := make(nats.Header, len(h))
	for name, values := range h {
		if !strings.HasPrefix(name, copyHeaders) || name == schema.HeaderReplyTo {
			own[name] = values
		}
	}
	return own
}

// dueLane is the lane in which a copy of a command of this kind comes due.
func dueLane(kind schema.Kind, channel string) laneKey {
	if kind.IsMessage() {
		return laneKey{string(kind), schema.Key(channel)}
	}
	entity, _, _ := strings.Cut(string(kind), "-")
	return laneKey{classSync, entity}
}

// dueSubject is where what is due for a lane appears.
func (o *owner) dueSubject(key laneKey) string {
	return o.topology.DueSubject(schema.Kind(key.class), key.channel)
}

// firstStored is when a command was published, whichever copy of it this is.
func (o *owner) firstStored(d *queue.Delivery) time.Time {
	if !o.isCopy(d) {
		return d.Stored
	}
	nanos, _ := strconv.ParseInt(header(d, headerStored), 10, 64) // see identify
	return time.Unix(0, nanos)
}
