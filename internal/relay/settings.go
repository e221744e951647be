package relay

import (
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
)

// UsageError is a configuration or a command line that cannot work. It makes
// [daemon.Main] end with exit code 2.
type UsageError struct{ Err error }

// Error lists what is wrong, one fault a line.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *UsageError) Unwrap() error { return e.Err }

// ExitCode is 2.
func (e *UsageError) ExitCode() int { return daemon.ExitUsage }

// Settings is a program's configuration: a table, and rules over it.
type Settings interface {
	// Table is the program's settings, for help and documentation.
	Table() *config.Set
	// check names what is wrong with settings that could each be read.
	check() []finding
	// prepare takes the settings that were found right to their final form.
	prepare()
	// readFrom notes where the settings came from.
	readFrom(source)
}

// source is where settings came from, to read them again.
type source struct {
	args   []string
	getenv func(string) string
}

func (s *source) readFrom(from source) { *s = from }

// finding is a fault that a rule found, with the settings that the rule looked
// at: if one of those could not even be read, the rule's word is worth nothing.
type finding struct {
	names []string
	err   error
}

// Parse reads and checks a program's settings. Help is written to stdout and
// told by [config.ErrHelp]; any other error is a [UsageError] with every fault,
// of reading and of the rules, at once.
func Parse(s Settings, args []string, getenv func(string) string, stdout io.Writer) error {
	err := s.Table().Parse(args, getenv)
	if errors.Is(err, config.ErrHelp) {
		s.Table().Help(stdout)
		return err
	}
	all := &config.Error{}
	if unread, ok := errors.AsType[*config.Error](err); ok {
		all.Program = unread.Program
		all.Faults = unread.Faults
	} else if err != nil {
		return &UsageError{err}
	}
	unread := slices.Clone(all.Faults)
	for _, f := range s.check() {
		if !concerns(unread, f.names) {
			all.Faults = append(all.Faults, faultsOf(f.err)...)
		}
	}
	if len(all.Faults) > 0 {
		return &UsageError{all}
	}
	s.prepare()
	s.readFrom(source{args, getenv})
	return nil
}

// concerns reports whether one of the faults is about one of the settings.
func concerns(faults []config.Fault, names []string) bool {
	for _, f := range faults {
		for _, word := range strings.FieldsFunc(f.Where, func(r rune) bool { return strings.ContainsRune(" ()", r) }) {
			if slices.ContainsFunc(names, func(name string) bool { return setting(name) == setting(word) }) {
				return true
			}
		}
	}
	return false
}

// setting is what a variable, its _FILE and their flags have in common.
func setting(word string) string {
	name := strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(word, "--"), "-", "_"))
	return strings.TrimSuffix(name, "_FILE")
}

func faultsOf(err error) []config.Fault {
	if all, ok := errors.AsType[*config.Error](err); ok {
		return all.Faults
	}
	if one, ok := errors.AsType[*config.Fault](err); ok {
		return []config.Fault{*one}
	}
	return []config.Fault{{Text: err.Error()}}
}

// rules gathers findings about one table.
type rules struct {
	table *config.Set
	found []finding
}

// require notes a fault of a setting unless ok. More names are settings that
// the rule looked at as well.
func (r *rules) require(ok bool, name, text string, more ...string) {
	if !ok {
		r.found = append(r.found, finding{append(more, name), r.table.Fault(name, text)})
	}
}

// positive refuses zero, where it would not mean what it seems to.
func (r *rules) positive(name string, value int64) {
	r.require(value > 0, name, "must be more than 0")
}

// address requires host:port.
func (r *rules) address(name, value string) {
	_, port, err := net.SplitHostPort(value)
	n, numErr := strconv.Atoi(port)
	r.require(err == nil && numErr == nil && n >= 0 && n <= 65535, name,
		"must be host:port, such as 127.0.0.1:8080")
}

// LogSettings are LOG_LEVEL and LOG_FORMAT.
type LogSettings struct{ Level, Format string }

// Declare adds them to a table.
func (l *LogSettings) Declare(s *config.Set) {
	s.Choice(&l.Level, "LOG_LEVEL", "info", "The least serious lines that are logged, to standard error.",
		"trace", "debug", "info", "warn", "error")
	s.Choice(&l.Format, "LOG_FORMAT", "", "Form of the log lines. Unset: console on a terminal, otherwise json.",
		daemon.FormatJSON, daemon.FormatConsole)
}

// Logger makes the program's logger.
func (l *LogSettings) Logger(w io.Writer) (zerolog.Logger, error) {
	return daemon.NewLogger(l.Level, l.Format, w)
}
