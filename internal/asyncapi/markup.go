package asyncapi

import (
	"html"
	"html/template"
	"regexp"
	"strings"
)

// subject writes an address as the other pages do.
func subject(address string) string {
	return strings.NewReplacer("{", "<", "}", ">").Replace(address)
}

// filled is a subject that can be typed.
func filled(subject string, m node) string {
	channel := m.at("examples").items[0].at("payload", "channelId").text()
	if channel == "" {
		channel = exampleChannel
	}
	return strings.NewReplacer("<account>", exampleAccount, "<channelId>", channel).Replace(subject)
}

// quoted is a text as one word of a shell.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// inline makes HTML of a text with code marks and links.
func inline(text string) template.HTML {
	text = html.EscapeString(text)
	text = regexp.MustCompile("`([^`]+)`").ReplaceAllString(text, "<code>$1</code>")
	text = regexp.MustCompile(`\[([^\]]+)\]\(([^)\s]+)\)`).ReplaceAllString(text, `<a href="$2">$1</a>`)
	return template.HTML(text) //nolint:gosec // it was escaped, and comes from this repository
}

// paragraphs does so for a text of several, and of lists.
func paragraphs(text string) template.HTML {
	var b strings.Builder
	for block := range strings.SplitSeq(text, "\n\n") {
		if !strings.HasPrefix(block, "- ") {
			b.WriteString("<p>" + string(inline(block)) + "</p>\n")
			continue
		}
		b.WriteString("<ul>\n")
		for line := range strings.SplitSeq(block, "\n") {
			line = regexp.MustCompile(`\*\*([^*]+)\*\*`).ReplaceAllString(string(inline(strings.TrimPrefix(line, "- "))), "<strong>$1</strong>")
			b.WriteString("<li>" + line + "</li>\n")
		}
		b.WriteString("</ul>\n")
	}
	return template.HTML(b.String()) //nolint:gosec // each part was escaped
}

// codes are words as code, separated by commas.
func codes(words []string) template.HTML {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = "<code>" + html.EscapeString(w) + "</code>"
	}
	return template.HTML(strings.Join(all, ", ")) //nolint:gosec // it was escaped
}
