package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	// handOver is how long a request is repeated that meets nobody: an account
	// changes hands within this time when its owner leaves in order.
	handOver      = 3 * time.Second
	handOverPause = 200 * time.Millisecond
	codeHandOver  = "HAND_OVER" // of a request that an owner could not begin any more
	// answerTimeout bounds one request; the worker may wait for the account's
	// rate and for Wazzup.
	answerTimeout = 30 * time.Second
)

// connection are the flags that say where NATS is and which account is meant.
// nil = not given: the environment, then the default.
type connection struct {
	NATSURL          *string       `name:"nats-url" group:"Connection" placeholder:"URL" help:"Where NATS listens (NATS_URL; default nats://127.0.0.1:4222)."`
	NATSCreds        *string       `name:"nats-creds" group:"Connection" placeholder:"FILE" help:"A .creds file to log in with (NATS_CREDS)."`
	NATSUser         *string       `name:"nats-user" group:"Connection" placeholder:"NAME" help:"User to log in as (NATS_USER)."`
	NATSPasswordFile *string       `name:"nats-password-file" group:"Connection" placeholder:"FILE" help:"File of the user's password (NATS_PASSWORD, NATS_PASSWORD_FILE)."`
	NATSCA           *string       `name:"nats-ca" group:"Connection" placeholder:"FILE" help:"PEM file of authorities to trust (NATS_CA)."`
	NATSCert         *string       `name:"nats-cert" group:"Connection" placeholder:"FILE" help:"PEM file of the client certificate (NATS_CERT)."`
	NATSKey          *string       `name:"nats-key" group:"Connection" placeholder:"FILE" help:"PEM file of its key (NATS_KEY)."`
	Account          *string       `name:"wazzup-account" aliases:"account" group:"Connection" placeholder:"NAME" help:"The account (WAZZUP_ACCOUNT; default main)."`
	ConnectTimeout   time.Duration `name:"connect-timeout" group:"Connection" default:"5s" help:"How long to wait for NATS (default ${default})."`
}

// settings reads flags and environment by the rules of all programs.
func (c *connection) settings(e *env) (*relay.ClientSettings, error) {
	var args []string
	for _, flag := range []struct {
		name  string
		value *string
	}{
		{"nats-url", c.NATSURL},
		{"nats-creds", c.NATSCreds},
		{"nats-user", c.NATSUser},
		{"nats-password-file", c.NATSPasswordFile},
		{"nats-ca", c.NATSCA},
		{"nats-cert", c.NATSCert},
		{"nats-key", c.NATSKey},
		{"wazzup-account", c.Account},
	} {
		if flag.value != nil {
			args = append(args, "--"+flag.name+"="+*flag.value)
		}
	}
	s := relay.NewClientSettings("wazzupctl")
	if err := relay.Parse(s, args, e.getenv, io.Discard); err != nil {
		return nil, err
	}
	return s, nil
}

// client talks to one account.
type client struct {
	account string
	conn    *daemon.NATS
	nc      *nats.Conn
	js      jetstream.JetStream
	*printer
}

// connect waits for NATS and says what to do when it does not come. The caller
// closes the client.
func (c *connection) connect(ctx context.Context, e *env) (*client, error) {
	settings, err := c.settings(e)
	if err != nil {
		return nil, err
	}
	return c.connectWith(ctx, e, settings)
}

func (c *connection) connectWith(ctx context.Context, e *env, settings *relay.ClientSettings) (*client, error) {
	conn, err := daemon.ConnectNATS(settings.NATS.Config("wazzupctl", zerolog.Nop()))
	if err != nil {
		return nil, &relay.UsageError{Err: err}
	}
	e.Progress("waiting for NATS")
	defer e.Done()
	wait, cancel := context.WithTimeout(ctx, c.ConnectTimeout)
	defer cancel()
	if err := conn.Wait(wait); err != nil {
		reason := conn.Ready()
		conn.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &noNATS{redacted(settings.NATS.URL), reason}
	}
	js, err := jetstream.New(conn.Conn())
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	return &client{account: settings.Account, conn: conn, nc: conn.Conn(), js: js, printer: e.printer}, nil
}

// noNATS: the connection did not come about in time.
type noNATS struct {
	url    string
	reason error // nil = not known
}

func (e *noNATS) Error() string {
	return e.short() + ": is it running there? --nats-url or NATS_URL says where it is; `wazzupctl dev` starts one"
}

func (e *noNATS) Unwrap() error { return e.reason }

func (e *noNATS) short() string {
	if e.reason == nil {
		return "NATS does not answer at " + e.url
	}
	return "NATS does not answer at " + e.url + " (" + e.reason.Error() + ")"
}

// redacted is a list of URLs without passwords.
func redacted(list string) string {
	var shown []string
	for one := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			shown = append(shown, "(unreadable URL)")
			continue
		}
		shown = append(shown, u.Redacted())
	}
	return strings.Join(shown, ",")
}

func (c *client) Close() { c.conn.Close() }

// apiError is a refusal of a request, by the worker or by Wazzup through it.
type apiError struct {
	name   string
	Status int
	Fault  schema.Error
}

func (e *apiError) Error() string {
	return fmt.Sprintf("%s was refused with %d %s: %s", e.name, e.Status, e.Fault.Code, e.Fault.Description)
}

// errNoWorker: nobody serves the account's requests.
var errNoWorker = errors.New("no worker serves this account: start one (cmd/worker, or `wazzupctl dev`), or name another account with --account")

// request asks the account's owner and decodes the answer into out, which may be
// a *json.RawMessage.
func (c *client) request(ctx context.Context, name string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("request %s: %w", name, err)
	}
	answer, err := c.ask(ctx, name, body)
	if err != nil {
		return err
	}
	if status := answer.Header.Get(micro.ErrorCodeHeader); status != "" {
		refused := &apiError{name: name}
		refused.Status, _ = strconv.Atoi(status) // 0 = a status that is no number
		var fault struct {
			Error schema.Error `json:"error"`
		}
		if json.Unmarshal(answer.Data, &fault) != nil || fault.Error.Code == "" {
			fault.Error.Code = answer.Header.Get(micro.ErrorHeader)
		}
		refused.Fault = fault.Error
		return refused
	}
	if err := json.Unmarshal(answer.Data, out); err != nil {
		return fmt.Errorf("request %s: unreadable answer: %w", name, err)
	}
	return nil
}

// ask repeats a request that meets nobody, since the account may be changing
// hands.
func (c *client) ask(ctx context.Context, name string, body []byte) (*nats.Msg, error) {
	patience := time.Now().Add(handOver)
	for {
		once, cancel := context.WithTimeout(ctx, answerTimeout)
		answer, err := c.nc.RequestWithContext(once, schema.APISubject(c.account, name), body)
		cancel()
		switch {
		case err == nil && answer.Header.Get(micro.ErrorHeader) == codeHandOver && time.Now().Before(patience):
		case err == nil:
			return answer, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, nats.ErrNoResponders) && time.Now().Before(patience):
		case errors.Is(err, nats.ErrNoResponders):
			return nil, fmt.Errorf("request %s of account %s: %w", name, c.account, errNoWorker)
		default:
			return nil, fmt.Errorf("request %s of account %s: no answer: %w", name, c.account, err)
		}
		c.Progress("waiting for a worker of account " + c.account)
		timer := time.NewTimer(handOverPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}
