package config

import (
	"io"
	"strings"
)

// helpWidth is the column that help texts are wrapped at.
const helpWidth = 80

// Help writes the program's synopsis and every setting with its default, under
// the headings of [Set.Group]. What cannot be written is lost: there is nobody
// left to tell.
func (s *Set) Help(w io.Writer) {
	var b strings.Builder
	b.WriteString("Usage: " + s.program + " [flags]\n\n")
	wrap(&b, "", s.synopsis)
	b.WriteString("\n")
	wrap(&b, "", "Every setting is an environment variable and a flag; the flag goes first. "+
		"A secret is read from its variable, or from the file that NAME_FILE or the flag names.")
	group := ""
	for i, row := range s.settings {
		if row.Group != group || i == 0 {
			group = row.Group
			heading := group
			if heading == "" {
				heading = "Settings"
			}
			b.WriteString("\n" + heading + ":\n")
		}
		b.WriteString("  " + row.Name + ", " + row.Flag + " <" + row.Kind + ">\n")
		wrap(&b, "      ", row.helpText())
	}
	b.WriteString("\n  -h, --help\n      Print this and exit.\n")
	_, _ = io.WriteString(w, b.String())
}

func (r *setting) helpText() string {
	switch {
	case r.Secret:
		return r.Usage + " (secret)"
	case r.Default == "":
		return r.Usage
	default:
		return r.Usage + " (default " + r.Default + ")"
	}
}

// wrap writes a text in lines of at most helpWidth columns; a longer word keeps
// its own line.
func wrap(b *strings.Builder, indent, text string) {
	column := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case column == 0:
			b.WriteString(indent)
			column = len(indent)
		case column+1+len(word) > helpWidth:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	b.WriteString("\n")
}
