// Package queuetest gives tests a real nats-server with JetStream, in the form
// that the test needs:
//
//   - [Server]: inside the test's process. Quick to start, restarts cleanly.
//   - [Process]: a process of its own, to be killed or frozen at any moment.
//   - [Cluster]: several servers with replicated streams, each of which can be
//     stopped and started.
//   - [ProcessCluster]: the same with a process for each node, to be killed at
//     any moment.
//
// Each listens on a free loopback port, stores in the test's temporary folder,
// keeps port and folder over a restart, and is gone when the test ends. A
// function that starts a server returns when JetStream answers.
package queuetest
