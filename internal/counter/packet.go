package counter

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"time"
)

// Types of Engine.IO packets, and of the Socket.IO packets in its messages.
const (
	engineOpen    = '0'
	engineClose   = '1'
	enginePing    = '2'
	enginePong    = '3'
	engineMessage = '4'

	socketConnect      = '0'
	socketDisconnect   = '1'
	socketEvent        = '2'
	socketConnectError = '4'
)

// Names of events (manual: Unanswered messages counter).
const (
	eventConnecting = "apiV2IframeConnecting"
	eventNotify     = "apiV2Notify"
)

// Times of a server that does not say them, and bounds of those that it says.
const (
	defaultPingInterval = 25 * time.Second
	defaultPingTimeout  = 20 * time.Second
	minPing             = 50 * time.Millisecond
	maxPing             = 5 * time.Minute
)

// opening is the server's first packet.
type opening struct{ interval, timeout time.Duration }

// parseOpening reads `0{"sid":…,"pingInterval":25000,"pingTimeout":20000,…}`.
func parseOpening(frame []byte) (opening, error) {
	if len(frame) == 0 || frame[0] != engineOpen {
		return opening{}, errProtocol
	}
	var body struct {
		Interval *float64 `json:"pingInterval"` // milliseconds
		Timeout  *float64 `json:"pingTimeout"`
	}
	if json.Unmarshal(frame[1:], &body) != nil {
		return opening{}, errProtocol
	}
	return opening{bounded(body.Interval, defaultPingInterval), bounded(body.Timeout, defaultPingTimeout)}, nil
}

func bounded(ms *float64, def time.Duration) time.Duration {
	if ms == nil || !(*ms > 0) {
		return def
	}
	if *ms >= float64(maxPing.Milliseconds()) {
		return maxPing
	}
	return max(time.Duration(*ms*float64(time.Millisecond)), minPing)
}

// kind is what a frame means to this client.
type kind int

const (
	other        kind = iota // nothing
	ping                     // the server wants a pong
	connected                // the namespace is joined
	notified                 // the counter has a value
	disconnected             // the server ends the connection
)

// packet is a frame that was read.
type packet struct {
	kind    kind
	legacy  bool  // of connected: the server is a 2.x, which wants to be pinged
	counter int64 // of notified
}

var (
	errProtocol = errors.New("the server does not speak Socket.IO")
	errCounter  = errors.New("the server sent a counter that is no number")
)

// parse reads a frame after the opening. What this client has no use for, other
// namespaces included, is other. The error is errCounter: of a notification that
// cannot be understood.
func parse(frame []byte) (packet, error) {
	if len(frame) == 0 {
		return packet{}, nil
	}
	switch frame[0] {
	case enginePing:
		return packet{kind: ping}, nil
	case engineClose:
		return packet{kind: disconnected}, nil
	case engineMessage:
		return parseMessage(frame[1:])
	}
	return packet{}, nil
}

func parseMessage(m []byte) (packet, error) {
	if len(m) == 0 {
		return packet{}, nil
	}
	data := m[1:]
	if len(data) > 0 && data[0] == '/' { // of a namespace, which ends at a comma
		return packet{}, nil
	}
	switch m[0] {
	case socketConnect:
		return packet{kind: connected, legacy: !namesSession(data)}, nil
	case socketDisconnect, socketConnectError:
		return packet{kind: disconnected}, nil
	case socketEvent:
		return parseEvent(data)
	}
	return packet{}, nil
}

// namesSession reports whether the data of a connect packet has the session's id,
// which 2.x servers do not send.
func namesSession(data []byte) bool {
	var body struct {
		SID string `json:"sid"`
	}
	return json.Unmarshal(data, &body) == nil && body.SID != ""
}

// parseEvent reads `["apiV2Notify",{"counter":3}]`, which an acknowledgement's id
// may precede.
func parseEvent(data []byte) (packet, error) {
	data = bytes.TrimLeft(data, "0123456789")
	var parts []json.RawMessage
	var name string
	isEvent := json.Unmarshal(data, &parts) == nil && len(parts) > 0 && json.Unmarshal(parts[0], &name) == nil
	if !isEvent || name != eventNotify {
		return packet{}, nil
	}
	var body struct {
		Counter json.RawMessage `json:"counter"`
	}
	if len(parts) < 2 || json.Unmarshal(parts[1], &body) != nil {
		return packet{}, errCounter
	}
	if n, err := strconv.ParseInt(string(bytes.Trim(body.Counter, `"`)), 10, 64); err == nil {
		return packet{kind: notified, counter: n}, nil
	}
	return packet{}, errCounter
}

// Frames that the client sends.
func pingFrame() []byte    { return []byte{enginePing} }
func pongFrame() []byte    { return []byte{enginePong} }
func connectFrame() []byte { return []byte{engineMessage, socketConnect} }

// connectingFrame says whose counter is wanted. It holds the key: never log it.
func connectingFrame(key string, user json.RawMessage) ([]byte, error) {
	event, err := json.Marshal([]any{eventConnecting, struct {
		Key  string          `json:"apiKey"`
		User json.RawMessage `json:"userId"`
	}{key, user}})
	if err != nil {
		return nil, errors.New("the user's id is no JSON")
	}
	return append([]byte{engineMessage, socketEvent}, event...), nil
}
