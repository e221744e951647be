// Package wazzup speaks the vendor's HTTP API v2: its wire shapes, its codes,
// and one call at a time.
//
// Every call ends in an [Answer], a value that always tells the story: how far
// the request got, what came back, and what failed. What follows from it is
// not decided here: this package knows no lanes, attempts or retries.
//
// Two facts steer the design. The vendor's send call is not idempotent, so a
// request with a body is never written twice, not even by net/http's own
// retries (see [Client.Do]). And a call that failed before anything left this
// machine may be repeated freely, so "surely not sent" is told apart from
// "may have been written" as exactly as the standard library allows, and in
// doubt it is "may have been written" (see probe.go).
//
// Read in this order: client.go (a call), probe.go (how far it got), answer.go
// (what came back), code.go (the vendor's words), methods.go and shapes.go
// (the manual's methods).
package wazzup
