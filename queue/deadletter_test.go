package queue_test

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// bury stores letters and waits until they are durable.
func bury(t *testing.T, l *queue.Ledger, letters ...*queue.DeadLetter) {
	t.Helper()
	done := make(chan error, len(letters))
	for _, d := range letters {
		if err := l.PutDead(d, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for range letters {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("a letter is not stored")
		}
	}
}

func TestDeadLetterRoundTrip(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	_, l := a.own(t)
	want := &queue.DeadLetter{
		ID: "order 1\n\"ж", Origin: queue.Origin{Created: 5, Seq: 17}, Generation: 2, Subject: schema.SendSubject("main", schema.KindSend, channel),
		Code: "TIMEOUT", Class: schema.ClassUnknown, Reason: schema.ReasonNoEvidence, Description: "two\nlines", Attempt: 3, Group: "g",
		Doubted: true, ClaimSeq: 7, ClaimAt: 8,
		Header: nats.Header{schema.HeaderTraceparent: {"00-a-b-01"}, "X": {"1", "2"}}, Body: []byte(`{"text":"x"}`),
	}
	put := *want
	// The server acts upon these, or would refuse the letter for them.
	put.Header = nats.Header{
		"Nats-Msg-Id": {"m"}, "Nats-Expected-Stream": {"another"}, "Nats-Rollup": {"all"},
		"Nats-Schedule-Next": {"purge"}, "Nats-Scheduler": {"wz.main.at.x.0"}, "Wazzup-Dead": {"forged"},
	}
	maps.Copy(put.Header, want.Header)
	bury(t, l, &put)
	got, err := l.DeadOf(t.Context(), want.ID)
	if err != nil || got == nil {
		t.Fatalf("got %+v (%v), want the letter", got, err)
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(queue.DeadLetter{}, "Sequence", "Died", "Size")); d != "" {
		t.Error(d)
	}
	if got.Sequence != 1 || got.Size != len(want.Body) || time.Since(got.Died).Abs() > time.Minute {
		t.Errorf("place: got %d, %d bytes, %v", got.Sequence, got.Size, got.Died)
	}
	at, err := l.DeadAt(t.Context(), got.Sequence)
	if err != nil || cmp.Diff(got, at) != "" {
		t.Errorf("by its sequence: got %+v (%v), want the same", at, err)
	}
	if none, err := l.DeadOf(t.Context(), "nobody"); none != nil || err != nil {
		t.Errorf("of nobody: got %+v (%v), want nothing", none, err)
	}
	if none, err := l.DeadAt(t.Context(), 99); none != nil || err != nil {
		t.Errorf("at no place: got %+v (%v), want nothing", none, err)
	}
}

// What deletes the letter of a death must leave that of a later one alone.
func TestDeleteDeadLeavesNewerLetters(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	_, l := a.own(t)
	for generation := range 2 {
		bury(t, l, &queue.DeadLetter{ID: "a", Generation: generation})
	}
	for range 2 { // the first is gone already: no error
		if err := l.DeleteDead(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := l.DeadOf(t.Context(), "a"); err != nil || d == nil || d.Generation != 1 {
		t.Errorf("got %+v (%v), want the second letter", d, err)
	}
	if err := l.DeleteDead(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if d, err := l.DeadOf(t.Context(), "a"); err != nil || d != nil {
		t.Errorf("got %+v (%v), want no letter", d, err)
	}
}

func TestDeadLettersAreReadInOrder(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	_, l := a.own(t)
	const n = 1200 // more than come at once
	letters := make([]*queue.DeadLetter, n)
	for i := range letters {
		letters[i] = &queue.DeadLetter{ID: strconv.Itoa(i), Header: nats.Header{"X": {"1"}}, Body: []byte(strings.Repeat("b", i))}
	}
	bury(t, l, letters...)
	read := func(from uint64, each func(*queue.DeadLetter) bool) (ids []string) {
		t.Helper()
		err := l.DeadLetters(t.Context(), from, func(d *queue.DeadLetter) (bool, error) {
			if d.Body != nil || strconv.Itoa(d.Size) != d.ID || d.Died.IsZero() || d.Header.Get("X") != "1" {
				t.Errorf("letter %s: got %+v", d.ID, d)
			}
			ids = append(ids, d.ID)
			return each(d), nil
		})
		if err != nil {
			t.Error(err)
		}
		return ids
	}
	all := read(0, func(*queue.DeadLetter) bool { return true })
	if len(all) != n || !slices.EqualFunc(all, letters, func(id string, d *queue.DeadLetter) bool { return id == d.ID }) {
		t.Errorf("got %d letters, want %d in order", len(all), n)
	}
	if got := read(n-1, func(*queue.DeadLetter) bool { return true }); !slices.Equal(got, all[n-2:]) {
		t.Errorf("from the last but one: got %v", got)
	}
	if got := read(n+1, func(*queue.DeadLetter) bool { return true }); len(got) != 0 {
		t.Errorf("from beyond the end: got %v", got)
	}
	if got := read(0, func(d *queue.DeadLetter) bool { return d.Sequence < 3 }); !slices.Equal(got, all[:3]) {
		t.Errorf("up to the third: got %v", got)
	}
	// What goes while it is being read must not be waited for.
	got := read(0, func(d *queue.DeadLetter) bool {
		if d.Sequence == 1 {
			for seq := uint64(n - 100); seq <= n; seq++ {
				if err := l.DeleteDead(t.Context(), seq); err != nil {
					t.Error(err)
				}
			}
		}
		return true
	})
	if len(got) != n-101 {
		t.Errorf("got %d letters, want %d", len(got), n-101)
	}
	if s, err := a.js.Stream(t.Context(), l.Dead()); err != nil || s.CachedInfo().State.Consumers != 0 {
		t.Errorf("readings have left consumers behind: %+v (%v)", s.CachedInfo().State, err)
	}
}

// Of one command the letter of the latest generation stays, whoever comes late with
// another; a later command of the same id has a letter of its own.
func TestDeadLetterOfAFormerOwner(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	_, former := a.own(t)
	present, err := queue.NewLedger(a.nc, a.topology, "another", nil, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(present.Close)
	letter := func(seq uint64, generation int) *queue.DeadLetter {
		return &queue.DeadLetter{ID: "a", Origin: queue.Origin{Created: 5, Seq: seq}, Generation: generation}
	}
	for _, step := range []struct {
		name       string
		l          *queue.Ledger
		put        *queue.DeadLetter
		sequence   uint64 // of the letter that is there then
		generation int
	}{
		{"the first", former, letter(1, 0), 1, 0},
		{"it died again", present, letter(1, 1), 2, 1},
		{"the former owner's, late", former, letter(1, 0), 2, 1},
		{"again after a crash", present, letter(1, 1), 2, 1},
		{"another command with the id", present, letter(9, 0), 3, 0},
	} {
		bury(t, step.l, step.put)
		got, err := step.l.DeadOf(t.Context(), "a")
		if err != nil || got == nil {
			t.Fatalf("%s: got %+v (%v)", step.name, got, err)
		}
		if got.Sequence != step.sequence || got.Generation != step.generation {
			t.Errorf("%s: letter %d of generation %d is there, want %d of %d", step.name, got.Sequence, got.Generation, step.sequence, step.generation)
		}
	}
}
