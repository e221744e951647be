package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	root   = "../.."
	readme = "README.md"
)

// read returns a file of the project.
func read(tb testing.TB, path string) string {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

// pages lists the pages that users read.
func pages(tb testing.TB) []string {
	tb.Helper()
	out := []string{readme, "CHANGELOG.md"}
	for _, pattern := range []string{"docs/*.md", "examples/*.md", "examples/*/*.md"} {
		all, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(all) == 0 {
			tb.Fatalf("pages: %v, %v", all, err)
		}
		for _, path := range all {
			page, err := filepath.Rel(root, path)
			if err != nil {
				tb.Fatal(err)
			}
			out = append(out, filepath.ToSlash(page))
		}
	}
	return out
}

func marker(name, edge string) string { return "<!-- " + name + ":" + edge + " -->" }

// block returns the part of a page between two markers.
func block(tb testing.TB, path, name string) string {
	tb.Helper()
	_, rest, begun := strings.Cut(read(tb, path), marker(name, "begin")+"\n")
	text, _, ended := strings.Cut(rest, marker(name, "end"))
	if !begun || !ended {
		tb.Fatalf("%s has no block %s", path, name)
	}
	return text
}

// column returns the first cell of each row of a block's tables, without its code
// marks.
func column(tb testing.TB, path, name string) []string {
	tb.Helper()
	var cells []string
	for _, row := range rows(block(tb, path, name)) {
		cells = append(cells, row[0])
	}
	if len(cells) == 0 {
		tb.Fatalf("%s: block %s has no rows", path, name)
	}
	return cells
}

// rows returns the cells of those rows of tables whose first cell is code, but for
// the heads of tables.
func rows(text string) [][]string {
	var all [][]string
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| `") || i+1 < len(lines) && strings.HasPrefix(lines[i+1], "| ---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		cells[0] = strings.Trim(cells[0], "`")
		all = append(all, cells)
	}
	return all
}

// sameSet reports what only one of two lists holds.
func sameSet(tb testing.TB, what string, got, want []string) {
	tb.Helper()
	for _, w := range want {
		if !slices.Contains(got, w) {
			tb.Errorf("%s: %s is missing", what, w)
		}
	}
	for i, g := range got {
		if !slices.Contains(want, g) {
			tb.Errorf("%s: %s does not exist", what, g)
		}
		if slices.Contains(got[:i], g) {
			tb.Errorf("%s: %s is listed twice", what, g)
		}
	}
}

// fence is a fenced block of code.
type fence struct {
	page, language, text string
	line                 int
}

func fences(tb testing.TB, path string) []fence {
	tb.Helper()
	var all []fence
	var open *fence
	number := 0
	for line := range strings.Lines(read(tb, path)) {
		number++
		mark, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case ok && open == nil:
			open = &fence{page: path, language: mark, line: number}
		case ok:
			all = append(all, *open)
			open = nil
		case open != nil:
			open.text += line
		}
	}
	if open != nil {
		tb.Fatalf("%s:%d: a block of code does not end", path, open.line)
	}
	return all
}

// goFiles lists the module's own Go files, tests left out; other modules below it
// have their own.
func goFiles(tb testing.TB, tests bool) []string {
	tb.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, statErr := os.Stat(filepath.Join(path, "go.mod"))
			if path != root && (statErr == nil || strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(path, ".go") && (tests || !strings.HasSuffix(path, "_test.go")) {
			files = append(files, filepath.ToSlash(path))
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

// variables are those that a text mentions.
func variables(text string) []string {
	return regexp.MustCompile(`\b(?:WAZZUP|NATS|WEBHOOK|EMBEDDED|INGEST|ADMIN|PUBLIC|LOG)_[A-Z_]*[A-Z]\b`).FindAllString(text, -1)
}
