package sender_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// modelContacts is how many contacts the model's sync commands are about, so that
// they follow one another.
const modelContacts = 3

// modelRedrive names a dead.redrive of the model.
type modelRedrive struct {
	id      string
	unknown bool
}

func (q *modelRequest) body() []byte {
	fields := make(map[string]any)
	switch {
	case q.channel != "":
		fields["channelId"] = q.channel
		if q.class != "" {
			fields["class"] = q.class
		}
	case strings.HasPrefix(q.name, "dead."):
		fields["ids"] = []string{q.id}
		if q.unknown {
			fields["includeUnknown"] = true
		}
	default:
		fields["id"] = q.id
		if q.as != "" {
			fields["as"] = q.as
		}
	}
	body, err := json.Marshal(fields)
	if err != nil {
		panic(err) // texts only
	}
	return body
}

// request asks the owner once, whoever it is.
func (w *world) request(q modelRequest) modelRequest {
	w.t.Helper()
	q.asked = time.Now()
	m, err := w.nc.Request(schema.APISubject("main", q.name), q.body(), 2*time.Second)
	q.at = time.Now()
	if err == nil {
		q.code = m.Header.Get(micro.ErrorCodeHeader)
	}
	q.ok = err == nil && q.code == ""
	q.unclear = err != nil && !errors.Is(err, nats.ErrNoResponders) || strings.HasPrefix(q.code, "5")
	w.requests = append(w.requests, q)
	w.note("%s %s: %s %v", q.name, q.body(), q.code, err)
	return q
}

// handleDead has an operator redrive a dead command or drop it.
func (w *world) handleDead(id string) {
	w.t.Helper()
	if w.chance(20) {
		w.request(modelRequest{name: "dead.drop", id: id})
		return
	}
	w.redriveDead(modelRedrive{id, w.chance(70)})
}

// redriveDead asks for a redrive. One without a clear answer may have got half
// the way; then the same request goes on from there.
func (w *world) redriveDead(r modelRedrive) {
	w.t.Helper()
	q := w.request(modelRequest{name: "dead.redrive", id: r.id, unknown: r.unknown})
	switch {
	case q.unclear:
		w.open[r] = true
	case q.ok || q.code != "":
		delete(w.open, r)
	}
}

// handleLane has an operator pause or resume lanes.
func (w *world) handleLane() {
	w.t.Helper()
	q := modelRequest{name: "lane.pause", channel: pick(w.random, modelChannels()), class: pick(w.random, []string{"", "send", "bulk"})}
	if w.chance(40) {
		q.name = "lane.resume"
	} else {
		w.paused[q.channel] = true
	}
	w.request(q)
}

// finished has the operators bring to an end what they began: redrives that got
// half the way, and pauses.
func (w *world) finished() bool {
	w.t.Helper()
	for r := range w.open {
		w.redriveDead(r)
	}
	for channel := range w.paused {
		if w.request(modelRequest{name: "lane.resume", channel: channel}).ok {
			delete(w.paused, channel)
		}
	}
	return len(w.open) == 0 && len(w.paused) == 0
}

// publishSync stores a sync command about one of a few contacts, and draws what
// the vendor does with its requests.
func (w *world) publishSync(n int) {
	w.t.Helper()
	c := &modelCommand{kind: schema.KindContactsUpsert, contact: fmt.Sprintf("contact-%d", w.random.IntN(modelContacts)), name: fmt.Sprintf("name %d", n)}
	verb := schema.VerbUpsert
	var items any = []map[string]any{{"id": c.contact, "responsibleUserId": "1", "name": c.name, "contactData": []any{}}}
	if w.chance(30) {
		c.kind, verb, items = schema.KindContactsDelete, schema.VerbDelete, []string{c.contact}
	}
	if w.chance(40) {
		rule := pick(w.random, []simulator.Rule{{Status: 500}, {Fault: simulator.FaultDropAfterAccept}, {Fault: simulator.FaultDropBeforeRead}, {Fault: simulator.FaultHang}})
		rule.Match, rule.Times = simulator.Match{Path: "/v2/contacts*"}, pick(w.random, []int{1, 2, modelAttempts})
		w.addRule(rule)
	}
	for {
		receipt, err := w.pub.Sync(w.t.Context(), schema.EntityContacts, verb, items)
		if err == nil {
			c.seq = receipt.Seq
			w.commands = append(w.commands, c)
			return
		}
		w.reconnected(err)
	}
}
