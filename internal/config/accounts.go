package config

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/goccy/go-yaml/ast"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

const (
	maxAccountsFile   = 1 << 20 // bytes
	maxWebhookSecrets = 2       // the present one and, while it is rotated, its predecessor
)

// Account is one entry of the accounts file: one Wazzup integration. What the
// file leaves out is zero or nil, and means the program's own setting.
type Account struct {
	Name           string
	APIKey         Secret   // empty unless [ReadAPIKeys]
	WebhookSecrets []Secret // none unless [ReadWebhookSecrets]; the first is registered, a second is still taken
	PublicURL      string   // base URL; "" = the webhook is not registered
	Rate           *rate.Rate
	CounterUsers   []json.RawMessage // ids of users whose unanswered counter is followed: JSON strings and numbers
	Channels       map[string]ChannelRates
}

// ChannelRates are the paces of one channel; nil means the program's setting.
type ChannelRates struct {
	Send *rate.Rate
	Bulk *rate.Rate
}

// Reads says which secrets a program needs and so must be able to read: the
// ingest never holds an API key.
type Reads uint8

// The secrets of the accounts file; they add up.
const (
	ReadAPIKeys Reads = 1 << iota
	ReadWebhookSecrets
)

// LoadAccounts reads the accounts file:
//
//	accounts:
//	  - name: main
//	    apiKeyFile: main.key            # relative to this file
//	    webhookSecretFiles: [main.hook] # the present one first
//	    publicUrl: https://hooks.example.org
//	    rate: 500/5s
//	    counterUsers: [17]
//	    channels:
//	      0f3a6b1c-…: {sendRate: 0, bulkRate: 20/1m}
//
// The error is an [*Error] with every fault by line and field, and without the
// text of any secret.
func LoadAccounts(path string, reads Reads) ([]Account, error) {
	r := &accountsReader{
		document:   document{file: path},
		folder:     filepath.Dir(path),
		reads:      reads,
		nameLines:  make(map[string]int),
		keyHolders: make(map[Secret]string),
	}
	r.load()
	if len(r.faults) > 0 {
		return nil, &Error{Faults: r.faults}
	}
	return r.accounts, nil
}

// accountsReader gathers accounts and faults on its way through the file.
type accountsReader struct {
	document
	folder     string
	reads      Reads
	accounts   []Account
	nameLines  map[string]int
	keyHolders map[Secret]string // API key → the account that gave it first
}

func (r *accountsReader) load() {
	data, err := readFile(r.file)
	if err != nil {
		r.add(nil, "", err.Error())
		return
	}
	root := r.parse(data)
	if root == nil {
		return
	}
	listed := false
	r.mapping(root, "", map[string]field{"accounts": func(node ast.Node, path string) {
		listed = true
		r.list(node, path, r.account)
		if len(r.accounts) == 0 && len(r.faults) == 0 {
			r.add(node, path, "is empty")
		}
	}})
	if !listed && len(r.faults) == 0 {
		r.add(nil, "", "lists no accounts")
	}
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, unreadable(err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxAccountsFile+1))
	if err != nil {
		return nil, unreadable(err)
	}
	if len(data) > maxAccountsFile {
		return nil, fmt.Errorf("is larger than %s", FormatBytes(maxAccountsFile))
	}
	return data, nil
}

// account reads one entry: first which fields it has, then each in the order in
// which they need one another.
func (r *accountsReader) account(node ast.Node, path string) {
	if _, ok := node.(ast.MapNode); !ok {
		r.add(node, path, "must be a mapping (name: …)")
		return
	}
	given := make(map[string]ast.Node)
	fields := make(map[string]field)
	for _, key := range []string{"name", "apiKeyFile", "webhookSecretFiles", "publicUrl", "rate", "counterUsers", "channels"} {
		fields[key] = func(n ast.Node, _ string) { given[key] = n }
	}
	r.mapping(node, path, fields)

	account := Account{Channels: make(map[string]ChannelRates)}
	at := func(key string, read field) {
		if n, ok := given[key]; ok {
			read(n, join(path, key))
		}
	}
	required := func(key string) {
		if given[key] == nil {
			r.add(node, join(path, key), "is missing")
		}
	}
	required("name")
	at("name", func(n ast.Node, p string) { account.Name = r.name(n, p) })
	if r.reads&ReadAPIKeys != 0 {
		required("apiKeyFile")
	}
	at("apiKeyFile", func(n ast.Node, p string) { account.APIKey = r.apiKey(n, p, account.Name) })
	at("webhookSecretFiles", func(n ast.Node, p string) { account.WebhookSecrets = r.webhookSecrets(n, p) })
	at("publicUrl", func(n ast.Node, p string) {
		if given["webhookSecretFiles"] == nil {
			r.add(n, p, "needs webhookSecretFiles: the secret is part of the registered URL")
		}
		account.PublicURL = r.publicURL(n, p, account)
	})
	at("rate", func(n ast.Node, p string) { account.Rate = r.rate(n, p) })
	at("counterUsers", func(n ast.Node, p string) { account.CounterUsers = r.userIDs(n, p) })
	at("channels", func(n ast.Node, p string) { r.channels(n, p, account.Channels) })
	r.accounts = append(r.accounts, account)
}

