// A service that misses nothing: it may be killed at any moment and started again.
//
//   node service.js FOLDER
//
// FOLDER/orders.ndjson has a message on each line: {"id", "channelId", "chatType",
// "chatId", "text"}. FOLDER/journal.ndjson is what the service has done; in yours
// both are tables of its database. It ends, and prints its counts, when it is
// told to (SIGTERM, Ctrl-C).
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { ask, events, FINAL, inbox, open, publish } from "./wazzup.js";

const folder = process.argv[2];
if (!folder) {
  console.error("usage: node service.js FOLDER");
  process.exit(2);
}
const lines = (file) => (existsSync(file) ? readFileSync(file, "utf8").split("\n").filter(Boolean).map(JSON.parse) : []);
const orders = lines(`${folder}/orders.ndjson`);

// What is known, over all runs.
const tried = new Map(); // by the order's number: how often it was published
const stored = new Map(); // by the order's number: its number in the stream
const seen = new Map(); // by ce-id: the event's state, or "in"
const counts = { runs: 0, again: 0, heard: 0, repeated: 0, contacts: 0, windows: 0 };

function take(entry) {
  if ("run" in entry) counts.runs++;
  if ("trying" in entry) tried.set(entry.trying, (tried.get(entry.trying) ?? 0) + 1);
  if ("stored" in entry) stored.set(entry.stored, entry.seq);
  if ("event" in entry) seen.set(entry.event, entry.state);
  if ("again" in entry) counts.again++;
  if ("heard" in entry) counts.heard++;
  if ("repeated" in entry) counts.repeated++;
  if ("contacts" in entry) counts.contacts = entry.contacts;
  if ("window" in entry) counts.windows++;
}

const journal = `${folder}/journal.ndjson`;
lines(journal).forEach(take);
function note(entry) {
  const line = JSON.stringify(entry);
  appendFileSync(journal, line + "\n");
  take(entry);
  console.log(line);
}

// send publishes the orders of one chat, one after the other.
async function send(chat, replyTo) {
  for (const n of chat) {
    const { channelId, ...command } = orders[n];
    if (stored.has(n)) continue;
    if (tried.has(n)) {
      if (!command.id) continue; // it may be stored: without an id, a repeat would be another message
      note({ again: n });
    }
    note({ trying: n });
    const { seq } = await publish(nc, `send.${channelId}`, command, { replyTo, patience: Infinity });
    note({ stored: n, seq });
  }
}

// hear notes how our messages ended, at once but only while we listen.
async function hear(replies) {
  for await (const reply of replies) {
    const { seq, state } = reply.json();
    if (FINAL.has(state)) note({ heard: seq, state });
  }
}

// consume takes every event once: each is noted before it is acknowledged, and
// what comes again is known by its ce-id.
async function consume(messages) {
  for await (const m of messages) {
    const id = m.headers.get("ce-id");
    if (seen.has(id)) note({ repeated: id });
    else note({ event: id, state: m.headers.get("ce-type").split(".").at(-1) });
    m.ack();
  }
}

// desk looks up who is known, and opens the window in which a colleague answers
// them. Its address is for that colleague only: it is not noted.
async function desk() {
  const { items } = await ask(nc, "contacts.list");
  note({ contacts: items.length });
  const { url } = await ask(nc, "iframe.open", { user: { id: "222555", name: "Ann" }, scope: "global" });
  note({ window: new URL(url).host });
}

const nc = await open();
note({ run: process.pid });
const messages = await events(nc, "node-service", "message.in.>", "command.*.send.>");
const replyTo = inbox();
const replies = nc.subscribe(replyTo);
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    replies.unsubscribe();
    messages.close();
  });
}

const chats = new Map(); // by chat: the numbers of its orders
orders.forEach(({ chatId }, n) => chats.set(chatId, [...(chats.get(chatId) ?? []), n]));
// What fails here ends the service: it is started again, and goes on.
await Promise.all([desk(), consume(messages), hear(replies), ...[...chats.values()].map((chat) => send(chat, replyTo))]);
await nc.drain();

const states = {};
for (const state of seen.values()) states[state] = (states[state] ?? 0) + 1;
console.log(JSON.stringify({ ...counts, orders: orders.length, tried: tried.size, stored: stored.size, events: seen.size, states }));
