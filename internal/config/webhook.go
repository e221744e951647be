package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// maxWebhookURL is the longest URL that Wazzup takes, in characters.
const maxWebhookURL = 200

// CheckWebhookSecret refuses what cannot stand in a URL's path as it is.
func CheckWebhookSecret(secret Secret) error {
	switch {
	case secret == "":
		return errors.New("the secret is empty")
	case strings.Trim(string(secret), ".") == "":
		return errors.New("the secret is nothing but dots, which a URL's path does not keep")
	case strings.ContainsFunc(string(secret), func(r rune) bool { return !urlSafe(r) }):
		return errors.New("the secret is part of a URL: only A-Z a-z 0-9 . _ ~ - may be in it")
	default:
		return nil
	}
}

func urlSafe(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._~-", r)
}

// WebhookURL is the address under which the vendor reaches an account's
// webhooks: <base>/webhooks/<account>/<secret>. The base is an absolute http or
// https URL; a slash at its end does not count. The address as a whole is a
// secret; errors hold none of it but the base's kind of fault.
func WebhookURL(base, account string, secret Secret) (Secret, error) {
	if err := CheckWebhookSecret(secret); err != nil {
		return "", err
	}
	u, err := url.Parse(base)
	switch {
	case err != nil: // its text may quote a password
		return "", errors.New("is no URL")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return "", errors.New("must be an absolute http or https URL")
	case u.User != nil, u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return "", errors.New("must have no user, query or fragment")
	}
	address := u.JoinPath("webhooks", account, string(secret)).String()
	if len(address) > maxWebhookURL {
		return "", fmt.Errorf("with /webhooks/%s/<secret> it has %d characters; Wazzup takes %d", account, len(address), maxWebhookURL)
	}
	return Secret(address), nil
}
