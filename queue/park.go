package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Parked commands are those of a chat that waits, taken out of the way of the
// other chats of their lane. They lie on the deferred stream, one subject a
// chat, in the order in which they were parked. No consumer reads them: the
// account's owner takes them one by one, by their sequence, and each is deleted
// when its command has ended.

// ParkSubject is where the commands of one chat are parked; chat is any text
// that names the chat within its lane.
func (n Names) ParkSubject(kind schema.Kind, channelID, chat string) string {
	return n.internal("park") + string(kind) + "." + schema.Key(channelID) + "." + schema.Key(chat)
}

// parkWrite is where the owner of an epoch publishes what is stored under a
// ParkSubject; it is fenced like LedgerWrite.
func (n Names) parkWrite(epoch, subject string) string {
	return n.internal("f") + epoch + ".park." + strings.TrimPrefix(subject, n.internal("park"))
}

// ParkFilter matches every ParkSubject.
func (n Names) ParkFilter() string { return n.internal("park") + "*.*.*" }

// ParkLaneFilter matches every ParkSubject of one lane.
func (n Names) ParkLaneFilter(kind schema.Kind, channelID string) string {
	return n.internal("park") + string(kind) + "." + schema.Key(channelID) + ".*"
}

// ParkClassFilter matches every ParkSubject of one class of lanes.
func (n Names) ParkClassFilter(kind schema.Kind) string {
	return n.internal("park") + string(kind) + ".*.*"
}

// ParkedLane tells whose lane a ParkSubject belongs to.
func (n Names) ParkedLane(subject string) (kind schema.Kind, channelKey string, ok bool) {
	rest, found := strings.CutPrefix(subject, n.internal("park"))
	tokens := strings.Split(rest, ".")
	if !found || len(tokens) != 3 {
		return "", "", false
	}
	return schema.Kind(tokens[0]), tokens[1], true
}

// Park keeps a command behind those that are parked on the subject already. done
// gets nil when it is durable, or ErrTooLarge, ErrFenced or ErrStopped. The order
// of two calls is kept only if the second is made after the first is done.
func (l *Ledger) Park(subject string, header nats.Header, body []byte, done func(seq uint64, err error)) {
	l.w.publish(&write{
		msg:  nats.Msg{Subject: l.parkWrite(l.Epoch, subject), Header: header, Data: body},
		done: func(seq uint64, _ bool, err error) { done(seq, err) },
	})
}

// NextParked reads, through the stream's leader, the first command that is
// parked on the subject with this sequence or a later one; nil when there is
// none. [Ledger.Unpark] deletes it; its Ack does nothing.
func (l *Ledger) NextParked(ctx context.Context, subject string, from uint64) (*Delivery, error) {
	m, err := leaderGet(ctx, l.nc, l.Deferred(), msgGet{NextFor: subject, Seq: max(from, 1)})
	if err != nil {
		return nil, fmt.Errorf("read parked command: %w", err)
	}
	if m == nil {
		return nil, nil //nolint:nilnil // "there is none" is an answer
	}
	return &Delivery{
		Subject: m.Subject, Header: m.Header, Data: m.Data, Seq: m.Sequence, Stored: m.Time,
		nc: l.nc, stream: l.Deferred(),
	}, nil
}

// LastParked reads, through the stream's leader, the sequence of the last command
// that is parked on the subject; 0 when there is none.
func (l *Ledger) LastParked(ctx context.Context, subject string) (uint64, error) {
	m, err := leaderLast(ctx, l.nc, l.Deferred(), subject)
	if err != nil || m == nil {
		return 0, err
	}
	return m.Sequence, nil
}

// StoredAfter tells, through the stream's leader, when the first message that
// matches the filter and comes after a sequence was stored, and its sequence; 0:
// there is none.
func (l *Ledger) StoredAfter(ctx context.Context, stream, filter string, sequence uint64) (time.Time, uint64, error) {
	m, err := leaderGet(ctx, l.nc, stream, msgGet{NextFor: filter, Seq: sequence + 1})
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("look behind a message of %s: %w", stream, err)
	}
	if m == nil {
		return time.Time{}, 0, nil
	}
	return m.Time, m.Sequence, nil
}

// First reads, through the stream's leader, the first message that matches the
// filter; nil: there is none.
func (l *Ledger) First(ctx context.Context, stream, filter string) (*Delivery, error) {
	m, err := leaderGet(ctx, l.nc, stream, msgGet{NextFor: filter, Seq: 1})
	if err != nil {
		return nil, fmt.Errorf("first message of %s: %w", stream, err)
	}
	if m == nil {
		return nil, nil //nolint:nilnil // "there is none" is an answer
	}
	return &Delivery{Subject: m.Subject, Header: m.Header, Data: m.Data, Seq: m.Sequence, Stored: m.Time, stream: stream}, nil
}

// Unpark deletes a parked command, through any failure that may pass. It returns
// nil when the command is surely gone.
func (l *Ledger) Unpark(ctx context.Context, d *Delivery) error {
	bounded, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	reply, err := l.nc.RequestWithContext(bounded, "$JS.API.STREAM.MSG.DELETE."+d.stream, deleteRequest(d.Seq))
	if err != nil {
		return fmt.Errorf("delete parked command: %w", err)
	}
	var answer struct {
		Success bool `json:"success"`
	}
	if json.Unmarshal(reply.Data, &answer) == nil && answer.Success {
		return nil
	}
	// It may have been deleted by a request whose answer was lost.
	m, err := leaderGet(ctx, l.nc, d.stream, msgGet{Seq: d.Seq})
	if err == nil && m != nil {
		err = errStillParked
	}
	if err != nil {
		return fmt.Errorf("delete parked command: %w", err)
	}
	return nil
}

var errStillParked = errors.New("it is still there")
