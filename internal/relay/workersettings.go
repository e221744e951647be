package relay

import (
	"encoding/json"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
	"github.com/wazzup-relay/wazzup-relay/sender"
)

const (
	// DefaultAPIURL is the vendor's address (manual: Available API methods).
	DefaultAPIURL = "https://api.wazzup24.com"
	// DefaultCounterURL is the vendor's socket (manual: Unanswered messages counter).
	DefaultCounterURL = "https://api-ws.wazzup24.com"
	// DefaultAccount is the account's name where nobody says otherwise.
	DefaultAccount = "main"

	// minRetention keeps the ledger's memory well above the hour by which a
	// command must be younger to be called.
	minRetention = 2 * time.Hour
	minSilence   = time.Second
	maxReplicas  = 5
	// maxSyncGather keeps a request from waiting for company that never comes.
	maxSyncGather = time.Minute
)

// WorkerSettings is the configuration of the worker.
type WorkerSettings struct {
	NATS      NATSSettings
	Log       LogSettings
	AdminAddr string

	// Embedded is the folder of the NATS server inside the process, "" = none.
	Embedded                  string
	SyncAlways                bool
	EmbeddedCert, EmbeddedKey string

	// Accounts are complete once [Parse] has returned.
	Accounts []sender.Config
	// Insecure are the settings of vendor addresses without TLS that are not this
	// machine: a key goes there.
	Insecure []string
	// Ignored are variables that the accounts file overrides.
	Ignored []string

	source
	table        *config.Set
	account      string
	apiKey       config.Secret
	apiURL       string
	allowHTTP    bool
	accountsFile string
	counterURL   string
	counterUsers string
	evidence     string
	silence      time.Duration
	common       sender.Config     // what all accounts share
	users        []json.RawMessage // of counterUsers
	fromFile     []config.Account
}

// NewWorkerSettings declares the worker's settings.
func NewWorkerSettings() *WorkerSettings {
	w := &WorkerSettings{table: config.New("worker",
		"Carries out the commands that producers publish to NATS: one call to Wazzup each, with rates, order, "+
			"retries and exactly one final event. Any number of workers may run: each account is owned by one at a time, the "+
			"others stand by. SIGTERM stops claiming, lets calls in flight end and hands over.")}
	w.declareAccounts()
	w.declareSending()
	w.declareStorage()
	w.declareOperation()
	return w
}

func (w *WorkerSettings) declareAccounts() {
	s := w.table
	s.Group("Account")
	s.String(&w.account, "WAZZUP_ACCOUNT", DefaultAccount, "The account's name, which is part of every subject: 1 to 32 of a-z, 0-9 and -.")
	s.Secret(&w.apiKey, "WAZZUP_API_KEY", "The account's API key. Required without WAZZUP_ACCOUNTS_FILE.")
	s.String(&w.apiURL, "WAZZUP_API_URL", DefaultAPIURL, "Wazzup's address; /v2 is appended.")
	s.Bool(&w.allowHTTP, "WAZZUP_API_INSECURE", false, "Allow an http:// address that is not this machine: the API key then travels in plain text.")
	s.String(&w.accountsFile, "WAZZUP_ACCOUNTS_FILE", "", "YAML file of many accounts, which replaces WAZZUP_ACCOUNT and WAZZUP_API_KEY.")
	s.String(&w.counterUsers, "WAZZUP_COUNTER_USERS", "", "Users whose unanswered counter is followed: their ids, separated by commas; \"17\" in quotes is a text, 17 a number. Unset: nobody's.")
	s.String(&w.counterURL, "WAZZUP_WS_URL", DefaultCounterURL, "Wazzup's socket of unanswered counters.")
}

