package queue_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/queue/queuetest"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// serve answers a request of the account main, as its owner does.
func serve(t *testing.T, nc *nats.Conn, name string, do micro.HandlerFunc) {
	t.Helper()
	svc, err := micro.AddService(nc, micro.Config{Name: "wazzup", Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := svc.AddEndpoint("one", do, micro.WithEndpointSubject(schema.APISubject("main", name))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = svc.Stop() }) // an error: the connection is closed
}

func newRequests(t *testing.T, nc *nats.Conn) *queue.Requests {
	t.Helper()
	r, err := queue.NewRequests(nc, "main")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A request that meets nobody, since the account changes hands, is made again.
func TestRequestHandOver(t *testing.T) {
	t.Parallel()
	nc := queuetest.Conn(t, queuetest.Server(t))
	r := newRequests(t, nc)
	met := 0
	r.Waiting = func() {
		if met++; met == 2 {
			serve(t, nc, "channels.list", func(r micro.Request) { _ = r.Respond([]byte(`{"items":[` + string(r.Data()) + `]}`)) })
		}
	}
	var got struct{ Items []map[string]int }
	if err := r.Do(t.Context(), "channels.list", map[string]int{"offset": 7}, &got); err != nil {
		t.Fatal(err)
	}
	if met != 2 || len(got.Items) != 1 || got.Items[0]["offset"] != 7 {
		t.Errorf("got %+v after %d requests that met nobody", got, met)
	}
}

func TestRequestNobody(t *testing.T) {
	t.Parallel()
	nc := queuetest.Conn(t, queuetest.Server(t))
	r := newRequests(t, nc)
	r.HandOver = time.Millisecond
	if err := r.Do(t.Context(), "channels.list", nil, nil); !errors.Is(err, queue.ErrNoOwner) {
		t.Errorf("got %v, want ErrNoOwner", err)
	}
	r.HandOver = time.Minute
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	r.Waiting = func() { cancel(enough) }
	if err := r.Do(ctx, "channels.list", nil, nil); !errors.Is(err, queue.ErrNoOwner) || !errors.Is(err, enough) {
		t.Errorf("got %v, want ErrNoOwner and the context's cause", err)
	}
	if _, err := queue.NewRequests(nc, "a.b"); err == nil {
		t.Error("a wrong account was taken")
	}
}

// A refusal keeps its status, its fault, and the command's state.
func TestRequestRefused(t *testing.T) {
	t.Parallel()
	nc := queuetest.Conn(t, queuetest.Server(t))
	serve(t, nc, "command.cancel", func(r micro.Request) {
		var body []byte
		if string(r.Data()) == `{"id":"under way"}` {
			body = []byte(`{"error":{"code":"NOT_CANCELLABLE","class":"terminal","description":"it is being called"},"state":"pending"}`)
		}
		_ = r.Error("409", "NOT_CANCELLABLE", body)
	})
	r := newRequests(t, nc)
	refused, ok := errors.AsType[*queue.RequestError](r.Cancel(t.Context(), "under way"))
	if !ok || refused.Status != 409 || refused.State != schema.StatePending || refused.Fault.Description != "it is being called" || !json.Valid(refused.Body) {
		t.Errorf("got %+v", refused)
	}
	refused, ok = errors.AsType[*queue.RequestError](r.Cancel(t.Context(), "another"))
	if !ok || refused.Status != 409 || refused.Fault.Code != "NOT_CANCELLABLE" {
		t.Errorf("without a body: got %+v", refused)
	}
}

// An owner that does not answer is no reason to ask twice.
func TestRequestUnanswered(t *testing.T) {
	t.Parallel()
	nc := queuetest.Conn(t, queuetest.Server(t))
	sub, err := nc.SubscribeSync(schema.APISubject("main", "dead.drop"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err = newRequests(t, nc).Do(ctx, "dead.drop", nil, nil)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, queue.ErrNoOwner) {
		t.Errorf("got %v, want the deadline", err)
	}
	if n, _, _ := sub.Pending(); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
}

// A NATS user who may not make a request is told so, and not only that time is over.
func TestRequestForbidden(t *testing.T) {
	t.Parallel()
	srv := limitedServer(t, &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{schema.APISubject("main", "lanes.list")}},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err := newRequests(t, srv.login(t, "limited")).Do(ctx, "dead.drop", nil, nil)
	if !errors.Is(err, queue.ErrForbidden) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrForbidden", err)
	}
}
