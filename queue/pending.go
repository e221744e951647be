package queue

import (
	"strconv"
	"strings"
)

// Pending is how many messages of the delivery's source had not been delivered when
// this one was: by the server's own count, which came with the message. It is 0 for
// what no consumer brought.
func (d *Delivery) Pending() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	tokens := strings.Split(d.reply, ".")
	at := 8
	if len(tokens) >= 11 { // with domain and account hash in front, see parseAckReply
		at = 10
	}
	if len(tokens) <= at || tokens[0] != "$JS" {
		return 0
	}
	n, err := strconv.ParseUint(tokens[at], 10, 64)
	if err != nil {
		return 0
	}
	return n
}
