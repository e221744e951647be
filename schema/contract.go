package schema

import (
	"bytes"
	_ "embed" // for the document
	"encoding/json"
	"fmt"
	"regexp"
)

// ContractVersion is the version of the contract: of subjects, bodies and
// headers. It is that of the document and of the NATS micro service.
const ContractVersion = "1.0.0"

//go:embed asyncapi.json
var asyncAPI []byte

// AsyncAPI returns the AsyncAPI 3.0 document of every subject, header, body, answer
// and fault. It references the JSON Schemas as files in the folder json beside it;
// see [Contract] for one that stands alone.
func AsyncAPI() []byte { return bytes.Clone(asyncAPI) }

// Contract returns the AsyncAPI document, without white space, with every JSON
// Schema in the place of its reference: for a reader who has nothing else.
func Contract() ([]byte, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, asyncAPI); err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	// Within a text of the document quotes are escaped, so what is met here is
	// always a reference.
	file := regexp.MustCompile(`\{"\$ref":"` + schemaFolder + `/([a-z0-9-]+)\.json"\}`)
	var err error
	text := file.ReplaceAllFunc(compact.Bytes(), func(m []byte) []byte {
		inlined, missing := inline(string(file.FindSubmatch(m)[1]))
		if err == nil {
			err = missing
		}
		return inlined
	})
	if err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	return text, nil
}

// inline is a JSON Schema as a part of the document: without the members that make
// it a document of its own, its references pointing to where it stands.
func inline(name string) ([]byte, error) {
	text, ok := JSONSchema(name)
	if !ok {
		return nil, fmt.Errorf("no schema %s", name)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	body := regexp.MustCompile(`^\{"\$schema":"[^"]*","\$id":"[^"]*",`).ReplaceAllLiteral(compact.Bytes(), []byte("{"))
	return bytes.ReplaceAll(body, []byte(`"$ref":"#/`), []byte(`"$ref":"#/components/schemas/`+name+`/`)), nil
}
