// Sends one message and waits for what becomes of it:
//
//   node send.js CHANNEL CHAT_ID TEXT [ID] [EXPIRE_AT]
//
// Exit codes: 0 sent; 1 it will never be; 75 not stored, or still under way.
import { randomUUID } from "node:crypto";
import { NotStored, open, outcome } from "./wazzup.js";

const [channelId, chatId, text, id = randomUUID(), expireAt] = process.argv.slice(2);
if (!text) {
  console.error("usage: node send.js CHANNEL CHAT_ID TEXT [ID] [EXPIRE_AT]");
  process.exit(2);
}
const nc = await open();
try {
  // A program keeps the command, with its id, until it is stored; see service.js.
  const command = { id, chatType: "whatsapp", chatId, text, expireAt };
  const event = await outcome(nc, `send.${channelId}`, command, {
    patience: Number(process.env.PATIENCE ?? 30) * 1000,
    stored: (ack) => console.log(`stored as ${ack.seq}`),
  });
  process.exitCode = tell(event);
} catch (err) {
  if (!(err instanceof NotStored)) throw err;
  console.error(`not stored: ${err.message}`);
  process.exitCode = err.temporary ? 75 : 1;
} finally {
  await nc.drain();
}

function tell(event) {
  switch (event?.state) {
    case undefined:
      console.log("still under way");
      return 75;
    case "sent":
      console.log(`sent ${event.messageId}`);
      return 0;
    case "duplicate": // the id was used before, by a try whose answer was lost
      console.log(`duplicate of one that is ${event.original.state}`);
      return 0;
    case "invalid":
      for (const fault of event.error.faults) console.log(`invalid ${fault.field}: ${fault.code}: ${fault.description}`);
      return 1;
    default: // rejected, expired, cancelled, dead
      console.log([event.state, event.error?.code, event.error?.description].filter(Boolean).join(" "));
      return 1;
  }
}
