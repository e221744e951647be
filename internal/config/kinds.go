package config

import (
	"encoding"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
)

// Each method below declares a setting by the name of its environment variable,
// gives v the default at once, and panics if the name is taken. Usage is a
// sentence or two that say what the setting does and what zero means.

// String declares a text. A flag may set it to nothing (--name=).
func (s *Set) String(v *string, name, def, usage string) {
	*v = def
	s.plain(name, "text", def, usage, func(text string) error {
		*v = text
		return nil
	})
}

// Strings declares a list, separated by commas; space around an element does
// not count, nor does an empty element.
func (s *Set) Strings(v *[]string, name string, def []string, usage string) {
	*v = slices.Clone(def)
	s.plain(name, "list", strings.Join(def, ","), usage, func(text string) error {
		*v = nil
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				*v = append(*v, part)
			}
		}
		return nil
	})
}

// Choice declares a text that is one of a closed set.
func (s *Set) Choice(v *string, name, def, usage string, choices ...string) {
	*v = def
	s.plain(name, strings.Join(choices, "|"), def, usage, func(text string) error {
		if !slices.Contains(choices, text) {
			return fmt.Errorf("%q is not one of %s", text, strings.Join(choices, ", "))
		}
		*v = text
		return nil
	})
}

// Int declares a whole number, 0 or more.
func (s *Set) Int(v *int, name string, def int, usage string) {
	*v = def
	s.plain(name, "number", strconv.Itoa(def), usage, func(text string) error {
		n, err := strconv.ParseUint(text, 10, strconv.IntSize-1)
		if err != nil {
			return fmt.Errorf("%q is no whole number of 0 or more", text)
		}
		*v = int(n)
		return nil
	})
}

// Bool declares a switch: true or false (also 1, 0, t, f); the flag alone means
// true.
func (s *Set) Bool(v *bool, name string, def bool, usage string) {
	*v = def
	row := s.plain(name, "true|false", strconv.FormatBool(def), usage, func(text string) error {
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		*v = b
		return nil
	})
	row.switchOn = true
}

// Duration declares a length of time, 0 or more: 20s, 1m30s, 168h.
func (s *Set) Duration(v *time.Duration, name string, def time.Duration, usage string) {
	*v = def
	s.plain(name, "duration", rate.ShortDuration(def), usage, func(text string) error {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return fmt.Errorf("%q is no duration such as 500ms, 20s or 1h30m", text)
		}
		*v = d
		return nil
	})
}

// Bytes declares a size, 0 or more: 8MiB, 1GiB, or a plain number of bytes. KiB,
// MiB, GiB and TiB are powers of 1024; KB, MB and the like are refused, since
// half of the world reads them so and half as powers of 1000.
func (s *Set) Bytes(v *int64, name string, def int64, usage string) {
	*v = def
	s.plain(name, "size", FormatBytes(def), usage, func(text string) error {
		n, err := ParseBytes(text)
		if err != nil {
			return err
		}
		*v = n
		return nil
	})
}

// Text declares a setting of a type that reads itself, such as a [rate.Rate].
// A default that the type refuses is a mistake of the program's own and panics;
// the empty default leaves v as it is. Errors of the type are shown.
func (s *Set) Text(v encoding.TextUnmarshaler, name, def, usage string) {
	if def != "" {
		if err := v.UnmarshalText([]byte(def)); err != nil {
			panic("config: the default of " + name + ": " + err.Error())
		}
	}
	kind := "text"
	if _, ok := v.(*rate.Rate); ok {
		kind = "rate"
	}
	s.plain(name, kind, def, usage, func(text string) error { return v.UnmarshalText([]byte(text)) })
}

func (s *Set) plain(name, kind, def, usage string, set func(string) error) *setting {
	row := &setting{
		Setting: Setting{Name: name, Flag: flagOf(name), Kind: kind, Default: def, Usage: usage},
		set:     set,
	}
	s.add(row)
	return row
}

// unit is a suffix of sizes.
type unit struct {
	suffix string
	bytes  int64
}

// units lists the suffixes, the largest first.
func units() []unit {
	return []unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
}

// ParseBytes reads a size as [Set.Bytes] describes it.
func ParseBytes(text string) (int64, error) {
	number, factor := text, int64(1)
	for _, u := range units() {
		if cut, ok := strings.CutSuffix(text, u.suffix); ok {
			number, factor = cut, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is no size such as 512KiB, 8MiB, 1GiB or a number of bytes", text)
	}
	if int64(n) > math.MaxInt64/factor {
		return 0, fmt.Errorf("%q is too large", text)
	}
	return int64(n) * factor, nil
}

// FormatBytes writes a size in the largest unit that divides it.
func FormatBytes(n int64) string {
	for _, u := range units() {
		if n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}
