package main

import (
	"context"
	"encoding/json"
	"io"
)

// Run is the whole program, with its standard input.
func Run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	return runWith(ctx, args, getenv, stdin, stdout, stderr)
}

// GuardChecks are what doctor makes of an answer to webhooks.get: the result and
// name of each check.
func GuardChecks(answer string) ([]string, error) {
	var now registered
	if err := json.Unmarshal([]byte(answer), &now); err != nil {
		return nil, err
	}
	d := &doctor{}
	d.guard(&now)
	var all []string
	for _, c := range d.results {
		all = append(all, c.Result+" "+c.Name)
	}
	return all, nil
}
