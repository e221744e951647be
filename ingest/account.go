package ingest

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/metric"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Account is one Wazzup integration whose webhooks are taken.
type Account struct {
	Name string
	// Secrets are the last part of the URL: the current one first, which is
	// registered, then former ones that are still taken.
	Secrets []string
	// PublicURL is under which the vendor reaches this endpoint, without
	// `/webhooks/…`; empty: nothing is registered.
	PublicURL string
}

// maxURL is the vendor's limit for the URL of webhooks, in characters.
const maxURL = 200

// pathPrefix is what every webhook's path begins with.
const pathPrefix = "/webhooks/"

// URL is what is registered with the vendor. It holds the secret: never log it.
func (a Account) URL() string {
	return strings.TrimRight(a.PublicURL, "/") + pathPrefix + a.Name + "/" + a.Secrets[0]
}

// Validate names every fault of a set of accounts. Its errors show no secret.
func Validate(accounts []Account) []error {
	var faults []error
	if len(accounts) == 0 {
		faults = append(faults, errors.New("no account is configured"))
	}
	seen := make(map[string]bool, len(accounts))
	for _, a := range accounts {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("account %q: "+format, append([]any{a.Name}, args...)...))
		}
		if !schema.ValidAccount(a.Name) {
			fault("the name must be 1 to 32 of a-z, 0-9 and -")
		}
		if seen[a.Name] {
			fault("is configured twice")
		}
		seen[a.Name] = true
		if len(a.Secrets) == 0 {
			fault("no webhook secret is set")
		}
		safe := len(a.Secrets) > 0
		for i, s := range a.Secrets {
			if !urlSafe(s) {
				safe = false
				fault("webhook secret %d must be letters, digits and -._~ only, at least one, so that it can stand in a URL", i+1)
			}
		}
		if a.PublicURL == "" {
			continue
		}
		if err := validBase(a.PublicURL); err != nil {
			fault("public URL: %w", err)
			continue
		}
		if !safe {
			continue
		}
		if n := utf8.RuneCountInString(a.URL()); n > maxURL {
			fault("the webhook URL would have %d characters, the vendor takes %d: shorten the public URL or the secret", n, maxURL)
		}
	}
	return faults
}

// urlSafe: the unreserved characters of RFC 3986; a segment of dots alone would
// be resolved away.
func urlSafe(secret string) bool {
	for i := range len(secret) {
		switch c := secret[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~", c) >= 0:
		default:
			return false
		}
	}
	return secret != "" && secret != "." && secret != ".."
}

func validBase(base string) error {
	u, err := url.Parse(base)
	switch {
	case err != nil:
		return errors.New("is no URL") // url.Error repeats the text, which may hold a password
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must begin with http:// or https://")
	case u.Host == "":
		return errors.New("has no host")
	case u.User != nil:
		return errors.New("must not hold a user or password")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("must not have a query or fragment")
	}
	return nil
}

// accountSet is what the handler looks accounts up in. It never changes; a
// reload puts another in its place.
type accountSet struct {
	list   []Account
	byName map[string]*liveAccount
	none   *liveAccount // stands in for an unknown account, and has no valid secret
}

type liveAccount struct {
	name    string
	secrets [][sha256.Size]byte // hashes, so that comparing tells nothing of their length either
	valid   bool
	series  map[string]metric.MeasurementOption // attributes by event type
	labels  map[outcome]metric.MeasurementOption
}

func newAccountSet(accounts []Account) *accountSet {
	set := &accountSet{list: accounts, byName: make(map[string]*liveAccount, len(accounts)), none: &liveAccount{name: noAccount}}
	set.none.secrets = make([][sha256.Size]byte, 1)
	set.none.label()
	for _, a := range accounts {
		live := &liveAccount{name: a.Name, valid: true}
		for _, s := range a.Secrets {
			live.secrets = append(live.secrets, sha256.Sum256([]byte(s)))
		}
		live.label()
		set.byName[a.Name] = live
	}
	return set
}

// authenticate finds the account of `/webhooks/<account>/<secret>`; nil for a
// wrong account, a wrong secret and any other path alike.
func (s *accountSet) authenticate(path string) *liveAccount {
	rest, ok := strings.CutPrefix(path, pathPrefix)
	if !ok {
		return nil
	}
	name, secret, ok := strings.Cut(rest, "/")
	if !ok {
		return nil
	}
	account := s.byName[name]
	if account == nil {
		account = s.none
	}
	sum := sha256.Sum256([]byte(secret))
	match := 0
	for i := range account.secrets {
		match |= subtle.ConstantTimeCompare(sum[:], account.secrets[i][:])
	}
	if match == 0 || !account.valid {
		return nil
	}
	return account
}
