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
	"go.opentelemetry.io/otel/propagation"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Errors of publishing that a producer decides by. After all but ErrUnconfirmed the
// command is not stored. A command that breaks a rule is a
// *[schema.InvalidCommandError], and one that exceeds NATS's payload limit
// [ErrTooLarge]: publishing those again is in vain.
var (
	// ErrNoStream: nobody serves this account, kind or subject. The account's name
	// is wrong or its worker was never started.
	ErrNoStream = errors.New("no stream takes this subject")
	// ErrFull: the account's command stream is full. Publish again later.
	ErrFull = errors.New("command stream is full")
	// ErrForbidden: this NATS user may not publish to the subject, or make the request.
	ErrForbidden = errors.New("the NATS user may not publish to this subject")
	// ErrUnconfirmed: no PubAck came, so that the command may be stored or not.
	// Publish it again under the same id: only one of the two is carried out.
	ErrUnconfirmed = errors.New("no acknowledgement came; the command may be stored")
	// ErrHeldBack: one before it in a batch, of the same chat or for the same kind of
	// entity, could not be stored, and it would have overtaken that one.
	ErrHeldBack = errors.New("not published, since one before it is not stored")
)

// Publisher puts commands into an account's stream. It may be used by any number
// of goroutines.
type Publisher struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	account string
	trace   propagation.TraceContext
	quiet   time.Duration // see outcomeQuiet
}

// NewPublisher returns a publisher of one account over a connection that the
// caller keeps and closes.
func NewPublisher(nc *nats.Conn, account string) (*Publisher, error) {
	if !schema.ValidAccount(account) {
		return nil, fmt.Errorf("new publisher: account %q: want 1 to 32 of a-z, 0-9 and -", account)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("new publisher: %w", err)
	}
	return &Publisher{nc: nc, js: js, account: account, quiet: outcomeQuiet}, nil
}

// PublishOption changes one publish, or all of one batch.
type PublishOption func(*publishing)

// publishing is what the options say.
type publishing struct {
	id, replyTo string
	headers     [][2]string                // name, value
	inFlight    int                        // of a batch; 0 = DefaultInFlight
	onEvent     func(*schema.CommandEvent) // nil = nobody wants to know
}

func options(opts []PublishOption) publishing {
	var o publishing
	for _, set := range opts {
		set(&o)
	}
	return o
}

// WithID sets the Nats-Msg-Id header, which is the command's id when its body
// names none.
func WithID(id string) PublishOption {
	return func(o *publishing) { o.id = id }
}

// WithReplyTo has every event of the command also published on this subject over
// core NATS: an inbox, or a subject under `wazzup.<account>.reply.`.
func WithReplyTo(subject string) PublishOption {
	return func(o *publishing) { o.replyTo = subject }
}

// WithHeader sets any other header.
func WithHeader(name, value string) PublishOption {
	return func(o *publishing) { o.headers = append(o.headers, [2]string{name, value}) }
}

// Receipt says where a command was stored.
type Receipt struct {
	ID     string // of the command; "" where only its body tells it
	Stream string
	Seq    uint64
	// Tries is how often it was published, of which all but the last got no
	// PubAck or found the stream full. Where it is more than 1 an earlier one may
	// be stored too; it is then the one that is carried out, and this one ends
	// `duplicate`.
	Tries int
}

// Send stores one message command as the caller wrote it: kind is schema.KindSend
// or schema.KindBulk, and body its JSON, which is not checked (see
// [Publisher.Publish]). On return without error the command is durable and will
// end in exactly one final event. ctx carries the deadline (5 s where it has none)
// and the trace. It is published once: see the errors above for what to do next.
func (p *Publisher) Send(ctx context.Context, kind schema.Kind, channelID string, body []byte, opts ...PublishOption) (Receipt, error) {
	if !kind.IsMessage() {
		return Receipt{}, fmt.Errorf("publish %s: kind is not send or bulk", kind)
	}
	return p.raw(ctx, schema.SendSubject(p.account, kind, channelID), body, opts)
}

