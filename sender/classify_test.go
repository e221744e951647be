package sender_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

//nolint:gochecknoglobals // a flag of the test binary
var updateClassification = flag.Bool("update", false, "write the documents that are generated from the classification table")

// answered is a whole answer with a status, and perhaps an error's code.
func answered(status int, code string) wazzup.Answer {
	return wazzup.Answer{
		Method: http.MethodPost, Phase: schema.PhaseAnswered,
		Status: status, Code: code, HasError: code != "",
	}
}

// failed is a call without a whole answer.
func failed(fault wazzup.Fault, phase schema.Phase) wazzup.Answer {
	return wazzup.Answer{Method: http.MethodPost, Phase: phase, Fault: fault}
}

// expect is what a case of a table says of one verdict.
type expect struct {
	class   schema.Class
	action  sender.Action
	free    bool // spends no attempt
	breaker sender.BreakerEffect
	reopens string
	probe   bool
	spam    bool
	ops     bool
	limit   int
}

func checkVerdict(t *testing.T, family sender.Family, a wazzup.Answer, want expect) {
	t.Helper()
	v := sender.Classify(family, a)
	got := expect{
		class: v.Class, action: v.Action, free: !v.SpendsAttempt, breaker: v.Breaker,
		reopens: v.Reopens, probe: v.Probe, spam: v.SpamBrake, ops: v.OpsUnknownCode, limit: v.Limit,
	}
	if got != want {
		t.Errorf("%s %s\ngot  %+v\nwant %+v", family, a.String(), got, want)
	}
}

// What the verdicts are, in short.

func wantReject() expect {
	return expect{class: "terminal", action: "reject", breaker: "healthy"}
}

func wantUnlisted() expect {
	return expect{class: "terminal", action: "reject", breaker: "healthy", ops: true}
}

func wantAccept() expect {
	return expect{action: "accept", breaker: "healthy"}
}

func wantAccount() expect {
	return expect{class: "account", action: "close_account", free: true, breaker: "healthy", reopens: sender.ReopenOnAccount}
}

func wantPause() expect {
	return expect{class: "retryable", action: "pause_account", free: true, breaker: "healthy", reopens: sender.ReopenOnHint}
}

func wantUnknown() expect {
	return expect{class: "unknown", action: "unknown", breaker: "channel"}
}

func wantRetry() expect {
	return expect{class: "retryable", action: "retry", breaker: "family"}
}

func wantFree() expect {
	return expect{class: "retryable", action: "retry", free: true, breaker: "family"}
}

func closesChannel(reopens string) expect {
	return expect{class: "channel", action: "close_channel", free: true, breaker: "healthy", reopens: reopens}
}

func withOps(e expect) expect {
	e.ops = true
	return e
}

// codeExpectations says again, by hand, what each of the 27 codes means to a send
// and to a call that may be repeated.
func codeExpectations() map[string][2]expect {
	spam := wantReject()
	spam.spam = true
	probed := closesChannel(sender.ReopenOnProbe)
	probed.probe = true
	download := expect{class: "retryable", action: "retry_limited", breaker: "healthy", limit: 3}
	canNotAdd := [2]expect{download, download}
	canNotAdd[0].breaker, canNotAdd[1].breaker = "channel", "family"
	codes := map[string][2]expect{
		"MESSAGES_IS_SPAM":               {spam, wantReject()},
		"MESSAGE_DOWNLOAD_CONTENT_ERROR": {download, download},
		"MESSAGES_CAN_NOT_ADD":           canNotAdd,
		"CHANNEL_NOT_FOUND":              {closesChannel(sender.ReopenOnList), wantReject()},
		"CHANNEL_BLOCKED":                {closesChannel(sender.ReopenOnActive), wantReject()},
		"CHANNEL_NO_MONEY":               {closesChannel(sender.ReopenOnPayment), wantReject()},
		"MESSAGE_CHANNEL_UNAVAILABLE":    {probed, wantReject()},
		"ACCOUNT_NOT_FOUND":              {wantAccount(), wantAccount()},
		"UNKNOWN_ERROR":                  {wantUnknown(), wantRetry()},
	}
	for _, code := range []string{
		"MESSAGE_WRONG_CONTENT_TYPE", "MESSAGE_ONLY_TEXT_OR_CONTENT", "MESSAGE_NOTHING_TO_SEND",
		"MESSAGE_TEXT_TOO_LONG", "MESSAGE_CONTENT_CAN_NOT_BE_BLANK", "MESSAGE_CONTENT_SIZE_EXCEEDED",
		"MESSAGE_TEXT_CAN_NOT_BE_BLANK", "CHAT_WRONG_CHAT_TYPE", "CHAT_MISSING_CHAT_TYPE",
		"CHAT_INCORRECT_CHAT_ID_WHATSAPP", "CHAT_MISSING_CHAT_ID", "VALIDATION_ERROR", "CONTACT_NOT_FOUND",
		"CONTACT_DETAIL_NOT_FOUND", "MESSAGES_ABNORMAL_SEND", "MESSAGES_INVALID_CONTACT_TYPE",
		"REFERENCE_MESSAGE_NOT_FOUND", "MESSAGES_NOT_TEXT_FIRST",
	} {
		codes[code] = [2]expect{wantReject(), wantReject()}
	}
	return codes
}

