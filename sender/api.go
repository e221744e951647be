package sender

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	serviceName    = "wazzup"
	serviceVersion = "1.0.0"
	maxURLLength   = 200 // of a webhook's address: more is refused by the vendor
)

// fault is a request that cannot be answered as asked.
type fault struct {
	status int // HTTP-like
	err    schema.Error
	state  schema.State // of the command that the request is about; "" = none
	// unchanged: the webhook's address is surely what it was before.
	unchanged bool
}

// faultBody is the body of an answer that refuses.
type faultBody struct {
	Error schema.Error `json:"error"`
	State schema.State `json:"state,omitempty"`
}

func (f *fault) Error() string { return f.err.Code }

func badRequest(code, description string) error {
	return &fault{status: 400, err: schema.Error{Code: code, Class: schema.ClassInvalid, Description: description}}
}

func notFound(description string) error {
	return &fault{status: 404, err: schema.Error{Code: "NOT_FOUND", Class: schema.ClassInvalid, Description: description}}
}

// endpoint answers one request's body with another.
type endpoint func(ctx context.Context, body []byte) (any, error)

// serveAPI answers the account's requests for as long as it is owned. The
// returned function ends it.
func (o *owner) serveAPI() (stop func(), err error) {
	service, err := micro.AddService(o.nc, micro.Config{
		Name: serviceName, Version: serviceVersion,
		Description: "Requests to Wazzup and about commands, answered by the account's owner",
		Metadata:    map[string]string{"account": o.cfg.Account},
	})
	if err != nil {
		return nil, fmt.Errorf("serve requests: %w", err)
	}
	for name, e := range o.endpoints() {
		// A request may wait for the vendor: each has a goroutine of its own, and
		// the account's window bounds how many do anything.
		handler := micro.HandlerFunc(func(r micro.Request) {
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.stopping {
				return // nobody answers: the caller asks again and meets the next owner
			}
			o.enter()
			reply, body := r.Reply(), r.Data()
			o.background.Go(func() {
				o.answer(reply, body, e)
				o.mu.Lock()
				defer o.mu.Unlock()
				o.leave()
			})
		})
		metadata := map[string]string{"account": o.cfg.Account}
		if err := service.AddEndpoint(strings.ReplaceAll(name, ".", "-"), handler,
			micro.WithEndpointSubject(schema.APISubject(o.cfg.Account, name)), micro.WithEndpointMetadata(metadata)); err != nil {
			return nil, fmt.Errorf("serve requests %s: %w", name, errors.Join(err, service.Stop()))
		}
	}
	return func() {
		if err := service.Stop(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			o.log.Warn().Err(err).Msg("service_not_stopped")
		}
	}, nil
}

func (o *owner) endpoints() map[string]endpoint {
	return map[string]endpoint{
		"command.get":     o.commandGet,
		"command.cancel":  o.commandCancel,
		"command.resolve": o.commandResolve,
		"channels.list":   o.channelsList,
		"lanes.list":      o.lanesList,
		"lane.pause":      o.lanePause,
		"lane.resume":     o.laneResume,
		"dead.list":       o.deadList,
		"dead.show":       o.deadShow,
		"dead.redrive":    o.deadRedrive,
		"dead.drop":       o.deadDrop,
		"webhooks.get":    o.webhooksGet,
		"webhooks.set":    o.webhooksSet,
	}
}

// answer publishes the answer itself: a micro.Request must not be used once its
// handler has returned.
func (o *owner) answer(reply string, body []byte, e endpoint) {
	ctx, cancel := context.WithTimeout(o.ctx, o.cfg.Timeout)
	defer cancel()
	m := &nats.Msg{Subject: reply}
	value, err := e(ctx, body)
	if err == nil {
		m.Data, err = o.encodeAnswer(value)
	}
	if err != nil {
		f := asFault(err)
		m.Header = nats.Header{
			micro.ErrorHeader:     []string{f.err.Code},
			micro.ErrorCodeHeader: []string{strconv.Itoa(f.status)},
		}
		m.Data, err = json.Marshal(faultBody{f.err, f.state})
	}
	if err == nil && reply != "" {
		err = o.nc.PublishMsg(m)
	}
	if err != nil {
		o.log.Warn().Err(err).Msg("request_not_answered")
	}
}

// encodeAnswer writes an answer that NATS takes.
func (o *owner) encodeAnswer(value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err == nil && int64(len(text)) > o.nc.MaxPayload() {
		return nil, &fault{status: 413, err: schema.Error{
			Code: "TOO_LARGE", Class: schema.ClassTerminal, Description: "the answer exceeds NATS's payload limit",
		}}
	}
	return text, err
}

