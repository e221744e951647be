package simulator

// vendorError is one error of an answer.
type vendorError struct {
	Code        string `json:"code"`
	Description string `json:"description,omitzero"`
	Data        any    `json:"data,omitzero"`
}

// fail is an error answer in the shape of the method: `{"error":{…}}` for
// channels and webhooks, `{"errors":[{…}]}` for the others, as public
// integrations show.
func fail(resource string, status int, code, description string) answer {
	return failMany(resource, status, vendorError{Code: code, Description: description})
}

func failMany(resource string, status int, faults ...vendorError) answer {
	a := answer{status: status, code: faults[0].Code}
	switch resource {
	case "channels", "webhooks":
		a.body = encode(struct {
			Error vendorError `json:"error"`
		}{faults[0]})
	default:
		a.body = encode(struct {
			Errors []vendorError `json:"errors"`
		}{faults})
	}
	return a
}

// Codes of send_message (manual: error sending messages).
const (
	codeWrongContentType   = "MESSAGE_WRONG_CONTENT_TYPE"
	codeTextOrContent      = "MESSAGE_ONLY_TEXT_OR_CONTENT"
	codeNothingToSend      = "MESSAGE_NOTHING_TO_SEND"
	codeTextTooLong        = "MESSAGE_TEXT_TOO_LONG"
	codeContentBlank       = "MESSAGE_CONTENT_CAN_NOT_BE_BLANK"
	codeContentSize        = "MESSAGE_CONTENT_SIZE_EXCEEDED"
	codeTextBlank          = "MESSAGE_TEXT_CAN_NOT_BE_BLANK"
	codeChannelNotFound    = "CHANNEL_NOT_FOUND"
	codeChannelBlocked     = "CHANNEL_BLOCKED"
	codeDownload           = "MESSAGE_DOWNLOAD_CONTENT_ERROR"
	codeNotTextFirst       = "MESSAGES_NOT_TEXT_FIRST"
	codeSpam               = "MESSAGES_IS_SPAM"
	codeWrongChatType      = "CHAT_WRONG_CHAT_TYPE"
	codeMissingChatType    = "CHAT_MISSING_CHAT_TYPE"
	codeWhatsAppID         = "CHAT_INCORRECT_CHAT_ID_WHATSAPP"
	codeMissingChatID      = "CHAT_MISSING_CHAT_ID"
	codeValidation         = "VALIDATION_ERROR"
	codeAccountNotFound    = "ACCOUNT_NOT_FOUND"
	codeContactNotFound    = "CONTACT_NOT_FOUND"
	codeNoMoney            = "CHANNEL_NO_MONEY"
	codeChannelUnavailable = "MESSAGE_CHANNEL_UNAVAILABLE"
	codeContactDetail      = "CONTACT_DETAIL_NOT_FOUND"
	codeAbnormalSend       = "MESSAGES_ABNORMAL_SEND"
	codeInvalidContactType = "MESSAGES_INVALID_CONTACT_TYPE"
	codeCanNotAdd          = "MESSAGES_CAN_NOT_ADD"
	codeReference          = "REFERENCE_MESSAGE_NOT_FOUND"
	codeUnknown            = "UNKNOWN_ERROR"
)

// Codes beyond the manual. The first two are those of the successor API's
// documents; USER_NOT_FOUND and DEAL_NOT_FOUND are made after the manual's
// CONTACT_NOT_FOUND.
const (
	codeURLNotValid  = "uriNotValid"
	codeTestPost     = "testPostNotPassed"
	codeUserNotFound = "USER_NOT_FOUND"
	codeDealNotFound = "DEAL_NOT_FOUND"
)

// describe is what the answer says beside a code, after the manual's table.
func describe(code string) string {
	switch code {
	case codeWrongContentType:
		return "Invalid content type: it could not be determined or is not supported."
	case codeTextOrContent:
		return "The message can contain text or content, not both."
	case codeNothingToSend:
		return "Message text not found."
	case codeTextTooLong:
		return "The text message is longer than 10,000 characters."
	case codeContentBlank:
		return "File content cannot be empty."
	case codeContentSize:
		return "Content exceeds the size allowed for WhatsApp."
	case codeTextBlank:
		return "Text message cannot be empty."
	case codeChannelNotFound:
		return "The channel was not found in the integration."
	case codeChannelBlocked:
		return "The channel is off."
	case codeDownload:
		return "Failed to download content from the specified link."
	case codeNotTextFirst:
		return "On this tariff you cannot write first."
	case codeSpam:
		return "Wazzup rated this message as spam."
	case codeWrongChatType:
		return "Invalid chat type: it must be one of INSTAGRAM, WHATSAPP, VK, TELEGRAM."
	case codeMissingChatType:
		return "chatType not passed."
	case codeWhatsAppID:
		return "Invalid WhatsApp number: 9 to 16 digits in international format, Russian numbers start with 7."
	case codeMissingChatID:
		return "Chat id not passed."
	case codeValidation:
		return "Validation error for a parameter passed to the request."
	case codeAccountNotFound:
		return "Account not found in integration."
	case codeContactNotFound:
		return "The contact was not found."
	case codeNoMoney:
		return "The channel is not paid."
	case codeChannelUnavailable:
		return "The channel is not available."
	case codeContactDetail:
		return "No contact information."
	case codeAbnormalSend:
		return "The chat type does not match the source of the contact."
	case codeInvalidContactType:
		return "The chat type does not match the Instagram contact source."
	case codeCanNotAdd:
		return "The message was not sent. An unexpected server error has occurred."
	case codeReference:
		return "The message to quote was not found."
	case codeUnknown:
		return "Unknown error. Contact support."
	}
	return ""
}
