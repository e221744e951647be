package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// errSamples: not all sample traffic came out right.
var errSamples = errors.New("not everything came out right: see above")

// runOnce waits for the system, sends the samples one after the other, and
// prints each as it ends.
func (s *system) runOnce(ctx context.Context, c *devCmd, e *env) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	if err := s.up(ctx); err != nil {
		return fmt.Errorf("the system did not come up within %v: the webhook was not registered", c.Timeout)
	}
	trial, err := s.newTrial(ctx, e)
	if err != nil {
		return err
	}
	defer trial.close()
	var results []*result
	for _, one := range samples() {
		e.Progress("sending " + one.name)
		r := trial.carry(ctx, one)
		results = append(results, r)
		if !c.JSON {
			trial.show(r)
		}
	}
	end := trial.afterwards(ctx, results)
	if c.JSON {
		return errors.Join(trial.showJSON(results, end), verdict(results, end))
	}
	for _, problem := range end {
		e.Printf("%s %s\n", e.tint(bad, "✘"), problem)
	}
	if err := verdict(results, end); err != nil {
		return err
	}
	e.Printf("%s\n", e.tint(good, fmt.Sprintf("all %d came out right", len(results))))
	return nil
}

func verdict(results []*result, end []string) error {
	for _, r := range results {
		if len(r.problems) > 0 {
			return errSamples
		}
	}
	if len(end) > 0 {
		return errSamples
	}
	return nil
}

// trial is one run of the samples through a system.
type trial struct {
	sim *simulator.Server
	*client
	env       *env
	run       string // makes ids new where the folder is used again
	publisher *queue.Publisher
	follower  sync.WaitGroup
	stop      context.CancelFunc

	mu      sync.Mutex
	events  []*event      // guarded by mu
	changed chan struct{} // closed and replaced with each event; guarded by mu
	failed  error         // of the follower; guarded by mu
	inbound string        // message id of the customer's message
}

