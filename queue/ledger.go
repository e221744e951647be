package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Step is what a ledger record says.
type Step string

// The steps. A command's last record is the truth about it.
const (
	StepClaim     Step = "claim"     // about to call: the crash marker, and the fence
	StepRetry     Step = "retry"     // the claim had no effect, or may be repeated; it will be claimed again
	StepUnknown   Step = "unknown"   // the claim's fate is not known
	StepFinal     Step = "final"     // it ended; the id is used up
	StepInvalid   Step = "invalid"   // it ended invalid; the id is free
	StepScheduled Step = "scheduled" // it waits in the deferred stream
	StepCancel    Step = "cancel"    // somebody wants it not to be called: it ends cancelled at its turn
	StepRedrive   Step = "redrive"   // a dead one goes on in the record's generation
	StepStatus    Step = "status"    // after its end, the vendor told of its delivery
	StepProof     Step = "proof"     // after its end as dead, it turned out to have been carried out
	StepDropped   Step = "dropped"   // after its end as dead, its dead letter was thrown away
)

// Ended reports whether a ledger whose last record is of this step belongs to a
// command that has ended, in the record's generation.
func (s Step) Ended() bool {
	switch s {
	case StepFinal, StepInvalid, StepStatus, StepProof, StepDropped:
		return true
	case StepClaim, StepRetry, StepUnknown, StepScheduled, StepCancel, StepRedrive:
	}
	return false
}

// Record is one line of a command's ledger. Each can be read alone: a worker
// that finds it knows what to do without the ones before.
type Record struct {
	Step        Step   `json:"t"`
	Key         string `json:"-"` // under which it is kept: LedgerKey of the id, or of the origin
	ID          string `json:"id"`
	Nonce       string `json:"n"` // of the writer and this write: tells our own record after a lost PubAck
	Origin      Origin `json:"o"`
	Generation  int    `json:"g,omitempty"`
	Kind        string `json:"k"`
	Channel     string `json:"ch,omitempty"`
	Fingerprint string `json:"f,omitempty"`
	Attempt     int    `json:"a,omitempty"`  // claims so far
	Spent       int    `json:"sp,omitempty"` // of them, those that count against the limit
	Refused     int    `json:"rf,omitempty"` // of them, those that met a refusal which is tried a few times only
	Worker      string `json:"w,omitempty"`
	At          int64  `json:"at"`           // Unix milliseconds, the worker's clock
	RetryAt     int64  `json:"ra,omitempty"` // of StepRetry: not before, Unix milliseconds
	Claim       uint64 `json:"cl,omitempty"` // of StepUnknown, and of an end or a proof that settles one: sequence of the claim in question
	ClaimAt     int64  `json:"ca,omitempty"` // of StepUnknown: the claim's At
	// Doubted: an attempt before this one may have been carried out, and nothing
	// ever told. It stays through retries, the end and redrives.
	Doubted bool `json:"d,omitempty"`
	// DoubtSeq and DoubtAt, of one that is Doubted, are of the claim of the earliest
	// such attempt: its sequence, and when it was stored (NATS's clock, Unix
	// milliseconds).
	DoubtSeq uint64 `json:"ds,omitempty"`
	DoubtAt  int64  `json:"da,omitempty"`
	// Until, of a StepCancel that names no origin: it is about the command with
	// this id that was stored in the command stream up to this sequence.
	Until uint64 `json:"u,omitempty"`
	// MessageID and Evidence, of StepProof: what proved it.
	MessageID string `json:"m,omitempty"`
	Evidence  string `json:"ev,omitempty"`

	// CommandStored, of a ledger's first record: when the command itself was
	// stored, Unix milliseconds, NATS's clock.
	CommandStored int64 `json:"st,omitempty"`
	// HTTPStatus of the vendor's answer to the attempt; Code and Phase of its
	// error, where no event goes with the record.
	HTTPStatus int          `json:"hs,omitempty"`
	Code       string       `json:"c,omitempty"`
	Phase      schema.Phase `json:"ph,omitempty"`

	Waits []Wait `json:"wt,omitempty"`

	// Event is the public event that goes with the record, so that whoever
	// finds the record can publish the very same event. Empty: none goes with it.
	Event json.RawMessage `json:"e,omitempty"`

	Sequence uint64    `json:"-"` // in the records stream, of a record that was read
	Stored   time.Time `json:"-"` // NATS's clock, of a record that was read
}

// Wait is a gate at which a command waited before the record, how long, and the
// last reason why.
type Wait struct {
	Gate   string `json:"gate"`
	Millis int64  `json:"ms"`
	Why    string `json:"why,omitempty"`
}

