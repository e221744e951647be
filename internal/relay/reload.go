package relay

import (
	"errors"
	"io"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/ingest"
	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// reloadBudget is how long a reload under way may take to end: it reads a few
// files, and waits for nothing.
const reloadBudget = 5 * time.Second

// ReloadOnHangup has the program reload its accounts at SIGHUP. It is called
// before Run.
func (w *Worker) ReloadOnHangup() { w.reloadOnHangup(func() { _ = w.Reload() }) }

// ReloadOnHangup has the program reload its accounts at SIGHUP. It is called
// before Run.
func (i *Ingest) ReloadOnHangup() { i.reloadOnHangup(func() { _ = i.Reload() }) }

// reloadOnHangup adds the task; what a reload meets is in the log.
func (p *Program) reloadOnHangup(reload func()) {
	task := daemon.NewReload(reload)
	p.opened(task.Close)
	p.add(task, reloadBudget)
}

// Reload reads the settings again, of which the accounts can have changed: the
// environment and the flags of a process stay, the files that they name do not. A
// configuration with faults is refused with all of them, and the present one
// stays. What became of it is logged. It is not for several goroutines at once.
func (w *Worker) Reload() error {
	next := NewWorkerSettings()
	err := reread(next, w.settings.source)
	var changes sender.Changes
	if err == nil {
		changes, err = w.work.Reload(next.Accounts)
	}
	logReload(w.log, w.settings.accountsFile != "", len(next.Accounts), changes, err)
	return err
}

// Reload is as that of [Worker].
func (i *Ingest) Reload() error {
	next := NewIngestSettings()
	err := reread(next, i.settings.source)
	if err == nil {
		err = i.server.SetAccounts(next.Accounts)
	}
	if err != nil {
		logReload(i.log, i.settings.accountsFile != "", 0, sender.Changes{}, err)
		return err
	}
	i.streams.watch(next.Accounts)
	changes := ingestChanges(i.accounts, next.Accounts)
	i.accounts = next.Accounts
	logReload(i.log, i.settings.accountsFile != "", len(next.Accounts), changes, nil)
	return nil
}

// reread parses what a program was started with once more.
func reread(s Settings, from source) error { return Parse(s, from.args, from.getenv, io.Discard) }

// logReload says what became of a reload: names of accounts, and of the faults
// everything that a start would say.
func logReload(log zerolog.Logger, file bool, accounts int, changes sender.Changes, err error) {
	read := "the files of secrets; everything else needs a restart"
	if file {
		read = "the accounts file and the files that it names; everything else needs a restart"
	}
	if err != nil {
		log.Error().Strs("faults", faultTexts(err)).Str("read", read).Msg("configuration_not_reloaded")
		return
	}
	log.Info().Int("accounts", accounts).Strs("added", changes.Added).Strs("removed", changes.Removed).
		Strs("changed", changes.Changed).Str("read", read).Msg("configuration_reloaded")
}

// faultTexts is one text a fault, without the heading of their list.
func faultTexts(err error) []string {
	all, ok := errors.AsType[*config.Error](err)
	if !ok {
		return daemon.Faults(err)
	}
	texts := make([]string, len(all.Faults))
	for i := range all.Faults {
		texts[i] = all.Faults[i].Error()
	}
	return texts
}

// ingestChanges compares two sets of accounts.
func ingestChanges(before, after []ingest.Account) (changes sender.Changes) {
	byName := func(accounts []ingest.Account, name string) *ingest.Account {
		i := slices.IndexFunc(accounts, func(a ingest.Account) bool { return a.Name == name })
		if i < 0 {
			return nil
		}
		return &accounts[i]
	}
	for _, a := range after {
		switch was := byName(before, a.Name); {
		case was == nil:
			changes.Added = append(changes.Added, a.Name)
		case was.PublicURL != a.PublicURL || !slices.Equal(was.Secrets, a.Secrets):
			changes.Changed = append(changes.Changed, a.Name)
		}
	}
	for _, a := range before {
		if byName(after, a.Name) == nil {
			changes.Removed = append(changes.Removed, a.Name)
		}
	}
	return changes
}
