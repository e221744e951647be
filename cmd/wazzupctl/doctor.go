package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/queue"
)

type doctorCmd struct {
	connection
	PublicURL  *string `name:"public-url" placeholder:"URL" help:"Where the webhook should point (PUBLIC_URL)."`
	SecretFile *string `name:"webhook-secret-file" placeholder:"FILE" help:"File of the webhook's secret (WEBHOOK_SECRET, WEBHOOK_SECRET_FILE), to compare it too."`
	JSON       bool    `help:"Print JSON."`
}

// Help is the detailed help.
func (*doctorCmd) Help() string {
	return `Checks, one after the other, what sending and receiving need, and says of each what is wrong and how to mend it. The exit code is 1 if anything is broken; a warning alone leaves it 0.

Example:
  PUBLIC_URL=https://hooks.example.org wazzupctl doctor`
}

// How a check ended.
const (
	resultOK      = "ok"
	resultWarning = "warning"
	resultBroken  = "broken"
)

// How full a stream may be before it is worth a word, and before it is a fault.
const (
	fullWarning = 0.80
	fullBroken  = 0.97
)

// checkup is the result of one check.
type checkup struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"`
}

// doctor makes the checks. Those that need what is broken are left out.
type doctor struct {
	*client
	results []checkup

	shut     map[string]bool // channels that Wazzup's list shows as not active, which was told
	vendorUp bool            // Wazzup gave the list
}

func (d *doctor) note(name, result, detail, mend string) {
	d.results = append(d.results, checkup{name, result, detail, mend})
}

// Run makes all checks and prints what they found.
func (c *doctorCmd) Run(ctx context.Context, e *env) error {
	settings, settingsErr := c.settings(e)
	hook := hookSettings{PublicURL: c.PublicURL, SecretFile: c.SecretFile}
	if err := joinFaults(settingsErr, hook.read(e)); err != nil {
		return err
	}
	d := &doctor{}
	cl, err := c.connectWith(ctx, e, settings)
	away, isAway := errors.AsType[*noNATS](err)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && !isAway:
		return err
	case err != nil:
		d.note("nats", resultBroken, away.short(), "start NATS (nats-server -js), or set NATS_URL and its credentials")
	default:
		defer cl.Close()
		d.client = cl
		d.note("nats", resultOK, "connected to "+cl.nc.ConnectedUrlRedacted()+", server "+cl.nc.ConnectedServerVersion(), "")
		if d.jetstream(ctx) {
			d.streams(ctx)
		}
		if d.worker(ctx) {
			d.lanes(ctx)
			d.webhook(ctx, &hook)
		}
		cl.Done()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.print(e, d.results)
}

func (d *doctor) jetstream(ctx context.Context) bool {
	info, err := d.js.AccountInfo(ctx)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		d.note("jetstream", resultBroken, "JetStream is switched off", "start the server with -js (or a jetstream section in its configuration), and allow it to this user's account")
	case err != nil:
		d.note("jetstream", resultBroken, "JetStream does not answer: "+err.Error(), "look at the NATS server's log; a cluster needs a majority of its servers")
	default:
		d.note("jetstream", resultOK, fmt.Sprintf("on, %d streams, %s stored", info.Streams, size(info.Store)), "")
		return true
	}
	return false
}

// streams looks whether the account's streams are there, and how full they are.
func (d *doctor) streams(ctx context.Context) {
	names := queue.Names{Account: d.account}
	for _, s := range []struct{ name, limit string }{
		{names.Commands(), "WAZZUP_COMMAND_BYTES"},
		{names.Records(), "WAZZUP_RECORD_BYTES"},
		{names.Deferred(), "WAZZUP_DEFERRED_BYTES"},
		{names.Dead(), "WAZZUP_DEAD_BYTES"},
	} {
		stream, err := d.js.Stream(ctx, s.name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			d.note("stream "+s.name, resultBroken, "is missing", "start a worker of account "+d.account+": it makes the streams; or name another account with --wazzup-account")
		case err != nil:
			d.note("stream "+s.name, resultBroken, err.Error(), "look at the NATS server's log")
		default:
			d.fill(s.name, s.limit, stream.CachedInfo())
		}
	}
}

