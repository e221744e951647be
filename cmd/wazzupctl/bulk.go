package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nuid"

	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	maxBatchBytes  = schema.MaxBodySize / 2 // of one command; a larger item makes one of its own
	maxUnderWay    = 256                    // commands whose outcome is awaited: what bounds the memory
	publishTimeout = 10 * time.Second       // of one try to store a command
	publishPause   = time.Second            // before the next, at most: it grows to that
	publishFirst   = 50 * time.Millisecond  // what it begins with
	publishTries   = 6                      // without an answer; a full stream is waited for
)

// bulk stores a file's rows as commands, in their order, and hears of their
// outcome. Its report knows each row by its line.
type bulk struct {
	*client
	*bulkFlags

	kind      schema.Kind
	publisher *queue.Publisher
	source    *source
	report    *report
	outcomes  *outcomes
}

// run is the whole of a command that reads rows.
func (f *bulkFlags) run(ctx context.Context, e *env, at *connection, kind schema.Kind, open func() (*source, error)) error {
	settings, settingsErr := at.settings(e)
	if err := joinFaults(settingsErr, f.check()); err != nil {
		return err
	}
	in, err := open()
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was read only
	cl, err := at.connectWith(ctx, e, settings)
	if err != nil {
		return err
	}
	defer cl.Close()
	b := &bulk{client: cl, bulkFlags: f, kind: kind, source: in, report: &report{printer: cl.printer, asJSON: f.JSON, source: in}}
	if b.publisher, err = queue.NewPublisher(cl.nc, cl.account); err != nil {
		return err
	}
	if !f.NoWait {
		// Before the first command, so that no outcome is missed.
		if b.outcomes, err = cl.listen(ctx, kind, b.report); err != nil {
			return err
		}
		defer b.outcomes.stop()
	}
	if kind == schema.KindUsersReplace {
		err = b.replace(ctx)
	} else {
		err = b.batches(ctx)
	}
	if err == nil && b.outcomes != nil {
		err = b.outcomes.wait(ctx, f.Timeout)
	}
	return b.report.end(err)
}

// batches stores the rows as they come, so many together.
func (b *bulk) batches(ctx context.Context) error {
	batch := newBatch()
	for {
		rows, err := b.source.next()
		for _, r := range rows {
			id, ok := b.check(r)
			if !ok {
				continue
			}
			// Of one id only one item is in a command, so that a refusal names its line.
			if batch.count == b.Batch || batch.size+len(r.item) > maxBatchBytes || batch.lines[id] > 0 {
				if err := b.store(ctx, batch); err != nil {
					return err
				}
				batch = newBatch()
			}
			batch.add(id, r)
		}
		switch {
		case errors.Is(err, io.EOF) && batch.count == 0:
			return nil
		case errors.Is(err, io.EOF):
			return b.store(ctx, batch)
		case err != nil:
			return errors.Join(fmt.Errorf("read rows: %w", err), b.store(ctx, batch))
		}
	}
}

// errFaultyRows: nothing was stored because of them.
var errFaultyRows = errors.New("nothing was stored, since a list that lacks a faulty user would delete that one")

