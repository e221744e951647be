package simulator

import (
	"context"
	"net/http"
)

// perform carries out a request by the manual.
func (s *Server) perform(ctx context.Context, c *call) answer {
	switch c.resource {
	case "send_message":
		return s.only(c, http.MethodPost, func() answer { return s.send(c) })
	case "channels":
		return s.only(c, http.MethodGet, s.getChannels)
	case "iframe":
		return s.only(c, http.MethodPost, func() answer { return s.iframe(c) })
	case "webhooks":
		return s.webhooks(ctx, c)
	case kindUsers, kindContacts, kindDeals:
		if c.hasID {
			return s.oneEntity(c)
		}
		return s.allEntities(c)
	}
	return answer{status: http.StatusNotFound}
}

// only lets one method through, on the resource itself.
func (s *Server) only(c *call, method string, do func() answer) answer {
	switch {
	case c.hasID:
		return answer{status: http.StatusNotFound}
	case c.method != method:
		return methodNotAllowed(method)
	}
	return do()
}

func (s *Server) getChannels() answer {
	return answer{status: http.StatusOK, body: encode(s.Channels())}
}

// Channels returns the integration's channels in the order of their making.
func (s *Server) Channels() []Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Channel{}, s.channels...)
}

// webhooks shows and sets the one URL of the integration.
func (s *Server) webhooks(ctx context.Context, c *call) answer {
	switch {
	case c.hasID:
		return answer{status: http.StatusNotFound}
	case c.method == http.MethodGet:
		return webhookAnswer(s.out.registered(), nil)
	case c.method != http.MethodPut:
		return methodNotAllowed("GET, PUT")
	}
	if refusal := c.readable(); refusal != nil {
		return *refusal
	}
	var body struct {
		URL *text `json:"url"`
	}
	switch err := decode(c.body, &body); {
	case err != nil:
		return c.invalid("The body must be an object.")
	case body.URL == nil && !hasMember(c.body, "url"):
		return c.invalid("url is missing; null switches webhooks off.")
	case body.URL == nil:
		return webhookAnswer("", new(s.out.setURL("")))
	case body.URL.wrong:
		return c.invalid("url must be a string or null.")
	case !isWebhookURL(body.URL.text):
		return fail(c.resource, http.StatusBadRequest, codeURLNotValid, "Provided URI is not valid URI")
	}
	return s.register(ctx, c, body.URL.text)
}

// register tries the URL before it takes it.
func (s *Server) register(ctx context.Context, c *call, url string) answer {
	status, err := s.out.post(ctx, url, []byte(testBody))
	if err != nil || status != http.StatusOK {
		return failMany(c.resource, http.StatusBadRequest, vendorError{
			Code:        codeTestPost,
			Description: "URI does not return 200 OK on test request",
			Data: struct {
				Status int    `json:"status"` // 0 = no answer
				Error  string `json:"error,omitzero"`
			}{status, errorText(err)},
		})
	}
	return webhookAnswer(url, new(s.out.setURL(url)))
}

func webhookAnswer(url string, changed *bool) answer {
	shown := struct {
		WebhooksURL        *string `json:"webhooksUrl"`
		WebhooksURLChanged *bool   `json:"webhooksUrlChanged,omitzero"`
	}{WebhooksURLChanged: changed}
	if url != "" {
		shown.WebhooksURL = &url
	}
	return answer{status: http.StatusOK, body: encode(shown)}
}

// iframe opens the chat window. The user, contact and chat that the vendor
// makes on the way stay invisible to its API, and so here.
func (s *Server) iframe(c *call) answer {
	if refusal := c.readable(); refusal != nil {
		return *refusal
	}
	var body iframeBody
	if decode(c.body, &body) != nil {
		return c.invalid("The body must be an object.")
	}
	if fault := body.fault(); fault != "" {
		return c.invalid(fault)
	}
	s.mu.Lock()
	token := s.newID()
	s.mu.Unlock()
	return answer{status: http.StatusOK, body: encode(struct {
		URL string `json:"url"`
	}{"https://chats.wazzup.example/" + token})}
}
