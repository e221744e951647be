package queue_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

func TestDoubts(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	_, l := a.own(t)
	chat := schema.MessageEventSubject("main", "out", channel, "whatsapp", "79998887766")
	key, other := queue.NewDoubtKey(chat, "text:one"), queue.NewDoubtKey(chat, "text:two")
	first := &queue.Doubt{
		Index: queue.Index{ID: "a", Origin: queue.Origin{Created: 1, Seq: 2}, Attempt: 1, Kind: schema.KindSend, ChannelID: channel, Meta: []byte(`{"n":1}`)},
		Claim: 7, ClaimAt: 1_700_000_000_123,
	}
	second := &queue.Doubt{Index: queue.Index{ID: "b", Origin: queue.Origin{Created: 1, Seq: 3}, Kind: schema.KindBulk}, Claim: 9, ClaimAt: 1}
	for _, d := range []*queue.Doubt{first, second, first} { // a repeat, as after a crash
		done := make(chan error, 1)
		if err := l.PutDoubt(key, d, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Doubts(t.Context(), key)
	if diff := cmp.Diff([]*queue.Doubt{first, second}, got); diff != "" || err != nil {
		t.Errorf("doubts (-want +got):\n%s%v", diff, err)
	}
	if got, err := l.Doubts(t.Context(), other); len(got) != 0 || err != nil {
		t.Errorf("doubts of another content: got %v (%v), want none", got, err)
	}
	if keys, err := l.DoubtKeys(t.Context()); !slices.Equal(keys, []queue.DoubtKey{key}) || err != nil {
		t.Errorf("keys: got %v (%v), want %v", keys, err, key)
	}
}

// A records stream of a version that noted no doubts takes them from the next
// epoch on.
func TestDoubtsOnAnExistingStream(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	s, err := a.js.Stream(t.Context(), a.topology.Records())
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.Subjects = slices.DeleteFunc(cfg.Subjects, func(s string) bool { return s == a.topology.DoubtFilter() })
	if _, err := a.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	_, l := a.own(t)
	done := make(chan error, 1)
	if err := l.PutDoubt(1, &queue.Doubt{Claim: 1}, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStoredAt(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	_, l := a.own(t)
	before := time.Now().Add(-time.Second)
	claim := appendRecord(t.Context(), t, l, &queue.Record{Step: queue.StepClaim, Key: queue.LedgerKey("a"), ID: "a", Nonce: "1"}, 0)
	if claim.err != nil {
		t.Fatal(claim.err)
	}
	at, err := l.StoredAt(t.Context(), claim.seq)
	if err != nil || at.Before(before) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("got %v (%v), want now", at, err)
	}
	if at, err := l.StoredAt(t.Context(), claim.seq+1000); err != nil || !at.IsZero() {
		t.Errorf("no such record: got %v (%v), want the zero time", at, err)
	}
}

func TestAnswerOf(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	_, l := a.own(t)
	mine, others := queue.Origin{Created: 1, Seq: 1}, queue.Origin{Created: 1, Seq: 2}
	var last uint64
	for messageID, origin := range map[string]queue.Origin{"m1": mine, "m2": others} {
		done := make(chan error, 1)
		l.PutIndex(&queue.Index{ID: "x", Origin: origin, MessageID: messageID}, func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	s, err := a.js.Stream(t.Context(), a.topology.Records())
	if err != nil {
		t.Fatal(err)
	}
	last = s.CachedInfo().State.LastSeq
	x, err := l.AnswerOf(t.Context(), mine, 1, last)
	if err != nil || x == nil || x.MessageID != "m1" {
		t.Errorf("got %+v (%v), want m1", x, err)
	}
	if x, err := l.AnswerOf(t.Context(), mine, last+1, last+1); err != nil || x != nil {
		t.Errorf("after all: got %+v (%v), want none", x, err)
	}
	if x, err := l.AnswerOf(t.Context(), queue.Origin{Created: 1, Seq: 3}, 1, last); err != nil || x != nil {
		t.Errorf("another command: got %+v (%v), want none", x, err)
	}
}