func (w *WorkerSettings) declareSending() {
	s := w.table
	s.Group("Sending")
	s.Text(&w.common.Rate, "WAZZUP_ACCOUNT_RATE", "500/5s", "Requests in any interval of that length, for each account, over all workers. 0 = no limit.")
	s.Text(&w.common.SendRate, "WAZZUP_SEND_RATE", "0", "Pace of each channel's transactional messages, spread evenly with jitter. 0 = no limit.")
	s.Text(&w.common.BulkRate, "WAZZUP_BULK_RATE", "20/1m", "Pace of each channel's bulk messages. 0 = no limit.")
	s.Int(&w.common.Concurrency, "WAZZUP_CONCURRENCY", sender.DefaultConcurrency, "Calls in flight for each account.")
	s.Int(&w.common.MaxAttempts, "WAZZUP_MAX_ATTEMPTS", sender.DefaultMaxAttempts, "Calls that count, before a command is dead.")
	s.Duration(&w.common.Timeout, "WAZZUP_TIMEOUT", sender.DefaultTimeout, "Longest time of one call, and of the wait for calls in flight when the worker stops.")
	s.Text(&w.common.Backoff, "WAZZUP_BACKOFF", sender.DefaultBackoff().String(), "Shortest and longest wait before a call is repeated; grows in between, with full jitter.")
	s.Choice(&w.evidence, "WAZZUP_EVIDENCE", string(sender.EvidenceEcho), "What may prove a call whose answer was lost: its echo on the messages webhook, or nothing.",
		string(sender.EvidenceEcho), string(sender.EvidenceNone))
	s.Duration(&w.common.ReconcileWait, "WAZZUP_RECONCILE_WAIT", sender.DefaultReconcileWait, "How long a command of unknown fate waits before its onUnknown decides.")
	s.Duration(&w.common.ChannelsPoll, "WAZZUP_CHANNELS_POLL", sender.DefaultChannelsPoll, "How often the channel list is read.")
	s.Duration(&w.common.StatusWait, "WAZZUP_STATUS_WAIT", sender.DefaultStatusWait, "How long a delivery status is kept whose message is not known yet, because it overtook the answer of its call.")
	s.Duration(&w.common.SyncGather, "WAZZUP_SYNC_GATHER", sender.DefaultSyncGather, "How long an upsert of users, contacts or deals waits for others that may share its request. 0 = not at all.")
	s.Duration(&w.silence, "WEBHOOK_SILENCE", sender.DefaultSilence, "How long accepted messages may be without any status webhook until operators are told. 0 = never.")
	s.Duration(&w.common.FloodPause, "WAZZUP_FLOOD_PAUSE", sender.DefaultFloodPause, "How long a channel's bulk class pauses after status 19 (too many sent).")
	s.Int(&w.common.SpamLimit, "WAZZUP_SPAM_LIMIT", sender.DefaultSpamLimit, "So many messages rated as spam within WAZZUP_SPAM_WINDOW stop a channel's bulk class until somebody resumes it.")
	s.Duration(&w.common.SpamWindow, "WAZZUP_SPAM_WINDOW", sender.DefaultSpamWindow, "The time over which messages rated as spam are counted.")
}

func (w *WorkerSettings) declareStorage() {
	s := w.table
	l := &w.common.Limits
	s.Group("NATS")
	w.NATS.Declare(s)
	s.String(&w.Embedded, "EMBEDDED_NATS", "", "Folder: run a NATS server with JetStream inside this process, storing there and listening on NATS_URL's address. "+
		"NATS_USER and NATS_PASSWORD are then what its clients must present; an address other than loopback needs them.")
	s.Bool(&w.SyncAlways, "EMBEDDED_SYNC_ALWAYS", false, "Have the embedded server make every write durable against power loss before it is acknowledged, for about a tenth of the throughput. "+
		"Off: a power loss may cost the last second; a killed process costs nothing.")
	s.String(&w.EmbeddedCert, "EMBEDDED_CERT", "", "PEM certificate with which the embedded server speaks TLS; needs EMBEDDED_KEY.")
	s.String(&w.EmbeddedKey, "EMBEDDED_KEY", "", "PEM file of that certificate's key.")

	s.Group("Storage (for each account)")
	s.Duration(&l.Retention, "WAZZUP_RETENTION", queue.DefaultRetention, "How long ids, timelines and events are remembered; 2h or more.")
	s.Duration(&l.DeadRetention, "WAZZUP_DEAD_RETENTION", queue.DefaultDeadRetention, "How long dead letters are kept.")
	s.Duration(&l.DedupeWindow, "WAZZUP_DEDUPE_WINDOW", queue.DefaultDedupeWindow, "How long a repeated event is removed; at most WAZZUP_RETENTION.")
	s.Int(&l.Replicas, "WAZZUP_REPLICAS", 1, "Copies of every stream in a NATS cluster: 1 to 5.")
	s.Bytes(&l.CommandBytes, "WAZZUP_COMMAND_BYTES", queue.DefaultCommandBytes, "Room for commands. When it is used up, producers get an error.")
	s.Bytes(&l.RecordBytes, "WAZZUP_RECORD_BYTES", queue.DefaultRecordBytes, "Room for the ledger and events; about five times that of the commands' own bytes is used.")
	s.Bytes(&l.DeferredBytes, "WAZZUP_DEFERRED_BYTES", queue.DefaultDeferredBytes, "Room for commands that are scheduled, redriven, or parked because their chat waits.")
	s.Bytes(&l.DeadBytes, "WAZZUP_DEAD_BYTES", queue.DefaultDeadBytes, "Room for dead letters.")
}

