package queue_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
)

func claimOf(id string) *queue.Record {
	return &queue.Record{Step: queue.StepClaim, Key: queue.LedgerKey(id), ID: id, Nonce: "of " + id}
}

// Whatever is under way when the server goes ends once it is back, each write with
// one outcome, and stored once.
func TestWritesOutliveTheServer(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	a := newAccount(t, srv)
	_, l := a.own(t)

	const writes = 400
	type outcome struct {
		id string
		written
	}
	done := make(chan outcome, 2*writes)
	for i := range writes {
		id := fmt.Sprint("order-", i)
		l.Append(claimOf(id), 0, func(seq uint64, err error) { done <- outcome{id, written{seq, err}} })
		if i == writes/2 {
			srv.Restart()
		}
	}
	got := make(map[string]uint64)
	for range writes {
		o := <-done
		if o.err != nil || got[o.id] != 0 {
			t.Fatalf("claim of %s: %v, and %d before", o.id, o.err, got[o.id])
		}
		got[o.id] = o.seq
	}
	for id, seq := range got {
		records, err := l.Timeline(t.Context(), queue.LedgerKey(id))
		if err != nil || len(records) != 1 || records[0].Sequence != seq {
			t.Fatalf("%s: got %d records (%v), want the one with sequence %d", id, len(records), err, seq)
		}
	}
	if n := len(done); n != 0 {
		t.Errorf("%d writes had more than one outcome", n)
	}
}

// Writes that are made at the same time each expect what their own command has.
func TestEveryWriteExpectsItsOwn(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t))
	_, l := a.own(t)

	const commands = 200
	ends := make(chan error, commands)
	var wg sync.WaitGroup
	for i := range commands {
		wg.Go(func() {
			r := claimOf(fmt.Sprint("order-", i))
			l.Append(r, 0, func(seq uint64, err error) {
				if err != nil {
					ends <- err
					return
				}
				end := *r
				end.Step = queue.StepFinal
				l.Append(&end, seq, func(_ uint64, err error) { ends <- err })
			})
		})
	}
	wg.Wait()
	for range commands {
		if err := <-ends; err != nil {
			t.Errorf("a claim or its end: %v", err)
		}
	}
	for i := range commands {
		r := claimOf(fmt.Sprint("order-", i))
		if got := appendRecord(t.Context(), t, l, r, 0); !errors.Is(got.err, queue.ErrConflict) {
			t.Errorf("another claim of %s: got %v, want ErrConflict", r.ID, got.err)
		}
	}
}

