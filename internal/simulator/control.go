package simulator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// AddRule adds rules behind those that are there already; all of them or, with
// a *FieldError, none. A FaultRefuse acts before AddRule returns and is not
// kept; without a listener of its own the error is ErrNoListener.
func (s *Server) AddRule(rules ...Rule) error {
	if err := checkRules(rules); err != nil {
		return err
	}
	for i := range rules {
		if rules[i].Fault != FaultRefuse {
			continue
		}
		d := time.Duration(rules[i].For)
		if d == 0 {
			d = defaultRefusal
		}
		if err := s.refuse(d); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rules {
		if r.Fault != FaultRefuse {
			s.rules = append(s.rules, &RuleState{Rule: r})
		}
	}
	return nil
}

// inItem puts the item's place before the field of an error.
func inItem(i int, err error) error {
	if e, ok := errors.AsType[*FieldError](err); ok {
		return &FieldError{Field: "[" + strconv.Itoa(i) + "]." + e.Field, Description: e.Description}
	}
	return err
}

// ClearRules removes every rule. A refusal under way goes on.
func (s *Server) ClearRules() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = nil
}

// Rules returns the rules in their order, with what they have met.
func (s *Server) Rules() []RuleState {
	s.mu.Lock()
	defer s.mu.Unlock()
	rules := make([]RuleState, len(s.rules))
	for i, r := range s.rules {
		rules[i] = *r
	}
	return rules
}

// Tune changes the running simulator. What is planned already keeps its time.
func (s *Server) Tune(t Tuning) error {
	if err := t.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.apply(&s.live)
	s.out.tune(s.live)
	return nil
}

// Tuning returns everything that Tune can change, as it is.
func (s *Server) Tuning() Tuning {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live.tuning()
}

// Inbound is a message from a customer.
type Inbound struct {
	ChannelID  string `json:"channelId"`
	ChatType   string `json:"chatType,omitzero"` // "" = the channel's
	ChatID     string `json:"chatId"`
	Text       string `json:"text,omitzero"`
	Content    string `json:"content,omitzero"` // link
	AuthorName string `json:"authorName,omitzero"`
	MessageID  string `json:"messageId,omitzero"` // "" = a new one
	DateTime   int64  `json:"dateTime,omitzero"`  // Unix milliseconds; 0 = now
	Type       *int   `json:"type,omitzero"`      // of the manual's list; nil = by content
}

// Inbound lets a customer write: it calls the `messages` webhook (status and
// author type 99) and returns the message's id, which can be quoted from then
// on. With no URL registered nobody hears of it.
func (s *Server) Inbound(in Inbound) (messageID string, err error) {
	m, err := s.receive(in)
	if err != nil {
		return "", err
	}
	s.out.put(planned{key: keyMessages, item: m})
	return m.MessageID, nil
}

func (s *Server) receive(in Inbound) (m message, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	channel := s.channel(in.ChannelID)
	switch {
	case channel == nil:
		return m, &FieldError{Field: "channelId", Description: "is no channel of the integration"}
	case in.ChatID == "":
		return m, &FieldError{Field: "chatId", Description: "must not be empty"}
	case in.Text == "" && in.Content == "" && in.Type == nil:
		return m, &FieldError{Field: "text", Description: "or content (or a type without either) must be given"}
	}
	if in.ChatType == "" {
		own, known := channel.chatType()
		if !known {
			return m, &FieldError{Field: "chatType", Description: "must be given: the channel's transport does not tell it"}
		}
		in.ChatType = own
	}
	if in.MessageID == "" {
		in.MessageID = s.newID()
	}
	if in.DateTime == 0 {
		in.DateTime = time.Now().UnixMilli()
	}
	if in.Type == nil {
		in.Type = new(messageType(in.Content))
	}
	s.know(in.MessageID)
	return message{
		MessageID: in.MessageID, ChannelID: in.ChannelID, ChatType: in.ChatType, ChatID: in.ChatID,
		DateTime: in.DateTime, Type: *in.Type, Status: statusInbound,
		Text: in.Text, Content: in.Content, AuthorType: authorCustomer, AuthorName: in.AuthorName,
	}, nil
}

