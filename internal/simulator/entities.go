package simulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// The entities of the manual.
const (
	kindUsers    = "users"
	kindContacts = "contacts"
	kindDeals    = "deals"
)

const (
	maxItems      = 100 // in one write; documented for the successor API only
	pageSize      = 100 // of contacts and deals (manual)
	maxUserID     = 64  // characters (manual)
	maxUserName   = 150 // characters (manual)
	orderByID     = "id"
	orderByName   = "name"
	orderByUserID = "responsibleUserId"
)

// fields is one entity: its members as they came, unknown ones included.
type fields map[string]jsontext.Value

// entityList is the entities of one kind by the text of their id: 17 and "17"
// are the same one, which is kept as it came last.
type entityList struct {
	byID map[string]fields
}

func newLists() map[string]*entityList {
	lists := make(map[string]*entityList)
	for _, kind := range []string{kindUsers, kindContacts, kindDeals} {
		lists[kind] = &entityList{byID: make(map[string]fields)}
	}
	return lists
}

// allEntities serves /v2/users, /v2/contacts and /v2/deals.
func (s *Server) allEntities(c *call) answer {
	switch {
	case c.method == http.MethodGet && c.resource == kindUsers:
		return answer{status: http.StatusOK, body: encode(s.sorted(kindUsers, orderByID, false))}
	case c.method == http.MethodGet:
		return s.page(c)
	case c.method == http.MethodPatch, c.method == http.MethodPut && c.resource == kindUsers:
		return s.writeEntities(c)
	case c.resource == kindUsers:
		return methodNotAllowed("GET, PATCH, PUT")
	}
	return methodNotAllowed("GET, PATCH")
}