// ledgerAcross is a ledger whose connection goes by a way that holds answers back.
func (a *account) ledgerAcross(t *testing.T, lease *queue.Lease) (*nats.Conn, *way, *queue.Ledger) {
	t.Helper()
	w := newWay(t, a.srv.URL())
	nc, err := nats.Connect(w.url, a.srv.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l, err := queue.NewLedger(nc, a.topology, lease.Epoch, nil, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	if err := nc.Flush(); err != nil { // the server knows of the ledger's inbox
		t.Fatal(err)
	}
	return nc, w, l
}

// A claim whose PubAck is lost is published again, and is found to be the very one
// that is stored.
func TestLostPubAck(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	a := newAccount(t, srv)
	lease, _ := a.own(t)
	nc, way, l := a.ledgerAcross(t, lease)

	way.answers.Lock()
	before := nc.Stats().OutMsgs
	done := make(chan written, 1)
	l.Append(claimOf("order-1"), 0, func(seq uint64, err error) { done <- written{seq, err} })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if nc.Stats().OutMsgs >= before+2 {
			break
		}
	}
	way.answers.Unlock()

	got := <-done
	records, err := l.Timeline(t.Context(), queue.LedgerKey("order-1"))
	if err != nil || len(records) != 1 {
		t.Fatalf("got %d records (%v), want 1", len(records), err)
	}
	if got.err != nil || got.seq != records[0].Sequence {
		t.Errorf("outcome: got %+v, want sequence %d", got, records[0].Sequence)
	}
}

// Whatever is still said of an earlier write, the one that waits now ends with its
// own PubAck.
func TestAnswerToAnEarlierWrite(t *testing.T) {
	t.Parallel()
	srv := queuetest.Server(t)
	a := newAccount(t, srv)
	lease, _ := a.own(t)
	_, way, l := a.ledgerAcross(t, lease)
	other := queuetest.Conn(t, srv)
	seen, err := other.SubscribeSync(l.LedgerWrite(lease.Epoch, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
	published := func() *nats.Msg {
		t.Helper()
		m, err := seen.NextMsgWithContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}

	first := appendRecord(t.Context(), t, l, claimOf("order-1"), 0)
	if first.err != nil {
		t.Fatal(first.err)
	}
	before := published()
	way.answers.Lock()
	if err := other.Publish(before.Reply, fmt.Appendf(nil, `{"stream":%q,"seq":%d}`, l.Records(), first.seq)); err != nil {
		t.Fatal(err)
	}
	if err := other.Flush(); err != nil { // it stands before the next PubAck
		t.Fatal(err)
	}
	done := make(chan written, 1)
	l.Append(claimOf("order-2"), 0, func(seq uint64, err error) { done <- written{seq, err} })
	if next := published(); next.Reply != before.Reply {
		t.Errorf("the second write's answer is expected on %s, want the first one's %s", next.Reply, before.Reply)
	}
	way.answers.Unlock()

	got := <-done
	last, err := l.Last(t.Context(), queue.LedgerKey("order-2"))
	if err != nil || last == nil {
		t.Fatalf("the second write is not stored: %v", err)
	}
	if got.err != nil || got.seq != last.Sequence || got.seq == first.seq {
		t.Errorf("the second write: got %+v, want sequence %d", got, last.Sequence)
	}
}

// way is a detour to a server on which its answers can be held up.
type way struct {
	url     string
	answers sync.Mutex
}

func newWay(t *testing.T, url string) *way {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{url: "nats://" + listener.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://")) //nolint:noctx // a loopback port is there or not
			if err != nil {
				t.Errorf("detour: %v", err)
				return
			}
			wg.Go(func() {
				defer func() { _ = server.Close() }() // ends the other direction
				_, _ = io.Copy(server, client)        // until the client goes
			})
			wg.Go(func() {
				defer func() { _ = client.Close() }()
				w.answer(client, server)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		wg.Wait()
	})
	return w
}

func (w *way) answer(client io.Writer, server io.Reader) {
	buf := make([]byte, 1<<12)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		w.answers.Lock()
		_, err = client.Write(buf[:n])
		w.answers.Unlock()
		if err != nil {
			return
		}
	}
}

// What never fits is refused, but not from within the call: the caller may hold
// the lock that its callback takes.
func TestTooLargeIsToldLater(t *testing.T) {
	t.Parallel()
	a := newAccount(t, queuetest.Server(t, queuetest.WithMaxPayload(8<<10)))
	_, l := a.own(t)
	r := claimOf("order-1")
	r.Event = json.RawMessage(strconv.Quote(strings.Repeat("x", 9<<10)))
	var lock sync.Mutex
	done := make(chan error, 1)
	lock.Lock()
	l.Append(r, 0, func(_ uint64, err error) {
		lock.Lock()
		defer lock.Unlock()
		done <- err
	})
	lock.Unlock()
	if err := <-done; !errors.Is(err, queue.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestParsePubAck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, data string
		seq        uint64
		duplicate  bool
	}{
		{"usual", `{"stream":"records","seq":17}`, 17, false},
		{"as the server spaces it", `{"stream":"records", "seq":18446744073709551615}`, 1<<64 - 1, false},
		{"with a domain", `{"stream":"records", "domain":"hub", "seq":3}`, 3, false},
		{"duplicate", `{"stream":"records", "seq":3,"duplicate": true}`, 3, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			seq, duplicate, err := queue.ParsePubAck([]byte(tt.data))
			if err != nil || seq != tt.seq || duplicate != tt.duplicate {
				t.Errorf("got %d, %t (%v), want %d, %t", seq, duplicate, err, tt.seq, tt.duplicate)
			}
		})
	}
	for _, data := range []string{"", "{}", "+ACK", `{"stream":"","seq":1}`, `{"stream":"records","seq":1`, `{"stream":"records","seq":-1}`} {
		if seq, _, err := queue.ParsePubAck([]byte(data)); err == nil {
			t.Errorf("%q: got %d, want an error", data, seq)
		}
	}
	_, _, err := queue.ParsePubAck([]byte(`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"},"stream":"records","seq":0}`))
	if api, ok := errors.AsType[*jetstream.APIError](err); !ok || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
		t.Errorf("refusal: got %v, want its error code", err)
	}
}

// FuzzPubAck holds the fast reading to encoding/json, for whatever is JSON.
func FuzzPubAck(f *testing.F) {
	for _, seed := range []string{
		`{"stream":"records","seq":17}`, `{"stream":"records", "seq":17,"duplicate": true}`,
		`{"error":{"code":503,"err_code":10077},"stream":"","seq":0}`, `{"stream":"a\"b","seq":1}`, `{"stream":"r","seq":1,"seq":2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		seq, duplicate, err := queue.ParsePubAck(data)
		if err != nil || !json.Valid(data) {
			return
		}
		var want struct {
			Error     json.RawMessage `json:"error"`
			Sequence  uint64          `json:"seq"`
			Duplicate bool            `json:"duplicate"`
		}
		if err := json.Unmarshal(data, &want); err != nil || string(want.Error) != "" && string(want.Error) != "null" {
			t.Fatalf("%q was taken for a PubAck (%v)", data, err)
		}
		if seq != want.Sequence || duplicate != want.Duplicate {
			t.Errorf("%q: got %d, %t, want %d, %t", data, seq, duplicate, want.Sequence, want.Duplicate)
		}
	})
}
