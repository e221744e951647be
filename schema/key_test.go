package schema_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

type keyVector struct {
	Name string `json:"name"`
	Text string `json:"text"`
	Key  string `json:"key"`
}

func keyVectors(tb testing.TB) []keyVector {
	tb.Helper()
	text, err := os.ReadFile("testdata/key_vectors.json")
	if err != nil {
		tb.Fatal(err)
	}
	var vectors []keyVector
	if err := json.Unmarshal(text, &vectors); err != nil {
		tb.Fatal(err)
	}
	if len(vectors) == 0 {
		tb.Fatal("no vectors")
	}
	return vectors
}

func TestKey(t *testing.T) {
	t.Parallel()
	for _, v := range keyVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			if got := schema.Key(v.Text); got != v.Key {
				t.Errorf("got %s, want %s", got, v.Key)
			}
		})
	}
}

func FuzzKey(f *testing.F) {
	for _, v := range keyVectors(f) {
		f.Add(v.Text)
	}
	plain := regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	hashed := regexp.MustCompile(`^~[0-9a-f]{32}$`)
	f.Fuzz(func(t *testing.T, text string) {
		got := schema.Key(text)
		if plain.MatchString(text) {
			if got != text {
				t.Errorf("plain %q became %s", text, got)
			}
		} else if !hashed.MatchString(got) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// TestKeyPage holds the docs to the function: the page shows every vector file's
// language samples and a table of examples.
func TestKeyPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([^`]*)` \\| `([^`]*)` \\|$")
	rows := row.FindAllStringSubmatch(string(page), -1)
	if len(rows) < 5 {
		t.Fatalf("got %d examples", len(rows))
	}
	for _, r := range rows {
		if got := schema.Key(r[1]); got != r[2] {
			t.Errorf("the page says %q becomes %s, want %s", r[1], r[2], got)
		}
	}
	for _, language := range []string{"go", "python", "javascript", "php", "java", "sh"} {
		if !strings.Contains(string(page), "```"+language+"\n") {
			t.Errorf("no sample in %s", language)
		}
	}
}
