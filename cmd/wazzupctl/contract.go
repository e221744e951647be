package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

type contractCmd struct {
	connection
	BuiltIn bool `help:"Print the document of this program, without asking anybody."`
	JSON    bool `help:"Print it in one line."`
}

// Help is the detailed help.
func (*contractCmd) Help() string {
	return `Prints the AsyncAPI document of every subject, header, body, answer and fault, with the JSON Schemas in it: of the worker that owns the account, so that it is of the version that runs.

Examples:
  wazzupctl contract > asyncapi.json
  wazzupctl contract --built-in`
}

// Run prints the document.
func (c *contractCmd) Run(ctx context.Context, e *env) error {
	text, err := c.document(ctx, e)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if c.JSON {
		err = json.Compact(&out, text)
	} else {
		err = json.Indent(&out, text, "", "  ")
	}
	if err != nil {
		return fmt.Errorf("read the document: %w", err)
	}
	e.Printf("%s\n", out.Bytes())
	return nil
}

func (c *contractCmd) document(ctx context.Context, e *env) (json.RawMessage, error) {
	if c.BuiltIn {
		return schema.Contract()
	}
	cl, err := c.connect(ctx, e)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var text json.RawMessage
	err = cl.request(ctx, "contract.get", struct{}{}, &text)
	return text, err
}
