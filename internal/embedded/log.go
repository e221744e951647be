package embedded

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/rs/zerolog"
)

// logSink gives the server's log to zerolog. Debug and trace are never switched
// on in the server: they carry subjects and payloads. Its notices (a score of
// lines at every start) are debug lines here.
type logSink struct {
	log zerolog.Logger

	mu    sync.Mutex
	first error // the first fatal fault, guarded by mu
}

func (l *logSink) Noticef(format string, args ...any) { l.write(l.log.Debug(), format, args) }
func (l *logSink) Warnf(format string, args ...any)   { l.write(l.log.Warn(), format, args) }
func (l *logSink) Errorf(format string, args ...any)  { l.write(l.log.Error(), format, args) }
func (l *logSink) Debugf(string, ...any)              {}
func (l *logSink) Tracef(string, ...any)              {}

// Fatalf keeps the fault for the caller of Start. The server does not end
// itself: what must be done is up to whoever embeds it.
func (l *logSink) Fatalf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = errors.New(redact(fmt.Sprintf(format, args...)))
	}
}

func (l *logSink) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func (l *logSink) write(event *zerolog.Event, format string, args []any) {
	if event.Enabled() {
		event = event.Str("text", redact(fmt.Sprintf(format, args...)))
	}
	event.Msg("embedded NATS server reports")
}

const hidden = "…"

// redact removes what may be personal from a line of the server. Some of its
// warnings quote a subject ("Internal subscription on %q took too long"), which
// may end in a chat id, and some a piece of a message (`proto='…'`, "Malformed
// JetStream API Request"). What is left are plain words, and quoted names of
// streams, consumers and accounts.
func redact(text string) string {
	text, _, cut := strings.Cut(text, "proto=")
	if cut {
		text += "proto=" + hidden
	}
	text = doubleQuoted.ReplaceAllStringFunc(text, func(match string) string {
		return `"` + redactName(match[1:len(match)-1]) + `"`
	})
	text = singleQuoted.ReplaceAllStringFunc(text, func(match string) string {
		open := strings.IndexByte(match, '\'')
		return match[:open] + "'" + redactName(match[open+1:len(match)-1]) + "'"
	})
	text = subject.ReplaceAllString(text, hidden)
	return phone.ReplaceAllString(text, hidden)
}

func redactName(text string) string {
	if name.MatchString(text) || listening.MatchString(text) {
		return text
	}
	return hidden
}

var (
	doubleQuoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	singleQuoted = regexp.MustCompile(`(?:^|[\s=(\[,:])'[^']*'`) // not the apostrophe of "can't"
	name         = regexp.MustCompile(`^[A-Za-z0-9_$-]+(?: > [A-Za-z0-9_$-]+)*$`)
	listening    = regexp.MustCompile(`^listen tcp[46]? [0-9a-f.:\[\]]+: [a-z: ]+$`) // why an address cannot be listened on
	subject      = regexp.MustCompile(`[^\s"']*(?:wazzup\.|\$JS\.|\$KV\.|_INBOX\.)\S*`)
	phone        = regexp.MustCompile(`\d{9,}`)
)
