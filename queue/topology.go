package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Limits are the bounds of an account's streams. The zero value of a field
// means its default.
type Limits struct {
	Replicas      int           // copies of every stream in a cluster; default 1
	Retention     time.Duration // how long the ledger remembers an id; default 7 days
	DedupeWindow  time.Duration // how long a repeated event is removed; default 1 h
	DeadRetention time.Duration // how long a dead letter is kept; default 30 days
	CommandBytes  int64         // default 2 GiB; when full, publishers get an error
	RecordBytes   int64         // default 4 GiB
	DeferredBytes int64         // default 1 GiB; when full, no more commands are scheduled until there is room
	DeadBytes     int64         // default 512 MiB
}

// Defaults of Limits. Records outweigh commands, since a command of 300 bytes
// leaves some 1,500 bytes of records and must find room for them.
const (
	DefaultRetention     = 7 * 24 * time.Hour
	DefaultDedupeWindow  = time.Hour
	DefaultDeadRetention = 30 * 24 * time.Hour
	DefaultCommandBytes  = 2 << 30
	DefaultRecordBytes   = 4 << 30
	DefaultDeferredBytes = 1 << 30
	DefaultDeadBytes     = 512 << 20
)

func (l Limits) withDefaults() Limits {
	set := func(v *int64, def int64) {
		if *v == 0 {
			*v = def
		}
	}
	duration := func(v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
	}
	if l.Replicas == 0 {
		l.Replicas = 1
	}
	duration(&l.Retention, DefaultRetention)
	duration(&l.DedupeWindow, DefaultDedupeWindow)
	duration(&l.DeadRetention, DefaultDeadRetention)
	set(&l.CommandBytes, DefaultCommandBytes)
	set(&l.RecordBytes, DefaultRecordBytes)
	set(&l.DeferredBytes, DefaultDeferredBytes)
	set(&l.DeadBytes, DefaultDeadBytes)
	l.DedupeWindow = min(l.DedupeWindow, l.Retention)
	return l
}

// commandDedupe is as short as the server allows. The ledger is the guard
// against repeated ids: a work queue forgets its message ids at a restart, and
// a repeat that the server swallowed could never end `duplicate` or `invalid`.
const commandDedupe = 100 * time.Millisecond

// maxLanes lifts the server's limit of 1,000 consumers a stream.
const maxLanes = 20_000

// Topology is an account's streams, made sure of.
type Topology struct {
	Names
	Limits  Limits
	Created time.Time // of the command stream, through every restored backup: part of every command's origin

	js jetstream.JetStream
}

// Ensure creates what is missing of the account's streams and leaves what
// exists as it is; the account's owner brings limits up to date (see
// [Lease.Raise]). Any number of programs may call it at once. It returns when
// the streams are there.
func Ensure(ctx context.Context, js jetstream.JetStream, account string, limits Limits) (*Topology, error) {
	if !schema.ValidAccount(account) {
		return nil, fmt.Errorf("ensure streams: account %q: want 1 to 32 of a-z, 0-9 and -", account)
	}
	t := &Topology{Names: Names{account}, Limits: limits.withDefaults(), js: js}
	for _, cfg := range t.configs(NoEpoch) {
		info, err := ensureStream(ctx, js, cfg)
		if err != nil {
			return nil, fmt.Errorf("ensure stream %s: %w", cfg.Name, Explain(err))
		}
		if cfg.Name == t.Commands() {
			t.Created = created(info)
		}
	}
	return t, nil
}

// createdKey is the entry of the command stream's metadata that keeps its creation
// time, in Unix nanoseconds: a restored backup is a new stream for the server, and
// a command that it brings back must still be the command of its records.
const createdKey = "wazzup-created"

func created(info *jetstream.StreamInfo) time.Time {
	if ns, err := strconv.ParseInt(info.Config.Metadata[createdKey], 10, 64); err == nil {
		return time.Unix(0, ns).UTC()
	}
	return info.Created
}

func ensureStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) (info *jetstream.StreamInfo, err error) {
	err = Ask(ctx, func(ctx context.Context) error {
		s, err := js.Stream(ctx, cfg.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			s, err = js.CreateStream(ctx, cfg)
			// Another program was faster, perhaps with other limits.
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				s, err = js.Stream(ctx, cfg.Name)
			}
		}
		if err == nil {
			info = s.CachedInfo()
		}
		return err
	})
	return info, err
}

// update brings the streams to the limits that are wanted now, and those that an
// epoch fences to the epoch.
func (t *Topology) update(ctx context.Context, epoch string) error {
	for _, cfg := range t.configs(epoch) {
		if cfg.Name == t.Commands() {
			cfg.Metadata = map[string]string{createdKey: strconv.FormatInt(t.Created.UnixNano(), 10)}
		}
		err := Ask(ctx, func(ctx context.Context) error { return t.updateStream(ctx, cfg) })
		if err != nil {
			return fmt.Errorf("update stream %s: %w", cfg.Name, Explain(err))
		}
	}
	return nil
}

func (t *Topology) updateStream(ctx context.Context, cfg jetstream.StreamConfig) error {
	s, err := t.js.Stream(ctx, cfg.Name)
	if err != nil {
		return err
	}
	have := s.CachedInfo().Config
	if sameConfig(have, cfg) {
		return nil
	}
	// What cannot be changed on a living stream stays as it was made.
	cfg.AllowMsgSchedules = have.AllowMsgSchedules
	_, err = t.js.UpdateStream(ctx, cfg)
	return err
}