func asFault(err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &fault{status: 504, err: schema.Error{Code: "TIMEOUT", Class: schema.ClassRetryable, Description: "no answer in time"}}
	}
	return &fault{status: 500, err: schema.Error{Code: "INTERNAL", Class: schema.ClassRetryable, Description: "the request failed here"}}
}

// decodeRequest reads a request's body strictly; an empty one is an empty object.
func decodeRequest(body []byte, into any) error {
	if len(body) == 0 {
		body = []byte("{}")
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil || d.More() {
		return badRequest("BAD_REQUEST", "the body is no JSON object of the fields that this request takes")
	}
	return nil
}

// vendorFault is a fault of the vendor's answer to a request.
func vendorFault(a wazzup.Answer) error {
	v := Classify(FamilyQuery, a)
	if v.Action == ActionAccept {
		return nil
	}
	status := a.Status
	switch {
	case a.Fault == wazzup.FaultTimeout:
		status = 504
	case status < 400:
		status = 502
	}
	return &fault{status: status, err: *NewError(a, v)}
}

func (o *owner) channelsList(ctx context.Context, _ []byte) (any, error) {
	a, err := o.query(ctx, func(ctx context.Context) wazzup.Answer { return o.client.Channels(ctx) })
	if err != nil {
		return nil, err
	}
	if err := vendorFault(a); err != nil {
		return nil, err
	}
	return map[string]json.RawMessage{"items": a.Body}, nil
}

// webhooksAnswer is the vendor's answer with the secret masked.
type webhooksAnswer struct {
	URL     *string      `json:"webhooksUrl"`
	Changed *bool        `json:"webhooksUrlChanged,omitempty"` // of set only
	Guard   *guardAnswer `json:"guard,omitempty"`              // where an ingest has registered an address
	// SilentSince is, of get, since when accepted messages have no status; empty: they have.
	SilentSince string `json:"silentSince,omitempty"`
}

func (o *owner) webhooksGet(ctx context.Context, _ []byte) (any, error) {
	now, _, err := o.getWebhooks(ctx)
	if err != nil {
		return nil, err
	}
	g, err := o.loadGuard(ctx)
	if err != nil {
		return nil, err
	}
	now.Guard = g.stands(o.cfg.timing.guardPer)
	silence, err := o.silence(ctx)
	if err != nil {
		return nil, err
	}
	if silence.over(time.Now(), o.cfg.Silence) {
		now.SilentSince = schema.FormatTime(silence.since)
	}
	return now, nil
}

// webhooksSet registers an address. With guard it is an ingest that asks, see
// guard.go; without, it is done by hand.
func (o *owner) webhooksSet(ctx context.Context, body []byte) (any, error) {
	var q struct {
		URL   *string `json:"url"`
		Guard string  `json:"guard"`
	}
	if err := decodeRequest(body, &q); err != nil {
		return nil, err
	}
	switch {
	case q.URL == nil && (q.Guard != "" || !strings.Contains(string(body), `"url"`)):
		return nil, badRequest("REQUIRED", "url is required: an address, or null to switch webhooks off")
	case q.URL != nil && len(*q.URL) > maxURLLength:
		return nil, badRequest("TOO_LONG", "url is longer than 200 characters")
	case q.Guard != "" && q.Guard != guardRegister && q.Guard != guardKeep:
		return nil, badRequest("BAD_REQUEST", "guard is register or keep, and for ingest only")
	}
	return o.setWebhooks(ctx, q.URL, q.Guard)
}

func masked(a wazzup.Answer, set bool) (webhooksAnswer, error) {
	if err := vendorFault(a); err != nil {
		return webhooksAnswer{}, err
	}
	w, err := wazzup.DecodeWebhooks(a.Body)
	if err != nil {
		return webhooksAnswer{}, &fault{status: 502, err: schema.Error{Code: "BAD_ANSWER", Class: schema.ClassRetryable, Description: "the vendor's answer holds no address"}}
	}
	out := webhooksAnswer{}
	if set {
		out.Changed = &w.Changed
	}
	if w.URL != "" {
		url := maskURL(w.URL)
		out.URL = &url
	}
	return out, nil
}

// maskURL hides the secret of a webhook's address, its last path segment: what
// is left is enough to see whether two are the same.
func maskURL(address string) string {
	slash := strings.LastIndexByte(address, '/')
	secret := address[slash+1:]
	if slash < 0 || secret == "" || strings.ContainsAny(address, "?#@") {
		return maskForeign(address) // not of the form that an ingest registers
	}
	sum := sha256.Sum256([]byte(secret))
	return address[:slash+1] + "***" + hex.EncodeToString(sum[:4])
}
