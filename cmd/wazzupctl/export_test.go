package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strconv"

	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// Run is the whole program, with its standard input.
func Run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	return runWith(ctx, args, getenv, stdin, stdout, stderr)
}

// GuardChecks are what doctor makes of an answer to webhooks.get: the result and
// name of each check.
func GuardChecks(answer string) ([]string, error) {
	var now registered
	if err := json.Unmarshal([]byte(answer), &now); err != nil {
		return nil, err
	}
	d := &doctor{}
	d.guard(&now)
	var all []string
	for _, c := range d.results {
		all = append(all, c.Result+" "+c.Name)
	}
	return all, nil
}

// EventLine is what watch prints of an event.
func EventLine(subject, body string) string {
	e := &event{Subject: subject, Body: []byte(body)}
	e.parse()
	return newPrinter(io.Discard, io.Discard, func(string) string { return "" }).eventLine(e)
}

// LaneChecks are what doctor makes of a list of lanes, where the channel list has
// shown one channel that is not active.
func LaneChecks(lanes, shut string) ([]string, error) {
	var items []sender.LaneItem
	if err := json.Unmarshal([]byte(lanes), &items); err != nil {
		return nil, err
	}
	d := &doctor{vendorUp: true, shut: map[string]bool{shut: true}}
	d.judge(items)
	var all []string
	for _, c := range d.results {
		text := c.Result + " " + c.Name + " " + c.Detail
		if c.Mend != "" {
			text += " -> " + c.Mend
		}
		all = append(all, text)
	}
	return all, nil
}

// KeyCheck is what doctor makes of a channel list that was refused.
func KeyCheck(fault string, status int) (string, error) {
	refused := &apiError{Status: status}
	if err := json.Unmarshal([]byte(fault), &refused.Fault); err != nil {
		return "", err
	}
	d := &doctor{}
	d.key(refused)
	return d.results[0].Result + " " + d.results[0].Name + " " + d.results[0].Detail, nil
}

// ReadRows reads a file to its end: each row as its line and its item or fault.
func ReadRows(in io.Reader, format string, e schema.Entity, ids, numbers bool) (rows []string, err error) {
	s, err := newSource(io.NopCloser(in), 0, format, rowForm{entity: e, ids: ids, numbers: numbers})
	if err != nil {
		return nil, err
	}
	for {
		some, err := s.next()
		for _, r := range some {
			text := string(r.item)
			if r.err != nil {
				text = "! " + r.err.Error()
			}
			rows = append(rows, strconv.Itoa(r.line)+" "+text)
		}
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
	}
}

// DrawReport draws the progress of a file of which half the bytes were read.
func DrawReport(terminal io.Writer) {
	r := &report{
		printer: &printer{out: io.Discard, progress: terminal},
		source:  &source{read: &countingReader{n: 50}, size: 100},
	}
	r.row()
	r.stored(1) // too soon to be drawn
	r.refused(1, "", schema.StateInvalid, nil)
	_ = r.end(nil) // that something was refused is another test's
}

// Bar opens the progress bar to tests.
func Bar(share float64) string { return bar(share) }
