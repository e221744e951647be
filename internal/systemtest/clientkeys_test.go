//go:build system

package systemtest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// keyRunner has a language compute the keys of texts with the key file of its
// examples, which docs/keys.md shows.
type keyRunner struct {
	language, needs string
	required        bool // part of every check; the others run where they are installed
	keys            func(t *testing.T, texts []string) (lines string)
}

// keyRunners read a JSON array of texts and print a line for each key.
var keyRunners = []keyRunner{ //nolint:gochecknoglobals // a table
	{"node", "node", true, jsonKeys("node", "--input-type=module", "-e", `
import { readFileSync } from "node:fs";
import { key } from "./key.js";
for (const text of JSON.parse(readFileSync(0, "utf8"))) console.log(key(text));`)},
	{"python", "python3", true, jsonKeys("python3", "-c", `
import json, sys
from key import key
for text in json.load(sys.stdin): print(key(text))`)},
	{"shell", "sh", true, argumentKeys("sh", "-c", `. ./key.sh; for text; do key "$text"; done`, "sh")},
	{"shell, in bash", "bash", true, argumentKeys("bash", "-c", `. ../shell/key.sh; for text; do key "$text"; done`, "bash")},
	{"php", "php", false, jsonKeys("php", "-r", `
require "key.php";
foreach (json_decode(file_get_contents("php://stdin")) as $text) { echo key_of($text), "\n"; }`)},
	{"java", "javac", false, javaKeys},
}

// TestClientKeys holds the key function of each language to the shared vectors.
func TestClientKeys(t *testing.T) {
	text, err := os.ReadFile("../../schema/testdata/key_vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct{ Name, Text, Key string }
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	texts := make([]string, len(vectors))
	for i, v := range vectors {
		texts[i] = v.Text
	}
	for _, r := range keyRunners {
		t.Run(r.language, func(t *testing.T) {
			if !installed(t, r.needs, r.required) {
				return
			}
			got := strings.Split(strings.TrimSuffix(r.keys(t, texts), "\n"), "\n")
			if len(got) != len(vectors) {
				t.Fatalf("%d keys of %d texts: %q", len(got), len(vectors), got)
			}
			for i, v := range vectors {
				if got[i] != v.Key {
					t.Errorf("%s: got %s, want %s", v.Name, got[i], v.Key)
				}
			}
			t.Logf("%d texts", len(vectors))
		})
	}
}

// installed tells whether a program is there; a required one must be.
func installed(t *testing.T, program string, required bool) bool {
	t.Helper()
	_, err := exec.LookPath(program)
	if err != nil && required {
		t.Fatal(err)
	}
	if err != nil {
		t.Logf("untested here: %v", err)
	}
	return err == nil
}

// output runs a program in the folder of a language's examples.
func output(t *testing.T, folder, stdin, name string, args ...string) string {
	t.Helper()
	var errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Stdin, cmd.Stderr = folder, strings.NewReader(stdin), &errs
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, errs.String())
	}
	return string(out)
}

// folderOf is that of the examples run by a program.
func folderOf(program string) string {
	switch program {
	case "python3":
		program = "python"
	case "sh", "bash":
		program = "shell"
	case "javac":
		program = "java"
	}
	return filepath.Join(examples, program)
}

func jsonKeys(name string, args ...string) func(*testing.T, []string) string {
	return func(t *testing.T, texts []string) string {
		t.Helper()
		stdin, err := json.Marshal(texts)
		if err != nil {
			t.Fatal(err)
		}
		return output(t, folderOf(name), string(stdin), name, args...)
	}
}

func argumentKeys(name string, args ...string) func(*testing.T, []string) string {
	return func(t *testing.T, texts []string) string {
		t.Helper()
		return output(t, folderOf(name), "", name, append(args, texts...)...)
	}
}

// javaKeys gives texts to Java as UTF-8 with a zero after each: it has no JSON,
// and its arguments depend on the locale.
func javaKeys(t *testing.T, texts []string) string {
	t.Helper()
	dir := t.TempDir()
	const program = `
public class Check {
    public static void main(String[] args) throws Exception {
        String all = new String(System.in.readAllBytes(), java.nio.charset.StandardCharsets.UTF_8);
        String[] texts = all.split("\0", -1);
        for (int i = 0; i < texts.length - 1; i++) {
            System.out.println(Keys.key(texts[i]));
        }
    }
}`
	check := filepath.Join(dir, "Check.java")
	if err := os.WriteFile(check, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	output(t, folderOf("javac"), "", "javac", "-Xlint:all", "-Werror", "-d", dir, check, "Keys.java")
	return output(t, dir, strings.Join(texts, "\x00")+"\x00", "java", "-cp", dir, "Check")
}

// TestClientSyntax has each language read those examples that cannot be run here
// for want of a NATS client in the registries that this project uses.
func TestClientSyntax(t *testing.T) {
	for _, s := range []struct {
		program  string
		required bool
		pattern  string
		args     []string
	}{
		{"python3", true, "python/*.py", []string{"-c", "import ast, sys\nfor f in sys.argv[1:]: ast.parse(open(f, 'rb').read(), f)"}},
		{"php", false, "php/*.php", []string{"-l"}},
		{"javac", false, "java/*.java", []string{"-XDshould-stop.ifNoError=PARSE"}},
	} {
		t.Run(s.program, func(t *testing.T) {
			if !installed(t, s.program, s.required) {
				return
			}
			files, err := filepath.Glob(filepath.Join(examples, s.pattern))
			if err != nil || len(files) < 4 {
				t.Fatalf("%s: %v, %v", s.pattern, files, err)
			}
			for _, file := range files {
				output(t, ".", "", s.program, append(s.args, file)...)
			}
			t.Logf("%d files", len(files))
		})
	}
}
