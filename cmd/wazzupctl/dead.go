package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

type deadCmd struct {
	List    deadListCmd    `cmd:"" help:"List the commands that ended dead."`
	Show    deadShowCmd    `cmd:"" help:"Show one of them, its body included."`
	Redrive deadRedriveCmd `cmd:"" help:"Have them carried out again, under their own ids."`
	Drop    deadDropCmd    `cmd:"" help:"Throw them away."`
}

// deadChoice are the flags that choose dead letters; all that are given must hold.
type deadChoice struct {
	IDs     []string `name:"id" sep:"none" group:"Choice" placeholder:"ID" help:"This command; may be given many times, and goes without the flags below."`
	Code    string   `group:"Choice" help:"Only those of this error code, such as TIMEOUT."`
	Channel string   `name:"channel-id" aliases:"channel" group:"Choice" placeholder:"UUID" help:"Only this channel."`
	Fate    string   `group:"Choice" help:"Only unsent (surely not sent) or unknown (may have been sent)."`
	Before  string   `group:"Choice" placeholder:"WHEN" help:"Only those that died before: a time with zone, or a span back from now (24h)."`
	After   string   `group:"Choice" placeholder:"WHEN" help:"Only those that died then or later; written like --before."`
	Group   string   `group:"Choice" help:"Only this group."`
}

// request is the part of a request that chooses; nil = no flag was given.
func (c *deadChoice) request(now time.Time) (map[string]any, error) {
	before, beforeErr := pastTime("--before", c.Before, now)
	after, afterErr := pastTime("--after", c.After, now)
	filter := make(map[string]string)
	for name, value := range map[string]string{
		"code": c.Code, "channelId": c.Channel, "fate": c.Fate, "group": c.Group,
		"before": filterTime(before), "after": filterTime(after),
	} {
		if value != "" {
			filter[name] = value
		}
	}
	var fateErr, channelErr, bothErr error
	if c.Fate != "" && c.Fate != string(sender.FateUnsent) && c.Fate != string(sender.FateUnknown) {
		fateErr = errors.New("--fate: must be unsent or unknown")
	}
	if c.Channel != "" && !schema.ValidUUID(c.Channel) {
		channelErr = errors.New("--channel-id: is no uuid in lower case")
	}
	if len(c.IDs) > 0 && len(filter) > 0 {
		bothErr = errors.New("--id: goes without the flags that choose by what the letters say")
	}
	if err := errors.Join(beforeErr, afterErr, fateErr, channelErr, bothErr); err != nil {
		return nil, err
	}
	switch {
	case len(c.IDs) > 0:
		return map[string]any{"ids": c.IDs}, nil
	case len(filter) > 0:
		return map[string]any{"filter": filter}, nil
	}
	return nil, nil //nolint:nilnil // no choice is one
}

func filterTime(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
}

// someRequest is request for a command that must not mean all letters by accident.
func (c *deadChoice) someRequest(now time.Time, all bool) (map[string]any, error) {
	chosen, err := c.request(now)
	switch {
	case err != nil:
		return nil, err
	case all && chosen != nil:
		return nil, errors.New("--all: goes without other flags that choose")
	case all:
		return map[string]any{"filter": map[string]string{}}, nil
	case chosen == nil:
		return nil, errors.New("which ones? Give --id, a flag that chooses, or --all")
	}
	return chosen, nil
}

// ready is the client and the choice of one run; the faults of both are told at
// once.
func (c *connection) ready(ctx context.Context, e *env, chosen map[string]any, chosenErr error) (*client, map[string]any, error) {
	settings, settingsErr := c.settings(e)
	if err := joinFaults(settingsErr, chosenErr); err != nil {
		return nil, nil, err
	}
	cl, err := c.connectWith(ctx, e, settings)
	return cl, chosen, err
}

type deadListCmd struct {
	connection
	deadChoice
	JSON bool `help:"Print JSON, a letter a line."`
}

// Help is the detailed help.
func (*deadListCmd) Help() string {
	return `Lists dead letters, oldest death first: what surely was not sent, and what may have been.

Examples:
  wazzupctl dead list
  wazzupctl dead list --fate unknown --after 24h
  wazzupctl dead list --code TIMEOUT --json`
}

