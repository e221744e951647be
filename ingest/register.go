package ingest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Only workers hold the vendor's key, so the URL is registered by asking the
// worker that owns the account.

// Requester asks over NATS; [nats.Conn] is one.
type Requester interface {
	// RequestWithContext returns the answer, or an error that wraps
	// nats.ErrNoResponders when nobody serves the subject.
	RequestWithContext(ctx context.Context, subject string, data []byte) (*nats.Msg, error)
}

const (
	// askTimeout bounds one request. The worker may wait for the account's rate,
	// and the vendor tests the URL before it answers.
	askTimeout = 45 * time.Second

	registerRetryMin = time.Second
	registerRetryMax = time.Minute
)

// register keeps one registration under way for each account with a public URL,
// and begins anew for those that change. It returns when ctx has ended and all
// of them have stopped.
func (s *Server) register(ctx context.Context) {
	type running struct {
		url    string
		cancel context.CancelFunc
	}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	now := make(map[string]running)
	for {
		wanted := make(map[string]Account)
		for _, a := range s.accounts.Load().list {
			if a.PublicURL != "" {
				wanted[a.Name] = a
			}
		}
		for name, r := range now {
			if a, ok := wanted[name]; !ok || a.URL() != r.url {
				r.cancel()
				delete(now, name)
			}
		}
		for name, a := range wanted {
			if _, ok := now[name]; ok {
				continue
			}
			one, cancel := context.WithCancel(ctx)
			now[name] = running{url: a.URL(), cancel: cancel}
			tasks.Go(func() { s.registerAccount(one, a) })
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			for _, r := range now {
				r.cancel()
			}
			return
		}
	}
}

// registerAccount tries until the URL is registered: a worker may not run yet,
// and the vendor's test request may fail for minutes after a DNS change.
func (s *Server) registerAccount(ctx context.Context, a Account) {
	log := s.log.With().Str("account", a.Name).Logger()
	before := ""
	for attempt := 0; ; attempt++ {
		changed, err := s.registerOnce(ctx, a)
		if err == nil {
			log.Info().Bool("changed", changed).Int("attempts", attempt+1).Msg("webhook_url_registered")
			return
		}
		if ctx.Err() != nil {
			return
		}
		if reason := failureReason(err); reason != before {
			before = reason
			log.Warn().Str("reason", reason).Int("attempts", attempt+1).Msg("webhook_url_not_registered_yet")
		}
		timer := time.NewTimer(registerPause(attempt))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// registerPause grows with the attempt and is jittered, so that many accounts do
// not ask in step. It is never less than half, since the first worker to come up
// meets all of them.
func registerPause(attempt int) time.Duration {
	ceiling := min(registerRetryMin<<min(attempt, 10), registerRetryMax)
	return ceiling/2 + rand.N(ceiling/2)
}

// webhooksAnswer is what webhooks.get and webhooks.set answer; the secret in the
// URL is masked.
type webhooksAnswer struct {
	URL     *string `json:"webhooksUrl"`
	Changed bool    `json:"webhooksUrlChanged"`
}

// registerOnce looks what is registered, and sets the URL if it is another.
func (s *Server) registerOnce(ctx context.Context, a Account) (changed bool, err error) {
	now, err := s.ask(ctx, a.Name, "webhooks.get", []byte("{}"))
	if err != nil {
		return false, err
	}
	if now.URL != nil && *now.URL == maskURL(a.URL()) {
		return false, nil
	}
	request, err := json.Marshal(map[string]string{"url": a.URL()})
	if err != nil {
		return false, err
	}
	then, err := s.ask(ctx, a.Name, "webhooks.set", request)
	return then.Changed, err
}

// maskURL hides the secret of a webhook URL, its last path segment, yet lets two
// URLs be compared: "***" and the first 8 hex digits of the secret's SHA-256.
func maskURL(url string) string {
	cut := strings.LastIndexByte(url, '/') + 1
	sum := sha256.Sum256([]byte(url[cut:]))
	return url[:cut] + "***" + hex.EncodeToString(sum[:4])
}

// refusal is a worker's or the vendor's answer that it cannot be done now.
type refusal struct{ status, code string }

func (r *refusal) Error() string { return "refused with " + r.status + " " + r.code }

func (s *Server) ask(ctx context.Context, account, name string, request []byte) (webhooksAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var answer webhooksAnswer
	m, err := s.api.RequestWithContext(ctx, schema.APISubject(account, name), request)
	if err != nil {
		return answer, fmt.Errorf("ask %s: %w", name, err)
	}
	if status := m.Header.Get(micro.ErrorCodeHeader); status != "" {
		var body struct {
			Error struct {
				Code string `json:"code"`
			} `json:"error"`
		}
		// A body that cannot be read only lacks the code.
		_ = json.Unmarshal(m.Data, &body)
		return answer, fmt.Errorf("ask %s: %w", name, &refusal{status: status, code: body.Error.Code})
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return answer, fmt.Errorf("ask %s: unreadable answer", name)
	}
	return answer, nil
}

// failureReason names a failed registration for the log.
func failureReason(err error) string {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.Error()
	}
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return "no worker serves this account yet"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return "no answer in time"
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected),
		errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionReconnecting):
		return "not connected to NATS"
	}
	return "unexpected answer"
}
