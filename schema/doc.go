// Package schema is the public vocabulary of wazzup-relay: commands, events,
// states, error classes, subjects, and the rules that a command must meet.
//
// It knows neither NATS nor HTTP, so that any Go program can build a command
// or read an event with it. The JSON Schemas (draft 2020-12) of the same types
// are in the folder json and are embedded; a test keeps the two equal.
//
// Read in this order: kind.go and state.go (the words), key.go and subject.go
// (where things travel), command.go and produce.go (what producers say),
// decode.go, validate.go and sync.go (the rules it must meet), fault.go (how a
// broken rule is named), fingerprint.go (what the same command is), event.go and
// encode.go (what consumers hear back), received.go (how they read it), request.go
// (what can be asked), contract.go (all of it as an AsyncAPI document, which
// internal/asyncapi writes).
package schema
