package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// DeadLetter is a command that ended `dead`, kept whole so that it can be
// redriven under the same id.
type DeadLetter struct {
	ID         string `json:"id"`
	Origin     Origin `json:"o"`
	Generation int    `json:"g,omitempty"`
	Subject    string `json:"subject"` // of the command

	// Why it died, so that letters can be chosen and judged without the ledger,
	// which forgets sooner.
	Code        string        `json:"code,omitempty"`
	Class       schema.Class  `json:"class,omitempty"`
	Reason      schema.Reason `json:"reason,omitempty"`
	Description string        `json:"description,omitempty"`
	Attempt     int           `json:"attempt,omitempty"` // claims so far, over all generations
	Group       string        `json:"group,omitempty"`
	// Doubted: one of its attempts may have been carried out.
	Doubted bool `json:"doubted,omitempty"`
	// ClaimSeq and ClaimAt (Unix milliseconds) are of the earliest attempt in
	// doubt: what would prove it was stored after that.
	ClaimSeq uint64 `json:"claimSeq,omitempty"`
	ClaimAt  int64  `json:"claimAt,omitempty"`

	// Header and Body are the command's own. Of the header, what the server acts
	// upon is not kept.
	Header nats.Header `json:"-"`
	Body   []byte      `json:"-"`

	// Of a letter that was read:
	Sequence uint64    `json:"-"` // in the dead letters' stream
	Died     time.Time `json:"-"` // when it was stored, NATS's clock
	Size     int       `json:"-"` // of the body in bytes, read or not
}

// headerDead holds all of a dead letter but the command's own header and body,
// which are those of the stored message.
const headerDead = "Wazzup-Dead"

// serverHeaders is how the names of headers begin that the server acts upon. On
// a letter they would have it refused (a schedule, an expected sequence), or
// taken for a repeat of another one.
const serverHeaders = "Nats-"

// PutDead keeps a dead letter; one of the same id is replaced, unless it is of the
// same command in this generation or a later one: then ours is there already, or is
// the word of a former owner, whom nothing else fences here. A command so near
// NATS's payload limit that a letter of it does not fit ends with ErrTooLarge.
func (l *Ledger) PutDead(d *DeadLetter, done func(err error)) error {
	about, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode dead letter: %w", err)
	}
	h := ownHeader(d.Header)
	h[headerDead] = []string{string(about)}
	setExpectedSubjectSequence(h, 0) // nearly always there is none
	p := &write{msg: nats.Msg{Subject: l.DeadSubject(d.ID), Header: h, Data: d.Body}}
	p.done = func(_ uint64, _ bool, err error) {
		if errors.Is(err, ErrConflict) {
			l.w.retry(p, 0, func(p *write) { l.replaceDead(p, d) })
			return
		}
		done(err)
	}
	l.w.publish(p)
	return nil
}

// replaceDead goes on when there is a letter of the id.
func (l *Ledger) replaceDead(p *write, d *DeadLetter) {
	ctx, cancel := context.WithTimeout(l.w.ctx, writeTimeout)
	defer cancel()
	there, err := l.DeadOf(ctx, d.ID)
	switch {
	case err != nil:
		l.w.again(p, err)
		return
	case there == nil:
		setExpectedSubjectSequence(p.msg.Header, 0)
	case there.Origin == d.Origin && there.Generation >= d.Generation:
		p.done(there.Sequence, false, nil)
		return
	default:
		setExpectedSubjectSequence(p.msg.Header, there.Sequence)
	}
	l.w.send(p)
}

// headerSize tells the size of a body that the server leaves out.
const headerSize = "Nats-Msg-Size"

// ownHeader is a copy of a message's header without what is the server's, or a
// letter's.
func ownHeader(h nats.Header) nats.Header {
	own := make(nats.Header, len(h)+1)
	for name, values := range h {
		if !strings.HasPrefix(name, serverHeaders) && name != headerDead {
			own[name] = values
		}
	}
	return own
}

// DeadOf reads the dead letter of an id through the stream's leader; nil when
// there is none.
func (l *Ledger) DeadOf(ctx context.Context, id string) (*DeadLetter, error) {
	return l.readDead(ctx, msgGet{LastFor: l.DeadSubject(id)})
}

// DeadAt reads the dead letter with a sequence of the stream through its leader;
// nil when it is gone.
func (l *Ledger) DeadAt(ctx context.Context, seq uint64) (*DeadLetter, error) {
	return l.readDead(ctx, msgGet{Seq: seq})
}