// TestCodesDecideFirst walks every code over every HTTP status and family.
func TestCodesDecideFirst(t *testing.T) {
	t.Parallel()
	expected := codeExpectations()
	if len(expected) != 27 || len(wazzup.Codes()) != 27 {
		t.Fatalf("%d codes are expected and %d are known, the manual has 27", len(expected), len(wazzup.Codes()))
	}
	for _, code := range wazzup.Codes() {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			want, ok := expected[code]
			if !ok {
				t.Fatal("nothing is expected of this code")
			}
			for status := 100; status <= 599; status++ {
				for _, family := range sender.Families() {
					a := answered(status, code)
					if status < 200 {
						a.Fault = wazzup.FaultBadAnswer
					}
					w := want[1]
					if family == sender.FamilySend {
						w = want[0]
					}
					checkVerdict(t, family, a, w)
				}
			}
		})
	}
}

// TestSpellings: however the vendor spells a code, it means the same.
func TestSpellings(t *testing.T) {
	t.Parallel()
	for _, code := range wazzup.Codes() {
		plural := strings.Replace(code, "MESSAGES_", "MESSAGE_", 1)
		if plural == code {
			plural = strings.Replace(code, "MESSAGE_", "MESSAGES_", 1)
		}
		for _, spelled := range []string{plural, strings.ToLower(code), strings.ReplaceAll(code, "_", "-")} {
			want := sender.Classify(sender.FamilySend, answered(400, code))
			got := sender.Classify(sender.FamilySend, answered(400, wazzup.NormalizeCode(spelled)))
			if got != want {
				t.Errorf("%s: got %+v, want %+v as of %s", spelled, got, want, code)
			}
		}
	}
}

// statusExpectation says by hand what an answer without a known code means.
func statusExpectation(family sender.Family, status int, code string) expect {
	send := family == sender.FamilySend
	unlisted := code != ""
	pick := func(ofSend, ofOther expect) expect {
		if send {
			return ofSend
		}
		return ofOther
	}
	named := func(e expect) expect {
		if unlisted {
			return withOps(e)
		}
		return e
	}
	switch {
	case status < 200:
		return named(pick(wantUnknown(), wantRetry()))
	case status < 300 && !send && !unlisted:
		return wantAccept()
	case status < 300, status == 408, status >= 500:
		return named(pick(wantUnknown(), wantRetry()))
	case status < 400:
		return named(pick(wantAccount(), wantRetry()))
	case status == 401:
		return wantAccount()
	case status == 429:
		return wantPause()
	case status == 413, status == 415:
		return named(wantReject())
	case status == 403, status == 404, status == 405:
		if send && unlisted {
			return wantUnlisted()
		}
		return pick(wantAccount(), wantReject())
	default:
		return wantUnlisted()
	}
}

