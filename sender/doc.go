// Package sender carries out an account's commands: it is the one place that
// calls the vendor.
//
// A message's path, told in the order in which things happen:
//
//  1. worker.go: a worker takes the lease of an account and becomes its owner,
//     if spread.go and share.go say that it is this worker's turn among others.
//  2. owner.go: the owner raises the epoch, so that every former owner is
//     refused, opens the account's lanes and learns the channels' states.
//  3. admit.go: a stored command arrives from its lane, is decoded, checked and
//     given its identity. What breaks a rule ends `invalid` here.
//  4. lanes.go: it joins the queue of its chat. One command of a chat is under
//     way at a time; many chats are. What a chat that waits has too much of is
//     parked on disk by park.go.
//  5. gates.go: at the head of its chat it passes the gates, cheap ones first:
//     lane open, pace, window, breaker.
//  6. path.go: claim, expiry, call, classify, final record, event, ack. Each
//     step starts when the one before is durable.
//  7. recover.go: where a claim is refused, because the command was under way
//     before a crash or its id was used before, the ledger decides.
//  8. evidence.go, echo.go: a call whose fate is unknown waits for what proves it.
//     proof.go leads what comes after the end to its command; redriven.go looks
//     for proof before a dead one is called again.
//  9. dead.go, redrive.go: a command that ended dead lies in the dead letters
//     until an operator drops it, or has it go on in its next generation.
//
// A sync command's path has the same stations, and others between. syncorder.go
// keeps the order of the commands about one entity, where a message has its chat's.
// gather.go has upserts wait a moment for others and makes a batch of them;
// coalesce.go leaves out the items that newer ones replace. batch.go claims each
// command, makes the batch's requests and records each command's end, so that a
// crash leaves each as though it were alone. bisect.go makes the requests, and cuts a
// refused one in two until the bad items stand alone; syncwork.go is what a command
// remembers of its items.
//
// Requests are answered beside it: api.go lists them and where each is, apivendor.go
// gives those that need the vendor their turn.
//
// Beside that path, too: cancel.go settles commands by a person's word, gatestate.go
// keeps closures and pauses through every change of owners and lanesapi.go tells
// of them, timeline.go tells a command's story, statuses.go leads deliveries to
// their commands, reload.go takes in other accounts, rates and keys while
// the worker runs, retire.go forgets lanes that have nothing to do and asleep.go
// takes their consumers from those that are closed, storage.go tells of streams that
// fill up, and gauges.go of what the owners hold. guard.go sees to it that the
// webhook's address stays ingest's, silence.go tells when no status comes, and
// counter.go follows the unanswered counters of users.
//
// The owner's state is plain memory under one mutex; what must outlive it is in
// the ledger. PubAcks drive it by callback: no goroutine waits for one.
package sender
