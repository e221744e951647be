package simulator

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// Defaults of [Config].
const (
	DefaultBatchSize      = 50
	DefaultParallel       = 1
	DefaultRetries        = 3
	DefaultRetryDelay     = time.Second
	DefaultWebhookTimeout = 30 * time.Second // as the vendor's successor API documents it
	DefaultMaxBody        = 4 << 20
	DefaultKeepRequests   = 100_000
)

// Ids of the channels of [DefaultChannels].
const (
	ChannelWhatsApp  = "a0000000-0000-4000-8000-000000000001"
	ChannelWhatsApp2 = "a0000000-0000-4000-8000-000000000002"
	ChannelTelegram  = "a0000000-0000-4000-8000-000000000003"
	ChannelInstagram = "a0000000-0000-4000-8000-000000000004"
)

// Channel states of the manual. Any other text is accepted as a state too,
// since the vendor's list has grown before; it means "not active".
const (
	StateActive           = "active"
	StateDisabled         = "disabled"
	StatePhoneUnavailable = "phoneUnavailable"
	StateQR               = "qr"
	StateOpenElsewhere    = "openElsewhere"
	StateNotEnoughMoney   = "notEnoughMoney"
)

// Config is how a simulator behaves. The zero value is a working one: the
// default channels, any key, echoes and the statuses 1, 2, 3 called back at
// once and in order as soon as a webhook URL is registered, no rate limit.
type Config struct {
	Channels []Channel // nil = DefaultChannels; empty = none
	Keys     []string  // the API keys that are let in; none = any key that is not empty

	// Seed of message ids, jitter and order; 0 = a random one. A fixed seed
	// repeats the message ids of the run before: use it with a fresh receiver.
	Seed uint64

	NoEcho      bool          // no echo of API sends on `messages`
	NoStatuses  bool          // no `statuses`
	Statuses    []int         // called back for each message, in this order; nil = 1 (sent), 2 (delivered), 3 (read)
	EchoDelay   time.Duration // between a message's acceptance and its echo; 0 = at once
	StatusDelay time.Duration // before the first status, and between two; 0 = at once
	Jitter      time.Duration // up to this is added to each of these delays; 0 = none
	Shuffle     bool          // a message's echo and statuses come in random order
	StatusText  bool          // `status` of a status as a string ("2"), as the manual's table has it, instead of a number
	StoreURL    string        // base of the link that an echo carries in place of the sent `content`; "" = the sent link

	WebhookURL     string            // registered from the start, without the test call; "" = none
	BatchWindow    time.Duration     // webhooks leave only at multiples of this, so that items gather; 0 = as soon as they are due
	BatchSize      int               // items in one webhook at most; 0 = DefaultBatchSize
	Mixed          bool              // items of several kinds share a webhook; otherwise each has one kind
	Parallel       int               // webhooks under way at the same time; 0 = DefaultParallel, which keeps their order
	Retries        int               // of a webhook not answered 200; 0 = DefaultRetries, negative = none
	RetryDelay     time.Duration     // before the first retry, doubled for each that follows; 0 = DefaultRetryDelay
	WebhookTimeout time.Duration     // for one webhook's answer; 0 = DefaultWebhookTimeout
	Transport      http.RoundTripper // calls the webhooks; nil = one of its own

	Rate   Rate // requests in a fixed window, beyond which the answer is 429; zero = no limit
	Groups bool // send_message takes chatType whatsgroup too, which the manual does not list for sending

	MaxBody      int64 // bytes of a request's body, beyond which the answer is 413; 0 = DefaultMaxBody
	KeepRequests int   // the last requests kept for Requests, and message ids kept for quoting; 0 = DefaultKeepRequests, negative = no requests

	Log zerolog.Logger // the zero value is silent
}

// Channel is one channel of the integration (manual: GET /v2/channels).
type Channel struct {
	ChannelID string `json:"channelId"` // uuid in lower case
	Transport string `json:"transport"`
	PlainID   string `json:"plainId"` // phone number or account
	State     string `json:"state"`
}

// DefaultChannels returns the channels of a simulator that is given none: two
// of WhatsApp, one of Telegram, one of Instagram, all active.
func DefaultChannels() []Channel {
	return []Channel{
		{ChannelID: ChannelWhatsApp, Transport: chatWhatsApp, PlainID: "79990000001", State: StateActive},
		{ChannelID: ChannelWhatsApp2, Transport: chatWhatsApp, PlainID: "79990000002", State: StateActive},
		{ChannelID: ChannelTelegram, Transport: chatTelegram, PlainID: "79990000003", State: StateActive},
		{ChannelID: ChannelInstagram, Transport: chatInstagram, PlainID: "wazzup.simulator", State: StateActive},
	}
}

