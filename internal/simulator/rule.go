package simulator

import (
	"bytes"
	"net/http"
	"strings"
	"time"
)

// Fault is how a scripted request fails on the wire.
type Fault string

// The faults. All but FaultRefuse end the connection of the request that they
// meet without an answer.
const (
	// FaultRefuse closes the listener at once, for the rule's For: idle
	// connections are closed, new ones are refused by the kernel, requests
	// under way are answered. It has no match, since a refused request is
	// never read, and needs a simulator that was started with Start.
	FaultRefuse Fault = "refuse"
	// FaultDropBeforeRead closes the connection as though the request had
	// never been read: nothing is carried out. (The simulator itself did read
	// it, to match and to record it.)
	FaultDropBeforeRead Fault = "drop-before-read"
	// FaultDropAfterAccept carries the request out, echo and statuses
	// included, and closes the connection instead of answering.
	FaultDropAfterAccept Fault = "drop-after-accept"
	// FaultHang never answers: the connection stays open until the client
	// gives up, the rule's For is over or the simulator is closed.
	FaultHang Fault = "hang"
)

const defaultRefusal = time.Second

// Rule scripts what happens to the requests that it matches, instead of or
// besides what the API would do. Of several rules that match a request the
// first one added acts; rules come after the key and the rate limit, and before
// all validation. A rule without status, code, body and fault lets the request
// through and changes only delay, headers, echo and statuses.
type Rule struct {
	Match Match `json:"match,omitzero"`
	After int   `json:"after,omitzero"` // the first matches that are let pass
	Times int   `json:"times,omitzero"` // matches that it acts on after that; 0 = for ever

	Status      int               `json:"status,omitzero"`      // 200 to 599; 0 with Code = 400, otherwise as the API would answer
	Code        string            `json:"code,omitzero"`        // in the error shape of the method
	Description string            `json:"description,omitzero"` // beside Code; "" = the manual's
	Body        string            `json:"body,omitzero"`        // sent as it is, in place of Code
	Headers     map[string]string `json:"headers,omitzero"`     // added to the answer
	Delay       Duration          `json:"delay,omitzero"`       // before the answer (or the drop); the request is carried out at once
	Fault       Fault             `json:"fault,omitzero"`
	For         Duration          `json:"for,omitzero"` // of refuse (0 = 1s) and hang (0 = until the client gives up)

	// Accept says whether the request is carried out although its answer is
	// scripted. nil = only where the scripted answer is a 2xx without a Code,
	// where nothing of the answer is scripted, or with FaultDropAfterAccept.
	Accept *bool `json:"accept,omitzero"`

	Statuses *[]int `json:"statuses,omitzero"` // of the messages it lets through; nil = the configured ones, [] = none
	Echo     *bool  `json:"echo,omitzero"`     // of the messages it lets through; nil = as configured
}

// Match selects requests of the vendor's API. Empty fields match anything; a
// field about a message matches only send_message.
type Match struct {
	Method          string `json:"method,omitzero"`
	Path            string `json:"path,omitzero"`         // whole, e.g. /v2/send_message, or a prefix followed by *
	BodyContains    string `json:"bodyContains,omitzero"` // part of the body, as it was sent
	ChannelID       string `json:"channelId,omitzero"`
	ChatID          string `json:"chatId,omitzero"`
	ChatType        string `json:"chatType,omitzero"`
	Text            string `json:"text,omitzero"`
	TextContains    string `json:"textContains,omitzero"`
	ContentContains string `json:"contentContains,omitzero"`
}

// RuleState is a rule with what it has met so far.
type RuleState struct {
	Rule
	Seen  int `json:"seen"`  // requests that it matched when no rule before it acted
	Acted int `json:"acted"` // of these, those that it acted on
}