func (r *accountsReader) name(node ast.Node, path string) string {
	name, ok := r.text(node, path)
	if !ok {
		return ""
	}
	if !schema.ValidAccount(name) {
		r.add(node, path, fmt.Sprintf("%q is no account name: 1 to 32 of a-z, 0-9 and -", name))
		return ""
	}
	if line, taken := r.nameLines[name]; taken {
		r.add(node, path, fmt.Sprintf("%q is the name of the account on line %d too", name, line))
		return name
	}
	r.nameLines[name] = node.GetToken().Position.Line
	return name
}

// apiKey reads the key. One key under two names is refused: each would use the
// integration's whole rate.
func (r *accountsReader) apiKey(node ast.Node, path, account string) Secret {
	if r.reads&ReadAPIKeys == 0 {
		r.text(node, path)
		return ""
	}
	key := r.secret(node, path)
	if key == "" {
		return ""
	}
	if holder, taken := r.keyHolders[key]; taken {
		r.add(node, path, fmt.Sprintf("holds the API key of account %q too; one integration is one account", holder))
	} else {
		r.keyHolders[key] = account
	}
	return key
}

func (r *accountsReader) webhookSecrets(node ast.Node, path string) []Secret {
	var secrets []Secret
	files := 0
	r.list(node, path, func(n ast.Node, p string) {
		if files++; files > maxWebhookSecrets {
			r.add(n, p, fmt.Sprintf("is one too many: at most %d secrets are valid at once", maxWebhookSecrets))
			return
		}
		if r.reads&ReadWebhookSecrets == 0 {
			r.text(n, p)
			return
		}
		secret := r.secret(n, p)
		if secret == "" {
			return
		}
		if err := CheckWebhookSecret(secret); err != nil {
			r.add(n, p, err.Error())
			return
		}
		if slices.Contains(secrets, secret) {
			r.add(n, p, "holds the same secret as the one before it")
			return
		}
		secrets = append(secrets, secret)
	})
	if _, isList := node.(*ast.SequenceNode); isList && files == 0 {
		r.add(node, path, "is empty")
	}
	return secrets
}

// secret reads the file that a scalar names, relative to the accounts file; ""
// after a fault.
func (r *accountsReader) secret(node ast.Node, path string) Secret {
	file, ok := r.text(node, path)
	if !ok {
		return ""
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(r.folder, file)
	}
	secret, err := readSecretFile(file)
	if err != nil {
		r.add(node, path, err.Error())
		return ""
	}
	return secret
}

// publicURL checks the whole address where the secrets are read, and the base
// alone, with a stand-in, where they are not.
func (r *accountsReader) publicURL(node ast.Node, path string, account Account) string {
	base, ok := r.text(node, path)
	if !ok {
		return ""
	}
	secret := Secret("-")
	if len(account.WebhookSecrets) > 0 {
		secret = account.WebhookSecrets[0]
	}
	if _, err := WebhookURL(base, account.Name, secret); err != nil {
		r.add(node, path, err.Error())
	}
	return base
}

func (r *accountsReader) rate(node ast.Node, path string) *rate.Rate {
	text, ok := r.text(node, path)
	if !ok {
		return nil
	}
	parsed, err := rate.Parse(text)
	if err != nil {
		r.add(node, path, err.Error())
		return nil
	}
	return &parsed
}

// userIDs reads ids, of which 17 and "17" are one user's.
func (r *accountsReader) userIDs(node ast.Node, path string) []json.RawMessage {
	var ids userIDs
	r.list(node, path, func(n ast.Node, p string) {
		id, ok := r.text(n, p)
		if !ok {
			return
		}
		_, integer := n.(*ast.IntegerNode)
		if err := ids.add(id, integer); err != nil {
			r.add(n, p, err.Error())
		}
	})
	return ids.list
}

func (r *accountsReader) channels(node ast.Node, path string, into map[string]ChannelRates) {
	r.entries(node, path, func(id string, key, value ast.Node) {
		at := join(path, id)
		if !schema.ValidUUID(id) {
			r.add(key, at, "is no channel id: a uuid in lower case")
		}
		var rates ChannelRates
		r.mapping(value, at, map[string]field{
			"sendRate": func(n ast.Node, p string) { rates.Send = r.rate(n, p) },
			"bulkRate": func(n ast.Node, p string) { rates.Bulk = r.rate(n, p) },
		})
		into[id] = rates
	})
}
