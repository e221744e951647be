package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/propagation"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Errors of publishing that a producer decides by. Others are those of NATS.
var (
	// ErrNoStream: nobody serves this account, kind or subject. The command is
	// not stored; the account's name is wrong or its worker was never started.
	ErrNoStream = errors.New("no stream takes this subject")
	// ErrFull: the account's command stream is full. The command is not stored;
	// publish it again later.
	ErrFull = errors.New("command stream is full")
)

// Publisher puts commands into an account's stream. It may be used by any number
// of goroutines.
type Publisher struct {
	js      jetstream.JetStream
	account string
	trace   propagation.TraceContext
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
	return &Publisher{js: js, account: account}, nil
}

// PublishOption changes one publish.
type PublishOption func(*nats.Msg)

// WithID sets the Nats-Msg-Id header, which is the command's id when its body
// names none.
func WithID(id string) PublishOption {
	return func(m *nats.Msg) { m.Header.Set(schema.HeaderMsgID, id) }
}

// WithReplyTo has every event of the command also published on this subject over
// core NATS: an inbox, or a subject under `wazzup.<account>.reply.`.
func WithReplyTo(subject string) PublishOption {
	return func(m *nats.Msg) { m.Header.Set(schema.HeaderReplyTo, subject) }
}

// Receipt says where a command was stored.
type Receipt struct {
	Stream string
	Seq    uint64
}

// Send stores one message command; kind is schema.KindSend or schema.KindBulk,
// and body its JSON. On return without error the command is durable and will end
// in exactly one final event. ctx carries the deadline and the trace.
//
// After an error that is neither ErrNoStream nor ErrFull the command may be
// stored all the same: publish it again with the same id, and the ledger sees
// to it that only one is carried out.
func (p *Publisher) Send(ctx context.Context, kind schema.Kind, channelID string, body []byte, opts ...PublishOption) (Receipt, error) {
	if !kind.IsMessage() {
		return Receipt{}, fmt.Errorf("publish %s: kind is not send or bulk", kind)
	}
	return p.publish(ctx, schema.SendSubject(p.account, kind, channelID), body, opts)
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
	return p.publish(ctx, schema.SyncSubject(p.account, e, v), body, opts)
}

func (p *Publisher) publish(ctx context.Context, subject string, body []byte, opts []PublishOption) (Receipt, error) {
	m := &nats.Msg{Subject: subject, Header: make(nats.Header), Data: body}
	for _, o := range opts {
		o(m)
	}
	p.trace.Inject(ctx, exactHeader(m.Header))
	ack, err := p.js.PublishMsg(ctx, m)
	if err != nil {
		var api *jetstream.APIError
		switch {
		case errors.Is(err, jetstream.ErrNoStreamResponse):
			err = ErrNoStream
		case errors.As(err, &api) && isFull(api):
			err = fmt.Errorf("%w: %w", ErrFull, err)
		}
		return Receipt{}, fmt.Errorf("publish command: %w", err)
	}
	return Receipt{Stream: ack.Stream, Seq: ack.Sequence}, nil
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
