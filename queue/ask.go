package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Patience with one try of a request. Where a leader of a cluster has been lost,
// nobody answers at all, so that a request is made again rather than waited for;
// a server under load is only slow, so that each try is given longer.
const (
	tryFirst = time.Second
	tryMost  = 5 * time.Second
	tryPause = 100 * time.Millisecond
)

// codeNotAvailable is "JetStream system temporarily unavailable": nobody leads.
const codeNotAvailable jetstream.ErrorCode = 10008

// Ask makes a request to NATS, and makes it again while there is no answer or
// nobody leads, until ctx ends. try is given the context of one try, and must do
// no harm when it was carried out before and only its answer was lost. The error
// is that of the last try.
func Ask(ctx context.Context, try func(context.Context) error) error {
	for patience := tryFirst; ; patience = min(patience*5/4, tryMost) {
		err := tryOnce(ctx, patience, try)
		if !mayPass(err) || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(tryPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

func tryOnce(ctx context.Context, patience time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return try(ctx)
}

// mayPass reports whether the same request may be answered in a moment.
func mayPass(err error) bool {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.ErrorCode == codeNotAvailable
	}
	for _, passing := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders,
		nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// parallel is how many requests of one kind are under way together.
const parallel = 16

// together does something for each item, several at a time, and returns all errors.
func together[T any](items []T, do func(T) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(items))
	slots := make(chan struct{}, parallel)
	for i, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = do(item)
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// listSubjects lists the subjects of a stream that hold messages and match the
// filter, with their number.
func listSubjects(ctx context.Context, nc *nats.Conn, stream, filter string) (map[string]uint64, error) {
	all := make(map[string]uint64)
	err := eachSubject(ctx, nc, stream, filter, func(subject string, n uint64) { all[subject] = n })
	if err != nil {
		return nil, err
	}
	return all, nil
}

// eachSubject is listSubjects for what may be more than should be held at once: it
// holds one page of the server's, which has at most 100,000 subjects. One that comes
// or goes meanwhile may be left out, or be told twice.
func eachSubject(ctx context.Context, nc *nats.Conn, stream, filter string, each func(subject string, n uint64)) error {
	for offset := 0; ; {
		req, err := json.Marshal(map[string]any{"subjects_filter": filter, "offset": offset})
		if err != nil {
			return err
		}
		var page subjectsPage
		err = Ask(ctx, func(ctx context.Context) error {
			reply, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.INFO."+stream, req)
			if err != nil {
				return err
			}
			page = subjectsPage{}
			if err := json.Unmarshal(reply.Data, &page); err != nil {
				return err
			}
			if page.Error != nil {
				return page.Error
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("list subjects of %s: %w", stream, err)
		}
		for subject, n := range page.State.Subjects {
			each(subject, n)
		}
		offset += len(page.State.Subjects)
		if len(page.State.Subjects) == 0 || offset >= page.Total {
			return nil
		}
	}
}

// subjectsPage is a part of what the server tells of a stream and its subjects.
type subjectsPage struct {
	Error *jetstream.APIError `json:"error"`
	Total int                 `json:"total"`
	State struct {
		Subjects map[string]uint64 `json:"subjects"`
	} `json:"state"`
}