// SetChannel creates a channel or changes the fields that are not empty, and
// calls the `channels` webhook; for a new one (state active unless given) the
// `channelsList` webhook too.
func (s *Server) SetChannel(ch Channel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.channel(ch.ChannelID); old != nil {
		setIfGiven(&old.Transport, ch.Transport)
		setIfGiven(&old.PlainID, ch.PlainID)
		setIfGiven(&old.State, ch.State)
		s.out.put(planned{key: keyChannels, item: *old})
		return nil
	}
	setDefault(&ch.State, StateActive)
	if err := ch.check(); err != nil {
		return err
	}
	s.channels = append(s.channels, ch)
	s.out.put(planned{key: keyChannels, item: ch}, planned{key: keyChannelsList, item: s.channels})
	return nil
}

func setIfGiven(field *string, value string) {
	if value != "" {
		*field = value
	}
}

// RemoveChannel takes a channel out of the integration and calls the
// `channelsList` webhook.
func (s *Server) RemoveChannel(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.channels, func(ch Channel) bool { return ch.ChannelID == id })
	if i < 0 {
		return &FieldError{Field: "channelId", Description: "is no channel of the integration"}
	}
	s.channels = slices.Delete(s.channels, i, i+1)
	s.out.put(planned{key: keyChannelsList, item: s.channels})
	return nil
}

// SendWebhook posts any body to the registered URL at once, without retries,
// and returns the status of the answer. The error is ErrNoWebhook, or why
// there was no answer.
func (s *Server) SendWebhook(ctx context.Context, body []byte) (status int, err error) {
	to := s.out.registered()
	if to == "" {
		return 0, fmt.Errorf("simulator: sending a webhook: %w", ErrNoWebhook)
	}
	status, err = s.out.post(ctx, to, body)
	if err != nil {
		return 0, fmt.Errorf("simulator: sending a webhook: %s: %w", errorText(err), errNoAnswer)
	}
	return status, nil
}

// errNoAnswer stands for a receiver that gave no answer.
var errNoAnswer = errors.New("no answer")

// SetWebhookURL registers the receiver without the test call; "" switches
// webhooks off and forgets those that wait.
func (s *Server) SetWebhookURL(url string) error {
	if url != "" && !isWebhookURL(url) {
		return &FieldError{Field: "url", Description: fmt.Sprintf("must be an absolute http(s) URL of at most %d characters", maxWebhookURL)}
	}
	s.out.setURL(url)
	return nil
}

// WebhookURL is the registered receiver, "" = none.
func (s *Server) WebhookURL() string { return s.out.registered() }

// Deliveries returns the last attempts at webhooks, up to 1,000, in their order.
func (s *Server) Deliveries() []Delivery { return s.out.list() }

// State is everything that the simulator knows but the requests.
type State struct {
	Seed       uint64           `json:"seed"`
	Counters   View             `json:"counters"`
	Config     Tuning           `json:"config"`
	Channels   []Channel        `json:"channels"`
	WebhookURL string           `json:"webhookUrl"`
	Webhooks   []Delivery       `json:"webhooks"`
	Users      []jsontext.Value `json:"users"`
	Contacts   []jsontext.Value `json:"contacts"`
	Deals      []jsontext.Value `json:"deals"`
	Rules      []RuleState      `json:"rules"`
}

// State returns a snapshot, part by part.
func (s *Server) State() State {
	return State{
		Seed: s.cfg.Seed, Counters: s.View(), Config: s.Tuning(), Channels: s.Channels(),
		WebhookURL: s.WebhookURL(), Webhooks: s.Deliveries(),
		Users: values(s.Users()), Contacts: values(s.Contacts()), Deals: values(s.Deals()),
		Rules: s.Rules(),
	}
}

func values[T ~[]byte](list []T) []jsontext.Value {
	all := make([]jsontext.Value, len(list))
	for i := range list {
		all[i] = jsontext.Value(list[i])
	}
	return all
}

// control is one request to /_sim/.
type control struct {
	server *Server
	r      *http.Request
	body   []byte
}

