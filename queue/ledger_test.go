package queue_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

func TestClaimIsTakenOnce(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	_, l := a.own(t)

	first := appendRecord(t.Context(), t, l, &queue.Record{Step: queue.StepClaim, Key: queue.LedgerKey("order 1"), ID: "order 1", Nonce: "n1"}, 0)
	if first.err != nil || first.seq == 0 {
		t.Fatalf("first claim: got %+v, want a sequence", first)
	}
	second := appendRecord(t.Context(), t, l, &queue.Record{Step: queue.StepClaim, Key: queue.LedgerKey("order 1"), ID: "order 1", Nonce: "n2"}, 0)
	if !errors.Is(second.err, queue.ErrConflict) {
		t.Errorf("second claim: got %v, want ErrConflict", second.err)
	}
	final := appendRecord(t.Context(), t, l, &queue.Record{Step: queue.StepFinal, Key: queue.LedgerKey("order 1"), ID: "order 1", Nonce: "n3"}, first.seq)
	if final.err != nil {
		t.Errorf("final after its claim: %v", final.err)
	}
	last, err := l.Last(t.Context(), queue.LedgerKey("order 1"))
	if err != nil || last == nil || last.Step != queue.StepFinal || last.Sequence != final.seq {
		t.Errorf("last record: got %+v (%v), want the final one", last, err)
	}
}

// A former owner, however it comes back, can write no record once the epoch was
// raised, not even for a command that it claimed before.
func TestRaisedEpochFencesTheFormerOwner(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	old, former := a.own(t)
	claim := appendRecord(t.Context(), t, former, &queue.Record{Step: queue.StepClaim, Key: queue.LedgerKey("a"), ID: "a", Nonce: "1"}, 0)
	if claim.err != nil {
		t.Fatal(claim.err)
	}
	if err := old.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	lease, l := a.own(t)
	if lease.Epoch == old.Epoch {
		t.Fatalf("epoch %q was used twice", lease.Epoch)
	}
	for _, r := range []*queue.Record{
		{Step: queue.StepClaim, Key: queue.LedgerKey("b"), ID: "b", Nonce: "2"},
		{Step: queue.StepFinal, Key: queue.LedgerKey("a"), ID: "a", Nonce: "3"},
	} {
		expect := uint64(0)
		if r.ID == "a" {
			expect = claim.seq
		}
		if got := appendRecord(t.Context(), t, former, r, expect); !errors.Is(got.err, queue.ErrFenced) {
			t.Errorf("%s of the former owner: got %v, want ErrFenced", r.Step, got.err)
		}
	}
	if got := appendRecord(t.Context(), t, l, &queue.Record{Step: queue.StepFinal, Key: queue.LedgerKey("a"), ID: "a", Nonce: "4"}, claim.seq); got.err != nil {
		t.Errorf("the new owner's final for the former's claim: %v", got.err)
	}
	// What a late answer teaches is true whoever learned it.
	done := make(chan error, 1)
	former.PutLate(&queue.Index{ID: "a", MessageID: "m"}, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Errorf("a late answer of the former owner: %v", err)
	}
}

