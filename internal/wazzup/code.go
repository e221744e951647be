package wazzup

import (
	"net/http"
	"strings"
)

// The vendor's codes (manual: Error sending messages), all of them.
const (
	CodeMessageWrongContentType     = "MESSAGE_WRONG_CONTENT_TYPE"
	CodeMessageOnlyTextOrContent    = "MESSAGE_ONLY_TEXT_OR_CONTENT"
	CodeMessageNothingToSend        = "MESSAGE_NOTHING_TO_SEND"
	CodeMessageTextTooLong          = "MESSAGE_TEXT_TOO_LONG"
	CodeMessageContentCanNotBeBlank = "MESSAGE_CONTENT_CAN_NOT_BE_BLANK"
	CodeMessageContentSizeExceeded  = "MESSAGE_CONTENT_SIZE_EXCEEDED"
	CodeMessageTextCanNotBeBlank    = "MESSAGE_TEXT_CAN_NOT_BE_BLANK"
	CodeChannelNotFound             = "CHANNEL_NOT_FOUND"
	CodeChannelBlocked              = "CHANNEL_BLOCKED"
	CodeMessageDownloadContentError = "MESSAGE_DOWNLOAD_CONTENT_ERROR"
	CodeMessagesNotTextFirst        = "MESSAGES_NOT_TEXT_FIRST"
	CodeMessagesIsSpam              = "MESSAGES_IS_SPAM"
	CodeChatWrongChatType           = "CHAT_WRONG_CHAT_TYPE"
	CodeChatMissingChatType         = "CHAT_MISSING_CHAT_TYPE"
	CodeChatIncorrectChatIDWhatsApp = "CHAT_INCORRECT_CHAT_ID_WHATSAPP"
	CodeChatMissingChatID           = "CHAT_MISSING_CHAT_ID"
	CodeValidationError             = "VALIDATION_ERROR"
	CodeAccountNotFound             = "ACCOUNT_NOT_FOUND"
	CodeContactNotFound             = "CONTACT_NOT_FOUND"
	CodeChannelNoMoney              = "CHANNEL_NO_MONEY"
	CodeChannelUnavailable          = "MESSAGE_CHANNEL_UNAVAILABLE"
	CodeContactDetailNotFound       = "CONTACT_DETAIL_NOT_FOUND"
	CodeMessagesAbnormalSend        = "MESSAGES_ABNORMAL_SEND"
	CodeMessagesInvalidContactType  = "MESSAGES_INVALID_CONTACT_TYPE"
	CodeMessagesCanNotAdd           = "MESSAGES_CAN_NOT_ADD"
	CodeReferenceMessageNotFound    = "REFERENCE_MESSAGE_NOT_FOUND"
	CodeUnknownError                = "UNKNOWN_ERROR"
	maxCode                         = 64 // bytes; more is prose
)

// Codes returns the vendor's codes in the manual's order.
func Codes() []string {
	codes := codeList()
	return codes[:]
}

func codeList() [27]string {
	return [...]string{
		CodeMessageWrongContentType,
		CodeMessageOnlyTextOrContent,
		CodeMessageNothingToSend,
		CodeMessageTextTooLong,
		CodeMessageContentCanNotBeBlank,
		CodeMessageContentSizeExceeded,
		CodeMessageTextCanNotBeBlank,
		CodeChannelNotFound,
		CodeChannelBlocked,
		CodeMessageDownloadContentError,
		CodeMessagesNotTextFirst,
		CodeMessagesIsSpam,
		CodeChatWrongChatType,
		CodeChatMissingChatType,
		CodeChatIncorrectChatIDWhatsApp,
		CodeChatMissingChatID,
		CodeValidationError,
		CodeAccountNotFound,
		CodeContactNotFound,
		CodeChannelNoMoney,
		CodeChannelUnavailable,
		CodeContactDetailNotFound,
		CodeMessagesAbnormalSend,
		CodeMessagesInvalidContactType,
		CodeMessagesCanNotAdd,
		CodeReferenceMessageNotFound,
		CodeUnknownError,
	}
}

// NormalizeCode brings a code into the manual's spelling: upper snake case from
// camelCase, kebab-case or dots, and the manual's own word where only
// underscores or MESSAGE_ and MESSAGES_ differ, for the vendor's spelling
// wobbles. Text that is no code at all, such as a sentence, becomes "".
func NormalizeCode(text string) string {
	text = strings.TrimSpace(text)
	if text == "" || len(text) > maxCode || !isLetter(text[0]) {
		return ""
	}
	code := make([]byte, 0, len(text)+8)
	for i := range len(text) {
		c := text[i]
		switch {
		case c == '_' || c == '-' || c == '.':
			if code[len(code)-1] != '_' {
				code = append(code, '_')
			}
		case isLower(c):
			code = append(code, c-'a'+'A')
		case isUpper(c):
			if startsWord(text, i) {
				code = append(code, '_')
			}
			code = append(code, c)
		case isDigit(c):
			code = append(code, c)
		default:
			return ""
		}
	}
	normal := strings.TrimRight(string(code), "_")
	for _, known := range codeList() {
		if sameWord(normal, known) {
			return known
		}
	}
	return normal
}

// startsWord reports whether the upper-case letter at i begins a word of
// camelCase: after a lower-case letter or digit, or as the last of a row of
// capitals before a lower-case letter (invalidAPIKey).
func startsWord(text string, i int) bool {
	if i == 0 {
		return false
	}
	before := text[i-1]
	if isLower(before) {
		return true
	}
	followedByLower := i+1 < len(text) && isLower(text[i+1])
	return followedByLower && (isUpper(before) || isDigit(before))
}

// sameWord compares without underscores and with MESSAGES_ as MESSAGE_.
func sameWord(a, b string) bool {
	a, b = singular(a), singular(b)
	i, j := 0, 0
	for {
		for i < len(a) && a[i] == '_' {
			i++
		}
		for j < len(b) && b[j] == '_' {
			j++
		}
		if i == len(a) || j == len(b) {
			return i == len(a) && j == len(b)
		}
		if a[i] != b[j] {
			return false
		}
		i++
		j++
	}
}

func singular(code string) string { return strings.ReplaceAll(code, "MESSAGES_", "MESSAGE_") }

// repeatsStatus reports whether a code says no more than the HTTP status:
// frameworks write {"error":"Forbidden"} under a 403. Such a word is the
// server's, not the vendor's.
func repeatsStatus(code string, status int) bool {
	text := http.StatusText(status)
	return text != "" && sameWord(code, strings.ToUpper(strings.ReplaceAll(text, " ", "_")))
}

func isLower(c byte) bool  { return c >= 'a' && c <= 'z' }
func isUpper(c byte) bool  { return c >= 'A' && c <= 'Z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return isLower(c) || isUpper(c) }