func (w *WorkerSettings) declareOperation() {
	s := w.table
	s.Group("Operation (OpenTelemetry's own variables, OTEL_*, are read too)")
	s.String(&w.AdminAddr, "ADMIN_ADDR", "127.0.0.1:8081", "Where /healthz, /readyz and /metrics are served.")
	w.Log.Declare(s)
}

// Table implements [Settings].
func (w *WorkerSettings) Table() *config.Set { return w.table }

func (w *WorkerSettings) check() []finding {
	r := &rules{table: w.table}
	w.checkVendor(r)
	w.checkAccounts(r)
	w.checkSending(r)
	w.checkStorage(r)
	w.checkEmbedded(r)
	r.address("ADMIN_ADDR", w.AdminAddr)
	return r.found
}

func (w *WorkerSettings) checkVendor(r *rules) {
	w.checkVendorURL(r, "WAZZUP_API_URL", w.apiURL, DefaultAPIURL)
	w.checkVendorURL(r, "WAZZUP_WS_URL", w.counterURL, DefaultCounterURL)
}

// checkVendorURL never quotes the address: it could hold a password.
func (w *WorkerSettings) checkVendorURL(r *rules, name, address, example string) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		r.require(false, name, "must be an absolute URL, such as "+example)
		return
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		r.require(false, name, "must have no user, query or fragment")
		return
	case strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/v2"):
		r.require(false, name, "ends with /v2, which is appended: leave it out")
		return
	}
	if u.Scheme == "https" || isLoopback(u.Hostname()) {
		return
	}
	w.Insecure = append(w.Insecure, name)
	r.require(w.allowHTTP, name,
		"is http:// and not this machine, so the API key would travel in plain text: use https://, or set WAZZUP_API_INSECURE=true",
		"WAZZUP_API_INSECURE")
}

func (w *WorkerSettings) checkAccounts(r *rules) {
	if w.accountsFile != "" {
		w.fromFile = r.accountsFile(w.accountsFile, config.ReadAPIKeys)
		if w.apiKey != "" {
			w.Ignored = append(w.Ignored, "WAZZUP_API_KEY")
		}
		if w.counterUsers != "" {
			w.Ignored = append(w.Ignored, "WAZZUP_COUNTER_USERS")
		}
		return
	}
	var err error
	if w.users, err = config.ParseUserIDs(w.counterUsers); err != nil {
		r.require(false, "WAZZUP_COUNTER_USERS", err.Error())
	}
	r.account(w.account)
	r.require(w.apiKey != "", "WAZZUP_API_KEY",
		"is not set: give the key in WAZZUP_API_KEY or the name of its file in WAZZUP_API_KEY_FILE (Wazzup: Integrations, Integration by API)")
}

func (w *WorkerSettings) checkSending(r *rules) {
	c := &w.common
	r.positive("WAZZUP_CONCURRENCY", int64(c.Concurrency))
	r.positive("WAZZUP_MAX_ATTEMPTS", int64(c.MaxAttempts))
	r.positive("WAZZUP_TIMEOUT", int64(c.Timeout))
	r.positive("WAZZUP_RECONCILE_WAIT", int64(c.ReconcileWait))
	r.positive("WAZZUP_CHANNELS_POLL", int64(c.ChannelsPoll))
	r.positive("WAZZUP_STATUS_WAIT", int64(c.StatusWait))
	r.require(c.SyncGather >= 0 && c.SyncGather <= maxSyncGather, "WAZZUP_SYNC_GATHER", "must be 0 to 1m")
	r.require(w.silence == 0 || w.silence >= minSilence, "WEBHOOK_SILENCE", "must be 0 or at least 1s")
	r.positive("WAZZUP_FLOOD_PAUSE", int64(c.FloodPause))
	r.positive("WAZZUP_SPAM_LIMIT", int64(c.SpamLimit))
	r.positive("WAZZUP_SPAM_WINDOW", int64(c.SpamWindow))
}

