// Package counter follows the vendor's counter of unanswered messages: one
// Socket.IO connection a user, kept up for as long as it is wanted.
//
// It speaks as much of the protocol as that takes, over WebSocket alone, and with
// servers of Socket.IO 2, 3 and 4 alike, since nobody says which one the vendor
// runs. Read packet.go (what travels), conn.go (one connection), follow.go (one
// after the other).
//
// # Protocol
//
// Engine.IO 4 is asked for; a 2.x server, which is Engine.IO 3, does not mind. The
// two differ in who begins, and in who keeps the connection alive:
//
//	                  2.x                           3.x, 4.x
//	open              server: 0{"pingInterval",…}   the same
//	connect           server: 40                    client: 40, server: 40{"sid":…}
//	keeping alive     client: 2, server: 3          server: 2, client: 3
//	event             42["name",argument]           the same
//
// So after the open packet the client waits a moment for a 40 that it did not ask
// for. Whichever way a connection was made, the data of the server's 40 says which
// of the two it is.
package counter
