package schema

import (
	"embed"
	"strings"
)

//go:embed json/*.json
var schemaFiles embed.FS

const (
	schemaFolder = "json"
	schemaSuffix = ".json"
)

// JSONSchemas returns the names of all JSON Schemas (draft 2020-12), sorted:
// `command-…` for what producers publish, `event-…` for what consumers get,
// `request-…` and `answer-…` for requests.
func JSONSchemas() []string {
	entries, err := schemaFiles.ReadDir(schemaFolder)
	if err != nil {
		return nil // the folder is part of the binary
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), schemaSuffix))
	}
	return names
}

// JSONSchema returns the JSON Schema of that name; ok is false if there is none.
func JSONSchema(name string) (text []byte, ok bool) {
	text, err := schemaFiles.ReadFile(schemaFolder + "/" + name + schemaSuffix)
	return text, err == nil
}

// CommandSchema is the name of the JSON Schema of a kind's body, "" for what is
// no kind. Send and bulk share one.
func CommandSchema(kind Kind) string {
	if kind.IsMessage() {
		return "command-" + string(KindSend)
	}
	if _, _, ok := kind.Sync(); ok {
		return "command-" + string(kind)
	}
	return ""
}
