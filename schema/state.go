package schema

// State is a station in a command's life, and the `<state>` token of its event.
type State string

// The states that are published. Exactly one final one (see [State.Final]) ends
// every stored command; the last three may follow a StateSent.
const (
	// StateRetrying: the attempt had no effect, or may be repeated; another
	// follows at the event's retryAt.
	StateRetrying State = "retrying"
	// StateUnknown: the request may have been written and no answer came back,
	// or the worker died after its claim. It may have been carried out.
	StateUnknown State = "unknown"
	// StateSent: the vendor answered with a message id, or evidence proved it.
	StateSent State = "sent"
	// StateDone: the vendor took a sync command.
	StateDone State = "done"
	// StateRejected: the vendor refused the command for good.
	StateRejected State = "rejected"
	// StateInvalid: our own validation refused it; the vendor never saw it.
	StateInvalid State = "invalid"
	// StateDuplicate: another message with this id was carried out or is under way.
	StateDuplicate State = "duplicate"
	// StateExpired: expireAt passed before the call.
	StateExpired State = "expired"
	// StateCancelled: somebody cancelled it before the call.
	StateCancelled State = "cancelled"
	// StateDead: attempts are used up, or nothing resolved an unknown. The
	// command is in the dead letters and can be redriven.
	StateDead State = "dead"
	// StateDelivered, StateRead and StateFailed come from the vendor's status
	// webhooks, forward only and once each.
	StateDelivered State = "delivered"
	StateRead      State = "read"
	StateFailed    State = "failed"
)

// States returns every published state, in the order of a command's life.
func States() []State {
	return []State{
		StateRetrying, StateUnknown, StateSent, StateDone, StateRejected,
		StateInvalid, StateDuplicate, StateExpired, StateCancelled, StateDead,
		StateDelivered, StateRead, StateFailed,
	}
}

// Final reports whether the state ends a command (StateDead until it is redriven).
func (s State) Final() bool {
	switch s {
	case StateSent, StateDone, StateRejected, StateInvalid, StateDuplicate,
		StateExpired, StateCancelled, StateDead:
		return true
	case StatePending, StateRetrying, StateUnknown, StateDelivered, StateRead, StateFailed:
	}
	return false
}

// NextStates returns the states that may follow one in the events of a command; of
// "" those with which a life may begin. None follows what cannot change any more.
// A dead command goes on when it is redriven. The statuses of a message may also
// follow an end that was told before its call, given up as unknown, was proven.
func NextStates(s State) []State {
	called := []State{
		StateRetrying, StateUnknown, StateSent, StateDone, StateRejected,
		StateExpired, StateCancelled, StateDead,
	}
	switch s {
	case "":
		return append(called, StateInvalid, StateDuplicate)
	case StateRetrying, StateUnknown:
		return called
	case StateDead:
		return append(called, StateDelivered, StateRead, StateFailed)
	case StateSent, StateRejected, StateExpired, StateCancelled:
		return []State{StateDelivered, StateRead, StateFailed}
	case StateDelivered:
		return []State{StateRead, StateFailed}
	case StateRead:
		return []State{StateFailed}
	case StatePending, StateDone, StateInvalid, StateDuplicate, StateFailed:
	}
	return nil
}

// Class says what a fault means for the command and for what lies around it.
type Class string

// The classes of faults, `error.class` of events.
const (
	ClassInvalid   Class = "invalid"   // our validation refused it
	ClassTerminal  Class = "terminal"  // the vendor refused this one message for good
	ClassRetryable Class = "retryable" // surely without effect; may be tried again
	ClassChannel   Class = "channel"   // the channel cannot send now; its lanes close
	ClassAccount   Class = "account"   // the account cannot send now; all its lanes close
	ClassUnknown   Class = "unknown"   // the fate of the call is not known
)

// Classes returns every class.
func Classes() []Class {
	return []Class{ClassInvalid, ClassTerminal, ClassRetryable, ClassChannel, ClassAccount, ClassUnknown}
}

// Phase tells how far a request got before it failed.
type Phase string

// The phases, `error.phase` of events.
const (
	PhaseNotSent  Phase = "not_sent" // surely nothing was written
	PhaseClaimed  Phase = "claimed"  // the worker died after its claim; it cannot be known
	PhaseWritten  Phase = "written"  // something may have been written, no answer came
	PhaseAnswered Phase = "answered" // the vendor answered
)

// Phases returns every phase.
func Phases() []Phase { return []Phase{PhaseNotSent, PhaseClaimed, PhaseWritten, PhaseAnswered} }

// Reason says why a command is dead.
type Reason string

// The reasons of StateDead, `error.reason` of its event.
const (
	ReasonAttempts   Reason = "attempts"    // WAZZUP_MAX_ATTEMPTS calls were made
	ReasonNoEvidence Reason = "no_evidence" // unknown, and nothing proved it within the wait
	ReasonNoWebhooks Reason = "no_webhooks" // unknown, and no webhook arrives that could prove it
	ReasonTooOld     Reason = "too_old"     // stored longer ago than the ledger remembers
	ReasonDropped    Reason = "dropped"     // an operator gave it up
)

// Reasons returns every reason.
func Reasons() []Reason {
	return []Reason{ReasonAttempts, ReasonNoEvidence, ReasonNoWebhooks, ReasonTooOld, ReasonDropped}
}

// OnUnknown is a producer's wish for a call whose fate stays unknown.
type OnUnknown string

// The wishes; the empty value means OnUnknownReconcile.
const (
	OnUnknownReconcile OnUnknown = "reconcile" // wait for evidence, else StateDead
	OnUnknownResend    OnUnknown = "resend"    // wait for evidence, else call again
)
