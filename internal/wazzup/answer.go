package wazzup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Fault names what failed when no proper answer came. The zero value means that
// one came, whatever it says.
type Fault string

// The faults of a call.
const (
	FaultNone      Fault = ""
	FaultDNS       Fault = "dns"        // the vendor's name was not resolved
	FaultDial      Fault = "dial"       // no connection
	FaultTLS       Fault = "tls"        // no trusted, encrypted connection
	FaultTimeout   Fault = "timeout"    // the call's time was up
	FaultReset     Fault = "reset"      // the connection broke before the answer was whole
	FaultBadAnswer Fault = "bad_answer" // an answer that is no HTTP, or a 2xx without what it must hold
	FaultCancelled Fault = "cancelled"  // the caller gave up
	FaultKey       Fault = "key"        // there is no key that could be sent; no call was made
	FaultRequest   Fault = "request"    // the request cannot be put into words (an id that fits no path); no call was made
)

// Faults returns every fault but FaultNone.
func Faults() []Fault {
	return []Fault{
		FaultDNS, FaultDial, FaultTLS, FaultTimeout, FaultReset, FaultBadAnswer,
		FaultCancelled, FaultKey, FaultRequest,
	}
}

const (
	maxDescription = 1 << 10 // bytes
	maxMessageID   = 256     // bytes
	maxRetryAfter  = 24 * time.Hour
	maxFaultDepth  = 4 // errors within errors
)

var (
	errNoAnswer = errors.New("the answer lacks what it must hold")
	errKey      = errors.New("the API key is empty or holds what no header may")
	errPath     = errors.New("an id cannot be put into a path")
)

// Answer tells how one call ended. Whoever reads it needs no second source.
type Answer struct {
	Method string
	// Phase is PhaseAnswered if a whole answer came, even one that makes no
	// sense; PhaseNotSent if surely no byte of the request left; PhaseWritten
	// for all between, an answer that was cut off included.
	Phase schema.Phase
	Fault Fault
	// Status is the HTTP status; 0 if none came. It may be set in PhaseWritten,
	// when the rest of the answer was lost.
	Status int

	// HasError: the body carries an error, with or without a code, whatever the
	// status (the vendor is seen to put errors under 200).
	HasError bool
	// Code is the vendor's code in the manual's spelling (NormalizeCode), or ""
	// where the body holds none or only the HTTP status in words.
	Code    string
	RawCode string // as the vendor wrote it
	// Description is the vendor's sentence, at most 1 KiB. It may quote what
	// the producer sent: for events, never for logs.
	Description string

	RetryAfter    time.Duration // of the Retry-After header, at most 24 h
	HasRetryAfter bool

	MessageID string
	Body      []byte // at most Request.MaxAnswer bytes
	Truncated bool   // there was more

	// Err is set if Fault is: a *CallError, whose text holds nothing of the
	// request or the answer and may be logged.
	Err    error
	Timing Timing
}

// OK reports whether the vendor took the call: a 2xx that holds what it must
// and no error.
func (a *Answer) OK() bool {
	return a.Phase == schema.PhaseAnswered && a.Fault == FaultNone && isSuccess(a.Status) && !a.HasError
}

func isSuccess(status int) bool { return status >= 200 && status <= 299 }

// CallError is a call that got no proper answer.
type CallError struct {
	Fault Fault
	Phase schema.Phase

	detail string
	cause  error
}

// Error holds no text, id, key or phone number: only network addresses, names
// of hosts and what the operating system says.
func (e *CallError) Error() string {
	text := "wazzup: " + string(e.Fault) + " (" + string(e.Phase) + ")"
	if e.detail != "" {
		text += ": " + e.detail
	}
	return text
}

// Detail is the part of Error after what went wrong and how far it got; "" = none.
func (e *CallError) Detail() string { return e.detail }

// Unwrap returns the cause, for errors.Is and errors.AsType only: its text may
// quote the vendor's answer.
func (e *CallError) Unwrap() error { return e.cause }

func newCallError(fault Fault, phase schema.Phase, cause error) *CallError {
	return &CallError{Fault: fault, Phase: phase, detail: safeDetail(phase, cause), cause: cause}
}

// safeDetail returns the cause's text where it is known to quote neither request
// nor answer. Before anything was written it cannot quote them: it is about
// names, addresses and certificates.
func safeDetail(phase schema.Phase, cause error) string {
	if phase == schema.PhaseNotSent {
		return cause.Error()
	}
	if op, ok := errors.AsType[*net.OpError](cause); ok {
		return op.Error()
	}
	for _, known := range []error{errNoAnswer, io.ErrUnexpectedEOF, io.EOF} {
		if errors.Is(cause, known) {
			return known.Error()
		}
	}
	return ""
}

