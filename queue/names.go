package queue

import (
	"strconv"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Names are the streams and internal subjects of one account. Everything under
// `wz.` is internal: no producer or consumer has rights to it. The prefix is
// short because the server keeps every subject in memory.
type Names struct{ Account string }

// Commands is the stream that producers publish to.
func (n Names) Commands() string { return "wazzup-" + n.Account + "-commands" }

// Records is the stream of the ledger, the index and all public events.
func (n Names) Records() string { return "wazzup-" + n.Account + "-records" }

// Deferred is the stream of commands that wait for their time.
func (n Names) Deferred() string { return "wazzup-" + n.Account + "-deferred" }

// Dead is the stream of dead letters.
func (n Names) Dead() string { return "wazzup-" + n.Account + "-dead" }

func (n Names) internal(family string) string { return "wz." + n.Account + "." + family + "." }

// LedgerKey is the token under which the records of a command id are kept.
func LedgerKey(id string) string { return schema.Key(id) }

// LedgerKey is the token for a message that cannot write to the ledger of the id
// it names, since that belongs to another message. No id has such a key.
func (o Origin) LedgerKey() string {
	return "=" + strconv.FormatInt(o.Created, 36) + "-" + strconv.FormatUint(o.Seq, 36)
}

// LedgerWrite is where the owner of an epoch publishes a command's record. The
// stream lists the subjects of one epoch only, which is what fences the others,
// and stores the record under LedgerSubject.
func (n Names) LedgerWrite(epoch, key string) string { return n.internal("f") + epoch + ".l." + key }

// LedgerSubject is where the records of a ledger key are stored.
func (n Names) LedgerSubject(key string) string { return n.internal("l") + key }

// IndexSubject is where the command behind a vendor's message id is noted.
func (n Names) IndexSubject(messageID string) string { return n.internal("x") + schema.Key(messageID) }

// IndexFilter matches every IndexSubject.
func (n Names) IndexFilter() string { return n.internal("x") + "*" }

// LateSubject is where a worker that lost its epoch reports an answer that came
// too late for its ledger; it is not fenced.
func (n Names) LateSubject(id string) string { return n.internal("late") + schema.Key(id) }

// LateFilter matches every LateSubject.
func (n Names) LateFilter() string { return n.internal("late") + "*" }

// DoubtSubject is where attempts are noted that were given up in doubt.
func (n Names) DoubtSubject(key DoubtKey) string { return n.internal("g") + key.token() }

// DoubtFilter matches every DoubtSubject.
func (n Names) DoubtFilter() string { return n.internal("g") + "*" }

// StateWrite is where the owner of an epoch publishes what must outlive it; it is
// fenced like LedgerWrite, and stored under StateSubject.
func (n Names) StateWrite(epoch, key string) string { return n.internal("f") + epoch + ".s." + key }

// StateSubject is where an owner's notes are kept, such as the hand-over. Only the last message of each counts. key is one token.
func (n Names) StateSubject(key string) string { return n.internal("s") + key }

// GateWrite is where the owner of an epoch publishes what it knows of a channel's
// or the account's gate; it is fenced like LedgerWrite, and stored under GateSubject.
func (n Names) GateWrite(epoch, key string) string { return n.internal("f") + epoch + ".c." + key }

// GateSubject is where the last word about a gate is kept.
func (n Names) GateSubject(key string) string { return n.internal("c") + key }

// GateFilter matches every GateSubject.
func (n Names) GateFilter() string { return n.internal("c") + "*" }

// DueSubject is where a deferred command appears when its time has come.
func (n Names) DueSubject(kind schema.Kind, channelID string) string {
	return n.internal("due") + string(kind) + "." + schema.Key(channelID)
}

// DueFilter matches every DueSubject.
func (n Names) DueFilter() string { return n.internal("due") + "*.*" }

// DueClassFilter matches every DueSubject of one class of lanes.
func (n Names) DueClassFilter(class schema.Kind) string {
	return n.internal("due") + string(class) + ".*"
}

// ScheduleSubject holds a deferred command until then: one subject each, since
// the server keeps one schedule a subject.
func (n Names) ScheduleSubject(id string, generation string) string {
	return n.internal("at") + schema.Key(id) + "." + generation
}

// DeadSubject is where the dead letter of a command lies.
func (n Names) DeadSubject(id string) string { return n.internal("dead") + schema.Key(id) }

// DeadFilter matches every DeadSubject.
func (n Names) DeadFilter() string { return n.internal("dead") + "*" }

// parkOfEpoch matches where the owner of an epoch parks commands.
func (n Names) parkOfEpoch(epoch string) string { return n.internal("f") + epoch + ".park.*.*.*" }

// NoEpoch stands in the fenced streams' subjects until the first owner.
const NoEpoch = "0"

// fencedOfEpoch matches what only the owner of an epoch may write: <family>.<key>.
func (n Names) fencedOfEpoch(epoch string) string { return n.internal("f") + epoch + ".*.*" }
