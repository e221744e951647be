package docs_test

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestLinks follows every link between the pages, to files and to headings.
func TestLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	followed := 0
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(withoutCode(t, page), -1) {
			target := m[1]
			if strings.HasPrefix(target, "https://") {
				continue
			}
			followed++
			file, anchor, _ := strings.Cut(target, "#")
			to := page
			if file != "" {
				to = path.Join(path.Dir(page), file)
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, target)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(t, to), anchor) {
				t.Errorf("%s links to %s, and %s has no such heading", page, target, to)
			}
		}
	}
	if followed < 20 {
		t.Errorf("found %d links: the test looks in the wrong place", followed)
	}
}

// TestEveryPageIsReached: a page that nothing links to is not found.
func TestEveryPageIsReached(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for _, page := range pages(t) {
		all.WriteString(read(t, page))
	}
	text := all.String()
	for _, page := range pages(t) {
		if page != readme && !strings.Contains(text, "("+page) && !strings.Contains(text, "("+path.Base(page)) {
			t.Errorf("no page links to %s", page)
		}
	}
}

// withoutCode is a page without its fenced blocks, in which brackets mean
// something else.
func withoutCode(tb testing.TB, page string) string {
	tb.Helper()
	text := read(tb, page)
	for _, f := range fences(tb, page) {
		text = strings.Replace(text, f.text, "", 1)
	}
	return text
}

// anchors are the names that GitHub gives to a page's headings.
func anchors(tb testing.TB, page string) []string {
	tb.Helper()
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^#+ +(.*)$`).FindAllStringSubmatch(withoutCode(tb, page), -1) {
		all = append(all, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, m[1]))
	}
	return all
}
