package main

import (
	"context"
	"io"
)

// Run is the whole program, with its standard input.
func Run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	return runWith(ctx, args, getenv, stdin, stdout, stderr)
}
