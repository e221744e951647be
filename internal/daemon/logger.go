package daemon

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
)

// The values of LOG_FORMAT.
const (
	FormatJSON    = "json"
	FormatConsole = "console"
)

// NewLogger makes the logger of a program. level is LOG_LEVEL (trace, debug,
// info, warn, error; "" = info). format is LOG_FORMAT; "" = console if w is a
// terminal, otherwise json. Times are RFC 3339 with nanoseconds, in UTC. The
// error joins a [ConfigFault] for each value that is none of these.
func NewLogger(level, format string, w io.Writer) (zerolog.Logger, error) {
	lvl, levelErr := parseLevel(level)
	var formatErr error
	switch format {
	case FormatJSON:
	case FormatConsole:
		w = newConsole(w)
	case "":
		if isTerminal(w) {
			w = newConsole(w)
		}
	default:
		formatErr = fault("LOG_FORMAT", "must be json or console")
	}
	if err := errors.Join(levelErr, formatErr); err != nil {
		return zerolog.Nop(), err
	}
	return zerolog.New(w).Level(lvl).Hook(stamp{}), nil
}

func parseLevel(level string) (zerolog.Level, error) {
	switch level {
	case "":
		return zerolog.InfoLevel, nil
	case "trace", "debug", "info", "warn", "error":
		lvl, err := zerolog.ParseLevel(level)
		if err == nil {
			return lvl, nil
		}
	}
	return zerolog.NoLevel, fault("LOG_LEVEL", "must be trace, debug, info, warn or error")
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && (isatty.IsTerminal(file.Fd()) || isatty.IsCygwinTerminal(file.Fd()))
}

func newConsole(w io.Writer) io.Writer {
	return zerolog.ConsoleWriter{
		Out:          w,
		NoColor:      !isTerminal(w),
		TimeFormat:   time.RFC3339Nano,
		TimeLocation: time.UTC,
	}
}

// stamp adds the time. zerolog's own timestamp takes its format from a global
// variable, which a library has no business to set.
type stamp struct{}

func (stamp) Run(event *zerolog.Event, _ zerolog.Level, _ string) {
	event.Str(zerolog.TimestampFieldName, time.Now().UTC().Format(time.RFC3339Nano))
}
