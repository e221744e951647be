package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Only workers hold the vendor's key, so the URL is registered, and looked after,
// by asking the worker that owns the account.

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

// register looks after the URL of each account with a public one, and begins anew for those that change. It returns when ctx has ended and all
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

// What is asked for with an address: the worker decides by it, see registerAccount.
const (
	askRegister = "register"
	askKeep     = "keep"
)

// What became of a request, as the worker says.
const (
	stateRegistered = "registered" // now or before
	stateRepaired   = "repaired"
	stateStopped    = "stopped"
	stateSuspended  = "suspended"
	stateSuperseded = "superseded"
)

// registerAccount registers the URL, and then has it looked after every
// Config.Poll. It tries until that is done: a worker may not run yet, and the
// vendor's test request may fail for minutes after a DNS change.
//
// The worker that owns the account compares, counts, repairs and tells operators,
// since several ingests may ask for the same account. The first request of an
// ingest, or for another URL than before, ends a suspension by hand.
func (s *Server) registerAccount(ctx context.Context, a Account) {
	log := s.log.With().Str("account", a.Name).Logger()
	request, before := askRegister, ""
	for attempt := 0; ; attempt++ {
		now, err := s.registerOnce(ctx, a, request)
		if ctx.Err() != nil {
			return
		}
		word, pause := failureReason(err), registerPause(attempt)
		if err == nil {
			word, pause = now.state(), jitter(s.cfg.Poll)
		}
		if word != before || err == nil && now.Changed {
			logRegistration(log, word, err, now, attempt+1)
		}
		before = word
		if err == nil {
			if s.cfg.Poll <= 0 {
				return
			}
			request, attempt = askKeep, -1
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// logRegistration tells of every change in what became of the requests.
func logRegistration(log zerolog.Logger, word string, err error, now webhooksAnswer, attempts int) {
	switch {
	case err != nil:
		log.Warn().Str("reason", word).Int("attempts", attempts).Msg("webhook_url_not_registered_yet")
	case word == stateRegistered:
		log.Info().Bool("changed", now.Changed).Int("attempts", attempts).Msg("webhook_url_registered")
	case word == stateRepaired:
		log.Warn().Msg("webhook_url_repaired")
	default:
		log.Warn().Str("state", word).Str("opens_on", now.Guard.OpensOn).Msg("webhook_url_not_guarded")
	}
}

// jitter is a time up to a tenth shorter or longer, so that many accounts and
// ingests do not ask in step.
func jitter(d time.Duration) time.Duration {
	if d < 10 {
		return d
	}
	return d - d/10 + rand.N(d/5)
}

// registerPause grows with the attempt and is jittered, so that many accounts do
// not ask in step. It is never less than half, since the first worker to come up
// meets all of them.
func registerPause(attempt int) time.Duration {
	ceiling := min(registerRetryMin<<min(attempt, 10), registerRetryMax)
	return ceiling/2 + rand.N(ceiling/2)
}

// webhooksAnswer is what webhooks.set answers; the secret in the URL is masked.
type webhooksAnswer struct {
	Changed bool `json:"webhooksUrlChanged"`
	Guard   struct {
		State   string `json:"state"`
		OpensOn string `json:"opensOn"`
	} `json:"guard"`
}

// state is one of a closed set, whatever a worker of another version may say.
func (a *webhooksAnswer) state() string {
	switch a.Guard.State {
	case stateRepaired, stateStopped, stateSuspended, stateSuperseded:
		return a.Guard.State
	}
	return stateRegistered
}

// registerOnce asks once that the URL be registered.
func (s *Server) registerOnce(ctx context.Context, a Account, request string) (webhooksAnswer, error) {
	body, err := json.Marshal(map[string]string{"url": a.URL(), "guard": request})
	if err != nil {
		return webhooksAnswer{}, err
	}
	return s.ask(ctx, a.Name, "webhooks.set", body)
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
	if err == nil {
		return ""
	}
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
