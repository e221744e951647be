package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode"
)

// fileSuffix makes a secret's variable that of the file which holds it.
const fileSuffix = "_FILE"

// maxSecretSize bounds a secret's file, in bytes.
const maxSecretSize = 64 << 10

// redacted stands where a secret would be printed.
const redacted = "[secret]"

// Secret is a text that prints as [secret] whatever the verb, and marshals so.
// string(s) is the value, at the one place that needs it.
type Secret string

// String returns [secret], or nothing for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format prints what String returns; without it %d or %#v would show the value.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText returns what String returns, so that JSON and YAML show no more.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Secret declares a secret: read from the variable, or from the file that
// NAME_FILE or the flag --name-file names, without the line break at the file's
// end. The flag goes before both variables; both variables at once are a fault,
// for one of them would be silently out of date.
func (s *Set) Secret(v *Secret, name, usage string) {
	*v = ""
	s.add(&setting{
		Setting: Setting{Name: name, Flag: flagOf(name + fileSuffix), Kind: "file", Usage: usage, Secret: true},
		secret:  v,
	})
}

// readSecret takes the flag's file, or what the environment gives.
func (r *setting) readSecret(file string, given bool, getenv func(string) string) []Fault {
	value, fromEnv, source := Secret(getenv(r.Name)), getenv(r.Name+fileSuffix), r.Flag
	switch {
	case given && file == "":
		return []Fault{{Where: r.Flag, Text: "names no file"}}
	case given:
	case value != "" && fromEnv != "":
		return []Fault{{Where: r.Name, Text: "is given twice: unset it or " + r.Name + fileSuffix}}
	case value != "":
		if err := checkSecret(value); err != nil {
			return []Fault{{Where: r.Name, Text: err.Error()}}
		}
		*r.secret = value
		return nil
	case fromEnv != "":
		file, source = fromEnv, r.Name+fileSuffix
	default:
		return nil
	}
	value, err := readSecretFile(file)
	if err != nil {
		return []Fault{{Where: source, Text: err.Error()}}
	}
	*r.secret = value
	return nil
}

// readSecretFile reads a secret from a file. Its errors do not name the file:
// the likeliest mistake is the secret itself where the file's name belongs.
func readSecretFile(path string) (Secret, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", withoutPath(err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxSecretSize+1))
	if err != nil {
		return "", withoutPath(err)
	}
	if len(data) > maxSecretSize {
		return "", fmt.Errorf("the file is larger than %s", FormatBytes(maxSecretSize))
	}
	value := Secret(strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"))
	if value == "" {
		return "", errors.New("the file is empty")
	}
	return value, checkSecret(value)
}

// checkSecret refuses what no key or password holds and no header could carry.
func checkSecret(value Secret) error {
	if strings.ContainsFunc(string(value), unicode.IsControl) {
		return errors.New("the secret holds a line break or another control character")
	}
	return nil
}

// withoutPath is for a file whose name may be a secret that was put in its place.
func withoutPath(err error) error {
	return fmt.Errorf("the file that it names %w", unreadable(err))
}

func unreadable(err error) error {
	if bare, ok := errors.AsType[*fs.PathError](err); ok {
		err = bare.Err
	}
	return fmt.Errorf("cannot be read: %w", err)
}
