//go:build system

package systemtest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// office is a rig with many accounts, served by workers that share them.
type office struct {
	*rig
	accounts []string
	file     string // of the accounts
	vars     []string
	leases   *queue.Leases

	stop      context.CancelFunc
	publisher sync.WaitGroup
	published int
}

func newOffice(t *testing.T, size int) *office {
	t.Helper()
	o := &office{rig: newRig(t, simulator.Config{Channels: whatsapps(1)})}
	if err := o.sim.AddRule(simulator.Rule{Delay: simulator.Duration(30 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i := range size {
		account := fmt.Sprint("account-", i)
		o.accounts = append(o.accounts, account)
		if err := os.WriteFile(filepath.Join(dir, account+".key"), []byte("key-"+account), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o.file = filepath.Join(dir, "accounts.yaml")
	o.write(o.accounts...)
	o.vars = o.env("WAZZUP_API_KEY=", "WAZZUP_ACCOUNTS_FILE="+o.file, "WAZZUP_ACCOUNT_RATE=500/5s", "WAZZUP_RECORD_BYTES=64MiB")
	var err error
	if o.leases, err = queue.OpenLeases(t.Context(), o.js, "observer", 1); err != nil {
		t.Fatal(err)
	}
	return o
}

// write makes an accounts file of these.
func (o *office) write(accounts ...string) {
	o.t.Helper()
	var file strings.Builder
	file.WriteString("accounts:\n")
	for _, account := range accounts {
		fmt.Fprintf(&file, "  - {name: %s, apiKeyFile: %s.key}\n", account, account)
	}
	if err := os.WriteFile(o.file, []byte(file.String()), 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// traffic publishes to all accounts in turn until end is called.
func (o *office) traffic() {
	o.t.Helper()
	publishers := make([]*queue.Publisher, len(o.accounts))
	for i, account := range o.accounts {
		o.collectOf(account)
		var err error
		if publishers[i], err = queue.NewPublisher(o.nc, account); err != nil {
			o.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(o.t.Context())
	o.stop = cancel
	channel := whatsapps(1)[0].ChannelID
	o.publisher.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			n := o.published
			i := n % len(publishers)
			body := fmt.Sprintf(`{"chatType":"whatsapp","chatId":"7900000000%d","text":"%s %06d"}`, n/len(publishers)%5, o.accounts[i], n)
			if _, err := publishers[i].Send(context.WithoutCancel(ctx), schema.KindSend, channel, []byte(body)); err != nil {
				o.t.Error(err)
				return
			}
			o.published++
		}
	})
	o.t.Cleanup(func() { o.end() })
}

// end stops the traffic and tells how many commands there were.
func (o *office) end() int {
	o.stop()
	o.publisher.Wait()
	return o.published
}

// owned reads which accounts each of the workers owns.
func (o *office) owned(workers []*program) [][]string {
	o.t.Helper()
	holders, err := o.leases.Holders(o.t.Context(), o.accounts)
	if err != nil {
		o.t.Fatal(err)
	}
	owned := make([][]string, len(workers))
	for account, id := range holders {
		for i, w := range workers {
			if strings.Contains(id, fmt.Sprintf("-%d-", w.cmd.Process.Pid)) {
				owned[i] = append(owned[i], account)
			}
		}
	}
	return owned
}

// spread waits until these workers own all accounts and none more than its share.
func (o *office) spread(workers ...*program) [][]string {
	o.t.Helper()
	limit := (len(o.accounts) + len(workers) - 1) / len(workers)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for {
		owned := o.owned(workers)
		all := len(slices.Concat(owned...))
		if all == len(o.accounts) && !slices.ContainsFunc(owned, func(a []string) bool { return len(a) > limit }) {
			return owned
		}
		select {
		case <-tick.C:
		case <-timeout:
			o.t.Fatalf("accounts are not shared: %v", owned)
		}
	}
}

// resumed waits until the vendor hears from each of the accounts after a moment,
// and tells when it did from the last.
func (o *office) resumed(accounts []string, after time.Time) time.Duration {
	o.t.Helper()
	first := make(map[string]time.Time)
	err := o.sim.Wait(o.t.Context(), func(*simulator.View) bool {
		for _, s := range o.sim.Sends() {
			account, _, _ := strings.Cut(s.Text, " ")
			if _, known := first[account]; !known && s.Time.After(after) && slices.Contains(accounts, account) {
				first[account] = s.Time
			}
		}
		return len(first) == len(accounts)
	})
	if err != nil {
		o.t.Fatal(err)
	}
	var last time.Duration
	for _, at := range first {
		last = max(last, at.Sub(after))
	}
	return last
}

// Accounts are spread over three workers. What a killed one owned is sent again
// within 10 s, what one owned that was told to stop within 2 s, and no command is
// called twice or ends twice.
func TestAccountsOfAWorkerThatGoes(t *testing.T) {
	o := newOffice(t, 7)
	workers := make([]*program, 3)
	for i := range workers {
		workers[i] = runWorker(t, o.vars...)
	}
	workers[0].ready() // the streams are there
	o.traffic()
	owned := o.spread(workers...)
	o.resumed(o.accounts, time.Now())

	workers[0].kill()
	took := o.resumed(owned[0], time.Now().Add(100*time.Millisecond)) // calls of the dead one may still be on their way
	t.Logf("what the killed worker owned, %v, was sent again after %v", owned[0], took)
	if took > 10*time.Second {
		t.Errorf("take-over took %v, want at most 10s", took)
	}
	owned = o.spread(workers[1:]...)

	stopping := time.Now()
	if code := workers[1].stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d, want 0", code)
	}
	took = time.Since(stopping) + o.resumed(owned[0], time.Now())
	t.Logf("what the stopped worker owned, %v, was sent again after %v", owned[0], took)
	if took > 2*time.Second {
		t.Errorf("hand-over took %v, want at most 2s", took)
	}
	o.spread(workers[2])

	workers[0] = runWorker(t, o.vars...)
	o.spread(workers[0], workers[2])
	o.checkOnce(o.end())
}

// checkOnce waits for the end of n commands and holds them to what the vendor got.
func (o *office) checkOnce(n int) {
	o.t.Helper()
	ended := make(map[string]schema.State)
	dead := 0
	for _, e := range o.waitFinals(n, time.Minute) {
		key := fmt.Sprint(e.Account, " ", e.Seq)
		if before, twice := ended[key]; twice {
			o.t.Errorf("command %s ended twice: %s and %s", key, before, e.State)
		}
		ended[key] = e.State
		switch {
		case e.State == schema.StateSent:
		case e.State == schema.StateDead && e.Error.Reason == schema.ReasonNoWebhooks: // under way when its worker was killed
			dead++
		default:
			o.t.Errorf("command %s ended %s %+v", key, e.State, e.Error)
		}
	}
	o.t.Logf("%d of %d in doubt", dead, n)
	seen := make(map[string]bool)
	for _, s := range o.sim.Sends() {
		if seen[s.Text] {
			o.t.Errorf("message %q was requested more than once", s.Text)
		}
		seen[s.Text] = true
	}
	if len(seen) < n-dead {
		o.t.Errorf("the vendor got %d messages of %d commands, %d of them in doubt", len(seen), n, dead)
	}
}
