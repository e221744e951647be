// Package docs holds the project's pages to its code: what README.md and the
// pages under docs name must exist, what exists must be named, examples must
// work, and links must lead somewhere.
//
// Where a part of a page follows from the code alone, it stands between two
// markers (<!-- name:begin -->, <!-- name:end -->) and is written by `make
// generate`; elsewhere the tests compare. See generated_test.go for the former.
package docs
