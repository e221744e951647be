// Command worker carries out the commands that producers publish to NATS: one
// call to Wazzup each, under the account's rates, in the order of each chat, and
// with exactly one final event.
//
//	NATS_URL=nats://nats:4222 WAZZUP_API_KEY_FILE=/run/secrets/key worker
//
// Settings are environment variables and flags; `worker --help` lists them all
// with their defaults. A wrong configuration ends with exit code 2 and names
// every fault at once. While NATS or Wazzup is away the worker waits, says so in
// its log, and answers 503 at /readyz; a worker that stands by while another one
// owns its accounts is ready.
//
// For a single machine EMBEDDED_NATS=/var/lib/wazzup runs the NATS server in
// this process.
//
// SIGHUP: WAZZUP_ACCOUNTS_FILE and the files of secrets are read again. Rates and
// keys take effect at once, new accounts are served, removed ones are handed over;
// a configuration with faults is refused, and the log names each of them.
//
// SIGTERM or SIGINT: no command is claimed any more, calls in flight end (at
// most WAZZUP_TIMEOUT), the accounts are handed over; then telemetry, the
// connection to NATS and an embedded server end, in this order, and the exit
// code is 0. A second signal ends the process at once, with exit code 1.
package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
)

func main() { os.Exit(daemon.Main(run)) }

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	settings := relay.NewWorkerSettings()
	switch err := relay.Parse(settings, args, getenv, stdout); {
	case errors.Is(err, config.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	log, err := settings.Log.Logger(stderr)
	if err != nil {
		return err
	}
	relay.WarnUnknown(log, os.Environ())
	defer daemon.ReserveHeap()()
	program, err := relay.BuildWorker(ctx, settings, log)
	if err != nil {
		return err
	}
	program.ReloadOnHangup() //nolint:contextcheck // a reload outlives no context: it ends with the program
	return program.Run(ctx)
}
