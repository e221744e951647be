// Makes contacts known to Wazzup, and lists all that it knows:
//
//   node contacts.js [FILE]
import { readFile } from "node:fs/promises";
import { ask, open, outcome } from "./wazzup.js";

const file = process.argv[2] ?? new URL("../contacts.json", import.meta.url);
const contacts = JSON.parse(await readFile(file, "utf8"));
const nc = await open();
try {
  // No id: an id such as contact-17 would make every later update a duplicate.
  const event = await outcome(nc, "sync.contacts.upsert", contacts, { stored: (ack) => console.log(`stored as ${ack.seq}`) });
  console.log(`${contacts.length} contacts: ${event?.state ?? "still under way"}`);
  for (const { id, error } of event?.items ?? []) console.log(`  ${id}: ${error.code}`);
  for (const fault of event?.error?.faults ?? []) console.log(`  ${fault.field}: ${fault.code}`);
  if (event?.state !== "done") process.exitCode = 1;

  let known = 0;
  for (let offset = 0; offset !== undefined; ) {
    const page = await ask(nc, "contacts.list", { offset });
    known += page.items.length;
    offset = page.next;
  }
  console.log(`Wazzup knows ${known}`);
} finally {
  await nc.drain();
}