func (l *Ledger) readDead(ctx context.Context, which msgGet) (*DeadLetter, error) {
	m, err := leaderGet(ctx, l.nc, l.Dead(), which)
	if err != nil {
		return nil, fmt.Errorf("read dead letter: %w", err)
	}
	if m == nil {
		return nil, nil //nolint:nilnil // "there is none" is an answer
	}
	d, err := decodeDead(m)
	if err != nil {
		return nil, err
	}
	d.Body, d.Size = m.Data, len(m.Data)
	return d, nil
}

func decodeDead(m *storedMsg) (*DeadLetter, error) {
	d := new(DeadLetter)
	if err := json.Unmarshal([]byte(m.Header.Get(headerDead)), d); err != nil {
		return nil, fmt.Errorf("decode dead letter %d: %w", m.Sequence, err)
	}
	d.Sequence, d.Died, d.Header = m.Sequence, m.Time, ownHeader(m.Header)
	return d, nil
}

// DeadLetters hands over the dead letters from a sequence of the stream on,
// oldest first and without their bodies, until there are no more or next says
// stop. Letters that come or go meanwhile may be among them or not.
func (l *Ledger) DeadLetters(ctx context.Context, from uint64, next func(*DeadLetter) (more bool, err error)) error {
	err := l.eachDead(ctx, from, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		d, err := decodeDead(&storedMsg{Sequence: meta.Sequence.Stream, Time: meta.Timestamp, Header: m.Headers()})
		if err != nil {
			return false, err
		}
		d.Size, _ = strconv.Atoi(m.Headers().Get(headerSize)) // 0 = not told
		return next(d)
	})
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	return nil
}

// Bounds of a reading of all dead letters.
const (
	deadBatch = 500              // letters asked for at once
	deadIdle  = 30 * time.Second // after which the server removes a consumer that we could not
)

func (l *Ledger) eachDead(ctx context.Context, from uint64, next func(jetstream.Msg, *jetstream.MsgMetadata) (bool, error)) error {
	cfg := jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckNonePolicy,
		HeadersOnly: true, MemoryStorage: true, InactiveThreshold: deadIdle,
	}
	if from > 1 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from
	}
	c, err := l.js.CreateConsumer(ctx, l.Dead(), cfg)
	if err != nil {
		return err
	}
	info := c.CachedInfo()
	name := info.Name
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestWait)
		defer cancel()
		_ = l.js.DeleteConsumer(ctx, l.Dead(), name) // or the server does, after a while
	}()
	reading := deadReading{next: next, pending: info.NumPending}
	for reading.pending > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := reading.batch(c)
		if err != nil || reading.stopped {
			return err
		}
		if n > 0 {
			continue
		}
		// Nothing came: what was pending is gone, or the server is slow.
		if info, err = c.Info(ctx); err != nil {
			return err
		}
		reading.pending = info.NumPending
	}
	return nil
}

// deadReading is where a reading of all letters stands.
type deadReading struct {
	next    func(jetstream.Msg, *jetstream.MsgMetadata) (bool, error)
	read    uint64 // letters that the consumer has delivered
	pending uint64
	stopped bool
}

// batch hands over the next letters and returns how many came.
func (r *deadReading) batch(c jetstream.Consumer) (n int, err error) {
	batch, err := c.FetchNoWait(deadBatch)
	if err != nil {
		return 0, err
	}
	for m := range batch.Messages() {
		if err != nil || r.stopped {
			continue // the rest of the batch is on its way all the same
		}
		n++
		err = r.take(m)
	}
	return n, errors.Join(err, batch.Error())
}

// errLetterLost: the connection was replaced while letters were on their way.
var errLetterLost = errors.New("a letter was lost on its way")

func (r *deadReading) take(m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	if r.read++; meta.Sequence.Consumer != r.read {
		return errLetterLost
	}
	r.pending = meta.NumPending
	more, err := r.next(m, meta)
	r.stopped = !more
	return err
}

// DeleteDead removes the dead letter with a sequence of the stream, and no other
// of the same id. That it is gone already is no error.
func (l *Ledger) DeleteDead(ctx context.Context, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	reply, err := l.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.DELETE."+l.Dead(), deleteRequest(seq))
	if err != nil {
		return fmt.Errorf("delete dead letter: %w", err)
	}
	var got struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &got); err != nil {
		return fmt.Errorf("delete dead letter: %w", err)
	}
	if got.Error == nil || got.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return nil
	}
	if there, err := l.DeadAt(ctx, seq); err == nil && there == nil {
		return nil // the server says of a missing message only that it could not delete it
	}
	return fmt.Errorf("delete dead letter: %w", got.Error)
}
