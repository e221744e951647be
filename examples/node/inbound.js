// Prints what customers write, until Ctrl-C:
//
//   node inbound.js [DURABLE]
import { account, events, open } from "./wazzup.js";

const nc = await open();
const messages = await events(nc, process.argv[2] ?? "node-inbound", "message.in.>");
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => messages.close());
for await (const m of messages) {
  if (m.subject.startsWith(`wazzup.${account}.evt.message.in.`)) { // a consumer that somebody else has made may bring more
    const { chatType, chatId, text, content } = m.json();
    console.log(`${chatType} ${chatId}: ${text || content}`);
  }
  m.ack(); // after the work: what was not acknowledged comes again
}
await nc.drain();
