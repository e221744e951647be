// Package relay builds the programs of this project out of checked settings:
// the worker, which sends, and the ingest, which takes webhooks. The commands
// and the development system of wazzupctl share it, so that all of them are
// wired alike.
//
// In the order of a program's start: settings.go and natssettings.go (what all
// programs are told, and every fault at once), workersettings.go and
// ingestsettings.go (the tables), accounts.go (one account or many), worker.go
// and ingest.go (settings become tasks), program.go (tasks become a program),
// streams.go (the ingest's readiness), reload.go (the accounts again, at SIGHUP).
//
// Building opens what must be open before anything runs, that is listeners,
// the connection to NATS and an embedded server; nothing is served before Run.
package relay