func (r *Rule) check() error {
	fault := func(field, description string) error {
		return &FieldError{Field: field, Description: description}
	}
	switch {
	case r.After < 0:
		return fault("after", "must not be negative")
	case r.Times < 0:
		return fault("times", "must not be negative")
	case r.Delay < 0:
		return fault("delay", "must not be negative")
	case r.For < 0:
		return fault("for", "must not be negative")
	case r.Status != 0 && (r.Status < 200 || r.Status > 599):
		return fault("status", "must be 200 to 599")
	case r.Description != "" && r.Code == "":
		return fault("description", "needs a code")
	case r.Code != "" && r.Body != "":
		return fault("body", "excludes code")
	}
	for name, value := range r.Headers {
		if !isHeaderName(name) || strings.ContainsAny(value, "\r\n\x00") {
			return fault("headers", "must be valid HTTP header names and values")
		}
	}
	switch r.Fault {
	case "":
		if r.For != 0 {
			return fault("for", "belongs to the faults refuse and hang")
		}
		return nil
	case FaultRefuse:
		if r.Match != (Match{}) || r.After != 0 || r.Times != 0 {
			return fault("match", "a refusal acts at once and on every connection: it takes no match, after or times")
		}
	case FaultDropBeforeRead:
		if r.Accept != nil && *r.Accept {
			return fault("accept", "what is dropped before it is read cannot be accepted")
		}
	case FaultDropAfterAccept:
		if r.Accept != nil && !*r.Accept {
			return fault("accept", "drop-after-accept accepts; drop-before-read does not")
		}
	case FaultHang:
	default:
		return fault("fault", "must be refuse, drop-before-read, drop-after-accept or hang")
	}
	if r.For != 0 && r.Fault != FaultHang && r.Fault != FaultRefuse {
		return fault("for", "belongs to the faults refuse and hang")
	}
	if r.answers() {
		return fault("fault", "excludes status, code and body: there is no answer")
	}
	return nil
}

// answers reports whether the rule scripts the answer itself.
func (r *Rule) answers() bool { return r.Status != 0 || r.Code != "" || r.Body != "" }

// accepts reports whether a request that the rule acts on is carried out.
func (r *Rule) accepts() bool {
	switch {
	case r == nil:
		return true
	case r.Accept != nil:
		return *r.Accept
	case r.Fault != "":
		return r.Fault == FaultDropAfterAccept
	}
	return r.Code == "" && (r.Status == 0 || r.Status/100 == 2)
}

// answer is the scripted answer; real is what the API answered, if it was asked.
func (r *Rule) answer(c *call, real answer) answer {
	if r == nil || !r.answers() {
		return real
	}
	status := r.Status
	if status == 0 {
		status = http.StatusOK
		if r.Code != "" {
			status = http.StatusBadRequest
		}
	}
	switch {
	case r.Code != "":
		description := r.Description
		if description == "" {
			description = describe(r.Code)
		}
		return fail(c.resource, status, r.Code, description)
	case r.Body != "":
		return answer{status: status, body: []byte(r.Body)}
	case status/100 == 2:
		return answer{status: status, body: real.body}
	}
	return answer{status: status}
}

func (m *Match) matches(c *call) bool {
	if m.Method != "" && !strings.EqualFold(m.Method, c.method) {
		return false
	}
	if prefix, ok := strings.CutSuffix(m.Path, "*"); ok {
		if !strings.HasPrefix(c.path, prefix) {
			return false
		}
	} else if m.Path != "" && m.Path != c.path {
		return false
	}
	if !bytes.Contains(c.body, []byte(m.BodyContains)) {
		return false
	}
	if m.aboutMessage() {
		return c.send != nil && m.matchesMessage(c.send)
	}
	return true
}

func (m *Match) aboutMessage() bool {
	return m.ChannelID != "" || m.ChatID != "" || m.ChatType != "" ||
		m.Text != "" || m.TextContains != "" || m.ContentContains != ""
}

func (m *Match) matchesMessage(b *sendBody) bool {
	same := func(want, got string) bool { return want == "" || want == got }
	return same(m.ChannelID, b.ChannelID.text) && same(m.ChatID, b.ChatID.text) &&
		same(m.ChatType, b.ChatType.text) && same(m.Text, b.Text.text) &&
		strings.Contains(b.Text.text, m.TextContains) &&
		strings.Contains(b.Content.text, m.ContentContains)
}

// pick returns the rule that acts on the call, or nil. Callers hold Server.mu.
func pick(rules []*RuleState, c *call) *Rule {
	for _, r := range rules {
		if (r.Times > 0 && r.Acted >= r.Times) || !r.Match.matches(c) {
			continue
		}
		r.Seen++
		if r.Seen <= r.After {
			continue
		}
		r.Acted++
		return &r.Rule
	}
	return nil
}
