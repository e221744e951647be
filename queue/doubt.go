package queue

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Doubt notes an attempt that was given up while nothing told whether it had been
// carried out. The message may be on its way all the same, and its echo with it:
// for as long as the ledger remembers, it counts when echoes of an equal message
// are judged, and what proves it late is led to its command.
type Doubt struct {
	Index          // the command and its attempt; the message id is not known
	Claim   uint64 `json:"cl"` // sequence of the attempt's claim; evidence is stored after it
	ClaimAt int64  `json:"ca"` // when that was stored: NATS's clock, Unix milliseconds
}

// DoubtKey names what a doubt is about: a chat, by the subject of its echoes, and
// a content. Doubts with one key cannot be told from one another by an echo. It
// is 64 bits of a hash, so that an owner can hold the keys of very many in
// memory; two that fall together are merely judged more carefully.
type DoubtKey uint64

// NewDoubtKey returns the key of a content that was sent to a chat.
func NewDoubtKey(echoSubject, content string) DoubtKey {
	sum := sha256.Sum256([]byte(echoSubject + "\x00" + content))
	return DoubtKey(binary.BigEndian.Uint64(sum[:8]))
}

func (k DoubtKey) token() string { return fmt.Sprintf("%016x", uint64(k)) }

// PutDoubt notes an attempt that is given up. It is not fenced: that the attempt
// was in doubt is true whoever noted it. Noting it again does no harm.
func (l *Ledger) PutDoubt(key DoubtKey, d *Doubt, done func(err error)) error {
	data, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode doubt: %w", err)
	}
	l.w.publish(&write{
		records: true,
		msg:     nats.Msg{Subject: l.DoubtSubject(key), Data: data},
		done:    func(_ uint64, _ bool, err error) { done(err) },
	})
	return nil
}

// Doubts reads the noted doubts of a key, each attempt once, oldest first.
func (l *Ledger) Doubts(ctx context.Context, key DoubtKey) ([]*Doubt, error) {
	var all []*Doubt
	known := make(map[uint64]bool)
	err := l.scan(ctx, l.DoubtSubject(key), 0, func(m *storedMsg) (bool, error) {
		var d Doubt
		if err := json.Unmarshal(m.Data, &d); err != nil {
			return false, fmt.Errorf("decode doubt %d: %w", m.Sequence, err)
		}
		if !known[d.Claim] {
			known[d.Claim] = true
			all = append(all, &d)
		}
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read doubts: %w", err)
	}
	return all, nil
}

// DoubtKeys lists the keys under which doubts are noted.
func (l *Ledger) DoubtKeys(ctx context.Context) ([]DoubtKey, error) {
	s, err := l.js.Stream(ctx, l.Records())
	if err != nil {
		return nil, fmt.Errorf("list doubts: %w", err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(l.DoubtFilter()))
	if err != nil {
		return nil, fmt.Errorf("list doubts: %w", err)
	}
	keys := make([]DoubtKey, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		key, err := strconv.ParseUint(subject[strings.LastIndexByte(subject, '.')+1:], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("list doubts: subject %q: %w", subject, err)
		}
		keys = append(keys, DoubtKey(key))
	}
	return keys, nil
}

// StoredAt reads, through the stream's leader, when the record with a sequence was
// stored, by NATS's clock. The zero time means that there is no such record any
// more.
func (l *Ledger) StoredAt(ctx context.Context, sequence uint64) (time.Time, error) {
	m, err := leaderGet(ctx, l.nc, l.Records(), msgGet{Seq: sequence})
	if err != nil {
		return time.Time{}, fmt.Errorf("read when a record was stored: %w", err)
	}
	if m == nil {
		return time.Time{}, nil
	}
	return m.Time, nil
}
