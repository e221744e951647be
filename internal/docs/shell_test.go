package docs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// shown is a command line that a page shows.
type shown struct {
	page  string
	where string // page and line
	words []string
}

// TestShellCommands: what the pages tell the reader to type exists, from make
// targets to flags, and the commands that it publishes are valid.
func TestShellCommands(t *testing.T) {
	t.Parallel()
	ctl := buildCtl(t)
	checked := 0
	for _, page := range pages(t) {
		for _, f := range fences(t, page) {
			if f.language != "sh" || page == "docs/keys.md" { // a function of the shell
				continue
			}
			for i, line := range strings.Split(f.text, "\n") {
				words, err := split(line)
				if err != nil {
					t.Errorf("%s:%d: %v", page, f.line+i+1, err)
				}
				if len(words) > 0 {
					checked++
					checkCommand(t, ctl, shown{page, fmt.Sprintf("%s:%d", page, f.line+i+1), words})
				}
			}
		}
		inProse := regexp.MustCompile("`(wazzupctl [^`]+|make [a-z-]+)`")
		for _, m := range inProse.FindAllStringSubmatch(read(t, page), -1) {
			words, err := split(strings.NewReplacer("|", "'|'", "\n", " ").Replace(m[1]))
			if err != nil {
				t.Errorf("%s: %q: %v", page, m[1], err)
				continue
			}
			checked++
			checkCommand(t, ctl, shown{page, page, words})
		}
	}
	if checked < 40 {
		t.Errorf("found %d commands: the test looks in the wrong place", checked)
	}
}

// split takes a line apart as the shell would: quotes, and comments that follow
// white space.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	begun := false
	quote := rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == '#' && !begun:
			return words, nil
		case r == ' ':
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			begun = true
			word.WriteRune(r)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote is not closed: %s", line)
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// assignment is a variable before a command.
func assignment(word string) (name string, ok bool) {
	name, _, ok = strings.Cut(word, "=")
	return name, ok && name == strings.ToUpper(name)
}

func checkCommand(t *testing.T, ctl *ctl, c shown) {
	t.Helper()
	for len(c.words) > 0 {
		if _, ok := assignment(c.words[0]); !ok {
			break
		}
		c.words = c.words[1:] // TestVariables knows them
	}
	if len(c.words) == 0 {
		return
	}
	args := c.words[1:]
	if strings.HasPrefix(c.words[0], "./") {
		checkScripts(t, c)
		return
	}
	switch name := c.words[0]; name {
	case "go":
		checkGo(t, ctl, c)
	case "make":
		if !strings.Contains(read(t, "Makefile"), "\n"+args[0]+":") {
			t.Errorf("%s: there is no target %s", c.where, args[0])
		}
	case "wazzupctl", "bin/wazzupctl":
		ctl.check(t, c.where, args)
	case "bin/worker":
		checkFlags(t, c.where, args, relay.NewWorkerSettings().Table())
	case "bin/ingest":
		checkFlags(t, c.where, args, relay.NewIngestSettings().Table())
	case "nats":
		checkNATS(t, c)
	case "curl":
		checkBodies(t, c)
	case "cp":
		if _, err := os.Stat(filepath.Join(root, args[0])); err != nil {
			t.Errorf("%s: %v", c.where, err)
		}
	case "kill":
		if args[0] != "-HUP" {
			t.Errorf("%s: %v is no way to treat a program", c.where, args)
		}
	case "node", "php", "python3", "sh", "composer", "mvn", "npm", "pip":
		checkScripts(t, c)
	case "docker", "install", "printf", "openssl", "chmod", "sed":
	default:
		t.Errorf("%s: %q is not known here: check it, and teach this test about it", c.where, name)
	}
}

func checkGo(t *testing.T, ctl *ctl, c shown) {
	t.Helper()
	for i, word := range c.words {
		folder, ok := strings.CutPrefix(word, "./")
		if !ok {
			continue
		}
		folder = strings.TrimSuffix(folder, "...")
		if _, err := os.Stat(filepath.Join(root, folder)); err != nil {
			t.Errorf("%s: %v", c.where, err)
		}
		if folder == "cmd/wazzupctl" {
			ctl.check(t, c.where, c.words[i+1:])
		}
	}
}

// checkScripts requires the files that a page of the examples names, and the
// classes of Java.
func checkScripts(t *testing.T, c shown) {
	t.Helper()
	named := regexp.MustCompile(`^(?:\./)?(?:-Dexec\.mainClass=)?([A-Za-z]+(?:\.(?:js|php|py|sh|txt))?)$`)
	for _, word := range c.words {
		m := named.FindStringSubmatch(word)
		if m == nil || !strings.ContainsAny(word, ".") {
			continue
		}
		file := m[1]
		if strings.HasPrefix(word, "-D") {
			file += ".java"
		}
		if _, err := os.Stat(filepath.Join(root, filepath.Dir(c.page), file)); err != nil {
			t.Errorf("%s: %v", c.where, err)
		}
	}
}

