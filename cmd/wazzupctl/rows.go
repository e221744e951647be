package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// The forms of a file of rows.
const (
	formatCSV    = "csv"
	formatNDJSON = "ndjson"
)

// maxRow bounds a line or a CSV record, in bytes: no command can hold more, so a
// file of any size is read within little memory.
const maxRow = schema.MaxBodySize

// row is one item of a file.
type row struct {
	line int // where it begins, from 1
	item json.RawMessage
	err  error // it is faulty: item is nil
}

// rowForm says what the rows are to become.
type rowForm struct {
	entity  schema.Entity
	ids     bool // of a delete: ids, and nothing else
	numbers bool // of CSV: ids that are whole numbers are JSON numbers
}

// source reads rows one after the other.
type source struct {
	next func() ([]row, error) // io.EOF after the last; another error ends the file too
	read *countingReader
	size int64 // bytes; 0 = not known
}

// share is how much of the file has been read, 0 to 1; -1 = not known.
func (s *source) share() float64 {
	if s.size == 0 {
		return -1
	}
	return min(float64(s.read.n)/float64(s.size), 1)
}

// Close closes the file.
func (s *source) Close() error { return s.read.Close() }

// countingReader counts what is read, and refuses to read more than the budget of
// one row before that is renewed.
type countingReader struct {
	io.ReadCloser
	n      int64
	budget int64
}

var errLongRow = fmt.Errorf("is longer than %d bytes, or a quote is never closed: nothing after it can be read", maxRow)

func (r *countingReader) Read(p []byte) (int, error) {
	if r.budget <= 0 {
		return 0, errLongRow
	}
	n, err := r.ReadCloser.Read(p)
	r.n += int64(n)
	r.budget -= int64(n)
	return n, err
}

const rowBuffer = 64 << 10

func (r *countingReader) renew() { r.budget = maxRow + rowBuffer }

func formatOfName(name string) string {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".csv", ".tsv":
		return formatCSV
	case ".ndjson", ".jsonl", ".json":
		return formatNDJSON
	}
	return ""
}

// newSource reads from r, which it closes in the end. Without a format the first
// character tells: JSON values begin with a brace, a bracket or a quote.
func newSource(r io.ReadCloser, size int64, format string, form rowForm) (*source, error) {
	s := &source{read: &countingReader{ReadCloser: r}, size: size}
	s.read.renew()
	in := bufio.NewReaderSize(s.read, rowBuffer)
	if mark, err := in.Peek(3); err == nil && string(mark) == "\ufeff" { // of Windows programs
		_, _ = in.Discard(len(mark)) // it is in the buffer
	}
	if format == "" {
		format = formatCSV
		if first, err := in.Peek(1); err == nil && strings.ContainsRune("{[\"", rune(first[0])) {
			format = formatNDJSON
		}
		if format == formatNDJSON && quotedHeader(in) {
			format = formatCSV
		}
	}
	if format == formatNDJSON {
		s.next = s.ndjson(in)
		return s, nil
	}
	next, err := s.csv(in, form)
	if err != nil {
		return nil, err
	}
	s.next = next
	return s, nil
}

// quotedHeader tells a CSV header whose first field is quoted from an id in JSON.
func quotedHeader(in *bufio.Reader) bool {
	line := firstLine(in)
	return len(line) > 0 && line[0] == '"' && !json.Valid(bytes.TrimSpace(line))
}

// firstLine looks at the first line, as far as it fits into the buffer. It waits for
// no more than that: a pipe may bring the next line much later.
func firstLine(in *bufio.Reader) []byte {
	for n := 1; ; n = in.Buffered() + 1 {
		_, err := in.Peek(n)
		head, _ := in.Peek(in.Buffered()) // it is there
		line, _, whole := bytes.Cut(head, []byte("\n"))
		if whole || err != nil || n >= rowBuffer {
			return line
		}
	}
}

// ndjson reads a value a line; the items of an array stand for themselves.
func (s *source) ndjson(in *bufio.Reader) func() ([]row, error) {
	line := 0
	return func() ([]row, error) {
		for {
			s.read.renew()
			text, err := in.ReadBytes('\n')
			if errors.Is(err, io.EOF) && len(text) > 0 {
				err = nil // the last line lacks its end
			}
			if errors.Is(err, errLongRow) {
				return []row{{line: line + 1, err: errLongRow}}, io.EOF
			}
			if err != nil {
				return nil, err
			}
			line++
			if text = bytes.TrimSpace(text); len(text) == 0 {
				continue
			}
			return lineRows(line, text), nil
		}
	}
}

// lineRows are the rows of a line of NDJSON.
func lineRows(line int, text []byte) []row {
	if text[0] != '[' {
		return []row{{line: line, item: text}}
	}
	var items []json.RawMessage
	if json.Unmarshal(text, &items) != nil {
		return []row{{line: line, err: errors.New("is no JSON: write one value on each line")}}
	}
	rows := make([]row, len(items))
	for i, item := range items {
		rows[i] = row{line: line, item: item}
	}
	return rows
}

// csv reads the header and returns what reads the records.
func (s *source) csv(in *bufio.Reader, form rowForm) (func() ([]row, error), error) {
	first := firstLine(in)
	r := csv.NewReader(in)
	r.ReuseRecord = true
	r.FieldsPerRecord = -1
	r.Comma = separator(first)
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return func() ([]row, error) { return nil, io.EOF }, nil
	}
	if err != nil {
		return nil, &relay.UsageError{Err: fmt.Errorf("line 1: %w", reason(err))}
	}
	columns, err := columnsOf(slices.Clone(header), form)
	if err != nil {
		return nil, &relay.UsageError{Err: fmt.Errorf("line 1: %w", err)}
	}
	last := 1 // line that was read
	return func() ([]row, error) {
		s.read.renew()
		record, err := r.Read()
		switch syntax, isSyntax := errors.AsType[*csv.ParseError](err); {
		case errors.Is(err, errLongRow):
			return []row{{line: last + 1, err: errLongRow}}, io.EOF
		case isSyntax:
			last = syntax.Line
			return []row{{line: syntax.StartLine, err: reason(err)}}, nil
		case err != nil:
			return nil, err
		}
		line, _ := r.FieldPos(0)
		last, _ = r.FieldPos(len(record) - 1)
		if len(record) != len(columns) {
			return []row{{line: line, err: fmt.Errorf("has %d fields, the first line %d", len(record), len(columns))}}, nil
		}
		item, err := itemOf(record, columns, form)
		return []row{{line: line, item: item, err: err}}, nil
	}, nil
}

// reason is a fault of CSV without its place, which is told anyway.
func reason(err error) error {
	if syntax, ok := errors.AsType[*csv.ParseError](err); ok {
		return syntax.Err
	}
	return err
}

// separator is the character that the header has most of.
func separator(header []byte) rune {
	best, most := ',', bytes.Count(header, []byte(","))
	for _, other := range []rune{';', '\t'} {
		if n := bytes.Count(header, []byte(string(other))); n > most {
			best, most = other, n
		}
	}
	return best
}
