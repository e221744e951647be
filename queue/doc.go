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
// The files follow a message: topology.go makes the streams, publisher.go puts a
// command in, members.go knows which workers are alive, lease.go decides which of
// them owns the account, intake.go hands the owner the commands of each lane,
// ledger.go claims them and records how they ended, event.go tells the world,
// deadletter.go keeps what failed, park.go what waits behind its chat, gate.go what
// an owner knows of channels. stored.go reads events back.
package queue