func TestLeaseIsHeldByOne(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	lease, _ := a.own(t)
	if _, err := a.leases.Acquire(t.Context(), "main"); !errors.Is(err, queue.ErrLeaseHeld) {
		t.Errorf("second Acquire: got %v, want ErrLeaseHeld", err)
	}
	before := lease.Expires()
	if err := lease.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !lease.Expires().After(before) {
		t.Error("Renew did not extend the lease")
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := lease.Renew(t.Context()); !errors.Is(err, queue.ErrLeaseLost) {
		t.Errorf("Renew after Release: got %v, want ErrLeaseLost", err)
	}
}

// The lease of a worker that died is free after its time to live, and not before
// it would have been safe.
func TestLeaseExpires(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	start := time.Now()
	if _, err := a.leases.Acquire(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		_, err := a.leases.Acquire(t.Context(), "main")
		if err == nil {
			break
		}
		if !errors.Is(err, queue.ErrLeaseHeld) {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < queue.LeaseTTL || took > 3*queue.LeaseTTL {
		t.Errorf("lease came free after %v, want about %v", took, queue.LeaseTTL)
	}
}

func TestTimelineAndIndex(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	_, l := a.own(t)
	origin := queue.Origin{Created: 5, Seq: 17}
	claim := appendRecord(t.Context(), t, l, &queue.Record{
		Step: queue.StepClaim, Key: queue.LedgerKey("a b"), ID: "a b", Nonce: "1", Origin: origin, Kind: "send", Attempt: 1,
		Waits: []queue.Wait{{Gate: "window", Millis: 12}},
	}, 0)
	if claim.err != nil {
		t.Fatal(claim.err)
	}
	done := make(chan error, 2)
	for i := range 2 { // another command's answer must not be taken for this one's
		x := &queue.Index{ID: "a b", Origin: queue.Origin{Created: 5, Seq: 16 + uint64(i)}, MessageID: fmt.Sprintf("m%d", i)}
		l.PutIndex(x, func(err error) { done <- err })
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	records, err := l.Timeline(t.Context(), queue.LedgerKey("a b"))
	if err != nil || len(records) != 1 {
		t.Fatalf("timeline: got %d records (%v), want 1", len(records), err)
	}
	got := records[0]
	if got.Stored.IsZero() || got.Sequence != claim.seq || got.Kind != "send" || len(got.Waits) != 1 || got.Waits[0].Millis != 12 {
		t.Errorf("timeline: got %+v", got)
	}
	found, err := l.Answers(t.Context(), claim.seq, claim.seq+2)
	if err != nil || len(found) != 2 || found[origin] == nil || found[origin].MessageID != "m1" {
		t.Errorf("answers since the claim: got %+v (%v), want m0 and m1", found, err)
	}
	if found, err := l.Answers(t.Context(), claim.seq, claim.seq+1); err != nil || len(found) != 1 || found[origin] != nil {
		t.Errorf("answers up to the first: got %+v (%v), want m0 only", found, err)
	}
	if x, err := l.IndexOf(t.Context(), "nobody's"); x != nil || err != nil {
		t.Errorf("unknown message id: got %+v (%v), want nothing", x, err)
	}
}

// The hand-written encoder must say what encoding/json would read.
func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	want := queue.Record{
		Step: queue.StepRetry, ID: "a\"b\\\n\u2028ж", Nonce: "n", Origin: queue.Origin{Created: 1 << 60, Seq: 9},
		Generation: 2, Kind: "bulk", Channel: channel, Fingerprint: "f_-", Attempt: 3, Spent: 2, Refused: 1, Worker: "w", At: 4, RetryAt: 5,
		Claim: 6, ClaimAt: 7, Doubted: true, DoubtSeq: 8, DoubtAt: 9, Until: 10, MessageID: "m", Evidence: "echo",
		CommandStored: 6, HTTPStatus: 400, Code: "CHANNEL_NO_MONEY", Phase: schema.PhaseAnswered,
		Waits: []queue.Wait{{Gate: "pace", Millis: 1, Why: `20/1m "x"`}, {Gate: "order", Millis: 2}}, Event: json.RawMessage(`{"id":"x"}`),
	}
	var got queue.Record
	if err := json.Unmarshal(want.AppendJSON(nil), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestIndexRoundTrip(t *testing.T) {
	t.Parallel()
	all := queue.Index{
		ID: "a\"b\\\n\u2028ж", Origin: queue.Origin{Created: 1 << 60, Seq: 9}, Generation: 2, Attempt: 3, Kind: schema.KindBulk,
		ChannelID: channel, ChatType: schema.ChatWhatsApp, ChatID: "79998887766", MessageID: "m", Group: "g", Meta: json.RawMessage(`{"a":[1]}`),
	}
	for name, want := range map[string]queue.Index{"all": all, "no id": {MessageID: "m"}, "nothing": {}} {
		text := want.AppendJSON([]byte("before "))
		var got queue.Index
		if err := json.Unmarshal(text[len("before "):], &got); err != nil {
			t.Errorf("%s: %v in %s", name, err, text)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// However many records there are, a scan reads each of them once and in order:
// the first few and the last from the leader, the rest by a consumer.
func TestScanReadsAll(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	_, l := a.own(t)
	for _, n := range []int{1, 64, 65, 1200} {
		subject := schema.StatusEventSubject("main", strconv.Itoa(n))
		for i := range n {
			if _, err := a.js.PublishAsync(subject, []byte(strconv.Itoa(i))); err != nil {
				t.Fatal(err)
			}
		}
		<-a.js.PublishAsyncComplete()
		read := 0
		err := l.Events(t.Context(), subject, 0, func(_ uint64, body []byte) error {
			if string(body) != strconv.Itoa(read) {
				t.Errorf("of %d events, number %d is %s", n, read, body)
			}
			read++
			return nil
		})
		if err != nil || read != n {
			t.Errorf("read %d of %d events: %v", read, n, err)
		}
	}
}
