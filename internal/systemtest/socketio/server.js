// A server of the unanswered counter, as the vendor's manual describes it, over the
// Socket.IO of a version: `node server.js 2|3|4 <port>`.
//
// It reads lines such as {"user":17,"counter":3} and tells that user's connections.
// It writes a line of JSON when it listens, for each connection that says whose
// counter it wants, and for each that ends, with how many that user then has.
'use strict'

const http = require('node:http')
const readline = require('node:readline')

const [version, port] = process.argv.slice(2)
const library = require(`socket.io-${version}`)
const server = http.createServer()
const io = new (library.Server || library)(server, { pingInterval: 500, pingTimeout: 500, serveClient: false })

const users = new Map() // by the id as JSON: the sockets, and the counter
const user = (id) => {
  const key = JSON.stringify(id)
  if (!users.has(key)) users.set(key, { sockets: new Set(), counter: undefined })
  return users.get(key)
}
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

io.on('connection', (socket) => {
  socket.on('apiV2IframeConnecting', ({ apiKey, userId }) => {
    const u = user(userId)
    u.sockets.add(socket)
    say({ connected: userId, key: apiKey, sockets: u.sockets.size })
    if (u.counter !== undefined) socket.emit('apiV2Notify', { counter: u.counter })
    socket.on('disconnect', () => {
      u.sockets.delete(socket)
      say({ disconnected: userId, sockets: u.sockets.size })
    })
  })
})

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { user: id, counter } = JSON.parse(line)
  const u = user(id)
  u.counter = counter
  for (const socket of u.sockets) socket.emit('apiV2Notify', { counter })
}).on('close', () => process.exit(0))

server.listen(Number(port), '127.0.0.1', () => say({ listening: server.address().port }))
