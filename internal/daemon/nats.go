package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"
)

const (
	minReconnectWait = 50 * time.Millisecond
	maxReconnectWait = 2 * time.Second
	// A server that is frozen, or a path that swallows packets, is noticed
	// after two pings without an answer: nats.go's own 2 minutes each would be
	// far too long for an account whose owner must be seen to live.
	pingInterval = 5 * time.Second
	maxPingsOut  = 2
	// drainTimeout is for messages that are being handled when we leave.
	drainTimeout = 5 * time.Second
	// notConnectedEvery is how often a lasting failure to connect is logged.
	notConnectedEvery = 5 * time.Minute
)

// DefaultInboxPrefix is what the inboxes of all NATS clients begin with.
const DefaultInboxPrefix = "_INBOX"

var (
	// ErrNATSClosed: the connection was closed for good, though nobody asked.
	ErrNATSClosed = errors.New("NATS connection is closed")

	errNotConnected = errors.New("not connected to NATS")
)

// NATSConfig says where NATS is and who we are there.
type NATSConfig struct {
	// URL is NATS_URL: one or several (comma-separated) URLs of a cluster.
	// Schemes: nats, tls, ws, wss. Ignored with InProcess.
	URL string
	// Creds is NATS_CREDS: the path of a .creds file. It is read again at
	// every connect, so that it may be rotated. Not with User.
	Creds string
	// User and Password are NATS_USER and NATS_PASSWORD, both or neither.
	User, Password string
	// CA is NATS_CA: a PEM file of authorities to trust instead of the
	// system's; it makes TLS a must. Cert and Key are NATS_CERT and NATS_KEY,
	// PEM files, both or neither.
	CA, Cert, Key string
	// Name is shown by the server's own monitoring.
	Name string
	// InboxPrefix is NATS_INBOX_PREFIX: what inboxes begin with, for servers on
	// which each client may subscribe to its own only; "" = DefaultInboxPrefix.
	InboxPrefix string
	// InProcess connects to a server of this process without a socket.
	InProcess nats.InProcessConnProvider
	// Log hears of connects and disconnects. The zero value is silent.
	Log zerolog.Logger
}

// NATSEvent is a change of the connection.
type NATSEvent int

// The events that [NATS.Notify] tells.
const (
	NATSConnected    NATSEvent = iota + 1 // for the first time
	NATSDisconnected                      // will come back by itself
	NATSReconnected                       // subscriptions are in place again
	NATSClosed                            // for good
)

// NATS is a connection to NATS that never gives up. It is a task of a [Group].
type NATS struct {
	conn   *nats.Conn
	trying *Repeated
	log    zerolog.Logger
	url    string // without passwords; "" = in process

	connected chan struct{} // closed at the first connect
	closed    chan struct{} // closed with the connection
	closing   atomic.Bool   // by us
	starting  atomic.Pointer[nats.Conn]

	mu        sync.Mutex // guards the rest; held while observers are called
	last      NATSEvent  // 0 = never connected
	observers map[int]func(NATSEvent)
	nextID    int
}

// ConnectNATS checks the configuration, tries to connect once, and goes on
// trying in the background for ever: a server that is away or refuses us is no
// fault of the configuration, but told in the log and in Ready. See Wait. The
// error joins a [ConfigFault] for each wrong setting.
//
// A publish while disconnected fails at once (nats.ErrReconnectBufExceeded)
// instead of being kept in memory, where it would look as if it had been sent;
// subscriptions made while disconnected take effect with the connection.
func ConnectNATS(cfg NATSConfig) (*NATS, error) {
	opts, err := cfg.options()
	if err != nil {
		return nil, err
	}
	where := "" // a server of this process is not away
	if cfg.InProcess == nil {
		where = RedactedURLs(cfg.URL)
	}
	n := &NATS{
		log:       cfg.Log,
		trying:    NewRepeated(cfg.Log.With().Str("url", where).Logger(), "connect to NATS", notConnectedEvery),
		url:       where,
		connected: make(chan struct{}),
		closed:    make(chan struct{}),
		observers: make(map[int]func(NATSEvent)),
	}
	servers := cfg.URL
	if cfg.InProcess != nil {
		servers = "" // not even parsed
	}
	conn, err := nats.Connect(servers, append(opts, n.options()...)...)
	if err != nil { // all else that can fail was checked; the text may quote NATS_URL
		return nil, fault("NATS_URL", "is not understood")
	}
	n.conn = conn
	n.starting.Store(conn)
	return n, nil
}

// Check names what is wrong with the configuration, files included, as
// [ConnectNATS] would, without connecting.
func (cfg NATSConfig) Check() error {
	_, err := cfg.options()
	return err
}