func notSent(method string, fault Fault, cause error) Answer {
	a := Answer{Method: method}
	a.fail(schema.PhaseNotSent, fault, cause)
	return a
}

// fail records that no proper answer came. An answer that came whole but lacks
// what it must hold stays answered.
func (a *Answer) fail(phase schema.Phase, fault Fault, cause error) {
	if a.Phase != schema.PhaseAnswered {
		a.Phase = phase
	}
	a.Fault = fault
	a.Err = newCallError(fault, a.Phase, cause)
}

// read takes the answer in. An error means that there is no proper answer; what
// of it came is kept all the same.
func (a *Answer) read(response *http.Response, want Want, maxAnswer int64) error {
	defer func() { _ = response.Body.Close() }() // nothing depends on how closing went
	a.Status = response.StatusCode
	a.RetryAfter, a.HasRetryAfter = parseRetryAfter(response.Header, time.Now)
	if a.Status < http.StatusOK {
		// 101 hands the connection over: there is no body that would end.
		a.Phase = schema.PhaseAnswered
		return errNoAnswer
	}
	body, more, err := readBounded(response.Body, response.ContentLength, maxAnswer)
	a.Body, a.Truncated = body, more
	if err != nil {
		return err
	}
	if more {
		// Whether the rest can be had or not: enough came to be an answer.
		_, _ = io.CopyN(io.Discard, response.Body, maxDrain)
	}
	a.Phase = schema.PhaseAnswered
	return a.parse(want)
}

// parse reads what the body says.
func (a *Answer) parse(want Want) error {
	if want == WantMessageID && isSuccess(a.Status) {
		if id, ok := plainMessageID(a.Body); ok {
			a.MessageID = id
			return nil
		}
	}
	a.parseFault()
	switch {
	case !isSuccess(a.Status) || a.HasError:
		if a.Status >= 600 {
			return errNoAnswer
		}
		return nil
	case a.Truncated && want != WantAny:
		return errNoAnswer
	case want == WantMessageID && a.MessageID == "",
		want == WantJSON && !json.Valid(a.Body),
		want == WantAny && looksLikeHTML(a.Body):
		return errNoAnswer
	default:
		return nil
	}
}

// plainMessageID reads the usual answer, {"messageId":"…"}, without a parser.
func plainMessageID(body []byte) (string, bool) {
	body = bytes.TrimSpace(body)
	id, ok := bytes.CutPrefix(body, []byte(`{"messageId":"`))
	if !ok {
		return "", false
	}
	id, ok = bytes.CutSuffix(id, []byte(`"}`))
	if !ok || len(id) == 0 || len(id) > maxMessageID {
		return "", false
	}
	for _, c := range id {
		if !isLetter(c) && !isDigit(c) && c != '-' && c != '_' {
			return "", false
		}
	}
	return string(id), true
}

// envelope is the union of the shapes that were seen: {"messageId"},
// {"errors":[{"code","description"}]}, {"error":{"code",…}} and
// {"error":"CODE","description","data"}.
type envelope struct {
	MessageID   json.RawMessage `json:"messageId"`
	Errors      json.RawMessage `json:"errors"`
	Error       json.RawMessage `json:"error"`
	Code        json.RawMessage `json:"code"`
	Description json.RawMessage `json:"description"`
	Message     json.RawMessage `json:"message"`
}

// fault is what an error in a body says.
type fault struct {
	present     bool
	code        string // as written
	description string
}

func (a *Answer) parseFault() {
	body := bytes.TrimSpace(a.Body)
	found := faultOfBody(body, isSuccess(a.Status), a)
	if !found.present {
		return
	}
	a.HasError = true
	a.RawCode = bounded(found.code, maxCode)
	a.Description = bounded(found.description, maxDescription)
	a.Code = NormalizeCode(found.code)
	if repeatsStatus(a.Code, a.Status) {
		a.Code = ""
	}
}

func faultOfBody(body []byte, success bool, a *Answer) fault {
	if len(body) == 0 {
		return fault{}
	}
	switch {
	case body[0] == '{':
		var e envelope
		if json.Unmarshal(body, &e) == nil {
			a.MessageID = messageID(e.MessageID)
			return faultOfEnvelope(&e, success)
		}
	case success: // a list, or a plain word
		return fault{}
	case body[0] == '[' || body[0] == '"':
		if json.Valid(body) {
			return faultOf(body, maxFaultDepth)
		}
	}
	if success || looksLikeHTML(body) || !utf8.Valid(body) {
		return fault{}
	}
	return faultOfText(string(body)) // a word or a sentence
}