// Run prints the letters, page by page.
func (c *deadListCmd) Run(ctx context.Context, e *env) error {
	chosen, err := c.request(time.Now())
	cl, chosen, err := c.ready(ctx, e, chosen, err)
	if err != nil {
		return err
	}
	defer cl.Close()
	fates := make(map[sender.Fate]int)
	query := maps.Clone(chosen)
	if query == nil {
		query = make(map[string]any)
	}
	for {
		var page sender.DeadList
		if err := cl.request(ctx, "dead.list", query, &page); err != nil {
			return err
		}
		for _, item := range page.Items {
			fates[item.Fate]++
			if err := c.print(cl, &item); err != nil {
				return err
			}
		}
		if page.Next == 0 {
			break
		}
		query["offset"] = page.Next
	}
	if !c.JSON {
		cl.Printf("%s\n", fateCount("dead letters", fates[sender.FateUnsent], fates[sender.FateUnknown]))
	}
	return nil
}

func (c *deadListCmd) print(cl *client, item *sender.DeadItem) error {
	if c.JSON {
		return cl.JSON(item)
	}
	cl.Printf("%s  %s  %s  %s  %s\n", cl.tint(faint, item.At.Local().Format(time.DateTime)), cl.fate(item.Fate), pad(string(item.Kind), 5),
		cl.tint(bold, pad(plain(item.ID), 24)), cl.why(item))
	return nil
}

// fate is a word of a fixed width.
func (p *printer) fate(f sender.Fate) string {
	if f == sender.FateUnsent {
		return p.tint(good, pad("unsent", 7))
	}
	return p.tint(warn, pad("unknown", 7))
}

// why is what a letter says of its end, without the vendor's own words.
func (p *printer) why(item *sender.DeadItem) string {
	parts := []string{p.tint(bad, plain(item.Code)), string(item.Reason), fmt.Sprintf("attempt %d", item.Attempt)}
	if item.Generation > 0 {
		parts = append(parts, fmt.Sprintf("redriven %d times", item.Generation))
	}
	if item.Group != "" {
		parts = append(parts, "group="+plain(item.Group))
	}
	if item.ChannelID != "" {
		parts = append(parts, p.tint(faint, plain(item.ChannelID)))
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "  ")
}

func fateCount(what string, unsent, unknown int) string {
	if unsent+unknown == 0 {
		return "no " + what
	}
	return fmt.Sprintf("%d %s: %d proven unsent, %d in doubt", unsent+unknown, what, unsent, unknown)
}

type deadShowCmd struct {
	connection
	ID   string `arg:"" help:"The command's id."`
	JSON bool   `help:"Print JSON."`
}

// Help is the detailed help.
func (*deadShowCmd) Help() string {
	return `Shows a dead letter with the command's body, which holds the text and the recipient.

Example:
  wazzupctl dead show order-1042-shipped`
}

// Run prints one letter.
func (c *deadShowCmd) Run(ctx context.Context, e *env) error {
	cl, err := c.connect(ctx, e)
	if err != nil {
		return err
	}
	defer cl.Close()
	var raw json.RawMessage
	if err := cl.request(ctx, "dead.show", map[string]string{"id": c.ID}, &raw); err != nil {
		if refused, ok := errors.AsType[*apiError](err); ok && refused.Status == 404 {
			return fmt.Errorf("no dead letter %q in account %s: its command is not dead, was redriven or dropped, or died longer ago than letters are kept", c.ID, cl.account)
		}
		return err
	}
	if c.JSON {
		return cl.JSON(raw)
	}
	var d sender.DeadDetail
	if err := json.Unmarshal(raw, &d); err != nil {
		return fmt.Errorf("read dead letter: %w", err)
	}
	e.Printf("%s %s died %s\n", e.tint(bold, plain(d.ID)), d.Kind, d.At.Local().Format(time.DateTime))
	e.Printf("  %s  %s  number %d\n", cl.fate(d.Fate), cl.why(&d.DeadItem), d.Seq)
	if d.Description != "" {
		e.Printf("  %s\n", plainLine(d.Description))
	}
	e.Printf("  %s\n", plain(d.Subject))
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		for _, value := range d.Headers[name] {
			e.Printf("  %s: %s\n", plain(name), plainLine(value))
		}
	}
	e.Printf("  %s\n", d.Body) // JSON: it holds no control characters
	return nil
}

