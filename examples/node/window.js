// Opens the chat window of one customer for one of your users:
//
//   node window.js USER_ID USER_NAME CHAT_ID
import { ask, open } from "./wazzup.js";

const [id, name, chatId] = process.argv.slice(2);
if (!chatId) {
  console.error("usage: node window.js USER_ID USER_NAME CHAT_ID");
  process.exit(2);
}
const nc = await open();
try {
  const chat = { chatType: "whatsapp", chatId };
  const { url } = await ask(nc, "iframe.open", { user: { id, name }, scope: "card", filter: [chat], activeChat: chat });
  console.log(url); // whoever has it can use the window: keep it out of logs
} finally {
  await nc.drain();
}
