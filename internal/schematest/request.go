package schematest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

const headerFault = "Nats-Service-Error-Code"

// Answer holds a request and its answer to the contract: each to its schema, and a
// refusal to the faults that the document lists for the request. A request that
// breaks its schema must have been refused as one.
func Answer(name string, asked []byte, header map[string][]string, answer []byte) error {
	c, err := document()
	if err != nil {
		return err
	}
	if err := c.answer(name, asked, first(header), answer); err != nil {
		return fmt.Errorf("request %s: %w\n%s\n%v\n%s", name, err, asked, header, answer)
	}
	return nil
}

func (c *contract) answer(name string, asked []byte, header map[string]any, answer []byte) error {
	if len(asked) == 0 {
		asked = []byte("{}")
	}
	broken := c.validate(asked, "components", "messages", "request."+name, "payload")
	code, refused := header[headerFault].(string)
	if !refused {
		return errors.Join(broken, c.validate(answer, "components", "messages", "answer."+name, "payload"))
	}
	if broken != nil && code != "400" && code != "501" {
		return fmt.Errorf("refused with %s, though it breaks its schema: %w", code, broken)
	}
	if err := c.validateValue(header, "components", "messages", "fault", "headers"); err != nil {
		return err
	}
	if err := c.validate(answer, "components", "messages", "fault", "payload"); err != nil {
		return err
	}
	return c.listed(name, code, answer)
}

// listed reports whether the document lists a refusal. Those of Wazzup, and those
// of an account that is closed by its word, have Wazzup's codes.
func (c *contract) listed(name, status string, answer []byte) error {
	var fault struct {
		Error schema.Error `json:"error"`
	}
	if err := json.Unmarshal(answer, &fault); err != nil {
		return err
	}
	operation := at(c.doc, "operations", "api."+name)
	if operation["x-asks-wazzup"] == true && (fault.Error.Phase == schema.PhaseAnswered || fault.Error.Class == schema.ClassAccount) {
		return nil
	}
	faults, _ := operation["x-faults"].([]any)
	for _, f := range faults {
		row, _ := f.(map[string]any)
		if fmt.Sprint(row["status"]) == status && slices.Contains(list(row["codes"]), fault.Error.Code) {
			return nil
		}
	}
	return fmt.Errorf("the document does not list %s %s", status, fault.Error.Code)
}
