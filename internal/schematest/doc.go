// Package schematest holds what tests see on NATS to the contract: the AsyncAPI
// document and the JSON Schemas in it. The rigs of the test suites pass every event
// and every answer through it, so that what the document says is what happens.
//
// contract.go reads the document, event.go checks an event, and request.go a
// request with its answer.
package schematest
