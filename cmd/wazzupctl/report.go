package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// sums count items. Stored ones are done, refused, or have not ended.
type sums struct {
	Items   int `json:"items"`   // read
	Stored  int `json:"stored"`  // taken by NATS
	Done    int `json:"done"`    // taken by Wazzup
	Refused int `json:"refused"` // here, or by Wazzup
}

// report tells what becomes of the rows of a file. Its methods may be called by
// several goroutines.
type report struct {
	*printer
	asJSON bool
	source *source

	mu    sync.Mutex
	sums  sums
	drawn time.Time
	lost  error // the first line that could not be printed
	empty error // how a command without items ended, if not well
}

// refusedItem is one item that was refused, as programs get it.
type refusedItem struct {
	Line  int           `json:"line"`
	ID    string        `json:"id,omitempty"`
	State schema.State  `json:"state"`
	Error *schema.Error `json:"error,omitempty"`
}

// row counts an item that was read.
func (r *report) row() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sums.Items++
	r.draw()
}

func (r *report) stored(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sums.Stored += n
	r.draw()
}

// refused tells of one item that is not taken, and why.
func (r *report) refused(line int, id string, state schema.State, e *schema.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sums.Refused++
	if r.asJSON {
		if err := r.JSON(refusedItem{line, id, state, e}); err != nil && r.lost == nil {
			r.lost = err
		}
		return
	}
	text := fmt.Sprintf("line %d", line)
	if id != "" {
		text += "  " + plain(id)
	}
	text += "  " + r.tint(bad, string(state))
	if e != nil {
		text += "  " + plain(e.Code)
		if e.Description != "" {
			text += ": " + plainLine(e.Description)
		}
	}
	r.Printf("%s\n", text)
}

// notStored tells of items that NATS did not take.
func (r *report) notStored(one *batch) {
	for id, line := range one.sorted() {
		r.refused(line, id, schema.StatePending, &schema.Error{Code: "NOT_STORED", Class: schema.ClassRetryable, Description: "NATS did not take the command"})
	}
}

// ended tells how the items of a command ended.
func (r *report) ended(one *batch, e *schema.CommandEvent) {
	refused := make(map[string]*schema.Error)
	switch {
	case e.State == schema.StateDone:
	case e.State == schema.StateRejected && len(e.Items) > 0: // the others were taken
		for _, item := range e.Items {
			refused[schema.EntityID(item.ID)] = item.Error
		}
	default:
		for id := range one.lines {
			refused[id] = e.Error
		}
	}
	for id, line := range one.sorted() {
		if err, is := refused[id]; is {
			r.refused(line, id, e.State, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sums.Done += one.count - len(refused)
	if e.State != schema.StateDone && one.count == 0 {
		r.empty = fmt.Errorf("the command ended %s%s", e.State, because(e))
	}
	r.draw()
}

// draw shows how far it is, on a terminal, ten times a second at most. The mutex
// is held.
func (r *report) draw() {
	if now := time.Now(); r.progress != nil && now.Sub(r.drawn) >= time.Second/10 {
		r.drawn = now
		r.Progress(bar(r.source.share()) + fmt.Sprintf("%d read, %d stored, %d done, %d refused", r.sums.Items, r.sums.Stored, r.sums.Done, r.sums.Refused))
	}
}

// bar is a share as a bar with its figure; nothing where it is not known.
func bar(share float64) string {
	const width = 24
	if share < 0 {
		return ""
	}
	full := int(share * width)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + fmt.Sprintf("] %3.0f %%  ", share*100)
}

// end prints the sums. The error is that of the whole run.
func (r *report) end(err error) error {
	r.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asJSON {
		if printed := errors.Join(r.JSON(r.sums), r.lost); err == nil {
			err = printed
		}
	} else {
		r.Printf("%d read, %d stored, %d done, %d refused\n", r.sums.Items, r.sums.Stored, r.sums.Done, r.sums.Refused)
	}
	if err == nil {
		err = r.empty
	}
	if err == nil && r.sums.Refused > 0 {
		err = fmt.Errorf("%d of %d items were refused", r.sums.Refused, r.sums.Items)
	}
	return err
}
