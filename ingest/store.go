package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

// Errors of a Store that the endpoint decides by. Both mean: nothing is known to
// be stored, ask the vendor to post again.
var (
	// ErrUnavailable: NATS does not answer, or the account's stream is not there.
	ErrUnavailable = errors.New("event store is not available")
	// ErrFull: the stream has no room left.
	ErrFull = errors.New("event store is full")
)

// Store keeps events. All methods may be called by any number of goroutines.
type Store interface {
	// Available is nil when it is worth trying, otherwise ErrUnavailable. It
	// does not wait.
	Available() error
	// MaxBody is the longest body of an event, in bytes, that fits today.
	MaxBody() int
	// Publish stores events, all at once, and returns after the last
	// acknowledgement: without error every one of them is durable, and
	// duplicates tells how many of them were stored before. After an error
	// (ErrUnavailable, ErrFull) some may be stored; none is kept in memory
	// beyond ctx.
	Publish(ctx context.Context, events []queue.Event) (duplicates int, err error)
	// LastOf reads, from the stream's leader, what was stored last on a subject,
	// which may have wildcards. The zero Last: nothing. Errors as above.
	LastOf(ctx context.Context, account, subject string) (Last, error)
	// Commands tells which commands sent these messages, as far as is known.
	// What was found before an error is returned with it.
	Commands(ctx context.Context, account string, messageIDs []string) (map[string]Command, error)
}

// Last is what was stored last on a subject.
type Last struct {
	Seq  uint64 // in the stream; 0 = nothing is stored
	ID   string // of the event
	Body []byte
}

// Command is the command behind a message id.
type Command struct {
	ID   string // "" = unknown
	Meta json.RawMessage
}

// ConnOptions are the options that a Store's connection needs: nothing may be
// buffered while NATS is away, since the vendor is told 503 and posts again.
func ConnOptions() []nats.Option {
	return []nats.Option{nats.ReconnectBufSize(-1)}
}

// headerRoom is more than the headers of any event take: all their values are
// bounded.
const headerRoom = 1 << 10

// Streams is the Store over the records streams of [queue.Ensure].
type Streams struct {
	nc        *nats.Conn
	publisher *publisher
	lookups   lookups
}

// NewStreams returns a Store over a connection that was made with ConnOptions;
// the caller keeps and closes it. Close the Store after use.
func NewStreams(nc *nats.Conn) (*Streams, error) {
	p, err := newPublisher(nc)
	if err != nil {
		return nil, fmt.Errorf("new event store: %w", err)
	}
	return &Streams{nc: nc, publisher: p, lookups: lookups{nc: nc}}, nil
}

// Close forgets publishes and lookups that are under way.
func (s *Streams) Close() {
	s.publisher.js.CleanupPublisher()
	s.lookups.close()
}

// Available implements Store.
func (s *Streams) Available() error {
	if !s.nc.IsConnected() {
		return ErrUnavailable
	}
	return nil
}

// MaxBody implements Store.
func (s *Streams) MaxBody() int { return int(s.nc.MaxPayload()) - headerRoom }

// Publish implements Store.
func (s *Streams) Publish(ctx context.Context, events []queue.Event) (int, error) {
	if err := s.Available(); err != nil {
		return 0, err // a lost connection would only fill the reconnect buffer
	}
	duplicates, err := s.publisher.publish(ctx, events)
	if err != nil {
		return 0, unstored(err)
	}
	return duplicates, nil
}

// unstored names why an event was not stored. The text of NATS's error is not
// kept where it might name a subject, which carries chat ids.
func unstored(err error) error {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		if isFull(api.ErrorCode) {
			return fmt.Errorf("%w: JetStream error %d", ErrFull, api.ErrorCode)
		}
		return fmt.Errorf("%w: JetStream error %d", ErrUnavailable, api.ErrorCode)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Error codes of a full stream, server or account that nats.go has no name for.
const (
	codeStoreFailed      jetstream.ErrorCode = 10077 // maximum bytes, messages exceeded
	codeNoStorage        jetstream.ErrorCode = 10047 // insufficient storage resources
	codeAccountNoStorage jetstream.ErrorCode = 10002 // resource limits of the NATS account
	codeNoMemory         jetstream.ErrorCode = 10028 // insufficient memory resources
)

func isFull(code jetstream.ErrorCode) bool {
	switch code {
	case codeStoreFailed, codeNoStorage, codeAccountNoStorage, codeNoMemory:
		return true
	}
	return false
}

// LastOf implements Store.
func (s *Streams) LastOf(ctx context.Context, account, subject string) (Last, error) {
	request, err := json.Marshal(map[string]string{"last_by_subj": subject})
	if err != nil {
		return Last{}, err
	}
	// Only the leader answers this request; a direct get may be answered by a
	// replica that lags behind.
	reply, err := s.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+queue.Names{Account: account}.Records(), request)
	if err != nil {
		return Last{}, unstored(err)
	}
	var got struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Seq    uint64 `json:"seq"`
			Header []byte `json:"hdrs"`
			Data   []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(reply.Data, &got); err != nil {
		return Last{}, fmt.Errorf("%w: unreadable answer", ErrUnavailable)
	}
	if got.Error != nil {
		if got.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
			return Last{}, nil
		}
		return Last{}, unstored(got.Error)
	}
	if got.Message == nil {
		return Last{}, fmt.Errorf("%w: empty answer", ErrUnavailable)
	}
	last := Last{Seq: got.Message.Seq, Body: got.Message.Data}
	if len(got.Message.Header) > 0 {
		h, err := nats.DecodeHeadersMsg(got.Message.Header)
		if err != nil {
			return Last{}, fmt.Errorf("%w: unreadable headers", ErrUnavailable)
		}
		last.ID = h.Get(jetstream.MsgIDHeader)
	}
	return last, nil
}

// Commands implements Store.
func (s *Streams) Commands(ctx context.Context, account string, messageIDs []string) (map[string]Command, error) {
	names := queue.Names{Account: account}
	found := make(map[string]Command)
	bySubject := make(map[string]string, len(messageIDs))
	subjects := make([]string, 0, len(messageIDs))
	for _, id := range messageIDs {
		subject := names.IndexSubject(id)
		if _, twice := bySubject[subject]; !twice {
			bySubject[subject] = id
			subjects = append(subjects, subject)
		}
	}
	for chunk := range slices.Chunk(subjects, maxMultiGet) {
		if err := s.lookups.commands(ctx, names, bySubject, chunk, found); err != nil {
			return found, err
		}
	}
	return found, nil
}
