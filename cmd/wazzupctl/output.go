package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/mattn/go-isatty"
)

// printer writes for people or, with --json, for programs.
type printer struct {
	out      io.Writer
	progress io.Writer // nil = no terminal: no progress line
	colour   bool

	mu   sync.Mutex
	line bool // a progress line stands on the terminal
}

func newPrinter(stdout, stderr io.Writer, getenv func(string) string) *printer {
	p := &printer{out: stdout, colour: isTerminal(stdout) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"}
	if isTerminal(stderr) {
		p.progress = stderr
	}
	return p
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && (isatty.IsTerminal(file.Fd()) || isatty.IsCygwinTerminal(file.Fd()))
}

// Printf writes a line or a part of one. What cannot be written is lost: there is
// nobody left to tell.
func (p *printer) Printf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	_, _ = fmt.Fprintf(p.out, format, args...)
}

// JSON writes one value on one line.
func (p *printer) JSON(value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("print as JSON: %w", err)
	}
	p.Printf("%s\n", text)
	return nil
}

// Progress shows what is waited for, on a terminal only; the next line that is
// printed replaces it.
func (p *printer) Progress(text string) {
	if p.progress == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	_, _ = fmt.Fprint(p.progress, text+" …")
	p.line = true
}

// Done takes the progress line away.
func (p *printer) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

// clear erases the progress line. The mutex is held.
func (p *printer) clear() {
	if p.line {
		_, _ = fmt.Fprint(p.progress, "\r\x1b[K")
		p.line = false
	}
}

// A tint is a colour by what it says.
type tint string

const (
	good  tint = "\x1b[32m"
	bad   tint = "\x1b[31m"
	warn  tint = "\x1b[33m"
	faint tint = "\x1b[2m"
	bold  tint = "\x1b[1m"
)

func (p *printer) tint(t tint, text string) string {
	if !p.colour || text == "" {
		return text
	}
	return string(t) + text + "\x1b[0m"
}

// pad fills text up to a width before it is coloured, since escapes have none.
func pad(text string, width int) string {
	if n := width - len([]rune(text)); n > 0 {
		return text + strings.Repeat(" ", n)
	}
	return text
}