// faultOfEnvelope: under a 2xx only `error` and `errors` speak of a failure,
// since any entity may have a description.
func faultOfEnvelope(e *envelope, success bool) fault {
	found := faultOf(e.Errors, maxFaultDepth)
	if !found.present {
		found = faultOf(e.Error, maxFaultDepth)
	}
	if success && !found.present {
		return fault{}
	}
	if found.code == "" {
		found.code = codeText(e.Code)
	}
	// What stands beside {"error":"Bad Request"} says more; what stands beside
	// an error object says less.
	inWords := bytes.HasPrefix(e.Error, []byte{'"'})
	for _, more := range []json.RawMessage{e.Message, e.Description} {
		if text := sentence(more); text != "" && (found.description == "" || inWords) {
			found.description = text
		}
	}
	found.present = found.present || found.code != "" || found.description != ""
	return found
}

// faultOf reads an error in any shape: a code, a sentence, an object, or an
// array of which the first that says something counts (all stay in Body).
func faultOf(raw json.RawMessage, depth int) fault {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || depth == 0 {
		return fault{}
	}
	switch raw[0] {
	case '"':
		var text string
		if json.Unmarshal(raw, &text) != nil {
			return fault{}
		}
		return faultOfText(text)
	case '[':
		var items []json.RawMessage
		if json.Unmarshal(raw, &items) != nil {
			return fault{}
		}
		for _, item := range items {
			if found := faultOf(item, depth-1); found.present {
				return found
			}
		}
		return fault{}
	case '{':
		return faultOfObject(raw, depth)
	case 'n', 'f': // null, false
		return fault{}
	case 't':
		return fault{present: true}
	default:
		return fault{present: string(raw) != "0", code: codeText(raw)}
	}
}

func faultOfObject(raw json.RawMessage, depth int) fault {
	var e envelope
	if json.Unmarshal(raw, &e) != nil || string(raw) == "{}" {
		return fault{}
	}
	found := fault{present: true, code: codeText(e.Code), description: sentence(e.Description)}
	if found.description == "" {
		found.description = sentence(e.Message)
	}
	for _, inner := range []json.RawMessage{e.Error, e.Errors} {
		if found.code != "" {
			break
		}
		within := faultOf(inner, depth-1)
		found.code = within.code
		if found.description == "" {
			found.description = within.description
		}
	}
	return found
}

// faultOfText takes one word as a code and anything else as a description.
func faultOfText(text string) fault {
	text = strings.TrimSpace(text)
	if NormalizeCode(text) != "" {
		return fault{present: true, code: text}
	}
	return fault{present: text != "", description: text}
}

// codeText reads a code that is a string or a number.
func codeText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return strings.TrimSpace(text)
	}
	var number json.Number
	if json.Unmarshal(raw, &number) == nil {
		return number.String()
	}
	return ""
}

// sentence reads a description that is a string or an array of strings.
func sentence(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return strings.TrimSpace(text)
	}
	var texts []string
	if json.Unmarshal(raw, &texts) == nil {
		return strings.TrimSpace(strings.Join(texts, "; "))
	}
	return ""
}

func messageID(raw json.RawMessage) string {
	id := codeText(raw)
	if len(id) > maxMessageID {
		return ""
	}
	return id
}

func looksLikeHTML(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(body), []byte("<"))
}

// bounded cuts a text to at most limit bytes, between characters, and makes it
// valid UTF-8.
func bounded(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// parseRetryAfter reads seconds or an HTTP date (RFC 9110, 10.2.3), and a fraction of
// seconds, as some servers send it: it is a hint, too. A date is
// compared with the answer's own Date where there is one, so that no clock needs
// to agree with ours.
func parseRetryAfter(header http.Header, now func() time.Time) (time.Duration, bool) {
	value := strings.TrimSpace(header.Get("Retry-After"))
	if value == "" {
		return 0, false
	}
	if isDigits(value) {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter, true // digits without end
		}
		return time.Duration(seconds) * time.Second, true
	}
	if whole, part, fraction := strings.Cut(value, "."); fraction && whole+part != "" && isDigits(whole+part) {
		seconds, err := strconv.ParseFloat(value, 64)
		if err != nil || seconds > maxRetryAfter.Seconds() {
			return maxRetryAfter, true
		}
		return time.Duration(seconds * float64(time.Second)), true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	from, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		from = now()
	}
	return min(max(at.Sub(from), 0), maxRetryAfter), true
}

func isDigits(text string) bool {
	for i := range len(text) {
		if !isDigit(text[i]) {
			return false
		}
	}
	return true
}

// String tells the story in one line, without anything of request or answer.
func (a *Answer) String() string {
	return fmt.Sprintf("%s: %s, status %d, code %q, fault %q", a.Method, a.Phase, a.Status, a.Code, a.Fault)
}