// options are those that the configuration asks for.
func (cfg NATSConfig) options() ([]nats.Option, error) {
	login, loginErr := cfg.credentials()
	authorities, caErr := cfg.authorities()
	certificate, certErr := cfg.certificate()
	var urlErr error
	if cfg.InProcess == nil {
		urlErr = checkNATSURL(cfg.URL)
	}
	inboxes, inboxErr := cfg.inboxes()
	if err := errors.Join(urlErr, loginErr, caErr, certErr, inboxErr); err != nil {
		return nil, err
	}
	opts := []nats.Option{nats.Name(cfg.Name), login, inboxes}
	if cfg.InProcess != nil {
		opts = append(opts, nats.InProcessServer(cfg.InProcess)) // no socket, no TLS
	} else {
		opts = append(opts, authorities, certificate)
	}
	return opts, nil // nats.Connect passes over those that are nil
}

// inboxes keeps the prefix below _INBOX, since a command's events are published
// to no other inbox.
func (cfg NATSConfig) inboxes() (nats.Option, error) {
	if cfg.InboxPrefix == "" || cfg.InboxPrefix == DefaultInboxPrefix {
		return nil, nil
	}
	for token := range strings.SplitSeq(cfg.InboxPrefix, ".") {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n") {
			return nil, fault("NATS_INBOX_PREFIX", "is no subject without wildcards")
		}
	}
	if !strings.HasPrefix(cfg.InboxPrefix, DefaultInboxPrefix+".") {
		return nil, fault("NATS_INBOX_PREFIX", "must be _INBOX or begin with _INBOX.")
	}
	return nats.CustomInboxPrefix(cfg.InboxPrefix), nil
}

// checkNATSURL never quotes the URL, which may hold a password.
func checkNATSURL(list string) error {
	for one := range strings.SplitSeq(list, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one // as nats.go does
		}
		parsed, err := url.Parse(one)
		if err != nil || parsed.Hostname() == "" {
			return fault("NATS_URL", "must be URLs such as nats://127.0.0.1:4222, separated by commas")
		}
		switch parsed.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return fault("NATS_URL", "the scheme must be nats, tls, ws or wss")
		}
	}
	return nil
}

func (cfg NATSConfig) credentials() (nats.Option, error) {
	switch {
	case cfg.Creds != "" && cfg.User != "":
		return nil, fault("NATS_CREDS", "excludes NATS_USER")
	case (cfg.User == "") != (cfg.Password == ""):
		return nil, fault("NATS_USER", "needs NATS_PASSWORD, and the other way round")
	case cfg.User != "":
		return nats.UserInfo(cfg.User, cfg.Password), nil
	case cfg.Creds == "":
		return nil, nil
	}
	text, err := os.ReadFile(cfg.Creds)
	if err != nil {
		return nil, &ConfigFault{Variable: "NATS_CREDS", Err: err}
	}
	jwt, jwtErr := nkeys.ParseDecoratedJWT(text) // or the whole file, if nothing in it is marked as one
	key, keyErr := nkeys.ParseDecoratedNKey(text)
	if jwtErr != nil || keyErr != nil || strings.Count(jwt, ".") != 2 {
		return nil, fault("NATS_CREDS", "the file is no .creds file: it must hold a user's JWT and seed")
	}
	key.Wipe()
	return nats.UserCredentials(cfg.Creds), nil
}

func (cfg NATSConfig) authorities() (nats.Option, error) {
	if cfg.CA == "" {
		return nil, nil
	}
	text, err := os.ReadFile(cfg.CA)
	if err != nil {
		return nil, &ConfigFault{Variable: "NATS_CA", Err: err}
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return nil, fault("NATS_CA", "the file holds no PEM certificate")
	}
	return nats.RootCAs(cfg.CA), nil
}

func (cfg NATSConfig) certificate() (nats.Option, error) {
	switch {
	case cfg.Cert == "" && cfg.Key == "":
		return nil, nil
	case cfg.Cert == "":
		return nil, fault("NATS_CERT", "is missing; NATS_KEY needs it")
	case cfg.Key == "":
		return nil, fault("NATS_KEY", "is missing; NATS_CERT needs it")
	}
	if _, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key); err != nil {
		return nil, &ConfigFault{Variable: "NATS_CERT and NATS_KEY", Err: err}
	}
	return nats.ClientCert(cfg.Cert, cfg.Key), nil
}

// options are those of every connection: come back for ever, tell us.
func (n *NATS) options() []nats.Option {
	return []nats.Option{
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // else the second refusal closes it for good
		nats.CustomReconnectDelay(n.delay),
		nats.ReconnectBufSize(-1), // see ConnectNATS
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(maxPingsOut),
		nats.DrainTimeout(drainTimeout),
		nats.ConnectHandler(func(c *nats.Conn) {
			n.trying.Succeeded()
			n.log.Info().Str("server", n.server(c)).Msg("connected to NATS")
			close(n.connected)
			n.tell(NATSConnected)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if n.closing.Load() {
				return
			}
			n.log.Warn().AnErr("reason", safeNATSError(err)).Msg("connection to NATS is lost, will come back")
			n.tell(NATSDisconnected)
		}),
		nats.ReconnectHandler(func(c *nats.Conn) {
			n.trying.Succeeded()
			n.log.Info().Str("server", n.server(c)).Msg("connected to NATS again")
			n.tell(NATSReconnected)
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			n.trying.Failed(dialError(err))
		}),
		nats.ClosedHandler(func(*nats.Conn) {
			close(n.closed)
			n.tell(NATSClosed)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			n.log.Warn().Err(safeNATSError(err)).Msg("NATS reports")
		}),
	}
}

