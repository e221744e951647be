package bench_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
)

// column is one figure of a table: its unit and how it is printed.
type column struct{ unit, format string }

// table gathers the figures of all rounds.
type table struct {
	columns []column
	rows    []string // in the order of their first round
	figures map[string][][]float64
}

func newTable(columns ...column) *table {
	return &table{columns: columns, figures: make(map[string][][]float64)}
}

// add notes one run's figures, one a column, and reports them as the benchmark's.
func (t *table) add(b *testing.B, row string, figures []float64) {
	b.Helper()
	if t.figures[row] == nil {
		t.rows = append(t.rows, row)
	}
	t.figures[row] = append(t.figures[row], figures)
	for i, c := range t.columns {
		b.ReportMetric(figures[i], c.unit)
	}
	b.ReportMetric(0, "ns/op") // setting the scene is part of it: says nothing
}

func (t *table) median(row string, col int) float64 {
	var all []float64
	for _, figures := range t.figures[row] {
		all = append(all, figures[col])
	}
	slices.Sort(all)
	if n := len(all); n%2 == 0 {
		return (all[n/2-1] + all[n/2]) / 2
	}
	return all[len(all)/2]
}

// print writes the medians, and beside each its ratio to that of the row that
// all are compared with ("" = none).
func (t *table) print(title, base string) {
	if len(t.rows) == 0 {
		return
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, c := range t.columns {
		_, _ = fmt.Fprintf(w, "\t%s\t", c.unit)
	}
	_, _ = fmt.Fprintln(w)
	for _, row := range t.rows {
		_, _ = fmt.Fprint(w, row)
		for i, c := range t.columns {
			_, _ = fmt.Fprintf(w, "\t"+c.format+"\t%s", t.median(row, i), t.ratio(row, base, i))
		}
		_, _ = fmt.Fprintln(w, "\t")
	}
	_ = w.Flush() // a strings.Builder takes everything
	_, _ = fmt.Fprintf(os.Stdout, "\n%s\n%s\n", title, text.String())
}

func (t *table) ratio(row, base string, col int) string {
	if t.figures[base] == nil || row == base || t.median(base, col) == 0 {
		return ""
	}
	return fmt.Sprintf("×%.2f", t.median(row, col)/t.median(base, col))
}
