package schema

import (
	"strings"
	"unicode/utf8"
)

// The codes of faults (`faults[].code` of an `invalid` event). Where the
// manual has a word for a fault, it is the vendor's word, so that a consumer
// treats a refusal by us and one by the vendor alike; the others are ours. The
// set is closed: see [FaultCodes] and [DescribeFault].
const (
	FaultNotJSON       = "NOT_JSON"
	FaultTrailingBytes = "TRAILING_BYTES"
	FaultBodyTooLarge  = "BODY_TOO_LARGE"
	FaultTooDeep       = "TOO_DEEP"
	FaultInvalidUTF8   = "INVALID_UTF8"
	FaultDuplicateName = "DUPLICATE_NAME"
	FaultTooManyFaults = "TOO_MANY_FAULTS"

	FaultUnknownField      = "UNKNOWN_FIELD"
	FaultWrongType         = "WRONG_TYPE"
	FaultRequired          = "REQUIRED"
	FaultEmpty             = "EMPTY"
	FaultTooLong           = "TOO_LONG"
	FaultNotAllowed        = "NOT_ALLOWED"
	FaultNotAUUID          = "NOT_A_UUID"
	FaultNotAURL           = "NOT_A_URL"
	FaultNotATime          = "NOT_A_TIME"
	FaultLeadingAt         = "LEADING_AT"
	FaultChannelMismatch   = "CHANNEL_MISMATCH"
	FaultExpiresBeforeSend = "EXPIRES_BEFORE_SEND"
	FaultSendAtTooFar      = "SEND_AT_TOO_FAR"

	FaultIDReused     = "ID_REUSED"
	FaultNotAnAccount = "NOT_AN_ACCOUNT"
	FaultUnknownKind  = "UNKNOWN_KIND"

	// The vendor's words (manual: "Error sending messages").

	FaultWrongChatType   = "CHAT_WRONG_CHAT_TYPE"
	FaultMissingChatType = "CHAT_MISSING_CHAT_TYPE"
	FaultMissingChatID   = "CHAT_MISSING_CHAT_ID"
	FaultWhatsAppChatID  = "CHAT_INCORRECT_CHAT_ID_WHATSAPP"
	FaultTextTooLong     = "MESSAGE_TEXT_TOO_LONG"
	FaultTextBlank       = "MESSAGE_TEXT_CAN_NOT_BE_BLANK"
	FaultContentBlank    = "MESSAGE_CONTENT_CAN_NOT_BE_BLANK"
	FaultTextOrContent   = "MESSAGE_ONLY_TEXT_OR_CONTENT"
	FaultNothingToSend   = "MESSAGE_NOTHING_TO_SEND"
)

// CodeInvalid is the `error.code` of an `invalid` event; its faults say more.
// Only an id that was used before has a code of its own, [FaultIDReused].
const CodeInvalid = "INVALID"

// FaultCodes returns every code that a fault can have.
func FaultCodes() []string {
	return []string{
		FaultNotJSON, FaultTrailingBytes, FaultBodyTooLarge, FaultTooDeep,
		FaultInvalidUTF8, FaultDuplicateName, FaultTooManyFaults,
		FaultUnknownField, FaultWrongType, FaultRequired, FaultEmpty,
		FaultTooLong, FaultNotAllowed, FaultNotAUUID, FaultNotAURL,
		FaultNotATime, FaultLeadingAt, FaultChannelMismatch,
		FaultExpiresBeforeSend, FaultSendAtTooFar,
		FaultIDReused, FaultNotAnAccount, FaultUnknownKind,
		FaultWrongChatType, FaultMissingChatType, FaultMissingChatID,
		FaultWhatsAppChatID, FaultTextTooLong, FaultTextBlank,
		FaultContentBlank, FaultTextOrContent, FaultNothingToSend,
	}
}