// oneEntity serves /v2/users/{id} and its like.
func (s *Server) oneEntity(c *call) answer {
	if c.method != http.MethodGet && c.method != http.MethodDelete {
		return methodNotAllowed("GET, DELETE")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.lists[c.resource].byID
	entity, ok := list[c.id]
	if !ok {
		return fail(c.resource, http.StatusNotFound, notFoundCode(c.resource), "There is none with this id.")
	}
	if c.method == http.MethodDelete {
		delete(list, c.id)
		return answer{status: http.StatusOK}
	}
	return answer{status: http.StatusOK, body: encode(entity)}
}

func notFoundCode(kind string) string {
	switch kind {
	case kindUsers:
		return codeUserNotFound
	case kindDeals:
		return codeDealNotFound
	}
	return codeContactNotFound
}

// page answers up to 100 entities from an offset.
func (s *Server) page(c *call) answer {
	q, err := url.ParseQuery(c.query)
	if err != nil {
		return c.invalid("The query string is malformed.")
	}
	offset, by, desc := 0, orderByID, false
	if text := q.Get("offset"); text != "" {
		if offset, err = strconv.Atoi(text); err != nil || offset < 0 {
			return c.invalid("offset must be a non-negative integer.")
		}
	}
	if text := q.Get("orderBy"); text != "" {
		by = text
	}
	switch by {
	case orderByID, orderByName, orderByUserID:
	default:
		return c.invalid("orderBy must be id, name or responsibleUserId.")
	}
	switch q.Get("orderDirection") {
	case "", "asc":
	case "desc":
		desc = true
	default:
		return c.invalid("orderDirection must be asc or desc.")
	}
	all := s.sorted(c.resource, by, desc)
	all = all[min(offset, len(all)):]
	return answer{status: http.StatusOK, body: encode(all[:min(pageSize, len(all))])}
}

// sorted lists a kind's entities by the text of a member, and of equal text by
// the id's. Ids are text to the vendor's API, so 10 stands before 9.
func (s *Server) sorted(kind, by string, desc bool) []fields {
	type row struct {
		key, id string
		entity  fields
	}
	s.mu.Lock()
	list := s.lists[kind].byID
	rows := make([]row, 0, len(list))
	for id, entity := range list {
		rows = append(rows, row{key: valueText(entity[by]), id: id, entity: entity})
	}
	s.mu.Unlock()
	slices.SortFunc(rows, func(a, b row) int {
		order := strings.Compare(a.key, b.key)
		if order == 0 {
			order = strings.Compare(a.id, b.id)
		}
		if desc {
			return -order
		}
		return order
	})
	all := make([]fields, len(rows))
	for i := range rows {
		all[i] = rows[i].entity
	}
	return all
}

// writeEntities serves PATCH and PUT: all of the body's entities or, if one is
// faulty, none. Where there is an entity already, PATCH updates the members
// that are given and leaves the others.
func (s *Server) writeEntities(c *call) answer {
	if refusal := c.readable(); refusal != nil {
		return *refusal
	}
	var items []fields
	if decode(c.body, &items) != nil || items == nil {
		return c.invalid("The body must be an array of objects.")
	}
	if len(items) > maxItems {
		return c.invalid(fmt.Sprintf("At most %d at once.", maxItems))
	}
	var faults []vendorError
	for i, item := range items {
		if fault := entityFault(c.resource, item); fault != "" {
			faults = append(faults, vendorError{Code: codeValidation, Description: fmt.Sprintf("[%d].%s", i, fault)})
		}
	}
	if len(faults) > 0 {
		return failMany(c.resource, http.StatusBadRequest, faults...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.lists[c.resource]
	if c.method == http.MethodPut {
		list.byID = make(map[string]fields, len(items))
	}
	for _, item := range items {
		id := valueText(item[orderByID])
		// A new map, since readers encode the old one without the lock.
		merged := maps.Clone(list.byID[id])
		if merged == nil {
			merged = make(fields, len(item))
		}
		maps.Copy(merged, item)
		list.byID[id] = merged
	}
	return answer{status: http.StatusOK}
}

// Users returns the users as JSON objects, sorted by id.
func (s *Server) Users() []json.RawMessage { return s.snapshot(kindUsers) }

// Contacts returns the contacts as JSON objects, sorted by id.
func (s *Server) Contacts() []json.RawMessage { return s.snapshot(kindContacts) }

// Deals returns the deals as JSON objects, sorted by id.
func (s *Server) Deals() []json.RawMessage { return s.snapshot(kindDeals) }

func (s *Server) snapshot(kind string) []json.RawMessage {
	all := s.sorted(kind, orderByID, false)
	list := make([]json.RawMessage, len(all))
	for i := range all {
		list[i] = encode(all[i])
	}
	return list
}

// entityFault is the first thing wrong with an entity, "" if nothing is. The
// manual calls a deal's id a number in one place and string or number in
// another; both are taken.
func entityFault(kind string, e fields) string {
	if fault := idFault(kind, e[orderByID]); fault != "" {
		return fault
	}
	if fault := nameFault(kind, e[orderByName]); fault != "" {
		return fault
	}
	if kind == kindUsers {
		return ""
	}
	if v := e[orderByUserID]; given(v) && !isID(v) {
		return "responsibleUserId must be a string or a number."
	}
	if kind == kindDeals {
		if v := e["closed"]; given(v) && v.Kind() != 't' && v.Kind() != 'f' {
			return "closed must be a boolean."
		}
		return idsFault(kindContacts, e[kindContacts])
	}
	if fault := chatsFault("chats", e["chats"], false); fault != "" {
		return fault
	}
	return idsFault(kindDeals, e[kindDeals])
}

func idFault(kind string, id jsontext.Value) string {
	switch {
	case !given(id):
		return "id is missing."
	case !isID(id):
		return "id must be a string that is not empty, or a number."
	case kind != kindUsers:
		return ""
	case id.Kind() == '0' && strings.ContainsAny(string(id), ".eE"):
		return "id must be a string or an integer."
	case utf8.RuneCountInString(valueText(id)) > maxUserID:
		return fmt.Sprintf("id must not be longer than %d characters.", maxUserID)
	}
	return ""
}

func nameFault(kind string, name jsontext.Value) string {
	switch {
	case !given(name):
		return ""
	case name.Kind() != '"':
		return "name must be a string."
	case kind == kindUsers && utf8.RuneCountInString(valueText(name)) > maxUserName:
		return fmt.Sprintf("name must not be longer than %d characters.", maxUserName)
	}
	return ""
}

// idsFault checks an optional array of ids.
func idsFault(member string, v jsontext.Value) string {
	if !given(v) {
		return ""
	}
	var ids []jsontext.Value
	if v.Kind() != '[' || decode(v, &ids) != nil {
		return member + " must be an array."
	}
	for i, id := range ids {
		if !isID(id) {
			return fmt.Sprintf("%s[%d] must be a string or a number.", member, i)
		}
	}
	return ""
}

// chatsFault checks an optional array of chats; manualTypes lets in only the
// chat types of the manual.
func chatsFault(member string, v jsontext.Value, manualTypes bool) string {
	if !given(v) {
		return ""
	}
	var chats []fields
	if v.Kind() != '[' || decode(v, &chats) != nil {
		return member + " must be an array of objects."
	}
	for i, chat := range chats {
		kind := chat["chatType"]
		switch {
		case kind.Kind() != '"':
			return fmt.Sprintf("%s[%d].chatType must be a string.", member, i)
		case manualTypes && !isManualChatType(valueText(kind)):
			return fmt.Sprintf("%s[%d].chatType must be whatsapp, instagram, telegram or vk.", member, i)
		case !isID(chat["chatId"]):
			return fmt.Sprintf("%s[%d].chatId must be a string or a number.", member, i)
		}
	}
	return ""
}

func isManualChatType(t string) bool {
	switch t {
	case chatWhatsApp, chatInstagram, chatTelegram, chatVK:
		return true
	}
	return false
}

// given reports whether a member is there and not null.
func given(v jsontext.Value) bool { return len(v) > 0 && v.Kind() != 'n' }

// isID reports whether v is a number, or a string that is not empty.
func isID(v jsontext.Value) bool {
	return v.Kind() == '0' || (v.Kind() == '"' && len(v) > len(`""`))
}

// valueText is a string's text, and any other value's JSON.
func valueText(v jsontext.Value) string {
	if v.Kind() == '"' {
		if text, err := jsontext.AppendUnquote(nil, v); err == nil {
			return string(text)
		}
	}
	return string(v)
}

func hasMember(body []byte, name string) bool {
	var members fields
	return decode(body, &members) == nil && members[name] != nil
}

// iframeBody is the body of POST /v2/iframe.
type iframeBody struct {
	User       fields         `json:"user"`
	Scope      text           `json:"scope"`
	Filter     jsontext.Value `json:"filter"`
	ActiveChat jsontext.Value `json:"activeChat"`
}

func (b *iframeBody) fault() string {
	if b.User == nil {
		return "user is missing."
	}
	if fault := entityFault(kindUsers, b.User); fault != "" {
		return "user." + fault
	}
	switch {
	case b.Scope.wrong || (b.Scope.text != "global" && b.Scope.text != "card"):
		return "scope must be global or card."
	case b.Scope.text == "card" && !given(b.Filter):
		return "filter is mandatory with the scope card."
	}
	if fault := chatsFault("filter", b.Filter, true); fault != "" {
		return fault
	}
	active := b.ActiveChat
	if active.Kind() == '{' {
		// The manual's table says object, its example shows an array.
		active = slices.Concat(jsontext.Value("["), active, jsontext.Value("]"))
	}
	return chatsFault("activeChat", active, true)
}