func (d *doctor) fill(name, limit string, info *jetstream.StreamInfo) {
	used, most := info.State.Bytes, info.Config.MaxBytes
	detail := fmt.Sprintf("%d messages, %s", info.State.Msgs, size(used))
	result, mend := resultOK, ""
	if most > 0 {
		share := float64(used) / float64(most)
		detail += fmt.Sprintf(" of %s (%.0f %%)", size(uint64(most)), share*100)
		if share >= fullWarning {
			result, mend = resultWarning, "find out why it fills (`wazzupctl lanes list --order-by backlog --desc`), or raise "+limit+" of the worker: docs/operating.md, storage"
		}
		if share >= fullBroken {
			result = resultBroken
		}
	}
	d.note("stream "+name, result, detail, mend)
}

// worker asks for the channel list: that it is answered shows a worker, that the
// answer is a list shows that Wazzup is reached and takes the key.
func (d *doctor) worker(ctx context.Context) bool {
	var list struct {
		Items []channel `json:"items"`
	}
	err := d.request(ctx, "channels.list", struct{}{}, &list)
	refused, isRefused := errors.AsType[*apiError](err)
	switch {
	case errors.Is(err, errNoWorker):
		d.note("worker", resultBroken, "nobody answers for account "+d.account, "start a worker (cmd/worker); if one runs, its /readyz and log say why it does not own the account")
		return false
	case err != nil && !isRefused:
		d.note("worker", resultBroken, err.Error(), "look at the worker's log and its /readyz")
		return false
	}
	d.note("worker", resultOK, "answers", "")
	if isRefused {
		d.key(refused)
		return true
	}
	d.vendorUp = true
	d.note("key", resultOK, "Wazzup takes it", "")
	d.channels(list.Items)
	return true
}

// key says why Wazzup's channel list was not to be had.
func (d *doctor) key(refused *apiError) {
	f := &refused.Fault
	detail := fmt.Sprintf("Wazzup's answer: %d %s", refused.Status, f.Code)
	if f.HTTPStatus == 0 { // the worker's own
		detail = f.Code + ": " + plainText(f.Description)
	}
	switch {
	case refused.Status == http.StatusUnauthorized, refused.Status == http.StatusForbidden, f.Code == "ACCOUNT_NOT_FOUND":
		d.note("key", resultBroken, detail, "the API key is wrong or was replaced: take it from Wazzup (Integrations, Integration by API) and give it to the worker as WAZZUP_API_KEY")
	case f.Code == "RATE_WAIT":
		d.note("vendor", resultWarning, detail, "all wait for it, and go on by themselves; if it happens often, something else uses the key, or WAZZUP_ACCOUNT_RATE is too high")
	case f.HTTPStatus == 0:
		d.note("vendor", resultBroken, detail, "check WAZZUP_API_URL and the way to it (name, network, proxy, certificate); the worker goes on trying")
	default:
		d.note("vendor", resultBroken, detail, "Wazzup is not well, or WAZZUP_API_URL is not its address; the worker goes on trying")
	}
}

func (d *doctor) channels(all []channel) {
	if len(all) == 0 {
		d.note("channels", resultBroken, "there are none", "add a channel in Wazzup's own interface")
	}
	d.shut = make(map[string]bool)
	for _, ch := range all {
		name := "channel " + plain(ch.ChannelID)
		d.shut[ch.ChannelID] = ch.State != channelActive
		switch ch.State {
		case channelActive:
			d.note(name, resultOK, plain(ch.Transport)+", active", "")
		case "disabled":
			d.note(name, resultWarning, plain(ch.Transport)+", disabled", "its messages wait until it is enabled in Wazzup")
		default:
			d.note(name, resultBroken, plain(ch.Transport)+", "+plain(ch.State), channelMend(ch.State))
		}
	}
}

// channelMend says what opens a channel (manual: channel states).
func channelMend(state string) string {
	switch state {
	case "qr":
		return "scan the QR code in Wazzup; messages wait until then"
	case "phoneUnavailable":
		return "the phone has no connection; messages wait until it is back"
	case "openElsewhere":
		return "the messenger was opened elsewhere; take it over in Wazzup"
	case "notEnoughMoney":
		return "pay for the channel; messages wait until then"
	}
	return "look at the channel in Wazzup; messages wait until it is active"
}

