package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

//go:generate env UPDATE_GOLDEN=1 go test -count=1 -run ^TestGenerated$ .

// TestGenerated compares the parts of pages that follow from the code alone;
// with UPDATE_GOLDEN=1 it writes them.
func TestGenerated(t *testing.T) {
	t.Parallel()
	for _, part := range []struct {
		page, name string
		text       func(testing.TB) string
	}{
		{readme, "classification", classification},
		{readme, "targets", targets},
		{readme, "endpoints", endpoints},
		{"docs/configuration.md", "settings", settings},
		{"docs/commands.md", "faults", faults},
		{"docs/events.md", "kinds", kinds},
		{"docs/keys.md", "languages", keyFiles},
	} {
		got, want := block(t, part.page, part.name), part.text(t)
		if got == want {
			continue
		}
		if os.Getenv("UPDATE_GOLDEN") != "1" {
			t.Errorf("%s: the block %s is not what the code says: run `make generate`\ngot\n%s\nwant\n%s", part.page, part.name, got, want)
			continue
		}
		begin, end := marker(part.name, "begin")+"\n", marker(part.name, "end")
		page := strings.Replace(read(t, part.page), begin+got+end, begin+want+end, 1)
		if err := os.WriteFile(filepath.Join(root, part.page), []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func classification(testing.TB) string { return sender.ClassificationMarkdown() }

// targets are those that a bare `make` lists.
func targets(tb testing.TB) string {
	tb.Helper()
	var b strings.Builder
	b.WriteString("| target | what it does |\n| --- | --- |\n")
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):.*?## (.*)$`).FindAllStringSubmatch(read(tb, "Makefile"), -1) {
		b.WriteString("| `make " + m[1] + "` | " + m[2] + " |\n")
	}
	return b.String()
}

// settings is one table a group, each variable once, with the programs that read
// it.
func settings(testing.TB) string {
	tables := []struct {
		program string
		rows    []config.Setting
	}{
		{"worker", relay.NewWorkerSettings().Table().Settings()},
		{"ingest", relay.NewIngestSettings().Table().Settings()},
	}
	// A variable whose default differs between the programs is listed for each.
	key := func(s config.Setting) string { return s.Name + "=" + s.Default }
	readers := make(map[string][]string)
	for _, table := range tables {
		for _, s := range table.rows {
			readers[key(s)] = append(readers[key(s)], table.program)
		}
	}
	var b strings.Builder
	group := ""
	for _, table := range tables {
		for _, s := range table.rows {
			if readers[key(s)][0] != table.program {
				continue
			}
			if s.Group != group {
				if group != "" {
					b.WriteString("\n")
				}
				group = s.Group
				heading, _, _ := strings.Cut(group, " (")
				b.WriteString("### " + heading + "\n\n| variable | default | read by | what it is |\n| --- | --- | --- | --- |\n")
			}
			name := "`" + s.Name + "`"
			if s.Secret {
				name += ", `" + s.Name + "_FILE`"
			}
			def := ""
			if s.Default != "" {
				def = "`" + s.Default + "`"
			}
			b.WriteString("| " + name + " | " + def + " | " + strings.Join(readers[key(s)], ", ") + " | " + cell(s.Usage) + " |\n")
		}
	}
	return b.String()
}

// cell makes plain text fit for a cell of a table.
func cell(text string) string {
	return strings.NewReplacer("<", "&lt;", ">", "&gt;", "|", "\\|", "*", "\\*").Replace(text)
}

func faults(testing.TB) string {
	var b strings.Builder
	b.WriteString("| `code` | meaning |\n| --- | --- |\n")
	for _, code := range schema.FaultCodes() {
		b.WriteString("| `" + code + "` | " + cell(schema.DescribeFault(code)) + " |\n")
	}
	return b.String()
}

// keyFiles shows the key function of each language as it stands in the examples,
// where it is tested.
func keyFiles(tb testing.TB) string {
	tb.Helper()
	var b strings.Builder
	for i, l := range []struct{ heading, fence, file string }{
		{"Python", "python", "python/key.py"},
		{"JavaScript", "javascript", "node/key.js"},
		{"PHP", "php", "php/key.php"},
		{"Java", "java", "java/Keys.java"},
		{"Shell", "sh", "shell/key.sh"},
	} {
		if i > 0 {
			b.WriteString("\n")
		}
		code := strings.TrimPrefix(read(tb, "examples/"+l.file), "<?php\n\n")
		b.WriteString("## " + l.heading + "\n\n```" + l.fence + "\n" + code + "```\n")
	}
	return b.String()
}

func kinds(testing.TB) string {
	var all []string
	for _, k := range schema.Kinds() {
		all = append(all, "`"+string(k)+"`")
	}
	return strings.Join(all, ", ") + ".\n"
}
