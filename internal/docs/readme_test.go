package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// firstScreen is what a reader sees before scrolling, in lines.
const firstScreen = 50

// TestFirstScreen: the promise, the picture and the two commands come first.
func TestFirstScreen(t *testing.T) {
	t.Parallel()
	blocks := fences(t, readme)
	if len(blocks) < 2 || blocks[0].language != "text" || !strings.Contains(blocks[0].text, "JetStream") {
		t.Fatal("the first block is not the picture")
	}
	second := blocks[1]
	if want := "go run ./cmd/wazzupctl dev\ngo test -race ./...\n"; second.language != "sh" || second.text != want {
		t.Errorf("the second block is\n%s\nwant\n%s", second.text, want)
	}
	if second.line > firstScreen {
		t.Errorf("the two commands stand in line %d, want them within the first %d", second.line, firstScreen)
	}
}

// TestSubjects: the tables list every subject that this version serves, and no
// other.
func TestSubjects(t *testing.T) {
	t.Parallel()
	const account = "<account>"
	// Keys of plain text are the text itself, so these stand for any.
	plain := strings.NewReplacer("CHANNEL", "<channelId>", "CHATTYPE", "<key of chatType>", "CHATID", "<key of chatId>", "STATE", "<key of state>", "USER", "<key of userId>")
	templates := map[string][]string{
		"CommandEventSubject":    {schema.CommandEventSubject(account, "<state>", "<kind>", "<channelId>")},
		"MessageEventSubject":    {schema.MessageEventSubject(account, "in", "CHANNEL", "CHATTYPE", "CHATID"), schema.MessageEventSubject(account, "out", "CHANNEL", "CHATTYPE", "CHATID")},
		"StatusEventSubject":     {schema.StatusEventSubject(account, "<word>")},
		"ChannelEventSubject":    {schema.ChannelEventSubject(account, "CHANNEL", "STATE")},
		"ChannelsEventSubject":   {schema.ChannelsEventSubject(account)},
		"CounterEventSubject":    {schema.CounterEventSubject(account, "USER")},
		"QuarantineEventSubject": {schema.QuarantineEventSubject(account, "<reason>")},
		"OpsEventSubject":        {schema.OpsEventSubject(account, "<name>")},
	}
	used := selected(t)
	for _, name := range eventSubjects(t) {
		if templates[name] == nil {
			t.Errorf("schema.%s is new: name its template here", name)
		}
	}
	var want []string
	for _, subject := range schema.CommandSubjects(account) {
		want = append(want, strings.ReplaceAll(subject, "*", "<channelId>"))
	}
	for name, subjects := range templates {
		if !used[name] {
			continue // nobody publishes there yet
		}
		for _, subject := range subjects {
			want = append(want, plain.Replace(subject))
		}
	}
	var got []string
	for _, subject := range column(t, readme, "subjects") {
		if !strings.HasPrefix(subject, schema.APISubject(account, "")) { // see TestRunningSystem
			got = append(got, subject)
		}
	}
	sameSet(t, "README's subjects", got, want)
}

// eventSubjects names the functions of schema that make subjects of events.
func eventSubjects(tb testing.TB) []string {
	tb.Helper()
	var names []string
	for _, decl := range parse(tb, filepath.Join(root, "schema", "subject.go")).Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Name.IsExported() && strings.HasSuffix(f.Name.Name, "EventSubject") {
			names = append(names, f.Name.Name)
		}
	}
	if len(names) == 0 {
		tb.Fatal("schema/subject.go has no event subjects")
	}
	return names
}

// selected are the names of schema that the daemons use: wazzupctl, which only
// reads, does not count, and neither do tests.
func selected(tb testing.TB) map[string]bool {
	tb.Helper()
	used := make(map[string]bool)
	for _, path := range goFiles(tb, false) {
		rel := strings.TrimPrefix(path, root+"/")
		if !strings.HasPrefix(rel, "sender/") && !strings.HasPrefix(rel, "ingest/") {
			continue
		}
		ast.Inspect(parse(tb, path), func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "schema" {
					used[s.Sel.Name] = true
				}
			}
			return true
		})
	}
	return used
}

func parse(tb testing.TB, path string) *ast.File {
	tb.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		tb.Fatal(err)
	}
	return file
}

// constants maps the values of a file's constants with a prefix to their names.
func constants(tb testing.TB, path, prefix string) map[string]string {
	tb.Helper()
	byName := make(map[string]string)
	ast.Inspect(parse(tb, path), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) != 1 {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
			value, err := strconv.Unquote(lit.Value)
			if err != nil {
				tb.Fatal(err)
			}
			byName[spec.Names[0].Name] = value
		}
		return true
	})
	if len(byName) == 0 {
		tb.Fatalf("%s has no constants %s…", path, prefix)
	}
	return byName
}

