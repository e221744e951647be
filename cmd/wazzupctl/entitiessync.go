package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// sourceFlags say where rows come from, and in which form.
type sourceFlags struct {
	Format  string `enum:",csv,ndjson" default:"" help:"csv or ndjson; without it the file's name tells, or its first character."`
	Numbers bool   `help:"Of CSV: write ids that are whole numbers as JSON numbers, not as strings."`
}

// bulkFlags say how many commands are made and what becomes of them.
type bulkFlags struct {
	Batch   int           `default:"100" help:"Items in one command; Wazzup takes up to 100 in a request (default ${default})."`
	NoWait  bool          `name:"no-wait" help:"End when everything is stored, without waiting for the outcome."`
	Timeout time.Duration `default:"1m" help:"Give up waiting after so long without any outcome (default ${default}); what is stored goes on."`
	JSON    bool          `help:"Print JSON: a line for each item that was refused, then the sums."`

	empty bool // of a replace: without users, too
}

// maxItems is how many items Wazzup takes in a request.
const maxItems = 100

func (f *bulkFlags) check() error {
	// Of a command's refused items its event names as many as fit: those of more than
	// a request's might not.
	if f.Batch < 1 || f.Batch > maxItems {
		return fmt.Errorf("--batch: must be 1 to %d", maxItems)
	}
	if f.Timeout <= 0 {
		return errors.New("--timeout: must be positive")
	}
	return nil
}

// formatHelp tells how rows are written, once for all commands that read them.
const formatHelp = `NDJSON: an object on each line (or an array of them), as Wazzup's manual has it; fields that it does not know pass through. CSV: the first line names the fields; an empty cell leaves its field out, and all texts stay texts, "closed" apart (true or false). Of contacts, chatType and chatId make a chat, chatType2 and chatId2 another; deals and contacts hold ids separated by semicolons. The separator is a comma, a semicolon or a tab, whichever the first line has.

Lines that are faulty are named and left out; the others are stored. The exit code is 1 if anything was refused, here or by Wazzup.`

type upsertCmd[E entity] struct {
	connection
	sourceFlags
	bulkFlags
	File string `arg:"" help:"The file to read; - reads standard input."`
}

// Help is the detailed help.
func (*upsertCmd[E]) Help() string {
	name := nameOf[E]()
	return fmt.Sprintf(`%s

Examples:
  wazzupctl %s upsert %s.csv
  wazzupctl %s upsert - --json < %s.ndjson`, formatHelp, name, name, name, name)
}

// Run stores what the file holds and waits for the outcome.
func (c *upsertCmd[E]) Run(ctx context.Context, e *env) error {
	var which E
	return c.bulkFlags.run(ctx, e, &c.connection, schema.SyncKind(which.entity(), schema.VerbUpsert), func() (*source, error) {
		return c.open(e, c.File, rowForm{entity: which.entity()})
	})
}

type deleteCmd[E entity] struct {
	connection
	sourceFlags
	bulkFlags
	IDs  []string `arg:"" optional:"" name:"ids" help:"Ids in the CRM."`
	File string   `placeholder:"FILE" help:"Instead: a file of ids, or - for standard input: NDJSON of ids or of objects with an id and nothing else, or CSV with the only column id."`
}

// Help is the detailed help.
func (*deleteCmd[E]) Help() string {
	name := nameOf[E]()
	return fmt.Sprintf(`To delete what is not there is no failure.

Examples:
  wazzupctl %s delete 17 18
  wazzupctl %s delete --file gone.csv`, name, name)
}

// Run deletes what was named and waits for the outcome.
func (c *deleteCmd[E]) Run(ctx context.Context, e *env) error {
	if (len(c.IDs) > 0) == (c.File != "") {
		return &relay.UsageError{Err: errors.New("which ones? Name their ids, or a --file")}
	}
	var which E
	return c.bulkFlags.run(ctx, e, &c.connection, schema.SyncKind(which.entity(), schema.VerbDelete), func() (*source, error) {
		if c.File == "" {
			return newSource(io.NopCloser(strings.NewReader(idLines(c.IDs))), 0, formatNDJSON, rowForm{entity: which.entity(), ids: true})
		}
		return c.open(e, c.File, rowForm{entity: which.entity(), ids: true})
	})
}

type replaceCmd struct {
	connection
	sourceFlags
	bulkFlags
	File  string `arg:"" help:"The file to read; - reads standard input."`
	Empty bool   `help:"Allow a file without users, which deletes all."`
}

// Help is the detailed help.
func (*replaceCmd) Help() string {
	return formatHelp + ` But since users who are missing are deleted, nothing at all is stored if a line is faulty. The list is one command: it must fit into 1 MiB.

Example:
  wazzupctl users replace users.csv`
}

// Run makes the file the whole list.
func (c *replaceCmd) Run(ctx context.Context, e *env) error {
	c.empty = c.Empty
	return c.bulkFlags.run(ctx, e, &c.connection, schema.KindUsersReplace, func() (*source, error) {
		return c.open(e, c.File, rowForm{entity: schema.EntityUsers})
	})
}

// open reads a file, or standard input.
func (f *sourceFlags) open(e *env, name string, form rowForm) (*source, error) {
	form.numbers = f.Numbers
	format := f.Format
	if name == "-" {
		return newSource(io.NopCloser(e.stdin), 0, format, form)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, &relay.UsageError{Err: err}
	}
	size := int64(0)
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	if format == "" {
		format = formatOfName(name)
	}
	s, err := newSource(file, size, format, form)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return s, nil
}
