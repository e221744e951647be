package queue

import "time"

// ParsePubAck opens the reading of PubAcks to tests.
func ParsePubAck(data []byte) (seq uint64, duplicate bool, err error) {
	ack, err := parsePubAck(data)
	return ack.seq, ack.duplicate, err
}

// SetQuiet shortens how long a publisher hears nothing before it asks.
func (p *Publisher) SetQuiet(d time.Duration) { p.quiet = d }
