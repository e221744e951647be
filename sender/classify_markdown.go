package sender

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Markers between which a document holds ClassificationMarkdown.
const (
	ClassificationBegin = "<!-- classification:begin -->"
	ClassificationEnd   = "<!-- classification:end -->"
)

// ClassificationMarkdown prints the tables by which Classify and ClassifyStatus
// decide. A test holds the documents to it.
func ClassificationMarkdown() string {
	var b strings.Builder
	b.WriteString("A code of the vendor decides first, whatever the HTTP status:\n\n")
	mdTableHead(&b, "code")
	for _, row := range codeTable() {
		mdTableRow(&b, "`"+row.code+"`", row.verdicts)
	}
	b.WriteString("\nWithout a code that is known, the HTTP status decides. " +
		"A code that only repeats the status in words is none.\n\n")
	mdTableHead(&b, "HTTP status")
	for _, row := range statusTable() {
		mdTableRow(&b, mdRange(row.from, row.to)+row.unlisted.remark(), row.verdicts)
	}
	b.WriteString("\n¹ An operator event names a code that is not in the first table. " +
		"² The same, and a send that meets such a code is rejected. " +
		"A DELETE of a sync that meets 404 is done.\n")
	b.WriteString("\nWithout a whole answer, what failed and how far the request got decide:\n\n")
	mdTableHead(&b, "failure")
	for _, row := range faultTable() {
		name := "`" + string(row.fault) + "`"
		mdTableRow(&b, name+", `"+string(schema.PhaseNotSent)+"`", bothFamilies(row.notSent))
		if row.possibleWritten() {
			mdTableRow(&b, name+", `"+string(schema.PhaseWritten)+"`", row.written)
		}
	}
	b.WriteString("\nStatus webhooks, after a message was accepted:\n\n")
	b.WriteString("| status | event of the command | also | note |\n| --- | --- | --- | --- |\n")
	for _, late := range LateStatuses() {
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", late.Status, mdDash(mdCode(string(late.State))), mdDash(late.also()), late.Note)
	}
	return b.String()
}

func mdTableHead(b *strings.Builder, first string) {
	b.WriteString("| " + first + " | send | sync and query | attempt | breaker | reopens on | note |\n")
	b.WriteString("| --- | --- | --- | --- | --- | --- | --- |\n")
}

func mdTableRow(b *strings.Builder, first string, v verdicts) {
	fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s |\n",
		first, v.send.inWords(), v.repeat.inWords(),
		mdPair(v.send.attempt(), v.repeat.attempt()),
		mdPair(v.send.breaker(), v.repeat.breaker()),
		mdDash(v.send.Reopens), v.note())
}

// inWords is the class and the action of one cell.
func (v *Verdict) inWords() string {
	words := string(v.Class) + ": " + strings.ReplaceAll(string(v.Action), "_", " ")
	if v.Action == ActionUnknown {
		words = string(v.Class) + ": evidence first"
	}
	if v.Limit > 0 {
		words = fmt.Sprintf("%s: retry, at most %d calls, then reject", v.Class, v.Limit)
	}
	if v.SpamBrake {
		words += ", spam brake"
	}
	if v.OpsUnknownCode {
		words += ", operator event"
	}
	return words
}

func (v *Verdict) attempt() string {
	if v.SpendsAttempt {
		return "counts"
	}
	return "free"
}

func (v *Verdict) breaker() string {
	if v.Breaker == BreakerNothing {
		return "—"
	}
	return string(v.Breaker)
}

func (v *verdicts) note() string {
	if v.send.Note == v.repeat.Note || v.repeat.Note == "" {
		return v.send.Note
	}
	return v.send.Note + "; sync and query: " + v.repeat.Note
}

func (u unlistedEffect) remark() string {
	switch u {
	case unlistedNamed:
		return " ¹"
	case unlistedDecide:
		return " ²"
	case unlistedSame:
	}
	return ""
}

// possibleWritten: the others fail before anything can be written.
func (r *faultRow) possibleWritten() bool {
	switch r.fault {
	case "timeout", "reset", "bad_answer", "cancelled":
		return true
	default:
		return false
	}
}

func (l *LateStatus) also() string {
	switch {
	case l.SpamBrake:
		return "spam brake"
	case l.FloodPause:
		return "pauses the channel's bulk class"
	default:
		return ""
	}
}

func mdRange(from, to int) string {
	if from == to {
		return strconv.Itoa(from)
	}
	return fmt.Sprintf("%d to %d", from, to)
}

func mdPair(send, repeat string) string {
	if send == repeat {
		return send
	}
	return send + " / " + repeat
}

func mdCode(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

func mdDash(text string) string {
	if text == "" {
		return "—"
	}
	return text
}