func checkFlags(t *testing.T, where string, args []string, table *config.Set) {
	t.Helper()
	for _, arg := range args {
		flag, _, _ := strings.Cut(arg, "=")
		known := slices.ContainsFunc(table.Settings(), func(s config.Setting) bool { return s.Flag == flag })
		if strings.HasPrefix(flag, "--") && flag != "--help" && !known {
			t.Errorf("%s: there is no flag %s", where, flag)
		}
	}
}

// checkNATS checks what is published: a subject that takes commands or requests,
// and a body without fault.
func checkNATS(t *testing.T, c shown) {
	t.Helper()
	const account = "main"
	if c.words[1] != "pub" && c.words[1] != "req" {
		return
	}
	if slices.ContainsFunc(c.words, func(w string) bool { return strings.HasPrefix(w, "$SRV.") && strings.HasSuffix(w, ".wazzup") }) {
		return // TestRunningSystem asks too
	}
	at := slices.IndexFunc(c.words, func(w string) bool { return strings.HasPrefix(w, "wazzup.") })
	if at < 0 || at+1 >= len(c.words) {
		t.Errorf("%s: no subject, or no body", c.where)
		return
	}
	subject, body := c.words[at], c.words[at+1]
	if name, ok := strings.CutPrefix(subject, schema.APISubject(account, "")); ok {
		if !strings.Contains(block(t, readme, "subjects"), "`"+schema.APISubject("<account>", name)+"`") {
			t.Errorf("%s: there is no request %s", c.where, name)
		}
		if body != "" {
			bySchema(t, c.where, schema.RequestSchema(name), []byte(body))
		}
		return
	}
	kind, channel, ok := schema.ParseCommandSubject(account, subject)
	if !ok {
		t.Errorf("%s: %s takes no commands", c.where, subject)
		return
	}
	if _, faults := schema.Decode(account, kind, channel, []byte(body)); len(faults) > 0 {
		t.Errorf("%s: the command has faults: %+v", c.where, faults)
	}
}

func checkBodies(t *testing.T, c shown) {
	t.Helper()
	for i, word := range c.words[:len(c.words)-1] {
		if word == "-d" && !json.Valid([]byte(c.words[i+1])) {
			t.Errorf("%s: the body is no JSON: %s", c.where, c.words[i+1])
		}
	}
}

// ctl is the command line itself, asked for its help.
type ctl struct {
	path string
	help map[string]string // by subcommand; "" = the whole
}

func buildCtl(t *testing.T) *ctl {
	t.Helper()
	c := &ctl{path: filepath.Join(t.TempDir(), "wazzupctl"), help: make(map[string]string)}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", c.path, "./cmd/wazzupctl")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return c
}

// helpOf is the help of a subcommand; ok is false if there is none of that name.
func (c *ctl) helpOf(t *testing.T, sub string) (text string, ok bool) {
	t.Helper()
	text, ok = c.help[sub]
	if !ok {
		out, err := exec.CommandContext(t.Context(), c.path, append(strings.Fields(sub), "--help")...).CombinedOutput()
		if err != nil {
			out = nil
		}
		text = string(out)
		c.help[sub] = text
	}
	return text, text != ""
}

// check requires that the subcommand exists and has the flags.
func (c *ctl) check(t *testing.T, where string, args []string) {
	t.Helper()
	var sub []string
	for len(args) > 0 && regexp.MustCompile(`^[a-z][a-z-]*$`).MatchString(args[0]) && len(sub) < 2 {
		if _, ok := c.helpOf(t, strings.Join(append(slices.Clone(sub), args[0]), " ")); !ok {
			break
		}
		sub, args = append(sub, args[0]), args[1:]
	}
	help, _ := c.helpOf(t, strings.Join(sub, " "))
	if len(sub) == 0 || !strings.Contains(help, "Usage: wazzupctl "+strings.Join(sub, " ")) {
		t.Errorf("%s: there is no wazzupctl %s", where, strings.Join(args, " "))
		return
	}
	for _, arg := range args {
		flag, _, _ := strings.Cut(arg, "=")
		if strings.HasPrefix(flag, "--") && !regexp.MustCompile(`(?m)^\s.*`+flag+`(\W|$)`).MatchString(help) {
			t.Errorf("%s: wazzupctl %s has no flag %s", where, strings.Join(sub, " "), flag)
		}
	}
}

// TestToolVersion: the version of the nats tool that the examples name is the one
// that they are tested with.
func TestToolVersion(t *testing.T) {
	t.Parallel()
	const page = "examples/shell/README.md"
	m := regexp.MustCompile(`github\.com/nats-io/natscli/nats@(v\S+)`).FindStringSubmatch(read(t, page))
	if m == nil || !strings.Contains(read(t, "internal/tools/go.mod"), "github.com/nats-io/natscli "+m[1]+" ") {
		t.Errorf("%s names %v, and internal/tools pins another version", page, m)
	}
}
