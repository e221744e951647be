package relay

import (
	"errors"
	"net"
	"net/url"
	"strings"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
)

// DefaultNATSURL is where NATS is looked for.
const DefaultNATSURL = "nats://127.0.0.1:4222"

// NATSSettings say where NATS is and who we are there.
type NATSSettings struct {
	URL, Creds, User string
	Password         config.Secret
	CA, Cert, Key    string
	InboxPrefix      string
}

// Declare adds them to a table.
func (n *NATSSettings) Declare(s *config.Set) {
	s.String(&n.URL, "NATS_URL", DefaultNATSURL, "Where NATS listens: one URL, or those of a cluster separated by commas. Schemes: nats, tls, ws, wss.")
	s.String(&n.Creds, "NATS_CREDS", "", "A .creds file to log in with. Not together with NATS_USER.")
	s.String(&n.User, "NATS_USER", "", "User to log in as; needs NATS_PASSWORD.")
	s.Secret(&n.Password, "NATS_PASSWORD", "The user's password.")
	s.String(&n.CA, "NATS_CA", "", "PEM file of the authorities to trust instead of the system's; makes TLS a must.")
	s.String(&n.Cert, "NATS_CERT", "", "PEM file of the client certificate to show; needs NATS_KEY.")
	s.String(&n.Key, "NATS_KEY", "", "PEM file of the certificate's key.")
	s.String(&n.InboxPrefix, "NATS_INBOX_PREFIX", daemon.DefaultInboxPrefix, "Beginning of the subjects on which answers are awaited, for servers on which each user may listen to its own only: _INBOX, or below it such as _INBOX.worker.")
}

// Config is what to connect with; name is shown by the server's monitoring.
func (n *NATSSettings) Config(name string, log zerolog.Logger) daemon.NATSConfig {
	return daemon.NATSConfig{
		URL: n.URL, Creds: n.Creds, User: n.User, Password: string(n.Password),
		CA: n.CA, Cert: n.Cert, Key: n.Key, InboxPrefix: n.InboxPrefix, Name: name, Log: log,
	}
}

// check asks the connection's own rules.
func (n *NATSSettings) check(r *rules) {
	for _, err := range split(n.Config("", zerolog.Nop()).Check()) {
		fault, ok := errors.AsType[*daemon.ConfigFault](err)
		if !ok {
			r.found = append(r.found, finding{nil, err})
			continue
		}
		names := []string{fault.Variable}
		switch {
		case fault.Variable == "NATS_USER":
			names = append(names, "NATS_PASSWORD")
		case strings.HasPrefix(fault.Variable, "NATS_CERT"), fault.Variable == "NATS_KEY":
			names = append(names, "NATS_CERT", "NATS_KEY")
		}
		r.require(false, fault.Variable, fault.Err.Error(), names...)
	}
}

// split takes joined errors apart.
func split(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// listen is the address on which an embedded server listens for NATS_URL.
func (n *NATSSettings) listen() (string, error) {
	text := n.URL
	if !strings.Contains(text, "://") {
		text = "nats://" + text
	}
	parsed, err := url.Parse(text)
	switch {
	case err != nil, strings.Contains(text, ","), parsed.Hostname() == "":
		return "", errors.New("must be one URL, such as nats://127.0.0.1:4222, since EMBEDDED_NATS listens there")
	case parsed.Scheme != "nats" && parsed.Scheme != "tls":
		return "", errors.New("the scheme must be nats or tls, since EMBEDDED_NATS listens there")
	case parsed.User != nil:
		return "", errors.New("holds credentials: give those of EMBEDDED_NATS as NATS_USER and NATS_PASSWORD")
	}
	port := parsed.Port()
	if port == "" {
		port = "4222"
	}
	return net.JoinHostPort(parsed.Hostname(), port), nil
}

// isLoopback is false for every name but localhost: what a name resolves to may
// change.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