// DescribeFault says in one sentence what a fault code means, "" for a code
// that is not in [FaultCodes]. The description of an actual fault may be more
// exact; neither ever holds a value from the body.
func DescribeFault(code string) string {
	switch code {
	case FaultNotJSON:
		return "the body must be one JSON value"
	case FaultTrailingBytes:
		return "nothing but white space may follow the JSON value"
	case FaultBodyTooLarge:
		return "the body must not be larger than 1 MiB"
	case FaultTooDeep:
		return "arrays and objects must not be nested more than 32 deep"
	case FaultInvalidUTF8:
		return "text must be valid UTF-8 and must not escape half a surrogate pair"
	case FaultDuplicateName:
		return "an object must not have two members of the same name"
	case FaultTooManyFaults:
		return "the body has more faults than are listed here"
	case FaultUnknownField:
		return "there is no such field"
	case FaultWrongType:
		return "the value has the wrong JSON type"
	case FaultRequired:
		return "the field is required"
	case FaultEmpty:
		return "the value must not be empty"
	case FaultTooLong:
		return "the value is too long"
	case FaultNotAllowed:
		return "the value is not one of those allowed"
	case FaultNotAUUID:
		return "the channel token of the subject must be a uuid in lower case"
	case FaultNotAURL:
		return "must be an absolute http or https URL with a host"
	case FaultNotATime:
		return "must be an RFC 3339 time with a zone"
	case FaultLeadingAt:
		return "must be given without the leading @"
	case FaultChannelMismatch:
		return "must equal the channel token of the subject"
	case FaultExpiresBeforeSend:
		return "expireAt must be later than sendAt"
	case FaultSendAtTooFar:
		return "sendAt must be earlier than one hour before the end of the ledger's retention"
	case FaultIDReused:
		return "the id was used before for another body, kind or channel"
	case FaultNotAnAccount:
		return "the account must match [a-z0-9-]{1,32}"
	case FaultUnknownKind:
		return "there is no such kind of command"
	case FaultWrongChatType:
		return "must be one of whatsapp, instagram, telegram, vk, whatsgroup"
	case FaultMissingChatType:
		return "chatType is required"
	case FaultMissingChatID:
		return "chatId is required and must not be blank"
	case FaultWhatsAppChatID:
		return "must be a phone number in international format, 9 to 16 digits and nothing else; Russian numbers start with 7"
	case FaultTextTooLong:
		return "must not be longer than 10000 characters"
	case FaultTextBlank:
		return "text must not be blank"
	case FaultContentBlank:
		return "content must not be blank"
	case FaultTextOrContent:
		return "only telegram and vk take text and content in one message"
	case FaultNothingToSend:
		return "text or content is required"
	}
	return ""
}

// NewFault is a fault with the code's own description. It is for rules that are
// checked outside this package, such as [FaultIDReused].
func NewFault(field, code string) Fault {
	return Fault{Field: field, Code: code, Description: DescribeFault(code)}
}

// InvalidError is the error of an `invalid` event: class invalid, phase
// not_sent, and every fault. It is nil without faults.
func InvalidError(faults []Fault) *Error {
	if len(faults) == 0 {
		return nil
	}
	e := &Error{
		Code: CodeInvalid, Class: ClassInvalid, Description: "the command breaks a rule; see faults",
		Phase: PhaseNotSent, Faults: faults,
	}
	if faults[0].Code == FaultIDReused {
		e.Code, e.Description = FaultIDReused, faults[0].Description
	}
	return e
}

// InvalidCommandError is a command that was refused before it was published.
// Its text names fields and codes only, never a value.
type InvalidCommandError struct {
	Faults []Fault
}

func (e *InvalidCommandError) Error() string {
	var b strings.Builder
	b.WriteString("invalid command")
	separator := ": "
	for _, f := range e.Faults {
		b.WriteString(separator)
		if f.Field != "" {
			b.WriteString(f.Field)
			b.WriteByte(' ')
		}
		b.WriteString(f.Code)
		separator = ", "
	}
	return b.String()
}

func invalidCommand(faults []Fault) error {
	if len(faults) == 0 {
		return nil
	}
	return &InvalidCommandError{Faults: faults}
}

// Limits that keep an `invalid` event publishable, however bad the body is.
const (
	MaxFaults      = 256 // faults listed; the last is then FaultTooManyFaults
	MaxFieldLength = 128 // characters of a fault's field; the rest is cut off
)

// faultList collects faults up to MaxFaults.
type faultList []Fault

func (l *faultList) add(field, code string) { l.addText(field, code, DescribeFault(code)) }

func (l *faultList) addText(field, code, description string) {
	switch {
	case len(*l) < MaxFaults-1:
		*l = append(*l, Fault{Field: cut(field, MaxFieldLength), Code: code, Description: description})
	case len(*l) == MaxFaults-1:
		*l = append(*l, NewFault("", FaultTooManyFaults))
	}
}

// full reports whether nothing more can be added.
func (l *faultList) full() bool { return len(*l) >= MaxFaults }

// cut returns at most the first n characters of s.
func cut(s string, n int) string {
	if len(s) <= n || utf8.RuneCountInString(s) <= n {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}
