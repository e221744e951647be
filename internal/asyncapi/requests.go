package asyncapi

import (
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// request is what is to be said of a request beside its schemas.
type request struct {
	vendor bool // it asks Wazzup, whose refusals are passed on
	faults []fault
}

// fault is a way in which a request can be refused.
type fault struct {
	Status      int      `json:"status"` // as in HTTP
	Codes       []string `json:"codes"`
	Description string   `json:"description"`
}

// requests says how each request of [schema.Requests] may be refused, beyond what
// holds for all.
func requests() map[string]request {
	missing := func(description string) fault { return fault{404, []string{"NOT_FOUND"}, description} }
	conflict := func(description string) fault { return fault{409, []string{"CONFLICT"}, description} }
	vendor := request{vendor: true}
	one := func(code string) request {
		return request{vendor: true, faults: []fault{{404, []string{code, "HTTP_404"}, "Wazzup knows none with this id; the code is Wazzup's, if it gives one"}}}
	}
	letters := request{faults: []fault{
		missing("no command has one of the ids; then nothing is done"),
		{409, []string{"NOTHING_LEFT"}, "no letter is left that the request is about"},
		{503, []string{"PARTLY_DONE"}, "not all had their turn: ask again for the rest"},
		{504, []string{"PARTLY_DONE"}, "not all had their turn in time: ask again for the rest"},
	}}
	group := request{faults: []fault{{501, []string{"NOT_IMPLEMENTED"}, "always, in this version"}}}
	return map[string]request{
		"command.get": {faults: []fault{missing("no command with this id is in the ledger or in a lane")}},
		"command.cancel": {faults: []fault{
			missing("no command with this id is in the ledger or in a lane"),
			conflict("it is being called, is in doubt or has ended; `state` tells"),
		}},
		"command.resolve": {faults: []fault{
			missing("no command with this id is in the ledger"),
			conflict("nothing about it is in doubt; `state` tells how it stands"),
		}},
		"channels.list": vendor,
		"users.list":    vendor,
		"users.get":     one("USER_NOT_FOUND"),
		"contacts.list": vendor,
		"contacts.get":  one("CONTACT_NOT_FOUND"),
		"deals.list":    vendor,
		"deals.get":     one("DEAL_NOT_FOUND"),
		"iframe.open":   vendor,
		"webhooks.get":  vendor,
		"webhooks.set":  vendor,
		"lanes.list":    {},
		"lane.pause":    {},
		"lane.resume":   {},
		"dead.list":     {faults: []fault{missing("no command has one of the ids")}},
		"dead.show":     {faults: []fault{missing("no dead letter has this id")}},
		"dead.redrive":  letters,
		"dead.drop":     letters,
		"group.get":     group,
		"group.cancel":  group,
		"group.pause":   group,
		"group.resume":  group,
		"contract.get":  {},
	}
}

// ofEvery are the faults that any request can meet.
func ofEvery() []fault {
	return []fault{
		{400, append([]string{"BAD_REQUEST"}, requestFaultCodes()...), "the body is not what the request takes; `faults` names the field"},
		{413, []string{"TOO_LARGE"}, "the answer exceeds NATS's payload limit"},
		{500, []string{"INTERNAL"}, "the request failed here; ask again"},
		{504, []string{"TIMEOUT"}, "no answer in time"},
	}
}

// requestFaultCodes are the codes of the rules that a request can break: all but
// those that speak of commands.
func requestFaultCodes() []string {
	ofCommands := []string{
		schema.FaultIDReused, schema.FaultNotAnAccount, schema.FaultUnknownKind,
		schema.FaultChannelMismatch, schema.FaultExpiresBeforeSend, schema.FaultSendAtTooFar,
	}
	return slices.DeleteFunc(slices.Clone(schema.FaultCodes()), func(code string) bool {
		return slices.Contains(ofCommands, code) || strings.HasPrefix(code, "MESSAGE_")
	})
}

// ofVendor are the faults of requests that ask Wazzup.
func ofVendor() []fault {
	return []fault{
		{502, []string{"BAD_ANSWER", "CONNECTION"}, "Wazzup's answer was not understood, or did not come"},
		{503, []string{"RATE_WAIT", "BREAKER_OPEN", "HAND_OVER"}, "it was not asked of Wazzup: the account's rate, calls that fail, a hand-over. While the account is closed, the code that closed it"},
	}
}

func (p *parts) requests() {
	rows := requests()
	for _, name := range schema.Requests() {
		row, ok := rows[name]
		if !ok {
			p.missing("nothing says how the request " + name + " may be refused")
		}
		delete(rows, name)
		p.request(name, row)
	}
	for name := range rows {
		p.missing("the request " + name + " is not served")
	}
	p.message("fault", object{
		{"name", "fault"},
		{"title", "A request that was refused"},
		{"summary", "Told from an answer by the header `Nats-Service-Error-Code`."},
		{"headers", schemaRef(schema.FaultHeadersSchema)},
		{"payload", schemaRef(schema.AnswerFaultSchema)},
		{"examples", p.faultExamples()},
	})
}

func (p *parts) request(name string, row request) {
	asked, answered, channel, reply := "request."+name, "answer."+name, "api."+name, "reply."+name
	title, description := p.about(schema.RequestSchema(name))
	p.message(asked, object{
		{"name", asked},
		{"title", title},
		{"payload", schemaRef(schema.RequestSchema(name))},
		{"examples", p.examplesOf(schema.RequestSchema(name), nil)},
	})
	answers := []string{"fault"}
	if _, ok := schema.JSONSchema(schema.AnswerSchema(name)); ok {
		title, description := p.about(schema.AnswerSchema(name))
		m := object{{"name", answered}, {"title", title}}
		if description != "" {
			m = m.with("summary", description)
		}
		p.message(answered, m.with("payload", schemaRef(schema.AnswerSchema(name))).with("examples", p.examplesOf(schema.AnswerSchema(name), nil)))
		answers = []string{answered, "fault"}
	} else if !slices.ContainsFunc(row.faults, func(f fault) bool { return f.Status == 501 }) {
		p.missing("the request " + name + " has no schema of its answer")
	}
	p.channel(channel, schema.APISubject(accountVar, name), title, description, tagRequests, asked)
	p.channel(reply, "", "The answer to "+name, "The reply subject of the request.", tagRequests, answers...)
	var replies []object
	for _, m := range answers {
		replies = append(replies, channelMessage(reply, m))
	}
	faults := slices.Concat(row.faults, ofEvery())
	if row.vendor {
		faults = append(faults, ofVendor()...)
	}
	slices.SortStableFunc(faults, func(a, b fault) int { return a.Status - b.Status })
	p.operation(operation{
		name: channel, channel: channel, action: "receive", title: title, description: description, tag: tagRequests,
		messages: []string{asked},
		reply:    object{{"channel", ref("#/channels/" + reply)}, {"messages", replies}},
		faults:   faults, vendor: row.vendor,
	})
}

// about is a schema's title, and its description without the sentence that names
// the subject.
func (p *parts) about(name string) (title, description string) {
	var s struct {
		Title       string `json:"title"`
		Description string `json:"description"`
	}
	text, _ := schema.JSONSchema(name)
	if err := json.Unmarshal(text, &s); err != nil {
		p.missing("schema " + name + ": " + err.Error())
	}
	_, description, _ = strings.Cut(s.Description, ". ")
	return s.Title, description
}

// statusOf is the least status with which a request is refused for a code of ours; 0
// if none is.
func statusOf(code string) (status int) {
	all := slices.Concat(ofEvery(), ofVendor())
	for _, row := range requests() {
		all = append(all, row.faults...)
	}
	for _, f := range all {
		if slices.Contains(f.Codes, code) && (status == 0 || f.Status < status) {
			status = f.Status
		}
	}
	return status
}

// faultExamples are those of the schema, with the headers of their codes.
func (p *parts) faultExamples() (list []object) {
	for i, e := range p.examples(schema.AnswerFaultSchema) {
		var body struct {
			Error schema.Error `json:"error"`
		}
		if err := json.Unmarshal(e.value, &body); err != nil {
			p.missing("schema " + schema.AnswerFaultSchema + ": " + err.Error())
		}
		status := body.Error.HTTPStatus
		if status == 0 {
			status = statusOf(body.Error.Code)
		}
		if status == 0 {
			p.missing("schema " + schema.AnswerFaultSchema + ": no status for the example " + body.Error.Code)
		}
		list = append(list, object{
			{"name", "fault-" + strconv.Itoa(i+1)},
			{"headers", object{{"Nats-Service-Error", body.Error.Code}, {"Nats-Service-Error-Code", strconv.Itoa(status)}}},
			{"payload", e.value},
		})
	}
	return list
}
