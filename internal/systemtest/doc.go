// Package systemtest holds the tests that kill, freeze and restart whole
// processes: the worker's own binary and a nats-server, under load. They carry
// the build tag `system` and are run by `make test-system`.
package systemtest
