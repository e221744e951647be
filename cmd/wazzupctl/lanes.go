package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

type lanesCmd struct {
	List   lanesListCmd   `cmd:"" default:"withargs" help:"List the lanes: state, why, since when, what opens them, what waits (the default)."`
	Pause  lanesPauseCmd  `cmd:"" help:"Pause a channel, or one class of it, until it is resumed."`
	Resume lanesResumeCmd `cmd:"" help:"End a pause, whoever made it."`
}

type lanesListCmd struct {
	connection
	OrderBy string `enum:"channelId,backlog" default:"channelId" help:"Order by channelId or backlog."`
	Desc    bool   `help:"The other way round."`
	JSON    bool   `help:"Print JSON, a lane on each line."`
}

// Help is the detailed help.
func (*lanesListCmd) Help() string {
	return `A lane is one class (send or bulk) of one channel; sync has one for users, contacts and deals each. A closed one opens by itself, when what it says after "until" has come. A paused one waits for somebody, or, for flood, for its time. An open one says where its next command waits, if it does. docs/operating.md has every word.

Example:
  wazzupctl lanes list --order-by backlog --desc`
}

// Run lists the lanes, page after page.
func (c *lanesListCmd) Run(ctx context.Context, e *env) error {
	cl, err := c.connect(ctx, e)
	if err != nil {
		return err
	}
	defer cl.Close()
	direction := "asc"
	if c.Desc {
		direction = "desc"
	}
	some := false
	for offset := 0; ; {
		var page struct {
			Items []json.RawMessage `json:"items"`
			Next  int               `json:"next"`
		}
		query := map[string]any{"offset": offset, "orderBy": c.OrderBy, "orderDirection": direction}
		if err := cl.request(ctx, "lanes.list", query, &page); err != nil {
			return err
		}
		if err := cl.printLanes(page.Items, c.JSON); err != nil {
			return err
		}
		some = some || len(page.Items) > 0
		if offset = page.Next; offset == 0 {
			break
		}
	}
	if !some && !c.JSON {
		e.Printf("no lanes\n")
	}
	return nil
}

// printLanes prints lanes for people or, as they came, for programs.
func (c *client) printLanes(items []json.RawMessage, asJSON bool) error {
	for _, raw := range items {
		if asJSON {
			if err := c.JSON(raw); err != nil {
				return err
			}
			continue
		}
		var lane sender.LaneItem
		if err := json.Unmarshal(raw, &lane); err != nil {
			return fmt.Errorf("read lane: %w", err)
		}
		c.Printf("%s  %s  %s  %s\n", pad(laneName(&lane), 36), pad(lane.Class, 4), c.tint(laneTint(lane.State), pad(lane.State, 6)), laneText(&lane))
	}
	return nil
}

func laneName(lane *sender.LaneItem) string {
	if lane.ChannelID == "" {
		return plain(lane.Entity)
	}
	return plain(lane.ChannelID)
}

func laneTint(state string) tint {
	switch state {
	case "open":
		return good
	case "paused":
		return warn
	}
	return bad
}

// laneText says what is to be said of a lane beside its state.
func laneText(lane *sender.LaneItem) string {
	var parts []string
	if lane.Reason != "" {
		parts = append(parts, plain(lane.Reason))
	}
	if lane.Gate != "" {
		parts = append(parts, "waits at "+plain(lane.Gate))
	}
	if lane.Why != "" && len(parts) > 0 {
		parts[len(parts)-1] += " (" + plainText(lane.Why) + ")"
	}
	if lane.Since != nil {
		parts = append(parts, "since "+lane.Since.Local().Format(time.DateTime))
	}
	if lane.OpensOn != "" {
		parts = append(parts, "until "+plainText(localTime(lane.OpensOn)))
	}
	if lane.Backlog > 0 {
		parts = append(parts, fmt.Sprintf("%d waiting", lane.Backlog))
	}
	if lane.Oldest != nil {
		parts = append(parts, "the oldest from "+lane.Oldest.Local().Format(time.DateTime))
	}
	if lane.Rate != "0" {
		parts = append(parts, "rate "+plain(lane.Rate))
	}
	return strings.Join(parts, ", ")
}

// laneFlags choose a channel, or one class of it.
type laneFlags struct {
	Channel string `arg:"" name:"channel-id" help:"The channel's id."`
	Class   string `enum:",send,bulk" default:"" help:"Only this class: send or bulk."`
	JSON    bool   `help:"Print JSON, a lane on each line."`
}

type lanesPauseCmd struct {
	connection
	laneFlags
}

// Help is the detailed help.
func (*lanesPauseCmd) Help() string {
	return `Nothing of the channel is sent any more, through every restart, until it is resumed; its messages wait. A call under way ends as it does.

Example:
  wazzupctl lanes pause a0000000-0000-4000-8000-000000000001 --class bulk`
}

// Run pauses lanes.
func (c *lanesPauseCmd) Run(ctx context.Context, e *env) error {
	return c.change(ctx, e, &c.connection, "lane.pause")
}

type lanesResumeCmd struct {
	connection
	laneFlags
}

// Help is the detailed help.
func (*lanesResumeCmd) Help() string {
	return `Ends an operator's pause, the spam brake and the pause after a flood. It does not open what Wazzup has closed.

Example:
  wazzupctl lanes resume a0000000-0000-4000-8000-000000000001`
}

// Run resumes lanes.
func (c *lanesResumeCmd) Run(ctx context.Context, e *env) error {
	return c.change(ctx, e, &c.connection, "lane.resume")
}

// change asks the account's owner to pause or resume, and prints how the lanes
// stand then.
func (f *laneFlags) change(ctx context.Context, e *env, at *connection, request string) error {
	if !schema.ValidUUID(f.Channel) {
		return &relay.UsageError{Err: fmt.Errorf("%q is no channel's id: a uuid in lower case, see `wazzupctl channels`", f.Channel)}
	}
	cl, err := at.connect(ctx, e)
	if err != nil {
		return err
	}
	defer cl.Close()
	body := map[string]string{"channelId": f.Channel}
	if f.Class != "" {
		body["class"] = f.Class
	}
	var answer struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := cl.request(ctx, request, body, &answer); err != nil {
		return err
	}
	return cl.printLanes(answer.Items, f.JSON)
}
