package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/wazzup-relay/wazzup-relay/sender"
)

// lanes tells of what is paused, which nobody else would remember, and of what is
// closed for a reason that no check before this one shows.
func (d *doctor) lanes(ctx context.Context) {
	var all []sender.LaneItem
	err := d.eachItem(ctx, "lanes.list", &pageFlags{}, func(item json.RawMessage) error {
		var lane sender.LaneItem
		if err := json.Unmarshal(item, &lane); err != nil {
			return fmt.Errorf("read lane: %w", err)
		}
		all = append(all, lane)
		return nil
	})
	if err != nil {
		d.note("lanes", resultBroken, err.Error(), "look at the worker's log")
		return
	}
	d.judge(all)
}

// judge makes the checks of a list of lanes: one of each pause, of each breaker and
// of each channel.
func (d *doctor) judge(all []sender.LaneItem) {
	before, closed, waiting := len(d.results), 0, uint64(0)
	var shut heldUp
	for i := range all {
		lane := &all[i]
		waiting += lane.Backlog
		switch {
		case lane.State == "paused":
			d.note("lane "+laneName(lane)+" "+lane.Class, resultWarning, "paused: "+laneText(lane), pauseMend(lane))
		case lane.State == "open":
		case lane.Reason == "breaker" && lane.Why != "channel":
			closed++
			shut.add("all of "+strings.TrimPrefix(lane.Why, "family "), lane)
		default:
			closed++
			shut.add("channel "+laneName(lane), lane)
		}
	}
	for i, name := range shut.names {
		lane := shut.lanes[i]
		switch {
		case lane.Reason == "breaker":
			d.note(name, resultBroken, "calls fail: "+laneText(&lane), "it goes on by itself; the worker's log lines `call` say what fails (error, status, code): the network, a proxy, Wazzup")
		case d.vendorUp && !d.shut[lane.ChannelID]: // otherwise the key or the channel was told of
			d.note(name, resultBroken, "closed: "+laneText(&lane), closedMend(lane.Reason))
		}
	}
	if len(d.results) == before {
		d.note("lanes", resultOK, fmt.Sprintf("%d, of which %d are closed and none is paused; %d commands wait", len(all), closed, waiting), "")
	}
}

// heldUp are lanes that share a cause: as one, with all that waits in them.
type heldUp struct {
	names []string
	lanes []sender.LaneItem
}

func (h *heldUp) add(name string, lane *sender.LaneItem) {
	i := slices.Index(h.names, name)
	if i < 0 {
		one := *lane
		one.Rate = "0" // of one class only
		h.names, h.lanes = append(h.names, name), append(h.lanes, one)
		return
	}
	all := &h.lanes[i]
	all.Backlog += lane.Backlog
	if all.Oldest == nil || lane.Oldest != nil && lane.Oldest.Before(*all.Oldest) {
		all.Oldest = lane.Oldest
	}
}

// pauseMend says what ends a pause.
func pauseMend(lane *sender.LaneItem) string {
	resume := "`wazzupctl lanes resume " + laneName(lane) + " --class " + lane.Class + "`"
	switch lane.Reason {
	case "spam":
		return "Wazzup rated messages as spam: look at what is sent there, then " + resume
	case "flood":
		return "Wazzup broke off, too many messages: it goes on by itself, or with " + resume
	}
	return resume + ", when it may go on"
}

// closedMend says what opens a channel that was closed by the answer to a call.
func closedMend(reason string) string {
	switch reason {
	case "CHANNEL_NOT_FOUND":
		return "the channel is not in this integration: add it in Wazzup, or correct the producer; messages wait until then"
	case "CHANNEL_BLOCKED":
		return "enable the channel in Wazzup; messages wait until then"
	case "CHANNEL_NO_MONEY":
		return channelMend("notEnoughMoney")
	case "MESSAGE_CHANNEL_UNAVAILABLE":
		return channelMend("phoneUnavailable")
	}
	return channelMend(reason)
}
