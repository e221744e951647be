// Package ingest is the webhook endpoint: it takes what the vendor posts, turns
// every item of every array into one event, and answers 200 only when each of
// them is stored.
//
// Read in the order of a webhook's path: account.go (whose it is), handler.go
// (the order of the checks), split.go (a body becomes items), event.go,
// change.go and quarantine.go (an item becomes an event with a stable id),
// store.go (the events become durable). server.go holds it together;
// register.go tells the vendor where to post, and has that looked after.
//
// # Identity of events
//
// Nats-Msg-Id and ce-id are the same, and follow from the item alone:
//
//   - message: its message id and a hash of the item
//   - status: its message id and its status number
//   - channel and channel list: the sequence of what was stored before, and a
//     hash, so that equal neighbours are one event and qr, active, qr are three
//   - quarantine: the hash of what is kept, and the part
//
// Hashes are taken over canonical JSON (members sorted, white space gone,
// numbers as they were written), so that a replay that was serialised anew is
// still the same event.
//
// # CloudEvents
//
//	ce-type                         ce-subject
//	wazzup.message.in, .out         message id
//	wazzup.status.<word>            message id
//	wazzup.channel.state            channel id
//	wazzup.channels                 -
//	wazzup.quarantine.<reason>      key of the body under which the item came, if it was an item
//	wazzup.ops.<name>               -
//
// Ids that are not fit for a subject token stand there as [schema.Key] of them.
// ce-time is the time of receipt.
package ingest
