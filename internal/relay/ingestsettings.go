package relay

import (
	"fmt"
	"time"

	"github.com/wazzup-relay/wazzup-relay/ingest"
	"github.com/wazzup-relay/wazzup-relay/internal/config"
)

// minWebhookPoll keeps the account's rate for its messages.
const minWebhookPoll = time.Second

// maxWebhookBody bounds WEBHOOK_MAX_BODY: bodies are held in memory.
const maxWebhookBody = 1 << 30

// IngestSettings is the configuration of the ingest.
type IngestSettings struct {
	NATS      NATSSettings
	Log       LogSettings
	AdminAddr string
	Addr      string
	MaxBody   int64

	// Accounts are complete once [Parse] has returned.
	Accounts []ingest.Account
	// Ignored are variables that the accounts file overrides.
	Ignored []string

	source
	table            *config.Set
	account          string
	accountsFile     string
	secret, previous config.Secret
	publicURL        string
	poll             time.Duration
	fromFile         []config.Account
}

// NewIngestSettings declares the ingest's settings.
func NewIngestSettings() *IngestSettings {
	i := &IngestSettings{table: config.New("ingest",
		"Takes what Wazzup posts to POST /webhooks/<account>/<secret> and stores every item as an event in NATS before it answers 200. "+
			"It holds no API key: its URL is registered through a worker. SIGTERM stops listening and lets requests under way finish.")}
	s := i.table
	s.Group("Webhooks")
	s.String(&i.Addr, "INGEST_ADDR", "127.0.0.1:8080", "Where webhooks are taken.")
	s.String(&i.account, "WAZZUP_ACCOUNT", DefaultAccount, "The account's name, which is part of the URL and of every subject: 1 to 32 of a-z, 0-9 and -.")
	s.Secret(&i.secret, "WEBHOOK_SECRET", "The last part of the webhook's URL; letters, digits and . _ ~ - only. Required without WAZZUP_ACCOUNTS_FILE.")
	s.Secret(&i.previous, "WEBHOOK_SECRET_PREVIOUS", "A former secret that is still taken while it is rotated.")
	s.String(&i.publicURL, "PUBLIC_URL", "", "Base URL under which Wazzup reaches this address: <PUBLIC_URL>/webhooks/<account>/<secret> is registered at start and kept so. Unset: nothing is registered.")
	s.Duration(&i.poll, "WEBHOOK_POLL", 5*time.Minute, "How often it is looked whether the registered address is still ours, and repaired; at most three repairs an hour. 0 = only at start.")
	s.Bytes(&i.MaxBody, "WEBHOOK_MAX_BODY", ingest.DefaultMaxBody, "Largest body that is taken; a larger one is answered 413.")
	s.String(&i.accountsFile, "WAZZUP_ACCOUNTS_FILE", "", "YAML file of many accounts, which replaces WAZZUP_ACCOUNT, WEBHOOK_SECRET and PUBLIC_URL.")
	s.Group("NATS")
	i.NATS.Declare(s)
	s.Group("Operation (OpenTelemetry's own variables, OTEL_*, are read too)")
	s.String(&i.AdminAddr, "ADMIN_ADDR", "127.0.0.1:8082", "Where /healthz, /readyz and /metrics are served.")
	i.Log.Declare(s)
	return i
}

// Table implements [Settings].
func (i *IngestSettings) Table() *config.Set { return i.table }

func (i *IngestSettings) check() []finding {
	r := &rules{table: i.table}
	r.address("INGEST_ADDR", i.Addr)
	r.address("ADMIN_ADDR", i.AdminAddr)
	r.require(i.poll == 0 || i.poll >= minWebhookPoll, "WEBHOOK_POLL", "must be 0 or at least 1s: each look is a request to Wazzup")
	r.require(i.MaxBody > 0 && i.MaxBody <= maxWebhookBody, "WEBHOOK_MAX_BODY", "must be more than 0 and at most 1GiB")
	i.checkAccounts(r)
	i.NATS.check(r)
	return r.found
}

func (i *IngestSettings) checkAccounts(r *rules) {
	if i.accountsFile != "" {
		i.fromFile = r.accountsFile(i.accountsFile, config.ReadWebhookSecrets)
		for n, a := range i.fromFile {
			if len(a.WebhookSecrets) == 0 {
				r.found = append(r.found, finding{nil, &config.Fault{
					Where: i.accountsFile, Text: fmt.Sprintf("accounts[%d].webhookSecretFiles: is missing", n),
				}})
			}
		}
		if i.secret != "" {
			i.Ignored = append(i.Ignored, "WEBHOOK_SECRET")
		}
		if i.publicURL != "" {
			i.Ignored = append(i.Ignored, "PUBLIC_URL")
		}
		return
	}
	r.account(i.account)
	if i.secret == "" {
		r.require(false, "WEBHOOK_SECRET", "is not set: give it in WEBHOOK_SECRET or the name of its file in WEBHOOK_SECRET_FILE (openssl rand -hex 24 makes a good one)")
	} else if err := config.CheckWebhookSecret(i.secret); err != nil {
		r.require(false, "WEBHOOK_SECRET", err.Error())
	}
	i.checkPublicURL(r)
	if i.previous != "" {
		if err := config.CheckWebhookSecret(i.previous); err != nil {
			r.require(false, "WEBHOOK_SECRET_PREVIOUS", err.Error())
		}
		r.require(i.previous != i.secret, "WEBHOOK_SECRET_PREVIOUS", "is the same as WEBHOOK_SECRET")
	}
}

// checkPublicURL checks the whole address where there is a secret, and the base
// alone where there is none.
func (i *IngestSettings) checkPublicURL(r *rules) {
	if i.publicURL == "" {
		return
	}
	secret := i.secret
	if config.CheckWebhookSecret(secret) != nil {
		secret = "-"
	}
	if _, err := config.WebhookURL(i.publicURL, i.account, secret); err != nil {
		r.require(false, "PUBLIC_URL", err.Error(), "WAZZUP_ACCOUNT")
	}
}

func (i *IngestSettings) prepare() {
	if i.accountsFile != "" {
		for _, a := range i.fromFile {
			i.Accounts = append(i.Accounts, ingestOf(a))
		}
		return
	}
	account := ingest.Account{Name: i.account, Secrets: []string{string(i.secret)}, PublicURL: i.publicURL}
	if i.previous != "" {
		account.Secrets = append(account.Secrets, string(i.previous))
	}
	i.Accounts = []ingest.Account{account}
}