// inUse are the values of those constants of schema that the daemons use.
func inUse(tb testing.TB, file, prefix string) []string {
	tb.Helper()
	used := selected(tb)
	var values []string
	for name, value := range constants(tb, filepath.Join(root, "schema", file), prefix) {
		if used[name] {
			values = append(values, value)
		}
	}
	return values
}

// TestStates: the table has every state that can be reached, and says which end a
// command.
func TestStates(t *testing.T) {
	t.Parallel()
	for _, row := range rows(block(t, readme, "states")) {
		state := schema.State(row[0])
		if final := row[2] == "yes"; final != state.Final() {
			t.Errorf("the table says that %s is final: %t", state, final)
		}
	}
	var want []string
	used := selected(t)
	for name, value := range constants(t, filepath.Join(root, "schema", "state.go"), "State") {
		if used[name] {
			want = append(want, value)
		}
	}
	sameSet(t, "README's states", column(t, readme, "states"), want)
	for _, state := range want {
		if !slices.Contains(schema.States(), schema.State(state)) {
			t.Errorf("%s is no state of the schema", state)
		}
	}
}

// TestLayout: the table names every folder with code, and the folders of the
// first level.
func TestLayout(t *testing.T) {
	t.Parallel()
	want := map[string]bool{"docs": true, "examples": true, "internal/bench": true, "internal/tools": true}
	for _, path := range goFiles(t, true) {
		want[strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), root+"/")] = true
	}
	var folders []string
	for folder := range want {
		folders = append(folders, folder)
	}
	sameSet(t, "README's layout", column(t, readme, "layout"), folders)
}

// TestDependencies: each module that the code imports has its reason in the
// table, whether go.mod is tidy or not.
func TestDependencies(t *testing.T) {
	t.Parallel()
	var modules []string
	for _, m := range regexp.MustCompile(`(?m)^\s*(?:require )?([a-z]\S*\.\S+/\S+) v\S+`).FindAllStringSubmatch(read(t, "go.mod"), -1) {
		modules = append(modules, m[1])
	}
	if len(modules) < 10 {
		t.Fatalf("go.mod lists %d modules: the test reads it wrongly", len(modules))
	}
	direct := make(map[string]bool)
	for _, path := range goFiles(t, true) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if module := moduleOf(imported, modules); module != "" {
				direct[module] = true
			}
		}
	}
	var want []string
	for module := range direct {
		want = append(want, module)
	}
	sameSet(t, "README's dependencies", column(t, readme, "dependencies"), want)
}

// moduleOf is the module with the longest path that holds a package.
func moduleOf(imported string, modules []string) string {
	longest := ""
	for _, module := range modules {
		if (imported == module || strings.HasPrefix(imported, module+"/")) && len(module) > len(longest) {
			longest = module
		}
	}
	return longest
}

// TestChangelog: one section of what is not released, and the form's own
// headings.
func TestChangelog(t *testing.T) {
	t.Parallel()
	text := read(t, "CHANGELOG.md")
	if n := strings.Count(text, "\n## [Unreleased]\n"); n != 1 {
		t.Errorf("there are %d sections Unreleased, want 1", n)
	}
	for _, m := range regexp.MustCompile(`(?m)^### (.*)$`).FindAllStringSubmatch(text, -1) {
		if !slices.Contains([]string{"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}, m[1]) {
			t.Errorf("%q is no heading of Keep a Changelog", m[1])
		}
	}
}

// TestVariables: every variable that a page mentions exists, and .env.example has
// every one that does.
func TestVariables(t *testing.T) {
	t.Parallel()
	known := make(map[string]bool)
	example := read(t, ".env.example")
	for _, m := range regexp.MustCompile(`(?m)^#([A-Z_]+)=`).FindAllStringSubmatch(example, -1) {
		known[m[1]] = true
	}
	for _, name := range column(t, "docs/configuration.md", "settings") {
		for one := range strings.SplitSeq(strings.ReplaceAll(name, "`", ""), ", ") {
			if !known[one] {
				t.Errorf("docs/configuration.md: .env.example does not have %s", one)
			}
		}
	}
	for _, page := range append(pages(t), "docker-compose.yml") {
		for _, name := range variables(read(t, page)) {
			if !known[name] {
				t.Errorf("%s mentions %s, which no program reads", page, name)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(root, "LICENSE")); err != nil {
		t.Error(err)
	}
}
