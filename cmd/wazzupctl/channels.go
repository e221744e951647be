package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/wazzup-relay/wazzup-relay/sender"
)

type channelsCmd struct {
	connection
	JSON bool `help:"Print JSON."`
}

// Help is the detailed help.
func (*channelsCmd) Help() string {
	return `Asks Wazzup, through the worker that owns the account.

Example:
  wazzupctl channels --json | jq -r '.items[].channelId'`
}

// channel is what is shown of a channel.
type channel struct {
	ChannelID string `json:"channelId"`
	Transport string `json:"transport"`
	PlainID   string `json:"plainId"`
	State     string `json:"state"`
}

const channelActive = "active"

// Run prints the channel list.
func (c *channelsCmd) Run(ctx context.Context, e *env) error {
	cl, err := c.connect(ctx, e)
	if err != nil {
		return err
	}
	defer cl.Close()
	items := []json.RawMessage{}
	err = cl.eachItem(ctx, "channels.list", &pageFlags{}, func(item json.RawMessage) error {
		items = append(items, item)
		return nil
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return cl.JSON(sender.List{Items: items})
	}
	for _, item := range items {
		var ch channel
		if err := json.Unmarshal(item, &ch); err != nil {
			return fmt.Errorf("read channel list: %w", err)
		}
		t := warn
		if ch.State == channelActive {
			t = good
		}
		e.Printf("%s  %s  %s  %s\n", plain(ch.ChannelID), pad(plain(ch.Transport), 10), e.tint(t, pad(plain(ch.State), 16)), plain(ch.PlainID))
	}
	if len(items) == 0 {
		e.Printf("no channels: add one in Wazzup's own interface\n")
	}
	return nil
}
