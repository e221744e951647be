// What a program needs beside the NATS client in order to work with
// wazzup-relay. Copy it, and change it to your taste.
import { setTimeout as pause } from "node:timers/promises";
import { AckPolicy, jetstream, JetStreamApiCodes, JetStreamApiError, jetstreamManager } from "@nats-io/jetstream";
import { connect, createInbox, headers, RequestError } from "@nats-io/transport-node";

export const account = process.env.WAZZUP_ACCOUNT ?? "main";

// The states in which a command has ended; see docs/events.md.
export const FINAL = new Set(["sent", "done", "rejected", "invalid", "duplicate", "expired", "cancelled", "dead"]);

export const open = () =>
  connect({
    servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222",
    user: process.env.NATS_USER,
    pass: process.env.NATS_PASSWORD,
    inboxPrefix: process.env.NATS_INBOX_PREFIX, // where users have inboxes of their own: _INBOX.main-producer
    maxReconnectAttempts: -1,
  });

// inbox is a subject on which this user may listen.
export const inbox = () => createInbox(process.env.NATS_INBOX_PREFIX);

// isNobody tells of an error that nobody took the message: "no responders".
const isNobody = (err) => err instanceof RequestError && err.isNoResponders();

// NotStored says that a command is surely not stored. When temporary, the
// account's command stream is full: the same command may be taken later.
export class NotStored extends Error {
  constructor(message, temporary, cause) {
    super(message, { cause });
    this.temporary = temporary;
  }
}

// publish returns NATS's acknowledgement, {stream, seq}: from then on the command
// ends in exactly one final event. While the stream is full, or it is not known
// whether the command was stored, it tries again for as long as `patience` (ms)
// lasts, in the latter case only with an id, under which a repeat does no harm.
export async function publish(nc, subject, command, { replyTo, patience = 30_000 } = {}) {
  const options = {};
  if (replyTo) {
    options.headers = headers();
    options.headers.set("Wazzup-Reply-To", replyTo);
  }
  const body = JSON.stringify(command);
  const end = Date.now() + patience;
  for (let wait = 500; ; wait = Math.min(2 * wait, 30_000)) {
    try {
      return await jetstream(nc).publish(`wazzup.${account}.cmd.${subject}`, body, options);
    } catch (err) {
      if (isNobody(err.cause)) {
        throw new NotStored(`there is no ${subject} of account ${account}, or no worker has ever served it`, false, err);
      }
      const refused = err instanceof JetStreamApiError;
      const after = wait * (0.5 + Math.random());
      if ((!refused && !command.id) || Date.now() + after > end) {
        throw refused ? new NotStored(err.message, true, err) : err;
      }
      await pause(after);
    }
  }
}

// outcome publishes a command and returns its final event, or null if there is
// none within `timeout` (ms): then the event will come, and a durable consumer
// of the events gets it. `stored` is told of the acknowledgement.
export async function outcome(nc, subject, command, { timeout = 60_000, stored = () => {}, ...options } = {}) {
  const replyTo = inbox();
  const replies = nc.subscribe(replyTo); // before the command is published
  let timer;
  try {
    stored(await publish(nc, subject, command, { replyTo, ...options }));
    timer = setTimeout(() => replies.unsubscribe(), timeout);
    for await (const reply of replies) {
      const event = reply.json();
      if (FINAL.has(event.state)) return event;
    }
    return null;
  } finally {
    clearTimeout(timer);
    replies.unsubscribe();
  }
}

// events returns the messages of a durable consumer, which remembers what was
// acknowledged: it goes on from there after any stop, and begins with the oldest
// event that is kept. What was not acknowledged within its ack wait (30 s) comes
// again, with the same ce-id. The consumer is made once; later changes are yours. A
// user who may make none is given one by an administrator, of the user's own name.
export async function events(nc, durable, ...subjects) {
  const stream = `wazzup-${account}-records`;
  const { consumers } = await jetstreamManager(nc, { checkAPI: false }); // the check needs a right of its own
  try {
    await consumers.info(stream, durable);
  } catch (err) {
    if (err.code !== JetStreamApiCodes.ConsumerNotFound) throw err;
    await consumers.add(stream, {
      durable_name: durable,
      ack_policy: AckPolicy.Explicit,
      filter_subjects: subjects.map((s) => `wazzup.${account}.evt.${s}`),
    });
  }
  return (await jetstream(nc).consumers.get(stream, durable)).consume();
}

// ask sends a request and returns its answer. While the account changes hands,
// for a few seconds, nobody answers.
export async function ask(nc, name, question = {}) {
  for (let tries = 1; ; tries++) {
    try {
      const answer = await nc.request(`wazzup.${account}.api.${name}`, JSON.stringify(question), { timeout: 30_000 });
      if (!answer.headers?.has("Nats-Service-Error-Code")) return answer.json();
      const { code, description } = answer.json().error;
      throw new Error(`${name}: ${code}: ${description}`);
    } catch (err) {
      if (!isNobody(err) || tries === 20) throw err;
      await pause(500);
    }
  }
}
