package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
)

type webhookCmd struct {
	Get webhookGetCmd `cmd:"" help:"Show the address that Wazzup posts to; its secret is masked."`
	Set webhookSetCmd `cmd:"" help:"Register another address, or none."`
}

type webhookGetCmd struct {
	connection
	JSON bool `help:"Print JSON."`
}

// Help is the detailed help.
func (*webhookGetCmd) Help() string {
	return `Example:
  wazzupctl webhook get`
}

// registered is the answer to webhooks.get and webhooks.set.
type registered struct {
	URL     *string `json:"webhooksUrl"`
	Changed bool    `json:"webhooksUrlChanged"`
	Guard   struct {
		State   string `json:"state"`
		OpensOn string `json:"opensOn"`
	} `json:"guard"`
	SilentSince string `json:"silentSince"`
}

// Run prints the registered address.
func (c *webhookGetCmd) Run(ctx context.Context, e *env) error {
	cl, err := c.connect(ctx, e)
	if err != nil {
		return err
	}
	defer cl.Close()
	return cl.webhook(ctx, "webhooks.get", struct{}{}, c.JSON)
}

func (c *client) webhook(ctx context.Context, name string, in any, asJSON bool) error {
	var raw json.RawMessage
	if err := c.request(ctx, name, in, &raw); err != nil {
		return err
	}
	if asJSON {
		return c.JSON(raw)
	}
	var now registered
	if err := json.Unmarshal(raw, &now); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if now.URL == nil || *now.URL == "" {
		c.Printf("no address is registered: Wazzup posts nothing\n")
	} else {
		c.Printf("%s\n", plain(*now.URL))
	}
	if now.Guard.State != "" && now.Guard.State != guardKept {
		c.Printf("%s\n", c.tint(warn, "the guard does not keep ingest's address registered now: "+plain(now.Guard.State)+"; `wazzupctl doctor` tells more"))
	}
	if now.SilentSince != "" {
		c.Printf("%s\n", c.tint(warn, "no status has come for the messages accepted since "+plain(now.SilentSince)))
	}
	return nil
}

// guardKept is the guard's state while all is well.
const guardKept = "kept"

type webhookSetCmd struct {
	connection
	URL        string  `arg:"" optional:"" help:"The whole address, secret included; - reads it from standard input, where it does not show in the list of processes."`
	PublicURL  *string `name:"public-url" placeholder:"URL" help:"Instead: the base URL of ingest (PUBLIC_URL). The secret comes from WEBHOOK_SECRET or its file."`
	SecretFile *string `name:"webhook-secret-file" placeholder:"FILE" help:"File of the secret (WEBHOOK_SECRET, WEBHOOK_SECRET_FILE)."`
	Off        bool    `help:"Register no address: Wazzup then posts nothing."`
	JSON       bool    `help:"Print JSON."`
}

// Help is the detailed help.
func (*webhookSetCmd) Help() string {
	return `Wazzup calls the address at once and refuses it if it does not answer 200. An ingest with PUBLIC_URL registers its own address when it starts and keeps it registered; an address that is set here stays until an ingest starts anew.

Examples:
  WEBHOOK_SECRET_FILE=hook.txt wazzupctl webhook set --public-url https://hooks.example.org
  echo https://hooks.example.org/webhooks/main/secret | wazzupctl webhook set -
  wazzupctl webhook set --off`
}

// Run registers an address.
func (c *webhookSetCmd) Run(ctx context.Context, e *env) error {
	settings, settingsErr := c.settings(e)
	account := relay.DefaultAccount
	if settingsErr == nil {
		account = settings.Account
	}
	address, err := c.address(e, account)
	if err := joinFaults(settingsErr, err); err != nil {
		return err
	}
	cl, err := c.connectWith(ctx, e, settings)
	if err != nil {
		return err
	}
	defer cl.Close()
	return cl.webhook(ctx, "webhooks.set", map[string]*string{"url": address}, c.JSON)
}

// address is what to register; nil = nothing.
func (c *webhookSetCmd) address(e *env, account string) (*string, error) {
	hook := hookSettings{PublicURL: c.PublicURL, SecretFile: c.SecretFile}
	switch {
	case c.Off && (c.URL != "" || c.PublicURL != nil):
		return nil, errors.New("--off: goes without an address")
	case c.Off:
		return nil, nil
	case c.URL == "-":
		line, err := bufio.NewReader(io.LimitReader(e.stdin, 4<<10)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return absolute(strings.TrimSpace(line))
	case c.URL != "":
		return absolute(c.URL)
	}
	if err := hook.read(e); err != nil {
		return nil, err
	}
	if hook.base == "" || hook.secret == "" {
		return nil, errors.New("which address? Give it, or PUBLIC_URL and WEBHOOK_SECRET (or --webhook-secret-file), or --off")
	}
	full, err := config.WebhookURL(hook.base, account, hook.secret)
	if err != nil {
		return nil, fmt.Errorf("PUBLIC_URL (--public-url): %w", err)
	}
	return new(string(full)), nil
}

// absolute never quotes the address: it holds a secret.
func absolute(address string) (*string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("the address: must be an absolute http or https URL")
	}
	return &address, nil
}

// hookSettings are PUBLIC_URL and WEBHOOK_SECRET, by flags or environment.
type hookSettings struct {
	PublicURL, SecretFile *string

	base   string
	secret config.Secret
}

func (h *hookSettings) read(e *env) error {
	table := config.New("wazzupctl", "")
	table.String(&h.base, "PUBLIC_URL", "", "")
	table.Secret(&h.secret, "WEBHOOK_SECRET", "")
	var args []string
	if h.PublicURL != nil {
		args = append(args, "--public-url="+*h.PublicURL)
	}
	if h.SecretFile != nil {
		args = append(args, "--webhook-secret-file="+*h.SecretFile)
	}
	return table.Parse(args, e.getenv)
}
