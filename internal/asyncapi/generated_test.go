package asyncapi_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/asyncapi"
)

const (
	root         = "../.."
	documentFile = "schema/asyncapi.json"
	pageFile     = "docs/contract.html"
)

//go:generate env UPDATE_GOLDEN=1 go test -count=1 -run ^TestGenerated$ .

// TestGenerated compares the documents with what the code says; with
// UPDATE_GOLDEN=1 it writes them.
func TestGenerated(t *testing.T) {
	t.Parallel()
	for _, f := range []struct {
		path string
		make func() ([]byte, error)
	}{
		{documentFile, asyncapi.Document},
		{pageFile, asyncapi.Page},
	} {
		want, err := f.make()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, f.path)
		if os.Getenv("UPDATE_GOLDEN") == "1" {
			if err := os.WriteFile(path, want, 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code says: run `make generate`", f.path)
		}
	}
}
