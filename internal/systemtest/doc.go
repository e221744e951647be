// Package systemtest holds the tests that kill, freeze and restart whole
// processes under load: the programs' own binaries, a nats-server or a cluster of
// them. They carry the build tag `system` and are run by `make test-system`.
//
// One changes the source instead, and runs the tests that must notice (drift_test.go).
// Those named TestClient run the programs of the folder examples in their own
// languages, with the same treatment, by `make test-clients`.
//
// What they do at random moments is repeated with the seed that they print, in the
// variable WAZZUP_SYSTEM_SEED.
package systemtest