// withDefaults fills in what was left zero and names every fault at once.
func (c Config) withDefaults() (Config, error) {
	if c.Channels == nil {
		c.Channels = DefaultChannels()
	}
	if c.Statuses == nil {
		c.Statuses = []int{statusSent, statusDelivered, statusRead}
	}
	setDefault(&c.BatchSize, DefaultBatchSize)
	setDefault(&c.Parallel, DefaultParallel)
	setDefault(&c.Retries, DefaultRetries)
	setDefault(&c.RetryDelay, DefaultRetryDelay)
	setDefault(&c.WebhookTimeout, DefaultWebhookTimeout)
	setDefault(&c.MaxBody, DefaultMaxBody)
	setDefault(&c.KeepRequests, DefaultKeepRequests)
	c.Retries = max(c.Retries, 0)
	c.KeepRequests = max(c.KeepRequests, 0)
	return c, c.check()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) check() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("simulator: "+format, args...))
	}
	seen := make(map[string]bool, len(c.Channels))
	for i, ch := range c.Channels {
		if err := ch.check(); err != nil {
			fault("Channels[%d]: %w", i, err)
		}
		if seen[ch.ChannelID] {
			fault("Channels[%d]: the id is another channel's too", i)
		}
		seen[ch.ChannelID] = true
	}
	for i, key := range c.Keys {
		if strings.TrimSpace(key) == "" {
			fault("Keys[%d] is empty", i)
		}
	}
	if c.WebhookURL != "" && !isWebhookURL(c.WebhookURL) {
		fault("WebhookURL is no absolute http(s) URL of at most %d characters", maxWebhookURL)
	}
	if c.StoreURL != "" && !isWebURL(c.StoreURL) {
		fault("StoreURL is no absolute http(s) URL")
	}
	if min(c.EchoDelay, c.StatusDelay, c.Jitter, c.BatchWindow, c.RetryDelay, c.WebhookTimeout) < 0 {
		fault("EchoDelay, StatusDelay, Jitter, BatchWindow, RetryDelay and WebhookTimeout must not be negative")
	}
	if c.BatchSize < 0 || c.Parallel < 0 || c.MaxBody < 0 {
		fault("BatchSize, Parallel and MaxBody must not be negative")
	}
	if err := c.Rate.check(); err != nil {
		fault("Rate: %w", err)
	}
	return errors.Join(faults...)
}

func (ch *Channel) check() error {
	switch {
	case !isUUID(ch.ChannelID):
		return &FieldError{Field: "channelId", Description: "must be a uuid in lower case"}
	case ch.Transport == "":
		return &FieldError{Field: "transport", Description: "must not be empty"}
	case ch.State == "":
		return &FieldError{Field: "state", Description: "must not be empty"}
	}
	return nil
}

// FieldError is a control request, or a value of the Go API, that breaks a
// rule. Field is the path in the JSON form: `match.chatId`, `[2].status`; `body`
// means the whole.
type FieldError struct {
	Field       string `json:"field,omitzero"`
	Description string `json:"description"`
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Description }

// Rate is a limit of requests in a fixed window, which begins with the first
// request after the window before has ended. Its text is `500/5s`; `0` is none.
type Rate struct {
	Requests int
	Window   time.Duration
}

// ParseRate reads the text form of a [Rate].
func ParseRate(text string) (Rate, error) {
	if text == "0" {
		return Rate{}, nil
	}
	count, window, ok := strings.Cut(text, "/")
	if !ok {
		return Rate{}, errors.New("must look like 500/5s, or be 0 for no limit")
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		return Rate{}, errors.New("the number before the slash is not an integer")
	}
	d, err := time.ParseDuration(window)
	if err != nil {
		return Rate{}, errors.New("what follows the slash is no duration such as 5s")
	}
	rate := Rate{Requests: n, Window: d}
	if n <= 0 || d <= 0 {
		return Rate{}, errors.New("number and duration must be positive, or the whole 0 for no limit")
	}
	return rate, nil
}

func (r Rate) check() error {
	if r == (Rate{}) || (r.Requests > 0 && r.Window > 0) {
		return nil
	}
	return errors.New("number and duration must both be positive, or both zero")
}

// String is the text form.
func (r Rate) String() string {
	if r.Requests == 0 {
		return "0"
	}
	return strconv.Itoa(r.Requests) + "/" + r.Window.String()
}

