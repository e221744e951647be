package sender

import (
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// command is a stored command in the owner's hand, from its delivery to its ack.
// Its fields are set at admission or owned by the owner's mutex, but for a call:
// while one is under way, its goroutine owns the command.
type command struct {
	delivery *queue.Delivery
	copies   []copied // of the same origin and generation, acknowledged with it

	// Identity, from the message.
	origin      queue.Origin
	generation  int
	stored      time.Time // NATS's clock; of the first copy
	id          string    // the producer's, or derived
	ledgerKey   string    // whose ledger it writes: its id's, or its own when the id is another's
	kind        schema.Kind
	channel     string // the subject's token; "" for sync
	body        *schema.Command
	fingerprint string
	replyTo     string
	traceparent string
	tracestate  string

	work *syncWork // of a sync command that is in its lane's order

	// Place.
	lane  *lane
	feed  *feed
	chat  *chat
	place place // among those of its chat
	// shelved: it is on its way to the disk, behind all others of its chat.
	shelved bool
	// cancelled: it was while it was being scheduled, and need not wait for its time.
	cancelled bool
	since     time.Time // when it joined its chat
	ready     time.Time // when it became the head of its chat

	// What the ledger knows.
	expect  uint64 // sequence of its last record; 0 = none
	attempt int    // claims so far
	spent   int    // of them, those that count against the limit
	refused int    // of them, those that met a refusal which is tried a few times only
	waits   []queue.Wait

	gatesBefore gateTimes // of its lane, when it became the head of its chat
	doubted     bool      // an earlier attempt may have been carried out, and nothing ever told

	// doubtSeq and doubtAt are of the claim of the earliest attempt that was given
	// up in doubt, by NATS's clock; zero: there is none. A redriven command with one
	// has its evidence looked for before it is claimed.
	doubtSeq uint64
	doubtAt  time.Time
	// lookedFirst: that was done.
	lookedFirst bool

	messageID string // of its end, once that is durable: statuses wait until it is told

	// The present attempt.
	slot      *slot
	calling   bool
	claimSeq  uint64    // of the claim's record: evidence is stored after it
	claimAt   time.Time // this machine's clock
	unsettled bool      // claimed, and its outcome is not durable

	// byHand is a record that a person's word has added to the ledger before the
	// command knew that it is in doubt.
	byHand *queue.Record

	doubt *doubt      // while its fate is unknown
	timer *time.Timer // until a retry or the end of a doubt
}

// identity is what makes two messages the same command: that a redriven one goes
// on while its former generation is being told is no repeat.
type identity struct {
	origin     queue.Origin
	generation int
}

func (c *command) identity() identity { return identity{c.origin, c.generation} }

// copied is another message of the same command: from the other stream, or a
// copy that was published twice.
type copied struct {
	delivery *queue.Delivery
	feed     *feed
}

// slot is what an attempt holds from its claim to the end of its call.
type slot struct {
	breaker func(called bool, v Verdict)
	started bool // the call was started: the window's token is used
	called  bool // the vendor was, with this verdict
	verdict Verdict
	try     bool // it may go though its channel is closed
}

// outcome is how an attempt or a command ended, and what the ledger and the
// world are told of it.
type outcome struct {
	step      queue.Step
	state     schema.State // of the public event; "" = none is published
	err       *schema.Error
	messageID string
	evidence  *schema.Evidence
	original  *schema.Original
	items     []schema.ItemError
	// supersededBy is the id of a newer command that took the place of all items.
	supersededBy string
	retryAt      time.Time
	claim        uint64 // of the attempt in doubt that this settles, proven or not; 0: none
	indexed      bool   // the index knows the message id already
	answer       answer // of the vendor, to this attempt
}

// answer is what a record tells of the vendor's answer beside its event.
type answer struct {
	status int
	err    *schema.Error // where no event goes with the record
}

func (a answer) note(r *queue.Record) {
	r.HTTPStatus = a.status
	if a.err != nil {
		r.Code, r.Phase = a.err.Code, a.err.Phase
	}
}

func final(s schema.State) outcome { return outcome{step: queue.StepFinal, state: s} }

// learnDoubt takes over what a record says of earlier attempts in doubt.
func (c *command) learnDoubt(r *queue.Record) {
	c.doubted = c.doubted || r.Doubted
	if c.doubtSeq == 0 && r.DoubtSeq > 0 {
		c.doubtSeq, c.doubtAt = r.DoubtSeq, time.UnixMilli(r.DoubtAt)
	}
}

func (c *command) channelID() string {
	if c.kind.IsMessage() {
		return c.channel
	}
	return ""
}

// event describes the command's event for an outcome.
func (c *command) event(account string, out *outcome, now time.Time) schema.CommandEvent {
	e := schema.CommandEvent{
		ID: c.id, Account: account, Kind: c.kind, State: out.state, At: now.UTC(),
		Attempt: c.attempt, ChannelID: c.channelID(), MessageID: out.messageID,
		Error: out.err, Evidence: out.evidence, Original: out.original, Items: out.items,
		SupersededBy: out.supersededBy,
		Seq:          c.origin.Seq,
	}
	if c.body != nil {
		e.Group, e.Meta = c.body.Group, c.body.Meta
		if m := c.body.Message; m != nil {
			e.ChatType, e.ChatID = m.ChatType, m.ChatID
		}
	}
	if !out.retryAt.IsZero() {
		at := out.retryAt.UTC()
		e.RetryAt = &at
	}
	return e
}
