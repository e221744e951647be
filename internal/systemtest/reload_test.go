//go:build system

package systemtest_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/queue"
)

// hangUp has the worker reload, and waits until its log tells of it for the n-th
// time.
func (p *program) hangUp(message string, n int) {
	p.t.Helper()
	p.signal(syscall.SIGHUP)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(20 * time.Second)
	for strings.Count(p.log.String(), `"`+message+`"`) < n {
		select {
		case <-tick.C:
		case <-p.done:
			p.t.Fatal("SIGHUP ended the worker")
		case <-timeout:
			p.t.Fatalf("the log never said %s", message)
		}
	}
}

// SIGHUP under load: a new account is served, a removed one is not, a file with
// faults changes nothing, and of all that was published everything is sent once,
// nothing is in doubt.
func TestReloadUnderLoad(t *testing.T) {
	o := newOffice(t, 3)
	kept, removed, added := o.accounts[0], o.accounts[1], o.accounts[2]
	if _, err := queue.Ensure(t.Context(), o.js, added, o.limits); err != nil { // producers are early
		t.Fatal(err)
	}
	o.write(kept, removed)
	w := runWorker(t, o.vars...)
	w.ready()
	o.traffic()
	o.resumed([]string{kept, removed}, time.Now())

	o.write(kept, added)
	w.hangUp("configuration_reloaded", 1)
	reloaded := time.Now()
	t.Logf("the new account was served %v after the reload", o.resumed([]string{added}, reloaded))
	for {
		holders, err := o.leases.Holders(t.Context(), []string{removed})
		if err != nil {
			t.Fatal(err)
		}
		if holders[removed] == "" {
			break
		}
		if time.Since(reloaded) > 10*time.Second {
			t.Fatal("the removed account is not given up")
		}
	}
	free := time.Now()

	if err := os.WriteFile(o.file, []byte("accounts: [{name: No, apiKeyFile: none.key}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.hangUp("configuration_not_reloaded", 1)
	for _, fault := range []string{"accounts[0].name", "accounts[0].apiKeyFile"} {
		if !strings.Contains(w.log.String(), fault) {
			t.Errorf("the log does not name the fault of %s", fault)
		}
	}
	o.resumed([]string{kept, added}, time.Now())
	for _, s := range o.sim.Sends() {
		if strings.HasPrefix(s.Text, removed+" ") && s.Time.After(free) {
			t.Errorf("%q was requested %v after its account was given up", s.Text, s.Time.Sub(free))
		}
	}

	o.write(o.accounts...)
	w.hangUp("configuration_reloaded", 2)
	o.resumed([]string{removed}, time.Now())
	o.checkOnce(o.end())
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.unsure) > 0 {
		t.Errorf("%d commands were in doubt", len(o.unsure))
	}
	if code := w.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d, want 0", code)
	}
}