// AppendJSON appends the record's JSON to dst. Two are written for every message.
func (r *Record) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"t":"`...)
	dst = append(dst, r.Step...)
	dst = append(dst, '"')
	dst = textMember(dst, "id", r.ID)
	dst = textMember(dst, "n", r.Nonce)
	dst = originMember(dst, "o", r.Origin)
	dst = intMember(dst, "g", int64(r.Generation))
	dst = textMember(dst, "k", r.Kind)
	dst = textMember(dst, "ch", r.Channel)
	dst = textMember(dst, "f", r.Fingerprint)
	dst = intMember(dst, "a", int64(r.Attempt))
	dst = intMember(dst, "sp", int64(r.Spent))
	dst = intMember(dst, "rf", int64(r.Refused))
	dst = textMember(dst, "w", r.Worker)
	dst = intMember(dst, "at", r.At)
	dst = intMember(dst, "ra", r.RetryAt)
	dst = intMember(dst, "cl", int64(r.Claim)) //nolint:gosec // a sequence is far below 2^63
	dst = intMember(dst, "ca", r.ClaimAt)
	if r.Doubted {
		dst = append(dst, `,"d":true`...)
	}
	dst = intMember(dst, "ds", int64(r.DoubtSeq)) //nolint:gosec // a sequence is far below 2^63
	dst = intMember(dst, "da", r.DoubtAt)
	dst = intMember(dst, "u", int64(r.Until)) //nolint:gosec // the same
	dst = textMember(dst, "m", r.MessageID)
	dst = textMember(dst, "ev", r.Evidence)
	dst = intMember(dst, "st", r.CommandStored)
	dst = intMember(dst, "hs", int64(r.HTTPStatus))
	dst = textMember(dst, "c", r.Code)
	dst = textMember(dst, "ph", string(r.Phase))
	if len(r.Waits) > 0 {
		dst = append(dst, `,"wt":[`...)
		for i, w := range r.Waits {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"gate":"`...)
			dst = append(dst, w.Gate...)
			dst = append(dst, `","ms":`...)
			dst = strconv.AppendInt(dst, w.Millis, 10)
			dst = textMember(dst, "why", w.Why)
			dst = append(dst, '}')
		}
		dst = append(dst, ']')
	}
	dst = rawMember(dst, "e", r.Event)
	return append(dst, '}')
}

// size is about how many bytes AppendJSON appends, rather too many.
func (r *Record) size() int {
	const others, wait = 384, 80
	return others + wait*len(r.Waits) + len(r.Event)
}

// Index is the record from a vendor's message id to its command: enough to
// enrich a status without reading the ledger.
type Index struct {
	ID         string          `json:"id"`
	Origin     Origin          `json:"o"`
	Generation int             `json:"g,omitempty"`
	Attempt    int             `json:"a,omitempty"`
	Kind       schema.Kind     `json:"k"`
	ChannelID  string          `json:"ch"`
	ChatType   string          `json:"ct,omitempty"`
	ChatID     string          `json:"c,omitempty"`
	MessageID  string          `json:"m"`
	Group      string          `json:"gr,omitempty"`
	Meta       json.RawMessage `json:"meta,omitempty"`
}

// AppendJSON appends the index's JSON to dst. One is written for every message.
func (x *Index) AppendJSON(dst []byte) []byte {
	object := len(dst)
	dst = textMember(dst, "id", x.ID)
	dst = originMember(dst, "o", x.Origin)
	dst[object] = '{' // for the first member's comma
	dst = intMember(dst, "g", int64(x.Generation))
	dst = intMember(dst, "a", int64(x.Attempt))
	dst = textMember(dst, "k", string(x.Kind))
	dst = textMember(dst, "ch", x.ChannelID)
	dst = textMember(dst, "ct", x.ChatType)
	dst = textMember(dst, "c", x.ChatID)
	dst = textMember(dst, "m", x.MessageID)
	dst = textMember(dst, "gr", x.Group)
	dst = rawMember(dst, "meta", x.Meta)
	return append(dst, '}')
}

// size is about how many bytes AppendJSON appends, rather too many.
func (x *Index) size() int { return 384 + len(x.Meta) }

// Ledger writes an epoch's records and events, and reads any. Writes are
// asynchronous: each calls back once, when it is durable or can never be.
type Ledger struct {
	*Topology
	Epoch string

	nc *nats.Conn
	w  *writer
}