func (w *WorkerSettings) checkStorage(r *rules) {
	l := &w.common.Limits
	r.require(l.Retention >= minRetention, "WAZZUP_RETENTION", "must be 2h or more: commands within an hour of the end of the ledger's memory are not called")
	r.positive("WAZZUP_DEAD_RETENTION", int64(l.DeadRetention))
	r.require(l.DedupeWindow > 0 && l.DedupeWindow <= l.Retention, "WAZZUP_DEDUPE_WINDOW", "must be more than 0 and at most WAZZUP_RETENTION", "WAZZUP_RETENTION")
	r.require(l.Replicas >= 1 && l.Replicas <= maxReplicas, "WAZZUP_REPLICAS", "must be 1 to 5")
	r.positive("WAZZUP_COMMAND_BYTES", l.CommandBytes)
	r.positive("WAZZUP_RECORD_BYTES", l.RecordBytes)
	r.positive("WAZZUP_DEFERRED_BYTES", l.DeferredBytes)
	r.positive("WAZZUP_DEAD_BYTES", l.DeadBytes)
}

// checkEmbedded asks for what only an embedded server needs; without one, the
// connection's own rules.
func (w *WorkerSettings) checkEmbedded(r *rules) {
	r.require((w.EmbeddedCert == "") == (w.EmbeddedKey == ""), "EMBEDDED_CERT", "goes together with EMBEDDED_KEY", "EMBEDDED_KEY")
	if w.Embedded == "" {
		w.NATS.check(r)
		return
	}
	n := &w.NATS
	address, err := n.listen()
	if err != nil {
		r.require(false, "NATS_URL", err.Error())
	} else if host, _, splitErr := net.SplitHostPort(address); splitErr == nil {
		r.require(isLoopback(host) || n.User != "", "NATS_URL",
			"is not a loopback address: EMBEDDED_NATS would listen there for everybody; set NATS_USER and NATS_PASSWORD", "NATS_USER", "NATS_PASSWORD")
	}
	r.require((n.User == "") == (n.Password == ""), "NATS_USER", "goes together with NATS_PASSWORD", "NATS_PASSWORD")
	r.require(n.Creds == "", "NATS_CREDS", "is for a server elsewhere: EMBEDDED_NATS knows NATS_USER and NATS_PASSWORD only")
	r.require(n.CA == "" && n.Cert == "" && n.Key == "", "NATS_CA", "and NATS_CERT and NATS_KEY are for a server elsewhere; EMBEDDED_NATS speaks TLS with EMBEDDED_CERT and EMBEDDED_KEY", "NATS_CERT", "NATS_KEY")
	r.require(w.common.Limits.Replicas == 1, "WAZZUP_REPLICAS", "must be 1: EMBEDDED_NATS is a single server")
}

// prepare makes one configuration of each account.
func (w *WorkerSettings) prepare() {
	base := w.common
	base.APIURL = w.apiURL
	base.CounterURL = w.counterURL
	base.Evidence = sender.Evidence(w.evidence)
	if base.Silence = w.silence; w.silence == 0 {
		base.Silence = -1
	}
	base.Worker = processName()
	if base.SyncGather == 0 { // which there means the default
		base.SyncGather = -1
	}
	if w.accountsFile == "" {
		base.Account, base.APIKey, base.CounterUsers = w.account, string(w.apiKey), w.users
		w.Accounts = []sender.Config{base}
		return
	}
	for _, a := range w.fromFile {
		w.Accounts = append(w.Accounts, senderOf(base, a))
	}
}

// storage is what the embedded server must be able to reserve: what all
// accounts' streams may take, and room for leases.
func (w *WorkerSettings) storage() int64 {
	l := w.common.Limits
	const rest = 1 << 30
	return int64(len(w.Accounts))*(l.CommandBytes+l.RecordBytes+l.DeferredBytes+l.DeadBytes) + rest
}

// account requires a name that fits into subjects.
func (r *rules) account(name string) {
	r.require(schema.ValidAccount(name), "WAZZUP_ACCOUNT", "is no account name: 1 to 32 of a-z, 0-9 and -")
}

// rateOr is the account's own rate, or the program's.
func rateOr(own *rate.Rate, def rate.Rate) rate.Rate {
	if own != nil {
		return *own
	}
	return def
}
