package ingest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// retryAfter is the pause, in seconds, that a 503 asks for.
const retryAfter = "5"

// record is what is known of one request, for its log line and metrics.
type record struct {
	account    *liveAccount
	bytes      int
	items      int
	events     []queue.Event
	duplicates int
	unchanged  int // channel objects and lists equal to the last stored
	quarantine int // items that could not be understood
	lookupErr  bool
	err        error
}

// ServeHTTP takes one webhook: `POST /webhooks/<account>/<secret>`. This is the
// one place that answers, logs and counts it. The path is never logged: it holds
// the secret.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &record{account: s.accounts.Load().none}
	o := s.receive(w, r, rec)
	h := w.Header()
	switch o {
	case outcomeStored, outcomeTest:
		w.WriteHeader(http.StatusOK)
	case outcomeMethod:
		h.Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
	case outcomeNotFound:
		w.WriteHeader(http.StatusNotFound)
	case outcomeTooLarge:
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	case outcomeAborted:
		w.WriteHeader(http.StatusBadRequest)
	case outcomeBusy, outcomeUnavailable, outcomeFull:
		h.Set("Retry-After", retryAfter)
		w.WriteHeader(http.StatusServiceUnavailable)
	case outcomeFailed:
		w.WriteHeader(http.StatusInternalServerError)
	}
	took := time.Since(start)
	s.metrics.finish(r.Context(), rec, o, took)
	s.logRequest(rec, o, took)
}

func (s *Server) logRequest(rec *record, o outcome, took time.Duration) {
	level := zerolog.InfoLevel
	switch o {
	case outcomeStored, outcomeTest:
		if rec.quarantine > 0 {
			level = zerolog.WarnLevel
		}
	case outcomeMethod, outcomeNotFound:
		level = zerolog.DebugLevel // whoever scans the internet must not fill our logs
	case outcomeTooLarge, outcomeAborted, outcomeBusy, outcomeUnavailable, outcomeFull:
		level = zerolog.WarnLevel
	case outcomeFailed:
		level = zerolog.ErrorLevel
	}
	s.log.WithLevel(level).
		Str("account", rec.account.name).
		Str("outcome", string(o)).
		Int("bytes", rec.bytes).
		Int("items", rec.items).
		Int("events", len(rec.events)).
		Int("duplicates", rec.duplicates).
		Int("unchanged", rec.unchanged).
		Int("quarantined", rec.quarantine).
		Bool("lookup_failed", rec.lookupErr).
		Dur("took_ms", took).
		AnErr("error", rec.err).
		Msg("webhook")
}

// receive checks a request in the order of cost, then stores it.
func (s *Server) receive(w http.ResponseWriter, r *http.Request, rec *record) outcome {
	if r.Method != http.MethodPost {
		return outcomeMethod
	}
	account := s.accounts.Load().authenticate(r.URL.Path)
	if account == nil {
		return outcomeNotFound
	}
	rec.account = account
	size := r.ContentLength
	if size > s.cfg.MaxBody {
		return outcomeTooLarge
	}
	if size < 0 {
		size = s.cfg.MaxBody // unknown: reserve the most it may be
	}
	weight := size + requestWeight
	if !s.admit(r.Context(), weight) {
		return outcomeBusy
	}
	defer s.budget.Release(weight)

	body, err := readBody(http.MaxBytesReader(w, r.Body, s.cfg.MaxBody), r.ContentLength)
	rec.bytes = len(body)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return outcomeTooLarge
		}
		return outcomeAborted
	}
	items := split(body)
	rec.items = len(items)
	if len(items) == 0 {
		return outcomeTest
	}
	// The vendor hanging up does not stop the storing: it will post again, and
	// find all of it stored.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), s.cfg.StoreTimeout)
	defer cancel()
	return s.store(ctx, items, rec)
}

// requestWeight is what a request costs besides its body, in bytes.
const requestWeight = 16 << 10

// admit waits a moment for room in the budget of bodies in memory.
func (s *Server) admit(ctx context.Context, weight int64) bool {
	if s.budget.TryAcquire(weight) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AdmitTimeout)
	defer cancel()
	return s.budget.Acquire(ctx, weight) == nil
}

func readBody(r io.Reader, length int64) ([]byte, error) {
	if length < 0 {
		return io.ReadAll(r)
	}
	body := make([]byte, length)
	n, err := io.ReadFull(r, body)
	return body[:n], err
}

// store makes items durable, or says why the vendor has to post them again.
func (s *Server) store(ctx context.Context, items []item, rec *record) outcome {
	err := s.events.Available()
	if err == nil {
		err = s.build(ctx, items, rec)
	}
	if err == nil {
		rec.duplicates, err = s.events.Publish(ctx, rec.events)
	}
	switch {
	case err == nil:
		return outcomeStored
	case errors.Is(err, ErrFull):
		rec.err = ErrFull
		return outcomeFull
	case errors.Is(err, ErrUnavailable):
		rec.err = ErrUnavailable
		return outcomeUnavailable
	}
	rec.err = err
	return outcomeFailed
}

