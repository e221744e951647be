package sender

import (
	"context"
	"fmt"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// How much waits, for the metrics: by class, since an account may have thousands of
// lanes. The numbers are those that discovery reads anyway, once a second, and the
// count of parked commands, every 5 seconds. Since when the oldest waits costs a look
// at the first message of the class in each of the three places where commands lie, if
// there are any there: nothing while nothing waits, eight small requests in 5 seconds
// at most, however many lanes and commands there are.

// backlogFresh is how old a count may be to be shown: an old one would hide what
// happens while NATS does not answer.
const backlogFresh = time.Minute

// Places where the commands of a class wait.
const (
	inCommands = iota // as they were published
	inDue             // they came due, or were redriven
	inParked          // behind others of their chats
	places
)

// waiting is the commands of one class that have not ended, those under way included.
type waiting struct {
	counts [places]uint64
	age    time.Duration // of the oldest, when it was last looked at
}

func (w *waiting) total() (n uint64) {
	for _, count := range w.counts {
		n += count
	}
	return n
}

// backlog is what waits, by class. Owned by the owner's mutex.
type backlog struct {
	classes map[string]*waiting
	read    time.Time // when the counts of commands and of those due were read; zero: they were not
}

func newBacklog() backlog {
	return backlog{classes: map[string]*waiting{classSend: {}, classBulk: {}, classSync: {}}}
}

// fresh reports whether the counts may be shown.
func (b *backlog) fresh(now time.Time) bool {
	return !b.read.IsZero() && now.Sub(b.read) < backlogFresh
}

// noteBacklog takes over what a round of discovery has counted.
func (o *owner) noteBacklog(counts [places]map[string]uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.backlog.read = time.Now()
	for class, w := range o.backlog.classes {
		w.counts[inCommands], w.counts[inDue] = counts[inCommands][class], counts[inDue][class]
	}
}

// readOldest finds out how long the oldest command of each class waits.
func (o *owner) readOldest(ctx context.Context) error {
	o.mu.Lock()
	counts := make(map[string][places]uint64, len(o.backlog.classes))
	for class, w := range o.backlog.classes {
		counts[class] = w.counts
	}
	oldest := make(map[string]time.Time, len(counts))
	// A chat's head that was parked is in hand; the first on disk may be behind it.
	for _, c := range o.commands {
		keepOldest(oldest, c.lane.key.class, time.Unix(0, c.place.at))
	}
	o.mu.Unlock()
	for class, n := range counts {
		for place := range places {
			if n[place] == 0 {
				continue
			}
			since, err := o.firstIn(ctx, class, place)
			if err != nil {
				return fmt.Errorf("age of the backlog: %w", err)
			}
			keepOldest(oldest, class, since)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for class, w := range o.backlog.classes {
		w.age = 0
		if since := oldest[class]; !since.IsZero() {
			w.age = max(now.Sub(since), 0) // NATS's clock may be ahead
		}
	}
	return nil
}

func keepOldest(oldest map[string]time.Time, class string, since time.Time) {
	if before := oldest[class]; !since.IsZero() && (before.IsZero() || since.Before(before)) {
		oldest[class] = since
	}
}

// firstIn tells since when the first command of a class waits in a place: since it was
// published or came due there, or, of a parked one, in its lane. The zero time: there
// is none.
func (o *owner) firstIn(ctx context.Context, class string, place int) (time.Time, error) {
	stream, filter := o.topology.Deferred(), ""
	switch place {
	case inCommands:
		stream, filter = o.topology.Commands(), schema.SendSubject(o.cfg.Account, schema.Kind(class), "*")
		if class == classSync {
			filter = schema.SyncSubject(o.cfg.Account, "*", "*")
		}
	case inDue:
		filter = o.topology.DueClassFilter(schema.Kind(class))
	case inParked:
		filter = o.topology.ParkClassFilter(schema.Kind(class))
	}
	var first *queue.Delivery
	err := queue.Ask(ctx, func(ctx context.Context) (err error) {
		first, err = o.ledger.First(ctx, stream, filter)
		return err
	})
	switch {
	case err != nil || first == nil:
		return time.Time{}, err
	case place == inParked:
		return time.Unix(0, parsePlace(header(first, headerPlace)).at), nil
	}
	return first.Stored, nil
}
