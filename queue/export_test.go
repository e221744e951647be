package queue

// ParsePubAck opens the reading of PubAcks to tests.
func ParsePubAck(data []byte) (seq uint64, duplicate bool, err error) {
	ack, err := parsePubAck(data)
	return ack.seq, ack.duplicate, err
}
