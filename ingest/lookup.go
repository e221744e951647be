package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

// maxMultiGet is how many subjects the server answers in one request.
const maxMultiGet = 1024

// lookups asks for the last messages of many subjects in one request. All
// answers come in on one subscription: one for each request would empty the
// server's routing caches each time, and cost half a megabyte of channel.
type lookups struct {
	nc *nats.Conn

	mu      sync.Mutex
	sub     *nats.Subscription          // nil until the first request
	prefix  string                      // of the inbox, up to the token
	next    uint64                      // token
	waiting map[string]chan<- *nats.Msg // by token
}

func (l *lookups) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sub != nil {
		_ = l.sub.Unsubscribe() // fails only when the connection is closed
	}
}

// open returns the inbox of a new request, with room for as many answers.
func (l *lookups) open(answers int) (inbox, token string, ch <-chan *nats.Msg, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sub == nil {
		l.prefix = l.nc.NewInbox() + "."
		l.waiting = make(map[string]chan<- *nats.Msg)
		if l.sub, err = l.nc.Subscribe(l.prefix+"*", l.received); err != nil {
			return "", "", nil, err
		}
	}
	l.next++
	token = strconv.FormatUint(l.next, 36)
	c := make(chan *nats.Msg, answers)
	l.waiting[token] = c
	return l.prefix + token, token, c, nil
}

func (l *lookups) done(token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, token)
}

func (l *lookups) received(m *nats.Msg) {
	l.mu.Lock()
	ch := l.waiting[strings.TrimPrefix(m.Subject, l.prefix)]
	l.mu.Unlock()
	if ch == nil {
		return
	}
	select {
	case ch <- m:
	default: // more answers than questions
	}
}

// commands adds to found what the index knows of these messages. A replica may
// answer: a status that is late by a moment only lacks what its consumers can
// look up.
func (l *lookups) commands(ctx context.Context, names queue.Names, bySubject map[string]string, subjects []string, found map[string]Command) error {
	request, err := json.Marshal(struct {
		MultiLast []string `json:"multi_last"`
	}{subjects})
	if err != nil {
		return err
	}
	inbox, token, answers, err := l.open(len(subjects) + 1)
	if err != nil {
		return unstored(err)
	}
	defer l.done(token)
	if err := l.nc.PublishRequest("$JS.API.DIRECT.GET."+names.Records(), inbox, request); err != nil {
		return unstored(err)
	}
	for {
		select {
		case m := <-answers:
			end, err := command(m, bySubject, found)
			if end || err != nil {
				return err
			}
		case <-ctx.Done():
			return unstored(ctx.Err())
		}
	}
}

// command takes one answer. The server sends the messages that exist, then an
// empty one with status 204; only one with 404 if there is none.
func command(m *nats.Msg, bySubject map[string]string, found map[string]Command) (end bool, err error) {
	switch status := m.Header.Get("Status"); status {
	case "":
		id, ok := bySubject[m.Header.Get(jetstream.SubjectHeader)]
		if !ok {
			return false, nil
		}
		var x queue.Index
		if err := json.Unmarshal(m.Data, &x); err != nil {
			return false, fmt.Errorf("unreadable index record %s", m.Header.Get(jetstream.SequenceHeader))
		}
		found[id] = Command{ID: x.ID, Meta: x.Meta}
		return false, nil
	case "204", "404":
		return true, nil
	default:
		code, _ := strconv.Atoi(status) // a number, never text of the server's
		return false, fmt.Errorf("%w: direct get answered %d", ErrUnavailable, code)
	}
}
