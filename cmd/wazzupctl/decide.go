package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

type cancelCmd struct {
	connection
	ID   string `arg:"" help:"The command's id."`
	JSON bool   `help:"Print JSON."`
}

// Help is the detailed help.
func (*cancelCmd) Help() string {
	return `When it succeeds the command will never be sent; its event (cancelled) comes at its turn. One that is being sent, whose fate is unknown or that has ended cannot be cancelled.

Example:
  wazzupctl cancel order-1042-shipped`
}

// Run cancels one command.
func (c *cancelCmd) Run(ctx context.Context, e *env) error {
	cl, err := c.connect(ctx, e)
	if err != nil {
		return err
	}
	defer cl.Close()
	return cl.decide(ctx, decision{
		request: "command.cancel", id: c.ID, body: map[string]string{"id": c.ID},
		refusal: "cannot be cancelled any more", asJSON: c.JSON,
	})
}

type resolveCmd struct {
	connection
	ID   string `arg:"" help:"The command's id."`
	As   string `required:"" enum:"sent,resend,drop" help:"sent: it arrived. resend: it did not, send it again. drop: give it up."`
	JSON bool   `help:"Print JSON."`
}

// Help is the detailed help.
func (*resolveCmd) Help() string {
	return `Look into the chat first, in Wazzup or on the phone: after --as resend of a message that had arrived, the customer has it twice.

Example:
  wazzupctl resolve order-1042-shipped --as sent`
}

// Run decides about one command.
func (c *resolveCmd) Run(ctx context.Context, e *env) error {
	cl, err := c.connect(ctx, e)
	if err != nil {
		return err
	}
	defer cl.Close()
	return cl.decide(ctx, decision{
		request: "command.resolve", id: c.ID, body: map[string]string{"id": c.ID, "as": c.As},
		refusal: "has no unknown fate to decide about", asJSON: c.JSON,
	})
}

// decision is an operator's word about one command.
type decision struct {
	request string
	id      string
	body    map[string]string
	refusal string // what a 409 means, after the command's id
	asJSON  bool
}

// decide asks the account's owner to carry a decision out.
func (c *client) decide(ctx context.Context, d decision) error {
	var raw json.RawMessage
	if err := c.request(ctx, d.request, d.body, &raw); err != nil {
		return d.refused(err, c.account)
	}
	if d.asJSON {
		return c.JSON(raw)
	}
	var now struct {
		ID    string       `json:"id"`
		State schema.State `json:"state"`
	}
	if err := json.Unmarshal(raw, &now); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	state := cmp.Or(string(now.State), d.body["as"])
	c.Printf("%s %s\n", c.tint(bold, plain(d.id)), c.tint(stateTint(now.State), plain(state)))
	return nil
}

// refused puts the two refusals that an operator meets into words.
func (d decision) refused(err error, account string) error {
	refused, ok := errors.AsType[*apiError](err)
	switch {
	case ok && refused.Status == http.StatusNotFound:
		return fmt.Errorf("no command %q in account %s: it was never published, or is older than the ledger's memory", d.id, account)
	case ok && refused.Status == http.StatusConflict:
		return fmt.Errorf("command %q %s: %s (`wazzupctl trace %s` tells more)", d.id, d.refusal, plainText(refused.Fault.Description), plain(d.id))
	}
	return err
}
