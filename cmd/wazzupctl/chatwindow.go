package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

type chatWindowCmd struct {
	connection
	Source string   `arg:"" optional:"" placeholder:"-" help:"- reads the request's JSON from standard input, in place of the flags below."`
	User   string   `name:"user" group:"Window" placeholder:"ID" help:"Who opens it: the user's id in the CRM."`
	Name   string   `name:"user-name" group:"Window" help:"The sender's name from then on."`
	Scope  string   `group:"Window" help:"global for all chats, card for those given; without it, card if there are any."`
	Chat   []string `group:"Window" sep:"none" placeholder:"TYPE:ID" help:"A chat to show, such as whatsapp:79998887766; may be given many times."`
	Active string   `group:"Window" placeholder:"TYPE:ID" help:"The chat that is open first."`
	JSON   bool     `help:"Print JSON."`
}

// Help is the detailed help.
func (*chatWindowCmd) Help() string {
	return `Prints the address of a chat window. Whoever has it can use the window. Arguments show in the list of processes: read the request from standard input where that matters.

Examples:
  wazzupctl chat-window --user 222555 --user-name 'User Name' --chat whatsapp:79998887766
  wazzupctl chat-window - < window.json`
}

// windowChat is a chat of the request.
type windowChat struct {
	ChatType string `json:"chatType"`
	ChatID   string `json:"chatId"`
}

// Run opens a chat window.
func (c *chatWindowCmd) Run(ctx context.Context, e *env) error {
	settings, settingsErr := c.settings(e)
	body, err := c.body(e.stdin)
	if err := joinFaults(settingsErr, err); err != nil {
		return err
	}
	cl, err := c.connectWith(ctx, e, settings)
	if err != nil {
		return err
	}
	defer cl.Close()
	var window sender.ChatWindow
	if err := cl.request(ctx, "iframe.open", body, &window); err != nil {
		return err
	}
	if c.JSON {
		return cl.JSON(window)
	}
	cl.Printf("%s\n", plain(window.URL))
	return nil
}

func (c *chatWindowCmd) body(stdin io.Reader) (json.RawMessage, error) {
	switch {
	case c.Source == "-" && (c.User != "" || c.Name != "" || c.Scope != "" || len(c.Chat) > 0 || c.Active != ""):
		return nil, errors.New("-: goes without the flags that describe the window")
	case c.Source == "-":
		text, err := io.ReadAll(io.LimitReader(stdin, schema.MaxBodySize))
		if err == nil && !json.Valid(text) {
			err = errors.New("standard input: is no JSON")
		}
		return text, err
	case c.Source != "":
		return nil, errors.New("the only argument is -, which reads the request from standard input; everything else is a flag")
	case c.User == "":
		return nil, errors.New("--user: is missing: the id of whoever opens the window")
	}
	request := struct {
		User struct {
			ID   string `json:"id"`
			Name string `json:"name,omitempty"`
		} `json:"user"`
		Scope      string       `json:"scope"`
		Filter     []windowChat `json:"filter,omitempty"`
		ActiveChat *windowChat  `json:"activeChat,omitempty"`
	}{Scope: c.Scope}
	request.User.ID, request.User.Name = c.User, c.Name
	var faults []error
	for _, text := range c.Chat {
		chat, err := chatOf("--chat", text)
		request.Filter, faults = append(request.Filter, chat), append(faults, err)
	}
	if c.Active != "" {
		chat, err := chatOf("--active", c.Active)
		request.ActiveChat, faults = &chat, append(faults, err)
	}
	if request.Scope == "" {
		request.Scope = "global"
		if len(request.Filter) > 0 {
			request.Scope = "card"
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return json.Marshal(request)
}

func chatOf(flag, text string) (windowChat, error) {
	kind, id, ok := strings.Cut(text, ":")
	if !ok || kind == "" || id == "" {
		return windowChat{}, fmt.Errorf("%s: must be a type and an id, such as whatsapp:79998887766", flag)
	}
	return windowChat{kind, id}, nil
}
