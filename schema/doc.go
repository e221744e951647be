// Package schema is the public vocabulary of wazzup-relay: commands, events,
// states, error classes, subjects, and the rules that a command must meet.
//
// It knows neither NATS nor HTTP, so that any Go program can build a command
// or read an event with it. The JSON Schemas (draft 2020-12) of the same types
// are in the folder json and are embedded; a test keeps the two equal.
//
// Read in this order: kind.go and state.go (the words), key.go and subject.go
// (where things travel), command.go and validate.go (what producers say),
// event.go (what they hear back).
package schema