// plainLine is text of somebody else on one line of a terminal.
func plainLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}

type deadRedriveCmd struct {
	connection
	deadChoice
	All            bool   `group:"Choice" help:"All of them."`
	DryRun         bool   `name:"dry-run" help:"Only say how many there are."`
	Rate           string `placeholder:"N/SPAN" help:"Spread them evenly at this rate, such as 10/1s; the server keeps it even if no worker runs. Default: as fast as the account's rates allow."`
	IncludeUnknown bool   `name:"include-unknown" help:"Those in doubt too: the customer may get the message twice."`
	JSON           bool   `help:"Print JSON."`
}

// Help is the detailed help.
func (*deadRedriveCmd) Help() string {
	return `Counts first, then redrives: each command goes on under its own id, and what is published again under that id is still a duplicate. Those in doubt are left alone unless --include-unknown is given. A request that takes too long says how far it came: run it again for the rest.

Examples:
  wazzupctl dead redrive --id order-1042-shipped
  wazzupctl dead redrive --code TIMEOUT --after 2h --dry-run
  wazzupctl dead redrive --group autumn --rate 10/1s`
}

// Run redrives letters, after it has said how many there are.
func (c *deadRedriveCmd) Run(ctx context.Context, e *env) error {
	chosen, chosenErr := c.someRequest(time.Now(), c.All)
	cl, query, err := c.ready(ctx, e, chosen, errors.Join(chosenErr, c.check()))
	if err != nil {
		return err
	}
	defer cl.Close()
	there, err := cl.redrive(ctx, query, map[string]any{"dryRun": true})
	if err != nil {
		return err
	}
	if !c.JSON {
		e.Printf("%s\n", fateCount("dead letters", there.Unsent, there.Unknown))
	}
	if !c.DryRun {
		if there.Unsent == 0 && !c.IncludeUnknown {
			return errors.New("nothing was redriven: all of these are in doubt, and the customers may have the messages; --include-unknown redrives them all the same")
		}
		more := map[string]any{"includeUnknown": c.IncludeUnknown}
		if c.Rate != "" {
			more["rate"] = c.Rate
		}
		e.Progress("redriving")
		there, err = cl.redrive(ctx, query, more)
		e.Done()
		if err != nil {
			return err
		}
	}
	if c.JSON {
		return cl.JSON(there)
	}
	if !c.DryRun {
		e.Printf("%d redriven", there.Redriven)
		if left := there.Unknown; left > 0 && !c.IncludeUnknown {
			e.Printf(", %d in doubt left alone", left)
		}
		e.Printf("\n")
	}
	return nil
}

func (c *deadRedriveCmd) check() error {
	if c.Rate == "" {
		return nil
	}
	if _, err := rate.Parse(c.Rate); err != nil {
		return fmt.Errorf("--rate: %w", err)
	}
	return nil
}

// redrive asks for a redrive of what the query chooses.
func (c *client) redrive(ctx context.Context, query, more map[string]any) (*sender.RedriveAnswer, error) {
	body := maps.Clone(query)
	maps.Copy(body, more)
	var answer sender.RedriveAnswer
	if err := c.request(ctx, "dead.redrive", body, &answer); err != nil {
		return nil, err
	}
	return &answer, nil
}

type deadDropCmd struct {
	connection
	deadChoice
	All  bool `group:"Choice" help:"All of them."`
	JSON bool `help:"Print JSON."`
}

// Help is the detailed help.
func (*deadDropCmd) Help() string {
	return `Throws dead letters away: they cannot be redriven any more. Their timelines and events stay as long as others.

Examples:
  wazzupctl dead drop --id order-1042-shipped
  wazzupctl dead drop --before 240h`
}

// Run drops letters.
func (c *deadDropCmd) Run(ctx context.Context, e *env) error {
	chosen, err := c.someRequest(time.Now(), c.All)
	cl, query, err := c.ready(ctx, e, chosen, err)
	if err != nil {
		return err
	}
	defer cl.Close()
	var answer sender.DropAnswer
	if err := cl.request(ctx, "dead.drop", query, &answer); err != nil {
		return err
	}
	if c.JSON {
		return cl.JSON(answer)
	}
	e.Printf("%d dropped\n", answer.Dropped)
	return nil
}
