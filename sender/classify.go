package sender

import (
	"net/http"
	"strconv"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Family is a group of the vendor's endpoints that fail together and whose calls
// may, or may not, be repeated.
type Family string

// The families. Only a send must never be repeated while its fate is unknown;
// everything else may be.
const (
	FamilySend  Family = "send"
	FamilySync  Family = "sync"  // what changes users, contacts and deals
	FamilyQuery Family = "query" // what asks, and what sets the webhooks
)

// Families returns every family.
func Families() []Family { return []Family{FamilySend, FamilySync, FamilyQuery} }

// Action is what becomes of a command after a call.
type Action string

// The actions.
const (
	ActionAccept       Action = "accept"        // the vendor took it
	ActionReject       Action = "reject"        // refused for good: final
	ActionRetry        Action = "retry"         // call again after a backoff
	ActionRetryLimited Action = "retry_limited" // as ActionRetry, but reject at the Limit-th such answer
	ActionCloseChannel Action = "close_channel" // the channel's lanes close; the command waits in its lane
	ActionCloseAccount Action = "close_account" // all lanes of the account close; the command waits in its lane
	ActionPauseAccount Action = "pause_account" // nothing is called until Retry-After, or the next window; then again
	ActionUnknown      Action = "unknown"       // it may have been carried out: evidence first, never a blind repeat
)

// Actions returns every action.
func Actions() []Action {
	return []Action{
		ActionAccept, ActionReject, ActionRetry, ActionRetryLimited,
		ActionCloseChannel, ActionCloseAccount, ActionPauseAccount, ActionUnknown,
	}
}

// BreakerEffect is what a call tells the breakers.
type BreakerEffect string

// The effects. A refusal of one message is healthy: the vendor answered.
const (
	BreakerNothing BreakerEffect = ""        // says nothing: no call was made, or we ended it
	BreakerHealthy BreakerEffect = "healthy" // the vendor answered
	BreakerChannel BreakerEffect = "channel" // a fault of the vendor, perhaps of this channel only
	BreakerFamily  BreakerEffect = "family"  // the way to the vendor failed, whatever the channel
)

// What opens a closed lane again, in words for operators (`opensOn`).
const (
	ReopenOnList    = "the channel list holds the channel"
	ReopenOnActive  = "state active"
	ReopenOnPayment = "a state other than notEnoughMoney"
	ReopenOnProbe   = "state active, or a try"
	ReopenOnAccount = "GET /channels succeeds"
	ReopenOnHint    = "Retry-After, or the next window"
)

// Codes of errors for which the vendor has no word (`error.code` of events).
const (
	CodeTimeout    = "TIMEOUT"
	CodeConnection = "CONNECTION"
	CodeBadAnswer  = "BAD_ANSWER"
	CodeKey        = "KEY_UNUSABLE" // there is no API key that a header can carry
	CodeRequest    = "ID_UNUSABLE"  // an entity's id that a path cannot carry
	CodeLease      = "LEASE_OVER"   // the worker may not own the account any more
	httpCodePrefix = "HTTP_"
	lateCodePrefix = "STATUS_"
)

// Verdict is what one answer means, for the command and for what lies around it.
type Verdict struct {
	Class  schema.Class // "" if accepted
	Action Action
	// SpendsAttempt: the call counts against WAZZUP_MAX_ATTEMPTS. What was never
	// written, and what the vendor refused for the moment, does not.
	SpendsAttempt bool
	Limit         int // of ActionRetryLimited: answers of this kind, the rejecting one included
	Breaker       BreakerEffect
	Reopens       string // of the actions that close or pause: a Reopen… text
	Probe         bool   // of ActionCloseChannel: the channel may come back without a word, so try as well
	SpamBrake     bool   // counts towards the channel's spam brake
	// OpsUnknownCode: an answer that the table does not know decided over a
	// command; the operator event names its code.
	OpsUnknownCode bool
	Note           string // why, for documentation
}

// Classify decides what an answer means: by the vendor's code first, then by the
// HTTP status, then by what failed on the way. It is a pure function of its
// table; see ClassificationMarkdown for the whole.
func Classify(family Family, a wazzup.Answer) Verdict {
	if acceptedBy(family, &a) {
		return Verdict{Action: ActionAccept, SpendsAttempt: true, Breaker: BreakerHealthy}
	}
	if a.Phase != schema.PhaseAnswered {
		return faultVerdict(family, a.Fault, a.Phase)
	}
	if a.Status >= 200 && a.Status <= 299 && a.MessageID != "" {
		// A message id and an error in one answer: something may be on its way.
		return faultVerdict(family, wazzup.FaultBadAnswer, a.Phase)
	}
	if a.Code != "" {
		for _, row := range codeTable() {
			if row.code == a.Code {
				return row.of(family)
			}
		}
	}
	return statusVerdict(family, &a)
}

func acceptedBy(family Family, a *wazzup.Answer) bool {
	if family == FamilySend {
		return a.OK() && a.MessageID != ""
	}
	if a.OK() {
		return true
	}
	// What is to be deleted and is not there is deleted. (An unknown account is
	// another matter, whatever the status.)
	return a.Method == http.MethodDelete && a.Phase == schema.PhaseAnswered &&
		a.Status == http.StatusNotFound && a.Code != wazzup.CodeAccountNotFound
}

// verdicts holds what one row says: of a send, and of a call that may be repeated.
type verdicts struct{ send, repeat Verdict }

func (v *verdicts) of(family Family) Verdict {
	if family == FamilySend {
		return v.send
	}
	return v.repeat
}

// Building blocks of the table.

func rejectVerdict(note string) Verdict {
	return Verdict{
		Class: schema.ClassTerminal, Action: ActionReject, SpendsAttempt: true,
		Breaker: BreakerHealthy, Note: note,
	}
}

func rejectUnlisted(note string) Verdict {
	v := rejectVerdict(note)
	v.OpsUnknownCode = true
	return v
}

// retryVerdict is for calls that may be repeated although they may have had an effect.
func retryVerdict(effect BreakerEffect, note string) Verdict {
	return Verdict{
		Class: schema.ClassRetryable, Action: ActionRetry, SpendsAttempt: true,
		Breaker: effect, Note: note,
	}
}

// retryFreeVerdict is for calls that surely had no effect.
func retryFreeVerdict(effect BreakerEffect, note string) Verdict {
	v := retryVerdict(effect, note)
	v.SpendsAttempt = false
	return v
}

func retryLimitedVerdict(effect BreakerEffect, note string) Verdict {
	const thrice = 3
	v := retryVerdict(effect, note)
	v.Action, v.Limit = ActionRetryLimited, thrice
	return v
}

func closeChannelVerdict(reopens, note string) Verdict {
	return Verdict{
		Class: schema.ClassChannel, Action: ActionCloseChannel,
		Breaker: BreakerHealthy, Reopens: reopens, Note: note,
	}
}

func closeAccountVerdict(effect BreakerEffect, note string) Verdict {
	return Verdict{
		Class: schema.ClassAccount, Action: ActionCloseAccount,
		Breaker: effect, Reopens: ReopenOnAccount, Note: note,
	}
}

func pauseAccountVerdict(note string) Verdict {
	return Verdict{
		Class: schema.ClassRetryable, Action: ActionPauseAccount,
		Breaker: BreakerHealthy, Reopens: ReopenOnHint, Note: note,
	}
}

func unknownFateVerdict(effect BreakerEffect, note string) Verdict {
	return Verdict{
		Class: schema.ClassUnknown, Action: ActionUnknown, SpendsAttempt: true,
		Breaker: effect, Note: note,
	}
}

// bothFamilies says the same of every family.
func bothFamilies(v Verdict) verdicts { return verdicts{send: v, repeat: v} }

// ofMessageOnly is a refusal that speaks of a message or its channel: a call of
// another family that meets it is refused for good, since it has neither.
func ofMessageOnly(v Verdict) verdicts {
	return verdicts{send: v, repeat: rejectVerdict(v.Note)}
}

// codeRow is what one of the vendor's codes means, whatever the HTTP status.
type codeRow struct {
	code string
	verdicts
}

// codeTable holds all codes of the manual, by meaning.
func codeTable() [27]codeRow {
	spam := rejectVerdict("rated as spam; enough of them stop the channel's bulk class until a person releases it")
	spam.SpamBrake = true
	unavailable := closeChannelVerdict(ReopenOnProbe, "temporary: the phone is offline or busy")
	unavailable.Probe = true
	return [...]codeRow{
		{wazzup.CodeMessageWrongContentType, ofMessageOnly(rejectVerdict("the file's type is unknown or not supported"))},
		{wazzup.CodeMessageOnlyTextOrContent, ofMessageOnly(rejectVerdict("text and file together"))},
		{wazzup.CodeMessageNothingToSend, ofMessageOnly(rejectVerdict("neither text nor file"))},
		{wazzup.CodeMessageTextTooLong, ofMessageOnly(rejectVerdict("more than 10,000 characters"))},
		{wazzup.CodeMessageContentCanNotBeBlank, ofMessageOnly(rejectVerdict("the file is empty"))},
		{wazzup.CodeMessageContentSizeExceeded, ofMessageOnly(rejectVerdict("the file is too large for WhatsApp"))},
		{wazzup.CodeMessageTextCanNotBeBlank, ofMessageOnly(rejectVerdict("the text is empty"))},
		{wazzup.CodeChatWrongChatType, ofMessageOnly(rejectVerdict("no such chat type"))},
		{wazzup.CodeChatMissingChatType, ofMessageOnly(rejectVerdict("no chat type"))},
		{wazzup.CodeChatIncorrectChatIDWhatsApp, ofMessageOnly(rejectVerdict("no WhatsApp number"))},
		{wazzup.CodeChatMissingChatID, ofMessageOnly(rejectVerdict("no chat id"))},
		{wazzup.CodeValidationError, ofMessageOnly(rejectVerdict("a parameter breaks a rule"))},
		{wazzup.CodeContactNotFound, ofMessageOnly(rejectVerdict("no chat with this number"))},
		{wazzup.CodeContactDetailNotFound, ofMessageOnly(rejectVerdict("nothing is known of the contact"))},
		{wazzup.CodeMessagesAbnormalSend, ofMessageOnly(rejectVerdict("the chat type is not the channel's"))},
		{wazzup.CodeMessagesInvalidContactType, ofMessageOnly(rejectVerdict("the chat type is not the channel's"))},
		{wazzup.CodeReferenceMessageNotFound, ofMessageOnly(rejectVerdict("the quoted message is not there"))},
		{wazzup.CodeMessagesNotTextFirst, ofMessageOnly(rejectVerdict("the tariff forbids writing first; replies work, so the channel stays open"))},
		{wazzup.CodeMessagesIsSpam, ofMessageOnly(spam)},
		{wazzup.CodeMessageDownloadContentError, bothFamilies(retryLimitedVerdict(BreakerHealthy, "the vendor could not fetch the link; nothing was sent"))},
		{wazzup.CodeMessagesCanNotAdd, verdicts{
			send:   retryLimitedVerdict(BreakerChannel, "a fault of the vendor's server; not sent, says the manual"),
			repeat: retryLimitedVerdict(BreakerFamily, "a fault of the vendor's server"),
		}},
		{wazzup.CodeChannelNotFound, ofMessageOnly(closeChannelVerdict(ReopenOnList, "not in the integration"))},
		{wazzup.CodeChannelBlocked, ofMessageOnly(closeChannelVerdict(ReopenOnActive, "switched off"))},
		{wazzup.CodeChannelNoMoney, ofMessageOnly(closeChannelVerdict(ReopenOnPayment, "not paid for"))},
		{wazzup.CodeChannelUnavailable, ofMessageOnly(unavailable)},
		{wazzup.CodeAccountNotFound, bothFamilies(closeAccountVerdict(BreakerHealthy, "the key's account is not there"))},
		{wazzup.CodeUnknownError, verdicts{
			send:   unknownFateVerdict(BreakerChannel, "the vendor itself does not know"),
			repeat: retryVerdict(BreakerFamily, "the vendor itself does not know"),
		}},
	}
}

// unlistedEffect is what a code that the table does not know changes about a status.
type unlistedEffect int

const (
	unlistedSame   unlistedEffect = iota // nothing
	unlistedNamed                        // the verdict stays, an operator event names the code
	unlistedDecide                       // of a send, the code counts: refused for good, and an operator event
)

// statusRow is what an answer without a known code means, by its HTTP status.
type statusRow struct {
	from, to int
	unlisted unlistedEffect
	verdicts
}

// statusTable is read from the top; the first row that fits counts.
//
// A send to a route that is closed, absent or moved says that the key or the
// address is wrong, and that every other message would meet the same: the
// account closes. For the other families the same statuses speak of one route
// (403: not open to this kind of key) or one entity (404), while sending works:
// they refuse the one command. A redirect speaks of no entity; since it may be
// mended, such a call is repeated, and dead letters keep it.
func statusTable() [13]statusRow {
	return [...]statusRow{
		{200, 299, unlistedNamed, verdicts{
			send:   unknownFateVerdict(BreakerChannel, "no message id, or an error that the table does not know"),
			repeat: retryVerdict(BreakerFamily, "not what was asked for, or an error that the table does not know"),
		}},
		{300, 399, unlistedNamed, verdicts{
			send:   closeAccountVerdict(BreakerHealthy, "a redirect, which is never followed: the address is wrong"),
			repeat: retryVerdict(BreakerFamily, "a redirect, which is never followed: the address is wrong"),
		}},
		{401, 401, unlistedSame, bothFamilies(closeAccountVerdict(BreakerHealthy, "the key is wrong or missing"))},
		{403, 403, unlistedDecide, verdicts{
			send:   closeAccountVerdict(BreakerHealthy, "sending is not open to this kind of key"),
			repeat: rejectVerdict("this route is not open to this kind of key"),
		}},
		{404, 405, unlistedDecide, verdicts{
			send:   closeAccountVerdict(BreakerHealthy, "no such route: the address is wrong"),
			repeat: rejectVerdict("not there, or not to be had that way"),
		}},
		{408, 408, unlistedNamed, verdicts{
			send:   unknownFateVerdict(BreakerChannel, "the vendor gave up waiting"),
			repeat: retryVerdict(BreakerFamily, "the vendor gave up waiting"),
		}},
		{413, 413, unlistedNamed, bothFamilies(rejectVerdict("too large"))},
		{415, 415, unlistedNamed, bothFamilies(rejectVerdict("not the type the vendor takes"))},
		{429, 429, unlistedSame, bothFamilies(pauseAccountVerdict("too many requests; this one had no effect"))},
		{400, 499, unlistedSame, bothFamilies(rejectUnlisted("any other refusal, with or without a code"))},
		{500, 599, unlistedNamed, verdicts{
			send:   unknownFateVerdict(BreakerChannel, "a fault of the vendor after the request was written"),
			repeat: retryVerdict(BreakerFamily, "a fault of the vendor"),
		}},
		{100, 199, unlistedNamed, badAnswerVerdicts()},
		{600, 999, unlistedNamed, badAnswerVerdicts()},
	}
}

func badAnswerVerdicts() verdicts {
	return verdicts{
		send:   unknownFateVerdict(BreakerChannel, "an answer that is none"),
		repeat: retryVerdict(BreakerFamily, "an answer that is none"),
	}
}

func statusVerdict(family Family, a *wazzup.Answer) Verdict {
	for _, row := range statusTable() {
		if a.Status < row.from || a.Status > row.to {
			continue
		}
		v := row.of(family)
		if a.Code == "" {
			return v
		}
		switch row.unlisted {
		case unlistedSame:
		case unlistedNamed:
			v.OpsUnknownCode = true
		case unlistedDecide:
			if family == FamilySend {
				return rejectUnlisted("a code that the table does not know")
			}
		}
		return v
	}
	v := badAnswerVerdicts()
	return v.of(family)
}

// faultRow is what a call without a proper answer means: if surely nothing was
// written, and otherwise.
type faultRow struct {
	fault   wazzup.Fault
	notSent Verdict
	written verdicts
}

func faultTable() [9]faultRow {
	cut := func(note string) verdicts {
		return verdicts{send: unknownFateVerdict(BreakerChannel, note), repeat: retryVerdict(BreakerFamily, note)}
	}
	return [...]faultRow{
		{wazzup.FaultDNS, retryFreeVerdict(BreakerFamily, "the vendor's name was not resolved"), cut("no answer")},
		{wazzup.FaultDial, retryFreeVerdict(BreakerFamily, "no connection"), cut("no answer")},
		{wazzup.FaultTLS, retryFreeVerdict(BreakerFamily, "no trusted connection"), cut("no answer")},
		{wazzup.FaultTimeout, retryFreeVerdict(BreakerFamily, "no connection in time"), cut("no answer in time")},
		{wazzup.FaultReset, retryFreeVerdict(BreakerFamily, "the connection was lost before anything was written"), cut("the connection was lost before the answer was whole")},
		{wazzup.FaultBadAnswer, retryFreeVerdict(BreakerFamily, "not HTTP, before anything was written"), cut("an answer that is none")},
		{wazzup.FaultCancelled, retryFreeVerdict(BreakerNothing, "we stopped before the call"), verdicts{
			send:   unknownFateVerdict(BreakerNothing, "we stopped during the call"),
			repeat: retryFreeVerdict(BreakerNothing, "we stopped during the call"),
		}},
		{wazzup.FaultKey, closeAccountVerdict(BreakerNothing, "there is no key to send"), cut("no answer")},
		{wazzup.FaultRequest, Verdict{
			Class: schema.ClassTerminal, Action: ActionReject, Note: "an id that a path cannot carry; no call was made",
		}, cut("no answer")},
	}
}

func faultVerdict(family Family, fault wazzup.Fault, phase schema.Phase) Verdict {
	for _, row := range faultTable() {
		if row.fault != fault {
			continue
		}
		if phase == schema.PhaseNotSent {
			return row.notSent
		}
		return row.written.of(family)
	}
	// No answer and no fault: of a command whose worker died, for instance.
	if phase == schema.PhaseNotSent {
		return retryFreeVerdict(BreakerNothing, "no call was made")
	}
	v := badAnswerVerdicts()
	return v.of(family)
}

// NewError tells an answer and its verdict as the `error` of an event; nil if the
// vendor accepted.
func NewError(a wazzup.Answer, v Verdict) *schema.Error {
	if v.Action == ActionAccept {
		return nil
	}
	return &schema.Error{
		Code:        ErrorCode(a),
		Class:       v.Class,
		Description: a.Description,
		HTTPStatus:  a.Status,
		Phase:       a.Phase,
	}
}

// ErrorCode is the vendor's word where it has one, and otherwise ours. It is of a
// bounded length and may be logged.
func ErrorCode(a wazzup.Answer) string {
	switch a.Fault {
	case wazzup.FaultNone:
	case wazzup.FaultTimeout:
		return CodeTimeout
	case wazzup.FaultDNS, wazzup.FaultDial, wazzup.FaultTLS, wazzup.FaultReset, wazzup.FaultCancelled:
		return CodeConnection
	case wazzup.FaultBadAnswer:
		return CodeBadAnswer
	case wazzup.FaultKey:
		return CodeKey
	case wazzup.FaultRequest:
		return CodeRequest
	}
	switch {
	case a.Code != "":
		return a.Code
	case a.Status >= 300 && a.Status <= 599:
		return httpCodePrefix + strconv.Itoa(a.Status)
	default:
		return CodeBadAnswer
	}
}

// LateStatus is what a status webhook means for a message that was accepted: a
// 201 says no more than that.
type LateStatus struct {
	Status int
	// Word is the token of `evt.status.<word>`; "" for 99, which is no status of
	// ours.
	Word string
	// State is the command's event, "" if there is none.
	State      schema.State
	SpamBrake  bool // counts towards the channel's spam brake
	FloodPause bool // pauses the channel's bulk class for WAZZUP_FLOOD_PAUSE
	Note       string
}

// LateStatuses is the table of the manual's statuses.
func LateStatuses() []LateStatus {
	const failed = schema.StateFailed
	word := string(failed)
	return []LateStatus{
		{Status: 0, Word: "processing", Note: "being processed"},
		{Status: 1, Word: "sent", Note: "one gray tick"},
		{Status: 2, Word: "delivered", State: schema.StateDelivered, Note: "two gray ticks"},
		{Status: 3, Word: "read", State: schema.StateRead, Note: "two blue ticks"},
		{Status: 13, Word: word, State: failed, Note: "no such account in the messenger"},
		{Status: 14, Word: word, State: failed, Note: "the text is too long"},
		{Status: 15, Word: word, State: failed, Note: "Instagram does not allow the link"},
		{Status: 17, Word: word, State: failed, Note: "the file is larger than 50 MB"},
		{Status: 18, Word: word, State: failed, SpamBrake: true, Note: "suspected spam"},
		{Status: 19, Word: word, State: failed, FloodPause: true, Note: "too many messages from the account"},
		{Status: 21, Word: word, State: failed, Note: "the file does not suit Instagram"},
		{Status: 66, Word: word, State: failed, Note: "an error of the vendor; never sent again by itself"},
		{Status: 99, Note: "an inbound message"},
	}
}

// ClassifyStatus looks a status up; ok is false for one that the manual does not
// list.
func ClassifyStatus(status int) (late LateStatus, ok bool) {
	for _, late := range LateStatuses() {
		if late.Status == status {
			return late, true
		}
	}
	return LateStatus{}, false
}

// NewLateError tells a failing late status as the `error` of an event; nil if it
// is none.
func NewLateError(late LateStatus) *schema.Error {
	if late.State != schema.StateFailed {
		return nil
	}
	return &schema.Error{
		Code:        lateCodePrefix + strconv.Itoa(late.Status),
		Class:       schema.ClassTerminal,
		Description: late.Note,
		Phase:       schema.PhaseAnswered,
	}
}
