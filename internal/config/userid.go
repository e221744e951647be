package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const maxUserID = 64 // characters; manual: users

// integer matches what JSON writes as a whole number. 007 is a text.
var integer = regexp.MustCompile(`^(?:0|-?[1-9][0-9]*)$`)

// userIDs gathers ids of users as the JSON that goes to Wazzup. Faults do not quote
// them: an id may be somebody's login.
type userIDs struct {
	list  []json.RawMessage
	texts []string // of the same ids: 17 and "17" are one user's
}

// add takes an id, written as a number or not.
func (u *userIDs) add(id string, number bool) error {
	switch {
	case id == "":
		return errors.New("is empty")
	case !utf8.ValidString(id):
		return errors.New("is no UTF-8 text")
	case utf8.RuneCountInString(id) > maxUserID:
		return fmt.Errorf("is longer than %d characters", maxUserID)
	case slices.Contains(u.texts, id):
		return errors.New("is listed twice")
	}
	raw := json.RawMessage(id)
	if !number || !integer.MatchString(id) {
		quoted, err := json.Marshal(id)
		if err != nil {
			return errors.New("is no text")
		}
		raw = quoted
	}
	u.list, u.texts = append(u.list, raw), append(u.texts, id)
	return nil
}

// ParseUserIDs reads ids of users, separated by commas: a whole number is one, what
// stands in double quotes, such as "17", is a text, and so is everything else. The
// ids are returned as JSON.
func ParseUserIDs(text string) ([]json.RawMessage, error) {
	var ids userIDs
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	for i, id := range strings.Split(text, ",") {
		id = strings.TrimSpace(id)
		inner, quoted := strings.CutPrefix(id, `"`)
		if quoted {
			if id, quoted = strings.CutSuffix(inner, `"`); !quoted {
				return nil, fmt.Errorf("id %d begins with a quotation mark and does not end with one", i+1)
			}
		}
		if err := ids.add(id, !quoted); err != nil {
			return nil, fmt.Errorf("id %d %w", i+1, err)
		}
	}
	return ids.list, nil
}
