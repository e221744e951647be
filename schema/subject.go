package schema

import "strings"

// Subjects of the contract. `<account>` and `<channelId>` are tokens already;
// everything else that comes from a body or from the vendor goes through [Key].

const subjectRoot = "wazzup."

// NoChannel is the channel token of events of sync commands.
const NoChannel = "-"

// SendSubject is where a message command is published: kind is KindSend or KindBulk.
func SendSubject(account string, kind Kind, channelID string) string {
	return subjectRoot + account + ".cmd." + string(kind) + "." + channelID
}

// SyncSubject is where a sync command is published.
func SyncSubject(account string, e Entity, v Verb) string {
	return subjectRoot + account + ".cmd.sync." + string(e) + "." + string(v)
}

// CommandSubjects lists every subject an account's command stream is bound to.
// It is exactly the contract's list, so that publishing to anything else meets
// no stream rather than silence.
func CommandSubjects(account string) []string {
	subjects := []string{
		SendSubject(account, KindSend, "*"),
		SendSubject(account, KindBulk, "*"),
	}
	for _, k := range Kinds() {
		if e, v, ok := k.Sync(); ok {
			subjects = append(subjects, SyncSubject(account, e, v))
		}
	}
	return subjects
}

// ParseCommandSubject tells the kind and the channel token ("" for sync
// commands) of a command's subject; ok is false for any other subject.
func ParseCommandSubject(account, subject string) (kind Kind, channelID string, ok bool) {
	rest, ok := strings.CutPrefix(subject, subjectRoot+account+".cmd.")
	if !ok {
		return "", "", false
	}
	head, tail, _ := strings.Cut(rest, ".")
	switch head {
	case string(KindSend), string(KindBulk):
		if tail == "" || strings.Contains(tail, ".") {
			return "", "", false
		}
		return Kind(head), tail, true
	case "sync":
		e, v, _ := strings.Cut(tail, ".")
		kind = SyncKind(Entity(e), Verb(v))
		return kind, "", kind != ""
	}
	return "", "", false
}

// IsWildcard reports whether a token of a stored subject would be a wildcard in a
// filter. NATS stores what is published on such a subject like anything else.
func IsWildcard(token string) bool { return token == "*" || token == ">" }

// CommandEventSubject is where a command's event is published. A channel token
// that was malformed in the command's subject is a plain token all the same, but
// for one that looks like a wildcard, which becomes its Key.
func CommandEventSubject(account string, s State, k Kind, channelID string) string {
	switch {
	case channelID == "":
		channelID = NoChannel
	case IsWildcard(channelID):
		channelID = Key(channelID)
	}
	return subjectRoot + account + ".evt.command." + string(s) + "." + string(k) + "." + channelID
}

// MessageEventSubject is where a message of a webhook is published; direction
// is "in" or "out".
func MessageEventSubject(account, direction, channelID, chatType, chatID string) string {
	return subjectRoot + account + ".evt.message." + direction + "." + Key(channelID) + "." + Key(chatType) + "." + Key(chatID)
}

// StatusWord names a status number of the manual as its events do; "" for any
// other. What the failures mean one by one is in the event's body, as the vendor's
// number.
func StatusWord(number string) string {
	switch number {
	case "0":
		return "processing"
	case "1":
		return "sent"
	case "2":
		return "delivered"
	case "3":
		return "read"
	case "13", "14", "15", "17", "18", "19", "21", "66":
		return "failed"
	}
	return ""
}

// StatusEventSubject is where a status of a webhook is published; word is one
// of processing, sent, delivered, read, failed.
func StatusEventSubject(account, word string) string {
	return subjectRoot + account + ".evt.status." + word
}

// ChannelEventSubject is where a channel's new state is published.
func ChannelEventSubject(account, channelID, state string) string {
	return subjectRoot + account + ".evt.channel." + Key(channelID) + "." + Key(state)
}

// ChannelsEventSubject is where a whole new channel list is published.
func ChannelsEventSubject(account string) string { return subjectRoot + account + ".evt.channels" }

// CounterEventSubject is where a user's unanswered counter is published.
func CounterEventSubject(account, userID string) string {
	return subjectRoot + account + ".evt.counter." + Key(userID)
}

// QuarantineEventSubject is where a webhook that was not understood is kept.
func QuarantineEventSubject(account string, r QuarantineReason) string {
	return subjectRoot + account + ".evt.quarantine." + string(r)
}

// OpsEventSubject is where an operator event is published.
func OpsEventSubject(account string, n OpsName) string {
	return subjectRoot + account + ".evt.ops." + string(n)
}

// EventSubjects is the filter of all events of an account.
func EventSubjects(account string) string { return subjectRoot + account + ".evt.>" }

// APISubject is where a request is published.
func APISubject(account, name string) string { return subjectRoot + account + ".api." + name }

// ReplySubjectPrefix is the one prefix, besides "_INBOX.", that a command's
// Wazzup-Reply-To header may name.
func ReplySubjectPrefix(account string) string { return subjectRoot + account + ".reply." }

// CloudEventSource is the ce-source of an account's events.
func CloudEventSource(account string) string { return "/wazzup/" + account }

// ValidAccount reports whether the text is an account's name: [a-z0-9-]{1,32}.
func ValidAccount(name string) bool {
	if name == "" || len(name) > 32 {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// CommandSubject is where a command of any kind is published; channelID is the
// channel's token for messages and ignored for sync commands.
func CommandSubject(account string, kind Kind, channelID string) string {
	if e, v, ok := kind.Sync(); ok {
		return SyncSubject(account, e, v)
	}
	return SendSubject(account, kind, channelID)
}
