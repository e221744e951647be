// Command ingest takes what Wazzup posts to /webhooks/<account>/<secret>, and
// answers 200 when every item of the body is stored as an event in NATS.
//
//	NATS_URL=nats://nats:4222 WEBHOOK_SECRET_FILE=/run/secrets/hook \
//	PUBLIC_URL=https://hooks.example.org INGEST_ADDR=:8080 ingest
//
// Settings are environment variables and flags; `ingest --help` lists them all
// with their defaults. A wrong configuration ends with exit code 2 and names
// every fault at once. It holds no API key: PUBLIC_URL is registered by asking
// the worker that owns the account, again and again until that has succeeded.
// While NATS is away webhooks are answered 503, for Wazzup to post them again,
// and so is /readyz.
//
// SIGHUP: WAZZUP_ACCOUNTS_FILE and the files of secrets are read again. Secrets,
// public URLs and accounts take effect at once; a configuration with faults is
// refused, and the log names each of them.
//
// SIGTERM or SIGINT: it stops listening, requests under way finish, then
// telemetry and the connection to NATS end, and the exit code is 0. A second
// signal ends the process at once, with exit code 1.
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
	settings := relay.NewIngestSettings()
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
	program, err := relay.BuildIngest(ctx, settings, nil, log)
	if err != nil {
		return err
	}
	program.ReloadOnHangup() //nolint:contextcheck // a reload outlives no context: it ends with the program
	return program.Run(ctx)
}
