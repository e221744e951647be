package sender

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// watch follows what webhooks brought: the channels' states, from the last known
// on, and the fact that webhooks arrive at all.
func (o *owner) watch(ctx context.Context) error {
	prefix := "wazzup." + o.cfg.Account + ".evt."
	for _, filter := range []string{"message.>", "status.>", "channel.>"} {
		some, err := o.ledger.Any(ctx, prefix+filter)
		if err != nil {
			return fmt.Errorf("watch events: %w", err)
		}
		o.webhooks = o.webhooks || some
	}
	if !o.webhooks {
		o.log.Warn().Msg("no_webhook_has_ever_arrived")
	}
	stored, err := o.follow(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{prefix + "channel.>", prefix + "channels"},
		DeliverPolicy:  jetstream.DeliverLastPerSubjectPolicy,
	}, o.channelEvent)
	if err != nil {
		return fmt.Errorf("watch channel states: %w", err)
	}
	if err := o.followStatuses(ctx); err != nil {
		return err
	}
	if err := o.openProofs(ctx); err != nil || stored == 0 {
		return err
	}
	// No lane opens before the last word on its channel is known: it may have come
	// while nobody owned the account.
	select {
	case <-o.replayed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("read channel states: %w", ctx.Err())
	}
}

// followHeartbeat is how often the server says that it has nothing to tell: a
// consumer whose node died is noticed after two of them are missing.
const followHeartbeat = 2 * time.Second

// follow hands over the stored events that the configuration selects, and goes on
// through the loss of connections and nodes until the owner is closed. stored is how
// many there are now.
func (o *owner) follow(ctx context.Context, cfg jetstream.OrderedConsumerConfig, take jetstream.MessageHandler) (stored uint64, err error) {
	var events jetstream.Consumer
	err = queue.Ask(ctx, func(ctx context.Context) error {
		s, err := o.js.Stream(ctx, o.topology.Records())
		if err == nil {
			events, err = s.OrderedConsumer(ctx, cfg)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	stored = events.CachedInfo().NumPending
	following, err := events.Consume(take, jetstream.PullHeartbeat(followHeartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			o.log.Debug().Err(err).Strs("filters", cfg.FilterSubjects).Msg("watch_interrupted") // it goes on by itself
		}))
	if err != nil {
		return 0, err
	}
	o.onClose(func() {
		following.Stop()
		<-following.Closed()
	})
	return stored, nil
}

// channelEvent takes in a stored channel event. The stored time tells which of
// two states is the later one.
func (o *owner) channelEvent(m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil {
		return
	}
	var channels []wazzup.Channel
	if strings.HasSuffix(m.Subject(), ".channels") {
		if channels, err = wazzup.DecodeChannels(m.Data()); err != nil {
			return // ingest stored what the vendor sent; what is no list says nothing
		}
	} else {
		var one wazzup.Channel
		if json.Unmarshal(m.Data(), &one) != nil {
			return
		}
		channels = []wazzup.Channel{one}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopping {
		return
	}
	o.webhooks = true
	// At the start the last word on each subject comes, one for each state that a
	// channel ever had: only the last of all counts.
	for _, ch := range channels {
		if ch.ChannelID != "" {
			o.replay[ch.ChannelID] = channelWord{ch.State, meta.Timestamp}
		}
	}
	if meta.NumPending > 0 {
		return
	}
	for id, word := range o.replay {
		o.channelState(id, word.state, word.learned)
	}
	clear(o.replay)
	o.caughtUp()
}

// channelWord is a state of a channel, and when it was stored.
type channelWord struct {
	state   string
	learned time.Time
}

// breakerChanged stores which breakers are open, for the next owner, and tells
// operators of one. The breakers call it from within Allow and done, under the
// owner's mutex.
func (o *owner) breakerChanged(change BreakerChange) {
	e := schema.OpsEvent{Name: schema.OpsBreakerClosed, ChannelID: change.Channel, Reason: string(change.Family)}
	if change.Open {
		e.Name, e.OpensOn = schema.OpsBreakerOpened, probeAt(change.RetryAt)
	}
	if !change.Again { // it was told when it opened
		o.noteOps(&o.keeper, e)
	}
	o.keepGate(&o.keeper, nil)
}
