package sender

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"
)

// service is a NATS micro service (NATS ADR-32): endpoints that share the load of
// their subjects, found by `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`. The shapes
// are those of package micro. Its own service is not used, because it measures a
// handler until it returns and reads what it answered without a lock: a handler
// that goes on in another goroutine, as every request here does, would count as
// answered at once and never as an error.
type service struct {
	nc       *nats.Conn
	identity micro.ServiceIdentity
	about    string
	started  time.Time

	mu        sync.Mutex
	subs      []*nats.Subscription
	endpoints []*micro.EndpointStats
}

// newService answers the three verbs from now on, until it is stopped.
func newService(nc *nats.Conn, about, account string) (*service, error) {
	s := &service{
		nc: nc, about: about, started: time.Now().UTC(),
		identity: micro.ServiceIdentity{
			Name: serviceName, ID: nuid.Next(), Version: serviceVersion,
			Metadata: map[string]string{"account": account},
		},
	}
	for verb, value := range map[micro.Verb]func() any{
		micro.PingVerb:  func() any { return micro.Ping{ServiceIdentity: s.identity, Type: micro.PingResponseType} },
		micro.InfoVerb:  func() any { return s.info() },
		micro.StatsVerb: func() any { return s.stats() },
	} {
		for _, scope := range [][2]string{{}, {s.identity.Name}, {s.identity.Name, s.identity.ID}} {
			if err := s.addVerb(verb, scope, value); err != nil {
				return nil, errors.Join(err, s.stop())
			}
		}
	}
	return s, nil
}

func (s *service) addVerb(verb micro.Verb, scope [2]string, value func() any) error {
	subject, err := micro.ControlSubject(verb, scope[0], scope[1])
	if err != nil {
		return err
	}
	sub, err := s.nc.Subscribe(subject, func(m *nats.Msg) {
		if text, err := json.Marshal(value()); err == nil {
			_ = m.Respond(text) // whoever asked without a reply, or is gone, is not answered
		}
	})
	return s.keep(sub, err, subject)
}

func (s *service) keep(sub *nats.Subscription, err error, subject string) error {
	if err != nil {
		return fmt.Errorf("subscribe %s: %w", subject, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subs = append(s.subs, sub)
	return nil
}

// endpoint serves a subject. The handler must not block; it calls answered once
// for each request that it answers, with the fault if it refused.
func (s *service) endpoint(name, subject string, handle func(m *nats.Msg, answered func(*fault))) error {
	e := &micro.EndpointStats{Name: name, Subject: subject, QueueGroup: micro.DefaultQueueGroup}
	s.mu.Lock()
	s.endpoints = append(s.endpoints, e)
	s.mu.Unlock()
	sub, err := s.nc.QueueSubscribe(subject, e.QueueGroup, func(m *nats.Msg) {
		arrived := time.Now()
		handle(m, func(refused *fault) { s.count(e, time.Since(arrived), refused) })
	})
	return s.keep(sub, err, subject)
}

func (s *service) count(e *micro.EndpointStats, took time.Duration, refused *fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.NumRequests++
	e.ProcessingTime += took
	e.AverageProcessingTime = e.ProcessingTime / time.Duration(e.NumRequests)
	if refused != nil {
		e.NumErrors++
		e.LastError = fmt.Sprintf("%d:%s", refused.status, refused.err.Code)
	}
}

func (s *service) info() micro.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := micro.Info{ServiceIdentity: s.identity, Type: micro.InfoResponseType, Description: s.about, Endpoints: []micro.EndpointInfo{}}
	for _, e := range s.endpoints {
		info.Endpoints = append(info.Endpoints, micro.EndpointInfo{
			Name: e.Name, Subject: e.Subject, QueueGroup: e.QueueGroup, Metadata: s.identity.Metadata,
		})
	}
	return info
}

func (s *service) stats() micro.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := micro.Stats{ServiceIdentity: s.identity, Type: micro.StatsResponseType, Started: s.started, Endpoints: []*micro.EndpointStats{}}
	for _, e := range s.endpoints {
		copied := *e // encoded after the lock is released
		stats.Endpoints = append(stats.Endpoints, &copied)
	}
	return stats
}

// stop ends it: what has come by now is still handled.
func (s *service) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, sub := range s.subs {
		if err := sub.Drain(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
			errs = append(errs, err)
		}
	}
	s.subs = nil
	return errors.Join(errs...)
}