// NewLedger opens the ledger for the owner of an epoch. onFull is told when the
// records stream has no room left, and when it has again. Close it after use.
func NewLedger(nc *nats.Conn, t *Topology, epoch string, onFull func(full bool), log zerolog.Logger) (*Ledger, error) {
	l := &Ledger{Topology: t, Epoch: epoch, nc: nc}
	w, err := newWriter(nc, l.refused, onFull, log)
	if err != nil {
		return nil, fmt.Errorf("open ledger of %s: %w", t.Account, err)
	}
	l.w = w
	return l, nil
}

// Close gives up writes that are under way: their callbacks get ErrStopped.
func (l *Ledger) Close() { l.w.stop() }

func (l *Ledger) fenced(ctx context.Context) (bool, error) {
	epoch, _, err := l.currentEpoch(ctx)
	return epoch != l.Epoch, err
}

// refused reports whether one of the streams that the epoch fences is another's.
func (l *Ledger) refused(ctx context.Context) (bool, error) {
	ours, err := l.holds(ctx, l.Epoch)
	return err == nil && !ours, err
}

// Owned reports whether the ledger's epoch is still the one that may write.
func (l *Ledger) Owned(ctx context.Context) (bool, error) {
	fenced, err := l.fenced(ctx)
	return !fenced, err
}

// Append writes a command's next record, provided that its last one has the
// sequence expect (0: there is none). done gets the new record's sequence, or
// ErrConflict, ErrFenced or ErrStopped. A lost PubAck is no error: the record
// is published again, and recognised by its nonce when it was stored before.
func (l *Ledger) Append(r *Record, expect uint64, done func(seq uint64, err error)) {
	key, nonce := r.Key, r.Nonce
	l.w.publish(&write{
		records: true,
		msg:     nats.Msg{Subject: l.LedgerWrite(l.Epoch, r.Key), Data: r.AppendJSON(make([]byte, 0, r.size()))},
		expects: true, expect: expect,
		done: func(seq uint64, _ bool, err error) { done(seq, err) },
		check: func(ctx context.Context) (stored, error) {
			last, err := l.Last(ctx, key)
			if err != nil || last == nil {
				return stored{unchanged: expect == 0}, err
			}
			return stored{seq: last.Sequence, ours: last.Nonce == nonce, unchanged: last.Sequence == expect}, nil
		},
	})
}

// PutIndex notes which command a vendor's message id belongs to. It is not
// fenced: the fact is true whoever learned it.
func (l *Ledger) PutIndex(x *Index, done func(err error)) {
	l.putIndex(l.IndexSubject(x.MessageID), x, done)
}

func (l *Ledger) putIndex(subject string, x *Index, done func(err error)) {
	l.w.publish(&write{
		records: true,
		msg:     nats.Msg{Subject: subject, Data: x.AppendJSON(make([]byte, 0, x.size()))},
		done:    func(_ uint64, _ bool, err error) { done(err) },
	})
}

// PutLate notes an answer that a worker got after it had lost its epoch.
func (l *Ledger) PutLate(x *Index, done func(err error)) {
	l.putIndex(l.LateSubject(x.ID), x, done)
}

// Publish stores an event; a repeat within the dedupe window is removed by the
// server and counts as stored.
func (l *Ledger) Publish(e Event, done func(err error)) {
	l.w.publish(&write{
		records: true,
		msg:     nats.Msg{Subject: e.Subject, Header: e.header(), Data: e.Body},
		done:    func(_ uint64, _ bool, err error) { done(err) },
	})
}

// PutState stores what must outlive the owner, under StateSubject(key). done gets
// ErrFenced when the epoch is over: a former owner's word does not count.
func (l *Ledger) PutState(key string, body []byte, done func(err error)) {
	l.w.publish(&write{
		records: true,
		msg:     nats.Msg{Subject: l.StateWrite(l.Epoch, key), Data: body},
		done:    func(_ uint64, _ bool, err error) { done(err) },
	})
}

// Last reads the last record of a ledger key through the stream's leader; nil
// when there is none.
func (l *Ledger) Last(ctx context.Context, key string) (*Record, error) {
	m, err := leaderLast(ctx, l.nc, l.Records(), l.LedgerSubject(key))
	if err != nil || m == nil {
		return nil, err
	}
	return decodeRecord(m)
}

func decodeRecord(m *storedMsg) (*Record, error) {
	var r Record
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return nil, fmt.Errorf("decode ledger record %d: %w", m.Sequence, err)
	}
	r.Sequence, r.Stored = m.Sequence, m.Time
	return &r, nil
}

