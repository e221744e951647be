// Package simulator is the vendor's HTTP API (Wazzup API v2) as a stateful,
// scriptable server: every method of the manual under /v2, webhooks called
// back, and a control API under /_sim/ that scripts faults and shows what was
// received. docs/simulator.md is its page for users.
//
// It deliberately shares no type with the client of this project: the shapes
// in wire.go are its own reading of the manual, because a simulator that
// shared the client's types could not find the client's mistakes.
//
// Where the manual is silent (the HTTP status of a code, the codes of entity
// methods, the body of a 429) a choice had to be made; each is named in a
// comment at its place and in docs/simulator.md, and a [Rule] can script any
// other answer.
//
// A request's path through the files: server.go (listener, life cycle),
// vendor.go (key, rate, rule, answer), rule.go (scripted faults), send.go,
// entities.go, webhooks.go, iframe.go (the methods), callback.go and outbox.go
// (webhooks), record.go (what was received), control.go (/_sim/).
package simulator