// build turns items into events, in the body's order.
func (s *Server) build(ctx context.Context, items []item, rec *record) error {
	o := origin{account: rec.account.name, at: time.Now()}
	commands := s.commands(ctx, o.account, items, rec)
	changes, err := s.changes(ctx, o.account, items)
	if err != nil {
		return err
	}
	limit := s.events.MaxBody()
	rec.events = make([]queue.Event, 0, len(items)+1)
	for i := range items {
		it := &items[i]
		var e queue.Event
		switch it.kind {
		case itemMessage:
			e = o.message(it)
		case itemStatus:
			e = o.status(it, commands[it.messageID])
			if len(e.Body) > limit {
				e.Body = it.raw // it fits alone, or goes to quarantine
			}
		case itemChannel, itemList:
			tail, news := changes[i]
			if !news {
				rec.unchanged++
				continue
			}
			if it.kind == itemList {
				e = o.channelList(it, tail)
			} else {
				e = o.channel(it, tail)
			}
		case itemQuarantine:
		}
		if it.kind != itemQuarantine && len(e.Body) <= limit {
			rec.events = append(rec.events, e)
			continue
		}
		if it.kind != itemQuarantine { // too long for one message
			it.kind, it.reason = itemQuarantine, schema.QuarantineBadItem
		}
		rec.quarantine++
		parts, err := o.quarantine(it, limit)
		if err != nil {
			return err
		}
		rec.events = append(rec.events, parts...)
		if it.reason == schema.QuarantineV3 {
			notice, err := s.v3Notice(ctx, o)
			if err != nil {
				return err
			}
			rec.events = append(rec.events, notice...)
		}
	}
	return nil
}

// v3Notice tells operators that the successor API's webhooks arrive, unless that
// was done within this hour: the server's own duplicate window may be shorter.
func (s *Server) v3Notice(ctx context.Context, o origin) ([]queue.Event, error) {
	notice, err := o.v3Noticed()
	if err != nil {
		return nil, err
	}
	last, err := s.events.LastOf(ctx, o.account, notice.Subject)
	if err != nil || last.ID == notice.ID {
		return nil, err
	}
	return []queue.Event{notice}, nil
}

// commands looks up the commands behind statuses. A status goes out without one
// rather than late: consumers can tell by its message id.
func (s *Server) commands(ctx context.Context, account string, items []item, rec *record) map[string]Command {
	var ids []string
	for i := range items {
		if items[i].kind == itemStatus {
			ids = append(ids, items[i].messageID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.LookupTimeout)
	defer cancel()
	found, err := s.events.Commands(ctx, account, ids)
	known := 0
	for _, id := range ids {
		if found[id].ID != "" {
			known++
		}
	}
	missing := lookupLabel(lookupUnknown)
	if err != nil {
		rec.lookupErr = true
		missing = lookupLabel(lookupFailed)
	}
	s.metrics.lookups.Add(ctx, int64(known), lookupLabel(lookupFound))
	s.metrics.lookups.Add(ctx, int64(len(ids)-known), missing)
	return found
}

// lastReads is how many reads of last channel states one body may have under way.
const lastReads = 16

// changes tells which channel objects and lists are news, by their place in
// items, with the tail of the event's id.
func (s *Server) changes(ctx context.Context, account string, items []item) (map[int]string, error) {
	type group struct {
		subject string
		places  []int
		changes []change
		tails   map[int]string
	}
	var groups []*group
	bySubject := make(map[string]*group)
	for i := range items {
		it := &items[i]
		var subject string
		switch it.kind {
		case itemChannel:
			subject = anyStateSubject(account, it.channelID)
		case itemList:
			subject = schema.ChannelsEventSubject(account)
		case itemMessage, itemStatus, itemQuarantine:
			continue
		}
		g := bySubject[subject]
		if g == nil {
			g = &group{subject: subject}
			bySubject[subject] = g
			groups = append(groups, g)
		}
		g.places = append(g.places, i)
		g.changes = append(g.changes, change{hash: it.hash})
	}
	if len(groups) == 0 {
		return nil, nil //nolint:nilnil // no channel in the body, nothing to tell
	}
	reads, ctx := errgroup.WithContext(ctx)
	reads.SetLimit(lastReads)
	for _, g := range groups {
		reads.Go(func() error {
			last, err := s.events.LastOf(ctx, account, g.subject)
			if err != nil {
				return err
			}
			g.tails = pending(g.changes, last)
			return nil
		})
	}
	if err := reads.Wait(); err != nil {
		return nil, err
	}
	news := make(map[int]string)
	for _, g := range groups {
		for n, tail := range g.tails {
			news[g.places[n]] = tail
		}
	}
	return news, nil
}
