package asyncapi_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/wazzup-relay/wazzup-relay/internal/asyncapi"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// page is the HTML page as it is in the repository.
func page(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, pageFile))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// void are the elements that have no end tag.
func void(name string) bool {
	return slices.Contains([]string{"meta", "br", "hr", "img", "input", "link"}, name)
}

// What is begun is ended, in the right order, and no mark of a text is left over.
func TestPageIsWellFormed(t *testing.T) {
	t.Parallel()
	var open []string
	counts := make(map[string]int)
	tokens := html.NewTokenizer(bytes.NewReader(page(t)))
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			if !errors.Is(tokens.Err(), io.EOF) {
				t.Fatal(tokens.Err())
			}
			if len(open) > 0 {
				t.Errorf("%q are not ended", open)
			}
			for _, name := range []string{"nav", "article", "table", "pre", "h1"} {
				if counts[name] == 0 {
					t.Errorf("there is no %s", name)
				}
			}
			return
		case html.StartTagToken:
			name := tokens.Token().Data
			counts[name]++
			if !void(name) {
				open = append(open, name)
			}
		case html.EndTagToken:
			name := tokens.Token().Data
			if len(open) == 0 || open[len(open)-1] != name {
				t.Fatalf("</%s> ends %q", name, open)
			}
			open = open[:len(open)-1]
		case html.TextToken:
			if text := tokens.Token().Data; slices.Contains(open, "p") && strings.ContainsAny(text, "`") {
				t.Errorf("a mark is left in %q", text)
			}
		case html.SelfClosingTagToken, html.CommentToken, html.DoctypeToken:
		}
	}
}

// links collects the page's names and what it points to.
func links(t *testing.T) (ids map[string]int, hrefs []string) {
	t.Helper()
	doc, err := html.Parse(bytes.NewReader(page(t)))
	if err != nil {
		t.Fatal(err)
	}
	ids = make(map[string]int)
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if slices.Contains([]string{"script", "link", "img", "iframe", "object"}, n.Data) {
			t.Errorf("<%s>: the page must need nothing but itself", n.Data)
		}
		for _, a := range n.Attr {
			switch a.Key {
			case "id":
				ids[a.Val]++
			case "href":
				hrefs = append(hrefs, a.Val)
			case "src", "srcset", "onclick", "style":
				t.Errorf("<%s %s=%q>: the page must need nothing but itself", n.Data, a.Key, a.Val)
			}
		}
	}
	if bytes.Contains(page(t), []byte("@import")) || bytes.Contains(page(t), []byte("url(")) {
		t.Error("the style sheet loads something")
	}
	return ids, hrefs
}

// Every link leads somewhere: to a name of the page, or to a file of the
// repository.
func TestPageLinks(t *testing.T) {
	t.Parallel()
	ids, hrefs := links(t)
	for id, n := range ids {
		if n > 1 {
			t.Errorf("%d elements have the id %s", n, id)
		}
	}
	within := 0
	for _, href := range hrefs {
		if id, ok := strings.CutPrefix(href, "#"); ok {
			within++
			if ids[id] == 0 {
				t.Errorf("%s leads nowhere", href)
			}
			continue
		}
		if strings.HasPrefix(href, "https://") {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, filepath.Dir(pageFile), href)); err != nil {
			t.Errorf("%s leads nowhere: %v", href, err)
		}
	}
	if within < 150 {
		t.Errorf("found %d links within the page: the test looks in the wrong place", within)
	}
}

// The page has everything that the document has: an entry for each subject, each
// field of each schema, each example.
func TestPageIsWhole(t *testing.T) {
	t.Parallel()
	ids, _ := links(t)
	text := string(page(t))
	doc := decode(t, schema.AsyncAPI())
	for name, c := range object(t, doc["channels"]) {
		if _, ok := object(t, c)["address"].(string); ok && ids[name] == 0 {
			t.Errorf("there is no entry %s", name)
		}
	}
	for _, s := range schema.States() {
		if ids["evt.command."+string(s)] == 0 {
			t.Errorf("there is nothing about the state %s", s)
		}
	}
	for _, name := range schema.JSONSchemas() {
		if !strings.Contains(text, "../schema/json/"+name+".json") {
			t.Errorf("there is no schema %s", name)
		}
		source, _ := schema.JSONSchema(name)
		walk(decode(t, source), "", func(at string, o map[string]any) {
			properties, ok := o["properties"].(map[string]any)
			if !ok || strings.Contains(at, "/if") || strings.Contains(at, "/then") || strings.Contains(at, "/allOf") || strings.Contains(at, "/examples") {
				return
			}
			for field := range properties {
				if !strings.Contains(text, "<code>"+field+"</code>") && !strings.Contains(text, "."+field+"</code>") {
					t.Errorf("schema %s: the field %s is not explained", name, field)
				}
			}
		})
	}
}

func TestPageShowsLimits(t *testing.T) {
	t.Parallel()
	text, err := asyncapi.Page()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"characters, at most <code>10000</code>", "one of <code>reconcile</code>, <code>resend</code>", "<code>error.faults[].field</code>",
		"<code>wazzup.&lt;account&gt;.cmd.send.&lt;channelId&gt;</code>",
	} {
		if !strings.Contains(string(text), strings.TrimPrefix(want, "<code>wazzup")) {
			t.Errorf("it does not say %s", want)
		}
	}
}