// newTrial connects as any producer and consumer would, and follows the events
// from now on.
func (s *system) newTrial(ctx context.Context, e *env) (*trial, error) {
	conn, err := daemon.ConnectNATS(daemon.NATSConfig{URL: s.worker.Embedded.URL(), Name: "wazzupctl dev", Log: zerolog.Nop()})
	if err != nil {
		return nil, err
	}
	if err := conn.Wait(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	js, err := jetstream.New(conn.Conn())
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	cl := &client{account: s.account, conn: conn, nc: conn.Conn(), js: js, printer: e.printer}
	t := &trial{sim: s.sim, client: cl, env: e, run: runID(), changed: make(chan struct{})}
	if t.publisher, err = queue.NewPublisher(cl.nc, s.account); err != nil {
		conn.Close()
		return nil, err
	}
	events, err := openFeed(ctx, cl, time.Time{}, schema.EventSubjects(s.account))
	if err != nil {
		conn.Close()
		return nil, err
	}
	following, stop := context.WithCancel(ctx)
	t.stop = stop
	t.follower.Go(func() { t.follow(following, events) })
	return t, nil
}

func (t *trial) close() {
	t.stop()
	t.follower.Wait()
	t.client.Close()
}

// follow keeps every event.
func (t *trial) follow(ctx context.Context, events *feed) {
	defer events.close()
	for {
		ev, err := events.event(ctx)
		if err != nil && ctx.Err() != nil {
			return
		}
		if err == nil {
			err = sound(ev)
		}
		t.mu.Lock()
		if err != nil && t.failed == nil {
			t.failed = err
		}
		if ev != nil {
			t.events = append(t.events, ev)
		}
		close(t.changed)
		t.changed = make(chan struct{})
		t.mu.Unlock()
		if ev == nil {
			return
		}
	}
}

// sound checks what every event must have.
func sound(e *event) error {
	h := e.header
	switch {
	case h.Get(schema.HeaderCEID) == "", h.Get(schema.HeaderCEID) != h.Get(schema.HeaderMsgID):
		return fmt.Errorf("event %d: ce-id is empty or not the message's id", e.Seq)
	case h.Get(schema.HeaderCESpecVersion) != "1.0", h.Get(schema.HeaderCEType) == "", h.Get(schema.HeaderCETime) == "":
		return fmt.Errorf("event %d: CloudEvents headers are missing", e.Seq)
	case !json.Valid(e.Body):
		return fmt.Errorf("event %d: the body is no JSON", e.Seq)
	}
	return nil
}

// wait returns the events that belong to something, once there are enough of
// them.
func (t *trial) wait(ctx context.Context, belongs func(*event) bool, enough func([]*event) bool) ([]*event, error) {
	for {
		t.mu.Lock()
		found := slices.DeleteFunc(slices.Clone(t.events), func(e *event) bool { return !belongs(e) })
		changed, failed := t.changed, t.failed
		t.mu.Unlock()
		if failed != nil || enough(found) {
			return found, failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return found, errors.New("the time is over")
		}
	}
}

// result is what became of a sample.
type result struct {
	*sample
	id        string
	body      []byte
	receipt   queue.Receipt
	stored    time.Time
	messageID string
	ledger    *sender.Timeline
	events    []*event
	problems  []string
}

func (r *result) require(ok bool, format string, args ...any) {
	if !ok {
		r.problems = append(r.problems, fmt.Sprintf(format, args...))
	}
}

// carry sends one sample, waits for all that must come of it, and compares.
func (t *trial) carry(ctx context.Context, one *sample) *result {
	r := &result{sample: one, id: one.name + "-" + t.run}
	if one.inbound != nil {
		t.receive(ctx, r)
		return r
	}
	if err := t.publish(ctx, r); err != nil {
		r.require(false, "was not published: %v", err)
		return r
	}
	t.await(ctx, r)
	r.compare(t)
	return r
}

// receive has a customer write and waits for the event.
func (t *trial) receive(ctx context.Context, r *result) {
	id, err := t.sim.Inbound(*r.inbound)
	if err != nil {
		r.require(false, "the customer could not write: %v", err)
		return
	}
	t.inbound, r.messageID, r.stored = id, id, time.Now().UTC()
	r.events, err = t.wait(ctx, func(e *event) bool { return e.fields.MessageID == id }, func(all []*event) bool { return len(all) > 0 })
	r.require(err == nil, "no event came: %v", err)
	if len(r.events) == 0 {
		return
	}
	e := r.events[0]
	want := schema.MessageEventSubject(t.account, "in", r.inbound.ChannelID, schema.ChatWhatsApp, r.inbound.ChatID)
	r.require(e.Subject == want, "the event came on %s, want %s", e.Subject, want)
	r.require(e.fields.Text == r.inbound.Text, "the text is not what the customer wrote")
	r.require(unquote(e.fields.ChatID) == r.inbound.ChatID, "the chat is not the customer's")
}

func unquote(raw json.RawMessage) string { return strings.Trim(string(raw), `"`) }

func (t *trial) publish(ctx context.Context, r *result) (err error) {
	if r.rule != nil {
		if err := t.sim.AddRule(*r.rule); err != nil {
			return err
		}
	}
	r.body, err = r.command(r.id, t.inbound)
	if err != nil {
		return err
	}
	r.stored = time.Now().UTC()
	if entity, verb, ok := r.kind.Sync(); ok {
		r.receipt, err = t.publisher.Sync(ctx, entity, verb, json.RawMessage(r.body))
	} else {
		r.receipt, err = t.publisher.Send(ctx, r.kind, r.channel, r.body)
	}
	return err
}

// await waits for the final event, for the webhooks of a message that was sent,
// and reads the ledger.
func (t *trial) await(ctx context.Context, r *result) {
	ofCommand := func(e *event) bool { return e.family() == "command" && e.fields.ID == r.id }
	final := func(e *event) bool { return ofCommand(e) && e.state().Final() }
	events, err := t.wait(ctx, ofCommand, func(all []*event) bool { return slices.ContainsFunc(all, final) })
	r.events = events
	if err != nil {
		r.require(false, "no final event came: %v", err)
	} else {
		r.messageID = events[slices.IndexFunc(events, final)].fields.MessageID
	}
	if r.messageID != "" {
		t.awaitWebhooks(ctx, r, ofCommand)
	}
	r.ledger = new(sender.Timeline)
	if err := t.request(ctx, "command.get", map[string]string{"id": r.id}, r.ledger); err != nil {
		r.require(false, "the timeline could not be read: %v", err)
	}
}

func (t *trial) awaitWebhooks(ctx context.Context, r *result, ofCommand func(*event) bool) {
	if r.statusesByHand {
		// After the final event the message's command is known, so that the
		// statuses must name it; the vendor's own timing would leave that open.
		if err := t.postStatuses(ctx, r.messageID); err != nil {
			r.require(false, "the statuses could not be posted: %v", err)
			return
		}
	}
	belongs := func(e *event) bool {
		return ofCommand(e) || (e.family() == "message" || e.family() == "status") && e.fields.MessageID == r.messageID
	}
	events, err := t.wait(ctx, belongs, func(all []*event) bool {
		return count(all, "message", "out") > 0 && count(all, "command", "read") > 0 &&
			count(all, "status", "sent") > 0 && count(all, "status", "delivered") > 0 && count(all, "status", "read") > 0
	})
	r.events = events
	r.require(err == nil, "not all of echo and statuses came: %v", err)
}

// postStatuses calls the webhook as Wazzup does: one body, three statuses.
func (t *trial) postStatuses(ctx context.Context, messageID string) error {
	var statuses []map[string]any
	for _, status := range []int{1, 2, 3} { // sent, delivered, read
		statuses = append(statuses, map[string]any{"messageId": messageID, "status": status})
	}
	body, err := json.Marshal(map[string]any{"statuses": statuses})
	if err != nil {
		return err
	}
	code, err := t.sim.SendWebhook(ctx, body)
	if err == nil && code != 200 {
		err = fmt.Errorf("ingest answered %d", code)
	}
	return err
}

func count(events []*event, family, second string) int {
	n := 0
	for _, e := range events {
		if e.family() == family && e.token(1) == second {
			n++
		}
	}
	return n
}

// afterwards looks at what must hold when all is over.
func (t *trial) afterwards(ctx context.Context, results []*result) (problems []string) {
	t.mu.Lock()
	events := slices.Clone(t.events)
	if t.failed != nil {
		problems = append(problems, t.failed.Error())
	}
	t.mu.Unlock()
	for _, r := range results {
		finals := 0
		for _, e := range events {
			if e.family() == "command" && e.fields.ID == r.id && e.state().Final() {
				finals++
			}
		}
		if finals > 1 {
			problems = append(problems, fmt.Sprintf("%s has %d final events", r.name, finals))
		}
	}
	if n := slices.IndexFunc(events, func(e *event) bool { return e.family() == "quarantine" }); n >= 0 {
		problems = append(problems, "a webhook was not understood: "+events[n].token(1))
	}
	if left, err := t.drained(ctx); err != nil {
		problems = append(problems, "the command stream could not be read: "+err.Error())
	} else if left > 0 {
		problems = append(problems, fmt.Sprintf("%d commands are left in the stream", left))
	}
	return problems
}

// drained waits until the last acknowledgement has emptied the command stream:
// it follows the final event, and nobody is told of it.
func (t *trial) drained(ctx context.Context) (uint64, error) {
	const pause = 20 * time.Millisecond
	stream, err := t.js.Stream(ctx, queue.Names{Account: t.account}.Commands())
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	left := uint64(0)
	for {
		info, err := stream.Info(ctx)
		switch {
		case ctx.Err() != nil:
			return left, nil
		case err != nil:
			return 0, err
		case info.State.Msgs == 0:
			return 0, nil
		}
		left = info.State.Msgs
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// moments is everything that is known of a sample, in the order of NATS's clock.
func (r *result) moments(p *printer) []moment {
	all := []moment{{r.stored, "published", fmt.Sprintf("number %d of %s", r.receipt.Seq, r.receipt.Stream)}}
	if r.inbound != nil {
		all[0].what, all[0].text = "customer", "writes "+quoted(r.inbound.Text)
	}
	if r.ledger != nil {
		all = append(all, stepMoments(r.ledger, p)...)
	}
	for _, e := range r.events {
		if r.inbound != nil {
			all = append(all, moment{e.Time, "event", p.eventLine(e)})
		} else {
			all = append(all, eventMoments([]*event{e}, p)...)
		}
	}
	slices.SortStableFunc(all, func(a, b moment) int { return a.at.Compare(b.at) })
	return all
}

func (t *trial) show(r *result) {
	mark := t.tint(good, "✔")
	if len(r.problems) > 0 {
		mark = t.tint(bad, "✘")
	}
	t.Printf("%s %s  %s\n", mark, t.tint(bold, r.name), r.what)
	t.timeline(r.moments(t.printer))
	for _, problem := range r.problems {
		t.Printf("  %s\n", t.tint(bad, problem))
	}
}

// showJSON prints all results as one value.
func (t *trial) showJSON(results []*result, end []string) error {
	type shown struct {
		Name     string           `json:"name"`
		ID       string           `json:"id"`
		OK       bool             `json:"ok"`
		Problems []string         `json:"problems,omitempty"`
		Timeline *sender.Timeline `json:"timeline,omitempty"`
		Events   []*event         `json:"events"`
	}
	all := make([]shown, 0, len(results))
	for _, r := range results {
		all = append(all, shown{r.name, r.id, len(r.problems) == 0, r.problems, r.ledger, r.events})
	}
	return t.JSON(map[string]any{"ok": verdict(results, end) == nil, "samples": all, "problems": end})
}
