package main

// Run is the whole program.
var Run = run //nolint:gochecknoglobals // the test's way in