// replace stores all rows as one command, or nothing.
func (b *bulk) replace(ctx context.Context) error {
	batch := newBatch()
	for {
		rows, err := b.source.next()
		for _, r := range rows {
			id, ok := b.check(r)
			if ok && batch.lines[id] > 0 {
				b.report.refused(r.line, id, stateInvalid, &schema.Error{Code: schema.FaultDuplicateName, Description: fmt.Sprintf("the id stands in line %d, too", batch.lines[id])})
				ok = false
			}
			if ok {
				batch.add(id, r)
			}
			if batch.size > schema.MaxBodySize {
				return errors.New("nothing was stored: the list is larger than 1 MiB, which one command may hold")
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read rows: %w", err)
		}
	}
	switch {
	case b.report.sums.Refused > 0:
		return errFaultyRows
	case batch.count == 0 && !b.empty:
		return &relay.UsageError{Err: errors.New("the file holds no user, which would delete all: --empty allows it")}
	}
	return b.store(ctx, batch)
}

// stateInvalid is the state of a row that is refused here.
const stateInvalid = schema.StateInvalid

// check reports the row if it is faulty, by the rules of the worker.
func (b *bulk) check(r row) (id string, ok bool) {
	b.report.row()
	if r.err != nil {
		b.report.refused(r.line, "", stateInvalid, &schema.Error{Code: schema.CodeInvalid, Class: schema.ClassInvalid, Description: r.err.Error()})
		return "", false
	}
	// As the one item of an array: what stands alone could be an envelope.
	whole := append(append([]byte{'['}, r.item...), ']')
	decoded, faults := schema.Decode(b.account, b.kind, "", whole)
	if decoded.Sync != nil && len(decoded.Sync.IDs) > 0 {
		id = schema.EntityID(decoded.Sync.IDs[0])
	}
	if len(faults) == 0 {
		return id, true
	}
	fault := *schema.InvalidError(faults)
	fault.Code, fault.Description = faults[0].Code, rowFault(faults[0])
	b.report.refused(r.line, id, stateInvalid, &fault)
	return "", false
}

// rowFault says what is wrong with a row: the fault's field is that of a list of one.
func rowFault(f schema.Fault) string {
	const list = "[0]"
	field := f.Field
	if len(field) > len(list) && field[:len(list)] == list {
		field = field[len(list)+1:]
	} else if field == list {
		field = ""
	}
	if field == "" {
		return f.Description
	}
	return field + ": " + f.Description
}

// batch is one command in the making.
type batch struct {
	id    string            // the command's
	items []json.RawMessage // until it is stored
	count int               // of them
	lines map[string]int    // by the item's id
	size  int               // bytes
}

func newBatch() *batch {
	return &batch{id: "ctl-" + nuid.Next(), items: []json.RawMessage{}, lines: make(map[string]int), size: len("[]")}
}

// sorted are the items' ids and lines, by line.
func (b *batch) sorted() iter.Seq2[string, int] {
	ids := slices.SortedFunc(maps.Keys(b.lines), func(x, y string) int {
		return cmp.Or(cmp.Compare(b.lines[x], b.lines[y]), cmp.Compare(x, y))
	})
	return func(yield func(string, int) bool) {
		for _, id := range ids {
			if !yield(id, b.lines[id]) {
				return
			}
		}
	}
}

func (b *batch) add(id string, r row) {
	b.items = append(b.items, append(json.RawMessage(nil), r.item...))
	b.count++
	b.lines[id] = r.line
	b.size += len(r.item) + len(",")
}

// store publishes a command until it is stored. A try that was not answered is
// repeated under the same id, so that only one is carried out.
func (b *bulk) store(ctx context.Context, one *batch) error {
	if one.count == 0 && b.kind != schema.KindUsersReplace {
		return nil
	}
	if b.outcomes != nil {
		if err := b.outcomes.expect(ctx, one, b.Timeout); err != nil {
			return err
		}
	}
	entity, verb, _ := b.kind.Sync()
	pause := publishFirst
	for try := 1; ; {
		once, cancel := context.WithTimeout(ctx, publishTimeout)
		_, err := b.publisher.Sync(once, entity, verb, one.items, queue.WithID(one.id))
		cancel()
		switch {
		case err == nil:
			b.report.stored(one.count)
			one.items = nil // hundreds of commands may be awaited
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, queue.ErrFull):
			b.Progress("the account's commands are full: waiting for room")
		case errors.Is(err, queue.ErrNoStream):
			return b.gaveUp(one, noCommands(b.account))
		case try == publishTries:
			return b.gaveUp(one, err)
		default:
			try++
		}
		if err := pauseFor(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, publishPause)
	}
}

// gaveUp reports a command that could not be stored.
func (b *bulk) gaveUp(one *batch, err error) error {
	if b.outcomes != nil {
		b.outcomes.forget(one.id)
	}
	first := 0
	for _, line := range one.sorted() {
		first = line
		break
	}
	b.report.notStored(one)
	return fmt.Errorf("nothing is stored from line %d on: %w", first, err)
}

// noCommands: there is no stream for the account's commands.
func noCommands(account string) error {
	return fmt.Errorf("account %s takes no commands on this NATS server: start a worker for it (cmd/worker, or `wazzupctl dev`), or name another account with --wazzup-account", account)
}

func pauseFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
