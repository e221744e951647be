package wazzup

import "net/http"

// Endpoint is one method of the manual.
type Endpoint struct {
	Method string
	Path   string // below /v2; {id} stands for an entity's id
	About  string // the manual's heading, in short
}

// Endpoints returns every method of the manual, in its order. The manual says of
// itself that there are no others.
func Endpoints() []Endpoint {
	return []Endpoint{
		{http.MethodPost, "/iframe", "open the chat window"},
		{http.MethodPost, "/send_message", "send a message"},
		{http.MethodGet, "/channels", "the channel list"},
		{http.MethodPut, "/webhooks", "enable webhooks, or disable them"},
		{http.MethodGet, "/webhooks", "the address for webhooks"},
		{http.MethodGet, "/users", "the user list"},
		{http.MethodGet, "/users/{id}", "one user"},
		{http.MethodPatch, "/users", "add and update users"},
		{http.MethodPut, "/users", "replace the user list"},
		{http.MethodDelete, "/users/{id}", "delete a user"},
		{http.MethodPatch, "/contacts", "add and update contacts"},
		{http.MethodGet, "/contacts", "the contact list"},
		{http.MethodGet, "/contacts/{id}", "one contact"},
		{http.MethodDelete, "/contacts/{id}", "delete a contact"},
		{http.MethodGet, "/deals", "the deal list"},
		{http.MethodGet, "/deals/{id}", "one deal"},
		{http.MethodPatch, "/deals", "add and update deals"},
		{http.MethodDelete, "/deals/{id}", "delete a deal"},
	}
}
