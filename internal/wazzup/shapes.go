package wazzup

import (
	"encoding/json"
	"errors"
	"strings"
)

// States of a channel (manual: Obtaining the channel list). Others may come; they
// mean "not active".
const (
	ChannelActive           = "active"
	ChannelDisabled         = "disabled"
	ChannelPhoneUnavailable = "phoneUnavailable"
	ChannelQR               = "qr"
	ChannelOpenElsewhere    = "openElsewhere"
	ChannelNotEnoughMoney   = "notEnoughMoney"
)

// channelState is a state as the manual spells it, where it differs in case or
// underscores only: the vendor's spelling of its codes wobbles so. Any other state is
// kept as it is.
func channelState(text string) string {
	plain := strings.ReplaceAll(text, "_", "")
	for _, known := range []string{
		ChannelActive, ChannelDisabled, ChannelPhoneUnavailable, ChannelQR, ChannelOpenElsewhere, ChannelNotEnoughMoney,
	} {
		if strings.EqualFold(plain, known) {
			return known
		}
	}
	return text
}

// Message is the body of POST /send_message.
type Message struct {
	ChannelID    string
	ChatType     string
	ChatID       string
	Text         string
	Content      string // a link
	RefMessageID string
}

// Channel is an item of GET /channels and of the webhooks `channels` and
// `channelsList`.
type Channel struct {
	ChannelID string
	Transport string
	PlainID   string
	State     string
}

// UnmarshalJSON takes numbers where the manual has strings.
func (c *Channel) UnmarshalJSON(raw []byte) error {
	var wire struct {
		ChannelID json.RawMessage `json:"channelId"`
		Transport json.RawMessage `json:"transport"`
		PlainID   json.RawMessage `json:"plainId"`
		State     json.RawMessage `json:"state"`
	}
	if err := json.Unmarshal(raw, &wire); err != nil {
		return err
	}
	*c = Channel{
		ChannelID: strings.ToLower(codeText(wire.ChannelID)),
		Transport: codeText(wire.Transport),
		PlainID:   codeText(wire.PlainID),
		State:     channelState(codeText(wire.State)),
	}
	return nil
}

// DecodeChannels reads the body of GET /channels. An item without an id is an
// error: a list that is not understood must not pass for an empty one.
func DecodeChannels(body []byte) ([]Channel, error) {
	var channels []Channel
	if err := json.Unmarshal(body, &channels); err != nil || channels == nil {
		return nil, errors.New("wazzup: the channel list is not understood")
	}
	for _, c := range channels {
		if c.ChannelID == "" {
			return nil, errors.New("wazzup: a channel of the list has no id")
		}
	}
	return channels, nil
}

// Webhooks is the answer of GET and PUT /webhooks.
type Webhooks struct {
	URL     string `json:"webhooksUrl"` // empty: switched off
	Changed bool   `json:"webhooksUrlChanged"`
}

// DecodeWebhooks reads the body of GET or PUT /webhooks.
func DecodeWebhooks(body []byte) (Webhooks, error) {
	var w Webhooks
	if err := json.Unmarshal(body, &w); err != nil {
		return Webhooks{}, errors.New("wazzup: the answer about webhooks is not understood")
	}
	return w, nil
}

// DecodeIframe reads the body of POST /iframe, the address of the chat window. It
// is undocumented; working integrations read {"url"}.
func DecodeIframe(body []byte) (string, error) {
	var window struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal(body, &window); err != nil || window.URL == "" {
		return "", errors.New("wazzup: the answer holds no address of a chat window")
	}
	return window.URL, nil
}
