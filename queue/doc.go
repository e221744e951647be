// Package queue keeps wazzup-relay's commands, records and events in NATS
// JetStream. It knows subjects, streams, claims and leases; it knows neither
// the vendor nor what a command asks for.
//
// One account has four streams (see [Names]):
//
//   - commands: a work queue bound to exactly the subjects that producers may
//     publish to. What is acknowledged is gone.
//   - records: for every command id the ledger of what was done, the index from
//     the vendor's message ids to commands, and all public events.
//   - deferred: copies of commands: those that wait for their time, by the
//     server's scheduler, those that are parked because their chat waits, and
//     those that go on after they were dead.
//   - dead: the dead letters.
//
// # For other programs
//
// A Go program that publishes commands, reads events or asks for something imports
// this package and schema, and needs these parts of it, whose names and meaning
// are stable:
//
//   - [Publisher]: commands of every kind, checked before they are published; whole
//     batches ([Publisher.PublishAll]); the outcome of one's own command
//     ([Publisher.PublishAndWait]). With [Command], [Receipt], [Result], [Outcome], the
//     options With… and the errors [ErrNoStream], [ErrFull], [ErrForbidden],
//     [ErrTooLarge], [ErrUnconfirmed], [ErrHeldBack], [ErrNotEnded].
//   - [Consumer]: events, with [ConsumerConfig], [Start], [Handler], [Received] and
//     the errors [ErrSkip], [ErrGaveUp], [ErrNotAcknowledged], [ErrConsumerGone],
//     [PanicError].
//   - [Requests]: what an account's worker answers, with [RequestError], [ErrNoOwner],
//     [ErrForbidden].
//   - [Names], for the names of streams ([Names.Commands], [Names.Records]), and
//     [Ensure] with [Limits] and [Topology] for a program that makes an account's
//     streams before any worker has started.
//   - [Ask], which makes a request to NATS again while nobody leads.
//
// Their files are publisher.go, command.go, batch.go, outcome.go, consumer.go,
// requests.go, ask.go, topology.go.
//
// # The machinery
//
// All else is exported for worker and ingest, and may change with every version:
// leases and members, intake, ledger, gates, parking, dead letters, the making of
// events ([Event], [Origin]), and every name of a subject that begins with `wz.`.
//
// The files follow a message: topology.go makes the streams, publisher.go puts a
// command in, members.go knows which workers are alive, lease.go decides which of
// them owns the account, intake.go hands the owner the commands of each lane
// (sleep.go: a closed one has no consumer), ledger.go claims them and records how they
// ended, event.go tells the world, deadletter.go keeps what failed, park.go what waits
// behind its chat, gate.go what an owner knows of channels. stored.go reads events back.
package queue