// server names the server that we are connected to.
func (n *NATS) server(c *nats.Conn) string {
	if n.url == "" {
		return "in this process"
	}
	return c.ConnectedUrlRedacted()
}

// delay is the pause after each round of attempts: growing, with jitter, so
// that a restarted server is neither missed for long nor stormed. It is also
// the one place in which a refused login shows: nats.go reports failed dials
// only, and tries again without a word when the server refuses us.
func (n *NATS) delay(round int) time.Duration {
	if conn := n.starting.Load(); conn != nil {
		if err := conn.LastError(); err != nil {
			n.trying.Failed(safeNATSError(err))
		}
	}
	return reconnectDelay(round)
}

func reconnectDelay(round int) time.Duration {
	limit := maxReconnectWait
	if shift := max(round-1, 0); shift < 6 {
		limit = min(limit, minReconnectWait<<shift)
	}
	return limit/2 + rand.N(limit/2)
}

// dialError gives a refused connection the one text that nats.go has for it at
// the first attempt; at later ones it tells the address too.
func dialError(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nats.ErrNoServers
	}
	return safeNATSError(err)
}

// safeNATSError hides what a server quotes: a refused subject may end in a
// chat id. What is left of it says which of our streams or requests it was.
func safeNATSError(err error) error {
	if errors.Is(err, nats.ErrAuthorization) {
		return fmt.Errorf("%w: the server takes neither NATS_USER with its password nor NATS_CREDS, whichever is given", err)
	}
	if err == nil || !errors.Is(err, nats.ErrPermissionViolation) {
		return err
	}
	_, quoted, _ := strings.Cut(err.Error(), `"`)
	subject, _, _ := strings.Cut(quoted, `"`)
	return fmt.Errorf("%w for %s", nats.ErrPermissionViolation, subjectHead(subject))
}

// subjectHead is the part of a subject that names no person: the first three
// tokens.
func subjectHead(subject string) string {
	tokens := strings.SplitN(subject, ".", 4)
	if len(tokens) > 3 {
		tokens[3] = "…"
	}
	return strings.Join(tokens, ".")
}

// Conn is the connection, connected or not.
func (n *NATS) Conn() *nats.Conn { return n.conn }

// Wait blocks until the first connect. The error is the context's, or
// [ErrNATSClosed].
func (n *NATS) Wait(ctx context.Context) error {
	select {
	case <-n.connected:
		return nil
	default:
	}
	select {
	case <-n.connected:
		return nil
	case <-n.closed:
		return ErrNATSClosed
	case <-ctx.Done():
		return fmt.Errorf("wait for NATS: %w", context.Cause(ctx))
	}
}

// Notify calls the observer at every change of the connection, one call after
// the other, in the order of the changes, beginning with the present state
// unless there was no connection yet. The observer must neither block nor call
// Notify or what Notify returned, which ends it: no call runs after that has
// returned.
func (n *NATS) Notify(observer func(NATSEvent)) (end func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := n.nextID
	n.nextID++
	if n.last != 0 {
		observer(n.last)
	}
	n.observers[id] = observer
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.observers, id)
	}
}

func (n *NATS) tell(event NATSEvent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = event
	for _, observer := range n.observers {
		observer(event)
	}
}

// Name is the task's name.
func (n *NATS) Name() string { return "nats" }

// Ready is nil while connected.
func (n *NATS) Ready() error {
	if n.conn.IsConnected() {
		return nil
	}
	at := ""
	if n.url != "" {
		at = " at " + n.url
	}
	if last := n.trying.Last(); last != "" {
		return fmt.Errorf("%w%s: %s", errNotConnected, at, last)
	}
	return fmt.Errorf("%w%s", errNotConnected, at)
}

// Trouble is why there is no connection, as far as that is known; "" = it is not.
func (n *NATS) Trouble() string { return n.trying.Last() }

// RedactedURLs is a list of URLs, separated by commas, without passwords.
func RedactedURLs(list string) string {
	var shown []string
	for one := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			shown = append(shown, "(unreadable URL)")
			continue
		}
		shown = append(shown, u.Redacted())
	}
	return strings.Join(shown, ",")
}

// Run holds the connection until ctx ends, then drains and closes it.
func (n *NATS) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		n.Close()
		return nil
	case <-n.closed:
		return ErrNATSClosed
	}
}

// Close lets subscriptions finish what they have received (at most 5 s), sends
// what is pending, and closes the connection; it returns when that is done, and
// may be called more than once.
func (n *NATS) Close() {
	n.closing.Store(true)
	if err := n.conn.Drain(); err != nil {
		n.conn.Close() // not connected: there is nothing to drain
	}
	<-n.closed
}
