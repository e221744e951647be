package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// ErrNoOwner: no worker serves the account's requests.
var ErrNoOwner = errors.New("no worker serves this account")

const (
	// DefaultHandOver is how long a request is made again that meets nobody: an
	// account whose worker was killed has another within 10 s.
	DefaultHandOver = 12 * time.Second
	// DefaultAnswer bounds the wait for one answer: a request that needs the
	// vendor takes its turn in the account's rate.
	DefaultAnswer = 30 * time.Second

	handOverPause = 200 * time.Millisecond
	codeHandOver  = "HAND_OVER" // of a request that an owner could not begin any more
)

// RequestError is a refusal of a request, by the account's worker or by the vendor
// through it. Its text may name what the caller asked for, so it is for the caller
// and never for logs.
type RequestError struct {
	Name   string // of the request, such as command.cancel
	Status int    // as in HTTP: 400, 404, 409, …; 0 = not told
	Fault  schema.Error
	State  schema.State    // of the command that the request is about, where a 409 tells it
	Body   json.RawMessage // the whole answer
}

func (e *RequestError) Error() string {
	return fmt.Sprintf("%s was refused with %d %s: %s", e.Name, e.Status, e.Fault.Code, e.Fault.Description)
}

// Unwrap gives the fault as an error of its own.
func (e *RequestError) Unwrap() error { return &e.Fault }

// Requests asks an account's owner over NATS. It may be used by any number of
// goroutines; the caller keeps and closes the connection.
type Requests struct {
	nc      *nats.Conn
	account string

	// HandOver is how long a request is made again that meets nobody; 0 means
	// DefaultHandOver. It ends earlier with the request's context.
	HandOver time.Duration
	// Waiting, if not nil, is told each time that a request met nobody and will be
	// made again.
	Waiting func()
}

// NewRequests returns the requests of one account.
func NewRequests(nc *nats.Conn, account string) (*Requests, error) {
	if !schema.ValidAccount(account) {
		return nil, fmt.Errorf("new requests: account %q: want 1 to 32 of a-z, 0-9 and -", account)
	}
	return &Requests{nc: nc, account: account}, nil
}

// Do makes the request of that name, such as "channels.list", with in as its JSON
// body, and decodes the answer into out, which may be a *[json.RawMessage].
//
// While nobody answers, since the account changes hands, the request is made again
// until ctx or HandOver ends; the error is then [ErrNoOwner]. A refusal is a
// *[RequestError]. Without any answer for 30 seconds, or until ctx ends, the request
// may have been carried out or not, or is [ErrForbidden] to the NATS user.
func (r *Requests) Do(ctx context.Context, name string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("request %s: %w", name, err)
	}
	answer, err := r.ask(ctx, name, body)
	if err != nil {
		return fmt.Errorf("request %s of account %s: %w", name, r.account, err)
	}
	if status := answer.Header.Get(micro.ErrorCodeHeader); status != "" {
		return refusal(name, status, answer)
	}
	if err := json.Unmarshal(answer.Data, out); err != nil {
		return fmt.Errorf("request %s: unreadable answer: %w", name, err)
	}
	return nil
}

// Cancel cancels a command: without error it will never be sent, and its
// `cancelled` event comes at its turn. A command that is under way, in doubt or
// has ended is a *[RequestError] of status 409, with its State; one that is not
// there is a 404.
func (r *Requests) Cancel(ctx context.Context, id string) error {
	return r.Do(ctx, "command.cancel", map[string]string{"id": id}, new(json.RawMessage))
}

func refusal(name, status string, answer *nats.Msg) error {
	var body struct {
		Error schema.Error `json:"error"`
		State schema.State `json:"state"`
	}
	e := &RequestError{Name: name}
	e.Status, _ = strconv.Atoi(status) // 0 = a status that is no number
	if json.Unmarshal(answer.Data, &body) == nil {
		e.Fault, e.State, e.Body = body.Error, body.State, answer.Data
	}
	if e.Fault.Code == "" {
		e.Fault.Code = answer.Header.Get(micro.ErrorHeader)
	}
	return e
}

func (r *Requests) ask(ctx context.Context, name string, body []byte) (*nats.Msg, error) {
	handOver := r.HandOver
	if handOver == 0 {
		handOver = DefaultHandOver
	}
	patience := time.Now().Add(handOver)
	subject := schema.APISubject(r.account, name)
	for {
		before := r.nc.LastError()
		once, cancel := context.WithTimeout(ctx, DefaultAnswer)
		answer, err := r.nc.RequestWithContext(once, subject, body)
		cancel()
		switch {
		case err == nil && answer.Header.Get(micro.ErrorHeader) == codeHandOver && time.Now().Before(patience):
		case err == nil:
			return answer, nil
		case forbidden(r.nc, before, subject):
			return nil, fmt.Errorf("%w: %w", ErrForbidden, err)
		case !errors.Is(err, nats.ErrNoResponders) && ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !errors.Is(err, nats.ErrNoResponders):
			return nil, fmt.Errorf("no answer: %w", err)
		case time.Now().After(patience):
			return nil, ErrNoOwner
		}
		if r.Waiting != nil {
			r.Waiting()
		}
		timer := time.NewTimer(handOverPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w: %w", ErrNoOwner, context.Cause(ctx))
		}
	}
}