func sameConfig(have, want jetstream.StreamConfig) bool {
	return slices.Equal(have.Subjects, want.Subjects) &&
		have.Replicas == want.Replicas && have.MaxAge == want.MaxAge &&
		have.MaxBytes == want.MaxBytes && have.Duplicates == want.Duplicates &&
		have.AllowDirect == want.AllowDirect &&
		have.Metadata[createdKey] == want.Metadata[createdKey]
}

func (t *Topology) configs(epoch string) []jetstream.StreamConfig {
	l := t.Limits
	return []jetstream.StreamConfig{
		{
			Name:         t.Commands(),
			Description:  "wazzup-relay: commands of account " + t.Account,
			Subjects:     schema.CommandSubjects(t.Account),
			Retention:    jetstream.WorkQueuePolicy,
			Discard:      jetstream.DiscardNew,
			MaxBytes:     l.CommandBytes,
			MaxConsumers: maxLanes,
			Duplicates:   commandDedupe,
			Storage:      jetstream.FileStorage,
			Replicas:     l.Replicas,
			AllowDirect:  true, // to look for one command among many
		},
		{
			Name:        t.Records(),
			Description: "wazzup-relay: ledger, index and events of account " + t.Account,
			Subjects: []string{
				t.fencedOfEpoch(epoch), t.IndexFilter(), t.LateFilter(), t.DoubtFilter(),
				schema.EventSubjects(t.Account),
			},
			// The epoch is in the subject only to be refused when it is over;
			// what is stored is one subject a command.
			SubjectTransform: &jetstream.SubjectTransformConfig{
				Source:      t.internal("f") + "*.*.*",
				Destination: t.internal("{{wildcard(2)}}") + "{{wildcard(3)}}",
			},
			Retention:   jetstream.LimitsPolicy,
			Discard:     jetstream.DiscardNew,
			MaxAge:      l.Retention,
			MaxBytes:    l.RecordBytes,
			Duplicates:  l.DedupeWindow,
			Storage:     jetstream.FileStorage,
			Replicas:    l.Replicas,
			AllowDirect: true,
		},
		{
			Name:        t.Deferred(),
			Description: "wazzup-relay: scheduled and parked commands of account " + t.Account,
			Subjects:    []string{t.internal("at") + "*.*", t.DueFilter(), t.parkOfEpoch(epoch)},
			// As with the records: a former owner must not park behind its successor,
			// who would not know of it.
			SubjectTransform: &jetstream.SubjectTransformConfig{
				Source:      t.parkOfEpoch("*"),
				Destination: t.internal("park") + "{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}",
			},
			Retention:         jetstream.WorkQueuePolicy,
			MaxBytes:          -1, // schedules forbid DiscardNew, and nothing may be discarded: the owner keeps to DeferredBytes
			MaxConsumers:      maxLanes,
			Duplicates:        commandDedupe,
			Storage:           jetstream.FileStorage,
			Replicas:          l.Replicas,
			AllowDirect:       true, // the same
			AllowMsgSchedules: true,
		},
		{
			Name:              t.Dead(),
			Description:       "wazzup-relay: dead letters of account " + t.Account,
			Subjects:          []string{t.DeadFilter()},
			Retention:         jetstream.LimitsPolicy,
			Discard:           jetstream.DiscardNew,
			MaxAge:            l.DeadRetention,
			MaxBytes:          l.DeadBytes,
			MaxMsgsPerSubject: 1,
			Duplicates:        commandDedupe,
			Storage:           jetstream.FileStorage,
			Replicas:          l.Replicas,
			AllowDirect:       true,
		},
	}
}

// currentEpoch reads, through the stream's leader, which epoch may write, and the
// sequence of the last record.
func (t *Topology) currentEpoch(ctx context.Context) (epoch string, lastSeq uint64, err error) {
	return t.epochOf(ctx, t.Records())
}

// epochOf reads, through its leader, whose epoch a stream lists, and the sequence
// of its last message.
func (t *Topology) epochOf(ctx context.Context, stream string) (epoch string, lastSeq uint64, err error) {
	var info *jetstream.StreamInfo
	err = Ask(ctx, func(ctx context.Context) error {
		s, err := t.js.Stream(ctx, stream)
		if err == nil {
			info = s.CachedInfo()
		}
		return err
	})
	if err != nil {
		return "", 0, fmt.Errorf("read epoch of %s: %w", t.Account, err)
	}
	prefix := t.internal("f")
	for _, subject := range info.Config.Subjects {
		if rest, ok := strings.CutPrefix(subject, prefix); ok {
			epoch, _, _ = strings.Cut(rest, ".")
			return epoch, info.State.LastSeq, nil
		}
	}
	return "", 0, fmt.Errorf("read epoch of %s: stream %s lists no fenced subject", t.Account, stream)
}

// holds reports whether the epoch is the one of every stream that it fences.
func (t *Topology) holds(ctx context.Context, epoch string) (bool, error) {
	for _, stream := range []string{t.Records(), t.Deferred()} {
		now, _, err := t.epochOf(ctx, stream)
		if err != nil || now != epoch {
			return false, err
		}
	}
	return true, nil
}
