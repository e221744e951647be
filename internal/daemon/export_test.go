package daemon

import (
	"io"
	"net/http"
	"os"
	"time"
)

// RunMain is Main without a process.
func RunMain(run Run, args []string, stderr io.Writer, signals <-chan os.Signal, exit func(int)) int {
	return (&program{
		run: run, args: args, getenv: func(string) string { return "" },
		stdout: io.Discard, stderr: stderr, signals: signals, exit: exit,
	}).main()
}

// SafeNATSError is what a NATS error looks like in the log.
func SafeNATSError(err error) error { return safeNATSError(err) }

// ReconnectDelay is the pause after a round of attempts to connect.
func ReconnectDelay(round int) time.Duration { return reconnectDelay(round) }

// AdminServer is the HTTP server behind it.
func AdminServer(a *Admin) *http.Server { return a.server }
