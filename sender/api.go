package sender

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	serviceName    = "wazzup"
	serviceVersion = "1.0.0"
)

// endpoint answers one request's body with another.
type endpoint func(ctx context.Context, body []byte) (any, error)

// endpoints are all requests, by name. Where they are answered:
//
//	apidecode.go    bodies, and faults that name their field
//	apivendor.go    a request's turn at the vendor, and the vendor's refusals
//	apilist.go      *.list, cut to what one answer may hold
//	apientity.go    *.get of users, contacts and deals
//	apiiframe.go    the chat window
//	apiwebhooks.go  the webhooks' address
//	discovery.go    the service as NATS tools see it
//
// The others stand beside what they are about: cancel.go, timeline.go,
// lanesapi.go, dead.go, redrive.go.
func (o *owner) endpoints() map[string]endpoint {
	return map[string]endpoint{
		"channels.list":   o.channelsList,
		"users.list":      o.usersList,
		"users.get":       o.entityGet(schema.EntityUsers),
		"contacts.list":   o.pageList(schema.EntityContacts),
		"contacts.get":    o.entityGet(schema.EntityContacts),
		"deals.list":      o.pageList(schema.EntityDeals),
		"deals.get":       o.entityGet(schema.EntityDeals),
		"iframe.open":     o.iframeOpen,
		"webhooks.get":    o.webhooksGet,
		"webhooks.set":    o.webhooksSet,
		"command.get":     o.commandGet,
		"command.cancel":  o.commandCancel,
		"command.resolve": o.commandResolve,
		"group.get":       noCampaigns,
		"group.cancel":    noCampaigns,
		"group.pause":     noCampaigns,
		"group.resume":    noCampaigns,
		"lanes.list":      o.lanesList,
		"lane.pause":      o.lanePause,
		"lane.resume":     o.laneResume,
		"dead.list":       o.deadList,
		"dead.show":       o.deadShow,
		"dead.redrive":    o.deadRedrive,
		"dead.drop":       o.deadDrop,
	}
}

// noCampaigns answers the requests about groups: a group is echoed in events, but
// nothing counts or holds its commands in this version.
func noCampaigns(context.Context, []byte) (any, error) {
	return nil, &fault{status: 501, err: schema.Error{
		Code: "NOT_IMPLEMENTED", Class: schema.ClassTerminal,
		Description: "groups cannot be counted, paused or cancelled in this version; their names are echoed in events, and lane.pause pauses a channel's bulk class",
	}}
}

// serveAPI answers the account's requests for as long as it is owned. The
// returned function ends it.
func (o *owner) serveAPI() (stop func(), err error) {
	s, err := newService(o.nc, "Requests to Wazzup and about commands, answered by the account's owner", o.cfg.Account)
	if err != nil {
		return nil, fmt.Errorf("serve requests: %w", err)
	}
	for name, e := range o.endpoints() {
		// A request may wait for the vendor: each has a goroutine of its own, and
		// the account's window bounds how many do anything.
		handle := func(m *nats.Msg, answered func(*fault)) {
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.stopping {
				return // nobody answers: the caller asks again and meets the next owner
			}
			o.enter()
			o.background.Go(func() {
				answered(o.answer(m.Reply, m.Data, e))
				o.mu.Lock()
				defer o.mu.Unlock()
				o.leave()
			})
		}
		if err := s.endpoint(strings.ReplaceAll(name, ".", "-"), schema.APISubject(o.cfg.Account, name), handle); err != nil {
			return nil, fmt.Errorf("serve requests: %w", errors.Join(err, s.stop()))
		}
	}
	return func() {
		if err := s.stop(); err != nil {
			o.log.Warn().Err(err).Msg("service_not_stopped")
		}
	}, nil
}

// answer carries out a request and publishes the answer; what it returns is the
// fault that it answered, nil for a success.
func (o *owner) answer(reply string, body []byte, e endpoint) *fault {
	ctx, cancel := context.WithTimeout(o.ctx, o.cfg.Timeout)
	defer cancel()
	m := &nats.Msg{Subject: reply}
	value, err := e(ctx, body)
	if err == nil {
		m.Data, err = o.encodeAnswer(value)
	}
	var refused *fault
	if err != nil {
		refused = asFault(err)
		m.Header = nats.Header{
			micro.ErrorHeader:     []string{refused.err.Code},
			micro.ErrorCodeHeader: []string{strconv.Itoa(refused.status)},
		}
		m.Data, err = json.Marshal(faultBody{refused.err, refused.state})
	}
	if err == nil && reply != "" {
		err = o.nc.PublishMsg(m)
	}
	if err != nil {
		o.log.Warn().Err(err).Msg("request_not_answered")
	}
	return refused
}

// encodeAnswer writes an answer that NATS takes.
func (o *owner) encodeAnswer(value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err == nil && int64(len(text)) > o.nc.MaxPayload() {
		return nil, tooLarge("the answer exceeds NATS's payload limit")
	}
	return text, err
}
