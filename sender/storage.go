package sender

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	// storageEvery is how often the sizes of the streams are read.
	storageEvery = 5 * time.Second
	// A stream is told to be high at the first of these, and may be told again
	// once it fell below the second.
	storageHigh = 0.80
	storageWell = 0.75
)

// storageRoles name an account's streams by what they hold. They are the reasons
// of `storage.high` and the metric's labels.
func storageRoles() [4]string { return [4]string{"commands", "records", "deferred", "dead"} }

// fill is how full one stream is. Owned by the owner's mutex.
type fill struct {
	Stream string `json:"stream"`
	Bytes  uint64 `json:"bytes"`
	Limit  int64  `json:"limit"`

	high bool
}

// ratio is 1 for a full stream.
func (f *fill) ratio() float64 {
	if f.Limit <= 0 {
		return 0
	}
	return float64(f.Bytes) / float64(f.Limit)
}

// read takes in a size and reports whether it is to be told.
func (f *fill) read(stream string, bytes uint64, limit int64) (tell bool) {
	f.Stream, f.Bytes, f.Limit = stream, bytes, limit
	switch ratio := f.ratio(); {
	case ratio >= storageHigh && !f.high:
		f.high = true
		return true
	case ratio < storageWell:
		f.high = false
	}
	return false
}

// watchStorage reads the size of each stream, and tells of one that fills up
// while there is still room: producers, or ingest, will be refused soon. That it was
// told is stored, so that the next owner does not tell it again.
func (o *owner) watchStorage(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, discoverTimeout)
	defer cancel()
	t := o.topology
	streams := [4]struct {
		name  string
		limit int64
	}{
		{t.Commands(), t.Limits.CommandBytes},
		{t.Records(), t.Limits.RecordBytes},
		{t.Deferred(), t.Limits.DeferredBytes}, // which the owner keeps, see checkDeferred
		{t.Dead(), t.Limits.DeadBytes},
	}
	var faults []error
	for i, s := range streams {
		bytes, err := o.streamSize(ctx, s.name)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		o.noteFill(i, s.name, bytes, s.limit)
	}
	return errors.Join(append(faults, o.countParked(ctx), o.readOldest(ctx))...)
}

// countParked counts the parked commands for their metrics. While nothing is parked
// it asks nobody.
func (o *owner) countParked(ctx context.Context) error {
	o.mu.Lock()
	some := false
	for _, l := range o.lanes {
		some = some || len(l.parks) > 0
	}
	o.mu.Unlock()
	counts := make(map[string]uint64)
	if some {
		parked, err := o.intake.Waiting(ctx, o.topology.Deferred(), o.topology.ParkFilter())
		if err != nil {
			return err
		}
		for subject, n := range parked {
			if kind, _, ok := o.topology.ParkedLane(subject); ok {
				counts[classOf(kind)] += n
			}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for class, w := range o.backlog.classes {
		w.counts[inParked] = counts[class]
	}
	return nil
}

func (o *owner) noteFill(i int, stream string, bytes uint64, limit int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := &o.fills[i]
	if o.stopping {
		return
	}
	was := f.high
	if !f.read(stream, bytes, limit) {
		if was != f.high {
			o.keepGate(&o.keeper, nil)
		}
		return
	}
	detail, err := json.Marshal(f)
	if err != nil {
		o.log.Error().Err(err).Msg("ops_event_not_encoded")
		return
	}
	o.noteOps(&o.keeper, schema.OpsEvent{Name: schema.OpsStorageHigh, Reason: storageRoles()[i], Detail: detail})
	o.keepGate(&o.keeper, nil)
}

// streamSize asks for a stream's bytes: its state without its subjects, which the
// server has at hand.
func (o *owner) streamSize(ctx context.Context, stream string) (bytes uint64, err error) {
	err = queue.Ask(ctx, func(ctx context.Context) error {
		s, err := o.js.Stream(ctx, stream)
		if err == nil {
			bytes = s.CachedInfo().State.Bytes
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", stream, err)
	}
	return bytes, nil
}
