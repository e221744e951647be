// Package asyncapi writes the contract as documents: schema/asyncapi.json, for
// programs, and docs/contract.html, for people.
//
// What they say follows from package schema (kinds, states, names, reasons,
// subjects, fault codes), from the JSON Schemas, which the document references
// and never repeats, and from the tables of this package, which hold only the
// words. A kind, a state or a request without its words, its schema or an example
// is an error, so the documents cannot fall behind the types: `make generate`
// writes them, a test compares, and the sender's tests compare the requests that
// are served with those that are listed here.
//
// Read in this order: document.go (the whole), commands.go, events.go,
// requests.go (the parts), examples.go (where examples come from); then page.go (the
// HTML page, with page.tmpl), entries.go (its parts, read from the document again),
// fields.go (the tables that explain a JSON Schema), markup.go (texts as HTML).
package asyncapi
