package sender

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

// Evidence is what may prove that a call whose answer was lost was carried out.
type Evidence string

// The choices of WAZZUP_EVIDENCE.
const (
	EvidenceEcho Evidence = "echo" // the vendor's echo on the messages webhook
	EvidenceNone Evidence = "none" // nothing: every unknown goes to its onUnknown at once
)

// UnmarshalText reads a setting.
func (e *Evidence) UnmarshalText(text []byte) error {
	switch v := Evidence(text); v {
	case EvidenceEcho, EvidenceNone:
		*e = v
		return nil
	}
	return fmt.Errorf("want %s or %s", EvidenceEcho, EvidenceNone)
}

// Defaults of Config.
const (
	DefaultMaxAttempts   = 8
	DefaultConcurrency   = 64
	DefaultTimeout       = 20 * time.Second
	DefaultReconcileWait = 2 * time.Minute
	DefaultChannelsPoll  = time.Minute
	DefaultFloodPause    = time.Hour
	DefaultSpamLimit     = 3
	DefaultSpamWindow    = time.Hour
	DefaultStatusWait    = 10 * time.Minute
	DefaultSyncGather    = 200 * time.Millisecond
	DefaultSilence       = 15 * time.Minute
)

// Config is how one account is served. The zero value of a field means its
// default, except for rates, where it means no limit.
type Config struct {
	Account string // default "main"
	APIKey  string
	APIURL  string // without /v2

	Rate        rate.Rate // of all requests of the account, in any interval of its length
	SendRate    rate.Rate // of each channel's transactional lane
	BulkRate    rate.Rate // of each channel's bulk lane
	Channels    map[string]ChannelConfig
	Concurrency int // calls in flight

	MaxAttempts   int
	Timeout       time.Duration // of one call
	Backoff       Backoff
	Evidence      Evidence
	ReconcileWait time.Duration // how long an unknown waits for evidence
	ChannelsPoll  time.Duration // how often the channel list is read
	FloodPause    time.Duration // how long a channel's bulk class pauses after the vendor broke it off
	SpamLimit     int           // so many messages rated as spam within SpamWindow stop a channel's bulk class; negative: never
	SpamWindow    time.Duration
	StatusWait    time.Duration     // how long a status is kept whose message is not known yet
	CounterURL    string            // of the socket of unanswered counters, http or https
	CounterUsers  []json.RawMessage // whose counters are followed: JSON strings and numbers
	Silence       time.Duration     // so long after an accepted message without any status operators are told; negative: never

	SyncGather time.Duration // how long a sync command waits for others to share a request; negative: not at all

	Limits queue.Limits

	Worker string // names this process in ledgers and logs

	timing timing
}

// timing is what only tests set.
type timing struct {
	laneIdle    time.Duration // after it a lane without work is retired; default 10 min
	sleepRounds int           // see [sleepRounds]
	storage     time.Duration // how often the streams' sizes are read; default 5 s
	longest     bool          // every wait that chance decides is the longest
	discover    time.Duration // see [discoverTimeout]
	strangers   int           // see [strangersMax]
	crowdOver   int           // see [crowdOver]
	guardPer    time.Duration // the time over which repairs of the webhook are counted; default 1 h
	openFor     time.Duration // how long a breaker is open the first time; default 5 s
}

// ChannelConfig are the paces of one channel, where they differ.
type ChannelConfig struct{ SendRate, BulkRate *rate.Rate }

func (c Config) withDefaults() Config {
	if c.Account == "" {
		c.Account = "main"
	}
	if c.Concurrency == 0 {
		c.Concurrency = DefaultConcurrency
	}
	if c.MaxAttempts == 0 {
		c.MaxAttempts = DefaultMaxAttempts
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Backoff == (Backoff{}) {
		c.Backoff = DefaultBackoff()
	}
	if c.Evidence == "" {
		c.Evidence = EvidenceEcho
	}
	if c.ReconcileWait == 0 {
		c.ReconcileWait = DefaultReconcileWait
	}
	if c.ChannelsPoll == 0 {
		c.ChannelsPoll = DefaultChannelsPoll
	}
	if c.StatusWait == 0 {
		c.StatusWait = DefaultStatusWait
	}
	if c.SyncGather == 0 {
		c.SyncGather = DefaultSyncGather
	}
	if c.Silence == 0 {
		c.Silence = DefaultSilence
	}
	if c.FloodPause == 0 {
		c.FloodPause = DefaultFloodPause
	}
	if c.SpamLimit == 0 {
		c.SpamLimit = DefaultSpamLimit
	}
	if c.SpamWindow == 0 {
		c.SpamWindow = DefaultSpamWindow
	}
	if c.Limits.Retention == 0 {
		c.Limits.Retention = queue.DefaultRetention
	}
	if c.timing.sleepRounds == 0 {
		c.timing.sleepRounds = sleepRounds
	}
	if c.timing.laneIdle == 0 {
		c.timing.laneIdle = laneIdleMax
	}
	if c.timing.storage == 0 {
		c.timing.storage = storageEvery
	}
	if c.timing.discover == 0 {
		c.timing.discover = discoverTimeout
	}
	if c.timing.strangers == 0 {
		c.timing.strangers = strangersMax
	}
	if c.timing.crowdOver == 0 {
		c.timing.crowdOver = crowdOver
	}
	if c.timing.guardPer == 0 {
		c.timing.guardPer = guardPer
	}
	return c
}

func (c *Config) paceOf(key laneKey) rate.Rate {
	own := c.Channels[key.channel]
	switch key.class {
	case classSend:
		if own.SendRate != nil {
			return *own.SendRate
		}
		return c.SendRate
	case classBulk:
		if own.BulkRate != nil {
			return *own.BulkRate
		}
		return c.BulkRate
	}
	return rate.Rate{}
}
