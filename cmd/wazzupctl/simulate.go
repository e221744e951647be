package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

type simulateCmd struct {
	Addr    string  `default:"127.0.0.1:8090" help:"Where to listen (default ${default}); port 0 takes a free one."`
	KeyFile *string `name:"wazzup-api-key-file" placeholder:"FILE" help:"Let in only the API key in this file (or in WAZZUP_API_KEY); otherwise any."`
	simulation
	WebhookURL string `name:"webhook-url" placeholder:"URL" help:"Address that webhooks are posted to from the start, in place of a registration."`
	JSON       bool   `help:"Print JSON."`
}

// simulation are the flags of a simulated vendor, alone or within dev.
type simulation struct {
	Seed        uint64         `group:"Simulated Wazzup" help:"Makes message ids, jitter and order repeatable; 0 = random."`
	EchoDelay   time.Duration  `group:"Simulated Wazzup" placeholder:"SPAN" help:"From a message's acceptance to its echo."`
	StatusDelay time.Duration  `group:"Simulated Wazzup" placeholder:"SPAN" help:"Before the first status of a message, and between two."`
	Jitter      time.Duration  `group:"Simulated Wazzup" placeholder:"SPAN" help:"Up to this is added to each of these delays."`
	Shuffle     bool           `group:"Simulated Wazzup" help:"Echo and statuses of a message come in random order."`
	NoEcho      bool           `group:"Simulated Wazzup" help:"No echoes of sent messages."`
	NoStatuses  bool           `group:"Simulated Wazzup" help:"No statuses."`
	VendorRate  simulator.Rate `group:"Simulated Wazzup" placeholder:"500/5s" help:"Answer 429 beyond so many requests in a fixed window; 0 = no limit."`
	Rule        []string       `group:"Simulated Wazzup" sep:"none" placeholder:"JSON" help:"A scripted fault, as POST /_sim/rules takes it; may be given more than once."`
}

// Help is the detailed help.
func (*simulateCmd) Help() string {
	return `Speaks Wazzup's API under /v2, posts webhooks back, and is driven by /_sim/ (rules, requests, state, inbound, channel, webhook, config, reset).

Examples:
  wazzupctl simulate --status-delay 200ms
  wazzupctl simulate --rule '{"match":{"textContains":"fail"},"status":500,"times":1}'
  curl -d '{"channelId":"a0000000-0000-4000-8000-000000000001","chatId":"79998887766","text":"Hello"}' http://127.0.0.1:8090/_sim/inbound`
}

// config is the simulator's configuration; the rules are read and checked.
func (s *simulation) config(log zerolog.Logger) (simulator.Config, []simulator.Rule, error) {
	var rules []simulator.Rule
	var errs []error
	for i, text := range s.Rule {
		some, err := simulator.ParseRules([]byte(text))
		if err != nil {
			errs = append(errs, fmt.Errorf("--rule %d: %w", i+1, err))
		}
		rules = append(rules, some...)
	}
	for _, d := range []time.Duration{s.EchoDelay, s.StatusDelay, s.Jitter} {
		if d < 0 {
			errs = append(errs, errors.New("--echo-delay, --status-delay, --jitter: must not be negative"))
			break
		}
	}
	return simulator.Config{
		Seed: s.Seed, EchoDelay: s.EchoDelay, StatusDelay: s.StatusDelay, Jitter: s.Jitter, Shuffle: s.Shuffle,
		NoEcho: s.NoEcho, NoStatuses: s.NoStatuses, Rate: s.VendorRate, Log: log,
	}, rules, errors.Join(errs...)
}

// Run serves the simulated vendor until it is interrupted.
func (c *simulateCmd) Run(ctx context.Context, e *env) error {
	log, logErr := programLog(e, "info")
	cfg, rules, err := c.config(log)
	key, keyErr := secret(e, "WAZZUP_API_KEY", c.KeyFile)
	if err := joinFaults(logErr, err, keyErr); err != nil {
		return err
	}
	cfg.WebhookURL = c.WebhookURL
	if key != "" {
		cfg.Keys = []string{string(key)}
	}
	sim, err := simulator.New(cfg) //nolint:contextcheck // it ends by Close
	if err != nil {
		return &relay.UsageError{Err: err}
	}
	defer sim.Close()
	if err := sim.Start(context.WithoutCancel(ctx), c.Addr); err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	if err := sim.AddRule(rules...); err != nil {
		return &relay.UsageError{Err: fmt.Errorf("--rule: %w", err)}
	}
	if c.JSON {
		err = e.JSON(map[string]any{"url": sim.URL(), "channels": sim.Channels()})
	} else {
		printVendor(e, sim)
	}
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func printVendor(e *env, sim *simulator.Server) {
	e.Printf("simulated Wazzup at %s (WAZZUP_API_URL)\n", e.tint(bold, sim.URL()))
	for _, ch := range sim.Channels() {
		e.Printf("  channel %s  %s  %s\n", ch.ChannelID, pad(ch.Transport, 10), ch.State)
	}
	e.Printf("a customer writes:\n  curl -d '%s' %s/_sim/inbound\nwhat it received:\n  curl %s/_sim/requests\n", sampleInbound, sim.URL(), sim.URL())
}

// secret reads one secret: the flag's file, its variable, or the variable's file.
func secret(e *env, name string, file *string) (config.Secret, error) {
	table := config.New("wazzupctl", "")
	var value config.Secret
	table.Secret(&value, name, "")
	var args []string
	if file != nil {
		args = append(args, table.Settings()[0].Flag+"="+*file)
	}
	err := table.Parse(args, e.getenv)
	return value, err
}

// programLog is the log of programs that run inside this one; level is where
// LOG_LEVEL says nothing.
func programLog(e *env, level string) (zerolog.Logger, error) {
	table := config.New("wazzupctl", "")
	var log relay.LogSettings
	log.Declare(table)
	if e.getenv("LOG_LEVEL") != "" {
		level = ""
	}
	if err := table.Parse(nil, e.getenv); err != nil {
		return zerolog.Nop(), err
	}
	if level != "" {
		log.Level = level
	}
	return log.Logger(e.stderr)
}

const sampleInbound = `{"channelId":"` + simulator.ChannelWhatsApp + `","chatId":"79998887766","text":"Hello"}`