// serveControl serves the control API. It takes a body for JSON whatever its
// Content-Type says, for curl's sake.
func (s *Server) serveControl(w http.ResponseWriter, r *http.Request) {
	body, tooLarge, err := readBody(r, s.cfg.MaxBody)
	if err != nil {
		panic(http.ErrAbortHandler) // the client went away in the middle of its body
	}
	if tooLarge {
		w.Header().Set("Connection", "close")
		writeControlError(w, http.StatusRequestEntityTooLarge, &FieldError{Field: "body", Description: "is too large"})
		return
	}
	name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/_sim"), "/")
	methods := controlMethods(name)
	if methods == nil {
		writeControlError(w, http.StatusNotFound, errors.New("there are rules, requests, state, inbound, channel, webhook, config and reset under /_sim/"))
		return
	}
	do := methods[r.Method]
	if do == nil {
		w.Header().Set("Allow", allowed(methods))
		writeControlError(w, http.StatusMethodNotAllowed, errors.New("method not allowed"))
		return
	}
	shown, err := do(&control{server: s, r: r, body: body})
	if err != nil {
		writeControlError(w, controlStatus(err), err)
		return
	}
	writeControl(w, http.StatusOK, shown)
}

func controlMethods(name string) map[string]func(*control) (any, error) {
	type methods = map[string]func(*control) (any, error)
	switch name {
	case "rules":
		return methods{http.MethodPost: (*control).addRules, http.MethodGet: (*control).showRules, http.MethodDelete: (*control).clearRules}
	case "requests":
		return methods{http.MethodGet: (*control).showRequests}
	case "state":
		return methods{http.MethodGet: (*control).showState}
	case "inbound":
		return methods{http.MethodPost: (*control).inbound}
	case "channel":
		return methods{http.MethodPost: (*control).channel}
	case "webhook":
		return methods{http.MethodPost: (*control).webhook}
	case "config":
		return methods{http.MethodPost: (*control).tune, http.MethodGet: (*control).showTuning}
	case "reset":
		return methods{http.MethodPost: (*control).reset}
	}
	return nil
}

func allowed[T any](methods map[string]T) string {
	var names []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		if _, ok := methods[m]; ok {
			names = append(names, m)
		}
	}
	return strings.Join(names, ", ")
}

func controlStatus(err error) int {
	switch {
	case errors.Is(err, ErrNoWebhook), errors.Is(err, ErrNoListener):
		return http.StatusConflict
	case errors.Is(err, ErrClosed):
		return http.StatusServiceUnavailable
	case errors.Is(err, errNoAnswer):
		return http.StatusBadGateway
	}
	return http.StatusBadRequest
}

func writeControlError(w http.ResponseWriter, status int, err error) {
	field, ok := errors.AsType[*FieldError](err)
	if !ok {
		field = &FieldError{Description: err.Error()}
	}
	writeControl(w, status, struct {
		Error *FieldError `json:"error"`
	}{field})
}

func writeControl(w http.ResponseWriter, status int, shown any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append(encode(shown), '\n')) // a client that is gone has its reasons
}

// read decodes the whole body strictly; a fault names its field.
func (c *control) read(into any) error { return decodeStrict(c.body, into) }