// Sync stores one sync command; items is the vendor's object, an array of them,
// or ids for a delete. Durability and errors are those of Send.
func (p *Publisher) Sync(ctx context.Context, e schema.Entity, v schema.Verb, items any, opts ...PublishOption) (Receipt, error) {
	if schema.SyncKind(e, v) == "" {
		return Receipt{}, fmt.Errorf("publish sync: the vendor cannot %s %s", v, e)
	}
	body, err := json.Marshal(items)
	if err != nil {
		return Receipt{}, fmt.Errorf("publish sync %s %s: %w", e, v, err)
	}
	return p.raw(ctx, schema.SyncSubject(p.account, e, v), body, opts)
}

func (p *Publisher) raw(ctx context.Context, subject string, body []byte, opts []PublishOption) (Receipt, error) {
	o := options(opts)
	return p.once(ctx, &outgoing{id: o.id, msg: p.message(ctx, subject, body, o)})
}

// message builds what is published.
func (p *Publisher) message(ctx context.Context, subject string, body []byte, o publishing) *nats.Msg {
	m := &nats.Msg{Subject: subject, Header: make(nats.Header), Data: body}
	if o.id != "" {
		m.Header.Set(schema.HeaderMsgID, o.id)
	}
	for _, h := range o.headers {
		m.Header.Set(h[0], h[1])
	}
	if o.replyTo != "" {
		m.Header.Set(schema.HeaderReplyTo, o.replyTo)
	}
	p.trace.Inject(ctx, exactHeader(m.Header))
	return m
}

// once publishes a single time and tells what is certain about it.
func (p *Publisher) once(ctx context.Context, c *outgoing) (Receipt, error) {
	if p.nc.IsClosed() { // one that is closed later says the same, and the command may be stored
		return Receipt{}, fmt.Errorf("publish command: %w", nats.ErrConnectionClosed)
	}
	before := p.nc.LastError()
	ack, err := p.js.PublishMsg(ctx, c.msg)
	if err != nil {
		return Receipt{}, fmt.Errorf("publish command: %w", p.fault(c.msg.Subject, before, err))
	}
	return Receipt{ID: c.id, Stream: ack.Stream, Seq: ack.Sequence, Tries: 1}, nil
}

// fault adds what the producer decides by; before is the connection's last error
// when it began.
func (p *Publisher) fault(subject string, before, err error) error {
	api, refused := errors.AsType[*jetstream.APIError](err)
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return ErrNoStream
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case refused && isFull(api):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case refused, errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrConnectionDraining), errors.Is(err, nats.ErrReconnectBufExceeded):
		return err // and it is surely not stored
	case forbidden(p.nc, before, subject):
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	return fmt.Errorf("%w: %w", ErrUnconfirmed, err)
}

// forbidden reports whether the server refused the subject to this user, since the
// connection's last error was another: it is kept until the next, and rights may be
// given later. The server answers a publish without right with an error of the whole
// connection, so that the publisher only sees that no PubAck comes. The subject is in
// the error's text, and nowhere else.
func forbidden(nc *nats.Conn, before error, subject string) bool {
	last := nc.LastError()
	return errors.Is(last, nats.ErrPermissionViolation) && last != before && //nolint:errorlint // the same one, not one of its kind
		strings.Contains(last.Error(), strconv.Quote(subject))
}

// exactHeader carries trace headers in lower case, as W3C names them; NATS
// header names are case-sensitive, and nats.Header.Set would keep the case too,
// but textproto-style carriers would not.
type exactHeader nats.Header

func (h exactHeader) Get(key string) string { return nats.Header(h).Get(key) }
func (h exactHeader) Set(key, value string) { nats.Header(h)[key] = []string{value} }
func (h exactHeader) Keys() []string {
	keys := make([]string, 0, len(h))
	for k := range h {
		keys = append(keys, k)
	}
	return keys
}
