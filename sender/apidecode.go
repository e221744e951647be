package sender

import (
	"context"
	"errors"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// codeBadRequest is the code of a body that is refused as a whole.
const codeBadRequest = "BAD_REQUEST"

// fault is a request that cannot be answered as asked.
type fault struct {
	status int // HTTP-like
	err    schema.Error
	state  schema.State // of the command that the request is about; "" = none
	// unchanged: the webhook's address is surely what it was before.
	unchanged bool
}

// faultBody is the body of an answer that refuses.
type faultBody struct {
	Error schema.Error `json:"error"`
	State schema.State `json:"state,omitempty"`
}

func (f *fault) Error() string { return f.err.Code }

func badRequest(code, description string) error {
	return &fault{status: 400, err: schema.Error{Code: code, Class: schema.ClassInvalid, Description: description}}
}

// badField refuses a request for one of its fields.
func badField(field, code, description string) error {
	return &fault{status: 400, err: schema.Error{
		Code: code, Class: schema.ClassInvalid, Description: field + ": " + description,
		Faults: []schema.Fault{{Field: field, Code: code, Description: description}},
	}}
}

func notFound(description string) error {
	return &fault{status: 404, err: schema.Error{Code: "NOT_FOUND", Class: schema.ClassInvalid, Description: description}}
}

func tooLarge(description string) error {
	return &fault{status: 413, err: schema.Error{Code: "TOO_LARGE", Class: schema.ClassTerminal, Description: description}}
}

func asFault(err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &fault{status: 504, err: schema.Error{Code: CodeTimeout, Class: schema.ClassRetryable, Description: "no answer in time"}}
	}
	return &fault{status: 500, err: schema.Error{Code: "INTERNAL", Class: schema.ClassRetryable, Description: "the request failed here"}}
}

// decodeRequest reads a request's body strictly; an empty one is an empty object.
// The fault names the field, and never what stands in it.
func decodeRequest(body []byte, into any) error {
	if len(body) == 0 {
		body = []byte("{}")
	}
	return decodeWithin("", body, into)
}

// decodeWithin is decodeRequest for a part of a body that was read before; at
// names the part.
func decodeWithin(at string, body []byte, into any) error {
	err := json.Unmarshal(body, into, json.RejectUnknownMembers(true))
	if err == nil && jsontext.Value(body).Kind() != jsontext.KindNull {
		return nil
	}
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		field := fieldAt(at, semantic.JSONPointer)
		switch {
		case errors.Is(semantic.Err, json.ErrUnknownName):
			return badField(field, schema.FaultUnknownField, schema.DescribeFault(schema.FaultUnknownField))
		case field != "":
			return badField(field, schema.FaultWrongType, schema.DescribeFault(schema.FaultWrongType))
		}
	}
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok && errors.Is(err, jsontext.ErrDuplicateName) {
		return badField(fieldAt(at, syntactic.JSONPointer), schema.FaultDuplicateName, schema.DescribeFault(schema.FaultDuplicateName))
	}
	return badRequest(codeBadRequest, "the body is no JSON object of the fields that this request takes")
}

// fieldAt writes a JSON Pointer below a part of the body as the faults of commands
// name a field: filter[0].chatId.
func fieldAt(at string, p jsontext.Pointer) string {
	var b strings.Builder
	b.WriteString(at)
	for token := range p.Tokens() {
		switch {
		case strings.Trim(token, "0123456789") == "":
			b.WriteString("[" + token + "]")
		case b.Len() > 0:
			b.WriteString("." + token)
		default:
			b.WriteString(token)
		}
	}
	text := []rune(b.String())
	return string(text[:min(len(text), schema.MaxFieldLength)])
}
