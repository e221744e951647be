package schema

import (
	"encoding/json"
	"time"
)

// Header names of events and commands. The CloudEvents ones are those of the
// binary content mode (CloudEvents 1.0, NATS protocol binding).
const (
	HeaderMsgID         = "Nats-Msg-Id"
	HeaderReplyTo       = "Wazzup-Reply-To"
	HeaderCESpecVersion = "ce-specversion"
	HeaderCEID          = "ce-id"
	HeaderCESource      = "ce-source"
	HeaderCEType        = "ce-type"
	HeaderCETime        = "ce-time"
	HeaderCESubject     = "ce-subject"
	HeaderTraceparent   = "traceparent"
	HeaderTracestate    = "tracestate"
)

// CommandEvent is the body of `wazzup.<account>.evt.command.…`: one station of
// one command's life. Fields without a value are left out.
type CommandEvent struct {
	ID           string          `json:"id"`
	Account      string          `json:"account"`
	Kind         Kind            `json:"kind"`
	State        State           `json:"state"`
	At           time.Time       `json:"at"`
	Attempt      int             `json:"attempt,omitempty"` // numbers the claims, from 1; 0 = never claimed
	ChannelID    string          `json:"channelId,omitempty"`
	ChatType     string          `json:"chatType,omitempty"`
	ChatID       string          `json:"chatId,omitempty"`
	MessageID    string          `json:"messageId,omitempty"`
	Error        *Error          `json:"error,omitempty"`
	Evidence     *Evidence       `json:"evidence,omitempty"`
	Original     *Original       `json:"original,omitempty"`
	Items        []ItemError     `json:"items,omitempty"`
	RetryAt      *time.Time      `json:"retryAt,omitempty"`
	SupersededBy string          `json:"supersededBy,omitempty"`
	Group        string          `json:"group,omitempty"`
	Seq          uint64          `json:"seq"` // of the message in the command stream
	Meta         json.RawMessage `json:"meta,omitempty"`
}

// Error is what went wrong, in the vendor's word or ours.
type Error struct {
	Code        string  `json:"code"`
	Class       Class   `json:"class"`
	Description string  `json:"description,omitempty"`
	HTTPStatus  int     `json:"httpStatus,omitempty"`
	Phase       Phase   `json:"phase,omitempty"`
	Reason      Reason  `json:"reason,omitempty"` // of StateDead only
	Faults      []Fault `json:"faults,omitempty"` // of StateInvalid only
}

// Error makes it an error; the description may name what a producer sent, so
// the text is for producers and never for logs.
func (e *Error) Error() string {
	if e.Description == "" {
		return e.Code
	}
	return e.Code + ": " + e.Description
}

// Fault is one broken rule of a command.
type Fault struct {
	Field       string `json:"field"` // path in the body: `chatId`, `meta`, `items[3].id`; `` = the body itself
	Code        string `json:"code"`
	Description string `json:"description"`
}

// ItemError is one refused item of a sync command that was otherwise taken.
type ItemError struct {
	ID    json.RawMessage `json:"id"` // as the producer wrote it: string or number
	Error *Error          `json:"error"`
}

// Evidence is what proved an unknown call to have been carried out.
type Evidence struct {
	Kind      EvidenceKind `json:"kind"`
	MessageID string       `json:"messageId,omitempty"`
}

// EvidenceKind is where the proof came from.
type EvidenceKind string

// The kinds of evidence.
const (
	EvidenceEcho     EvidenceKind = "echo"     // the vendor's echo on the messages webhook
	EvidenceAnswer   EvidenceKind = "answer"   // the vendor's own answer, which arrived late or outlived its worker
	EvidenceOperator EvidenceKind = "operator" // command.resolve
)

// EvidenceKinds returns every kind of evidence.
func EvidenceKinds() []EvidenceKind {
	return []EvidenceKind{EvidenceEcho, EvidenceAnswer, EvidenceOperator}
}

// Original is the command that used an id first.
type Original struct {
	State State  `json:"state"` // its last published state; StatePending before the first
	Seq   uint64 `json:"seq"`
}

// StatePending stands in [Original.State] (and in answers about a command) for
// one that is stored or claimed and has published nothing yet.
const StatePending State = "pending"