func (d *doctor) webhook(ctx context.Context, hook *hookSettings) {
	var now registered
	if err := d.request(ctx, "webhooks.get", struct{}{}, &now); err != nil {
		result := resultBroken
		if !d.vendorUp {
			result = resultWarning // the check of what stands in the way says how bad that is
		}
		d.note("webhook", result, err.Error(), "the registered address could not be read; see the checks above")
		return
	}
	d.guard(&now)
	address := ""
	if now.URL != nil {
		address = *now.URL
	}
	switch wrong := hook.compare(address, d.account); {
	case address == "" && hook.base == "":
		d.note("webhook", resultWarning, "no address is registered: no message, status or channel state comes in", "start ingest with PUBLIC_URL, or `wazzupctl webhook set`")
	case wrong != "":
		d.note("webhook", resultBroken, wrong, "restart ingest with this PUBLIC_URL, or `wazzupctl webhook set`; another service with the same key may have taken it over")
	case hook.base == "":
		d.note("webhook", resultOK, plain(address)+" (give PUBLIC_URL to have it compared)", "")
	default:
		d.note("webhook", resultOK, plain(address), "")
	}
}

// guard says what keeps the registered address from being looked after, and whether
// statuses are missing.
func (d *doctor) guard(now *registered) {
	switch now.Guard.State {
	case "suspended":
		d.note("webhook guard", resultWarning, "suspended: an address was set by hand", "restart ingest when its own address is to be registered again")
	case "drifted":
		d.note("webhook guard", resultBroken, "another address has taken the place of ingest's, which is not registered again yet", "see ingest's log for what Wazzup answers; `wazzupctl watch --kind ops --since 24h` shows webhook.drift")
	case "stopped":
		d.note("webhook guard", resultBroken, "another service takes the address again and again; no repair before "+plain(now.Guard.OpensOn),
			"find the other service or environment that registers a webhook with this API key, and give each a key of its own")
	case guardKept:
		d.note("webhook guard", resultOK, "ingest keeps its address registered", "")
	}
	if now.SilentSince != "" {
		d.note("statuses", resultBroken, "none has come for the messages accepted since "+plain(now.SilentSince),
			"see whether the address below is ingest's and can be reached from outside")
	}
}

// compare says what is wrong with a registered address, whose last segment is
// masked as "***" and the beginning of its hash; "" = nothing.
func (h *hookSettings) compare(address, account string) string {
	if h.base == "" {
		return ""
	}
	if address == "" {
		return "no address is registered"
	}
	prefix := strings.TrimRight(h.base, "/") + "/webhooks/" + account + "/"
	mask, ok := strings.CutPrefix(address, prefix)
	if !ok || strings.Contains(mask, "/") {
		return "points at " + plain(address) + ", not at " + prefix + "…"
	}
	sum := sha256.Sum256([]byte(h.secret))
	if h.secret != config.Secret("") && mask != "***"+hex.EncodeToString(sum[:4]) {
		return "is registered with another secret than WEBHOOK_SECRET"
	}
	return ""
}

// errUnwell: at least one check found something broken.
var errUnwell = errors.New("something is broken: see above")

func (c *doctorCmd) print(e *env, results []checkup) error {
	broken := false
	for _, r := range results {
		broken = broken || r.Result == resultBroken
		if c.JSON {
			continue
		}
		t := map[string]tint{resultOK: good, resultWarning: warn, resultBroken: bad}[r.Result]
		e.Printf("%s %s  %s\n", e.tint(t, pad(r.Result, 8)), r.Name, r.Detail)
		if r.Mend != "" {
			e.Printf("%s %s\n", pad("", 8), e.tint(faint, "-> "+r.Mend))
		}
	}
	if c.JSON {
		text, err := json.Marshal(map[string]any{"ok": !broken, "checks": results})
		if err != nil {
			return fmt.Errorf("print as JSON: %w", err)
		}
		e.Printf("%s\n", text)
	}
	if broken {
		return errUnwell
	}
	return nil
}

// size is a number of bytes for people.
func size(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
