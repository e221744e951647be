package schema

import "strings"

// Requests returns the name of every request on `wazzup.<account>.api.<name>`, in
// the order of the documentation. See [APISubject], [RequestSchema] and
// [AnswerSchema].
func Requests() []string {
	return []string{
		"command.get", "command.cancel", "command.resolve",
		"channels.list",
		"users.list", "users.get",
		"contacts.list", "contacts.get",
		"deals.list", "deals.get",
		"iframe.open",
		"webhooks.get", "webhooks.set",
		"lanes.list", "lane.pause", "lane.resume",
		"dead.list", "dead.show", "dead.redrive", "dead.drop",
		"group.get", "group.cancel", "group.pause", "group.resume",
	}
}

// RequestSchema is the name of the JSON Schema of a request's body.
func RequestSchema(request string) string {
	return requestPrefix + strings.ReplaceAll(request, ".", "-")
}

// AnswerSchema is the name of the JSON Schema of a request's answer, where it is
// no fault (see [AnswerFaultSchema]).
func AnswerSchema(request string) string {
	return answerPrefix + strings.ReplaceAll(request, ".", "-")
}

// AnswerFaultSchema is the name of the JSON Schema of a refusal. Requests about
// groups have no other answer in this version.
const AnswerFaultSchema = answerPrefix + "fault"

const (
	requestPrefix = "request-"
	answerPrefix  = "answer-"
)