// StatusEvent is what is added to the vendor's status object in `evt.status.…`.
type StatusEvent struct {
	// Word is processing, sent, delivered, read or failed: the subject's token.
	Word      string          `json:"-"`
	MessageID string          `json:"messageId"`
	Status    json.RawMessage `json:"status"` // number or string, as the vendor sent it
	CommandID string          `json:"commandId,omitempty"`
	Meta      json.RawMessage `json:"meta,omitempty"`
}

// CounterEvent is the body of `evt.counter.…`.
type CounterEvent struct {
	UserID  json.RawMessage `json:"userId"` // string or number, as it is configured
	Counter int64           `json:"counter"`
}

// QuarantineReason says why a webhook body or item was not understood.
type QuarantineReason string

// The reasons for quarantine.
const (
	QuarantineNotJSON       QuarantineReason = "not-json"       // the body is no JSON
	QuarantineShape         QuarantineReason = "shape"          // JSON, but not of the manual's shape
	QuarantineBadItem       QuarantineReason = "bad-item"       // one item lacks what makes it usable
	QuarantineUnknownStatus QuarantineReason = "unknown-status" // a status number the manual does not list
	QuarantineV3            QuarantineReason = "v3"             // the successor API's shape
)

// QuarantineReasons returns every reason.
func QuarantineReasons() []QuarantineReason {
	return []QuarantineReason{QuarantineNotJSON, QuarantineShape, QuarantineBadItem, QuarantineUnknownStatus, QuarantineV3}
}

// QuarantineEvent keeps a webhook body, or an item of one, whole. A body beyond
// NATS's payload limit is cut into Parts numbered from 1, each with the hash of
// the whole.
type QuarantineEvent struct {
	Reason   QuarantineReason `json:"reason"`
	Body     string           `json:"body"`
	Encoding string           `json:"encoding"` // "utf-8" or "base64"
	Part     int              `json:"part"`
	Parts    int              `json:"parts"`
	SHA256   string           `json:"sha256"` // lower-case hex, of the whole body
}

// OpsName is the last token of an operator event's subject. It may hold a dot:
// `lane.closed` travels on `wazzup.<account>.evt.ops.lane.closed`.
type OpsName string

// The operator events.
const (
	OpsLaneClosed        OpsName = "lane.closed"
	OpsLaneOpened        OpsName = "lane.opened"
	OpsLanePaused        OpsName = "lane.paused"
	OpsLaneResumed       OpsName = "lane.resumed"
	OpsAccountClosed     OpsName = "account.closed"
	OpsAccountOpened     OpsName = "account.opened"
	OpsBreakerOpened     OpsName = "breaker.opened"
	OpsBreakerClosed     OpsName = "breaker.closed"
	OpsWebhookDrift      OpsName = "webhook.drift"
	OpsWebhookSilent     OpsName = "webhook.silent"
	OpsWebhookV3         OpsName = "webhook.v3"
	OpsVendorUnknownCode OpsName = "vendor.unknown_code"
	OpsLateProof         OpsName = "late_proof"
	OpsStorageHigh       OpsName = "storage.high"
)

// OpsNames returns every operator event's name.
func OpsNames() []OpsName {
	return []OpsName{
		OpsLaneClosed, OpsLaneOpened, OpsLanePaused, OpsLaneResumed,
		OpsAccountClosed, OpsAccountOpened, OpsBreakerOpened, OpsBreakerClosed,
		OpsWebhookDrift, OpsWebhookSilent, OpsWebhookV3, OpsVendorUnknownCode,
		OpsLateProof, OpsStorageHigh,
	}
}

// OpsEvent is the body of `evt.ops.…`: something an operator should know.
type OpsEvent struct {
	Name      OpsName         `json:"name"`
	Account   string          `json:"account"`
	At        time.Time       `json:"at"`
	ChannelID string          `json:"channelId,omitempty"`
	Class     string          `json:"class,omitempty"` // lane class: send or bulk
	Reason    string          `json:"reason,omitempty"`
	OpensOn   string          `json:"opensOn,omitempty"`
	Detail    json.RawMessage `json:"detail,omitempty"`
}