// Timeline reads all records of a ledger key, oldest first; none is no error.
func (l *Ledger) Timeline(ctx context.Context, key string) ([]*Record, error) {
	var records []*Record
	err := l.scan(ctx, l.LedgerSubject(key), 0, func(m *storedMsg) (bool, error) {
		r, err := decodeRecord(m)
		if err != nil {
			return false, err
		}
		records = append(records, r)
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read timeline: %w", err)
	}
	return records, nil
}

// IndexOf reads the command behind a vendor's message id; nil when unknown.
func (l *Ledger) IndexOf(ctx context.Context, messageID string) (*Index, error) {
	return l.readIndex(ctx, l.IndexSubject(messageID))
}

func (l *Ledger) readIndex(ctx context.Context, subject string) (*Index, error) {
	m, err := leaderLast(ctx, l.nc, l.Records(), subject)
	if err != nil || m == nil {
		return nil, err
	}
	var x Index
	if err := json.Unmarshal(m.Data, &x); err != nil {
		return nil, fmt.Errorf("decode index: %w", err)
	}
	return &x, nil
}

// LateOf reads the answer that a worker passed on after it had lost its epoch;
// nil when there is none.
func (l *Ledger) LateOf(ctx context.Context, id string) (*Index, error) {
	return l.readIndex(ctx, l.LateSubject(id))
}

// Events hands over the bodies of the events stored on a subject from a sequence
// on, oldest first.
func (l *Ledger) Events(ctx context.Context, subject string, from uint64, next func(sequence uint64, body []byte) error) error {
	err := l.scan(ctx, subject, from, func(m *storedMsg) (bool, error) { return true, next(m.Sequence, m.Data) })
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}

// EventStored reports whether an event with this id is stored on a subject after
// a sequence. It is for repeats beyond the server's own duplicate window.
func (l *Ledger) EventStored(ctx context.Context, subject, id string, after uint64) (bool, error) {
	found := false
	err := l.scan(ctx, subject, after+1, func(m *storedMsg) (bool, error) {
		found = m.Header.Get(schema.HeaderCEID) == id
		return !found, nil
	})
	if err != nil {
		return false, fmt.Errorf("look for event: %w", err)
	}
	return found, nil
}

// Answers reads the index records stored from one sequence up to another, by the
// command that they belong to. One of them proves that a claim's call was
// answered, though the worker died before its final record.
func (l *Ledger) Answers(ctx context.Context, from, to uint64) (map[Origin]*Index, error) {
	found := make(map[Origin]*Index)
	err := l.scan(ctx, l.IndexFilter(), from, func(m *storedMsg) (bool, error) {
		if m.Sequence > to {
			return false, nil
		}
		var x Index
		if err := json.Unmarshal(m.Data, &x); err != nil {
			return false, fmt.Errorf("decode index: %w", err)
		}
		found[x.Origin] = &x
		return m.Sequence < to, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read answers: %w", err)
	}
	return found, nil
}

// AnswerOf reads the index for an answer to a command, from one sequence up to
// another; nil when there is none.
func (l *Ledger) AnswerOf(ctx context.Context, of Origin, from, to uint64) (*Index, error) {
	var found *Index
	err := l.scan(ctx, l.IndexFilter(), from, func(m *storedMsg) (bool, error) {
		if m.Sequence > to {
			return false, nil
		}
		var x Index
		if err := json.Unmarshal(m.Data, &x); err != nil {
			return false, fmt.Errorf("decode index: %w", err)
		}
		if x.Origin == of {
			found = &x
		}
		return found == nil && m.Sequence < to, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read answers: %w", err)
	}
	return found, nil
}

// Any reports whether anything is stored on the subject, which may have wildcards.
func (l *Ledger) Any(ctx context.Context, subject string) (bool, error) {
	m, err := leaderLast(ctx, l.nc, l.Records(), subject)
	return m != nil, err
}

// LastState reads what PutState stored last; nil when there is nothing.
func (l *Ledger) LastState(ctx context.Context, key string) ([]byte, error) {
	m, err := leaderLast(ctx, l.nc, l.Records(), l.StateSubject(key))
	if err != nil || m == nil {
		return nil, err
	}
	return m.Data, nil
}

// scan hands over the stored messages of a subject from a sequence on, oldest
// first, until there are no more or next says stop.
//
// A few are read from the stream's leader, one by one. Many come from a consumer,
// which is quicker but may run on a copy that lags behind: so what comes after
// them is asked of the leader again.
func (t *Topology) scan(ctx context.Context, filter string, from uint64, next func(*storedMsg) (bool, error)) error {
	r := reading{t: t, filter: filter, from: max(from, 1), next: next}
	if err := r.one(ctx, scanSingly); err != nil || r.over {
		return err
	}
	if err := r.bulk(ctx); err != nil || r.over {
		return err
	}
	return r.one(ctx, math.MaxInt)
}

// How a scan reads.
const (
	scanSingly    = 64  // messages that it reads one by one before it makes a consumer
	scanBatch     = 500 // messages that one pull asks for
	scanExpiry    = 5 * time.Second
	scanHeartbeat = time.Second // the loss of the consumer is noticed after two of them
)

// reading is a scan under way.
type reading struct {
	t      *Topology
	filter string
	from   uint64 // the sequence to go on from
	next   func(*storedMsg) (bool, error)
	over   bool
}

// take hands over one message.
func (r *reading) take(m *storedMsg) error {
	r.from = m.Sequence + 1
	more, err := r.next(m)
	r.over = err != nil || !more
	return err
}

// one reads up to limit messages from the leader.
func (r *reading) one(ctx context.Context, limit int) error {
	for n := 0; n < limit && !r.over; n++ {
		m, err := leaderGet(ctx, r.t.js.Conn(), r.t.Records(), msgGet{NextFor: r.filter, Seq: r.from})
		if err != nil {
			return err
		}
		if m == nil {
			r.over = true
			return nil
		}
		if err := r.take(m); err != nil {
			return err
		}
	}
	return nil
}

// bulk reads what a consumer has.
func (r *reading) bulk(ctx context.Context) error {
	var c jetstream.Consumer
	err := Ask(ctx, func(ctx context.Context) (err error) {
		s, err := r.t.js.Stream(ctx, r.t.Records())
		if err != nil {
			return err
		}
		c, err = s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
			FilterSubjects: []string{r.filter}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.from,
		})
		return err
	})
	if err != nil {
		return err
	}
	info := c.CachedInfo()
	if info == nil {
		if info, err = c.Info(ctx); err != nil {
			return err
		}
	}
	if info.NumPending == 0 {
		return nil
	}
	messages, err := c.Messages(jetstream.PullMaxMessages(scanBatch), jetstream.PullExpiry(scanExpiry), jetstream.PullHeartbeat(scanHeartbeat))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for left := info.NumPending; left > 0 && !r.over; left-- {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if err := r.take(&storedMsg{
			Subject: m.Subject(), Sequence: meta.Sequence.Stream, Time: meta.Timestamp, Header: m.Headers(), Data: m.Data(),
		}); err != nil {
			return err
		}
	}
	return nil
}

type storedMsg struct {
	Subject  string
	Sequence uint64
	Time     time.Time
	Header   nats.Header
	Data     []byte
}

// leaderLast reads a subject's last message; nil when there is none.
func leaderLast(ctx context.Context, nc *nats.Conn, stream, subject string) (*storedMsg, error) {
	m, err := leaderGet(ctx, nc, stream, msgGet{LastFor: subject})
	if err != nil {
		return nil, fmt.Errorf("read last record: %w", err)
	}
	return m, nil
}

// msgGet asks for one message: the last of a subject, the one with a sequence, or
// the first of a subject with this sequence or a later one, or stored at this time
// or later.
type msgGet struct {
	LastFor string     `json:"last_by_subj,omitempty"`
	NextFor string     `json:"next_by_subj,omitempty"`
	Seq     uint64     `json:"seq,omitempty"`
	Start   *time.Time `json:"start_time,omitempty"`
}

// leaderGet reads a message with the stream API, which only the leader answers. A
// direct get may be answered by a replica that lags behind, and what is read here
// decides whether a call is made. nil when there is none.
func leaderGet(ctx context.Context, nc *nats.Conn, stream string, which msgGet) (*storedMsg, error) {
	req, err := json.Marshal(which)
	if err != nil {
		return nil, err
	}
	// A broken connection answers nothing at all.
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	var got struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	err = Ask(ctx, func(ctx context.Context) error {
		reply, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, req)
		if err != nil {
			return err
		}
		got.Error, got.Message = nil, nil
		if err := json.Unmarshal(reply.Data, &got); err != nil {
			return err
		}
		if got.Error != nil {
			return got.Error
		}
		return nil
	})
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return nil, nil //nolint:nilnil // "there is none" is an answer
	}
	if err != nil {
		return nil, err
	}
	if got.Message == nil {
		return nil, errors.New("empty answer")
	}
	m := &storedMsg{Subject: got.Message.Subject, Sequence: got.Message.Seq, Data: got.Message.Data, Time: got.Message.Time}
	if len(got.Message.Header) > 0 {
		if m.Header, err = nats.DecodeHeadersMsg(got.Message.Header); err != nil {
			return nil, err
		}
	}
	return m, nil
}
