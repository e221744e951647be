package relay

import (
	"errors"
	"fmt"
	"os"

	"github.com/wazzup-relay/wazzup-relay/ingest"
	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

// accountsFile reads the file of many accounts; its faults name line and field, or
// the setting where there is no line.
func (r *rules) accountsFile(path string, reads config.Reads) []config.Account {
	const name = "WAZZUP_ACCOUNTS_FILE"
	accounts, err := config.LoadAccounts(path, reads)
	if all, ok := errors.AsType[*config.Error](err); ok && len(all.Faults) == 1 && all.Faults[0].Where == path {
		err = r.table.Fault(name, path+": "+all.Faults[0].Text)
	}
	if err != nil {
		r.found = append(r.found, finding{[]string{name}, err})
	}
	return accounts
}

// senderOf is an account of the file over what all accounts share.
func senderOf(base sender.Config, a config.Account) sender.Config {
	base.Account, base.APIKey = a.Name, string(a.APIKey)
	base.Rate = rateOr(a.Rate, base.Rate)
	base.CounterUsers = a.CounterUsers
	base.Channels = make(map[string]sender.ChannelConfig, len(a.Channels))
	for id, rates := range a.Channels {
		base.Channels[id] = sender.ChannelConfig{SendRate: rates.Send, BulkRate: rates.Bulk}
	}
	return base
}

// ingestOf is the same account as the ingest sees it.
func ingestOf(a config.Account) ingest.Account {
	out := ingest.Account{Name: a.Name, PublicURL: a.PublicURL}
	for _, secret := range a.WebhookSecrets {
		out.Secrets = append(out.Secrets, string(secret))
	}
	return out
}

// processName tells workers apart in ledgers and logs.
func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}