func decodeStrict(body []byte, into any) error {
	err := json.Unmarshal(body, into, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		description := "has the wrong type"
		switch {
		case errors.Is(err, json.ErrUnknownName):
			description = "is no field of this request"
		case e.Err != nil:
			description = e.Err.Error()
		}
		return &FieldError{Field: fieldOf(e.JSONPointer), Description: description}
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok && e.Err != nil {
		return &FieldError{Field: fieldOf(e.JSONPointer), Description: "no JSON: " + e.Err.Error()}
	}
	return &FieldError{Field: "body", Description: "no JSON of this request"}
}

// fieldOf writes a JSON pointer (/0/match/chatId) as a path ([0].match.chatId).
func fieldOf(p jsontext.Pointer) string {
	var path strings.Builder
	for token := range p.Tokens() {
		if _, err := strconv.Atoi(token); err == nil {
			path.WriteString("[" + token + "]")
			continue
		}
		if path.Len() > 0 {
			path.WriteByte('.')
		}
		path.WriteString(token)
	}
	if path.Len() == 0 {
		return "body"
	}
	return path.String()
}

func (c *control) addRules() (any, error) {
	rules, err := ParseRules(c.body)
	if err != nil {
		return nil, err
	}
	if err := c.server.AddRule(rules...); err != nil {
		return nil, err
	}
	return c.showRules()
}

// ParseRules reads what POST /_sim/rules takes: one rule or an array of them,
// strictly. The error is a *FieldError.
func ParseRules(body []byte) ([]Rule, error) {
	if jsontext.Value(body).Kind() == '[' {
		var rules []Rule
		if err := decodeStrict(body, &rules); err != nil {
			return nil, err
		}
		return rules, checkRules(rules)
	}
	var rule Rule
	if err := decodeStrict(body, &rule); err != nil {
		return nil, err
	}
	return []Rule{rule}, rule.check()
}

func checkRules(rules []Rule) error {
	for i := range rules {
		if err := rules[i].check(); err != nil {
			return inItem(i, err)
		}
	}
	return nil
}

func (c *control) showRules() (any, error) {
	return struct {
		Rules []RuleState `json:"rules"`
	}{c.server.Rules()}, nil
}

func (c *control) clearRules() (any, error) {
	c.server.ClearRules()
	return c.showRules()
}

func (c *control) showRequests() (any, error) {
	q := c.r.URL.Query()
	for name := range q {
		switch name {
		case "path", "channelId", "chatId", "count", "last":
		default:
			return nil, &FieldError{Field: name, Description: "is no filter: there are path, channelId, chatId, count and last"}
		}
	}
	path, channelID, chatID := q.Get("path"), q.Get("channelId"), q.Get("chatId")
	entries := c.server.entries(func(e *entry) bool {
		if path != "" && e.path != path {
			return false
		}
		if channelID == "" && chatID == "" {
			return true
		}
		return e.send != nil &&
			(channelID == "" || e.send.ChannelID.text == channelID) &&
			(chatID == "" || e.send.ChatID.text == chatID)
	})
	if n := q.Get("count"); n != "" && n != "0" {
		count := len(entries)
		if path == "" && channelID == "" && chatID == "" {
			count = c.server.View().Requests // those that are kept no more as well
		}
		return struct {
			Count int `json:"count"`
		}{count}, nil
	}
	if last := q.Get("last"); last != "" {
		n, err := strconv.Atoi(last)
		if err != nil || n < 0 {
			return nil, &FieldError{Field: "last", Description: "must be a non-negative integer"}
		}
		entries = entries[max(0, len(entries)-n):]
	}
	requests := make([]Request, len(entries))
	for i := range entries {
		requests[i] = entries[i].request()
	}
	return requests, nil
}

func (c *control) showState() (any, error) { return c.server.State(), nil }

func (c *control) inbound() (any, error) {
	var in Inbound
	if err := c.read(&in); err != nil {
		return nil, err
	}
	id, err := c.server.Inbound(in)
	if err != nil {
		return nil, err
	}
	return struct {
		MessageID string `json:"messageId"`
	}{id}, nil
}

func (c *control) channel() (any, error) {
	var body struct {
		ChannelID string `json:"channelId"`
		Transport string `json:"transport"`
		PlainID   string `json:"plainId"`
		State     string `json:"state"`
		Remove    bool   `json:"remove"`
	}
	if err := c.read(&body); err != nil {
		return nil, err
	}
	if body.Remove {
		if body.Transport != "" || body.PlainID != "" || body.State != "" {
			return nil, &FieldError{Field: "remove", Description: "goes with channelId alone"}
		}
		if err := c.server.RemoveChannel(body.ChannelID); err != nil {
			return nil, err
		}
		return c.server.Channels(), nil
	}
	err := c.server.SetChannel(Channel{ChannelID: body.ChannelID, Transport: body.Transport, PlainID: body.PlainID, State: body.State})
	if err != nil {
		return nil, err
	}
	return c.server.Channels(), nil
}

func (c *control) webhook() (any, error) {
	status, err := c.server.SendWebhook(c.r.Context(), c.body)
	if err != nil {
		return nil, err
	}
	return struct {
		Status int `json:"status"`
	}{status}, nil
}

func (c *control) tune() (any, error) {
	var t Tuning
	if err := c.read(&t); err != nil {
		return nil, err
	}
	if err := c.server.Tune(t); err != nil {
		return nil, err
	}
	return c.showTuning()
}

func (c *control) showTuning() (any, error) { return c.server.Tuning(), nil }

func (c *control) reset() (any, error) {
	c.server.Reset()
	return struct{}{}, nil
}