// MarshalText writes the text form.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the text form.
func (r *Rate) UnmarshalText(text []byte) error {
	rate, err := ParseRate(string(text))
	if err != nil {
		return err
	}
	*r = rate
	return nil
}

// Duration is a time.Duration whose JSON is text such as "50ms".
type Duration time.Duration

// MarshalText writes it as time.Duration's String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads; a negative one is an error.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return errors.New(`must be a duration such as "50ms"`)
	}
	if v < 0 {
		return errors.New("must not be negative")
	}
	*d = Duration(v)
	return nil
}

// Tuning changes a running simulator; nil fields stay as they are. The fields
// are those of [Config] of the same name (Echo and EchoDelay and so on).
type Tuning struct {
	Echo        *bool     `json:"echo,omitzero"`
	Statuses    *[]int    `json:"statuses,omitzero"` // [] = none
	EchoDelay   *Duration `json:"echoDelay,omitzero"`
	StatusDelay *Duration `json:"statusDelay,omitzero"`
	Jitter      *Duration `json:"jitter,omitzero"`
	Shuffle     *bool     `json:"shuffle,omitzero"`
	StatusText  *bool     `json:"statusText,omitzero"`
	BatchWindow *Duration `json:"batchWindow,omitzero"`
	BatchSize   *int      `json:"batchSize,omitzero"`
	Mixed       *bool     `json:"mixed,omitzero"`
	Retries     *int      `json:"retries,omitzero"` // 0 = none
	RetryDelay  *Duration `json:"retryDelay,omitzero"`
	Rate        *Rate     `json:"rate,omitzero"`
}

func (t *Tuning) check() error {
	if t.BatchSize != nil && *t.BatchSize < 1 {
		return &FieldError{Field: "batchSize", Description: "must be at least 1"}
	}
	if t.Retries != nil && *t.Retries < 0 {
		return &FieldError{Field: "retries", Description: "must not be negative"}
	}
	if t.Rate != nil {
		if err := t.Rate.check(); err != nil {
			return &FieldError{Field: "rate", Description: err.Error()}
		}
	}
	for _, f := range []struct {
		name  string
		value *Duration
	}{
		{"echoDelay", t.EchoDelay},
		{"statusDelay", t.StatusDelay},
		{"jitter", t.Jitter},
		{"batchWindow", t.BatchWindow},
		{"retryDelay", t.RetryDelay},
	} {
		if f.value != nil && *f.value < 0 {
			return &FieldError{Field: f.name, Description: "must not be negative"}
		}
	}
	return nil
}

// apply writes the tuning into a configuration.
func (t *Tuning) apply(c *Config) {
	if t.Echo != nil {
		c.NoEcho = !*t.Echo
	}
	if t.Statuses != nil {
		c.Statuses, c.NoStatuses = *t.Statuses, len(*t.Statuses) == 0
	}
	set(&c.EchoDelay, (*time.Duration)(t.EchoDelay))
	set(&c.StatusDelay, (*time.Duration)(t.StatusDelay))
	set(&c.Jitter, (*time.Duration)(t.Jitter))
	set(&c.Shuffle, t.Shuffle)
	set(&c.StatusText, t.StatusText)
	set(&c.BatchWindow, (*time.Duration)(t.BatchWindow))
	set(&c.BatchSize, t.BatchSize)
	set(&c.Mixed, t.Mixed)
	set(&c.Retries, t.Retries)
	set(&c.RetryDelay, (*time.Duration)(t.RetryDelay))
	set(&c.Rate, t.Rate)
}

func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

// tuning is the inverse of apply: everything that can be changed, as it is.
func (c *Config) tuning() Tuning {
	statuses := c.Statuses
	if c.NoStatuses {
		statuses = []int{}
	}
	return Tuning{
		Echo:        new(!c.NoEcho),
		Statuses:    &statuses,
		EchoDelay:   new(Duration(c.EchoDelay)),
		StatusDelay: new(Duration(c.StatusDelay)),
		Jitter:      new(Duration(c.Jitter)),
		Shuffle:     new(c.Shuffle),
		StatusText:  new(c.StatusText),
		BatchWindow: new(Duration(c.BatchWindow)),
		BatchSize:   new(c.BatchSize),
		Mixed:       new(c.Mixed),
		Retries:     new(c.Retries),
		RetryDelay:  new(Duration(c.RetryDelay)),
		Rate:        new(c.Rate),
	}
}