// TestStatuses walks every HTTP status over every family, without a code and with
// one that the manual does not list.
func TestStatuses(t *testing.T) {
	t.Parallel()
	for _, family := range sender.Families() {
		for _, code := range []string{"", "SOMETHING_NEW"} {
			t.Run(string(family)+" "+code, func(t *testing.T) {
				t.Parallel()
				for status := 100; status <= 599; status++ {
					checkVerdict(t, family, answered(status, code), statusExpectation(family, status, code))
				}
			})
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	sent := answered(201, "")
	sent.MessageID = "m1"
	sentAndRefused := answered(200, "VALIDATION_ERROR")
	sentAndRefused.MessageID = "m1"
	refusedWithID := answered(400, "VALIDATION_ERROR")
	refusedWithID.MessageID = "m1"
	badSend := answered(201, "")
	badSend.Fault = wazzup.FaultBadAnswer
	deleted := func(status int, code string) wazzup.Answer {
		a := answered(status, code)
		a.Method = http.MethodDelete
		return a
	}
	cut := failed(wazzup.FaultReset, schema.PhaseWritten)
	cut.Status = 429
	cutDelete := failed(wazzup.FaultReset, schema.PhaseWritten)
	cutDelete.Method, cutDelete.Status = http.MethodDelete, 404

	const send, sync, query = sender.FamilySend, sender.FamilySync, sender.FamilyQuery
	quiet := func(e expect) expect {
		e.breaker = ""
		return e
	}
	retryQuiet := quiet(wantFree())
	tests := []struct {
		name   string
		family sender.Family
		answer wazzup.Answer
		want   expect
	}{
		{"sent", send, sent, wantAccept()},
		{"synced", sync, answered(200, ""), wantAccept()},
		{"asked", query, answered(204, ""), wantAccept()},
		{"200 with an id and an error", send, sentAndRefused, wantUnknown()},
		{"400 with an id and an error", send, refusedWithID, wantReject()},
		{"201 without an id", send, badSend, wantUnknown()},
		{"201 without an id, unmarked", send, answered(201, ""), wantUnknown()},
		{"bad list", query, badSend, wantRetry()},
		{"delete of what is not there", sync, deleted(404, ""), wantAccept()},
		{"delete of what is not there, in a word", sync, deleted(404, "CONTACT_NOT_FOUND"), wantAccept()},
		{"delete without an account", sync, deleted(404, "ACCOUNT_NOT_FOUND"), wantAccount()},
		{"delete, cut off", sync, cutDelete, wantRetry()},
		{"429, cut off", send, cut, wantUnknown()},
		{"600", send, answered(600, ""), wantUnknown()},
		{"600 of a sync", sync, answered(600, ""), wantRetry()},
		{"status 0", send, answered(0, ""), wantUnknown()},
		{"nothing at all", send, wazzup.Answer{}, wantUnknown()},
		{"a worker died", send, failed("", schema.PhaseClaimed), wantUnknown()},
		{"cancelled before", send, failed(wazzup.FaultCancelled, schema.PhaseNotSent), retryQuiet},
		{"cancelled during a send", send, failed(wazzup.FaultCancelled, schema.PhaseWritten), quiet(wantUnknown())},
		{"cancelled during a sync", sync, failed(wazzup.FaultCancelled, schema.PhaseWritten), retryQuiet},
		{"no key", send, failed(wazzup.FaultKey, schema.PhaseNotSent), quiet(wantAccount())},
		{"no key for a question", query, failed(wazzup.FaultKey, schema.PhaseNotSent), quiet(wantAccount())},
		{"bad id", sync, failed(wazzup.FaultRequest, schema.PhaseNotSent), expect{class: "terminal", action: "reject", free: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			checkVerdict(t, tt.family, tt.answer, tt.want)
		})
	}
}

func TestTransportFaults(t *testing.T) {
	t.Parallel()
	for _, fault := range []wazzup.Fault{wazzup.FaultDNS, wazzup.FaultDial, wazzup.FaultTLS, wazzup.FaultTimeout, wazzup.FaultReset, wazzup.FaultBadAnswer} {
		for _, family := range sender.Families() {
			t.Run(string(fault)+" "+string(family), func(t *testing.T) {
				t.Parallel()
				checkVerdict(t, family, failed(fault, schema.PhaseNotSent), wantFree())
				want := wantRetry()
				if family == sender.FamilySend {
					want = wantUnknown()
				}
				checkVerdict(t, family, failed(fault, schema.PhaseWritten), want)
			})
		}
	}
}

// TestInvariants holds what must be true of every verdict, over all answers that
// can be put together.
func TestInvariants(t *testing.T) {
	t.Parallel()
	faults := append(wazzup.Faults(), wazzup.FaultNone)
	codes := append(wazzup.Codes(), "", "SOMETHING_NEW")
	statuses := []int{0, 99, 100, 101, 200, 201, 204, 299, 300, 301, 399, 400, 401, 402, 403, 404, 405, 408, 409, 413, 415, 422, 429, 499, 500, 503, 599, 600, 999, 1000}
	phases := append(schema.Phases(), "")
	for _, family := range sender.Families() {
		t.Run(string(family), func(t *testing.T) {
			t.Parallel()
			for _, phase := range phases {
				for _, fault := range faults {
					for _, status := range statuses {
						for _, code := range codes {
							a := answered(status, code)
							a.Phase, a.Fault = phase, fault
							checkInvariants(t, family, a)
						}
					}
				}
			}
		})
	}
}

func checkInvariants(t *testing.T, family sender.Family, a wazzup.Answer) {
	t.Helper()
	v := sender.Classify(family, a)
	mayRepeat := v.Action != sender.ActionAccept && v.Action != sender.ActionReject && v.Action != sender.ActionUnknown
	var broken string
	switch {
	case family == sender.FamilySend && mayRepeat && a.Phase != schema.PhaseAnswered && a.Phase != schema.PhaseNotSent:
		broken = "a send that may have been written and was not answered is repeated"
	case family == sender.FamilySend && mayRepeat && a.Phase == schema.PhaseAnswered && a.Code == "" && (a.Status < 300 || a.Status >= 500 || a.Status == 408):
		broken = "a send of unknown fate is repeated"
	case a.Phase == schema.PhaseNotSent && v.SpendsAttempt:
		broken = "a call that was not made counts"
	case a.Phase == schema.PhaseNotSent && v.Action == sender.ActionUnknown:
		broken = "a call that was not made is unknown"
	case family != sender.FamilySend && (v.Action == sender.ActionUnknown || v.Action == sender.ActionCloseChannel || v.SpamBrake || v.Breaker == sender.BreakerChannel):
		broken = "a verdict that only a send can have"
	case v.Action == sender.ActionAccept && (v.Class != "" || !successful(family, a)):
		broken = "accepted without cause"
	case v.Action != sender.ActionAccept && !slices.Contains(schema.Classes(), v.Class):
		broken = "no class"
	case !slices.Contains(sender.Actions(), v.Action):
		broken = "no action"
	case (v.Action == sender.ActionCloseChannel || v.Action == sender.ActionCloseAccount || v.Action == sender.ActionPauseAccount) != (v.Reopens != ""):
		broken = "what closes must say what opens, and nothing else may"
	case (v.Action == sender.ActionRetryLimited) != (v.Limit > 0):
		broken = "a limit without limited retries, or the reverse"
	case v.Reopens != "" && v.SpendsAttempt:
		broken = "a command that waits in its lane has spent an attempt"
	}
	if broken == "" {
		broken = brokenError(a, v)
	}
	if broken != "" {
		t.Fatalf("%s: %s %s → %+v", broken, family, a.String(), v)
	}
}

func successful(family sender.Family, a wazzup.Answer) bool {
	return a.OK() && family != sender.FamilySend
}

// brokenError holds what must be true of every event's error.
func brokenError(a wazzup.Answer, v sender.Verdict) string {
	e := sender.NewError(a, v)
	switch {
	case (e == nil) != (v.Action == sender.ActionAccept):
		return "an error with an acceptance, or none without"
	case e == nil:
		return ""
	case e.Code == "" || e.Class != v.Class || e.Phase != a.Phase || e.HTTPStatus != a.Status:
		return "the error does not tell the answer"
	default:
		return ""
	}
}

func TestErrorCode(t *testing.T) {
	t.Parallel()
	noID := answered(201, "")
	noID.Fault = wazzup.FaultBadAnswer
	prose := answered(200, "")
	prose.HasError = true
	tests := []struct {
		name   string
		answer wazzup.Answer
		want   string
	}{
		{"vendor's word", answered(400, "CHANNEL_NO_MONEY"), "CHANNEL_NO_MONEY"},
		{"vendor's new word", answered(400, "SOMETHING_NEW"), "SOMETHING_NEW"},
		{"word under 200", answered(200, "CHANNEL_BLOCKED"), "CHANNEL_BLOCKED"},
		{"status only", answered(502, ""), "HTTP_502"},
		{"redirect", answered(301, ""), "HTTP_301"},
		{"no id", noID, "BAD_ANSWER"},
		{"prose under 200", prose, "BAD_ANSWER"},
		{"no HTTP status", answered(700, ""), "BAD_ANSWER"},
		{"timeout", failed(wazzup.FaultTimeout, schema.PhaseWritten), "TIMEOUT"},
		{"bad answer", failed(wazzup.FaultBadAnswer, schema.PhaseWritten), "BAD_ANSWER"},
		{"dns", failed(wazzup.FaultDNS, schema.PhaseNotSent), "CONNECTION"},
		{"dial", failed(wazzup.FaultDial, schema.PhaseNotSent), "CONNECTION"},
		{"tls", failed(wazzup.FaultTLS, schema.PhaseNotSent), "CONNECTION"},
		{"reset", failed(wazzup.FaultReset, schema.PhaseWritten), "CONNECTION"},
		{"cancelled", failed(wazzup.FaultCancelled, schema.PhaseWritten), "CONNECTION"},
		{"key", failed(wazzup.FaultKey, schema.PhaseNotSent), "KEY_UNUSABLE"},
		{"id", failed(wazzup.FaultRequest, schema.PhaseNotSent), "ID_UNUSABLE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.answer.Description = "d"
			e := sender.NewError(tt.answer, sender.Classify(sender.FamilySend, tt.answer))
			if e == nil || e.Code != tt.want || e.Description != "d" {
				t.Errorf("got %+v, want code %s", e, tt.want)
			}
		})
	}
}

func TestLateStatuses(t *testing.T) {
	t.Parallel()
	failing := map[int]bool{13: true, 14: true, 15: true, 17: true, 18: true, 19: true, 21: true, 66: true}
	words := map[int]string{0: "processing", 1: "sent", 2: "delivered", 3: "read", 99: ""}
	states := map[int]schema.State{2: schema.StateDelivered, 3: schema.StateRead}
	for status := -1; status <= 120; status++ {
		got, ok := sender.ClassifyStatus(status)
		word, listed := words[status]
		state := states[status]
		if failing[status] {
			word, state, listed = "failed", schema.StateFailed, true
		}
		if ok != listed || got.Word != word || got.State != state {
			t.Errorf("%d: got %+v, %v, want word %q, state %q, %v", status, got, ok, word, state, listed)
		}
		if got.SpamBrake != (status == 18) || got.FloodPause != (status == 19) {
			t.Errorf("%d: spam brake %v, flood pause %v", status, got.SpamBrake, got.FloodPause)
		}
		e := sender.NewLateError(got)
		if failing[status] != (e != nil) {
			t.Errorf("%d: error %v", status, e)
		}
		if e != nil && (e.Code != fmt.Sprintf("STATUS_%d", status) || e.Class != schema.ClassTerminal) {
			t.Errorf("%d: error %+v", status, e)
		}
	}
}

// TestClassificationDocuments holds the printed tables to those that decide. Run
// with -update to write them.
func TestClassificationDocuments(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob("../README.md") // its presence is not this test's business
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(documents, "../docs/classification.md") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			document, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(document), sender.ClassificationBegin) && strings.Contains(string(document), "docs/classification.md") {
				return // it points to the page that holds them
			}
			before, rest, found := strings.Cut(string(document), sender.ClassificationBegin)
			got, after, closed := strings.Cut(rest, sender.ClassificationEnd)
			if !found || !closed {
				t.Fatal("holds neither the tables nor a pointer to docs/classification.md")
			}
			want := "\n" + sender.ClassificationMarkdown()
			if got == want {
				return
			}
			if !*updateClassification {
				t.Fatalf("differs from the tables: run go test ./sender -run TestClassificationDocuments -update")
			}
			text := before + sender.ClassificationBegin + want + sender.ClassificationEnd + after
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestClassificationMarkdown: every code and status is printed, and no row is
// broken.
func TestClassificationMarkdown(t *testing.T) {
	t.Parallel()
	text := sender.ClassificationMarkdown()
	for _, code := range wazzup.Codes() {
		if strings.Count(text, "| `"+code+"` |") != 1 {
			t.Errorf("%s is not in exactly one row", code)
		}
	}
	columns := 0
	for line := range strings.Lines(text) {
		n := strings.Count(line, "|")
		switch {
		case n == 0:
			columns = 0
		case columns == 0:
			columns = n
		case n != columns:
			t.Errorf("%d bars instead of %d: %s", n, columns, line)
		}
	}
}

func BenchmarkClassifyAccepted(b *testing.B) {
	a := answered(201, "")
	a.MessageID = "m1"
	b.ReportAllocs()
	for b.Loop() {
		_ = sender.Classify(sender.FamilySend, a)
	}
}

func BenchmarkClassifyRefused(b *testing.B) {
	a := answered(400, "CHANNEL_NO_MONEY")
	b.ReportAllocs()
	for b.Loop() {
		_ = sender.Classify(sender.FamilySend, a)
	}
}
