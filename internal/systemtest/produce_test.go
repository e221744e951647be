//go:build system

package systemtest_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// producers publish commands as a careful program does: one after the other for
// each chat, and again under the same id until NATS has acknowledged it.
type producers struct {
	r    *rig
	pub  *queue.Publisher
	stop context.CancelFunc
	ctx  context.Context //nolint:containedctx // ends the publishing
	wg   sync.WaitGroup

	mu    sync.Mutex
	texts map[string]string // by id
	again int               // publishes that were not acknowledged
}

// produce publishes to chats until it is ended, a command each pause to each.
func (r *rig) produce(channels []simulator.Channel, chats int, pause time.Duration) *producers {
	r.t.Helper()
	pub, err := queue.NewPublisher(r.nc, "main")
	if err != nil {
		r.t.Fatal(err)
	}
	p := &producers{r: r, pub: pub, texts: make(map[string]string)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	r.t.Cleanup(p.end)
	for chat := range chats {
		p.wg.Go(func() { p.chat(channels[chat%len(channels)].ChannelID, chat, pause) })
	}
	return p
}

func (p *producers) chat(channel string, chat int, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for n := 0; ; n++ {
		id := fmt.Sprintf("chat-%d-%d", chat, n)
		text := strconv.Itoa(n*1000 + chat)
		body := fmt.Sprintf(`{"id":%q,"chatType":"whatsapp","chatId":"7900%07d","text":%q}`, id, chat, text)
		p.mu.Lock()
		p.texts[id] = text
		p.mu.Unlock()
		for {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			_, err := p.pub.Send(ctx, schema.KindSend, channel, []byte(body))
			cancel()
			if err == nil {
				break
			}
			p.mu.Lock()
			p.again++
			p.mu.Unlock()
			<-tick.C
		}
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// end stops the publishing when everything that was begun is acknowledged.
func (p *producers) end() {
	p.stop()
	p.wg.Wait()
}

// checkPublished holds the promises to what was published, stored and requested.
// What came after a lost acknowledgement is stored twice, and ends as a duplicate.
func (r *rig) checkPublished(p *producers, excused func(*simulator.Send) bool) {
	r.t.Helper()
	r.waitEmpty()
	stored, _ := r.stored()
	dead := 0
	ends := make(map[string]schema.State) // by id, duplicates aside
	seqs := make(map[uint64]bool)
	for _, e := range r.waitFinals(int(stored), time.Minute) {
		if seqs[e.Seq] {
			r.t.Errorf("command %d ended twice", e.Seq)
		}
		seqs[e.Seq] = true
		switch e.State {
		case schema.StateDuplicate:
			continue
		case schema.StateSent:
		case schema.StateDead:
			dead++
		default:
			r.t.Errorf("%s ended %s %+v", e.ID, e.State, e.Error)
		}
		if before, twice := ends[e.ID]; twice {
			r.t.Errorf("%s ended %s and %s", e.ID, before, e.State)
		}
		ends[e.ID] = e.State
	}
	if len(seqs) != int(stored) {
		r.t.Errorf("%d of %d stored commands ended", len(seqs), stored)
	}
	if len(ends) != len(p.texts) {
		r.t.Errorf("%d of %d ids ended", len(ends), len(p.texts))
	}
	r.checkRequests(excused)
	r.t.Logf("%d ids in %d stored commands, %d publishes again, %d in doubt", len(p.texts), stored, p.again, dead)
}
